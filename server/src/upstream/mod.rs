//! Upstreams: the servers that questions are forwarded to, and one try at one of them.
//!
//! [`Upstreams::order`] says whom to ask, best first; [`Upstreams::ask`] asks: over UDP from a random port
//! with a random ID ([`ports`], [`udp`]), and over TCP when the answer was truncated or replies came that
//! were not ours to expect ([`tcp`]). What is known of each server is shared by all workers.

#[cfg(test)]
mod fake;
mod habits;
mod loops;
mod ports;
mod question;
mod tcp;
mod transport;
mod udp;
mod zones;

pub use zones::Routes;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use swiftlet_net::clock::Clock;
use swiftlet_net::pool::PooledBuf;
use swiftlet_parser::key::Key;
use swiftlet_parser::rr::Rcode;
use tokio::time::{Instant, timeout_at};

pub use habits::Habits;
pub use transport::Means;
use transport::Transport;

use crate::telemetry::{Counter, Tally};

/// How long a server that did not answer is avoided: doubled with each failure in a row.
const AVOIDED_MIN_MS: u64 = 250;

/// The longest time for which a server is avoided; after an outage it is asked again this soon.
const AVOIDED_MAX_MS: u64 = 5_000;

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
    /// Over TCP too it answered another question.
    WrongReplies,
    /// TCP was needed and could not be had, or broke.
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
}

/// The servers, shared by all workers.
#[derive(Clone, Debug)]
pub struct Servers(Arc<[Server]>);

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    /// How it speaks.
    habits: Habits,
    /// Tries in a row that got no answer.
    failures: AtomicU32,
    /// Until then (as `Now::boot_ms`) others are preferred.
    avoided_until_ms: AtomicU64,
}

impl Servers {
    /// The servers in the order of preference.
    #[must_use]
    pub fn new(addresses: &[SocketAddr]) -> Self {
        let server = |&address| Server {
            address,
            habits: Habits::default(),
            failures: AtomicU32::new(0),
            avoided_until_ms: AtomicU64::new(0),
        };
        Self(addresses.iter().map(server).collect())
    }

    fn address(&self, server: usize) -> SocketAddr {
        self.0[server].address
    }

    fn habits(&self, server: usize) -> &Habits {
        &self.0[server].habits
    }
}

/// One worker's access to the servers.
#[derive(Debug)]
pub struct Upstreams {
    servers: Servers,
    /// Which of them a question may go to.
    routes: Arc<Routes>,
    transport: Transport,
    timeout: Duration,
    clock: Clock,
    tally: Tally,
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
        let addresses: Vec<_> = servers.0.iter().map(|server| server.address).collect();
        let routes = Arc::new(Routes::new(&addresses, []));
        let (means, own) = (Means::default(), (clock.clone(), tally.clone()));
        let transport = Transport::new(servers.clone(), means, udp_size, own.0, own.1);
        Self { servers, routes, transport, timeout, clock, tally }
    }

    /// The same with other means than the default.
    #[must_use]
    pub fn with_means(self, means: Means) -> Self {
        Self { transport: self.transport.with_means(means), ..self }
    }

    /// The same with other routes than all names to all servers; the servers are those of
    /// [`Routes::addresses`].
    #[must_use]
    pub fn routed(self, routes: Arc<Routes>) -> Self {
        Self { routes, ..self }
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

    /// Whom to ask, best first: as configured, but those that are avoided last.
    #[must_use]
    pub fn order(&self, key: &Key<'_>) -> Vec<usize> {
        let servers = &self.servers.0;
        let now_ms = self.clock.now().boot_ms;
        let avoided = |&server: &usize| {
            let until_ms = servers[server].avoided_until_ms.load(Relaxed);
            if until_ms > now_ms { until_ms } else { 0 }
        };
        let mut order = self.candidates(key).into_owned();
        order.sort_by_key(avoided);
        order
    }

    /// Notes that a server answered.
    pub fn succeeded(&self, server: usize) {
        let server = &self.servers.0[server];
        server.failures.store(0, Relaxed);
        server.avoided_until_ms.store(0, Relaxed);
    }

    /// Notes and counts that a try at a server failed. One that cannot be reached is avoided for a while;
    /// one that has no good answer to a question may have one to the next.
    pub fn failed(&self, server: usize, failure: Failure) {
        self.tally.inc(failure.counter());
        if !matches!(failure, Failure::Timeout | Failure::Network) {
            return;
        }
        let server = &self.servers.0[server];
        let failures = server.failures.fetch_add(1, Relaxed);
        let avoided_ms = AVOIDED_MAX_MS.min(AVOIDED_MIN_MS << failures.min(16));
        server.avoided_until_ms.store(self.clock.now().boot_ms + avoided_ms, Relaxed);
    }

    /// One try: asks a server and waits at most `within` for its answer. Must be called inside a `LocalSet`;
    /// dropped at any moment, it leaves nothing behind.
    pub async fn ask(
        &self,
        server: usize,
        key: &Key<'_>,
        within: Duration,
    ) -> Result<Reply, Failure> {
        let deadline = Instant::now() + within;
        let exchange = self.transport.ask(server, key);
        timeout_at(deadline, exchange).await.unwrap_or(Err(Failure::Timeout))
    }

    /// Where a server is.
    #[must_use]
    pub fn address(&self, server: usize) -> SocketAddr {
        self.servers.0[server].address
    }
}
