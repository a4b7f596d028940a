//! Coalescing: a key that is being asked for, and everyone who waits for it.
//!
//! Bounds: [`MAX_WAITERS`] a key and [`MAX_WAITERS_IN_ALL`] a worker, and as many keys as the worker was
//! told. Being over a bound is the caller's to answer and count, so the key comes back.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::pipeline::miss::{ReplyTo, Waiter};
use crate::telemetry::Counter;

/// Clients that may wait for one key.
pub(super) const MAX_WAITERS: usize = 1024;

/// Clients that may wait on one worker: some 20 MB of them.
pub(super) const MAX_WAITERS_IN_ALL: usize = 65_536;

/// What is in flight on one worker.
#[derive(Debug)]
pub(super) struct Inflight {
    flights: HashMap<Rc<[u8]>, Waiting>,
    max_flights: usize,
    /// Waiters of all flights.
    waiting: usize,
}

/// Those who wait for one key.
#[derive(Debug, Default)]
struct Waiting {
    waiters: Vec<Waiter>,
    /// Who they are, as long as there are several: a client that asks again joins once.
    known: HashSet<(ReplyTo, u16)>,
}

/// How a waiter was taken in.
#[derive(Debug)]
pub(super) enum Join {
    /// It is the first for this key: the caller asks.
    Started(Rc<[u8]>),
    /// The question is being asked already.
    Joined,
    /// The same client waits already, on the same port with the same ID.
    Duplicate(Box<[u8]>),
    /// The bound that this counter names is reached.
    Full(Counter, Box<[u8]>),
}

impl Inflight {
    pub(super) fn new(max_flights: usize) -> Self {
        Self { flights: HashMap::new(), max_flights, waiting: 0 }
    }

    pub(super) fn join(&mut self, key: Box<[u8]>, waiter: Waiter) -> Join {
        if self.waiting >= MAX_WAITERS_IN_ALL {
            return Join::Full(Counter::WaitersFullInAll, key);
        }
        if let Some(waiting) = self.flights.get_mut(&*key) {
            let join = waiting.join(key, waiter);
            self.waiting += usize::from(matches!(join, Join::Joined));
            return join;
        }
        if self.flights.len() >= self.max_flights {
            return Join::Full(Counter::FlightsFull, key);
        }
        self.waiting += 1;
        let key: Rc<[u8]> = key.into();
        let waiting = Waiting { waiters: vec![waiter], known: HashSet::new() };
        self.flights.insert(Rc::clone(&key), waiting);
        Join::Started(key)
    }

    /// Ends the flight of a key and returns everyone who waited for it.
    pub(super) fn leave(&mut self, key: &[u8]) -> Vec<Waiter> {
        let waiters = self.flights.remove(key).map(|waiting| waiting.waiters).unwrap_or_default();
        self.waiting -= waiters.len();
        waiters
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Forgets everything and returns who waited.
    pub(super) fn clear(&mut self) -> Vec<Waiter> {
        self.waiting = 0;
        self.flights.drain().flat_map(|(_, waiting)| waiting.waiters).collect()
    }
}

impl Waiting {
    fn join(&mut self, key: Box<[u8]>, waiter: Waiter) -> Join {
        let identity = |waiter: &Waiter| (waiter.reply_to, waiter.query.id);
        // Most flights have one waiter, who needs no entry until a second one comes.
        if self.known.is_empty() {
            self.known.extend(self.waiters.iter().map(identity));
        }
        if self.known.contains(&identity(&waiter)) {
            return Join::Duplicate(key);
        }
        if self.waiters.len() >= MAX_WAITERS {
            return Join::Full(Counter::WaitersFull, key);
        }
        self.known.insert(identity(&waiter));
        self.waiters.push(waiter);
        Join::Joined
    }
}

#[cfg(test)]
mod tests {
    use swiftlet_net::route::Route;
    use swiftlet_parser::key::CaseBits;
    use swiftlet_parser::query;

    use super::*;

    fn waiter(port: u16, id: u8) -> Waiter {
        let packet = [0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
        let peer = std::net::SocketAddr::from(([192, 0, 2, 1], port));
        Waiter {
            query: query::parse(&packet).unwrap(),
            case: CaseBits::of(&[0]),
            reply_to: ReplyTo::Udp(Route::new(peer, None, 0, 0)),
            place: None,
        }
    }

    fn key(name: &str) -> Box<[u8]> {
        name.as_bytes().into()
    }

    #[test]
    fn the_first_asks_the_others_join_and_all_leave_together() {
        let mut inflight = Inflight::new(10);
        assert!(matches!(inflight.join(key("a"), waiter(1, 1)), Join::Started(_)));
        assert!(matches!(inflight.join(key("a"), waiter(2, 1)), Join::Joined));
        assert!(matches!(inflight.join(key("b"), waiter(1, 1)), Join::Started(_)));
        assert_eq!(inflight.leave(b"a").len(), 2);
        assert!(inflight.leave(b"a").is_empty());
        assert!(matches!(inflight.join(key("a"), waiter(1, 1)), Join::Started(_)));
    }

    #[test]
    fn one_client_port_and_id_joins_once() {
        let mut inflight = Inflight::new(10);
        inflight.join(key("a"), waiter(1, 1));
        assert!(matches!(inflight.join(key("a"), waiter(1, 1)), Join::Duplicate(_)));
        assert!(matches!(inflight.join(key("a"), waiter(1, 2)), Join::Joined));
        assert!(matches!(inflight.join(key("a"), waiter(2, 1)), Join::Joined));
        assert!(matches!(inflight.join(key("a"), waiter(1, 2)), Join::Duplicate(_)));
        assert_eq!(inflight.leave(b"a").len(), 3);
    }

    #[test]
    fn both_bounds_give_the_key_back() {
        let mut inflight = Inflight::new(2);
        inflight.join(key("a"), waiter(0, 0));
        for number in 1..MAX_WAITERS as u16 {
            assert!(matches!(inflight.join(key("a"), waiter(number, 0)), Join::Joined));
        }
        let over = inflight.join(key("a"), waiter(u16::MAX, 0));
        assert!(matches!(over, Join::Full(Counter::WaitersFull, key) if *key == *b"a"));
        inflight.join(key("b"), waiter(0, 0));
        let over = inflight.join(key("c"), waiter(0, 0));
        assert!(matches!(over, Join::Full(Counter::FlightsFull, key) if *key == *b"c"));
        assert_eq!(inflight.clear().len(), MAX_WAITERS + 1);
        assert!(inflight.is_empty());
    }
}
