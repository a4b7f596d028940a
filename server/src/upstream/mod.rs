//! Upstreams: the servers that questions are forwarded to, and one try at one of them.
//!
//! [`Upstreams::order`] says whom to ask, best first; [`Upstreams::ask`] asks: over UDP from a fresh
//! random port with a random ID, and over TCP when the answer was truncated or the UDP socket drew
//! replies that were not ours to expect. What is known of each server is shared by all workers.

mod tcp;
mod udp;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use swiftlet_net::clock::Clock;
use swiftlet_net::pool::PooledBuf;
use swiftlet_parser::key::Key;
use swiftlet_parser::rr::Rcode;
use tokio::time::{Instant, timeout_at};

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
        }
    }
}

/// A response that answers the question it was asked.
#[derive(Debug)]
pub struct Reply {
    buffer: PooledBuf,
    len: usize,
}

impl Reply {
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
            failures: AtomicU32::new(0),
            avoided_until_ms: AtomicU64::new(0),
        };
        Self(addresses.iter().map(server).collect())
    }
}

/// One worker's access to the servers.
#[derive(Debug)]
pub struct Upstreams {
    servers: Servers,
    /// Draws ports and IDs, each from the full range: a share of it per worker would be guessed faster.
    random: RefCell<StdRng>,
    timeout: Duration,
    udp_size: u16,
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
        Self { servers, random: RefCell::new(rand::make_rng()), timeout, udp_size, clock, tally }
    }

    /// How long a question may take, in all its tries.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whom to ask, best first: as configured, but those that are avoided last.
    #[must_use]
    pub fn order(&self) -> Vec<usize> {
        let servers = &self.servers.0;
        let now_ms = self.clock.now().boot_ms;
        let avoided = |&server: &usize| {
            let until_ms = servers[server].avoided_until_ms.load(Relaxed);
            if until_ms > now_ms { until_ms } else { 0 }
        };
        let mut order: Vec<usize> = (0..servers.len()).collect();
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

    /// One try: asks a server and waits at most `share` for its answer.
    pub async fn ask(
        &self,
        server: usize,
        key: &Key<'_>,
        share: Duration,
    ) -> Result<Reply, Failure> {
        let address = self.servers.0[server].address;
        let deadline = Instant::now() + share;
        let exchange = async {
            self.tally.inc(Counter::UpstreamQueries);
            match udp::exchange(self, address, key).await? {
                udp::Answered::Whole(reply) => Ok(reply),
                udp::Answered::Truncated | udp::Answered::Suspicious => {
                    self.tally.inc(Counter::UpstreamTcpQueries);
                    tcp::exchange(self, address, key).await
                }
            }
        };
        timeout_at(deadline, exchange).await.unwrap_or(Err(Failure::Timeout))
    }

    /// Where a server is.
    #[must_use]
    pub fn address(&self, server: usize) -> SocketAddr {
        self.servers.0[server].address
    }

    fn random_id(&self) -> u16 {
        self.random.borrow_mut().random()
    }

    fn random_port(&self) -> u16 {
        self.random.borrow_mut().random_range(udp::PORTS)
    }
}
