//! What outlives the packet of a query that must wait: its key, and who waits for the answer.

use swiftlet_net::route::Route;
use swiftlet_parser::key::{CaseBits, Key};
use swiftlet_parser::query::Query;

use super::Transport;
use crate::clients::Place;
use crate::stream::StreamId;

/// A question whose answer is not known, on its way to the owner of its key.
#[derive(Debug)]
pub struct Miss {
    /// The key's hash; it names the owner.
    pub hash: u64,
    /// The key's bytes.
    pub key: Box<[u8]>,
    /// Who asked; nobody yet if the answer is to be refreshed before its time is over.
    pub waiter: Option<Waiter>,
}

/// A client waiting for an answer: all that is needed to shape it and send it.
#[derive(Clone, Copy, Debug)]
pub struct Waiter {
    /// The facts of its query.
    pub query: Query,
    /// The letter case of its question, given back in the answer.
    pub case: CaseBits,
    /// Where the answer goes.
    pub reply_to: ReplyTo,
    /// Where it is counted among its client's; `None` when that one has as many as it may.
    pub place: Option<Place>,
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplyTo {
    /// Over the owner's own socket for the listener that was asked.
    Udp(Route),
    /// Over a connection, which only its own worker can write to.
    Stream(StreamId),
}

impl ReplyTo {
    /// What carries the answer.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match self {
            Self::Udp(_) => Transport::Udp,
            Self::Stream(_) => Transport::Stream,
        }
    }
}

impl Miss {
    /// Copies what must outlive the packet.
    #[must_use]
    pub fn capture(
        query: Query,
        key: Key<'_>,
        packet: &[u8],
        reply_to: ReplyTo,
        place: Option<Place>,
    ) -> Self {
        let case = CaseBits::of(query.qname(packet));
        let waiter = Some(Waiter { query, case, reply_to, place });
        Self { hash: key.hash, key: key.bytes.into(), waiter }
    }

    /// The same for an answer that is known and will soon not be.
    #[must_use]
    pub fn refresh(key: Key<'_>) -> Self {
        Self { hash: key.hash, key: key.bytes.into(), waiter: None }
    }
}
