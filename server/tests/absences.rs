//! A name that does not exist has no records of any type: one NXDOMAIN answers the questions for all of
//! them, for as long as it holds and no further than it reaches.

mod support;

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use support::inside::Inside;
use support::upstream::{Upstream, absence, answer_to, failure, name_of};
use support::{ask, query};
use swiftlet::telemetry::Counter;

/// The TTL of what does not exist, in seconds.
const TTL: u32 = 300;

/// An upstream that knows `www.` with addresses, `alias.` that leads nowhere, `bare.` without addresses,
/// `changed.` that has lost its text, and nothing else.
fn upstream() -> Upstream {
    Upstream::start(|asked| {
        let message = &asked.message;
        let (name, rtype) = (name_of(message), message.queries[0].query_type());
        asked.reply(&match name.split('.').next() {
            Some("www") => answer_to(message, 60),
            Some("bare") => absence(message, ResponseCode::NoError, TTL),
            Some("changed") if rtype == RecordType::A => answer_to(message, 3600),
            Some("unsigned") => failure(message, ResponseCode::NXDomain),
            Some("alias") => {
                let mut answer = absence(message, ResponseCode::NXDomain, TTL);
                let target = RData::CNAME(CNAME(Name::from_ascii("gone.example.").unwrap()));
                let owner = message.queries[0].name().clone();
                answer.add_answer(Record::from_rdata(owner, TTL, target));
                answer
            }
            _ => absence(message, ResponseCode::NXDomain, TTL),
        });
    })
}

fn start() -> (Upstream, Inside) {
    let upstream = upstream();
    let inside = Inside::start(1, upstream.address);
    (upstream, inside)
}

/// The answer's code and the TTL of its SOA.
fn told(answer: &Message) -> (ResponseCode, Option<u32>) {
    (answer.metadata.response_code, answer.authorities.first().map(|soa| soa.ttl))
}

#[test]
fn one_nxdomain_answers_for_all_types_and_grows_old() {
    let (upstream, inside) = start();
    let nobody = |rtype| told(&ask(inside.dns, &query("gone.example.", rtype)));
    assert_eq!(nobody(RecordType::A), (ResponseCode::NXDomain, Some(TTL)));
    inside.clock.advance_ms(10_400);
    let hits = inside.board.sum(Counter::CacheHits);
    for rtype in [RecordType::AAAA, RecordType::MX, RecordType::DS] {
        assert_eq!(nobody(rtype), (ResponseCode::NXDomain, Some(TTL - 10)), "{rtype}");
    }
    // The letters of the name don't matter, and the client gets its own back.
    let answer = ask(inside.dns, &query("GONE.example.", RecordType::NS));
    assert_eq!(told(&answer), (ResponseCode::NXDomain, Some(TTL - 10)));
    assert_eq!(answer.queries[0].name().to_ascii(), "GONE.example.");
    assert_eq!(inside.board.sum(Counter::CacheHits), hits, "they took the way of a miss");
    assert_eq!(upstream.asked(), 1);
}

#[test]
fn the_second_question_for_a_type_is_a_hit_that_ends_no_later_than_the_first_answer() {
    let (upstream, inside) = start();
    let aaaa = || told(&ask(inside.dns, &query("gone.example.", RecordType::AAAA)));
    ask(inside.dns, &query("gone.example.", RecordType::A));
    inside.clock.advance_ms(299_900);
    let hits = inside.board.sum(Counter::CacheHits);
    let misses = inside.board.sum(Counter::CacheMisses);
    assert_eq!(aaaa(), (ResponseCode::NXDomain, Some(1)));
    // What was rounded off the age is not given out on top.
    inside.clock.advance_ms(100);
    assert_eq!(aaaa(), (ResponseCode::NXDomain, Some(TTL)));
    assert_eq!(upstream.asked(), 2, "asked again when the time is over");
    inside.clock.advance_ms(1_000);
    assert_eq!(aaaa(), (ResponseCode::NXDomain, Some(TTL - 1)));
    assert_eq!(inside.board.sum(Counter::CacheHits) - hits, 1);
    assert_eq!(inside.board.sum(Counter::CacheMisses) - misses, 2);
}

#[test]
fn an_answer_found_by_the_marker_is_a_hit_from_then_on() {
    let (upstream, inside) = start();
    ask(inside.dns, &query("gone.example.", RecordType::A));
    inside.clock.advance_ms(10_000);
    for hits in 0..3 {
        let answer = ask(inside.dns, &query("gone.example.", RecordType::AAAA));
        assert_eq!(told(&answer), (ResponseCode::NXDomain, Some(TTL - 10)));
        assert_eq!(inside.board.sum(Counter::CacheHits), hits);
    }
    assert_eq!(upstream.asked(), 1);
}

/// What follows must be asked of the upstream each time, for it does not follow from what is known.
#[test]
fn it_reaches_no_further_than_the_name_itself() {
    let with_do = |name, rtype| {
        let mut question = query(name, rtype);
        let mut edns = Edns::new();
        edns.set_dnssec_ok(true);
        question.edns = Some(edns);
        question
    };
    let checked = |name, rtype| {
        let mut question = query(name, rtype);
        question.metadata.checking_disabled = true;
        question
    };
    let (a, aaaa) = (RecordType::A, RecordType::AAAA);
    for (what, first, second) in [
        ("a name below", query("gone.example.", a), query("a.gone.example.", aaaa)),
        ("DO", query("gone.example.", a), with_do("gone.example.", aaaa)),
        ("no DO", with_do("gone.example.", a), query("gone.example.", aaaa)),
        ("CD", query("gone.example.", a), checked("gone.example.", aaaa)),
        ("the target of a CNAME", query("alias.example.", a), query("alias.example.", aaaa)),
        ("no such type", query("bare.example.", a), query("bare.example.", aaaa)),
        ("without a SOA", query("unsigned.example.", a), query("unsigned.example.", aaaa)),
    ] {
        let (upstream, inside) = start();
        ask(inside.dns, &first);
        ask(inside.dns, &second);
        assert_eq!(upstream.asked(), 2, "{what}");
    }
}

#[test]
fn an_answer_for_the_type_itself_wins() {
    let (upstream, inside) = start();
    let code = |rtype| ask(inside.dns, &query("changed.example.", rtype)).metadata.response_code;
    assert_eq!(code(RecordType::A), ResponseCode::NoError);
    assert_eq!(code(RecordType::TXT), ResponseCode::NXDomain);
    assert_eq!(code(RecordType::A), ResponseCode::NoError);
    assert_eq!(code(RecordType::AAAA), ResponseCode::NXDomain);
    assert_eq!(upstream.asked(), 2);
}

/// The marker stands under type 0, which clients may ask for as well.
#[test]
fn who_asks_for_type_0_neither_sees_nor_makes_a_marker() {
    let (upstream, inside) = start();
    let refused = |name| {
        let answer = ask(inside.dns, &query(name, RecordType::from(0)));
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused, "{name}");
    };
    refused("bare.example.");
    refused("gone.example.");
    assert_eq!(upstream.asked(), 0);
    ask(inside.dns, &query("gone.example.", RecordType::A));
    refused("gone.example.");
    ask(inside.dns, &query("bare.example.", RecordType::A));
    assert_eq!(upstream.asked(), 2);
}
