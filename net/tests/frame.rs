//! Frames in and out: by name, against builders of other hands, and turned round twice.

#![cfg(feature = "af-xdp")]

mod frames;

use std::net::{IpAddr, SocketAddr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use swiftlet_net::backend::xdp::frame::{HEADERS_MAX, Local, Reject, parse};

use self::frames::build::Frame;

/// Bytes of a chunk, and of the packets that an interface carries.
const CHUNK: usize = 2048;
const MTU: usize = 1500;

/// A chunk with this frame at its start, as memory of a ring is.
fn chunk(frame: &[u8]) -> Vec<u8> {
    let mut chunk = frame.to_vec();
    chunk.resize(CHUNK, 0xa5);
    chunk
}

/// Answers with this payload, and returns the reply's frame.
fn reply(frame: &[u8], payload: &[u8], id: u16) -> Vec<u8> {
    let datagram = parse(frame).expect("a query");
    let mut chunk = chunk(frame);
    let start = datagram.payload().start;
    chunk[start..start + payload.len()].copy_from_slice(payload);
    let len = datagram.finish(&mut chunk, payload.len(), id);
    assert_eq!(len, start + payload.len());
    chunk.truncate(len);
    chunk
}

/// What somebody else's parser makes of a frame: it must be whole, and both checksums right.
fn judge(frame: &[u8]) -> (SocketAddr, SocketAddr, u8, Vec<u8>) {
    let packet = SlicedPacket::from_ethernet(frame).expect("a packet");
    let Some(TransportSlice::Udp(udp)) = &packet.transport else {
        panic!("no UDP in {packet:?}");
    };
    let header = udp.to_header();
    let (from, to, hops, checksum): (IpAddr, IpAddr, _, _) = match packet.net.expect("a packet") {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header().to_header();
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert!(!ip.dont_fragment && !ip.more_fragments && ip.fragment_offset.value() == 0);
            assert_eq!((ip.dscp.value(), ip.ecn.value()), (0, 0));
            let checksum = header.calc_checksum_ipv4(&ip, udp.payload());
            (ip.source.into(), ip.destination.into(), ip.time_to_live, checksum)
        }
        NetSlice::Ipv6(ip) => {
            let ip = ip.header().to_header();
            assert_eq!((ip.traffic_class, ip.flow_label.value()), (0, 0));
            let checksum = header.calc_checksum_ipv6(&ip, udp.payload());
            (ip.source.into(), ip.destination.into(), ip.hop_limit, checksum)
        }
        other => panic!("no IP: {other:?}"),
    };
    assert_eq!(Ok(header.checksum), checksum);
    let from = SocketAddr::new(from, header.source_port);
    (from, SocketAddr::new(to, header.destination_port), hops, udp.payload().to_vec())
}

#[test]
fn every_named_frame_is_read_as_it_should() {
    for (name, bytes, expected) in frames::named() {
        let read = parse(&bytes).map(|datagram| datagram.payload().len());
        assert_eq!(read, expected, "{name}");
    }
}

/// Padding hides nothing: no prefix of a query is a query.
#[test]
fn every_truncation_is_malformed() {
    for (name, bytes, expected) in frames::named() {
        let Ok(datagram) = parse(&bytes) else {
            assert!(expected.is_err());
            continue;
        };
        for len in 0..datagram.payload().end {
            let verdict = parse(&bytes[..len]);
            assert_eq!(verdict, Err(Reject::Malformed), "{name} cut at {len}");
        }
    }
}

#[test]
fn a_reply_keeps_its_tag_and_goes_where_the_query_came_from() {
    for frame in [Frame::v4(), Frame::v6(), Frame::v4().tagged(0xb007), Frame::v6().tagged(4095)] {
        let query = frame.bytes();
        let reply = reply(&query, b"an answer", 0x4711);
        assert_eq!((&reply[..6], &reply[6..12]), (&query[6..12], &query[..6]));
        assert_eq!(reply[12..frame.packet()], query[12..frame.packet()]);
        assert_eq!(judge(&reply), (frame.to, frame.from, 64, b"an answer".to_vec()));
        if frame.from.is_ipv4() {
            assert_eq!(reply[frame.packet() + 4..frame.packet() + 6], [0x47, 0x11]);
        }
    }
}

/// A sum that comes out as 0 stands for itself as 0xffff.
#[test]
fn a_reply_never_goes_without_a_checksum() {
    for frame in [Frame::v4(), Frame::v6()] {
        let checksum = |payload: [u8; 2]| {
            let reply = reply(&frame.bytes(), &payload, 0);
            judge(&reply);
            [reply[frame.udp() + 6], reply[frame.udp() + 7]]
        };
        // Adding to a payload of zeros what its checksum is makes the sum all ones.
        assert_eq!(checksum(checksum([0, 0])), [0xff, 0xff]);
    }
}

#[test]
fn room_ends_with_the_mtu_or_the_chunk() {
    for (frame, headers) in [(Frame::v4(), 28), (Frame::v6(), 48), (Frame::v4().tagged(7), 28)] {
        let query = frame.bytes();
        let datagram = parse(&query).expect("a query");
        let front = frame.packet();
        for (mtu, capacity, expected) in [
            (1500, 2048, 1500 - headers),
            (1500, 1000, 1000 - front - headers),
            (9000, 4096, 4096 - front - headers),
            (usize::MAX, 1 << 20, 65_507),
            (headers - 1, 2048, 0),
            (1500, 10, 0),
        ] {
            assert_eq!(datagram.room(mtu, capacity), expected, "{frame:?} {mtu} {capacity}");
        }
        let mut chunk = chunk(&query);
        let room = datagram.room(usize::MAX, CHUNK);
        assert_eq!(datagram.finish(&mut chunk, room + 1, 0), 0);
        assert!(chunk.starts_with(&query), "nothing is written");
        assert_eq!(datagram.finish(&mut chunk, room, 0), CHUNK);
        judge(&chunk);
        let mut large = vec![0; 1 << 17];
        large[..query.len()].copy_from_slice(&query);
        assert_eq!(datagram.finish(&mut large, 65_508, 0), 0);
        assert_eq!(datagram.finish(&mut large, usize::MAX, 0), 0);
        assert_eq!(datagram.finish(&mut large, 65_507, 0), front + headers + 65_507);
    }
}

#[test]
fn a_query_finds_its_listener_and_its_way_back() {
    let frame = Frame::v4().tagged(0xe007);
    let datagram = parse(&frame.bytes()).unwrap();
    let local = datagram.local(&frame.bytes());
    assert_eq!(local, Local::new(Some(7), frame.to.ip(), 53));
    for other in [
        Local::new(None, frame.to.ip(), 53),
        Local::new(Some(8), frame.to.ip(), 53),
        Local::new(Some(7), frame.to.ip(), 54),
        Local::new(Some(7), frame.from.ip(), 53),
        Local::new(Some(7), "c000:201::".parse().unwrap(), 53),
    ] {
        assert_ne!(local, other);
    }
    let route = datagram.route(&frame.bytes(), 3, false, 9);
    assert_eq!((route.peer(), route.local(), route.listener), (frame.from, None, 3));
    let route = datagram.route(&frame.bytes(), 3, true, 9);
    assert_eq!((route.local(), route.interface()), (Some(frame.to.ip()), 9));

    // A tag without a number belongs to no VLAN.
    let frame = Frame::v6().tagged(0x2000);
    let local = parse(&frame.bytes()).unwrap().local(&frame.bytes());
    assert_eq!(local, Local::new(None, frame.to.ip(), 53));

    let frame = Frame::v6().source("fe80::7");
    let route = parse(&frame.bytes()).unwrap().route(&frame.bytes(), 0, false, 9);
    assert_eq!(route.peer(), "[fe80::7%9]:5300".parse().unwrap());
    let frame = Frame::v6();
    let route = parse(&frame.bytes()).unwrap().route(&frame.bytes(), 0, true, 9);
    assert_eq!((route.peer(), route.local()), (frame.from, Some(frame.to.ip())));
}

/// Bytes that are not those that were parsed give nonsense, and nothing else.
#[test]
fn a_datagram_of_another_frame_does_no_harm() {
    let datagram = parse(&Frame::v6().tagged(7).bytes()).unwrap();
    for len in 0..HEADERS_MAX + 1 {
        let mut bytes = vec![0xff; len];
        let _ = (datagram.local(&bytes), datagram.route(&bytes, 0, true, 1));
        let _ = datagram.finish(&mut bytes, 0, 1);
    }
}

/// Each bit of a packet is covered by something, but class, label and hop limit of IPv6.
#[test]
fn every_flipped_bit_is_noticed() {
    for frame in [Frame::v4(), Frame::v6(), Frame::v4().tagged(7), Frame::v6().tagged(7)] {
        let good = frame.bytes();
        for at in frame.packet()..good.len() {
            let offset = at - frame.packet();
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                let uncovered = frame.from.is_ipv6()
                    && (offset == 7 || offset < 4 && (offset, bit >= 4) != (0, true));
                assert_eq!(parse(&bytes).is_ok(), uncovered, "{frame:?} byte {offset} bit {bit}");
            }
        }
    }
}

fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    let (v4, v6) = (any::<[[u8; 4]; 2]>(), any::<[[u8; 16]; 2]>());
    prop_oneof![
        v4.prop_map(|[from, to]| (IpAddr::from(from), IpAddr::from(to))),
        v6.prop_map(|[from, to]| (IpAddr::from(from), IpAddr::from(to))),
    ]
}

/// Whether an answer can go to an address from which a frame came off a wire.
fn is_answerable(from: IpAddr, to: IpAddr) -> bool {
    let nowhere = from.is_unspecified() || from.is_multicast() || from.is_loopback() || from == to;
    let special = match from {
        IpAddr::V4(from) => from.is_broadcast(),
        IpAddr::V6(from) => from.to_ipv4_mapped().is_some(),
    };
    !nowhere && !special
}

prop_compose! {
    fn any_frame()(
        (from, to) in addresses(),
        ports in (1u16.., any::<u16>()),
        tag in any::<Option<u16>>(),
        mut macs: [[u8; 6]; 2],
        payload in prop::collection::vec(any::<u8>(), 0..MTU - 48),
    ) -> Frame {
        macs[0][0] = 2;
        macs[1][0] &= 0xfe;
        Frame {
            to_mac: macs[0],
            from_mac: macs[1],
            tag,
            from: SocketAddr::new(from, ports.0),
            to: SocketAddr::new(to, ports.1),
            options: Vec::new(),
            payload,
        }
    }
}

proptest! {
    #[test]
    fn what_was_built_is_read(frame in any_frame(), padding in 0usize..64, partial: bool) {
        let mut bytes = if partial { frame.with_partial_checksum() } else { frame.bytes() };
        let end = bytes.len();
        bytes.resize(end + padding, 0x5a);
        let read = parse(&bytes);
        if !is_answerable(frame.from.ip(), frame.to.ip()) {
            prop_assert_eq!(read, Err(Reject::Unanswerable));
            return Ok(());
        }
        let datagram = read.expect("a query");
        prop_assert_eq!(&bytes[datagram.payload()], &frame.payload[..]);
        let route = datagram.route(&bytes, 1, true, 0);
        prop_assert_eq!((route.peer_ip(), route.port()), (frame.from.ip(), frame.from.port()));
        prop_assert_eq!(route.local(), Some(frame.to.ip()));
        let vlan = frame.tag.map(|tag| tag & 0xfff);
        let asked = Local::new(vlan, frame.to.ip(), frame.to.port());
        prop_assert_eq!(datagram.local(&bytes), asked);
    }

    #[test]
    fn a_reply_is_right_in_other_eyes(
        frame in any_frame(),
        payload in prop::collection::vec(any::<u8>(), 0..MTU - 48),
        id: u16,
    ) {
        prop_assume!(is_answerable(frame.from.ip(), frame.to.ip()));
        let reply = reply(&frame.bytes(), &payload, id);
        prop_assert_eq!(judge(&reply), (frame.to, frame.from, 64, payload));
    }

    /// To the peer the reply is a frame like any other, and its reply to that has the addresses of
    /// the query again.
    #[test]
    fn a_reply_to_the_reply_comes_back(frame in any_frame(), payload: [u8; 21]) {
        let there_and_back = is_answerable(frame.from.ip(), frame.to.ip())
            && is_answerable(frame.to.ip(), frame.from.ip())
            && frame.to.port() != 0;
        prop_assume!(there_and_back);
        let first = reply(&frame.bytes(), &payload, 1);
        let datagram = parse(&first).expect("the peer takes it");
        prop_assert_eq!(&first[datagram.payload()], &payload[..]);
        let second = reply(&first, &frame.payload, 0x1d1d);
        let original = frame.bytes();
        prop_assert_eq!(&second[..frame.packet()], &original[..frame.packet()]);
        let expected = (frame.from, frame.to, 64, frame.payload.clone());
        prop_assert_eq!(judge(&second), expected);
        // But for what a reply has of its own: DF and the TTL in IPv4, class, label and hop limit.
        prop_assert_eq!(&second[frame.udp()..], &original[frame.udp()..]);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }
}
