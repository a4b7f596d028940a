//! Datagrams over io_uring(7): one system call sends a batch and receives the next.
//!
//! A listener is read by *shots* (see `sys/uring.rs`), which take what is there and end. The enter
//! that carries the replies of a batch carries the shots for the next one too, of one listener at a
//! time, in turn. Everything is done when it returns: a reply leaves from the slot its query came
//! in, and the slot is free then. Between two enters nothing is in flight, so readiness is what it
//! is for `epoll`: a listener that is idle is in its gate (`sys/watched.rs`), and a busy one in no
//! wait queue at all.
//!
//! A multishot receive that is left standing, the usual way, is in the socket's wait
//! queue for good, where every datagram that comes, and on loopback and veth every one that leaves,
//! pays for it; and it goes through a thousand slots, where two batches stay in the cache. CPU per
//! datagram over loopback, divided by that of an echo on recvmmsg and sendmmsg (kernel 6.18, 2-core
//! VM, one run, medians of 11 interleaved rounds of 0.12 s beside other work; A/A within 1 %):
//!
//! | questions open, sockets x window          | 8 x 32 | 64 x 1 | 8 x 1 | 1 x 1 |
//! |-------------------------------------------|--------|--------|-------|-------|
//! | echo, standing multishot, 1024 slots      | 1.09   | 1.04   | 1.04  | 1.07  |
//! | echo, shots, replies by sendmmsg          | 1.01   | 1.00   | 0.99  | 1.17  |
//! | [`Echo`]: shots along with the replies    | 1.01   | 1.00   | 1.00  | 1.16  |
//! | this backend in its runtime               | 1.03   | 1.01   | 1.00  | 1.18  |
//! | `epoll` in tokio's runtime                | 1.01   | 1.00   | 1.01  | 1.10  |
//!
//! The first two rows are of throwaway programs; the second waited by a POLL in the ring. Registering
//! the ring's own descriptor made no difference. A lone datagram costs more this way. In the runtime
//! it also meets tokio-uring's own ring, which is entered before each sleep; what that takes was not
//! measured apart.

mod echo;
mod probe;

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::task::{Context, Poll};
use std::thread;

pub use echo::Echo;
pub use probe::{Runtime, Unavailable, probe, runtime};
use socket2::Socket;

use super::{
    BUSY_DATAGRAMS, Backend, FAILED_TURNS, Packet, Received, SEND_RETRIES, SLOT_LEN, Sent,
    is_congestion,
};
use crate::route::Route;
use crate::socket::{self, OpenError};
use crate::sys::mmsg::Verdict;
use crate::sys::uring::{Completion, Ring, SHOT_MAX};
use crate::sys::watched::Watched;

/// The backend on io_uring.
pub struct IoUring {
    ring: Ring,
    batch: usize,
    ports: Box<[Port]>,
    /// Whose turn to receive is next.
    turn: usize,
    reading: Reading,
    /// The next batch, as far as it came with the last `send`.
    arrivals: Vec<u16>,
    /// The listener that the batch came from.
    current: usize,
    /// Slots of the batch, good packets only.
    packets: Vec<u16>,
    /// How many of them were handed on.
    lent: usize,
    /// The reply length of each packet that was handed on; 0 for no reply.
    replies: Box<[usize]>,
    /// Answers that wait, in the slots behind those to receive into.
    deferred: Vec<Outgoing>,
    /// What one `transmit` sends, and what of it failed, with errno.
    outgoing: Vec<Outgoing>,
    failed: Vec<(u32, i32)>,
    /// Errors in place of datagrams, since the last `receive`.
    errors: usize,
    /// Results of deferred answers that had to leave before `send`.
    carried: Sent,
}

/// One listener's socket.
struct Port {
    socket: Watched,
    failed_turns: u32,
    /// Datagrams received since it was last empty.
    since_empty: usize,
    /// Whether its last shots took as much as one may, so that the next batch takes more of them.
    deep: bool,
}

/// What the shots of the last enter were for, and how they ended.
#[derive(Default)]
struct Reading {
    listener: usize,
    /// Whether one of them found the socket empty, and whether one failed.
    emptied: bool,
    failed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Outgoing {
    listener: u16,
    slot: u16,
    len: usize,
}

impl IoUring {
    /// Takes over these sockets and builds ring and buffers for batches of so many datagrams. To be
    /// called inside the worker's [`runtime`].
    pub fn open(sockets: Vec<Socket>, batch: usize) -> Result<Self, OpenError> {
        let files: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        let mut wildcard = Vec::with_capacity(sockets.len());
        let mut ports = Vec::with_capacity(sockets.len());
        for socket in sockets {
            let address = socket::bound_address(&socket)?;
            wildcard.push(socket::is_wildcard(&address));
            let socket =
                Watched::new(socket).map_err(OpenError::at(address, "watch the socket (epoll)"))?;
            ports.push(Port { socket, failed_turns: 0, since_empty: 0, deep: false });
        }
        let ring = Ring::open(&files, wildcard.into(), batch, batch)
            .map_err(Unavailable::at("open a ring"))?;
        Ok(Self {
            ring,
            batch,
            ports: ports.into(),
            turn: 0,
            reading: Reading::default(),
            arrivals: Vec::with_capacity(batch),
            current: 0,
            packets: Vec::with_capacity(batch),
            lent: 0,
            replies: vec![0; batch].into(),
            deferred: Vec::with_capacity(batch),
            outgoing: Vec::with_capacity(2 * batch),
            failed: Vec::with_capacity(2 * batch),
            errors: 0,
            carried: Sent::default(),
        })
    }

    /// Slots that nobody has: 0, or they were lost.
    pub fn outstanding(&self) -> usize {
        self.ring.taken() - self.packets.len() - self.arrivals.len()
    }

    /// Has the next enter read the next listener that is ready. Returns whether one is.
    fn shoot(&mut self) -> bool {
        for _ in 0..self.ports.len() {
            let listener = self.turn;
            self.turn = if self.turn + 1 == self.ports.len() { 0 } else { self.turn + 1 };
            if self.ports[listener].socket.is_ready() {
                let shots =
                    if self.ports[listener].deep { self.batch.div_ceil(SHOT_MAX) } else { 1 };
                self.reading = Reading { listener, emptied: false, failed: false };
                (0..shots).for_each(|_| self.ring.push_shot(listener as u16));
                return true;
            }
        }
        false
    }

    /// Enters, and takes what came of it.
    fn enter(&mut self, shot: bool) {
        self.ring.enter();
        while let Some(completion) = self.ring.completion() {
            match completion {
                Completion::Shot { slot, ended } => {
                    self.arrivals.extend(slot);
                    match ended {
                        // An empty datagram, or the end of the slots.
                        None | Some(0 | libc::ENOBUFS) => {}
                        Some(libc::EAGAIN) => self.reading.emptied = true,
                        Some(_) => {
                            self.errors += 1;
                            self.reading.failed = true;
                        }
                    }
                }
                Completion::Refused { tag, error } => self.failed.push((tag, error)),
            }
        }
        debug_assert!(self.ring.is_settled(), "the kernel is done with all slots");
        if shot {
            self.end_reading();
        }
    }

    /// Decides what becomes of the listener that was read.
    fn end_reading(&mut self) {
        let Reading { listener, emptied, failed } = self.reading;
        let (port, got) = (&mut self.ports[listener], self.arrivals.len());
        port.deep = got >= SHOT_MAX;
        port.failed_turns = if failed && got == 0 { port.failed_turns + 1 } else { 0 };
        port.since_empty = port.since_empty.saturating_add(got);
        // After anything at all it is asked again, with the replies: more may have come meanwhile.
        if (emptied && got == 0) || port.failed_turns == FAILED_TURNS {
            (port.failed_turns, port.since_empty) = (0, 0);
            port.socket.set_empty();
        } else if port.since_empty >= BUSY_DATAGRAMS {
            port.socket.unwatch();
        }
    }

    /// Sends what is outgoing, and receives the next batch if there is none.
    fn transmit(&mut self) -> Sent {
        let total = self.outgoing.len();
        self.failed.clear();
        (0..total as u32).for_each(|tag| self.push_send(tag));
        let shot = self.arrivals.is_empty() && self.shoot();
        self.enter(shot);
        for _ in 0..SEND_RETRIES {
            if !self.failed.iter().any(|&(_, error)| is_congestion(error)) {
                break;
            }
            // The queue may be drained by a kernel thread on this very core.
            thread::yield_now();
            for at in (0..self.failed.len()).rev() {
                if is_congestion(self.failed[at].1) {
                    let (tag, _) = self.failed.swap_remove(at);
                    self.push_send(tag);
                }
            }
            self.enter(false);
        }
        self.outgoing.clear();
        Sent { accepted: total - self.failed.len(), refused: self.failed.len() }
    }

    fn push_send(&mut self, tag: u32) {
        let Outgoing { listener, slot, len } = self.outgoing[tag as usize];
        self.ring.push_send(listener, slot, len, tag);
    }

    /// Forgets the batch; its slots are free.
    fn end_batch(&mut self) {
        self.lent = 0;
        self.packets.drain(..).for_each(|slot| self.ring.release(slot));
    }
}

impl Backend for IoUring {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.arrivals.is_empty() {
            return Poll::Ready(Ok(()));
        }
        for port in &mut self.ports {
            if let Poll::Ready(ready) = port.socket.poll_ready(cx) {
                return Poll::Ready(ready);
            }
        }
        Poll::Pending
    }

    fn receive(&mut self) -> Received {
        self.end_batch();
        for _ in 0..self.ports.len() {
            if !self.arrivals.is_empty() || !self.shoot() {
                break;
            }
            self.enter(true);
        }
        self.current = self.reading.listener;
        let mut report =
            Received { errors: std::mem::take(&mut self.errors), ..Received::default() };
        for slot in self.arrivals.drain(..) {
            match self.ring.verdict(slot) {
                Verdict::Good => {
                    self.packets.push(slot);
                    continue;
                }
                Verdict::Unanswerable => report.dropped += 1,
                Verdict::Oversize => report.oversize += 1,
            }
            self.ring.release(slot);
        }
        report.packets = self.packets.len();
        report
    }

    fn next(&mut self) -> Option<Packet<'_>> {
        let &slot = self.packets.get(self.lent)?;
        let reply = &mut self.replies[self.lent];
        self.lent += 1;
        *reply = 0;
        let (buf, len, route) = self.ring.lend(slot, self.current as u16);
        Some(Packet::new(buf, len, route, reply))
    }

    #[inline]
    fn peek(&mut self, at: usize) -> Option<&[u8]> {
        let &slot = self.packets.get(self.lent + at)?;
        Some(self.ring.datagram(slot))
    }

    fn send(&mut self) -> Sent {
        let mut sent = std::mem::take(&mut self.carried);
        let listener = self.current as u16;
        for (&slot, &len) in self.packets[..self.lent].iter().zip(&self.replies) {
            if len > 0 {
                self.outgoing.push(Outgoing { listener, slot, len });
            }
        }
        self.outgoing.append(&mut self.deferred);
        if !self.outgoing.is_empty() {
            sent += self.transmit();
        }
        self.end_batch();
        sent
    }

    fn send_to(&mut self, route: &Route, answer: &[u8]) -> bool {
        let listener = route.listener;
        let exists = usize::from(listener) < self.ports.len();
        if answer.is_empty() || answer.len() > SLOT_LEN || !exists {
            return false;
        }
        if self.deferred.len() == self.batch {
            self.outgoing.append(&mut self.deferred);
            let sent = self.transmit();
            self.carried += sent;
        }
        let slot = (2 * self.batch + self.deferred.len()) as u16;
        self.ring.fill(slot, route, answer);
        self.deferred.push(Outgoing { listener, slot, len: answer.len() });
        true
    }
}

impl fmt::Debug for IoUring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sockets = self.ports.iter().map(|port| port.socket.socket().as_raw_fd());
        f.debug_struct("IoUring")
            .field("batch", &self.batch)
            .field("sockets", &sockets.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::contract::runs_here;

    #[test]
    fn a_broken_socket_does_not_keep_the_worker_awake() {
        if !runs_here::<IoUring>() {
            return;
        }
        let runtime = runtime().unwrap();
        // Receiving from a listening TCP socket fails each time (ENOTCONN), while it stays ready to
        // accept.
        let listener = socket::open_stream_listener("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let open = async { IoUring::open(vec![listener.into()], 1) };
        let mut backend = runtime.block_on(open).unwrap();
        runtime.block_on(std::future::poll_fn(|cx| backend.poll_ready(cx))).unwrap();
        let errors: usize = (0..2 * FAILED_TURNS).map(|_| backend.receive().errors).sum();
        assert_eq!(errors, FAILED_TURNS as usize);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(backend.poll_ready(&mut cx).is_pending());
        assert_eq!(backend.outstanding(), 0);
    }
}
