//! One receive queue of an interface: its AF_XDP socket, its frames, and where each of them is.
//!
//! ```text
//!    free ──fill──> kernel ──rx──> batch ──reply──> kernel ──completion──> free
//!                                    └──none──> free
//! ```
//! Invariant: a frame is in exactly one of these places, and [`Queue::outstanding`] counts those
//! that are in none but the batch.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use super::batch::{Batch, Destinations};
use crate::backend::{Packet, Received, SEND_RETRIES, Sent};
use crate::sys::umem::Frame;
use crate::sys::xsk::{Copying, Kick, Segment, Xsk};

/// Entries of each ring: what may arrive while the worker is busy with something else. A queue has
/// twice as many frames, so that replies under way never keep the kernel from receiving.
pub(super) const RING_LEN: u32 = 2048;

/// Bytes that the kernel leaves free in front of what arrives (XDP_PACKET_HEADROOM).
pub(super) const HEADROOM: usize = 256;

/// A socket with its frames.
pub(super) struct Queue {
    xsk: Xsk,
    destinations: Destinations,
    free: Vec<Frame>,
    /// Frames with the kernel, to receive into and to send.
    filled: usize,
    sending: usize,
    /// Frames in all.
    count: usize,
    /// Replies in the ring that the kernel has not looked at, and how many of them, or of those before,
    /// it has lost.
    unsettled: usize,
    lost: usize,
    /// The interface is no more, nor is anything sent.
    gone: bool,
    arrivals: Vec<Segment>,
    replies: Vec<Segment>,
    ids: Ids,
    tally: Arc<Tally>,
}

/// What a queue counts itself; others read it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) received: AtomicU64,
    pub(super) answered: AtomicU64,
}

impl Queue {
    /// Takes over a socket with all frames of its memory, for batches of so many. `seed` is secret
    /// and random.
    pub(super) fn new(
        (xsk, frames): (Xsk, Vec<Frame>),
        destinations: Destinations,
        batch: usize,
        seed: u64,
    ) -> Self {
        let (count, arrivals) = (frames.len(), Vec::with_capacity(batch));
        let mut queue = Self {
            xsk,
            destinations,
            free: frames,
            filled: 0,
            sending: 0,
            count,
            unsettled: 0,
            lost: 0,
            gone: false,
            arrivals,
            replies: Vec::with_capacity(batch),
            ids: Ids(seed | 1),
            tally: Arc::default(),
        };
        queue.fill();
        queue
    }

    /// Frames that are neither free nor with the kernel: those of the batch, or they were lost.
    pub(super) fn outstanding(&self) -> usize {
        self.count - self.free.len() - self.filled - self.sending
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.xsk.as_fd()
    }

    /// Binds the socket to its queue.
    pub(super) fn bind(&mut self, interface: u32, queue: u32, copying: Copying) -> io::Result<()> {
        self.xsk.bind(interface, queue, copying)
    }

    pub(super) fn is_zero_copy(&self) -> bool {
        self.xsk.is_zero_copy()
    }

    pub(super) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Whether replies wait for the kernel to look at them.
    pub(super) fn is_stuck(&self) -> bool {
        self.unsettled > 0
    }

    /// Ends the batch without a reply to any of its packets.
    pub(super) fn forget(&mut self, batch: &mut Batch) {
        batch.forget(&mut self.free);
    }

    /// Takes what has arrived, at most `max` frames, into an empty batch. `None` if nothing has.
    pub(super) fn receive(&mut self, max: usize, batch: &mut Batch) -> Option<Received> {
        self.sending -= self.xsk.complete(&mut self.free);
        self.fill();
        self.xsk.receive(max, &mut self.arrivals);
        let arrived = self.arrivals.len();
        if arrived == 0 {
            return None;
        }
        self.filled -= arrived;
        add(&self.tally.received, arrived);
        let Self { arrivals, xsk, destinations, free, .. } = self;
        Some(batch.take(arrivals, xsk.umem(), destinations, free))
    }

    /// Lends the next packet of the batch.
    pub(super) fn next<'q>(&'q mut self, batch: &'q mut Batch) -> Option<Packet<'q>> {
        batch.next(self.xsk.umem_mut())
    }

    /// The datagram that `next` will lend after `at` others.
    pub(super) fn peek<'q>(&'q self, at: usize, batch: &'q Batch) -> Option<&'q [u8]> {
        batch.peek(at, self.xsk.umem())
    }

    /// Ends the batch and sends its replies. One that finds the ring full is refused.
    pub(super) fn send(&mut self, batch: &mut Batch) -> Sent {
        let mut sent = Sent::default();
        let Self { xsk, free, ids, replies, .. } = self;
        batch.finish(xsk.umem_mut(), free, replies, || ids.next());
        for reply in replies.drain(..) {
            let refused = if self.gone { Err(reply.frame) } else { xsk.transmit(reply) };
            match refused {
                Ok(()) => {
                    self.sending += 1;
                    self.unsettled += 1;
                }
                Err(frame) => {
                    sent.refused += 1;
                    free.push(frame);
                }
            }
        }
        if self.is_stuck() {
            sent += self.kick();
        }
        sent
    }

    /// Has the kernel look at the replies in the ring. Returns what became of those that it did look
    /// at; the others are left to the next call.
    pub(super) fn kick(&mut self) -> Sent {
        let (mut refused, mut retries, mut unsent) = (self.lost, SEND_RETRIES, usize::MAX);
        let left = loop {
            match self.xsk.kick() {
                Kick::Done => break 0,
                // A reply is lost, as a datagram is for which a socket's device has no room.
                Kick::Refused if refused < self.unsettled => refused += 1,
                // One call sends 32 and leaves the others to the next. (Linux 6.17 may be told to send
                // more, XDP_MAX_TX_SKB_BUDGET, which made no difference to be measured.)
                Kick::Again if self.xsk.unsent() < unsent => unsent = self.xsk.unsent(),
                Kick::Again if retries > 0 => {
                    retries -= 1;
                    self.sending -= self.xsk.complete(&mut self.free);
                    // What takes the frames over may be a kernel thread on this very core.
                    thread::yield_now();
                }
                Kick::Gone => {
                    self.gone = true;
                    refused += self.xsk.unsent();
                    break 0;
                }
                Kick::Refused | Kick::Again | Kick::Down => break self.xsk.unsent(),
            }
        };
        self.settle(left, refused)
    }

    /// Counts the replies in the ring except those that are left; so many of all are known to be lost.
    /// The ring may show that only later, and each is counted when it does.
    fn settle(&mut self, left: usize, lost: usize) -> Sent {
        let settled = self.unsettled.saturating_sub(left);
        self.unsettled -= settled;
        let refused = lost.min(settled);
        self.lost = lost - refused;
        let sent = Sent { accepted: settled - refused, refused };
        add(&self.tally.answered, sent.accepted);
        sent
    }

    /// Has the kernel poll the device. Returns whether anything has arrived.
    pub(super) fn poll_device(&mut self) -> bool {
        self.xsk.poke();
        self.xsk.has_arrivals()
    }

    /// Gives the kernel free frames to receive into.
    fn fill(&mut self) {
        let filled = self.xsk.fill(&mut self.free);
        self.filled += filled;
        if self.xsk.fill_needs_wake_up() {
            self.xsk.poke();
        }
    }
}

/// Identifications of IPv4 packets, of which fragments are put together: whoever can guess them can
/// replace a part of an answer (xorshift64*, seeded with a secret).
struct Ids(u64);

impl Ids {
    fn next(&mut self) -> u16 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 48) as u16
    }
}

/// Adds to what only this thread writes.
fn add(counter: &AtomicU64, count: usize) {
    counter.store(counter.load(Relaxed) + count as u64, Relaxed);
}
