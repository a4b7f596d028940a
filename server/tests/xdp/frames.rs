//! Frames that no client's own sockets would send.

use crate::build::{ETHERNET, Frame, set, set_v4_checksum};
use crate::rig::{INTERFACE, Rig, V4, account, run, until, with_link};
use crate::support::Swiftlet;
use crate::wire::{Wire, v4, v6};

/// The name that every server here is asked for first.
const NAME: &str = "www.example";

fn warm(rig: &Rig, settings: &[(&str, &str)]) -> (Swiftlet, Wire) {
    let server = rig.serve(settings);
    rig.ask(V4, NAME);
    (server, Wire::open(rig))
}

/// Fragments, options, extension headers and what has only a priority are none of the filter's: their
/// answers come, by the ordinary socket.
#[test]
fn what_the_filter_leaves_is_served_by_the_kernel() {
    with_link("frames::what_the_filter_leaves_is_served_by_the_kernel", |rig| {
        let (server, wire) = warm(rig, &[]);
        let before = account(&server);
        let options = Frame { options: vec![1, 1, 1, 0], ..v4(2001) };
        let frames: [(&str, Frame, Vec<Vec<u8>>); 4] = [
            ("options", options.clone(), vec![options.bytes()]),
            ("fragments", v4(2002), fragments(&v4(2002))),
            ("an extension header", v6(2003), vec![with_destination_options(&v6(2003))]),
            ("a priority tag", v4(2004), vec![v4(2004).tagged(0xe000).bytes()]),
        ];
        for (what, query, parts) in &frames {
            for part in parts {
                wire.send(part);
            }
            wire.wait_for_answer(what, query);
        }
        let after = account(&server);
        assert_eq!(after.received, before.received);
        let answered = |metrics: &crate::support::Metrics| metrics.get("queries_answered");
        assert_eq!(answered(&after.metrics), answered(&before.metrics) + 4);
        assert!(after.passed >= before.passed + 5);
    });
}

/// The packet of an IPv4 frame in two parts, the later one first.
fn fragments(frame: &Frame) -> Vec<Vec<u8>> {
    const FIRST: usize = 24;
    let (bytes, content) = (frame.bytes(), frame.packet() + 20);
    let part = |content: &[u8], offset: u16| {
        let mut part = [&bytes[..frame.packet() + 20], content].concat();
        set(&mut part, frame.packet() + 2, 20 + content.len() as u16);
        set(&mut part, frame.packet() + 6, offset);
        set_v4_checksum(&mut part, frame.packet());
        part
    };
    let (first, later) = bytes[content..].split_at(FIRST);
    vec![part(later, FIRST as u16 / 8), part(first, 0x2000)]
}

/// An IPv6 frame with a header for its destination that says nothing.
fn with_destination_options(frame: &Frame) -> Vec<u8> {
    let mut bytes = frame.bytes();
    let packet = frame.packet();
    let len = u16::from_be_bytes([bytes[packet + 4], bytes[packet + 5]]);
    set(&mut bytes, packet + 4, len + 8);
    bytes[packet + 6] = 60;
    // UDP follows; four bytes of padding.
    let header = [17, 0, 1, 4, 0, 0, 0, 0];
    bytes.splice(packet + 40..packet + 40, header);
    bytes
}

/// Each is counted where it belongs, and queries are answered before and after.
#[test]
fn frames_that_are_no_good_are_dropped_and_counted() {
    with_link("frames::frames_that_are_no_good_are_dropped_and_counted", |rig| {
        let (server, wire) = warm(rig, &[]);
        let edited = |frame: Frame, at: usize, word: u16| {
            let mut bytes = frame.bytes();
            let at = frame.udp() + at;
            set(&mut bytes, at, word);
            bytes
        };
        let ip_checksum = |mut bytes: Vec<u8>| {
            bytes[ETHERNET + 10] ^= 1;
            bytes
        };
        let port_0 = |mut frame: Frame| {
            frame.from.set_port(0);
            frame.bytes()
        };
        let groups: [(&str, &[Vec<u8>]); 3] = [
            (
                "checksum",
                &[
                    edited(v4(2001), 6, 0x1234),
                    edited(v6(2001), 6, 0x1234),
                    edited(v6(2001), 6, 0),
                    ip_checksum(v4(2001).bytes()),
                ],
            ),
            ("malformed_frame", &[edited(v4(2001), 4, 7), edited(v6(2001), 4, 2000)]),
            (
                "port_zero",
                &[
                    port_0(v4(1)),
                    port_0(v6(1)),
                    v4(2001).source("127.0.0.1").bytes(),
                    v4(2001).source("255.255.255.255").bytes(),
                    v6(2001).source("::ffff:10.78.0.2").bytes(),
                    v6(2001).source("ff02::1").bytes(),
                ],
            ),
        ];
        let mut sent = 0;
        for (reason, frames) in groups {
            for frame in frames {
                wire.send(frame);
            }
            let query = v4(3000 + sent);
            wire.send(&query.bytes());
            wire.wait_for_answer(reason, &query);
            sent += 1 + frames.len() as u16;
            let account = account(&server);
            let name = format!("queries_dropped{{reason=\"{reason}\"}}");
            assert_eq!(account.metrics.get(&name), frames.len() as u64, "{reason}");
            assert_eq!(account.received, 1 + u64::from(sent), "{reason}");
        }
        // None at all is right over IPv4 alone.
        wire.send(&edited(v4(2002), 6, 0));
        wire.wait_for_answer("no checksum", &v4(2002));
    });
}

/// Every length up to that of a query, with and without padding.
#[test]
fn runts_do_no_harm() {
    with_link("frames::runts_do_no_harm", |rig| {
        let (server, wire) = warm(rig, &[]);
        for query in [v4(2001), v6(2001), v4(2001).tagged(7)] {
            let bytes = query.bytes();
            for len in ETHERNET..bytes.len() {
                wire.send(&bytes[..len]);
                let mut padded = bytes[..len].to_vec();
                padded.resize(100, 0);
                wire.send(&padded);
            }
        }
        let query = v6(2002);
        wire.send(&query.bytes());
        wire.wait_for_answer("a query behind them", &query);
        account(&server);
    });
}

/// Long packets get long chunks, up to what the driver can do in its own way. What is no query is no more
/// one for being long.
#[test]
fn a_jumbo_query_is_answered_and_one_beyond_a_slot_is_not() {
    with_link("frames::a_jumbo_query_is_answered_and_one_beyond_a_slot_is_not", |rig| {
        run(&format!("ip link set {INTERFACE} mtu 3400"));
        rig.run("ip link set eth0 mtu 3400");
        let (server, wire) = warm(rig, &[]);
        let logged = &server.logged;
        assert!(logged.iter().any(|line| line.contains("(native, copy")), "{logged:?}");
        assert!(!logged.iter().any(|line| line.contains("generic mode")), "{logged:?}");
        let mut jumbo = v4(2001);
        jumbo.payload.resize(3300, 0);
        wire.send(&jumbo.bytes());
        let answer = wire.wait_for_answer("an error", &jumbo);
        // FORMERR: there are bytes behind the question.
        assert_eq!(answer[ETHERNET + 28 + 3] & 15, 1);
        assert_eq!(account(&server).received, 2);

        // Beyond what a driver takes in one piece only the kernel's own way is left.
        drop(server);
        run(&format!("ip link set {INTERFACE} mtu 9000"));
        rig.run("ip link set eth0 mtu 9000");
        let (server, wire) = warm(rig, &[]);
        let logged = &server.logged;
        assert!(logged.iter().any(|line| line.contains("(generic, copy")), "{logged:?}");
        let warning =
            format!("WARN af-xdp on {INTERFACE} runs in generic mode, which gains little: ");
        let warned = logged.iter().find_map(|line| line.split_once(&warning));
        let (_, why) = warned.unwrap_or_else(|| panic!("no reason: {logged:?}"));
        assert!(why.contains("MTU of 9000 bytes") && why.contains("mtu 1500"), "{why}");
        let mut jumbo = v4(2002);
        jumbo.payload.resize(8000, 0);
        wire.send(&jumbo.bytes());
        let query = v4(2003);
        wire.send(&query.bytes());
        wire.wait_for_answer("a query behind it", &query);
        // The sockets may look later than the queue does.
        let oversize = || server.metrics().get("queries_dropped{reason=\"oversize\"}");
        until("the long one to be dropped", || oversize() == 1);
        account(&server);
    });
}
