//! Datagrams over recvmmsg(2) and sendmmsg(2), with readiness from epoll. Works everywhere.
//!
//! The messages stand in one row, the first half to receive into, the second half spare:
//!
//! ```text
//!   0            lent       received     batch      batch + deferred      2 * batch
//!   | handed on   | not yet  | unused     | answers   | spare               |
//!                                           that waited
//! ```
//! A reply leaves from the slot its query came in. `send` moves the headers of what was replied to
//! the front, takes the deferred answers of the same listener along, and hands that run to one
//! sendmmsg.
//!
//! Cost beyond the two system calls, per datagram: a few loads and stores in lines the kernel has
//! just used (header, side), one reply length, and the route (48 bytes on the stack). Nothing is
//! allocated and no byte is copied. A socket that is busy isn't in any epoll set, which would cost
//! more than all of this (see `sys/watched.rs`).

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::task::{Context, Poll};
use std::thread;

use socket2::Socket;

use super::{
    BUSY_DATAGRAMS, Backend, FAILED_TURNS, Packet, Received, SEND_RETRIES, SLOT_LEN, Sent,
    is_congestion,
};
use crate::route::Route;
use crate::socket::{self, OpenError};
use crate::sys::mmsg::{Messages, Verdict};
use crate::sys::watched::Watched;

/// Errors in place of datagrams that one `receive` takes from a socket before the next listener's
/// turn comes.
const ERRORS_PER_TURN: usize = 4;

/// The portable backend.
pub struct Epoll {
    messages: Messages,
    /// Half of the messages.
    batch: usize,
    ports: Box<[Port]>,
    /// Whose turn to receive is next.
    turn: usize,
    /// The listener that the batch came from.
    current: usize,
    /// Messages at the front that are used and must be reset before the next batch.
    used: usize,
    /// Packets of the batch, all good ones: dropped datagrams are moved behind them.
    packets: usize,
    /// How many of them were handed on.
    lent: usize,
    /// The reply length of each packet that was handed on; 0 for no reply.
    replies: Box<[usize]>,
    /// Deferred answers that wait behind the batch, and each one's listener.
    deferred: usize,
    deferred_for: Box<[u16]>,
    /// Results of deferred answers that had to leave before `send`.
    carried: Sent,
}

/// One listener's socket.
struct Port {
    socket: Watched,
    failed_turns: u32,
    /// Datagrams received since it was last empty.
    since_empty: usize,
}

impl Epoll {
    /// Takes over these sockets and builds the buffers for batches of so many datagrams. To be
    /// called inside the worker's runtime.
    pub fn open(sockets: Vec<Socket>, batch: usize) -> Result<Self, OpenError> {
        let mut wildcard = false;
        let ports = sockets.into_iter().map(|socket| {
            let address = socket::bound_address(&socket)?;
            wildcard |= socket::is_wildcard(&address);
            Port::watch(socket).map_err(OpenError::at(address, "watch the socket (epoll)"))
        });
        let ports: Box<[Port]> = ports.collect::<Result<_, _>>()?;
        Ok(Self {
            ports,
            messages: Messages::new(2 * batch, wildcard),
            batch,
            turn: 0,
            current: 0,
            used: 0,
            packets: 0,
            lent: 0,
            replies: vec![0; batch].into(),
            deferred: 0,
            deferred_for: vec![0; batch].into(),
            carried: Sent::default(),
        })
    }

    /// Moves dropped datagrams behind the good ones and counts both.
    fn sift(&mut self, report: &mut Received) {
        let mut good = self.used;
        let mut at = 0;
        while at < good {
            match self.messages.verdict(at) {
                Verdict::Good => {
                    at += 1;
                    continue;
                }
                Verdict::Unanswerable => report.dropped += 1,
                Verdict::Oversize => report.oversize += 1,
            }
            good -= 1;
            self.messages.swap(at, good);
        }
        self.packets = good;
        report.packets = good;
    }

    /// Moves what was replied to the front and returns how many there are.
    fn compact(&mut self) -> usize {
        let mut end = 0;
        for (at, &len) in self.replies[..self.lent].iter().enumerate() {
            if len == 0 {
                continue;
            }
            if at != end {
                self.messages.swap(at, end);
            }
            self.messages.set_len(end, len);
            end += 1;
        }
        end
    }

    /// Takes deferred answers of the batch's listener into the run that ends at `end`, as far as
    /// the front half has room, and returns its new end.
    fn join_deferred(&mut self, mut end: usize) -> usize {
        let mut at = 0;
        while at < self.deferred && end < self.batch {
            if usize::from(self.deferred_for[at]) != self.current {
                at += 1;
                continue;
            }
            self.messages.swap(end, self.batch + at);
            self.messages.reset(self.batch + at..self.batch + at + 1);
            end += 1;
            self.deferred -= 1;
            self.swap_deferred(at, self.deferred);
        }
        self.used = self.used.max(end);
        end
    }

    /// Sends the deferred answers that are still there, one run per listener.
    fn flush_deferred(&mut self) -> Sent {
        let mut sent = Sent::default();
        let mut start = 0;
        while start < self.deferred {
            let listener = self.deferred_for[start];
            let mut end = start;
            for at in start..self.deferred {
                if self.deferred_for[at] == listener {
                    self.swap_deferred(end, at);
                    end += 1;
                }
            }
            sent += self.transmit(listener.into(), self.batch + start..self.batch + end);
            start = end;
        }
        self.messages.reset(self.batch..self.batch + self.deferred);
        self.deferred = 0;
        sent
    }

    fn swap_deferred(&mut self, a: usize, b: usize) {
        self.deferred_for.swap(a, b);
        self.messages.swap(self.batch + a, self.batch + b);
    }

    /// Hands a run of messages to the kernel. sendmmsg stops before the first one that it refuses,
    /// and says why when that one comes first: it is skipped, and the run goes on behind it.
    fn transmit(&mut self, listener: usize, range: Range<usize>) -> Sent {
        let socket = self.ports[listener].socket.socket();
        let mut sent = Sent::default();
        let mut retries = SEND_RETRIES;
        let mut at = range.start;
        while at < range.end {
            match self.messages.send(socket.as_fd(), at..range.end) {
                Ok(count @ 1..) => {
                    at += count;
                    sent.accepted += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if retries > 0 && error.raw_os_error().is_some_and(is_congestion) => {
                    retries -= 1;
                    // The queue may be drained by a kernel thread on this very core.
                    thread::yield_now();
                }
                Ok(0) | Err(_) => {
                    at += 1;
                    sent.refused += 1;
                }
            }
        }
        sent
    }
}

impl Backend for Epoll {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for port in &mut self.ports {
            if let Poll::Ready(ready) = port.socket.poll_ready(cx) {
                return Poll::Ready(ready);
            }
        }
        Poll::Pending
    }

    fn receive(&mut self) -> Received {
        self.messages.reset(0..self.used);
        (self.used, self.packets, self.lent) = (0, 0, 0);
        let mut report = Received::default();
        for _ in 0..self.ports.len() {
            self.current = self.turn;
            self.turn = if self.turn + 1 == self.ports.len() { 0 } else { self.turn + 1 };
            self.used = self.ports[self.current].receive(
                &mut self.messages,
                self.batch,
                &mut report.errors,
            );
            if self.used > 0 {
                self.sift(&mut report);
                break;
            }
        }
        report
    }

    fn next(&mut self) -> Option<Packet<'_>> {
        if self.lent == self.packets {
            return None;
        }
        let at = self.lent;
        self.lent += 1;
        let (buf, len, route) = self.messages.lend(at, self.current as u16);
        let reply = &mut self.replies[at];
        *reply = 0;
        Some(Packet::new(buf, len, route, reply))
    }

    #[inline]
    fn peek(&mut self, at: usize) -> Option<&[u8]> {
        let at = self.lent + at;
        (at < self.packets).then(|| self.messages.datagram(at))
    }

    fn send(&mut self) -> Sent {
        let mut end = self.compact();
        (self.packets, self.lent) = (0, 0);
        let mut sent = std::mem::take(&mut self.carried);
        if self.deferred > 0 {
            end = self.join_deferred(end);
        }
        if end > 0 {
            sent += self.transmit(self.current, 0..end);
        }
        if self.deferred > 0 {
            sent += self.flush_deferred();
        }
        sent
    }

    fn send_to(&mut self, route: &Route, answer: &[u8]) -> bool {
        if answer.is_empty()
            || answer.len() > SLOT_LEN
            || usize::from(route.listener) >= self.ports.len()
        {
            return false;
        }
        if self.deferred == self.batch {
            let sent = self.flush_deferred();
            self.carried += sent;
        }
        self.messages.fill(self.batch + self.deferred, route, answer);
        self.deferred_for[self.deferred] = route.listener;
        self.deferred += 1;
        true
    }
}

impl Port {
    fn watch(socket: Socket) -> io::Result<Self> {
        Ok(Self { socket: Watched::new(socket)?, failed_turns: 0, since_empty: 0 })
    }

    /// Receives one batch if the socket is known to be ready, and stops being ready when the kernel
    /// says that it is empty (EAGAIN; a batch that isn't full doesn't count, more may have come
    /// while it was answered).
    fn receive(&mut self, messages: &mut Messages, max: usize, errors: &mut usize) -> usize {
        let failed_turns = &mut self.failed_turns;
        let received = self.socket.try_read(|socket| {
            let mut tries = ERRORS_PER_TURN;
            while tries > 0 {
                match messages.receive(socket.as_fd(), max) {
                    Ok(count) => {
                        *failed_turns = 0;
                        return Ok(count);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // A pending error of the socket comes once and says nothing about the datagrams
                    // behind it.
                    Err(_) => {
                        *errors += 1;
                        tries -= 1;
                    }
                }
            }
            *failed_turns += 1;
            if *failed_turns >= FAILED_TURNS {
                *failed_turns = 0;
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(0)
        });
        let Ok(received) = received else {
            self.since_empty = 0;
            return 0;
        };
        self.since_empty = self.since_empty.saturating_add(received);
        if self.since_empty >= BUSY_DATAGRAMS {
            self.socket.unwatch();
        }
        received
    }
}

impl fmt::Debug for Epoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sockets = self.ports.iter().map(|port| port.socket.socket().as_raw_fd());
        f.debug_struct("Epoll")
            .field("batch", &self.batch)
            .field("sockets", &sockets.collect::<Vec<_>>())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    fn until_ready(runtime: &tokio::runtime::Runtime, port: &mut Port) {
        runtime.block_on(std::future::poll_fn(|cx| port.socket.poll_ready(cx))).unwrap();
    }

    #[test]
    fn a_pending_error_does_not_hide_the_datagrams_behind_it() {
        let runtime = runtime();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = peer.local_addr().unwrap();
        drop(peer);
        // Unlike a listener it is connected, so an ICMP message leaves an error (ECONNREFUSED)
        // behind.
        let socket = socket::open_upstream(address, 0).unwrap();
        socket.send(b"to nobody").unwrap();
        let peer = UdpSocket::bind(address).unwrap();
        peer.send_to(b"hello", socket.local_addr().unwrap()).unwrap();

        let mut port = runtime.block_on(async { Port::watch(socket.into()) }).unwrap();
        until_ready(&runtime, &mut port);
        let (mut messages, mut errors) = (Messages::new(4, false), 0);
        assert_eq!(port.receive(&mut messages, 4, &mut errors), 1);
        assert_eq!(errors, 1);
    }

    #[test]
    fn a_broken_socket_does_not_keep_the_worker_awake() {
        let runtime = runtime();
        // Receiving from a listening TCP socket fails each time (ENOTCONN), while it stays ready to
        // accept.
        let listener = socket::open_stream_listener("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut port = runtime.block_on(async { Port::watch(listener.into()) }).unwrap();
        until_ready(&runtime, &mut port);
        let (mut messages, mut errors) = (Messages::new(1, false), 0);
        for _ in 0..2 * FAILED_TURNS {
            assert_eq!(port.receive(&mut messages, 1, &mut errors), 0);
        }
        assert_eq!(errors, ERRORS_PER_TURN * FAILED_TURNS as usize);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(port.socket.poll_ready(&mut cx).is_pending());
    }
}
