//! Answers past their TTL, failures that are remembered, and answers refreshed before their time: what
//! clients get when upstream is silent or broken, by when, and how often upstream is asked.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::opt::EdnsOption;
use support::inside::{Inside, LIMITS};
use support::upstream::{Upstream, absence, failure};
use support::{PATIENCE, Swiftlet, ask, client, query};
use swiftlet::resolver::store::Limits;
use swiftlet::telemetry::Counter;

/// The TTL of everything that the upstream says, in seconds.
const TTL_S: u32 = 300;

/// What the upstream does, changed while it runs.
#[derive(Clone, Default)]
struct Mood(Arc<AtomicU8>);

const ANSWERS: u8 = 0;
const SILENT: u8 = 1;
const FAILS: u8 = 2;

impl Mood {
    fn set(&self, mood: u8) {
        self.0.store(mood, Ordering::SeqCst);
    }
}

/// An upstream that knows every name but those that begin with `gone`.
fn upstream(ttl_s: u32) -> (Upstream, Mood) {
    let mood = Mood::default();
    let is = mood.clone();
    let upstream = Upstream::start(move |asked| {
        let gone = asked.message.queries[0].name().to_lowercase().to_ascii().starts_with("gone");
        match is.0.load(Ordering::SeqCst) {
            SILENT => {}
            FAILS => asked.reply(&failure(&asked.message, ResponseCode::ServFail)),
            _ if gone => asked.reply(&absence(&asked.message, ResponseCode::NXDomain, ttl_s)),
            _ => asked.reply(&asked.answer(ttl_s)),
        }
    });
    (upstream, mood)
}

/// A running worker whose cache has had these names, and the time when they have expired.
fn with_expired(names: &[&str]) -> (Upstream, Mood, Inside) {
    let (upstream, mood) = upstream(TTL_S);
    let inside = Inside::start(1, upstream.address);
    for name in names {
        ask(inside.dns, &with_edns(name));
    }
    inside.clock.advance_ms(u64::from(TTL_S) * 1000);
    (upstream, mood, inside)
}

fn with_edns(name: &str) -> Message {
    let mut question = query(name, RecordType::A);
    question.edns = Some(Edns::new());
    question
}

/// The Extended DNS Error of an answer: its number and its text.
fn extended_error(answer: &Message) -> Option<(u16, String)> {
    let edns = answer.edns.as_ref()?;
    let (_, option) = edns.options().as_ref().iter().find(|(code, _)| u16::from(*code) == 15)?;
    let EdnsOption::Unknown(_, bytes) = option else { return None };
    let (number, text) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*number), String::from_utf8(text.to_vec()).ok()?))
}

fn error_number(answer: &Message) -> Option<u16> {
    extended_error(answer).map(|(number, _)| number)
}

/// An answer and how long it took.
fn timed(inside: &Inside, name: &str) -> (Message, Duration) {
    let begun = Instant::now();
    (ask(inside.dns, &with_edns(name)), begun.elapsed())
}

/// Those who waited are all accounted for.
fn check_waits(inside: &Inside) {
    let sum = |counter| inside.board.sum(counter);
    let ended: u64 = [
        Counter::WaitsAnswered,
        Counter::WaitsFailed,
        Counter::WaitsStale,
        Counter::WaitsShed,
        Counter::WaitsDropped,
    ]
    .into_iter()
    .map(sum)
    .sum();
    assert_eq!((sum(Counter::WaitsBegun), inside.board.pending()), (ended, 0));
}

#[test]
fn a_silent_upstream_lets_the_stale_answer_come_after_the_patience_of_a_client() {
    let (_upstream, mood, inside) = with_expired(&["www.example.", "gone.example."]);
    mood.set(SILENT);
    let patience = Duration::from_millis(1800)..Duration::from_millis(2300);
    let (answer, took) = timed(&inside, "www.example.");
    assert!(patience.contains(&took), "{took:?}");
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert_eq!((answer.answers.len(), answer.answers[0].ttl), (1, 30));
    assert_eq!(error_number(&answer), Some(3), "Stale Answer");
    // The question is in flight still, and nobody waits for it again.
    let questions = inside.board.sum(Counter::Questions);
    let (answer, took) = timed(&inside, "www.example.");
    assert_eq!(error_number(&answer), Some(3));
    assert!(took < Duration::from_millis(1000), "{took:?}");
    assert_eq!(inside.board.sum(Counter::Questions), questions);

    let (answer, took) = timed(&inside, "gone.example.");
    assert!(patience.contains(&took), "{took:?}");
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(answer.authorities[0].ttl, 30);
    assert_eq!(error_number(&answer), Some(19), "Stale NXDOMAIN Answer");
    assert_eq!(inside.board.sum(Counter::StaleTimeout), 3);
    check_waits(&inside);
}

#[test]
fn a_broken_upstream_lets_it_come_at_once_and_is_not_asked_again_for_a_while() {
    let (upstream, mood, inside) = with_expired(&["www.example."]);
    mood.set(FAILS);
    let (answer, took) = timed(&inside, "www.example.");
    assert!(took < Duration::from_millis(1500), "{took:?}");
    assert_eq!((answer.answers[0].ttl, error_number(&answer)), (30, Some(3)));
    let (asked, waited) = (upstream.asked(), inside.board.sum(Counter::WaitsBegun));
    for _ in 0..5 {
        let (answer, _) = timed(&inside, "www.example.");
        assert_eq!((answer.answers[0].ttl, error_number(&answer)), (30, Some(3)));
    }
    assert_eq!((upstream.asked(), inside.board.sum(Counter::WaitsBegun)), (asked, waited));
    assert_eq!(inside.board.sum(Counter::StaleFailure), 1);
    assert_eq!(inside.board.sum(Counter::StaleHeld), 5);
    // The time is over, and upstream is well again.
    mood.set(ANSWERS);
    inside.clock.advance_ms(2_000);
    let (answer, _) = timed(&inside, "www.example.");
    assert_eq!((answer.answers[0].ttl, error_number(&answer)), (TTL_S, None));
    check_waits(&inside);
}

#[test]
fn a_failure_without_data_is_told_from_the_cache_with_what_failed() {
    let (upstream, mood) = upstream(TTL_S);
    let inside = Inside::start(1, upstream.address);
    mood.set(FAILS);
    let (answer, _) = timed(&inside, "www.example.");
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    let told = extended_error(&answer).expect("the reason");
    let asked = upstream.asked();
    let (answer, _) = timed(&inside, "www.example.");
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(extended_error(&answer), Some((13, told.1)), "Cached Error");
    assert_eq!(inside.board.sum(Counter::FailuresGiven), 1);
    // Another variant of the question is another question.
    let mut checked = with_edns("www.example.");
    checked.metadata.checking_disabled = true;
    assert_ne!(error_number(&ask(inside.dns, &checked)), Some(13));
    assert!(upstream.asked() > asked);
    mood.set(ANSWERS);
    inside.clock.advance_ms(1_000);
    let (answer, _) = timed(&inside, "www.example.");
    assert_eq!((answer.answers.len(), error_number(&answer)), (1, None));
    check_waits(&inside);
}

#[test]
fn a_thousand_clients_asking_for_one_expired_name_are_one_question() {
    const CLIENTS: u64 = 1000;
    /// So many datagrams fit into any receive buffer.
    const AT_ONCE: usize = 100;
    let (_upstream, mood, inside) = with_expired(&["www.example."]);
    let before = inside.board.sum(Counter::Questions);
    mood.set(SILENT);
    let packet = with_edns("www.example.").to_vec().unwrap();
    let clients: Vec<_> = (0..CLIENTS).map(|_| client(inside.dns, PATIENCE)).collect();
    let deadline = Instant::now() + PATIENCE;
    for clients in clients.chunks(AT_ONCE) {
        let received = inside.board.sum(Counter::Received);
        clients.iter().for_each(|client| assert!(client.send(&packet).is_ok()));
        while inside.board.sum(Counter::Received) < received + clients.len() as u64 {
            assert!(Instant::now() < deadline, "all come");
        }
    }
    for client in &clients {
        let mut answer = [0; 512];
        let len = client.recv(&mut answer).expect("each is answered");
        let answer = Message::from_vec(&answer[..len]).unwrap();
        assert_eq!((answer.answers[0].ttl, error_number(&answer)), (30, Some(3)));
    }
    // Put again and again while nobody answers, but one question.
    assert_eq!(inside.board.sum(Counter::Questions), before + 1);
    assert_eq!(inside.board.sum(Counter::StaleTimeout), CLIENTS);
    check_waits(&inside);
}

#[test]
fn what_is_asked_for_in_the_last_tenth_of_its_time_is_never_missed() {
    let (upstream, _) = upstream(TTL_S);
    let inside = Inside::start(2, upstream.address);
    let questions = || inside.board.sum(Counter::Questions);
    ask(inside.dns, &query("www.example.", RecordType::A));
    ask(inside.dns, &query("www.example.", RecordType::A));
    inside.clock.advance_ms(u64::from(TTL_S) * 900 - 1000);
    ask(inside.dns, &query("www.example.", RecordType::A));
    assert_eq!(questions(), 1, "not yet");
    inside.clock.advance_ms(2000);
    let misses = inside.board.sum(Counter::CacheMisses);
    let deadline = Instant::now() + PATIENCE;
    while ask(inside.dns, &query("www.example.", RecordType::A)).answers[0].ttl < TTL_S {
        assert!(Instant::now() < deadline, "the refresh comes");
    }
    assert_eq!(questions(), 2);
    assert_eq!(inside.board.sum(Counter::Prefetches), 1);
    inside.clock.advance_ms(u64::from(TTL_S) * 500);
    ask(inside.dns, &query("www.example.", RecordType::A));
    assert_eq!(inside.board.sum(Counter::CacheMisses), misses);
    assert_eq!(questions(), 2);
}

#[test]
fn short_ttls_and_clients_without_recursion_cause_no_refresh() {
    let (upstream, _) = upstream(9);
    let inside = Inside::start(1, upstream.address);
    for _ in 0..2 {
        ask(inside.dns, &query("www.example.", RecordType::A));
    }
    inside.clock.advance_ms(8_500);
    for _ in 0..3 {
        ask(inside.dns, &query("www.example.", RecordType::A));
    }
    assert_eq!((upstream.asked(), inside.board.sum(Counter::Prefetches)), (1, 0));

    let (upstream, _) = self::upstream(TTL_S);
    let inside = Inside::start(1, upstream.address);
    for _ in 0..2 {
        ask(inside.dns, &query("www.example.", RecordType::A));
    }
    inside.clock.advance_ms(u64::from(TTL_S) * 950);
    let mut question = query("www.example.", RecordType::A);
    question.metadata.recursion_desired = false;
    for _ in 0..3 {
        ask(inside.dns, &question);
    }
    assert_eq!((upstream.asked(), inside.board.sum(Counter::Prefetches)), (1, 0));
}

#[test]
fn switched_off_nothing_is_given_past_its_ttl() {
    let (upstream, mood) = upstream(TTL_S);
    let inside = Inside::start_with(1, upstream.address, Limits { stale_ttl_s: 0, ..LIMITS });
    ask(inside.dns, &with_edns("www.example."));
    inside.clock.advance_ms(u64::from(TTL_S) * 1000);
    mood.set(FAILS);
    let (answer, _) = timed(&inside, "www.example.");
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(answer.answers.is_empty());
    inside.clock.advance_ms(1_000);
    assert_eq!(ask(inside.dns, &with_edns("www.example.")).answers.len(), 0);
}

/// That a name does not exist, once it is past its time, says nothing of types nobody asked for.
#[test]
fn a_marker_past_its_time_is_not_used() {
    let (upstream, mood, inside) = with_expired(&["gone.example."]);
    mood.set(FAILS);
    let mut question = with_edns("gone.example.");
    question.queries[0].set_query_type(RecordType::MX);
    let answer = ask(inside.dns, &question);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(upstream.asked() > 1);
}

/// The whole program through an outage: stale answers throughout, and fresh ones within two seconds of its
/// end, though the name was asked for all the time.
#[test]
fn after_an_outage_fresh_answers_flow_within_two_seconds() {
    let (upstream, mood) = upstream(1);
    let forward = upstream.address.to_string();
    let server = Swiftlet::start(&[("FORWARD", forward.as_str()), ("UPSTREAM_TIMEOUT_MS", "300")]);
    let answer = || ask(server.dns, &with_edns("www.example."));
    assert_eq!(answer().answers.len(), 1);
    mood.set(SILENT);
    let is_held = "stale_answers{why=\"held\"}";
    let deadline = Instant::now() + PATIENCE;
    let asked = upstream.asked();
    while server.metrics().get(is_held) < 100 || upstream.asked() < asked + 6 {
        assert_eq!(answer().answers.len(), 1);
        assert!(Instant::now() < deadline, "{} asked", upstream.asked() - asked);
    }
    mood.set(ANSWERS);
    let back = Instant::now();
    while error_number(&answer()).is_some() {
        assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    }
    let metrics = server.settled();
    assert_eq!(metrics.get("answers{rcode=\"SERVFAIL\"}"), 0);
    assert_eq!(metrics.get("waits_begun"), metrics.sum("waits"));
}

/// The whole program: a client over its bound has stale answers for what there is.
#[test]
fn a_client_over_its_bound_gets_stale_answers_if_there_are_any() {
    let (upstream, mood) = upstream(1);
    let forward = upstream.address.to_string();
    let settings = [("FORWARD", forward.as_str()), ("CLIENT_MISSES", "2"), ("STALE_TTL", "3600")];
    let server = Swiftlet::start(&settings);
    let names: Vec<String> = (0..4).map(|number| format!("n{number}.example.")).collect();
    let answers = |name: &String| ask(server.dns, &with_edns(name));
    names.iter().for_each(|name| assert_eq!(answers(name).answers.len(), 1));
    mood.set(SILENT);
    // Once the last one has expired all have; who asks for it then waits for the stale answer.
    let deadline = Instant::now() + PATIENCE;
    while error_number(&answers(&names[3])) != Some(3) {
        assert!(Instant::now() < deadline, "it expires");
    }
    let waiting = client(server.dns, PATIENCE);
    for name in [&names[0], &names[1]] {
        waiting.send(&with_edns(name).to_vec().unwrap()).unwrap();
    }
    while server.metrics().get("queries_pending") < 2 {
        assert!(Instant::now() < deadline, "both wait");
    }
    let answer = answers(&names[2]);
    assert_eq!((answer.answers[0].ttl, error_number(&answer)), (30, Some(3)));
    let answer = answers(&"unknown.example.".to_owned());
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(error_number(&answer), Some(0));
    for _ in 0..2 {
        waiting.recv(&mut [0; 512]).expect("they get theirs");
    }
    let metrics = server.settled();
    assert_eq!(metrics.get("stale_answers{why=\"overload\"}"), 1);
    assert_eq!(metrics.get("overload{limit=\"client\"}"), 2);
    assert_eq!(metrics.get("waits{outcome=\"shed\"}"), 1);
    assert_eq!(metrics.get("waits_begun"), metrics.sum("waits"));
}
