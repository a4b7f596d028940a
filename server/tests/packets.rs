//! Packets that no well-behaved client sends, and the probes of RFC 8906 §8: each row is what comes and
//! what goes back.

mod support;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use support::upstream::Upstream;
use support::{PATIENCE, Swiftlet, exchange};

/// Long enough to be sure that nothing comes: the probe after it has been answered by then.
const SILENCE: Duration = Duration::from_millis(200);

/// Expected answers: none, or a response code with these properties.
enum Expected {
    Silence,
    /// Just a header with this code.
    Header(u8),
    /// The question, this code (with the OPT record's upper bits), and this many answers.
    Reply {
        rcode: u16,
        answers: u16,
        opt: bool,
    },
}
use Expected::{Header, Reply, Silence};

const NOERROR: u16 = 0;
const FORMERR: u8 = 1;
const NOTIMP: u8 = 4;
const REFUSED: u16 = 5;
const BADVERS: u16 = 16;

const ID: [u8; 2] = [0xab, 0xcd];

/// `www.example.` type A class IN.
const QUESTION: &[u8] = b"\x03www\x07example\x00\x00\x01\x00\x01";

/// A packet from its flags, its counts and what follows the header.
fn packet(flags: u16, counts: [u16; 4], body: &[&[u8]]) -> Vec<u8> {
    let mut packet = ID.to_vec();
    packet.extend(flags.to_be_bytes());
    packet.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    packet.extend(body.concat());
    packet
}

/// An OPT record: size, extended code and version, flags, options.
fn opt(size: u16, version: u8, flags: u16, options: &[u8]) -> Vec<u8> {
    let mut opt = vec![0, 0, 41];
    opt.extend(size.to_be_bytes());
    opt.extend([0, version]);
    opt.extend(flags.to_be_bytes());
    opt.extend((options.len() as u16).to_be_bytes());
    opt.extend(options);
    opt
}

const RD: u16 = 0x0100;
const ONE: [u16; 4] = [1, 0, 0, 0];
const ONE_AND_OPT: [u16; 4] = [1, 0, 0, 1];

fn table() -> Vec<(&'static str, Vec<u8>, Expected)> {
    let fine = Reply { rcode: NOERROR, answers: 1, opt: false };
    let fine_opt = || Reply { rcode: NOERROR, answers: 1, opt: true };
    let with = |opt: Vec<u8>| packet(RD, ONE_AND_OPT, &[QUESTION, &opt]);
    let typed = |number: u16| {
        let mut question = QUESTION.to_vec();
        question[13..15].copy_from_slice(&number.to_be_bytes());
        packet(RD, ONE, &[&question])
    };
    let long_label = [&[64][..], &[b'a'; 64], b"\x00\x00\x01\x00\x01"].concat();
    let longest_label = [&[63][..], &[b'a'; 63]].concat();
    let long_name = [&longest_label.repeat(4)[..], b"\x00\x00\x01\x00\x01"].concat();
    vec![
        ("nothing at all", vec![], Silence),
        ("one byte", vec![0xab], Silence),
        ("a header without its last byte", packet(RD, ONE, &[])[..11].to_vec(), Silence),
        ("a response", packet(RD | 0x8000, ONE, &[QUESTION]), Silence),
        ("a response cut short", packet(0x8000, [0; 4], &[]), Silence),
        ("a header alone", packet(RD, [0; 4], &[]), Header(FORMERR)),
        ("a question promised but missing", packet(RD, ONE, &[]), Header(FORMERR)),
        ("two questions", packet(RD, [2, 0, 0, 0], &[QUESTION, QUESTION]), Header(FORMERR)),
        ("a question cut in its class", packet(RD, ONE, &[&QUESTION[..16]]), Header(FORMERR)),
        ("a question cut in its name", packet(RD, ONE, &[&QUESTION[..6]]), Header(FORMERR)),
        ("a label of 64 bytes", packet(RD, ONE, &[&long_label]), Header(FORMERR)),
        ("a name of 257 bytes", packet(RD, ONE, &[&long_name]), Header(FORMERR)),
        (
            "a name that points at itself",
            packet(RD, ONE, &[b"\xc0\x0c\x00\x01\x00\x01"]),
            Header(FORMERR),
        ),
        (
            "an answer in a query",
            packet(RD, [1, 1, 0, 0], &[QUESTION, &opt(512, 0, 0, &[])]),
            Header(FORMERR),
        ),
        ("bytes behind the query", packet(RD, ONE, &[QUESTION, b"x"]), Header(FORMERR)),
        ("an OPT promised but missing", packet(RD, ONE_AND_OPT, &[QUESTION]), Header(FORMERR)),
        (
            "an OPT cut short",
            packet(RD, ONE_AND_OPT, &[QUESTION, &opt(512, 0, 0, &[])[..9]]),
            Header(FORMERR),
        ),
        (
            "two OPT records",
            packet(RD, [1, 0, 0, 2], &[QUESTION, &opt(512, 0, 0, &[]), &opt(512, 0, 0, &[])]),
            Header(FORMERR),
        ),
        (
            "an option over the end",
            with(opt(512, 0, 0, b"\x00\x03\x00\x09x")),
            Reply { rcode: u16::from(FORMERR), answers: 0, opt: true },
        ),
        (
            "a cookie of 7 bytes",
            with(opt(512, 0, 0, b"\x00\x0a\x00\x071234567")),
            Reply { rcode: u16::from(FORMERR), answers: 0, opt: true },
        ),
        // RFC 8906 §8.1: plain DNS.
        ("plain", packet(RD, ONE, &[QUESTION]), fine),
        ("an unknown type", typed(1000), Reply { rcode: NOERROR, answers: 0, opt: false }),
        ("a meta type", typed(200), Reply { rcode: REFUSED, answers: 0, opt: false }),
        ("a transfer", typed(252), Reply { rcode: REFUSED, answers: 0, opt: false }),
        (
            "AD",
            packet(RD | 0x20, ONE, &[QUESTION]),
            Reply { rcode: NOERROR, answers: 1, opt: false },
        ),
        (
            "CD",
            packet(RD | 0x10, ONE, &[QUESTION]),
            Reply { rcode: NOERROR, answers: 1, opt: false },
        ),
        (
            "the reserved bit",
            packet(RD | 0x40, ONE, &[QUESTION]),
            Reply { rcode: NOERROR, answers: 1, opt: false },
        ),
        (
            "AA, TC and RA set",
            packet(RD | 0x0680, ONE, &[QUESTION]),
            Reply { rcode: NOERROR, answers: 1, opt: false },
        ),
        (
            "a code in a query",
            packet(RD | 5, ONE, &[QUESTION]),
            Reply { rcode: NOERROR, answers: 1, opt: false },
        ),
        ("an unknown opcode", packet(15 << 11, ONE, &[QUESTION]), Header(NOTIMP)),
        ("an unknown opcode, header alone", packet(15 << 11, [0; 4], &[]), Header(NOTIMP)),
        ("IQUERY", packet(1 << 11, [0, 1, 0, 0], &[]), Header(NOTIMP)),
        ("STATUS", packet(2 << 11, [0; 4], &[]), Header(NOTIMP)),
        ("NOTIFY", packet(4 << 11, ONE, &[QUESTION]), Header(NOTIMP)),
        ("UPDATE of garbage", packet(5 << 11, [9, 9, 9, 9], &[b"\xff\xff"]), Header(NOTIMP)),
        // RFC 8906 §8.2: EDNS.
        ("EDNS", with(opt(4096, 0, 0, &[])), fine_opt()),
        ("EDNS with a size below 512", with(opt(0, 0, 0, &[])), fine_opt()),
        ("DO", with(opt(4096, 0, 0x8000, &[])), fine_opt()),
        ("unknown EDNS flags", with(opt(4096, 0, 0x7fff, &[])), fine_opt()),
        ("an unknown option", with(opt(4096, 0, 0, b"\x00\x64\x00\x00")), fine_opt()),
        ("version 1", with(opt(4096, 1, 0, &[])), Reply { rcode: BADVERS, answers: 0, opt: true }),
        (
            "version 1 and an unknown option",
            with(opt(4096, 1, 0, b"\x00\x64\x00\x00")),
            Reply { rcode: BADVERS, answers: 0, opt: true },
        ),
        (
            "version 255 and unknown flags",
            with(opt(4096, 255, 0x7fff, &[])),
            Reply { rcode: BADVERS, answers: 0, opt: true },
        ),
        ("NSID", with(opt(4096, 0, 0, b"\x00\x03\x00\x00")), fine_opt()),
        ("a client's cookie", with(opt(4096, 0, 0, b"\x00\x0a\x00\x0812345678")), fine_opt()),
        (
            "EDNS and AD and CD",
            packet(RD | 0x30, ONE_AND_OPT, &[QUESTION, &opt(1232, 0, 0, &[])]),
            fine_opt(),
        ),
    ]
}

#[test]
fn odd_packets_get_what_rfc_8906_expects() {
    let upstream = Upstream::start(|asked| {
        let mut answer = asked.answer(3600);
        if asked.message.queries[0].query_type() != hickory_proto::rr::RecordType::A {
            answer.answers.clear();
        }
        asked.reply(&answer);
    });
    let server = Swiftlet::start(&[("FORWARD", &upstream.address.to_string())]);
    for (what, query, expected) in table() {
        let patience = if matches!(expected, Silence) { SILENCE } else { PATIENCE };
        let answer = exchange(server.dns, &query, patience);
        match (answer, expected) {
            (None, Silence) => {}
            (Some(answer), Header(rcode)) => {
                check_header(what, &query, &answer, u16::from(rcode));
                assert_eq!(answer.len(), 12, "{what}");
                assert_eq!(&answer[4..12], &[0; 8], "{what}: no counts");
            }
            (Some(answer), Reply { rcode, answers, opt }) => {
                check_reply(what, &query, &answer, rcode, answers, opt);
            }
            (Some(answer), Silence) => panic!("{what}: {answer:02x?}"),
            (None, _) => panic!("{what}: no answer"),
        }
    }
    let metrics = server.settled();
    assert_eq!(metrics.get("queries_dropped{reason=\"short\"}"), 3);
    assert_eq!(metrics.get("queries_dropped{reason=\"response\"}"), 2);
}

fn check_header(what: &str, query: &[u8], answer: &[u8], rcode: u16) {
    let flags = |packet: &[u8]| u16::from_be_bytes([packet[2], packet[3]]);
    let (asked, told) = (flags(query), flags(answer));
    assert_eq!(answer[..2], ID, "{what}: the ID is echoed");
    assert_eq!(told & 0x8000, 0x8000, "{what}: QR");
    assert_eq!(told & 0x7800, asked & 0x7800, "{what}: the opcode is echoed");
    assert_eq!(told & 0x0400, 0, "{what}: AA");
    assert_eq!(told & 0x0100, asked & 0x0100, "{what}: RD is echoed");
    assert_eq!(told & 0x0040, 0, "{what}: the reserved bit");
    assert_eq!(told & 0x000f, rcode & 0x000f, "{what}: code");
}

fn check_reply(what: &str, query: &[u8], answer: &[u8], rcode: u16, answers: u16, opt: bool) {
    check_header(what, query, answer, rcode);
    let count = |at: usize| u16::from_be_bytes([answer[at], answer[at + 1]]);
    assert_eq!((count(4), count(6)), (1, answers), "{what}: counts");
    assert_eq!(answer[12..29], query[12..29], "{what}: the question as it came");
    assert_eq!(count(10), u16::from(opt), "{what}: OPT");
    if opt {
        // Nothing stands behind the OPT record, and it has no options unless NSID was asked for.
        let options =
            answer.windows(3).rposition(|window| window == [0, 0, 41]).expect("an OPT record");
        let record = &answer[options..];
        assert_eq!(u16::from(record[5]), rcode >> 4, "{what}: upper bits of the code");
        assert_eq!(record[6], 0, "{what}: version");
        let do_bit = query[query.len().min(36)..].first().is_some_and(|flags| flags & 0x80 != 0);
        assert_eq!(record[7], if do_bit { 0x80 } else { 0 }, "{what}: only DO is echoed");
        assert_eq!(record[8], 0, "{what}: unknown flags are cleared");
    }
}

/// Spoofed packets with source port 0 cannot be answered; the rest of the batch must be.
#[test]
fn a_query_from_port_0_is_counted_and_hurts_nobody() {
    let upstream = Upstream::start(|asked| asked.reply(&asked.answer(3600)));
    let server = Swiftlet::start(&[("FORWARD", &upstream.address.to_string())]);
    let query = packet(RD, ONE, &[QUESTION]);
    let Ok(raw) = socket2::Socket::new(
        socket2::Domain::IPV4,
        socket2::Type::RAW,
        Some(socket2::Protocol::UDP),
    ) else {
        eprintln!("skipped: a raw socket needs root");
        return;
    };
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for id in 0..20 {
        // Each a question of its own, for a client that repeats itself is answered once.
        let query = [&[id, id], &query[2..]].concat();
        let mut datagram = [0, 0].to_vec();
        datagram.extend(server.dns.port().to_be_bytes());
        datagram.extend(((8 + query.len()) as u16).to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(&query);
        let to: socket2::SockAddr = SocketAddr::new(server.dns.ip(), 0).into();
        raw.send_to(&datagram, &to).unwrap();
        socket.send_to(&query, server.dns).unwrap();
    }
    let mut answer = [0; 512];
    for _ in 0..20 {
        socket.recv(&mut answer).expect("the others are answered");
    }
    assert_eq!(server.settled().get("queries_dropped{reason=\"port_zero\"}"), 20);
}
