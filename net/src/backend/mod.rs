//! How client datagrams come in and answers go out: one trait, one file per implementation.
//!
//! A worker is generic over [`Backend`] and monomorphised; the only run-time choice is a single
//! `match` when it is spawned. Backends carry client UDP only: streams, upstream and
//! control sockets live in the worker's runtime.
//!
//! One turn of a worker is `poll_ready`, then `receive`, `next` until it is dry, `send`. Answers to
//! queries that had to wait enter by `send_to` at any point of the turn and leave with its `send`.

#[cfg(test)]
pub(crate) mod contract;
mod epoll;
#[cfg(feature = "io-uring")]
pub mod uring;
#[cfg(feature = "af-xdp")]
pub mod xdp;

use std::io;
use std::ops::AddAssign;
use std::task::{Context, Poll};

pub use epoll::Epoll;
use socket2::Socket;
#[cfg(feature = "io-uring")]
pub use uring::IoUring;
#[cfg(feature = "af-xdp")]
pub use xdp::Xdp;

use crate::route::Route;
use crate::socket::{self, Granted, Listener, OpenError};

/// Bytes of a slot: the longest query that is accepted and the longest answer that can leave over
/// UDP.
pub const SLOT_LEN: usize = 4096;

/// The most datagrams one system call may carry (UIO_MAXIOV), and so the bound of
/// [`Options::batch`].
pub const MAX_BATCH: usize = 1024;

/// Datagrams per batch unless told otherwise: beyond it the cost per datagram falls no further,
/// while latency and the cache lines in use grow.
pub const DEFAULT_BATCH: usize = 64;

/// Turns in a row that brought nothing but errors, after which a socket is left alone until a new
/// datagram arrives: a broken one must not keep the worker awake.
const FAILED_TURNS: u32 = 16;

/// How often one `send` tries again when the send buffer or the device's queue is full. An answer
/// lost is asked for again; a worker that waits loses the queries behind it.
const SEND_RETRIES: usize = 4;

/// Datagrams received since a socket was last empty, from which on it is busy and its gate lets go of
/// it: leaving and entering costs two system calls, and staying some 180 ns for each of them.
///
/// A load of 8 to 16 datagrams a wake thus leaves and enters once a wake. That pair takes 0.75 µs
/// (kernel 6.18, 2-core Xeon VM), and entering a gate that is itself watched takes a mutex of the
/// whole host, `epnested_mutex`: 0.85 µs when two threads do nothing else. It pays at once: an echo
/// on loopback (pairs of 0.2 s, medians of 8, A/A within 2 %) that became busy only at 64 cost 1 %
/// more an answer at 8 and 12 a wake, 2 to 4 % at 16 and 32, and 6 % at 64. So there is no
/// hysteresis; with many cores at such a load the mutex is where to look first.
const BUSY_DATAGRAMS: usize = 8;

/// Client UDP of one worker.
///
/// All of it is to be called inside the tokio runtime of the worker, with I/O and time enabled.
///
/// Invariant: every datagram taken from the kernel, but for a batch that came with the last `send`
/// and that nobody asks for any more, is either counted in a [`Received`] as dropped
/// or handed on by [`next`](Self::next) exactly once; every reply is counted in exactly one
/// [`Sent`].
///
/// How one is opened is its own matter. Each takes over the sockets of [`Options::bind`], which a
/// [`Route`] names by index, and allocates nothing afterwards.
pub trait Backend: Sized {
    /// Ready when some listener may have datagrams. A listener stops being ready only when the
    /// kernel has said that it is empty, so a worker may end its turn at any time and lose nothing.
    /// An error means that the runtime is gone.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Fills one batch from the next ready listener, round robin, and never waits. Packets of the
    /// batch before that were not sent are forgotten. A batch without packets doesn't mean that the
    /// listeners are empty: ask `poll_ready`.
    fn receive(&mut self) -> Received;

    /// Lends the packets of the batch one after the other.
    fn next(&mut self) -> Option<Packet<'_>>;

    /// The datagram that [`next`](Self::next) will lend after `at` others, for a look ahead at what
    /// serving it will take. `None` if the batch has no more, or where it isn't to be had.
    #[inline]
    fn peek(&mut self, _at: usize) -> Option<&[u8]> {
        None
    }

    /// Sends the replies of the batch and the waiting answers of `send_to`, and ends the batch. A
    /// datagram that the kernel refuses is counted and the rest still goes out.
    fn send(&mut self) -> Sent;

    /// Takes a copy of an answer to a query of an earlier batch; it leaves with the next `send`. Up
    /// to one batch of such answers may wait; one more pushes them out at once, which the next
    /// [`Sent`] includes. False, and nothing is counted, if the answer is empty or longer than
    /// [`SLOT_LEN`], or the route's listener doesn't exist.
    fn send_to(&mut self, route: &Route, answer: &[u8]) -> bool;
}

/// What the sockets and the buffers of a backend are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The addresses to serve; at least one, at most 65,535. A [`Route`] names them by index.
    pub listeners: Vec<Listener>,
    /// Datagrams per batch, 1..=[`MAX_BATCH`]. One worker keeps twice as many slots of [`SLOT_LEN`]
    /// bytes, over io_uring three times.
    pub batch: usize,
    /// Bytes of receive buffer to ask for, per socket; `None` leaves the system's default.
    pub recv_buffer: Option<usize>,
    /// Bytes of send buffer to ask for, per socket; `None` leaves the system's default.
    pub send_buffer: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self { listeners: Vec::new(), batch: DEFAULT_BATCH, recv_buffer: None, send_buffer: None }
    }
}

impl Options {
    /// Checks the bounds, and opens a socket for each listener.
    pub fn bind(&self) -> Result<Vec<(Socket, Granted)>, OpenError> {
        let (batch, count) = (self.batch, self.listeners.len());
        if !(1..=MAX_BATCH).contains(&batch) {
            return Err(OpenError::Batch { batch });
        }
        if !(1..=usize::from(u16::MAX)).contains(&count) {
            return Err(OpenError::Listeners { count });
        }
        let open = |listener: &Listener| {
            socket::open_listener(listener.address, self.recv_buffer, self.send_buffer)
        };
        self.listeners.iter().map(open).collect()
    }
}

/// One received datagram, lent until it is answered or dropped.
#[derive(Debug)]
pub struct Packet<'b> {
    /// The datagram at its start, and room for the reply: a whole slot of [`SLOT_LEN`] bytes, over
    /// AF_XDP as much as one packet of the interface carries.
    pub buf: &'b mut [u8],
    /// Bytes of the datagram; may be 0.
    pub len: usize,
    /// Who asked, and how to answer later.
    pub route: Route,
    reply: &'b mut usize,
}

impl<'b> Packet<'b> {
    /// Puts a packet together; for backends, and for whatever else carries bytes to the same code.
    /// `reply` receives the length given to [`reply`](Self::reply), and stays as it is without one.
    pub fn new(buf: &'b mut [u8], len: usize, route: Route, reply: &'b mut usize) -> Self {
        Self { buf, len, route, reply }
    }

    /// Answers with the first `len` bytes of `buf`, at the next [`Backend::send`]. A packet on
    /// which this isn't called isn't answered, nor is one whose reply is empty; a length beyond
    /// `buf` is cut to it.
    pub fn reply(self, len: usize) {
        *self.reply = len.min(self.buf.len());
    }
}

/// What one [`Backend::receive`] took from the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Datagrams that `next` will hand on.
    pub packets: usize,
    /// Datagrams dropped because they came from port 0, or frames from an address that is nobody's,
    /// where no answer can go: always forged.
    pub dropped: usize,
    /// Datagrams dropped because they were longer than a slot: no query is.
    pub oversize: usize,
    /// Frames dropped because their lengths contradict each other: only where a backend sees whole
    /// frames (AF_XDP).
    pub malformed: usize,
    /// Frames dropped for a wrong checksum, likewise.
    pub corrupt: usize,
    /// Errors that the kernel reported in place of datagrams.
    pub errors: usize,
    /// What became of replies that no `send` could tell of, for the kernel looked at them only now
    /// (AF_XDP, after the interface was down).
    pub sent: Sent,
}

impl Received {
    /// Datagrams taken from the kernel, good or not.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.packets + self.dropped + self.oversize + self.malformed + self.corrupt
    }
}

/// What became of replies and answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams the kernel accepted.
    pub accepted: usize,
    /// Datagrams the kernel refused: unreachable or forbidden destinations, full send buffers.
    pub refused: usize,
}

impl AddAssign for Sent {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
    }
}

/// Whether a send that failed with this errno may succeed a little later.
fn is_congestion(error: i32) -> bool {
    error == libc::EAGAIN || error == libc::ENOBUFS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_cut_to_the_buffer() {
        let mut buf = [0; 8];
        let mut reply = 0;
        let route = Route::new("192.0.2.1:53".parse().unwrap(), None, 0, 0);
        Packet::new(&mut buf, 3, route, &mut reply).reply(9);
        assert_eq!(reply, 8);
    }
}
