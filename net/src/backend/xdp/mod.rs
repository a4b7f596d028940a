//! Datagrams as whole frames over AF_XDP sockets, past the kernel's socket layer.

mod checksum;
pub mod filter;
pub mod frame;
pub mod interface;
mod queue;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use socket2::Socket;

use super::{Backend, Epoll, Packet, Received, Sent};
use crate::route::Route;
use crate::socket::OpenError;

pub use self::interface::XdpError;
pub use self::queue::{QueueCounts, Share};

/// What to attach to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The addresses served, in the order of the listeners.
    pub listeners: Vec<SocketAddr>,
    /// Interfaces by name; if empty, those that carry the addresses.
    pub interfaces: Vec<String>,
    /// Receive queues to take of each interface; `None` for all.
    pub queues: Option<Vec<u32>>,
    /// How frames come from the device.
    pub mode: Mode,
    /// Workers among which the queues are dealt out: queue modulo workers.
    pub workers: usize,
    /// Frames per batch, 1..=[`MAX_BATCH`](super::MAX_BATCH).
    pub batch: usize,
    /// Microseconds that the kernel polls the device when a ring is empty; 0 for never.
    pub busy_poll_us: u32,
}

/// How frames come from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The best that the driver can: zero-copy, native with copies, generic.
    Auto,
    /// The device writes into our memory, or it fails.
    ZeroCopy,
    /// The driver runs the filter, and frames are copied.
    Copy,
    /// The kernel runs the filter behind the driver: works with each, gains least.
    Generic,
}

/// The filters on their interfaces. They vanish when this is dropped or the process ends, in
/// whatever way; the frames then take the kernel's way to the ordinary sockets.
#[derive(Debug)]
pub struct Attachment {
    interfaces: Vec<Served>,
}

/// One interface whose frames are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Its name.
    pub name: String,
    /// As the log says it: `native, zero-copy`, `native, copy`, `generic, copy`.
    pub mode: &'static str,
    /// The receive queues taken.
    pub queues: Vec<u32>,
}

/// What the filter of one interface did since it was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterCounts {
    /// Queries given to AF_XDP sockets.
    pub redirected: u64,
    /// Queries that came by a queue without a socket, and went on to the kernel.
    pub unserved: u64,
    /// Everything else: left to the kernel.
    pub passed: u64,
}

/// Attaches a filter to each interface and opens a socket for each of its queues; one share of
/// them for each worker, some of which may be empty.
pub fn open(_request: &Request) -> Result<(Attachment, Vec<Share>), XdpError> {
    Err(XdpError::Unfinished)
}

impl Attachment {
    /// The interfaces, in the order of [`filter_counts`](Self::filter_counts).
    #[must_use]
    pub fn interfaces(&self) -> &[Served] {
        &self.interfaces
    }

    /// Takes the filters off: from here on the kernel has all frames. Called again, nothing happens.
    pub fn detach(&self) {}

    /// What the filters did; 0 after [`detach`](Self::detach) only for what comes then.
    #[must_use]
    pub fn filter_counts(&self) -> Vec<FilterCounts> {
        Vec::new()
    }

    /// What became of the frames of each queue of all interfaces.
    #[must_use]
    pub fn queue_counts(&self) -> Vec<QueueCounts> {
        Vec::new()
    }
}

/// The backend on AF_XDP sockets, with an [`Epoll`] for what the filter passes and for answers that
/// come later.
pub struct Xdp {
    kernel: Epoll,
}

impl Xdp {
    /// Takes over these sockets and this share of the queues. To be called inside the worker's
    /// runtime.
    pub fn open(sockets: Vec<Socket>, batch: usize, _share: Share) -> Result<Self, OpenError> {
        Ok(Self { kernel: Epoll::open(sockets, batch)? })
    }
}

impl Backend for Xdp {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.kernel.poll_ready(cx)
    }

    fn receive(&mut self) -> Received {
        self.kernel.receive()
    }

    fn next(&mut self) -> Option<Packet<'_>> {
        self.kernel.next()
    }

    fn peek(&mut self, at: usize) -> Option<&[u8]> {
        self.kernel.peek(at)
    }

    fn send(&mut self) -> Sent {
        self.kernel.send()
    }

    fn send_to(&mut self, route: &Route, answer: &[u8]) -> bool {
        self.kernel.send_to(route, answer)
    }
}

impl fmt::Debug for Xdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Xdp").field("kernel", &self.kernel).finish()
    }
}
