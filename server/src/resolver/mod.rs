//! Resolving: the questions of which this worker owns the key, from the first waiter to the answer.
//!
//! The worker's loop admits a miss here ([`Resolver::admit`]), a task asks the upstreams ([`flight`]), and
//! the loop collects what is finished ([`Resolver::take_finished`]) and answers the waiters. What is known
//! already, what is stale and what failed a moment ago is decided here, at the owner, once more than on
//! the packet path: many ask before the first answer is there.

pub mod failures;
mod flight;
mod forward;
mod inflight;
mod outcome;
mod refreshes;
pub mod store;
pub mod timeline;

pub use outcome::{Finished, Outcome, Staleness};

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use swiftlet_cache::{self as cache, Lookup, Store as _};
use swiftlet_net::clock::Clock;
use swiftlet_parser::key::{Key, KeyBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::pipeline::Service;
use crate::pipeline::miss::{Miss, Waiter};
use crate::telemetry::{Counter, Tally};
use crate::upstream::Upstreams;
use failures::{Failed, Streaks};
use flight::Flight;
use inflight::{Inflight, Join, Refresh, Ticket};
use refreshes::Refreshes;

/// The resolving side of one worker.
pub struct Resolver {
    service: Arc<Service>,
    upstreams: Upstreams,
    limits: store::Limits,
    clock: Clock,
    tally: Tally,
    inflight: RefCell<Inflight>,
    finished: RefCell<VecDeque<Finished>>,
    streaks: RefCell<Streaks>,
    refreshes: RefCell<Refreshes>,
    /// When an upstream last said anything to this worker, by the first server of the name's zone: an
    /// outage of one zone's servers is none of another's.
    heard: RefCell<Vec<Option<Instant>>>,
    /// Rung when something finished.
    bell: Notify,
}

/// What the cache has for a question that nobody is asking yet.
enum Known {
    /// All there is to say.
    Outcome(Outcome),
    /// Nothing to be content with.
    Not {
        /// There is something to fall back on.
        spare: bool,
    },
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
            streaks: RefCell::default(),
            refreshes: RefCell::default(),
            heard: RefCell::default(),
            bell: Notify::new(),
        }
    }

    /// Takes a miss whose key this worker owns: it joins the question already in flight, or starts it.
    /// Must be called inside a `LocalSet`.
    pub fn admit(self: &Rc<Self>, miss: Miss) {
        let ask = async |resolver: &Rc<Self>, key: &Key<'_>| forward::forward(resolver, key).await;
        self.admit_by(miss, ask);
    }

    /// The same with another way to ask; `admit` has the one that is used.
    fn admit_by(
        self: &Rc<Self>,
        miss: Miss,
        ask: impl AsyncFnOnce(&Rc<Self>, &Key<'_>) -> Outcome + 'static,
    ) {
        let Miss { hash, mut key, waiter } = miss;
        let Some(waiter) = waiter else { return self.admit_refresh(hash, key, ask) };
        let mut with_late = false;
        // Three rounds at most: late without stale data, then full, then room is there.
        loop {
            let joined = self.inflight.borrow_mut().join(hash, key, waiter, with_late);
            match joined {
                Join::Started(ticket) => return self.launch(ticket, false, ask),
                Join::Joined => return self.tally.inc(Counter::Coalesced),
                Join::Late(back) => match self.stale_of(hash, &back, Staleness::Timeout) {
                    Some(stale) => return self.finish_one(hash, back, waiter, stale),
                    None => (key, with_late) = (back, true),
                },
                Join::Duplicate(key) => {
                    return self.finish_one(hash, key, waiter, Outcome::Duplicate);
                }
                Join::Full(Counter::FlightsFull, back) if self.make_room() => key = back,
                Join::Full(limit, key) => {
                    return self.turn_away(limit, Miss { hash, key, waiter: Some(waiter) });
                }
            }
        }
    }

    /// Asks for an answer anew for which nobody waits yet.
    fn admit_refresh(
        self: &Rc<Self>,
        hash: u64,
        key: Box<[u8]>,
        ask: impl AsyncFnOnce(&Rc<Self>, &Key<'_>) -> Outcome + 'static,
    ) {
        let begun = self.inflight.borrow_mut().refresh(hash, key);
        match begun {
            Refresh::Started(ticket) => self.launch(ticket, true, ask),
            Refresh::InFlight => {}
            Refresh::Full => self.tally.inc(Counter::PrefetchesSkipped),
        }
    }

    fn launch(
        self: &Rc<Self>,
        ticket: Ticket,
        refreshes: bool,
        ask: impl AsyncFnOnce(&Rc<Self>, &Key<'_>) -> Outcome + 'static,
    ) {
        let resolver = Rc::clone(self);
        let flight = Flight { resolver, ticket: ticket.clone(), refreshes, landed: false };
        let task = tokio::task::spawn_local(flight.resolve(ask));
        self.inflight.borrow_mut().launched(&ticket, task.abort_handle());
    }

    /// Gives up the question that is in flight longest. Returns whether there is room for another now.
    fn make_room(&self) -> bool {
        let Some(shed) = self.inflight.borrow_mut().shed_oldest() else { return false };
        self.tally.add(Counter::FlightsFull, shed.waiters.len() as u64);
        self.tally.inc(Counter::FlightsShed);
        let outcome = self.stale_of(shed.hash, &shed.key, Staleness::Overload);
        if outcome.is_none() {
            self.tally.add(Counter::ServfailOverload, shed.waiters.len() as u64);
        }
        self.finish(Finished {
            hash: shed.hash,
            key: shed.key,
            waiters: shed.waiters,
            outcome: outcome.unwrap_or_else(Outcome::overload),
        });
        true
    }

    /// Answers a miss at once because the bound that `limit` counts is reached: with stale data if there
    /// is any, else with SERVFAIL.
    pub fn turn_away(&self, limit: Counter, miss: Miss) {
        let Miss { hash, key, waiter } = miss;
        let Some(waiter) = waiter else { return self.tally.inc(Counter::PrefetchesSkipped) };
        self.tally.inc(limit);
        let stale = self.stale_of(hash, &key, Staleness::Overload);
        if stale.is_none() {
            self.tally.inc(Counter::ServfailOverload);
        }
        self.finish_one(hash, key, waiter, stale.unwrap_or_else(Outcome::overload));
    }

    /// Asks upstream for what an operator wants explained, whatever is known of it, and says what happened.
    /// It is a question of its own beside the one in flight, if there is one. Must be called inside a
    /// `LocalSet`.
    pub fn explain(self: &Rc<Self>, asked: timeline::Asked) {
        let resolver = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let Some(key) = Key::from_bytes(asked.hash, &asked.key) else { return };
            let explained = timeline::record(async {
                resolver.describe(&key);
                forward::forward(&resolver, &key).await
            });
            // Who asked may be gone.
            let _ = asked.reply.send(explained.await);
        });
    }

    /// Notes what is known of a key.
    fn describe(&self, key: &Key<'_>) {
        timeline::note(|| {
            self.look(key, |found| match found {
                Lookup::Fresh(hit) => match Failed::read(hit.answer) {
                    Some(failed) => {
                        format!("cache: it failed {} s ago: {}", hit.age_s, failed.text)
                    }
                    None => format!("cache: fresh, {} s old", hit.age_s),
                },
                Lookup::Stale(hit) if hit.retry_held => {
                    format!("cache: stale, {} s old, refresh held back", hit.age_s)
                }
                Lookup::Stale(hit) => format!("cache: stale, {} s old", hit.age_s),
                Lookup::Miss => "cache: nothing".to_owned(),
            })
        });
        if let Some((since, waiters)) = self.inflight.borrow().of_key(key.bytes) {
            timeline::note(|| {
                format!("in flight for {} ms, {waiters} clients wait", since.as_millis())
            });
        }
    }

    /// Whether the owner of a key is to be told that its answer's time is almost over; it was not lately.
    pub fn begin_refresh(&self, hash: u64, now_ms: u64) -> bool {
        self.refreshes.borrow_mut().begin(hash, now_ms)
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

    /// Whether nobody waits for anything. Questions may still be in flight for whom it concerns later.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.inflight.borrow().is_awaited() && self.finished.borrow().is_empty()
    }

    /// Waiters of the questions in flight, which are given up.
    pub fn abandon(&self) -> Vec<Waiter> {
        self.inflight.borrow_mut().clear()
    }

    /// Ends the wait of one who did not get as far as a flight.
    fn finish_one(&self, hash: u64, key: Box<[u8]>, waiter: Waiter, outcome: Outcome) {
        self.finish(Finished { hash, key: key.into(), waiters: vec![waiter], outcome });
    }

    fn finish(&self, finished: Finished) {
        if finished.waiters.is_empty() {
            return;
        }
        self.finished.borrow_mut().push_back(finished);
        self.bell.notify_one();
    }

    /// The answer, if it came into the cache since the miss or follows from what is there. A refresh is
    /// not content with what is due to be refreshed.
    fn known(&self, key: &Key<'_>, refreshes: bool) -> Known {
        let (mut keys, flushes) = (KeyBuf::default(), self.service.flushes.count());
        let known = self.look(key, |found| match found {
            Lookup::Fresh(hit) if refreshes && hit.refresh_due => Known::Not { spare: true },
            Lookup::Fresh(hit) => Known::Outcome(match Failed::read(hit.answer) {
                Some(failed) => failed.outcome(),
                None => Outcome::Answer { stored: hit.answer.to_vec(), age_s: hit.age_s },
            }),
            Lookup::Stale(hit) if hit.retry_held && !(refreshes && self.may_be_over(key)) => {
                let stored = hit.answer.to_vec();
                Known::Outcome(Outcome::Stale { stored, why: Staleness::Held })
            }
            Lookup::Stale(_) => Known::Not { spare: true },
            Lookup::Miss => Known::Not { spare: false },
        });
        let is_known = matches!(known, Known::Outcome(_));
        // That a name is nowhere in a forward zone says nothing of DS, which its parent has.
        if refreshes || is_known || self.upstreams.is_of_a_parent(key) {
            return known;
        }
        let marker = store::nonexistence(&self.service.seed, key, &mut keys);
        let absent = self.look(&marker, |found| match found {
            Lookup::Fresh(hit) => Some((hit.answer.to_vec(), hit.age_s)),
            // That nothing has this name must be true now, for it speaks of types nobody asked for.
            Lookup::Stale(_) | Lookup::Miss => None,
        });
        let Some((stored, age_s)) = absent else { return known };
        store::keep_absence(self, key, &stored, age_s, flushes);
        Known::Outcome(Outcome::Answer { stored, age_s })
    }

    fn may_be_over(&self, key: &Key<'_>) -> bool {
        self.streaks.borrow_mut().may_be_over(key.hash, self.clock.now().boot_ms)
    }

    /// Data whose time is over, if there is any.
    fn stale(&self, key: &Key<'_>, why: Staleness) -> Option<Outcome> {
        self.look(key, |found| match found {
            Lookup::Stale(hit) => Some(Outcome::Stale { stored: hit.answer.to_vec(), why }),
            Lookup::Fresh(_) | Lookup::Miss => None,
        })
    }

    fn stale_of(&self, hash: u64, key: &[u8], why: Staleness) -> Option<Outcome> {
        self.stale(&Key::from_bytes(hash, key)?, why)
    }

    fn look<R>(&self, key: &Key<'_>, f: impl FnOnce(Lookup<'_>) -> R) -> R {
        let cache = &self.service.cache;
        let probe = cache::Key { hash: key.hash, bytes: key.bytes };
        cache.with(&cache.pin(), probe, self.clock.now().boot_ms, f)
    }

    /// An upstream answered a question.
    fn heard(&self, key: &Key<'_>) {
        self.hear(key);
        self.streaks.borrow_mut().succeeded(key.hash);
    }

    /// An upstream said something.
    fn hear(&self, key: &Key<'_>) {
        let (place, mut heard) = (self.zone_of(key), self.heard.borrow_mut());
        if heard.len() <= place {
            heard.resize(place + 1, None);
        }
        heard[place] = Some(Instant::now());
    }

    /// Whether no upstream for this name has said anything to this worker since then, not even that it
    /// has no answer.
    fn is_outage(&self, key: &Key<'_>, begun: Instant) -> bool {
        let heard = self.heard.borrow().get(self.zone_of(key)).copied().flatten();
        heard.is_none_or(|heard| heard < begun)
    }

    fn zone_of(&self, key: &Key<'_>) -> usize {
        self.upstreams.candidates(key).first().map_or(0, |&server| server)
    }

    /// Notes that a question that was asked at `begun` failed (RFC 9520), unless there was a flush since
    /// their number was `flushes`.
    ///
    /// If no upstream could be reached and none of this name's has said anything in the meantime, that
    /// is an outage and not this key's fault.
    fn remember(&self, key: &Key<'_>, outcome: &Outcome, begun: Instant, flushes: u64) {
        let Outcome::Failure { rcode, error, text } = outcome else { return };
        if !outcome.is_unreachable() {
            self.hear(key);
        }
        let is_outage = self.is_outage(key, begun);
        let now_ms = self.clock.now().boot_ms;
        let mut hold_s = self.streaks.borrow_mut().failed(key.hash, now_ms, is_outage);
        if is_outage && self.stale(key, Staleness::Failure).is_some() {
            hold_s = failures::HOLD_MAX_S;
        }
        let failed = Failed { rcode: *rcode, error: *error, text };
        store::keep_failure(self, key, &failed, hold_s, flushes);
    }
}

#[cfg(test)]
mod tests;
