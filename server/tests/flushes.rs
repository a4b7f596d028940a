//! Forgetting on order: what was flushed is asked for again, and nothing that was known before comes back.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Instant;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use support::inside::Inside;
use support::upstream::{Upstream, absence, answer_to, name_of};
use support::{PATIENCE, ask, client, query, service};
use swiftlet::flush::Scope;
use swiftlet_cache::{Key, Kind, Lookup, NewEntry, Store as _};
use swiftlet_parser::name::Name;
use swiftlet_parser::rr::Type;

/// What an upstream says that knows every name but those that begin with `gone`.
fn right_answer(question: &Message) -> Message {
    match name_of(question).starts_with("gone") {
        true => absence(question, ResponseCode::NXDomain, 300),
        false => answer_to(question, 3600),
    }
}

fn named(name: &str) -> Scope {
    Scope { name: Some(Name::from_text(name).unwrap()), ..Scope::default() }
}

/// All questions are asked, the scope is flushed, all are asked again: those in it go to the upstream.
#[test]
fn what_is_in_the_scope_is_asked_for_again_and_nothing_else() {
    let upstream = Upstream::start(|asked| asked.reply(&right_answer(&asked.message)));
    let inside = Inside::start(2, upstream.address);
    let (a, txt) = (RecordType::A, RecordType::TXT);
    let questions = [
        ("www.example.", a),
        ("www.example.", txt),
        ("a.www.example.", a),
        ("b.a.www.example.", txt),
        ("wwww.example.", a),
        ("other.example.", a),
    ];
    let go_upstream = || -> Vec<_> {
        let is_asked = |&(name, rtype): &(&'static str, RecordType)| {
            let before = upstream.asked();
            let answer = ask(inside.dns, &query(name, rtype));
            assert_eq!(answer.answers.len(), 1, "{name} {rtype}");
            upstream.asked() > before
        };
        questions.into_iter().filter(is_asked).collect()
    };
    assert_eq!(go_upstream(), questions);
    let below = Scope { below: true, ..named("WWW.example.") };
    let texts = Scope { qtype: Some(Type::TXT), ..Scope::default() };
    for (what, scope, expected) in [
        ("a name", named("WWW.example."), &questions[..2]),
        ("a name with all below it", below, &questions[..4]),
        ("a type", texts, &[questions[1], questions[3]]),
        (
            "a type below a name",
            Scope { qtype: Some(Type::A), ..below },
            &[questions[0], questions[2]],
        ),
        ("a name that is not there", named("nobody.example."), &[]),
        ("all", Scope::default(), &questions[..]),
        ("all, by the root", Scope { below: true, ..named(".") }, &questions[..]),
    ] {
        assert_eq!(inside.service.flush(&scope), expected.len() as u64, "{what}");
        assert_eq!(go_upstream(), expected, "{what}");
    }
    assert_eq!(go_upstream(), [], "all is known again");
}

#[test]
fn the_absence_of_a_name_is_forgotten_with_any_of_its_types() {
    let upstream = Upstream::start(|asked| asked.reply(&right_answer(&asked.message)));
    let inside = Inside::start(1, upstream.address);
    let ask_for = |rtype| {
        let before = upstream.asked();
        let answer = ask(inside.dns, &query("gone.example.", rtype));
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        upstream.asked() > before
    };
    assert!(ask_for(RecordType::A));
    assert!(!ask_for(RecordType::AAAA), "the marker answers");
    let mail = Scope { qtype: Some(Type::MX), ..Scope::default() };
    assert_eq!(inside.service.flush(&mail), 1, "the marker");
    assert!(!ask_for(RecordType::A), "still known by its own type");
    assert!(ask_for(RecordType::TXT));
    assert!(!ask_for(RecordType::MX));
    for scope in [named("gone.example."), Scope { below: true, ..named("example.") }] {
        assert!(inside.service.flush(&scope) >= 2, "{scope:?}");
        assert!(ask_for(RecordType::MX), "{scope:?}");
        assert!(!ask_for(RecordType::A), "{scope:?}");
    }
}

/// The upstream may have read its zone before what the operator flushes for was changed there.
#[test]
fn a_question_in_flight_answers_its_client_but_is_not_stored() {
    for name in ["www.example.", "gone.example."] {
        let (release, gate) = channel::<()>();
        let upstream = Upstream::start(move |asked| {
            let _ = gate.recv_timeout(PATIENCE);
            asked.reply(&right_answer(&asked.message));
        });
        let inside = Inside::start(2, upstream.address);
        let in_flight = |name: &str| {
            let before = upstream.asked();
            let socket = client(inside.dns, PATIENCE);
            socket.send(&query(name, RecordType::A).to_vec().unwrap()).unwrap();
            let deadline = Instant::now() + PATIENCE;
            while upstream.asked() == before {
                assert!(Instant::now() < deadline, "{name} goes upstream");
                std::thread::yield_now();
            }
            socket
        };
        let come = |socket: std::net::UdpSocket| {
            release.send(()).unwrap();
            let len = socket.recv(&mut [0; 512]).expect("an answer");
            assert!(len > 12);
        };
        for scope in [Scope::default(), named("other.example.")] {
            let waiting = in_flight(name);
            inside.service.flush(&scope);
            come(waiting);
            assert_eq!(inside.service.cache.stats().entries, 0, "{name} {scope:?}");
        }
        // The next one finds nothing, neither its answer nor that there is no such name, and is stored.
        come(in_flight(name));
        let answer = ask(inside.dns, &query(name, RecordType::A));
        assert_eq!(answer.metadata.id, 0x1234);
        assert_eq!(upstream.asked(), 3, "{name}");
    }
}

/// Writers that were slow, readers that never pause: what was asked for before a flush is never seen once
/// it has returned. The bytes of each entry are the number of flushes when it was asked for.
#[test]
fn nothing_from_before_is_found_after_a_flush_has_returned() {
    const FLUSHES: u64 = 40;
    let service = Arc::new(service());
    let (returned, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let name = [1, b'a', 0, 0, 1, 0, 1, 0, 0];
    let key = Key { hash: 0x1234_5678_9abc_def0, bytes: &name };
    let seen = std::thread::scope(|scope| {
        for slowness in [0, 30, 300] {
            let (service, done) = (&service, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Acquire) {
                    let asked = service.flushes.count();
                    for _ in 0..slowness {
                        std::hint::spin_loop();
                    }
                    let answer = asked.to_be_bytes();
                    let entry =
                        NewEntry { answer: &answer, ttl_s: 60, stale_s: 0, kind: Kind::Data };
                    service.flushes.unless_since(asked, || service.cache.insert(key, entry, 1000));
                    std::thread::yield_now();
                }
            });
        }
        let reader = scope.spawn(|| {
            let mut seen = 0_u64;
            while !done.load(Ordering::Acquire) {
                let least = returned.load(Ordering::Acquire);
                let pin = service.cache.pin();
                service.cache.with(&pin, key, 1000, |found| {
                    if let Lookup::Fresh(hit) = found {
                        let asked = u64::from_be_bytes(hit.answer.try_into().unwrap());
                        assert!(asked >= least, "asked after flush {asked}, seen after {least}");
                        seen += 1;
                    }
                });
            }
            seen
        });
        for number in 1..=FLUSHES {
            service.flush(&Scope::default());
            returned.store(number, Ordering::Release);
            // Give the writers a chance to store something that the next flush must remove.
            let deadline = Instant::now() + PATIENCE;
            let is_empty = || {
                let pin = service.cache.pin();
                service.cache.with(&pin, key, 1000, |found| found == Lookup::Miss)
            };
            while is_empty() && Instant::now() < deadline {
                std::thread::yield_now();
            }
        }
        done.store(true, Ordering::Release);
        reader.join().expect("what was flushed came back")
    });
    assert!(seen > 0, "something was stored in between");
}
