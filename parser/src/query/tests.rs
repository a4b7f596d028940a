use super::*;
use crate::edns::{Cookie, OptWriter, cookie, keepalive, nsid};
use crate::name::{Name, suffixes};
use crate::rr::Rcode;
use proptest::prelude::*;

const OPT: &[u8] = b"\0\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00";
const A_RECORD: &[u8] = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x7f\x00\x00\x01";

/// A query with RD set for `qname` (wire format), type A, class IN, and these records after it.
fn packet(qname: &[u8], counts: [u16; 2], records: &[&[u8]]) -> Vec<u8> {
    typed_packet(qname, Type::A, counts, records)
}

fn typed_packet(qname: &[u8], qtype: Type, [ns, ar]: [u16; 2], records: &[&[u8]]) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0];
    packet.extend([ns.to_be_bytes(), ar.to_be_bytes()].concat());
    packet.extend(qname);
    packet.extend([qtype.0.to_be_bytes(), Class::IN.0.to_be_bytes()].concat());
    records.iter().for_each(|record| packet.extend(*record));
    packet
}

fn opt(version: u8, rdata: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rdata.len()).unwrap().to_be_bytes();
    [&b"\0\x00\x29\x04\xd0\x00"[..], &[version, 0x80, 0], &len, rdata].concat()
}

fn wire(text: &str) -> Vec<u8> {
    Name::from_text(text).unwrap().as_wire().to_vec()
}

#[test]
fn the_facts_of_a_plain_query() {
    let packet = packet(&wire("www.example.com"), [0, 0], &[]);
    let query = parse(&packet).unwrap();
    assert_eq!((query.id, query.qtype, query.qclass), (0x1234, Type::A, Class::IN));
    assert_eq!((query.qname_len, query.last_label), (17, 12));
    assert_eq!(query.qname(&packet), wire("www.example.com"));
    assert_eq!(query.question_end(), packet.len());
    assert!(query.recursion_desired() && !query.checking_disabled() && !query.authentic_data());
    assert!(!query.dnssec_ok() && query.edns.is_none());
    assert_eq!(query.payload_limit(1232), 512);
    assert_eq!(query.qname(&packet[..28]), b"", "of another packet");
}

#[test]
fn the_facts_of_a_query_with_edns() {
    let options = b"\x00\x0a\x00\x08clientck\x00\x03\x00\x00\x00\x0b\x00\x00";
    let packet = packet(&wire("a.b"), [0, 1], &[&opt(0, options)]);
    let query = parse(&packet).unwrap();
    let edns = query.edns.unwrap();
    assert_eq!((edns.udp_size, edns.dnssec_ok, query.dnssec_ok()), (1232, true, true));
    assert_eq!(edns.cookie, Cookie::new(*b"clientck", b""));
    assert!(edns.options.has_nsid() && edns.options.has_keepalive() && edns.options.has_cookie());
    assert_eq!(query.question_end(), 12 + 5 + 4);
}

#[test]
fn the_root_and_the_longest_name_may_be_asked_for() {
    let query = parse(&packet(b"\0", [0, 0], &[])).unwrap();
    assert_eq!((query.qname_len, query.last_label, query.question_end()), (1, 0, 17));

    let label = "a".repeat(63);
    let longest = wire(&format!("{label}.{label}.{label}.{}", "b".repeat(61)));
    let query = parse(&packet(&longest, [0, 0], &[])).unwrap();
    assert_eq!((query.qname_len, query.last_label), (255, 192));
    let smallest_labels = wire(&vec!["a"; 127].join("."));
    let query = parse(&packet(&smallest_labels, [0, 0], &[])).unwrap();
    assert_eq!((query.qname_len, query.last_label), (255, 252));
}

#[test]
fn names_that_are_too_long_or_compressed_are_malformed() {
    let too_long =
        [&[b"\x3f", &[b'a'; 63][..]].concat().repeat(3)[..], b"\x3e", &[b'b'; 62], b"\0"].concat();
    assert_eq!(too_long.len(), 256);
    let endless = b"\x01a".repeat(20_000);
    for qname in [&too_long[..], &endless, b"\x01a\xc0\x0c", b"\xc0\x0c", b"\x40\0", b"\x80\0"] {
        assert_eq!(parse(&packet(qname, [0, 0], &[])), Err(Reject::Malformed), "{qname:?}");
    }
}

#[test]
fn silence_comes_before_everything_and_notimp_before_the_format() {
    for len in 0..12 {
        assert_eq!(parse(&vec![0x80; len]), Err(Reject::Short));
    }
    assert_eq!(parse(&[0xff; 12]), Err(Reject::Response));
    assert_eq!(parse(&[0x7f; 12]), Err(Reject::Opcode));
    assert_eq!(parse(&[0; 12]), Err(Reject::Malformed));
    for opcode in 1..16u8 {
        let mut update = packet(b"\xff", [9, 9], &[]);
        update[2] = opcode << 3;
        assert_eq!(parse(&update), Err(Reject::Opcode), "opcode {opcode}");
    }
}

#[test]
fn there_is_one_question_and_nothing_else_but_additional_records() {
    for (at, count) in [(4, 1), (5, 0), (5, 2), (6, 1), (7, 1), (8, 1), (9, 1), (10, 1)] {
        let mut wrong = packet(b"\0", [0, 0], &[]);
        wrong[at] = count;
        assert_eq!(parse(&wrong), Err(Reject::Malformed), "byte {at} is {count}");
    }
}

#[test]
fn every_cut_and_every_byte_too_many_is_malformed() {
    let rdata = b"\x00\x0a\x00\x10clientckservercs\x00\x03\x00\x00";
    for whole in [
        packet(&wire("a.bc"), [0, 0], &[]),
        packet(&wire("a.bc"), [0, 2], &[A_RECORD, &opt(0, rdata)]),
    ] {
        assert!(parse(&whole).is_ok());
        for len in 12..whole.len() {
            assert_eq!(parse(&whole[..len]), Err(Reject::Malformed), "cut to {len}");
        }
        assert_eq!(parse(&[&whole[..], b"\0"].concat()), Err(Reject::Malformed));
    }
}

#[test]
fn one_opt_is_found_wherever_it_stands_and_must_be_the_roots() {
    let tsig = b"\x03key\0\x00\xfa\x00\xff\x00\x00\x00\x00\x00\x02ab";
    let qname = wire("a");
    for records in [&[OPT, A_RECORD, tsig][..], &[A_RECORD, OPT, tsig], &[A_RECORD, tsig, OPT]] {
        let query = parse(&packet(&qname, [0, 3], records)).unwrap();
        assert!(query.dnssec_ok(), "{records:?}");
    }
    assert!(parse(&packet(&qname, [0, 1], &[tsig])).unwrap().edns.is_none());

    let not_the_roots = [b"\x01a".as_slice(), OPT].concat();
    let pointing_at_the_root = [b"\xc0\x0e", &OPT[1..]].concat();
    for records in
        [&[OPT, OPT][..], &[&not_the_roots, A_RECORD], &[&pointing_at_the_root, A_RECORD]]
    {
        assert_eq!(parse(&packet(&qname, [0, 2], records)), Err(Reject::Malformed), "{records:?}");
    }
}

#[test]
fn sixteen_additional_records_are_walked() {
    let with = |count: u16| parse(&packet(b"\0", [0, count], &vec![A_RECORD; usize::from(count)]));
    assert!(with(16).is_ok());
    assert_eq!(with(17), Err(Reject::Malformed));
}

#[test]
fn an_incremental_transfer_may_carry_its_soa() {
    let soa = b"\xc0\x0c\x00\x06\x00\x01\x00\x00\x00\x00\x00\x16\0\0aaaabbbbccccddddeeee";
    let ask = |qtype, count, records: &[&[u8]]| {
        parse(&typed_packet(&wire("zone"), qtype, [count, 1], records))
    };
    assert!(ask(Type::IXFR, 1, &[soa, OPT]).unwrap().dnssec_ok());
    assert!(ask(Type::IXFR, 0, &[OPT]).is_ok());
    assert_eq!(ask(Type::IXFR, 2, &[soa, soa, OPT]), Err(Reject::Malformed));
    assert_eq!(ask(Type::IXFR, 1, &[A_RECORD, OPT]), Err(Reject::Malformed));
    assert_eq!(ask(Type::AXFR, 1, &[soa, OPT]), Err(Reject::Malformed));
}

#[test]
fn an_unknown_version_is_told_apart_from_what_is_malformed() {
    let overrun = b"\x00\x0a\x00\x09short";
    for (version, rdata) in [(1, &b""[..]), (255, b""), (1, overrun), (1, b"\0")] {
        let Err(Reject::BadVersion(query)) =
            parse(&packet(&wire("a.b"), [0, 1], &[&opt(version, rdata)]))
        else {
            panic!("version {version} with {rdata:?}");
        };
        assert_eq!((query.id, query.qname_len), (0x1234, 5));
        let edns = query.edns.unwrap();
        assert_eq!((edns.udp_size, edns.dnssec_ok, edns.cookie), (1232, true, None));
    }
    let two = packet(&wire("a.b"), [0, 2], &[&opt(1, b""), &opt(0, b"")]);
    assert_eq!(parse(&two), Err(Reject::Malformed));
}

#[test]
fn options_and_cookies_must_be_whole() {
    let with = |rdata: &[u8]| parse(&packet(b"\0", [0, 1], &[&opt(0, rdata)]));
    // What is left of a query whose options are malformed is the query without options.
    let bad_options = Err(Reject::BadOptions(with(b"").unwrap()));
    let edns = with(b"").unwrap().edns.unwrap();
    assert_eq!((edns.udp_size, edns.dnssec_ok, edns.cookie), (1232, true, None));
    for rdata in [
        &b"\0"[..],
        b"\x00\x0a\x00",
        b"\xff\xff\x00\x01",
        b"\x00\x03\xff\xff",
        b"\x00\x03\x00\x00\x00\x0a\x00\x08clientck\x00",
    ] {
        assert_eq!(with(rdata), bad_options, "{rdata:?}");
    }
    for len in 0..48u8 {
        let rdata = [&[0, 10, 0, len][..], &vec![7; usize::from(len)]].concat();
        if len == 8 || (16..=40).contains(&len) {
            assert!(with(&rdata).is_ok(), "a cookie of {len} bytes");
        } else {
            assert_eq!(with(&rdata), bad_options, "a cookie of {len} bytes");
        }
    }
}

#[test]
fn bad_options_do_not_hide_what_else_is_malformed() {
    let bad = opt(0, b"\x00\x0a\x00\x09short");
    let whole = packet(b"\0", [0, 1], &[&bad]);
    assert!(matches!(parse(&whole), Err(Reject::BadOptions(_))));
    assert_eq!(parse(&whole[..whole.len() - 1]), Err(Reject::Malformed), "the record is cut");
    assert_eq!(parse(&[&whole[..], b"\0"].concat()), Err(Reject::Malformed));
    for records in [[&bad, &bad], [&bad, &opt(0, b"")], [&opt(0, b""), &bad]] {
        let two = packet(b"\0", [0, 2], &records.map(Vec::as_slice));
        assert_eq!(parse(&two), Err(Reject::Malformed), "two OPT records");
    }
}

#[test]
fn the_payload_limit_has_bounds_on_both_sides() {
    let limit = |size: u16, server_max| {
        let mut opt = opt(0, b"");
        opt[3..5].copy_from_slice(&size.to_be_bytes());
        parse(&packet(b"\0", [0, 1], &[&opt])).unwrap().payload_limit(server_max)
    };
    assert_eq!((limit(0, 1232), limit(511, 1232), limit(512, 1232)), (512, 512, 512));
    assert_eq!((limit(1000, 1232), limit(4096, 1232), limit(65535, 65535)), (1000, 1232, 65535));
    assert_eq!((limit(4096, 0), limit(0, 0)), (512, 512));
}

/// Queries as clients write them: a name, maybe other records, maybe an OPT with some options.
fn valid_packet() -> impl Strategy<Value = Vec<u8>> {
    let label = prop::collection::vec(any::<u8>(), 1..=63);
    let option = prop_oneof![
        (Just(cookie::CODE), prop::collection::vec(any::<u8>(), 8)),
        (Just(cookie::CODE), prop::collection::vec(any::<u8>(), 16..=40)),
        (Just(nsid::CODE), Just(Vec::new())),
        (Just(keepalive::CODE), Just(Vec::new())),
        (100u16..200, prop::collection::vec(any::<u8>(), 0..20)),
    ];
    let edns = prop::option::of((any::<u16>(), any::<bool>(), prop::collection::vec(option, 0..4)));
    (prop::collection::vec(label, 0..4), any::<[u8; 6]>(), edns, 0u16..3).prop_map(
        |(labels, [i0, i1, t0, t1, c0, c1], edns, others)| {
            let mut packet = vec![i0, i1, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 0];
            for label in labels.iter().filter(|label| label.len() < 60) {
                packet.push(u8::try_from(label.len()).unwrap());
                packet.extend(label);
            }
            packet.extend([0, t0, t1, c0, c1]);
            (0..others).for_each(|_| packet.extend(A_RECORD));
            packet[10..12].copy_from_slice(&others.to_be_bytes());
            if let Some((size, dnssec_ok, options)) = edns {
                let at = packet.len();
                packet.resize(at + 400, 0);
                let mut opt =
                    OptWriter::start(&mut packet, at, size, Rcode::NOERROR, dnssec_ok).unwrap();
                options.iter().for_each(|(code, data)| assert!(opt.option(*code, data)));
                let len = opt.finish();
                packet.truncate(len);
            }
            packet
        },
    )
}

/// What whoever has a query relies on.
fn check_invariant(packet: &[u8]) {
    let (Ok(query) | Err(Reject::BadVersion(query) | Reject::BadOptions(query))) = parse(packet)
    else {
        return;
    };
    let qname = query.qname(packet);
    assert!(Name::from_wire(qname).is_some());
    assert!(query.question_end() <= packet.len());
    let top = suffixes(qname).zip(suffixes(qname).skip(1)).last();
    let last_label = top.map_or(0, |(top, _)| qname.len() - top.len());
    assert_eq!(usize::from(query.last_label), last_label);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_clients_write_is_accepted(packet in valid_packet()) {
        prop_assert!(parse(&packet).is_ok());
        check_invariant(&packet);
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic(
        mut packet in prop::collection::vec(prop_oneof![0u8..4, Just(41), any::<u8>()], 0..300),
        make_it_a_query: bool,
    ) {
        if let Some(header) = packet.first_chunk_mut::<12>().filter(|_| make_it_a_query) {
            *header = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, header[11] & 3];
        }
        check_invariant(&packet);
    }

    #[test]
    fn mutated_queries_are_judged_without_a_panic(
        mut packet in valid_packet(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        for (at, byte) in changes {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        if let Some(cut) = cut {
            packet.truncate(cut.index(packet.len()));
        }
        check_invariant(&packet);
    }
}
