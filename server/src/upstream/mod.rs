//! Upstreams: the servers that questions are forwarded to, and one try at one of them.
//!
//! [`race()`](race::race) puts one question to them, try after try, until one answers. What it asks for
//! is here: whom to ask ([`Upstreams::first`], [`Upstreams::next`]), how long to wait
//! ([`Upstreams::timeout_of`]), and the try itself ([`Upstreams::ask`]): over UDP from a random port with a
//! random ID ([`ports`], [`udp`]), and over TCP when the answer was truncated or replies came that were not
//! ours to expect ([`tcp`]). What is known of each server ([`server::Server`]) is shared by all workers.

pub mod backoff;
mod budget;
mod choice;
pub mod estimate;
#[cfg(test)]
mod fake;
mod habits;
mod loops;
mod ports;
mod question;
pub mod race;
pub mod report;
pub mod server;
mod tcp;
mod transport;
mod udp;
mod zones;

pub use zones::Routes;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use swiftlet_net::clock::Clock;
use swiftlet_net::pool::PooledBuf;
use swiftlet_parser::key::Key;
use swiftlet_parser::response::Response;
use swiftlet_parser::rr::Rcode;
use tokio::time::{Instant, timeout_at};

pub use habits::Habits;
pub use transport::Means;
use transport::Transport;

use crate::telemetry::{Counter, Tally};
use backoff::Class;
use budget::Budget;
use choice::Choice;
use server::{Change, Server, State};

/// Extra queries by asking a second server when the first is slow, in a hundred questions.
const HEDGES_PERCENT: u64 = 3;

/// Extra queries by looking at servers that are not among the best, in a hundred questions.
const EXPLORES_PERCENT: u64 = 1;

/// One question in so many is drawn for that; the percentage above bounds what comes of it.
const EXPLORE_ONE_IN: u32 = 64;

/// The least time before a second server is asked because the first is slow.
const MIN_HEDGE: Duration = Duration::from_millis(5);

/// Probes that a worker may have under way; more are left out and counted.
const MAX_PROBES: usize = 64;

/// How long the answer to a probe is waited for.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No answer in time.
    Timeout,
    /// The network or the server's host refused.
    Network,
    /// The server answered with a code that says nothing about the name.
    Rcode(Rcode),
    /// What it answered is no answer to the question.
    Malformed,
    /// It gave answers to other questions only, over TCP too.
    WrongReplies,
    /// TCP was refused, closed or broken.
    Stream,
    /// This process could not open a socket: the limit of open files, or no free port was found.
    NoSocket,
}

impl Failure {
    fn counter(self) -> Counter {
        match self {
            Self::Timeout => Counter::UpstreamTimeouts,
            Self::Network => Counter::UpstreamUnreachable,
            Self::NoSocket => Counter::UpstreamNoSocket,
            Self::Rcode(_) => Counter::UpstreamRefusals,
            Self::Malformed => Counter::UpstreamMalformed,
            Self::WrongReplies => Counter::UpstreamMismatches,
            Self::Stream => Counter::UpstreamStreams,
        }
    }

    /// The class it counts as at the server; none when the server is not to blame.
    fn class(self) -> Option<Class> {
        match self {
            Self::Timeout => Some(Class::Timeout),
            Self::Network => Some(Class::Network),
            Self::Rcode(_) => Some(Class::Rcode),
            Self::Malformed => Some(Class::Malformed),
            Self::WrongReplies => Some(Class::WrongReplies),
            Self::Stream => Some(Class::Stream),
            Self::NoSocket => None,
        }
    }

    /// Whether the server answered, and to ask it the same again makes little sense.
    #[must_use]
    pub fn is_answer(self) -> bool {
        matches!(self, Self::Rcode(_) | Self::Malformed)
    }
}

/// A response that answers the question it was asked.
#[derive(Debug)]
pub struct Reply {
    buffer: PooledBuf,
    len: usize,
    /// The time from when the question was sent until this came.
    pub took: Duration,
    /// It came over TCP.
    pub over_tcp: bool,
    /// It repeats the name in another letter case.
    other_case: bool,
}

impl Reply {
    /// A reply that came in a datagram.
    fn copied(message: &[u8], took: Duration) -> Self {
        let (mut buffer, len) = (PooledBuf::new(message.len()), message.len());
        buffer.copy_from_slice(message);
        Self { buffer, len, took, over_tcp: false, other_case: false }
    }

    /// The DNS message.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }

    /// Whether the server answered rather than refused.
    fn check(&self) -> Result<(), Failure> {
        match Response::parse(self.message()).map(|response| response.rcode()) {
            Ok(Rcode::NOERROR | Rcode::NXDOMAIN) => Ok(()),
            Ok(rcode) => Err(Failure::Rcode(rcode)),
            Err(_) => Err(Failure::Malformed),
        }
    }
}

/// The servers, shared by all workers.
#[derive(Clone, Debug)]
pub struct Servers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// In the order of preference.
    servers: Box<[Server]>,
    hedges: Budget,
    explores: Budget,
    breakers_opened: AtomicU64,
    breakers_closed: AtomicU64,
    network_changes: AtomicU64,
}

impl Servers {
    /// The servers in the order of preference.
    #[must_use]
    pub fn new(addresses: &[SocketAddr]) -> Self {
        Self(Arc::new(Shared {
            servers: addresses.iter().map(|&address| Server::new(address)).collect(),
            hedges: Budget::new(HEDGES_PERCENT),
            explores: Budget::new(EXPLORES_PERCENT),
            breakers_opened: AtomicU64::new(0),
            breakers_closed: AtomicU64::new(0),
            network_changes: AtomicU64::new(0),
        }))
    }

    /// Forgets the failures of all, because the machine's addresses or routes changed, and has ports and
    /// connections made anew, for a connected socket keeps its old address.
    pub fn forget_failures(&self) {
        self.0.network_changes.fetch_add(1, Relaxed);
        for server in &self.0.servers {
            self.note(server.forget_failures());
            server.habits.renew();
        }
    }

    /// How often a breaker opened and closed, and how often the machine's network changed.
    #[must_use]
    pub fn changes(&self) -> (u64, u64, u64) {
        let Shared { breakers_opened, breakers_closed, network_changes, .. } = &*self.0;
        let count = |count: &AtomicU64| count.load(Relaxed);
        (count(breakers_opened), count(breakers_closed), count(network_changes))
    }

    fn address(&self, server: usize) -> SocketAddr {
        self.0.servers[server].address
    }

    fn habits(&self, server: usize) -> &Habits {
        &self.0.servers[server].habits
    }

    fn note(&self, change: Change) {
        match change {
            Change::None => {}
            Change::Opened => _ = self.0.breakers_opened.fetch_add(1, Relaxed),
            Change::Closed => _ = self.0.breakers_closed.fetch_add(1, Relaxed),
        }
    }
}

/// A probe that is under way.
struct Probing<'a>(&'a Cell<usize>);

impl Drop for Probing<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// One worker's access to the servers.
#[derive(Debug)]
pub struct Upstreams {
    servers: Servers,
    /// Which of them a question may go to.
    routes: Arc<Routes>,
    transport: Transport,
    /// For jitter and for what is looked at beside.
    random: RefCell<StdRng>,
    timeout: Duration,
    clock: Clock,
    tally: Tally,
    /// Probes of this worker that are under way.
    probes: Cell<usize>,
}

impl Upstreams {
    /// `timeout` is for a whole question, `udp_size` is the payload that servers may send, in bytes.
    #[must_use]
    pub fn new(
        servers: Servers,
        timeout: Duration,
        udp_size: u16,
        clock: Clock,
        tally: Tally,
    ) -> Self {
        let (means, own) = (Means::default(), (clock.clone(), tally.clone()));
        let transport = Transport::new(servers.clone(), means, udp_size, own.0, own.1);
        let (random, probes) = (RefCell::new(rand::make_rng()), Cell::new(0));
        let addresses: Vec<_> = servers.0.servers.iter().map(|server| server.address).collect();
        let routes = Arc::new(Routes::new(&addresses, []));
        Self { servers, routes, transport, random, timeout, clock, tally, probes }
    }

    /// The same with other routes than all names to all servers; the servers are those of
    /// [`Routes::addresses`].
    #[must_use]
    pub fn routed(self, routes: Arc<Routes>) -> Self {
        Self { routes, ..self }
    }

    /// The same with other means than the default.
    #[must_use]
    pub fn with_means(self, means: Means) -> Self {
        Self { transport: self.transport.with_means(means), ..self }
    }

    /// How long a question may take, in all its tries.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The servers that a question may go to, in the order of preference: those of the longest forward
    /// zone that its name is in. None if all of them forward back to this server.
    #[must_use]
    pub fn candidates(&self, key: &Key<'_>) -> Cow<'_, [usize]> {
        self.routes.candidates(key)
    }

    /// Whether the question is for the parent of a forward zone: DS at the zone's name.
    #[must_use]
    pub fn is_of_a_parent(&self, key: &Key<'_>) -> bool {
        self.routes.is_of_a_parent(key)
    }

    /// Whom to ask first, and whom to look at beside. A question's share of extra queries is earned.
    fn first(&self, candidates: &[usize]) -> Choice {
        let Shared { servers, hedges, explores, .. } = &*self.servers.0;
        let mut random = self.random.borrow_mut();
        if candidates.len() > 1 {
            hedges.earn();
            explores.earn();
        }
        let explore = random.random_range(0..EXPLORE_ONE_IN) == 0;
        let mut choice = choice::choose(
            servers,
            candidates,
            |_| true,
            self.now_ms(),
            explore.then_some(&mut *random),
        );
        choice.explore = choice.explore.filter(|_| explores.spend());
        choice
    }

    /// Whom to ask next, of those that may be.
    fn next(&self, candidates: &[usize], may: impl Fn(usize) -> bool) -> Choice {
        choice::choose(&self.servers.0.servers, candidates, may, self.now_ms(), None)
    }

    /// Takes the one probe that an open server is due, if nobody else has.
    fn claim(&self, server: usize) -> bool {
        self.server(server).claim(self.now_ms())
    }

    /// Whether another probe may be under way; it is until its [`Probing`] is dropped.
    fn begin_probe(&self) -> bool {
        let probes = self.probes.get();
        if probes >= MAX_PROBES {
            self.tally.inc(Counter::UpstreamProbesLeftOut);
            return false;
        }
        self.probes.set(probes + 1);
        true
    }

    /// Asks a server for the sake of what becomes known of it; the answer itself is not used.
    pub async fn probe(&self, server: usize, key: &Key<'_>) {
        let _probing = Probing(&self.probes);
        let begun = (Instant::now(), self.now_ms());
        let within = self.timeout.min(PROBE_TIMEOUT);
        let result = self.ask(server, key, within).await.and_then(|reply| reply.check());
        self.probe_ended(server, result, begun);
    }

    fn probe_ended(&self, server: usize, result: Result<(), Failure>, begun: (Instant, u64)) {
        let (took, begun_ms) = (begun.0.elapsed(), begun.1);
        match result {
            Ok(()) => self.answered(server, took),
            Err(failure) => self.failed(server, failure, took, begun_ms),
        }
    }

    /// Notes that a server gave a good answer.
    fn answered(&self, server: usize, took: Duration) {
        self.servers.note(self.server(server).answered(took, self.now_ms()));
    }

    /// Notes that a try failed that began at `begun_ms`.
    fn failed(&self, server: usize, failure: Failure, took: Duration, begun_ms: u64) {
        self.tally.inc(failure.counter());
        if let Some(class) = failure.class() {
            let times = (begun_ms, self.now_ms());
            let random = &mut self.random.borrow_mut();
            self.servers.note(self.server(server).failed(class, took, times, random));
        }
    }

    /// Notes that a try got no answer in time. `testifies`: it counts against the server.
    fn timed_out(&self, server: usize, begun_ms: u64, testifies: bool) {
        match testifies {
            true => self.failed(server, Failure::Timeout, Duration::ZERO, begun_ms),
            false => self.tally.inc(Counter::UpstreamTimeouts),
        }
    }

    /// Whether a server's breaker is closed.
    fn is_up(&self, server: usize) -> bool {
        self.server(server).state(self.now_ms()) == State::Closed
    }

    /// How long a try at a server should take at most.
    fn timeout_of(&self, server: usize) -> Duration {
        self.server(server).round_trip().timeout()
    }

    /// After how long a second server is asked, when the first answers usually faster.
    fn hedge_after(&self, server: usize) -> Option<Duration> {
        self.server(server).round_trip().p95().map(|p95| p95.max(MIN_HEDGE))
    }

    /// Takes what a hedge costs, if there is so much.
    fn may_hedge(&self) -> bool {
        self.servers.0.hedges.spend()
    }

    /// Where a server is.
    #[must_use]
    pub fn address(&self, server: usize) -> SocketAddr {
        self.server(server).address
    }

    fn server(&self, server: usize) -> &Server {
        &self.servers.0.servers[server]
    }

    fn now_ms(&self) -> u64 {
        self.clock.now().boot_ms
    }

    /// One try: asks a server and waits at most `within` for its answer. Must be called inside a `LocalSet`;
    /// dropped at any moment, it leaves nothing behind.
    pub async fn ask(
        &self,
        server: usize,
        key: &Key<'_>,
        within: Duration,
    ) -> Result<Reply, Failure> {
        self.server(server).asks();
        let deadline = Instant::now() + within;
        let exchange = self.transport.ask(server, key);
        timeout_at(deadline, exchange).await.unwrap_or(Err(Failure::Timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_network_renews_all() {
        let servers = Servers::new(&["192.0.2.1:53".parse().unwrap()]);
        servers.forget_failures();
        assert_eq!((servers.habits(0).renewals(), servers.changes()), (1, (0, 0, 1)));
    }
}
