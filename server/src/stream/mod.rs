//! DNS over TCP (RFC 7766): the clients' connections of one worker.
//!
//! Every worker accepts on its own listeners; a connection is one task ([`connection`]) that calls the
//! same `pipeline::serve` as the datagrams. Answers to queries that had to wait come back through
//! [`Streams::deliver`], on the worker that has the connection, whichever worker resolved them.
//!
//! Bounds: connections in all and per client ([`bounds`]); in each connection see there.

pub mod bounds;
mod connection;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::desk::Desk;
use crate::telemetry::Counter;
use bounds::Bounds;
use connection::{Connection, Outbox};

/// How long accepting rests after the kernel refused a connection, for lack of open files mostly.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// A connection, by the worker that has it and a number that is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId {
    /// The worker.
    pub worker: u16,
    /// The connection's number there.
    pub connection: u64,
}

/// The connections of one worker.
pub struct Streams {
    worker: u16,
    open: RefCell<HashMap<u64, Rc<Outbox>>>,
    next: Cell<u64>,
    /// No query is taken any more; connections end when what they owe is written.
    closing: Cell<bool>,
    idle: Duration,
}

impl Streams {
    /// No connections; idle ones will be closed after `idle`.
    #[must_use]
    pub fn new(worker: usize, idle: Duration) -> Self {
        Self {
            worker: worker as u16,
            open: RefCell::default(),
            next: Cell::new(0),
            closing: Cell::new(false),
            idle,
        }
    }

    /// Accepts on a listener until the worker ends. Must run inside the worker's `LocalSet`.
    pub async fn accept(self: Rc<Self>, listener: TcpListener, bounds: Bounds, desk: Rc<Desk>) {
        while !self.closing.get() {
            let Ok((stream, peer)) = listener.accept().await else {
                desk.tally.inc(Counter::StreamsFailed);
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            };
            let Some(admitted) = bounds.admit(peer.ip()) else {
                desk.tally.inc(Counter::StreamsRefused);
                continue;
            };
            desk.tally.inc(Counter::StreamsAccepted);
            desk.gateway.sight(peer.ip(), &desk.tally);
            let connection =
                Connection::new(Rc::clone(&self), Rc::clone(&desk), stream, peer, admitted);
            tokio::task::spawn_local(connection.run());
        }
    }

    /// Hands the answer to a query that waited to its connection, or the word that there is none. An
    /// answer whose connection is gone is counted as dropped.
    pub fn deliver(&self, connection: u64, message: Option<&[u8]>, desk: &Desk) {
        match (self.open.borrow().get(&connection), message) {
            (Some(outbox), message) => outbox.deliver(message),
            (None, Some(_)) => desk.tally.inc(Counter::DroppedStreamGone),
            (None, None) => {}
        }
    }

    /// Takes no more queries; each connection ends once it owes nothing.
    pub fn close(&self) {
        self.closing.set(true);
        for outbox in self.open.borrow().values() {
            outbox.ring();
        }
    }

    /// Whether no connection is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.borrow().is_empty()
    }

    fn register(&self) -> (StreamId, Rc<Outbox>) {
        let number = self.next.replace(self.next.get() + 1);
        let outbox = Rc::new(Outbox::default());
        self.open.borrow_mut().insert(number, Rc::clone(&outbox));
        (StreamId { worker: self.worker, connection: number }, outbox)
    }

    fn forget(&self, id: StreamId) {
        self.open.borrow_mut().remove(&id.connection);
    }
}
