//! The bare echo over the ring: the least that a server on io_uring can do.

use std::io;
use std::net::UdpSocket;

use socket2::Socket;

use crate::sys::mmsg::Verdict;
use crate::sys::uring::{Completion, Ring, SHOT_MAX};

/// One socket on a ring of its own, without a runtime: what comes goes back. For measurements.
///
/// One call sends a batch and receives the next.
pub struct Echo {
    ring: Ring,
    batch: usize,
    /// Datagrams of the last shots, in their slots.
    arrived: Vec<u16>,
    /// Slots being sent.
    sending: Vec<u16>,
    /// Whether the last shots left the socket empty, or nearly so.
    drained: bool,
    /// Whether the last shots took all that one may.
    deep: bool,
}

/// Datagrams from which on a socket isn't watched but asked again at once.
const BUSY: usize = 8;

impl Echo {
    /// Takes over a bound socket; `batch` datagrams (1..=1024) are echoed at once.
    pub fn new(socket: UdpSocket, batch: usize) -> io::Result<Self> {
        let sockets = Box::new([Socket::from(socket)]);
        let ring = Ring::open(sockets, Box::new([false]), batch, 0)?;
        let [arrived, sending] = [(); 2].map(|()| Vec::with_capacity(batch));
        Ok(Self { ring, batch, arrived, sending, drained: true, deep: false })
    }

    /// Waits until something comes, and sends it back, each reply `pad` bytes longer than what
    /// came. Returns how many datagrams that were.
    pub fn turn(&mut self, pad: usize) -> usize {
        while self.arrived.is_empty() {
            self.ask();
        }
        std::mem::swap(&mut self.arrived, &mut self.sending);
        let echoed = self.sending.len();
        for (tag, &slot) in self.sending.iter().enumerate() {
            let len = self.ring.datagram(slot).len() + pad;
            self.ring.push_send(0, slot, len, tag as u32);
        }
        self.ask();
        echoed
    }

    /// One call: what is queued, and then what the socket holds, or the news that it has something.
    fn ask(&mut self) {
        let wait = self.drained;
        if wait {
            self.ring.push_watch(0);
        } else {
            let shots = if self.deep { self.batch.div_ceil(SHOT_MAX) } else { 1 };
            (0..shots).for_each(|_| self.ring.push_shot(0));
        }
        self.ring.enter(wait);
        self.sending.drain(..).for_each(|slot| self.ring.release(slot));
        while let Some(completion) = self.ring.completion() {
            match completion {
                Completion::Shot { slot: Some(slot), .. } => match self.ring.verdict(slot) {
                    Verdict::Unanswerable => self.ring.release(slot),
                    Verdict::Good | Verdict::Oversize => self.arrived.push(slot),
                },
                // A datagram that the kernel refuses is skipped.
                Completion::Shot { .. } | Completion::Refused { .. } => {}
                Completion::Watched { .. } => self.drained = false,
            }
        }
        if !wait {
            self.drained = self.arrived.len() < BUSY.min(self.batch);
            self.deep = self.arrived.len() >= SHOT_MAX;
        }
    }
}
