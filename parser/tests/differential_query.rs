//! Queries against hickory-proto: what it writes is accepted with the facts that it was given, and
//! of any packet that both accept, both read the same.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption, NSIDPayload};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use proptest::prelude::*;

use swiftlet_parser::edns::{cookie, keepalive};
use swiftlet_parser::query::{self, Reject, parse};

/// Names as hickory can write them: up to five labels of any bytes.
fn name() -> impl Strategy<Value = Name> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(&b"azAZ09-_."[..])];
    prop::collection::vec(prop::collection::vec(byte, 1..=63), 0..=5)
        .prop_filter_map("longer than 255 bytes", |labels| Name::from_labels(labels).ok())
}

fn option() -> impl Strategy<Value = EdnsOption> {
    let bytes = |len| prop::collection::vec(any::<u8>(), len);
    let cookie = prop_oneof![bytes(8..=8), bytes(16..=40)];
    prop_oneof![
        Just(EdnsOption::NSID(NSIDPayload::new(Vec::new()).unwrap())),
        Just(EdnsOption::Unknown(keepalive::CODE, Vec::new())),
        cookie.prop_map(|data| EdnsOption::Unknown(cookie::CODE, data)),
        (1000u16..2000, bytes(0..=30)).prop_map(|(code, data)| EdnsOption::Unknown(code, data)),
    ]
}

fn edns() -> impl Strategy<Value = Edns> {
    let version = prop_oneof![9 => Just(0u8), 1 => any::<u8>()];
    (512u16.., any::<bool>(), version, prop::collection::vec(option(), 0..4)).prop_map(
        |(size, dnssec_ok, version, options)| {
            let mut edns = Edns::new();
            edns.set_max_payload(size).set_dnssec_ok(dnssec_ok).set_version(version);
            options.into_iter().for_each(|option| edns.options_mut().insert(option));
            edns
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let numbers = (any::<u16>(), any::<u16>(), any::<u16>());
    let flags = any::<[bool; 3]>();
    (name(), numbers, flags, prop::option::of(edns())).prop_map(
        |(name, (id, qtype, qclass), [rd, ad, cd], edns)| {
            let mut message = Message::new(id, MessageType::Query, OpCode::Query);
            message.metadata.recursion_desired = rd;
            message.metadata.authentic_data = ad;
            message.metadata.checking_disabled = cd;
            let mut query = Query::query(name, RecordType::from(qtype));
            query.set_query_class(DNSClass::from(qclass));
            message.add_query(query);
            message.edns = edns;
            message
        },
    )
}

/// Every fact against hickory's reading of the same packet.
fn assert_same(ours: &query::Query, packet: &[u8], theirs: &Message) {
    let metadata = &theirs.metadata;
    assert_eq!(ours.id, metadata.id);
    assert_eq!(ours.recursion_desired(), metadata.recursion_desired);
    assert_eq!(ours.authentic_data(), metadata.authentic_data);
    assert_eq!(ours.checking_disabled(), metadata.checking_disabled);
    assert_eq!(ours.flags.aa(), metadata.authoritative);
    assert_eq!(ours.flags.tc(), metadata.truncation);

    let [question] = &theirs.queries[..] else {
        panic!("one question, not {}", theirs.queries.len())
    };
    assert_eq!(ours.qtype.0, u16::from(question.query_type()));
    assert_eq!(ours.qclass.0, u16::from(question.query_class()));
    let name = swiftlet_parser::name::Name::from_wire(ours.qname(packet)).unwrap();
    assert!(name.labels().eq(question.name().iter()), "{name} {}", question.name());
    let last_len = question.name().iter().next_back().map_or(0, |label| 1 + label.len());
    assert_eq!(usize::from(ours.qname_len - ours.last_label), 1 + last_len);

    assert_eq!(ours.edns.is_some(), theirs.edns.is_some());
    let (Some(ours_edns), Some(theirs_edns)) = (&ours.edns, &theirs.edns) else {
        return assert_eq!(ours.payload_limit(u16::MAX), 512);
    };
    assert_eq!(ours.payload_limit(u16::MAX), usize::from(theirs_edns.max_payload()));
    assert_eq!(ours_edns.dnssec_ok, theirs_edns.flags().dnssec_ok);
    if theirs_edns.version() != 0 {
        return;
    }
    let options = theirs_edns.options();
    assert_eq!(ours_edns.options.has_nsid(), options.get(EdnsCode::NSID).is_some());
    assert_eq!(ours_edns.options.has_keepalive(), options.get(EdnsCode::Keepalive).is_some());
    match (ours_edns.cookie, options.get(EdnsCode::Cookie)) {
        (None, None) => {}
        (Some(ours), Some(EdnsOption::Unknown(_, data))) => {
            assert_eq!([&ours.client, ours.server()].concat(), *data);
        }
        (ours, theirs) => panic!("{ours:?} but {theirs:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_hickory_writes_is_accepted_with_the_same_facts(message in message()) {
        let packet = message.to_vec().unwrap();
        let theirs = Message::from_vec(&packet).unwrap();
        match parse(&packet) {
            Ok(ours) => {
                prop_assert_eq!(theirs.version(), 0);
                assert_same(&ours, &packet, &theirs);
            }
            Err(Reject::BadVersion(ours)) => {
                prop_assert_ne!(theirs.version(), 0);
                assert_same(&ours, &packet, &theirs);
            }
            Err(reject) => prop_assert!(false, "{:?} of {:?}", reject, message),
        }
    }

    #[test]
    fn malformed_options_leave_the_facts_of_the_query_without_options(
        mut message in message(),
        mut edns in edns(),
        options in prop::collection::vec(option(), 0..3),
        overrun in 1u16..100,
    ) {
        edns.set_version(0);
        *edns.options_mut() = Default::default();
        message.edns = Some(edns);
        let mut packet = message.to_vec().unwrap();
        let theirs = Message::from_vec(&packet).unwrap();
        // The OPT record is the last one: its options go behind it, and their length into it.
        let rdata_at = packet.len();
        for option in options {
            let data = Vec::try_from(&option).unwrap();
            packet.extend(u16::from(EdnsCode::from(&option)).to_be_bytes());
            packet.extend((data.len() as u16).to_be_bytes());
            packet.extend(data);
        }
        packet.extend([&[0, 3][..], &overrun.to_be_bytes()].concat());
        let rdata_len = (packet.len() - rdata_at) as u16;
        packet[rdata_at - 2..rdata_at].copy_from_slice(&rdata_len.to_be_bytes());
        match parse(&packet) {
            Err(Reject::BadOptions(ours)) => assert_same(&ours, &packet, &theirs),
            other => prop_assert!(false, "{:?} of {:?}", other, message),
        }
    }

    #[test]
    fn of_a_changed_packet_that_both_accept_both_read_the_same(
        message in message(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
    ) {
        let mut packet = message.to_vec().unwrap();
        for (at, byte) in changes {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        if let (Ok(ours), Ok(theirs)) = (parse(&packet), Message::from_vec(&packet)) {
            assert_same(&ours, &packet, &theirs);
        }
    }
}
