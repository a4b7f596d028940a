//! The segments of one shard: who is next to leave.
//!
//! ```text
//!   new ──► probation ──► asked for meanwhile? ──yes──► protected ──► asked for meanwhile? ─┐
//!           (20 %)              │ no                    (80 %)  ▲         │ no       yes │
//!                               ▼                               └─────────┼──────────────┘
//!   new, negative ──► negative ──► asked for meanwhile? ─yes─► its end    ▼
//!                     (10 %)       │ no ──► leaves                      leaves
//! ```
//!
//! All three are FIFO queues with a visited bit in each entry, so that a hit moves nothing. What is
//! asked for once passes through probation and leaves; only what is asked for again while it is
//! there reaches protected, where only others of its kind can push it out. Negative answers stay
//! among themselves.
//!
//! A queue holds places, not entries: a slot of the table with the sequence number of the entry
//! that it stood for. A place whose entry is gone says so when its turn comes, so removing an entry
//! touches no queue. When such places outnumber the others they are swept out, a few for each entry
//! that leaves another behind.

use super::entry::SegmentIndex;
use super::queue::{Queue, Queued};
use crate::Kind;

/// Segments of a shard.
pub(super) const SEGMENTS: usize = 3;

/// A segment of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// New answers with data.
    Probation,
    /// New answers without.
    Negative,
    /// Answers with data that were asked for again.
    Protected,
}

impl Segment {
    pub(super) const ALL: [Self; SEGMENTS] = [Self::Probation, Self::Negative, Self::Protected];

    /// Where a new entry begins.
    pub(super) fn of_new(kind: Kind) -> Self {
        match kind {
            Kind::Data => Self::Probation,
            Kind::Negative | Kind::Failure => Self::Negative,
        }
    }

    /// Its share of the shard's budget. Beyond it, it is the first to give something up.
    pub(super) fn share(self, budget: u64) -> u64 {
        match self {
            Self::Probation => budget / 5,
            Self::Negative => budget / 10,
            Self::Protected => budget / 5 * 4,
        }
    }

    pub(super) fn index(self) -> SegmentIndex {
        self as SegmentIndex
    }

    pub(super) fn from_index(index: SegmentIndex) -> Self {
        Self::ALL[usize::from(index) % SEGMENTS]
    }
}

/// The queues of a shard, and what is in them.
#[derive(Debug, Default)]
pub(super) struct Segments {
    queues: [Queue; SEGMENTS],
    bytes: [u64; SEGMENTS],
    entries: [u64; SEGMENTS],
    next_sequence: u32,
}

impl Segments {
    /// A number for an entry that comes into the table.
    pub(super) fn next_sequence(&mut self) -> u32 {
        self.next_sequence = self.next_sequence.wrapping_add(1);
        self.next_sequence
    }

    /// Queues an entry of so many bytes as the last of a segment.
    pub(super) fn add(&mut self, segment: Segment, queued: Queued, bytes: u64) {
        self.entries[segment as usize] += 1;
        self.bytes[segment as usize] += bytes;
        self.requeue(segment, queued);
    }

    /// Puts a place that was taken by [`Segments::pop`], and still holds, at its queue's end.
    pub(super) fn requeue(&mut self, segment: Segment, queued: Queued) {
        self.queues[segment as usize].push(queued);
    }

    /// Counts an entry out that has left the table.
    pub(super) fn forget(&mut self, segment: Segment, bytes: u64) {
        self.entries[segment as usize] -= 1;
        self.bytes[segment as usize] -= bytes;
    }

    /// Counts an entry that replaces another in its place.
    pub(super) fn resize(&mut self, segment: Segment, old_bytes: u64, new_bytes: u64) {
        let bytes = &mut self.bytes[segment as usize];
        *bytes = *bytes - old_bytes + new_bytes;
    }

    /// The first place of a segment, which may no longer hold.
    pub(super) fn pop(&mut self, segment: Segment) -> Option<Queued> {
        self.queues[segment as usize].pop()
    }

    /// A few steps of dropping the places that no longer hold, when they are the most of the
    /// segment's queue. To be called for each entry that leaves the segment and its place behind.
    pub(super) fn sweep(&mut self, segment: Segment, holds: impl Fn(Queued) -> bool) {
        /// Places are looked at so many times faster than they are left behind, so a sweep ends.
        const PLACES: usize = 8;
        /// Queues shorter than this are left alone.
        const WORTH_IT: usize = 64;
        let entries = self.entries(segment);
        let queue = &mut self.queues[segment as usize];
        if entries == 0 {
            *queue = Queue::default();
            return;
        }
        if queue.len() > WORTH_IT && queue.len() as u64 > 2 * entries {
            queue.begin_sweep();
        }
        queue.sweep(PLACES, holds);
    }

    /// Bytes of the entries in a segment.
    pub(super) fn bytes(&self, segment: Segment) -> u64 {
        self.bytes[segment as usize]
    }

    /// Bytes of the entries in all segments.
    pub(super) fn entry_bytes(&self) -> u64 {
        self.bytes.iter().sum()
    }

    /// Bytes of all entries and of the queues.
    pub(super) fn all_bytes(&self) -> u64 {
        self.entry_bytes() + self.queues.iter().map(Queue::len_bytes).sum::<u64>()
    }

    /// Entries in a segment.
    pub(super) fn entries(&self, segment: Segment) -> u64 {
        self.entries[segment as usize]
    }
}
