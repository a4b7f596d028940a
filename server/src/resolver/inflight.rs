//! Coalescing: a key that is being asked for, and everyone who waits for it.
//!
//! A flight may outlive the wait of its clients: once it is *late* they have a stale answer, whoever asks
//! after that gets one at once, and the flight ends by itself.
//!
//! Bounds: [`MAX_WAITERS`] a key and [`MAX_WAITERS_IN_ALL`] a worker, and as many flights as the worker was
//! told. When there are that many, the one in flight longest makes room, if upstream has had
//! [`SHED_AFTER`] to answer it: giving up younger ones would, under a flood, end every question just before
//! its answer comes. Refreshes begin only while half of the flights are free. Being over a bound is the
//! caller's to answer and count, so the key comes back.

use std::collections::HashSet;
use std::hash::RandomState;
use std::rc::Rc;
use std::time::Duration;

use hashlink::LinkedHashMap;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::pipeline::miss::{ReplyTo, Waiter};
use crate::telemetry::Counter;

/// Clients that may wait for one key.
pub(super) const MAX_WAITERS: usize = 1024;

/// Clients that may wait on one worker: some 20 MB of them.
pub(super) const MAX_WAITERS_IN_ALL: usize = 65_536;

/// How long a question is safe from making room for another: a healthy upstream has answered by then.
pub(super) const SHED_AFTER: Duration = Duration::from_millis(500);

/// What is in flight on one worker.
#[derive(Debug)]
pub(super) struct Inflight {
    /// In the order in which they began.
    flights: LinkedHashMap<Rc<[u8]>, Waiting, RandomState>,
    max_flights: usize,
    /// Waiters of all flights.
    waiting: usize,
    /// Flights begun so far.
    begun: u64,
}

/// One flight, and those who wait for it.
#[derive(Debug)]
struct Waiting {
    number: u64,
    hash: u64,
    begun: Instant,
    /// The time that clients can be expected to wait is over.
    late: bool,
    task: Option<AbortHandle>,
    waiters: Vec<Waiter>,
    /// Who they are, as long as there are several: a client that asks again joins once.
    known: HashSet<(ReplyTo, u16)>,
}

/// What tells a flight from all others, of the same key as well.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    pub(super) hash: u64,
    pub(super) key: Rc<[u8]>,
    number: u64,
}

/// How a waiter was taken in.
#[derive(Debug)]
pub(super) enum Join {
    /// It is the first for this key: the caller asks.
    Started(Ticket),
    /// The question is being asked already.
    Joined,
    /// It is being asked already and late; the caller may have a stale answer.
    Late(Box<[u8]>),
    /// The same client waits already, on the same port with the same ID.
    Duplicate(Box<[u8]>),
    /// The bound that this counter names is reached.
    Full(Counter, Box<[u8]>),
}

/// How a refresh was taken in.
#[derive(Debug)]
pub(super) enum Refresh {
    /// The caller asks.
    Started(Ticket),
    /// It is being asked already.
    InFlight,
    /// There is too little room for what nobody waits for.
    Full,
}

/// A flight that made room for another.
#[derive(Debug)]
pub(super) struct Shed {
    pub(super) hash: u64,
    pub(super) key: Rc<[u8]>,
    pub(super) waiters: Vec<Waiter>,
}

impl Inflight {
    pub(super) fn new(max_flights: usize) -> Self {
        let flights = LinkedHashMap::with_hasher(RandomState::new());
        Self { flights, max_flights, waiting: 0, begun: 0 }
    }

    /// Takes a waiter in; also into a flight that is late, if `with_late`.
    pub(super) fn join(
        &mut self,
        hash: u64,
        key: Box<[u8]>,
        waiter: Waiter,
        with_late: bool,
    ) -> Join {
        let flight = self.flights.get_mut(&*key);
        if flight.as_ref().is_some_and(|flight| flight.late && !with_late) {
            return Join::Late(key);
        }
        if self.waiting >= MAX_WAITERS_IN_ALL {
            return Join::Full(Counter::WaitersFullInAll, key);
        }
        if let Some(waiting) = flight {
            let join = waiting.join(key, waiter);
            self.waiting += usize::from(matches!(join, Join::Joined));
            return join;
        }
        if self.flights.len() >= self.max_flights {
            return Join::Full(Counter::FlightsFull, key);
        }
        self.waiting += 1;
        Join::Started(self.begin(hash, key, vec![waiter]))
    }

    /// Begins a flight that nobody waits for, unless there is one already or little room.
    pub(super) fn refresh(&mut self, hash: u64, key: Box<[u8]>) -> Refresh {
        if self.flights.contains_key(&*key) {
            return Refresh::InFlight;
        }
        if self.flights.len() * 2 >= self.max_flights {
            return Refresh::Full;
        }
        Refresh::Started(self.begin(hash, key, Vec::new()))
    }

    fn begin(&mut self, hash: u64, key: Box<[u8]>, waiters: Vec<Waiter>) -> Ticket {
        let (key, number): (Rc<[u8]>, _) = (key.into(), self.begun);
        self.begun += 1;
        let waiting = Waiting {
            number,
            hash,
            begun: Instant::now(),
            late: false,
            task: None,
            waiters,
            known: HashSet::new(),
        };
        self.flights.insert(Rc::clone(&key), waiting);
        Ticket { hash, key, number }
    }

    /// Notes the task of a flight, to be ended when the flight makes room for another.
    pub(super) fn launched(&mut self, ticket: &Ticket, task: AbortHandle) {
        if let Some(flight) = self.of(ticket) {
            flight.task = Some(task);
        }
    }

    /// Ends a flight and returns everyone who waited for it; `None` if it has ended already.
    pub(super) fn leave(&mut self, ticket: &Ticket) -> Option<Vec<Waiter>> {
        self.of(ticket)?;
        let flight = self.flights.remove(&ticket.key)?;
        self.waiting -= flight.waiters.len();
        Some(flight.waiters)
    }

    /// How long a key has been in flight, and how many wait for it.
    pub(super) fn of_key(&self, key: &[u8]) -> Option<(Duration, usize)> {
        let flight = self.flights.get(key)?;
        Some((flight.begun.elapsed(), flight.waiters.len()))
    }

    /// From now on the flight is late.
    pub(super) fn turn_late(&mut self, ticket: &Ticket) {
        if let Some(flight) = self.of(ticket) {
            flight.late = true;
        }
    }

    /// Those who wait for a flight, which goes on without them.
    pub(super) fn dismiss(&mut self, ticket: &Ticket) -> Vec<Waiter> {
        let Some(flight) = self.of(ticket) else { return Vec::new() };
        flight.known.clear();
        let waiters = std::mem::take(&mut flight.waiters);
        self.waiting -= waiters.len();
        waiters
    }

    /// Ends the flight that began first, with its task, if upstream has had its time to answer.
    pub(super) fn shed_oldest(&mut self) -> Option<Shed> {
        let (_, oldest) = self.flights.front()?;
        if oldest.begun.elapsed() < SHED_AFTER {
            return None;
        }
        let (key, flight) = self.flights.pop_front()?;
        self.waiting -= flight.waiters.len();
        if let Some(task) = flight.task {
            task.abort();
        }
        Some(Shed { hash: flight.hash, key, waiters: flight.waiters })
    }

    /// Whether anybody waits. Without that flights may go on: refreshes, and those that are late.
    pub(super) fn is_awaited(&self) -> bool {
        self.waiting > 0
    }

    /// Forgets everything and returns who waited.
    pub(super) fn clear(&mut self) -> Vec<Waiter> {
        self.waiting = 0;
        self.flights.drain().flat_map(|(_, waiting)| waiting.waiters).collect()
    }

    /// The flight of a ticket, if it has not ended.
    fn of(&mut self, ticket: &Ticket) -> Option<&mut Waiting> {
        self.flights.get_mut(&ticket.key).filter(|flight| flight.number == ticket.number)
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

    fn join(inflight: &mut Inflight, name: &str, port: u16, id: u8) -> Join {
        inflight.join(7, key(name), waiter(port, id), false)
    }

    fn start(inflight: &mut Inflight, name: &str) -> Ticket {
        match join(inflight, name, 1, 1) {
            Join::Started(ticket) => ticket,
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn the_first_asks_the_others_join_and_all_leave_together() {
        let mut inflight = Inflight::new(10);
        let a = start(&mut inflight, "a");
        assert!(matches!(join(&mut inflight, "a", 2, 1), Join::Joined));
        start(&mut inflight, "b");
        assert_eq!(inflight.leave(&a).map(|waiters| waiters.len()), Some(2));
        assert!(inflight.leave(&a).is_none());
        let again = start(&mut inflight, "a");
        assert!(inflight.leave(&a).is_none(), "another flight of the same key");
        assert!(inflight.is_awaited());
        assert!(inflight.leave(&again).is_some());
    }

    #[test]
    fn one_client_port_and_id_joins_once() {
        let mut inflight = Inflight::new(10);
        let a = start(&mut inflight, "a");
        assert!(matches!(join(&mut inflight, "a", 1, 1), Join::Duplicate(_)));
        assert!(matches!(join(&mut inflight, "a", 1, 2), Join::Joined));
        assert!(matches!(join(&mut inflight, "a", 2, 1), Join::Joined));
        assert!(matches!(join(&mut inflight, "a", 1, 2), Join::Duplicate(_)));
        assert_eq!(inflight.leave(&a).map(|waiters| waiters.len()), Some(3));
    }

    #[test]
    fn both_bounds_give_the_key_back() {
        let mut inflight = Inflight::new(2);
        join(&mut inflight, "a", 0, 0);
        for number in 1..MAX_WAITERS as u16 {
            assert!(matches!(join(&mut inflight, "a", number, 0), Join::Joined));
        }
        let over = join(&mut inflight, "a", u16::MAX, 0);
        assert!(matches!(over, Join::Full(Counter::WaitersFull, key) if *key == *b"a"));
        join(&mut inflight, "b", 0, 0);
        let over = join(&mut inflight, "c", 0, 0);
        assert!(matches!(over, Join::Full(Counter::FlightsFull, key) if *key == *b"c"));
        assert_eq!(inflight.clear().len(), MAX_WAITERS + 1);
        assert!(!inflight.is_awaited());
    }

    #[test]
    fn a_late_flight_is_joined_only_by_those_who_have_no_other_answer() {
        let mut inflight = Inflight::new(2);
        let a = start(&mut inflight, "a");
        inflight.turn_late(&a);
        assert!(matches!(join(&mut inflight, "a", 2, 2), Join::Late(_)));
        assert_eq!(inflight.dismiss(&a).len(), 1);
        assert!(!inflight.is_awaited());
        // The same client again: it had its answer.
        assert!(matches!(inflight.join(7, key("a"), waiter(1, 1), true), Join::Joined));
        assert_eq!(inflight.leave(&a).map(|waiters| waiters.len()), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_makes_room_when_it_has_had_its_time() {
        let mut inflight = Inflight::new(2);
        let a = start(&mut inflight, "a");
        tokio::time::advance(SHED_AFTER / 2).await;
        let b = start(&mut inflight, "b");
        assert!(inflight.shed_oldest().is_none(), "too young");
        tokio::time::advance(SHED_AFTER / 2).await;
        let shed = inflight.shed_oldest().expect("it had its time");
        assert_eq!((shed.hash, &*shed.key, shed.waiters.len()), (7, &b"a"[..], 1));
        assert!(inflight.shed_oldest().is_none(), "the next is younger");
        start(&mut inflight, "a");
        assert!(inflight.leave(&a).is_none(), "it has ended");
        assert!(inflight.leave(&b).is_some());
    }

    #[test]
    fn refreshes_take_half_of_the_room() {
        let mut inflight = Inflight::new(4);
        let Refresh::Started(a) = inflight.refresh(7, key("a")) else { panic!("the first") };
        assert!(matches!(inflight.refresh(7, key("a")), Refresh::InFlight));
        assert!(!inflight.is_awaited());
        start(&mut inflight, "b");
        assert!(matches!(inflight.refresh(7, key("c")), Refresh::Full));
        assert!(matches!(join(&mut inflight, "a", 1, 1), Join::Joined));
        assert_eq!(inflight.leave(&a).map(|waiters| waiters.len()), Some(1));
        assert!(matches!(inflight.refresh(7, key("c")), Refresh::Started(_)));
    }
}
