//! Datagrams as whole frames over AF_XDP sockets, past the kernel's socket layer.
//!
//! A filter on the interface ([`filter`]) gives queries to the socket of the queue that they came by,
//! and leaves everything else to the kernel. A worker owns some of the queues ([`queue`]); a query
//! is answered in the frame it came in ([`batch`], [`frame`]). The ordinary sockets stay open beside
//! them: they carry what the filter passes, and the answers that come later.
//!
//! Cost beyond the kernel's, per query: its headers are read and written once, its checksums
//! computed, and a frame's number goes through four rings. One call sends the replies of a batch;
//! nothing is allocated. Receiving takes no call at all.

mod assembler;
mod attachment;
mod batch;
mod checksum;
mod echo;
pub mod error;
pub mod filter;
pub mod frame;
#[doc(hidden)]
pub mod fuzz;
pub mod interface;
mod links;
mod queue;
#[cfg(test)]
pub(super) mod rig;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Sleep, sleep};

use self::batch::Batch;
use self::queue::Queue;
use super::{Backend, Epoll, Packet, Received, Sent};
use crate::route::Route;
use crate::socket::OpenError;
use crate::sys::watched;

pub use self::attachment::{Attachment, FilterCounts, KernelCounts, QueueCounts, Served, open};
pub use self::echo::Echo;
use self::error::Step;
pub use self::error::XdpError;

/// How often the kernel is told of replies that it had no room for, or whose interface is down.
const KICK_AGAIN: Duration = Duration::from_millis(5);

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

/// The queues of one worker.
#[derive(Default)]
pub struct Share {
    queues: Vec<Queue>,
    busy_poll: bool,
}

/// The backend on AF_XDP sockets, with an [`Epoll`] for what the filter passes and for answers that
/// come later.
///
/// Invariant: the batch holds packets of the queue `current`, or none.
pub struct Xdp {
    ports: Box<[Port]>,
    kernel: Epoll,
    batch: Batch,
    /// Frames per batch.
    len: usize,
    /// Whose turn to receive is next: a port, or the kernel's sockets behind them.
    turn: usize,
    /// Where the batch came from.
    current: usize,
    /// The kernel is asked to poll the devices each time that readiness is.
    busy_poll: bool,
    /// Runs while replies wait for the kernel to look at them.
    again: Option<Pin<Box<Sleep>>>,
    /// Replies whose end came to be known since the last `send`.
    carried: Sent,
}

/// One queue in the worker's runtime.
struct Port {
    queue: Queue,
    /// Tells of arrivals. It stays in its epoll set, other than a busy UDP socket (`sys/watched.rs`):
    /// the kernel tells of a whole row of frames at once.
    arrivals: AsyncFd<OwnedFd>,
}

impl Xdp {
    /// Takes over these sockets and this share of the queues, for batches of so many datagrams. To be
    /// called inside the worker's runtime.
    pub fn open(sockets: Vec<Socket>, batch: usize, share: Share) -> Result<Self, OpenError> {
        let ports = share.queues.into_iter().map(Port::watch);
        let ports = ports.collect::<io::Result<_>>().map_err(XdpError::at(Step::Tune, "", None))?;
        Ok(Self {
            ports,
            kernel: Epoll::open(sockets, batch)?,
            batch: Batch::new(batch),
            len: batch,
            turn: 0,
            current: 0,
            busy_poll: share.busy_poll,
            again: None,
            carried: Sent::default(),
        })
    }

    /// Frames that nobody has: 0, or they were lost.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        let queues = self.ports.iter().map(|port| port.queue.outstanding());
        queues.sum::<usize>() - self.batch.held()
    }

    /// Tells the kernel once more of replies that it has not looked at.
    fn kick_again(&mut self) {
        for port in self.ports.iter_mut().filter(|port| port.queue.is_stuck()) {
            self.carried += port.queue.kick();
        }
        self.again = None;
    }

    fn watch_stuck(&mut self) {
        if self.again.is_none() && self.ports.iter().any(|port| port.queue.is_stuck()) {
            self.again = Some(Box::pin(sleep(KICK_AGAIN)));
        }
    }
}

impl Backend for Xdp {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for port in &mut self.ports {
            // A worker that polls busily asks again and again, before it sleeps.
            if self.busy_poll && port.queue.poll_device() {
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(ready) = port.arrivals.poll_read_ready(cx) {
                return Poll::Ready(ready.map(drop));
            }
        }
        if self.again.as_mut().is_some_and(|again| again.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Ok(()));
        }
        self.kernel.poll_ready(cx)
    }

    fn receive(&mut self) -> Received {
        if let Some(port) = self.ports.get_mut(self.current) {
            port.queue.forget(&mut self.batch);
        }
        if self.again.as_ref().is_some_and(|again| again.is_elapsed()) {
            self.kick_again();
            self.watch_stuck();
        }
        let mut received = Received::default();
        for _ in 0..=self.ports.len() {
            self.current = self.turn;
            self.turn = if self.turn == self.ports.len() { 0 } else { self.turn + 1 };
            received = match self.ports.get_mut(self.current) {
                Some(port) => port.receive(self.len, &mut self.batch),
                None => self.kernel.receive(),
            };
            if received.taken() + received.errors > 0 {
                break;
            }
        }
        received.sent = std::mem::take(&mut self.carried);
        received
    }

    fn next(&mut self) -> Option<Packet<'_>> {
        match self.ports.get_mut(self.current) {
            Some(port) => port.queue.next(&mut self.batch),
            None => self.kernel.next(),
        }
    }

    #[inline]
    fn peek(&mut self, at: usize) -> Option<&[u8]> {
        match self.ports.get(self.current) {
            Some(port) => port.queue.peek(at, &self.batch),
            None => self.kernel.peek(at),
        }
    }

    fn send(&mut self) -> Sent {
        if let Some(port) = self.ports.get_mut(self.current) {
            self.carried += port.queue.send(&mut self.batch);
        }
        self.kick_again();
        self.watch_stuck();
        let mut sent = std::mem::take(&mut self.carried);
        sent += self.kernel.send();
        sent
    }

    fn send_to(&mut self, route: &Route, answer: &[u8]) -> bool {
        self.kernel.send_to(route, answer)
    }
}

impl Port {
    fn watch(queue: Queue) -> io::Result<Self> {
        // A descriptor of its own for the same socket.
        let socket = queue.socket().try_clone_to_owned()?;
        let arrivals = watched::readable(socket)?;
        Ok(Self { queue, arrivals })
    }

    /// Receives one batch if anything has come; what comes after a look that found nothing wakes the
    /// worker.
    fn receive(&mut self, max: usize, batch: &mut Batch) -> Received {
        // A ring is memory: whether it is empty is seen without being told.
        self.queue.receive(max, batch).unwrap_or_else(|| {
            // What arrives from here on is told when the runtime looks next.
            let forget = |_: &OwnedFd| Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let _ = self.arrivals.try_io(Interest::READABLE, forget);
            Received::default()
        })
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").field("queues", &self.queues.len()).finish()
    }
}

impl fmt::Debug for Xdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Xdp")
            .field("queues", &self.ports.len())
            .field("kernel", &self.kernel)
            .finish()
    }
}

#[cfg(test)]
mod tests;
