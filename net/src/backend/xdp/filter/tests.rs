//! The program, run by the kernel on frames: a table of them, and random ones against a naive model
//! of the rule.
//!
//! Without a socket a frame that is a query is passed as well, and counted as unserved: so the
//! decision is seen in the counters.

use std::os::fd::AsFd;

use proptest::prelude::*;

use super::*;
use crate::backend::Xdp;
use crate::backend::contract::runs_here;
use crate::sys::umem::Umem;
use crate::sys::xsk::Xsk;

const MAC: [u8; 6] = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];
const MAX_FRAME: u32 = 1536;
const MTU: u32 = 1500;

const IP: u16 = 0x0800;
const IP6: u16 = 0x86dd;
const TAG: u16 = 0x8100;

fn targets() -> Vec<Target> {
    let target = |vlan, address: &str, port| {
        let address = address.parse().unwrap();
        Target { vlan, address, port, interface: 1, mtu: MTU }
    };
    vec![
        target(None, "192.0.2.53", 53),
        target(None, "192.0.2.54", 53),
        target(None, "192.0.2.54", 5353),
        target(None, "2001:db8::53", 53),
        target(None, "2001:db8::54", 53),
        target(Some(7), "198.51.100.53", 53),
        target(Some(7), "2001:db8:7::53", 53),
        target(Some(8), "2001:db8:8::53", 53),
        target(Some(4094), "203.0.113.53", 5353),
    ]
}

/// A frame: the MAC address, tags, and the packet with its ethertype.
fn frame(tags: &[u16], ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = MAC.to_vec();
    frame.extend([0x02, 0, 0, 0, 0, 1]);
    for tag in tags {
        frame.extend(TAG.to_be_bytes());
        frame.extend(tag.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

/// UDP to a port, with a payload of this length.
fn udp(port: u16, payload: usize) -> Vec<u8> {
    let mut udp = 40_000u16.to_be_bytes().to_vec();
    udp.extend(port.to_be_bytes());
    udp.extend((8 + payload as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.resize(8 + payload, 0xab);
    udp
}

fn v4(to: &str, rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + rest.len() as u16).to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, UDP, 0, 0, 192, 0, 2, 1]);
    packet.extend(to.parse::<Ipv4Addr>().unwrap().octets());
    packet.extend(rest);
    packet
}

fn v6(to: &str, rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((rest.len() as u16).to_be_bytes());
    packet.extend([UDP, 64]);
    packet.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    packet.extend(to.parse::<Ipv6Addr>().unwrap().octets());
    packet.extend(rest);
    packet
}

fn query_v4() -> Vec<u8> {
    frame(&[], IP, &v4("192.0.2.53", &udp(53, 30)))
}

fn query_v6() -> Vec<u8> {
    frame(&[], IP6, &v6("2001:db8::53", &udp(53, 30)))
}

fn query_tagged(tag: u16) -> Vec<u8> {
    frame(&[tag], IP, &v4("198.51.100.53", &udp(53, 30)))
}

/// The same frame with some bytes from an offset on replaced.
fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// What the frame is, and whether it is a query for a socket.
fn table() -> Vec<(&'static str, bool, Vec<u8>)> {
    let to_v4 = |tags: &[u16], to, port| frame(tags, IP, &v4(to, &udp(port, 30)));
    let to_v6 = |tags: &[u16], to, port| frame(tags, IP6, &v6(to, &udp(port, 30)));
    vec![
        ("IPv4", true, query_v4()),
        ("IPv6", true, query_v6()),
        ("IPv4, the second address", true, to_v4(&[], "192.0.2.54", 53)),
        ("IPv4, the second port", true, to_v4(&[], "192.0.2.54", 5353)),
        ("IPv6, the second address", true, to_v6(&[], "2001:db8::54", 53)),
        ("IPv4, another target's port", false, to_v4(&[], "192.0.2.53", 5353)),
        ("IPv4, another port", false, to_v4(&[], "192.0.2.53", 54)),
        ("IPv4, another address", false, to_v4(&[], "192.0.2.52", 53)),
        ("IPv4, broadcast address", false, to_v4(&[], "255.255.255.255", 53)),
        ("IPv6, another port", false, to_v6(&[], "2001:db8::53", 54)),
        ("IPv6, another upper half", false, to_v6(&[], "2001:db9::53", 53)),
        ("IPv6, another lower half", false, to_v6(&[], "2001:db8::55", 53)),
        ("IPv6, the address mapped", false, to_v6(&[], "::ffff:192.0.2.53", 53)),
        ("another MAC address, its first byte", false, with(query_v4(), 0, &[0x06])),
        ("another MAC address, its last byte", false, with(query_v4(), 5, &[0x56])),
        ("broadcast MAC address", false, with(query_v4(), 0, &[0xff; 6])),
        ("multicast MAC address", false, with(query_v6(), 0, &[0x33, 0x33, 0, 0, 0, 1])),
        ("IPv4, TCP", false, with(query_v4(), 23, &[6])),
        ("IPv4, ICMP", false, with(query_v4(), 23, &[1])),
        ("IPv6, TCP", false, with(query_v6(), 20, &[6])),
        ("IPv6, hop-by-hop options", false, with(query_v6(), 20, &[0])),
        ("IPv6, a fragment header", false, with(query_v6(), 20, &[44])),
        ("IPv6, destination options", false, with(query_v6(), 20, &[60])),
        ("IPv4, options", false, with(query_v4(), 14, &[0x46])),
        ("IPv4, a header too short", false, with(query_v4(), 14, &[0x44])),
        ("version 6 in IPv4", false, with(query_v4(), 14, &[0x65])),
        ("version 4 in IPv6", false, with(query_v6(), 14, &[0x40])),
        ("IPv4, the first fragment", false, with(query_v4(), 20, &[0x20])),
        ("IPv4, a later fragment", false, with(query_v4(), 20, &[0x20, 0x08])),
        ("IPv4, the last fragment", false, with(query_v4(), 20, &[0x00, 0x08])),
        ("IPv4, don't fragment", true, with(query_v4(), 20, &[0x40])),
        ("IPv4, the reserved bit", true, with(query_v4(), 20, &[0x80])),
        ("IPv4, another TTL, type of service and id", true, {
            with(with(with(query_v4(), 15, &[0xff]), 18, &[0xff, 0xff]), 22, &[1])
        }),
        ("IPv6, traffic class and flow label", true, with(query_v6(), 14, &[0x6f, 0xff, 0xff])),
        ("IPv4, UDP's length beyond the frame", true, with(query_v4(), 38, &[0xff, 0xff])),
        ("IPv4, a total length beyond the frame", true, with(query_v4(), 16, &[0xff, 0xff])),
        ("IPv4, padding", true, [query_v4(), vec![0; 12]].concat()),
        ("ARP", false, with(query_v4(), 12, &[0x08, 0x06])),
        ("a length in place of the ethertype", false, with(query_v4(), 12, &[0, 60])),
        ("a tag", true, query_tagged(7)),
        ("a tag with priority", true, query_tagged(7 | 0xf000)),
        ("another tag", false, query_tagged(9)),
        ("a tag of another target", false, query_tagged(8)),
        ("the priority tag", false, to_v4(&[0], "192.0.2.53", 53)),
        ("a tag before an address without", false, to_v4(&[7], "192.0.2.53", 53)),
        ("no tag before an address with", false, to_v4(&[], "198.51.100.53", 53)),
        ("a tag, IPv6", true, to_v6(&[7], "2001:db8:7::53", 53)),
        ("a tag with IPv6 alone, IPv6", true, to_v6(&[8], "2001:db8:8::53", 53)),
        ("a tag with IPv6 alone, IPv4", false, to_v4(&[8], "198.51.100.53", 53)),
        ("the highest tag", true, to_v4(&[4094], "203.0.113.53", 5353)),
        ("a tag, options", false, with(query_tagged(7), 18, &[0x46])),
        ("a tag, a fragment", false, with(query_tagged(7), 24, &[0x20])),
        ("a tag, TCP", false, with(query_tagged(7), 27, &[6])),
        ("two tags", false, to_v4(&[7, 7], "198.51.100.53", 53)),
        ("a service tag", false, with(query_tagged(7), 12, &[0x88, 0xa8])),
        ("IPv4, the shortest", true, query_v4()[..42].to_vec()),
        ("IPv6, the shortest", true, query_v6()[..62].to_vec()),
        ("a tag, the shortest", true, query_tagged(7)[..46].to_vec()),
        ("the longest", true, frame(&[], IP, &v4("192.0.2.53", &udp(53, 1536 - 42)))),
        ("one byte too long", false, frame(&[], IP, &v4("192.0.2.53", &udp(53, 1537 - 42)))),
        ("jumbo", false, frame(&[], IP6, &v6("2001:db8::53", &udp(53, 3000)))),
    ]
}

/// The rule, as the module says it.
fn is_query(frame: &[u8], targets: &[Target]) -> bool {
    let bytes = |at: usize, len: usize| frame.get(at..at + len);
    let number = |at| bytes(at, 2).map(|two| u16::from(two[0]) << 8 | u16::from(two[1]));
    let addressed = |ip: usize, vlan| -> Option<(IpAddr, u16)> {
        let _: Option<u16> = vlan;
        match number(ip - 2)? {
            IP => {
                let header = bytes(ip, 28)?;
                let fragment = number(ip + 6)? & 0x3fff;
                if header[0] != 0x45 || header[9] != UDP || fragment != 0 {
                    return None;
                }
                let address: [u8; 4] = header[16..20].try_into().ok()?;
                Some((address.into(), number(ip + 22)?))
            }
            IP6 => {
                let header = bytes(ip, 48)?;
                if header[0] >> 4 != 6 || header[6] != UDP {
                    return None;
                }
                let address: [u8; 16] = header[24..40].try_into().ok()?;
                Some((address.into(), number(ip + 42)?))
            }
            _ => None,
        }
    };
    let vlan = (number(12) == Some(TAG)).then(|| number(14).map(|tag| tag & 0xfff)).flatten();
    let ip = if vlan.is_some() { 18 } else { 14 };
    frame.len() <= MAX_FRAME as usize
        && frame[..6] == MAC
        && addressed(ip, vlan).is_some_and(|(address, port)| {
            targets.contains(&Target { vlan, address, port, interface: 1, mtu: MTU })
        })
}

/// Runs the filter on a frame, and says whether it took it for a query. No socket is there.
fn taken(filter: &Filter, frame: &[u8]) -> bool {
    let before = filter.counts().unwrap();
    let (action, _) = filter.program.test_run(frame, 1).unwrap();
    let after = filter.counts().unwrap();
    assert_eq!(action, XDP_PASS as u32);
    assert_eq!(after.redirected, before.redirected);
    let unserved = after.unserved - before.unserved;
    assert_eq!(unserved + after.passed - before.passed, 1, "each frame is counted once");
    unserved == 1
}

#[test]
fn the_frames_of_the_table() {
    if !runs_here::<Xdp>() {
        return;
    }
    let targets = targets();
    let filter = Filter::load(MAC, &targets, 1, MAX_FRAME).unwrap();
    for (name, expected, frame) in table() {
        assert_eq!(taken(&filter, &frame), expected, "{name}");
        assert_eq!(is_query(&frame, &targets), expected, "{name}, by the model");
    }
    // The kernel tries no program on frames shorter than Ethernet's header.
    for (query, shortest) in [(query_v4(), 42), (query_v6(), 62), (query_tagged(7), 46)] {
        for len in 14..query.len() {
            assert_eq!(taken(&filter, &query[..len]), len >= shortest, "{len} bytes");
        }
    }
}

#[test]
fn any_one_bit_of_the_headers() {
    if !runs_here::<Xdp>() {
        return;
    }
    let targets = targets();
    let filter = Filter::load(MAC, &targets, 1, MAX_FRAME).unwrap();
    for (name, _, mut frame) in table() {
        for bit in 0..8 * frame.len().min(66) {
            frame[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(taken(&filter, &frame), is_query(&frame, &targets), "{name}, bit {bit}");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn with_a_socket_queries_are_redirected() {
    if !runs_here::<Xdp>() {
        return;
    }
    let filter = Filter::load(MAC, &targets(), 2, MAX_FRAME).unwrap();
    // The program is run as if the frame came by queue 0. The map takes a socket before it is bound.
    let (umem, _frames) = Umem::new(2048, 64).unwrap();
    let socket = Xsk::open(umem, 64).unwrap();
    filter.serve(1, socket.as_fd()).unwrap();
    assert_eq!(filter.program.test_run(&query_v4(), 1).unwrap().0, XDP_PASS as u32);
    filter.serve(0, socket.as_fd()).unwrap();
    for (name, expected, frame) in table() {
        let action = if expected { XDP_REDIRECT } else { XDP_PASS };
        assert_eq!(filter.program.test_run(&frame, 1).unwrap().0, action as u32, "{name}");
    }
    let queries = table().iter().filter(|(_, expected, _)| *expected).count() as u64;
    let passed = table().len() as u64 - queries;
    let counts = FilterCounts { redirected: queries, unserved: 1, passed };
    assert_eq!(filter.counts(), Some(counts));
    assert!(filter.serve(2, socket.as_fd()).is_err(), "there are two queues");
}

#[test]
fn as_many_targets_as_there_may_be() {
    if !runs_here::<Xdp>() {
        return;
    }
    // The longest program: each in a VLAN of its own, with a port of its own.
    let address = |at: usize| Ipv6Addr::from(0x2001_0db8 << 96 | at as u128);
    let target = |at: usize| Target {
        vlan: Some(1 + at as u16),
        address: address(at).into(),
        interface: 1,
        mtu: MTU,
        port: 1000 + at as u16,
    };
    let targets: Vec<_> = (0..MAX_TARGETS).map(target).collect();
    let filter = Filter::load(MAC, &targets, 64, MAX_FRAME).unwrap();
    for at in [0, 1, MAX_TARGETS - 1] {
        let packet = v6(&address(at).to_string(), &udp(1000 + at as u16, 30));
        assert!(taken(&filter, &frame(&[1 + at as u16], IP6, &packet)));
        assert!(!taken(&filter, &frame(&[2 + at as u16], IP6, &packet)));
    }
    // And all in one.
    let together = |target: &Target| Target { vlan: None, port: 53, ..*target };
    let targets: Vec<_> = targets.iter().map(together).collect();
    let filter = Filter::load(MAC, &targets, 64, MAX_FRAME).unwrap();
    let packet = v6(&address(MAX_TARGETS - 1).to_string(), &udp(53, 30));
    assert!(taken(&filter, &frame(&[], IP6, &packet)));
}

#[test]
fn loopback_has_an_empty_mac_address() {
    if !runs_here::<Xdp>() {
        return;
    }
    let address = Ipv4Addr::LOCALHOST.into();
    let target = Target { vlan: None, address, port: 53, interface: 1, mtu: MTU };
    let filter = Filter::load([0; 6], &[target], 1, MAX_FRAME).unwrap();
    let query = frame(&[], IP, &v4("127.0.0.1", &udp(53, 30)));
    assert!(taken(&filter, &with(query.clone(), 0, &[0; 6])));
    assert!(!taken(&filter, &query));
}

#[test]
fn random_frames_go_where_the_model_says() {
    if !runs_here::<Xdp>() {
        return;
    }
    let targets = targets();
    let filter = Filter::load(MAC, &targets, 1, MAX_FRAME).unwrap();
    let known: Vec<_> = table().into_iter().map(|(_, _, frame)| frame).collect();
    // Most bytes decide nothing: those before the payload do, and some values more than others.
    let value = prop_oneof![any::<u8>(), prop::sample::select(vec![0, 6, 7, 17, 0x45, 0x60, 53])];
    let edits = prop::collection::vec((0..66usize, value), 0..3);
    let mutated = (prop::sample::select(known), edits, prop::option::weighted(0.1, 14..70usize));
    proptest!(ProptestConfig::with_cases(4000), |((mut frame, edits, cut) in mutated)| {
        for (at, value) in edits {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(cut.unwrap_or(frame.len()));
        prop_assert_eq!(taken(&filter, &frame), is_query(&frame, &targets));
    });
}

/// `cargo test -p swiftlet-net --release --features af-xdp filter -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn nanoseconds_a_frame() {
    const RUNS: u32 = 5_000_000;
    let filter = Filter::load(MAC, &targets(), 1, MAX_FRAME).unwrap();
    let mut nothing = Assembler::default();
    nothing.set(Reg::R0, XDP_PASS);
    nothing.exit();
    let nothing = Program::load_xdp("nothing", &nothing.finish()).unwrap();
    eprintln!("{:3} ns  no filter", nothing.test_run(&query_v4(), RUNS).unwrap().1);
    for (name, _, frame) in table() {
        let mut times: Vec<_> =
            (0..5).map(|_| filter.program.test_run(&frame, RUNS).unwrap().1).collect();
        times.sort_unstable();
        eprintln!("{:3} ns  {name}", times[2]);
    }
}
