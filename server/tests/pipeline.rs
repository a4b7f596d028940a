//! The way of a packet as a pure function: whatever comes, what goes back is a well-formed answer to it.

mod support;

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{DNSClass, Name, RecordType};
use proptest::prelude::*;
use support::{query, service};
use swiftlet::pipeline::{Batch, Service, Shaper, Transport, Verdict, serve};
use swiftlet::policy::Identity;
use swiftlet::resolver::failures::{Failed, MAX_TEXT_LEN};
use swiftlet::telemetry::{Board, Counter};
use swiftlet_cache::{Key, Kind, NewEntry, Store as _};
use swiftlet_net::clock::Now;
use swiftlet_parser::edns::ExtendedError;
use swiftlet_parser::key::{KeyBuf, Variant};
use swiftlet_parser::message::write_query;
use swiftlet_parser::response::{Response, Section};
use swiftlet_parser::rr::{Class, Rcode, Type};
use swiftlet_parser::template::{self, Source};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// For how long answers are kept beyond their TTL, in seconds.
const STALE_S: u32 = 1000;
const STORED_AT: Now = Now { boot_ms: 1_000_000, wall_s: 1_700_000_000 };

/// What came of a packet: the reply, or the reason for none.
#[derive(Debug, PartialEq)]
enum Came {
    Reply(Vec<u8>),
    Dropped,
    Waits,
}

fn serve_at(service: &Service, packet: &[u8], client: IpAddr, now: Now) -> (Came, Board) {
    let board = Board::new(1);
    let counters = &board.workers()[0];
    let shaper = Shaper { service, counters, transport: Transport::Udp };
    let batch = Batch { shaper, pin: service.cache.pin(), now };
    let mut buf = vec![0; 4096];
    let len = packet.len().min(buf.len());
    buf[..len].copy_from_slice(&packet[..len]);
    let mut keys = KeyBuf::default();
    let came = match serve(&batch, &mut keys, &mut buf, len, client) {
        Verdict::Reply(len) | Verdict::ReplyAndRefresh { len, .. } => {
            Came::Reply(buf[..len].to_vec())
        }
        Verdict::Drop(_) => Came::Dropped,
        Verdict::Wait { .. } => Came::Waits,
    };
    (came, board)
}

/// Puts an answer of one A record into the cache, as the resolver would.
fn store(service: &Service, name: &str, ttl: u32, dnssec_ok: bool, secure: bool) {
    let upstream = support::upstream::answer_to(&query(name, RecordType::A), ttl).to_vec().unwrap();
    let response = Response::parse(&upstream).unwrap();
    let mut keys = KeyBuf::default();
    let variant = Variant::new(dnssec_ok, false, 0);
    let key = keys.build(&service.seed, response.qname(), Type::A, Class::IN, variant);
    let answer: Vec<_> = response.section(Section::Answer).collect();
    let source = Source {
        qname: key.qname(),
        rcode: Rcode::NOERROR,
        secure,
        answer: &answer,
        authority: &[],
        additional: &[],
    };
    let mut stored = Vec::new();
    template::build(&source, &mut stored).unwrap();
    let entry = NewEntry { answer: &stored, ttl_s: ttl, stale_s: STALE_S, kind: Kind::Data };
    let place = Key { hash: key.hash, bytes: key.bytes };
    service.cache.insert(place, entry, STORED_AT.boot_ms);
}

/// Puts a failure with the longest text there may be into the cache, as the resolver would.
fn store_failure(service: &Service, name: &str) {
    store_failure_at(service, name, STORED_AT);
}

fn store_failure_at(service: &Service, name: &str, now: Now) {
    let text = "t".repeat(MAX_TEXT_LEN);
    let failed =
        Failed { rcode: Rcode::SERVFAIL, error: ExtendedError::NETWORK_ERROR, text: &text };
    let mut stored = Vec::new();
    failed.write(&mut stored);
    let name = swiftlet_parser::name::Name::from_text(name).unwrap();
    let mut keys = KeyBuf::default();
    let variant = Variant::new(false, false, 0);
    let key = keys.build(&service.seed, name.as_wire(), Type::A, Class::IN, variant);
    let entry = NewEntry { answer: &stored, ttl_s: 30, stale_s: 0, kind: Kind::Failure };
    let place = Key { hash: key.hash, bytes: key.bytes };
    service.cache.insert(place, entry, now.boot_ms);
}

fn later(seconds: u64) -> Now {
    Now { boot_ms: STORED_AT.boot_ms + seconds * 1000, wall_s: STORED_AT.wall_s + seconds }
}

fn ask_at(service: &Service, question: &Message, now: Now) -> Option<Message> {
    match serve_at(service, &question.to_vec().unwrap(), CLIENT, now).0 {
        Came::Reply(reply) => Some(Message::from_vec(&reply).unwrap()),
        _ => None,
    }
}

#[test]
fn ttls_count_down_to_the_second_and_the_entry_ends_with_them() {
    let service = service();
    store(&service, "www.example.", 300, false, false);
    for age in [0, 1, 150, 299] {
        let answer = ask_at(&service, &query("www.example.", RecordType::A), later(age)).unwrap();
        assert_eq!(u64::from(answer.answers[0].ttl), 300 - age);
    }
    for age in [300, 301, 100_000] {
        let packet = query("www.example.", RecordType::A).to_vec().unwrap();
        assert_eq!(serve_at(&service, &packet, CLIENT, later(age)).0, Came::Waits, "{age}");
    }
}

/// Data whose refresh is held back is given at once, with the reason, and cut like any other answer; what
/// is not held back must wait for the refresh.
#[test]
fn stale_data_is_served_only_while_its_refresh_is_held_back() {
    let service = service();
    store(&service, "www.example.", 300, false, false);
    let mut question = query("www.example.", RecordType::A);
    question.edns = Some(Edns::new());
    assert_eq!(ask_at(&service, &question, later(300)), None, "not held");
    store_failure_at(&service, "www.example.", later(300));
    let packet = question.to_vec().unwrap();
    let (came, board) = serve_at(&service, &packet, CLIENT, later(301));
    let Came::Reply(reply) = came else { panic!("{came:?}") };
    let answer = Message::from_vec(&reply).unwrap();
    assert_eq!((answer.answers.len(), answer.answers[0].ttl), (1, 30));
    assert_eq!(board.sum(Counter::StaleHeld), 1);
    assert_eq!(ask_at(&service, &question, later(330)), None, "no longer held");
    // Fresh data goes before all that.
    store(&service, "www.example.", 300, false, false);
    assert_eq!(ask_at(&service, &question, later(2)).unwrap().answers[0].ttl, 298);
}

#[test]
fn a_failure_is_given_until_its_time_is_over() {
    let service = service();
    store_failure(&service, "www.example.");
    let question = query("www.example.", RecordType::A);
    let answer = ask_at(&service, &question, later(29)).expect("remembered");
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(answer.answers.is_empty());
    assert_eq!(ask_at(&service, &question, later(30)), None);
}

#[test]
fn ad_is_given_only_when_it_was_given_and_asked_for() {
    for (secure, ad, dnssec_ok) in (0..8).map(|bits| (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0))
    {
        let service = service();
        store(&service, "www.example.", 300, dnssec_ok, secure);
        let mut question = query("www.example.", RecordType::A);
        question.metadata.authentic_data = ad;
        let mut edns = Edns::new();
        edns.set_dnssec_ok(dnssec_ok);
        question.edns = Some(edns);
        let answer = ask_at(&service, &question, later(1)).unwrap();
        let given = answer.metadata.authentic_data;
        assert_eq!(given, secure && (ad || dnssec_ok), "secure {secure} AD {ad} DO {dnssec_ok}");
    }
}

#[test]
fn do_and_cd_do_not_share_an_answer() {
    let service = service();
    store(&service, "www.example.", 300, false, false);
    let mut question = query("www.example.", RecordType::A);
    question.metadata.checking_disabled = true;
    assert_eq!(ask_at(&service, &question, later(1)), None);
    let mut edns = Edns::new();
    edns.set_dnssec_ok(true);
    question.metadata.checking_disabled = false;
    question.edns = Some(edns);
    assert_eq!(ask_at(&service, &question, later(1)), None);
}

#[test]
fn strangers_are_refused_even_what_is_cached() {
    let service = service();
    store(&service, "www.example.", 300, false, false);
    let packet = query("www.example.", RecordType::A).to_vec().unwrap();
    for stranger in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"] {
        let (came, board) = serve_at(&service, &packet, stranger.parse().unwrap(), later(1));
        let Came::Reply(reply) = came else { panic!("{stranger}: {came:?}") };
        let answer = Message::from_vec(&reply).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
        assert!(answer.answers.is_empty());
        assert_eq!(board.sum(Counter::AclRefused), 1);
    }
}

/// What holds for every reply to anything.
fn check_reply(packet: &[u8], reply: &[u8]) {
    assert!(reply.len() >= 12, "a whole header");
    assert_eq!(reply[..2], packet[..2], "the ID");
    assert_ne!(reply[2] & 0x80, 0, "QR");
    assert_eq!(packet[2] & 0x80, 0, "no answer to an answer");
    let answer = Message::from_vec(reply).expect("an independent parser reads it");
    if let Ok(Some(asked)) = Message::from_vec(packet).map(|message| message.edns) {
        if !answer.queries.is_empty() {
            assert!(answer.edns.is_some(), "EDNS for EDNS");
        }
        assert!(reply.len() <= usize::from(asked.max_payload().max(512)));
    }
}

proptest! {
    #[test]
    fn random_bytes_get_an_answer_or_silence(packet in prop::collection::vec(any::<u8>(), 0..600)) {
        if let (Came::Reply(reply), _) = serve_at(&service(), &packet, CLIENT, STORED_AT) {
            check_reply(&packet, &reply);
        }
    }

    #[test]
    fn mutated_queries_get_an_answer_or_silence(
        name in "[a-z]{1,20}(\\.[a-z]{1,10}){0,3}\\.",
        qtype in any::<u16>(),
        edns in prop::option::of((any::<u16>(), any::<bool>())),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut question = query(&name, RecordType::from(qtype));
        question.edns = edns.map(|(size, dnssec_ok)| {
            let mut edns = Edns::new();
            edns.set_max_payload(size).set_dnssec_ok(dnssec_ok);
            edns
        });
        let mut packet = question.to_vec().unwrap();
        for (at, byte) in changes {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        if let Some(cut) = cut {
            packet.truncate(cut.index(packet.len()));
        }
        if let (Came::Reply(reply), _) = serve_at(&service(), &packet, CLIENT, STORED_AT) {
            check_reply(&packet, &reply);
        }
    }

    #[test]
    fn a_hit_gives_back_the_question_to_the_letter(
        name in "[a-z]{1,20}(\\.[a-z]{1,10}){0,3}\\.",
        case in any::<u64>(),
    ) {
        let service = service();
        store(&service, &name, 300, false, false);
        let mixed: String = name
            .chars()
            .enumerate()
            .map(|(at, c)| if case >> (at % 64) & 1 == 1 { c.to_ascii_uppercase() } else { c })
            .collect();
        let answer = ask_at(&service, &query(&mixed, RecordType::A), later(1)).expect("a hit");
        prop_assert_eq!(answer.queries[0].name().to_ascii(), mixed);
        prop_assert_eq!(&answer.answers[0].name, &Name::from_ascii(&name).unwrap());
    }
}

/// The longest name there is, and the query that asks an upstream for it.
#[test]
fn the_longest_name_fits_everywhere() {
    let name = format!("{}{}.", "a.".repeat(126), "b");
    let service = service();
    store(&service, &name, 300, false, false);
    let answer = ask_at(&service, &query(&name, RecordType::A), later(1)).unwrap();
    assert_eq!(answer.answers.len(), 1);
    let wire = swiftlet_parser::name::Name::from_text(&name).unwrap();
    assert_eq!(wire.as_wire().len(), 255);
    let mut keys = KeyBuf::default();
    let variant = Variant::new(true, true, 0);
    let key = keys.build(&service.seed, wire.as_wire(), Type::A, Class::IN, variant);
    let mut packet = [0; 12 + 255 + 4 + 11];
    assert_eq!(write_query(&mut packet, 1, &key, 1232), Some(packet.len()));
}

/// The promise on which no local answer is ever cut: 512 bytes are enough for the largest.
#[test]
fn local_answers_fit_the_smallest_client() {
    let mut service = service();
    let name = "n".repeat(Identity::MAX_NAME_LEN);
    service.policies.identity = Identity::new(&"v".repeat(63), Some(&name));
    service.edns.nsid = Some(name.as_bytes().into());
    let longest = |end: &str| format!("{}.{end}", vec!["a".repeat(41); 5].join("."));
    let mut edns = Edns::new();
    edns.set_max_payload(512);
    edns.options_mut().insert(EdnsOption::Unknown(3, Vec::new()));
    let failed = longest("failed.");
    store_failure(&service, &failed);
    for (name, class, rtype) in [
        (failed, DNSClass::IN, RecordType::A),
        ("id.server.".to_owned(), DNSClass::CH, RecordType::TXT),
        ("version.bind.".into(), DNSClass::CH, RecordType::TXT),
        (longest("localhost."), DNSClass::IN, RecordType::MX),
        (longest("d.f.ip6.arpa."), DNSClass::IN, RecordType::PTR),
        (longest("example."), DNSClass::IN, RecordType::ANY),
        (longest("example."), DNSClass::IN, RecordType::AXFR),
        (longest("example."), DNSClass::HS, RecordType::A),
    ] {
        let mut question = query(&name, rtype);
        question.queries[0].set_query_class(class);
        question.edns = Some(edns.clone());
        let packet = question.to_vec().unwrap();
        for client in ["127.0.0.1", "192.0.2.1"] {
            let (came, _) = serve_at(&service, &packet, client.parse().unwrap(), STORED_AT);
            let Came::Reply(reply) = came else { panic!("{name}: {came:?}") };
            assert!(
                reply.len() > 12 && reply.len() <= 512,
                "{name} {rtype} to {client}: {} bytes",
                reply.len()
            );
        }
    }
}
