//! What one worker answers with, whatever carried the query: everything it has but its sockets.
//!
//! The worker's loop uses it for datagrams, each TCP connection for its frames.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use swiftlet_cache::Store as _;
use swiftlet_net::clock::{Clock, Now};
use swiftlet_parser::key::{Key, KeyBuf};
use swiftlet_parser::query::Query;

use crate::clients::Clients;
use crate::mailbox::Post;
use crate::pipeline::miss::{Miss, ReplyTo};
use crate::pipeline::{Batch, MAX_MESSAGE_LEN, Service, Shaper, Transport};
use crate::resolver::Resolver;
use crate::telemetry::sightings::Gateway;
use crate::telemetry::{Counter, Tally};

/// The means of one worker.
pub struct Desk {
    /// The worker's number, from 0.
    pub number: usize,
    /// What answering needs.
    pub service: Arc<Service>,
    /// The questions of which the worker owns the key.
    pub resolver: Rc<Resolver>,
    /// The way to the other workers.
    pub post: Post,
    /// What each client has in flight, in the whole process.
    pub clients: Clients,
    /// The time.
    pub clock: Clock,
    /// The worker's own counters.
    pub tally: Tally,
    /// Behind whom clients may hide.
    pub gateway: Gateway,
    /// Room for one query that did not come in a buffer of its own.
    pub scratch: RefCell<Scratch>,
}

/// Buffers that are used for one query after the other.
pub struct Scratch {
    keys: KeyBuf,
    message: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { keys: KeyBuf::default(), message: vec![0; MAX_MESSAGE_LEN] }
    }
}

impl Scratch {
    /// The key's buffer and the message's, of [`MAX_MESSAGE_LEN`] bytes.
    pub fn parts(&mut self) -> (&mut KeyBuf, &mut [u8]) {
        (&mut self.keys, &mut self.message)
    }
}

impl Desk {
    /// Pins the cache and reads the clock, for the queries to be served now.
    #[must_use]
    pub fn batch(&self, transport: Transport) -> Batch<'_> {
        Batch {
            shaper: self.shaper(transport),
            pin: self.service.cache.pin(),
            now: self.clock.now(),
        }
    }

    /// Shapes answers in the name of this worker.
    #[must_use]
    pub fn shaper(&self, transport: Transport) -> Shaper<'_> {
        Shaper { service: &self.service, counters: &self.tally, transport }
    }

    /// Lets a query wait: its miss goes to the worker that owns its key, unless a bound is reached.
    pub fn wait(
        &self,
        query: Query,
        key: Key<'_>,
        packet: &[u8],
        reply_to: ReplyTo,
        client: IpAddr,
    ) {
        self.hand_over(Miss::capture(query, key, packet, reply_to, self.clients.admit(client)));
    }

    /// Has an answer asked for anew whose time is almost over, unless that was begun lately.
    pub fn refresh(&self, key: Key<'_>, now: Now) {
        if self.resolver.begin_refresh(key.hash, now.boot_ms) {
            self.hand_over(Miss::refresh(key));
        }
    }

    /// Gives a miss to the worker that owns its key.
    pub fn hand_over(&self, miss: Miss) {
        if let Some(waiter) = &miss.waiter {
            self.tally.inc(Counter::WaitsBegun);
            if waiter.place.is_none() {
                return self.resolver.turn_away(Counter::ClientFull, miss);
            }
        }
        let owner = self.post.owner(miss.hash);
        if owner == self.number {
            self.resolver.admit(miss);
        } else if let Err(miss) = self.post.send_miss(owner, miss) {
            self.resolver.turn_away(Counter::MailboxFull, miss);
        }
    }
}
