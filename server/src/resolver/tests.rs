//! The resolver with a scripted upstream, in virtual time.

use std::cell::Cell;
use std::time::Duration;

use swiftlet_cache::{Kind, NewEntry};
use swiftlet_net::clock::{Manual, Now};
use swiftlet_net::route::Route;
use swiftlet_parser::edns::ExtendedError;
use swiftlet_parser::key::{CaseBits, Seed, Variant};
use swiftlet_parser::query;
use swiftlet_parser::rr::{Class, Rcode, Type};
use swiftlet_parser::template::{self, Source};
use tokio::task::LocalSet;
use tokio::time::sleep;

use super::flight::CLIENT_PATIENCE;
use super::inflight::SHED_AFTER;
use super::*;
use crate::edns;
use crate::pipeline::miss::ReplyTo;
use crate::policy::{Acl, Identity, Policies, special_use};
use crate::telemetry::Board;
use crate::upstream::Servers;

/// For how long answers in these tests are fresh, in seconds.
const TTL_S: u32 = 300;

struct Stage {
    resolver: Rc<Resolver>,
    board: Board,
    hands: Manual,
    /// Questions that the script was asked.
    asked: Rc<Cell<usize>>,
}

/// What the scripted upstream says, after so long.
#[derive(Clone, Copy)]
enum Says {
    Answer,
    ServFail,
    Unreachable,
    NoSocket,
}

impl Stage {
    fn new(max_flights: usize) -> Self {
        let service = Arc::new(Service {
            policies: Policies {
                acl: Acl::default(),
                identity: Identity::new("", None),
                special_use: special_use::Zones::default(),
            },
            edns: edns::Settings { udp_size: 1232, nsid: None, keepalive_100ms: 1 },
            cache: crate::cache::AnswerCache::new(cache::Config::new(1 << 20)),
            flushes: crate::flush::Flushes::default(),
            seed: Seed::new(1),
        });
        let board = Board::new(1);
        let hands = Manual::new(Now { boot_ms: 1_000_000, wall_s: 1_700_000_000 });
        let (clock, tally) = (Clock::Manual(hands.clone()), board.tally(0));
        let servers = Servers::new(&["127.0.0.1:9".parse().unwrap()]);
        let timeout = Duration::from_secs(1);
        let upstreams = Upstreams::new(servers, timeout, 1232, clock.clone(), tally.clone());
        let limits = store::Limits {
            min_ttl_s: 0,
            max_ttl_s: 86_400,
            max_negative_ttl_s: 3600,
            stale_ttl_s: 86_400,
        };
        let resolver = Resolver::new(service, upstreams, limits, clock, tally, max_flights);
        Self { resolver: Rc::new(resolver), board, hands, asked: Rc::default() }
    }

    /// Admits a miss for a name of one letter; upstream says this after so long.
    fn admit(&self, name: u8, waiter: Option<Waiter>, says: Says, after: Duration) {
        let mut keys = KeyBuf::default();
        let key = key(&mut keys, name);
        let miss = Miss { hash: key.hash, key: key.bytes.into(), waiter };
        let (asked, hands) = (Rc::clone(&self.asked), self.hands.clone());
        self.resolver.admit_by(miss, async move |resolver: &Rc<Resolver>, key: &Key<'_>| {
            asked.set(asked.get() + 1);
            sleep(after).await;
            hands.advance_ms(after.as_millis() as u64);
            match says {
                Says::Answer => {
                    let stored = answer(key);
                    resolver.put(key, &stored);
                    Outcome::Answer { stored, age_s: 0 }
                }
                Says::ServFail => Outcome::servfail(ExtendedError::OTHER, "they cannot"),
                Says::Unreachable => {
                    Outcome::servfail(ExtendedError::NO_REACHABLE_AUTHORITY, "nobody answers")
                }
                Says::NoSocket => Outcome::Shed { text: "no socket" },
            }
        });
    }

    /// Puts an answer into the cache and makes it stale.
    fn make_stale(&self, name: u8) {
        let mut keys = KeyBuf::default();
        let key = key(&mut keys, name);
        self.resolver.put(&key, &answer(&key));
        self.hands.advance_ms(u64::from(TTL_S) * 1000);
    }

    /// What is finished next, and how long that took by the virtual clock.
    async fn finished(&self) -> (Finished, Duration) {
        let begun = Instant::now();
        loop {
            if let Some(finished) = self.resolver.take_finished() {
                return (finished, begun.elapsed());
            }
            self.resolver.rung().await;
        }
    }

    /// One question with one waiter: what came of it, and after how long.
    async fn ask(&self, name: u8, says: Says, after: Duration) -> (Outcome, Duration) {
        self.admit(name, Some(waiter(1)), says, after);
        let (finished, took) = self.finished().await;
        assert_eq!(finished.waiters.len(), 1);
        (finished.outcome, took)
    }

    /// What the cache shows of a name.
    fn look<R>(&self, name: u8, f: impl FnOnce(Lookup<'_>) -> R) -> R {
        let mut keys = KeyBuf::default();
        self.resolver.look(&key(&mut keys, name), f)
    }
}

impl Resolver {
    fn put(&self, key: &Key<'_>, stored: &[u8]) {
        let entry = NewEntry { answer: stored, ttl_s: TTL_S, stale_s: 86_400, kind: Kind::Data };
        let place = cache::Key { hash: key.hash, bytes: key.bytes };
        self.service.cache.insert(place, entry, self.clock.now().boot_ms);
    }
}

fn key(keys: &mut KeyBuf, name: u8) -> Key<'_> {
    let variant = Variant::new(false, false, 0);
    keys.build(&Seed::new(1), &[1, name, 0], Type::A, Class::IN, variant)
}

fn answer(key: &Key<'_>) -> Vec<u8> {
    let source = Source {
        qname: key.qname(),
        rcode: Rcode::NOERROR,
        secure: false,
        answer: &[],
        authority: &[],
        additional: &[],
    };
    let mut stored = Vec::new();
    template::build(&source, &mut stored).unwrap();
    stored
}

fn waiter(id: u8) -> Waiter {
    let packet = [0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];
    Waiter {
        query: query::parse(&packet).unwrap(),
        case: CaseBits::of(&[1, b'a', 0]),
        reply_to: ReplyTo::Udp(Route::new("192.0.2.1:5".parse().unwrap(), None, 0, 0)),
        place: None,
    }
}

/// Runs a test inside a `LocalSet`, where time passes only when everything waits.
fn stage(max_flights: usize, test: impl AsyncFnOnce(&Stage)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async { test(&Stage::new(max_flights)).await });
}

const SOON: Duration = Duration::from_millis(10);
const NEVER: Duration = Duration::from_secs(3600);

fn is_servfail(outcome: &Outcome, error: ExtendedError) -> bool {
    matches!(outcome, Outcome::Failure { rcode: Rcode::SERVFAIL, error: e, .. } if *e == error)
}

fn is_stale(outcome: &Outcome, expected: Staleness) -> bool {
    matches!(outcome, Outcome::Stale { why, .. } if *why == expected)
}

#[test]
fn who_waits_for_a_stale_key_gets_it_after_the_patience_and_the_flight_goes_on() {
    stage(10, async |stage| {
        stage.make_stale(b'a');
        let (outcome, took) = stage.ask(b'a', Says::Answer, Duration::from_secs(5)).await;
        assert!(is_stale(&outcome, Staleness::Timeout), "{outcome:?}");
        assert!((CLIENT_PATIENCE..CLIENT_PATIENCE + SOON).contains(&took), "{took:?}");
        assert!(stage.resolver.is_idle(), "nobody waits any more");
        // Who comes now gets it at once, without another question.
        let (outcome, took) = stage.ask(b'a', Says::Answer, SOON).await;
        assert!(is_stale(&outcome, Staleness::Timeout) && took < SOON, "{outcome:?} {took:?}");
        assert_eq!(stage.asked.get(), 1);
        // Its answer is stored all the same.
        sleep(Duration::from_secs(5)).await;
        assert!(stage.look(b'a', |found| matches!(found, Lookup::Fresh(_))));
        let (outcome, _) = stage.ask(b'a', Says::Answer, SOON).await;
        assert!(matches!(outcome, Outcome::Answer { .. }));
        assert_eq!(stage.asked.get(), 1);
    });
}

#[test]
fn an_answer_in_time_is_given_and_no_stale_one() {
    stage(10, async |stage| {
        stage.make_stale(b'a');
        let (outcome, _) = stage.ask(b'a', Says::Answer, CLIENT_PATIENCE - SOON).await;
        assert!(matches!(outcome, Outcome::Answer { .. }));
    });
}

#[test]
fn without_data_there_is_nothing_to_give_but_the_failure() {
    stage(10, async |stage| {
        let after = Duration::from_secs(3);
        let (outcome, took) = stage.ask(b'a', Says::ServFail, after).await;
        assert!(is_servfail(&outcome, ExtendedError::OTHER), "{outcome:?}");
        assert!(took >= after);
        // Remembered: at the owner too, for who was on the way to it.
        let (outcome, took) = stage.ask(b'a', Says::Answer, SOON).await;
        assert!(is_servfail(&outcome, ExtendedError::CACHED_ERROR), "{outcome:?}");
        assert!(took < SOON);
        assert_eq!(stage.asked.get(), 1);
        stage.hands.advance_ms(1000);
        let (outcome, _) = stage.ask(b'a', Says::Answer, SOON).await;
        assert!(matches!(outcome, Outcome::Answer { .. }));
        assert_eq!(stage.asked.get(), 2);
    });
}

/// How long each of a row of failures is remembered, in seconds.
async fn holds(stage: &Stage, says: Says, row: usize) -> Vec<u64> {
    let mut holds = Vec::new();
    for _ in 0..row {
        let asked = stage.asked.get();
        // Whole seconds, in which the cache counts how long data is held.
        stage.ask(b'a', says, Duration::from_secs(1)).await;
        assert_eq!(stage.asked.get(), asked + 1);
        let failed_ms = stage.hands.now().boot_ms;
        let is_held = || {
            stage.look(b'a', |found| match found {
                Lookup::Fresh(_) => true,
                Lookup::Stale(hit) => hit.retry_held,
                Lookup::Miss => false,
            })
        };
        while is_held() {
            stage.hands.advance_ms(100);
        }
        holds.push((stage.hands.now().boot_ms - failed_ms) / 1000);
    }
    holds
}

#[test]
fn failures_in_a_row_are_remembered_longer_with_data_and_without() {
    for with_data in [false, true] {
        stage(10, async |stage| {
            if with_data {
                stage.make_stale(b'a');
            }
            let growth = [1, 2, 4, 8, 16, 30, 30];
            assert_eq!(holds(stage, Says::ServFail, growth.len()).await, growth);
            let (outcome, _) = stage.ask(b'a', Says::Answer, Duration::from_secs(1)).await;
            assert!(matches!(outcome, Outcome::Answer { .. }));
            stage.hands.advance_ms(u64::from(TTL_S) * 1000);
            assert_eq!(holds(stage, Says::ServFail, 2).await, [1, 2], "a success ends the row");
        });
    }
}

#[test]
fn an_outage_is_not_held_against_a_key() {
    stage(10, async |stage| {
        assert_eq!(holds(stage, Says::Unreachable, 5).await, [1; 5]);
        // Other keys are answered meanwhile: it is this one.
        for expected_s in [1, 2, 4] {
            stage.admit(b'a', Some(waiter(1)), Says::Unreachable, SOON * 2);
            stage.admit(b'b', Some(waiter(1)), Says::Answer, SOON);
            let (finished, _) = stage.finished().await;
            assert!(matches!(finished.outcome, Outcome::Answer { .. }));
            let (finished, _) = stage.finished().await;
            assert!(finished.outcome.is_unreachable());
            stage.hands.advance_ms(expected_s * 1000 - 1);
            assert!(stage.look(b'a', |found| matches!(found, Lookup::Fresh(_))), "{expected_s} s");
            stage.hands.advance_ms(1);
            assert!(stage.look(b'a', |found| matches!(found, Lookup::Miss)), "{expected_s} s");
            stage.resolver.service.flush(&crate::flush::Scope::default());
        }
    });
}

#[test]
fn in_an_outage_stale_data_is_given_at_once_and_its_end_is_soon_known() {
    stage(10, async |stage| {
        stage.make_stale(b'a');
        let (outcome, _) = stage.ask(b'a', Says::Unreachable, SOON).await;
        assert!(is_stale(&outcome, Staleness::Failure), "{outcome:?}");
        for second in 1..=20 {
            stage.hands.advance_ms(1000);
            // As the packet path asks with each stale answer that it gives.
            stage.admit(b'a', None, Says::Unreachable, SOON);
            stage.admit(b'a', None, Says::Unreachable, SOON);
            sleep(SOON * 2).await;
            stage.admit(b'a', None, Says::Unreachable, SOON);
            sleep(SOON * 2).await;
            assert_eq!(stage.asked.get(), 1 + second, "once a second");
            assert!(
                stage.look(b'a', |found| matches!(found, Lookup::Stale(hit) if hit.retry_held))
            );
        }
        stage.hands.advance_ms(1000);
        stage.admit(b'a', None, Says::Answer, SOON);
        sleep(SOON * 2).await;
        assert!(stage.look(b'a', |found| matches!(found, Lookup::Fresh(_))));
        assert_eq!(stage.board.sum(Counter::Prefetches), 21);
    });
}

#[test]
fn a_failure_gives_stale_data_at_once_and_holds_back_the_next_question() {
    stage(10, async |stage| {
        stage.make_stale(b'a');
        let (outcome, took) = stage.ask(b'a', Says::ServFail, SOON).await;
        assert!(is_stale(&outcome, Staleness::Failure), "{outcome:?}");
        assert!(took < SOON * 2);
        let (outcome, _) = stage.ask(b'a', Says::Answer, SOON).await;
        assert!(is_stale(&outcome, Staleness::Held), "{outcome:?}");
        assert_eq!(stage.asked.get(), 1);
    });
}

#[test]
fn our_own_limits_are_not_held_against_a_key() {
    stage(10, async |stage| {
        let (outcome, _) = stage.ask(b'a', Says::NoSocket, SOON).await;
        assert_eq!(outcome, Outcome::Shed { text: "no socket" });
        assert!(stage.look(b'a', |found| matches!(found, Lookup::Miss)));
        stage.make_stale(b'b');
        let (outcome, _) = stage.ask(b'b', Says::NoSocket, SOON).await;
        assert!(is_stale(&outcome, Staleness::Overload), "{outcome:?}");
        assert!(stage.look(b'b', |found| matches!(found, Lookup::Stale(hit) if !hit.retry_held)));
    });
}

#[test]
fn the_oldest_makes_room_with_stale_data_if_there_is_any() {
    stage(2, async |stage| {
        stage.make_stale(b'a');
        stage.admit(b'a', Some(waiter(1)), Says::Answer, NEVER);
        stage.admit(b'b', Some(waiter(1)), Says::Answer, NEVER);
        sleep(SOON).await;
        // Those in flight may still be answered: the new one is turned away.
        let (outcome, _) = stage.ask(b'c', Says::Answer, SOON).await;
        assert_eq!(outcome, Outcome::overload());
        assert_eq!(stage.board.sum(Counter::FlightsFull), 1);
        sleep(SHED_AFTER).await;
        for (new, old) in [(b'c', b'a'), (b'd', b'b')] {
            stage.admit(new, Some(waiter(1)), Says::Answer, NEVER);
            let (finished, took) = stage.finished().await;
            assert_eq!(finished.key[1], old);
            assert!(took < SOON);
            match old {
                b'a' => assert!(is_stale(&finished.outcome, Staleness::Overload)),
                _ => assert_eq!(finished.outcome, Outcome::overload()),
            }
            sleep(SOON).await;
        }
        assert_eq!(stage.asked.get(), 4);
        assert_eq!(stage.board.sum(Counter::FlightsShed), 2);
        assert_eq!(stage.board.sum(Counter::TaskPanics), 0);
        // The tasks of those that made room are gone, and end nothing that came after them.
        assert_eq!(Rc::strong_count(&stage.asked), 3);
        assert_eq!(stage.resolver.abandon().len(), 2);
    });
}

#[test]
fn a_refresh_asks_once_and_who_comes_meanwhile_joins_it() {
    stage(10, async |stage| {
        stage.make_stale(b'a');
        let mut keys = KeyBuf::default();
        let key = key(&mut keys, b'a');
        stage.resolver.put(&key, &answer(&key));
        let due = u64::from(TTL_S) * 900;
        stage.hands.advance_ms(due);
        let probe =
            || stage.look(b'a', |found| matches!(found, Lookup::Fresh(hit) if hit.refresh_due));
        probe();
        assert!(probe());
        for _ in 0..3 {
            stage.admit(b'a', None, Says::Answer, SOON);
        }
        assert!(stage.resolver.is_idle(), "it holds up no stop");
        sleep(SOON * 2).await;
        assert_eq!((stage.asked.get(), stage.board.sum(Counter::Prefetches)), (1, 1));
        assert!(stage.resolver.take_finished().is_none());
        assert!(!probe());
        // Too late for a refresh: the letter took longer than the time that was left.
        stage.hands.advance_ms(u64::from(TTL_S) * 1000);
        stage.admit(b'a', None, Says::Answer, Duration::from_secs(5));
        sleep(SOON).await;
        let (outcome, took) = stage.ask(b'a', Says::Answer, SOON).await;
        assert!(is_stale(&outcome, Staleness::Timeout), "{outcome:?}");
        assert!(took < CLIENT_PATIENCE);
        assert_eq!(stage.asked.get(), 2);
    });
}

/// Thousands may be in flight, each with its task.
#[test]
fn a_flight_takes_little_memory() {
    stage(10, async |stage| {
        let mut keys = KeyBuf::default();
        let key = key(&mut keys, b'a');
        let join =
            stage.resolver.inflight.borrow_mut().join(key.hash, key.bytes.into(), waiter(1), false);
        let Join::Started(ticket) = join else { panic!("the first") };
        let resolver = Rc::clone(&stage.resolver);
        let flight = Flight { resolver, ticket, refreshes: false, landed: false };
        let future = flight.resolve(async |resolver: &Rc<Resolver>, key: &Key<'_>| {
            forward::forward(resolver, key).await
        });
        assert!(size_of_val(&future) < 8192);
    });
}

/// Nothing a task does can leave its clients waiting.
#[test]
fn a_task_that_panics_fails_its_waiters_and_is_counted() {
    stage(10, async |stage| {
        let mut keys = KeyBuf::default();
        let key = key(&mut keys, b'a');
        let miss = Miss { hash: key.hash, key: key.bytes.into(), waiter: Some(waiter(1)) };
        stage.resolver.admit_by(miss, async |_: &Rc<Resolver>, _: &Key<'_>| panic!("on purpose"));
        let (finished, _) = stage.finished().await;
        assert_eq!(finished.waiters.len(), 1);
        assert!(is_servfail(&finished.outcome, ExtendedError::OTHER));
        assert_eq!(stage.board.sum(Counter::TaskPanics), 1);
        assert!(stage.resolver.is_idle());
        assert!(stage.look(b'a', |found| matches!(found, Lookup::Miss)), "not remembered");
    });
}
