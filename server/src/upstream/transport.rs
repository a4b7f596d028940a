//! One question to one server: over UDP first, over TCP if the answer is truncated or somebody seems to be
//! guessing along, and once more without EDNS if the server does not understand it.
//!
//! A server is taken for one without EDNS only by the signs of RFC 6891 §7, FORMERR or NOTIMP without an OPT
//! record, never because it was silent, and only if it then answers the same question without
//! ([`Habits`](super::habits::Habits)). A question that asks for DNSSEC data is never asked without EDNS: what it asks for
//! could not come.
//!
//! Bounds: two questions over each transport.

use std::rc::Rc;

use swiftlet_net::clock::Clock;
use swiftlet_parser::key::Key;
use swiftlet_parser::rr::Rcode;

use super::habits::Sign;
use super::ports::{Budget, SLOTS_IN_ALL};
use super::question::{Answered, Form};
use super::tcp::Connections;
use super::udp::Udp;
use super::{Failure, Reply, Servers};
use crate::telemetry::{Counter, Tally};

/// What the transport of one worker may use.
#[derive(Clone, Copy, Debug)]
pub struct Means {
    /// Workers that share the ports to each server evenly.
    pub workers: usize,
    /// Sockets that may be open to all servers together: UDP ports and TCP connections.
    pub sockets: usize,
    /// Whether the letters of names get a random case, which a reply has to repeat (0x20).
    pub random_case: bool,
}

impl Default for Means {
    fn default() -> Self {
        Self { workers: 1, sockets: 4096, random_case: true }
    }
}

/// How one worker asks.
#[derive(Debug)]
pub(super) struct Transport {
    servers: Servers,
    udp: Rc<Udp>,
    tcp: Connections,
    random_case: bool,
    udp_size: u16,
    clock: Clock,
    tally: Tally,
}

/// Why a question has no reply yet.
enum Trouble {
    Failed(Failure),
    NotUnderstood(Rcode, Sign),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Transport {
    /// Opens nothing yet. `udp_size` is the payload that servers may send, in bytes.
    pub(super) fn new(
        servers: Servers,
        means: Means,
        udp_size: u16,
        clock: Clock,
        tally: Tally,
    ) -> Self {
        let budget = Budget::new(means.sockets);
        let slots = SLOTS_IN_ALL.div_ceil(means.workers.max(1)).min(means.sockets);
        Self {
            udp: Udp::new(servers.clone(), slots, Rc::clone(&budget), tally.clone()),
            tcp: Connections::new(servers.clone(), budget, tally.clone()),
            servers,
            random_case: means.random_case,
            udp_size,
            clock,
            tally,
        }
    }

    /// As it is for other means.
    pub(super) fn with_means(self, means: Means) -> Self {
        Self::new(self.servers, means, self.udp_size, self.clock, self.tally)
    }

    /// Asks a server; the caller bounds the time.
    pub(super) async fn ask(&self, server: usize, key: &Key<'_>) -> Result<Reply, Failure> {
        let habits = self.servers.habits(server);
        let needs_edns = key.variant().dnssec_ok();
        let plain = Form { edns: None, may_fall_back: false, random_case: self.random_case };
        let form = match !needs_edns && habits.is_without_edns(self.clock.now().boot_ms) {
            true => plain,
            false => Form { edns: Some(self.udp_size), may_fall_back: !needs_edns, ..plain },
        };
        match self.ask_as(server, key, form).await {
            Ok(reply) => Ok(reply),
            Err(Trouble::Failed(failure)) => Err(failure),
            Err(Trouble::NotUnderstood(rcode, sign)) => {
                self.tally.inc(Counter::UpstreamEdnsFallbacks);
                // Every question carries the room of this future with it: what is rare gets its own.
                let reply = match Box::pin(self.ask_as(server, key, plain)).await {
                    Ok(reply) => reply,
                    Err(Trouble::Failed(failure)) => return Err(failure),
                    Err(Trouble::NotUnderstood(..)) => return Err(Failure::Rcode(rcode)),
                };
                if reply.check().is_ok() {
                    habits.note_without_edns(sign, self.clock.now().boot_ms);
                }
                Ok(reply)
            }
        }
    }

    async fn ask_as(&self, server: usize, key: &Key<'_>, form: Form) -> Result<Reply, Trouble> {
        let answered = match self.udp.exchange(server, key, form).await? {
            Answered::Truncated | Answered::Suspicious => {
                Box::pin(self.tcp.exchange(server, key, form, &self.udp)).await?
            }
            answered => answered,
        };
        match answered {
            Answered::Whole(reply) => Ok(reply),
            Answered::Refused(rcode) => Err(Failure::Rcode(rcode).into()),
            Answered::NotUnderstood(rcode, sign) => Err(Trouble::NotUnderstood(rcode, sign)),
            // TCP gives neither.
            Answered::Truncated | Answered::Suspicious => Err(Failure::Malformed.into()),
        }
    }
}

#[cfg(test)]
mod tests;
