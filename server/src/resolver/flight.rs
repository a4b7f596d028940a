//! One question in flight: from the look into the cache to the answer, whoever waits for it.
//!
//! ```text
//!   known? ──── yes ─────────────────────────────────────────► land
//!     │ no, or a refresh
//!   ask ─┬─ answered ────────────────────────────────────────► land
//!        ├─ failed: remembered; stale data if there is any ──► land
//!        └─ not answered after CLIENT_PATIENCE and there is stale data:
//!           who waits gets that, and so does who comes; the question goes on ─► land
//! ```
//!
//! Whatever ends the task (an answer, a failure, a panic, being shed) ends the wait of its clients: a
//! [`Flight`] that is dropped without having landed fails them.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use swiftlet_parser::edns::ExtendedError;
use swiftlet_parser::key::Key;
use tokio::time::{Instant, timeout};

use super::inflight::Ticket;
use super::{Finished, Known, Outcome, Resolver, Staleness};
use crate::telemetry::Counter;

/// How long a client can be expected to wait when there is stale data (RFC 8767 §5: the client response
/// timer).
pub(super) const CLIENT_PATIENCE: Duration = Duration::from_millis(1800);

/// One question in flight. Dropped without having landed, it fails its waiters.
pub(super) struct Flight {
    pub(super) resolver: Rc<Resolver>,
    pub(super) ticket: Ticket,
    /// It asks for nobody in particular.
    pub(super) refreshes: bool,
    pub(super) landed: bool,
}

impl Flight {
    /// Finds the answer, by `ask` if it isn't known.
    pub(super) async fn resolve(self, ask: impl AsyncFnOnce(&Rc<Resolver>, &Key<'_>) -> Outcome) {
        let outcome = {
            let Some(key) = Key::from_bytes(self.ticket.hash, &self.ticket.key) else { return };
            match self.resolver.known(&key, self.refreshes) {
                Known::Outcome(outcome) => outcome,
                Known::Not { spare } => self.ask(&key, spare, ask).await,
            }
        };
        self.land(outcome);
    }

    /// Asks, and makes do with what there is while or when that fails. `spare` says whether there is
    /// something.
    async fn ask(
        &self,
        key: &Key<'_>,
        spare: bool,
        ask: impl AsyncFnOnce(&Rc<Resolver>, &Key<'_>) -> Outcome,
    ) -> Outcome {
        let (resolver, begun) = (&self.resolver, Instant::now());
        resolver.tally.inc(Counter::Questions);
        if self.refreshes {
            resolver.tally.inc(Counter::Prefetches);
        }
        let flushes = resolver.service.flushes.count();
        let mut asked = pin!(ask(resolver, key));
        let in_time = match spare {
            true => timeout(CLIENT_PATIENCE, &mut asked).await.ok(),
            false => Some(asked.as_mut().await),
        };
        let outcome = match in_time {
            Some(outcome) => outcome,
            None => {
                self.turn_late(key);
                asked.await
            }
        };
        match outcome {
            Outcome::Failure { .. } => {
                resolver.remember(key, &outcome, begun, flushes);
                resolver.stale(key, Staleness::Failure).unwrap_or(outcome)
            }
            Outcome::Shed { .. } => resolver.stale(key, Staleness::Overload).unwrap_or(outcome),
            _ => {
                resolver.heard(key);
                outcome
            }
        }
    }

    /// Those who wait have waited long enough, if there is something to give to them.
    fn turn_late(&self, key: &Key<'_>) {
        let resolver = &self.resolver;
        resolver.inflight.borrow_mut().turn_late(&self.ticket);
        if let Some(stale) = resolver.stale(key, Staleness::Timeout) {
            let waiters = resolver.inflight.borrow_mut().dismiss(&self.ticket);
            self.tell(waiters, stale);
        }
    }

    fn land(mut self, outcome: Outcome) {
        self.landed = true;
        self.end(outcome);
    }

    /// Returns whether it had not been ended by another.
    fn end(&self, outcome: Outcome) -> bool {
        let left = self.resolver.inflight.borrow_mut().leave(&self.ticket);
        let was_there = left.is_some();
        self.tell(left.unwrap_or_default(), outcome);
        was_there
    }

    fn tell(&self, waiters: Vec<super::Waiter>, outcome: Outcome) {
        let Ticket { hash, key, .. } = &self.ticket;
        let finished = Finished { hash: *hash, key: Rc::clone(key), waiters, outcome };
        self.resolver.finish(finished);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.landed {
            return;
        }
        let ended = self.end(Outcome::servfail(ExtendedError::OTHER, "internal error"));
        if ended {
            self.resolver.tally.inc(Counter::ServfailInternal);
        }
        if ended && std::thread::panicking() {
            self.resolver.tally.inc(Counter::TaskPanics);
        }
    }
}
