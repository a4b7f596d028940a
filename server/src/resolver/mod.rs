//! Resolving: the questions of which this worker owns the key, from the first waiter to the answer.
//!
//! The worker's loop admits a miss here ([`Resolver::admit`]), a task asks the upstreams, and the loop
//! collects what is finished ([`Resolver::take_finished`]) and answers the waiters. A task holds a
//! [`Flight`], so that whatever ends it (an answer, a failure, a panic) ends the wait of its clients.

mod forward;
mod inflight;
pub mod store;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use swiftlet_cache::{self as cache, Lookup, Store as _};
use swiftlet_net::clock::Clock;
use swiftlet_parser::edns::ExtendedError;
use swiftlet_parser::key::{Key, KeyBuf};
use swiftlet_parser::rr::Rcode;
use tokio::sync::Notify;

use crate::pipeline::Service;
use crate::pipeline::miss::{Miss, Waiter};
use crate::telemetry::{Counter, Tally};
use crate::upstream::Upstreams;
use inflight::{Inflight, Join};

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is one.
    Answer {
        /// Its stored form (`swiftlet_parser::template`).
        stored: Vec<u8>,
        /// Seconds since it came.
        age_s: u32,
    },
    /// There is none.
    Failure {
        /// The code that the clients get.
        rcode: Rcode,
        /// The reason that goes with it (RFC 8914).
        error: ExtendedError,
        /// The same in words.
        text: &'static str,
    },
    /// The same client waits already: it gets no second answer.
    Duplicate,
}

impl Outcome {
    fn servfail(error: ExtendedError, text: &'static str) -> Self {
        Self::Failure { rcode: Rcode::SERVFAIL, error, text }
    }
}

/// A question that is no longer in flight, and who waits for it.
#[derive(Debug)]
pub struct Finished {
    /// The key's hash.
    pub hash: u64,
    /// The key's bytes.
    pub key: Rc<[u8]>,
    /// Those to be answered, in the order in which they asked.
    pub waiters: Vec<Waiter>,
    /// What they are told.
    pub outcome: Outcome,
}

/// The resolving side of one worker.
pub struct Resolver {
    service: Arc<Service>,
    upstreams: Upstreams,
    limits: store::Limits,
    clock: Clock,
    tally: Tally,
    inflight: RefCell<Inflight>,
    finished: RefCell<VecDeque<Finished>>,
    /// Rung when something finished.
    bell: Notify,
}

impl Resolver {
    /// A resolver with nothing in flight, which asks at most `max_flights` questions at a time.
    #[must_use]
    pub fn new(
        service: Arc<Service>,
        upstreams: Upstreams,
        limits: store::Limits,
        clock: Clock,
        tally: Tally,
        max_flights: usize,
    ) -> Self {
        Self {
            service,
            upstreams,
            limits,
            clock,
            tally,
            inflight: RefCell::new(Inflight::new(max_flights)),
            finished: RefCell::default(),
            bell: Notify::new(),
        }
    }

    /// Takes a miss whose key this worker owns: it joins the question already in flight, or starts it.
    /// Must be called inside a `LocalSet`.
    pub fn admit(self: &Rc<Self>, miss: Miss) {
        let Miss { hash, key, waiter } = miss;
        let joined = self.inflight.borrow_mut().join(key, waiter);
        match joined {
            Join::Started(key) => {
                let flight = Flight { resolver: Rc::clone(self), hash, key, landed: false };
                tokio::task::spawn_local(flight.resolve());
            }
            Join::Joined => self.tally.inc(Counter::Coalesced),
            Join::Duplicate(key) => {
                self.finish_one(Miss { hash, key, waiter }, Outcome::Duplicate);
            }
            Join::Full(limit, key) => self.turn_away(limit, Miss { hash, key, waiter }),
        }
    }

    /// Answers a miss at once with SERVFAIL because the bound that `limit` counts is reached.
    pub fn turn_away(&self, limit: Counter, miss: Miss) {
        self.tally.inc(limit);
        let text = "too many questions are in flight";
        self.finish_one(miss, Outcome::servfail(ExtendedError::OTHER, text));
    }

    /// Looks for upstreams that forward back to this server, each `every`. Never ends.
    pub async fn watch_for_loops(self: Rc<Self>, every: Duration) {
        self.upstreams.watch_for_loops(&self.service.seed, every).await;
    }

    /// The next finished question, oldest first.
    pub fn take_finished(&self) -> Option<Finished> {
        self.finished.borrow_mut().pop_front()
    }

    /// Waits until something is finished.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Whether nothing is in flight and nothing waits to be collected.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.inflight.borrow().is_empty() && self.finished.borrow().is_empty()
    }

    /// Waiters of the questions in flight, which are given up.
    pub fn abandon(&self) -> Vec<Waiter> {
        self.inflight.borrow_mut().clear()
    }

    /// Ends the wait of one who did not get as far as a flight.
    fn finish_one(&self, miss: Miss, outcome: Outcome) {
        let Miss { hash, key, waiter } = miss;
        self.finish(Finished { hash, key: key.into(), waiters: vec![waiter], outcome });
    }

    fn finish(&self, finished: Finished) {
        self.finished.borrow_mut().push_back(finished);
        self.bell.notify_one();
    }

    /// The answer, if it came into the cache since the miss or follows from what is there.
    fn known(&self, key: &Key<'_>) -> Option<Outcome> {
        let (mut keys, flushes) = (KeyBuf::default(), self.service.flushes.count());
        self.probe(key).or_else(|| {
            if self.upstreams.is_of_a_parent(key) {
                return None;
            }
            let absent = self.probe(&store::nonexistence(&self.service.seed, key, &mut keys))?;
            if let Outcome::Answer { stored, age_s } = &absent {
                store::keep_absence(self, key, stored, *age_s, flushes);
            }
            Some(absent)
        })
    }

    fn probe(&self, key: &Key<'_>) -> Option<Outcome> {
        let cache = &self.service.cache;
        let probe = cache::Key { hash: key.hash, bytes: key.bytes };
        let pin = cache.pin();
        cache.with(&pin, probe, self.clock.now().boot_ms, |found| match found {
            Lookup::Fresh(hit) => {
                Some(Outcome::Answer { stored: hit.answer.to_vec(), age_s: hit.age_s })
            }
            Lookup::Stale(_) | Lookup::Miss => None,
        })
    }
}

/// One question in flight. Dropped without having landed, it fails its waiters.
struct Flight {
    resolver: Rc<Resolver>,
    hash: u64,
    key: Rc<[u8]>,
    landed: bool,
}

impl Flight {
    async fn resolve(self) {
        let outcome = {
            let Some(key) = Key::from_bytes(self.hash, &self.key) else {
                return;
            };
            match self.resolver.known(&key) {
                Some(known) => known,
                None => forward::forward(&self.resolver, &key).await,
            }
        };
        self.land(outcome);
    }

    fn land(mut self, outcome: Outcome) {
        self.landed = true;
        self.end(outcome);
    }

    fn end(&self, outcome: Outcome) {
        let waiters = self.resolver.inflight.borrow_mut().leave(&self.key);
        self.resolver.finish(Finished {
            hash: self.hash,
            key: Rc::clone(&self.key),
            waiters,
            outcome,
        });
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.landed {
            return;
        }
        if std::thread::panicking() {
            self.resolver.tally.inc(Counter::TaskPanics);
        }
        self.end(Outcome::servfail(ExtendedError::OTHER, "internal error"));
    }
}

#[cfg(test)]
mod tests {
    use swiftlet_net::route::Route;
    use swiftlet_parser::key::{CaseBits, Seed, Variant};
    use swiftlet_parser::query;
    use swiftlet_parser::rr::{Class, Type};

    use super::*;
    use crate::edns;
    use crate::pipeline::miss::ReplyTo;
    use crate::policy::{Acl, Identity, Policies, special_use};
    use crate::telemetry::Board;
    use crate::upstream::Servers;

    fn resolver(board: &Board) -> Rc<Resolver> {
        let service = Arc::new(Service {
            policies: Policies {
                acl: Acl::default(),
                identity: Identity::new("", None),
                special_use: special_use::Zones::default(),
            },
            edns: edns::Settings { udp_size: 1232, nsid: None, keepalive_100ms: 1 },
            cache: crate::cache::AnswerCache::new(cache::Config { max_bytes: 1 << 20 }),
            flushes: crate::flush::Flushes::default(),
            seed: Seed::new(1),
        });
        let (clock, tally) = (Clock::default(), board.tally(0));
        let servers = Servers::new(&["127.0.0.1:9".parse().unwrap()]);
        let timeout = Duration::from_secs(1);
        let upstreams = Upstreams::new(servers, timeout, 1232, clock.clone(), tally.clone());
        let limits = store::Limits { min_ttl_s: 0, max_ttl_s: 60, max_negative_ttl_s: 60 };
        Rc::new(Resolver::new(service, upstreams, limits, clock, tally, 10))
    }

    fn waiter() -> Waiter {
        let packet = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
        Waiter {
            query: query::parse(&packet).unwrap(),
            case: CaseBits::of(&[0]),
            reply_to: ReplyTo::Udp(Route::new("192.0.2.1:5".parse().unwrap(), None, 0, 0)),
            place: None,
        }
    }

    /// Nothing a task does can leave its clients waiting.
    #[tokio::test]
    async fn a_task_that_panics_fails_its_waiters_and_is_counted() {
        let board = Board::new(1);
        let resolver = resolver(&board);
        let mut keys = KeyBuf::default();
        let variant = Variant::new(false, false, 0);
        let key = keys.build(&Seed::new(1), &[0], Type::A, Class::IN, variant);
        let Join::Started(bytes) = resolver.inflight.borrow_mut().join(key.bytes.into(), waiter())
        else {
            panic!("the first one asks");
        };
        let flight =
            Flight { resolver: Rc::clone(&resolver), hash: key.hash, key: bytes, landed: false };
        let local = tokio::task::LocalSet::new();
        let task = local.spawn_local(async move {
            let _flight = flight;
            panic!("on purpose");
        });
        let ended: Result<(), _> = local.run_until(task).await;
        assert!(ended.is_err_and(|error| error.is_panic()));
        let finished = resolver.take_finished().expect("the waiters are not forgotten");
        assert_eq!(finished.waiters.len(), 1);
        assert!(matches!(finished.outcome, Outcome::Failure { rcode: Rcode::SERVFAIL, .. }));
        assert_eq!(board.sum(Counter::TaskPanics), 1);
        assert!(resolver.is_idle());
    }
}
