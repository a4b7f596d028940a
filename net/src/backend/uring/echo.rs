//! The bare echo over the ring: the least that a server on io_uring can do.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::client::Poll;
use crate::sys::mmsg::Verdict;
use crate::sys::uring::{Completion, Ring, SHOT_MAX};

/// How long one wait is; then it waits again.
const WAIT: Duration = Duration::from_secs(60);

/// One socket on a ring of its own, without a runtime: what comes goes back. For measurements.
///
/// One call sends a batch and receives the next. It waits, in ppoll(2), after a call that brought
/// nothing.
pub struct Echo {
    socket: UdpSocket,
    ring: Ring,
    poll: Poll,
    /// How many shots a batch takes.
    deep: usize,
    /// Datagrams that came with the last call, in their slots.
    arrived: Vec<u16>,
    /// Slots being sent.
    sending: Vec<u16>,
}

impl Echo {
    /// Takes over a bound socket; `batch` datagrams (1..=1024) are echoed at once. Must be used by
    /// the thread that made it.
    pub fn new(socket: UdpSocket, batch: usize) -> io::Result<Self> {
        let ring = Ring::open(&[socket.as_raw_fd()], Box::new([false]), batch, 0)?;
        let [arrived, sending] = [(); 2].map(|()| Vec::with_capacity(batch));
        let deep = batch.div_ceil(SHOT_MAX);
        Ok(Self { socket, ring, poll: Poll::default(), deep, arrived, sending })
    }

    /// Waits until something comes, and sends it back, each reply `pad` bytes longer than what
    /// came. Returns how many datagrams that were.
    pub fn turn(&mut self, pad: usize) -> io::Result<usize> {
        self.receive();
        while self.arrived.is_empty() {
            self.poll.wait([(Some(&self.socket), false)], WAIT)?;
            self.receive();
        }
        std::mem::swap(&mut self.arrived, &mut self.sending);
        for &slot in &self.sending {
            let len = self.ring.datagram(slot).len() + pad;
            self.ring.push_send(0, slot, len, 0);
        }
        Ok(self.sending.len())
    }

    /// Sends what is queued, and then takes what the socket holds.
    fn receive(&mut self) {
        let shots = if self.sending.len() >= SHOT_MAX { self.deep } else { 1 };
        (0..shots).for_each(|_| self.ring.push_shot(0));
        self.ring.enter();
        self.sending.drain(..).for_each(|slot| self.ring.release(slot));
        while let Some(completion) = self.ring.completion() {
            // A datagram that the kernel refuses is skipped.
            let Completion::Shot { slot: Some(slot), .. } = completion else { continue };
            match self.ring.verdict(slot) {
                Verdict::Good | Verdict::Oversize => self.arrived.push(slot),
                Verdict::Unanswerable => self.ring.release(slot),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::IoUring;
    use crate::backend::contract::runs_here;

    #[test]
    fn what_comes_goes_back_padded() {
        if !runs_here::<IoUring>() {
            return;
        }
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut echo = Echo::new(server, 4).unwrap();
        let sent = [&b"one"[..], b"two", b"three", b"", b"five", b"six"];
        for datagram in sent {
            client.send_to(datagram, address).unwrap();
        }
        let mut echoed = 0;
        while echoed < sent.len() {
            echoed += echo.turn(2).unwrap();
        }
        // The last batch leaves with the call that looks for the next.
        client.send_to(b"last", address).unwrap();
        assert_eq!(echo.turn(0).unwrap(), 1);
        for datagram in sent {
            let mut buf = [0; 64];
            let len = client.recv(&mut buf).unwrap();
            assert_eq!((&buf[..len - 2], len), (datagram, datagram.len() + 2));
        }
    }
}
