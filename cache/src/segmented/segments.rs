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
//! A queue is a log: the blocks themselves, in the order in which they were filled, with the entries
//! in them in the order in which they came. The hand takes the oldest block off its log and goes
//! through it; what stays is copied to the end of its next log, and the block is free. What has left
//! the table before, because it was replaced, removed or expired, is passed over.
//!
//! Where much is replaced the logs would fill with holes between two rounds of the hand. So when
//! more than [`HOLES_SHARE`] is holes, the hand takes the block with most of them instead, of
//! whatever age, and copies all that is left in it to its log's end.

use std::collections::VecDeque;

use super::blocks::{Block, Unpublished, Walk};
use super::entry::{Entry, NewHeader};
use crate::Kind;

/// Segments of a shard.
pub(super) const SEGMENTS: usize = 3;

/// One part in so many of a shard may be holes, and of a block, before it is worth while to copy
/// what is left.
const HOLES_SHARE: u64 = 16;

/// A segment of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
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

    /// Where an entry goes that was asked for again.
    fn next(self) -> Self {
        match self {
            Self::Probation | Self::Protected => Self::Protected,
            Self::Negative => Self::Negative,
        }
    }

    /// Its share of a shard's blocks. Beyond it, it is the first to give something up.
    fn share(self, blocks: usize) -> usize {
        match self {
            Self::Probation => blocks / 5,
            Self::Negative => blocks / 10,
            Self::Protected => blocks / 5 * 4,
        }
        .max(1)
    }
}

/// What is in a segment.
#[derive(Debug, Default)]
struct Log {
    /// The oldest first. The last one is being filled.
    blocks: VecDeque<Block>,
    /// Entries in the table, those in the hand's block included.
    entries: u64,
    /// Bytes of them.
    live: u64,
    /// Bytes of them and of the holes between them.
    filled: u64,
}

/// The block that is gone through, and what for.
#[derive(Debug)]
pub(super) struct Hand {
    pub(super) walk: Walk,
    segment: Segment,
    /// Where an entry goes if it stays.
    pub(super) to: Segment,
    /// Whether nothing is to leave.
    pub(super) keeps_all: bool,
}

/// The logs of a shard.
#[derive(Debug)]
pub(super) struct Segments {
    logs: [Log; SEGMENTS],
    hand: Option<Hand>,
    /// Blocks in the logs, and the hand's.
    held: usize,
    /// The most that it may come to.
    blocks_max: usize,
}

impl Segments {
    /// Of at most so many blocks.
    pub(super) fn new(blocks_max: usize) -> Self {
        Self { logs: Default::default(), hand: None, held: 0, blocks_max }
    }

    /// Whether a new entry may open a block. The last one is kept for what the hand copies: it never
    /// needs two until its own is free, for what stays of a block has room in another.
    pub(super) fn may_open(&self) -> bool {
        self.held + 1 < self.blocks_max
    }

    /// Whether what is copied may open a block.
    pub(super) fn may_open_last(&self) -> bool {
        self.held < self.blocks_max
    }

    /// Whether an entry of so many bytes has room at the end of a segment.
    pub(super) fn has_room(&self, segment: Segment, size: usize) -> bool {
        self.logs[segment as usize].blocks.back().is_some_and(|block| block.has_room(size))
    }

    /// Goes on with another block at the end of a segment.
    pub(super) fn open(&mut self, segment: Segment, block: Block) {
        self.logs[segment as usize].blocks.push_back(block);
        self.held += 1;
    }

    /// Writes an entry at the end of its segment, which has room for it, or this panics.
    pub(super) fn append(&mut self, header: NewHeader, bytes: [&[u8]; 2]) -> Unpublished<'_> {
        let log = &mut self.logs[header.segment as usize];
        let block = log.blocks.back_mut().expect("has room");
        let entry = block.append(header, bytes);
        let size = entry.as_entry().size() as u64;
        log.entries += 1;
        log.live += size;
        log.filled += size;
        entry
    }

    /// Counts an entry out that has left the table.
    pub(super) fn count_out(&mut self, entry: Entry<'_>) {
        let log = &mut self.logs[entry.segment() as usize];
        log.entries -= 1;
        log.live -= entry.size() as u64;
    }

    /// Takes a block away of which nothing is left, unless the hand is just at it.
    pub(super) fn take_dead(&mut self, segment: Segment, index: usize) -> Option<Block> {
        let is_it = |block: &Block| block.index() == index && block.is_dead();
        if let Some(hand) = self.hand.take_if(|hand| is_it(hand.walk.block())) {
            return Some(self.end_hand(hand));
        }
        let blocks = &mut self.logs[segment as usize].blocks;
        let at = blocks.iter().position(is_it)?;
        let block = blocks.remove(at)?;
        self.forget(segment, &block);
        Some(block)
    }

    fn forget(&mut self, segment: Segment, block: &Block) {
        self.logs[segment as usize].filled -= block.filled();
        self.held -= 1;
    }

    /// The hand, to be given back by [`Segments::put_hand`] or [`Segments::end_hand`]. If it has no
    /// block it takes the next, which is one to be copied only if it may.
    pub(super) fn take_hand(&mut self, may_copy: bool) -> Option<Hand> {
        let hand = self.hand.take();
        let hand = hand.or_else(|| if may_copy { self.most_holes() } else { None });
        hand.or_else(|| {
            let segment = self.next_to_leave()?;
            let block = self.logs[segment as usize].blocks.pop_front()?;
            let walk = Walk::new(block);
            Some(Hand { walk, segment, to: segment.next(), keeps_all: false })
        })
    }

    /// Puts the hand back, to be gone on with.
    pub(super) fn put_hand(&mut self, hand: Hand) {
        self.hand = Some(hand);
    }

    /// Whether the hand keeps a block of which nothing is left.
    #[cfg(all(test, not(loom)))]
    pub(super) fn hand_is_dead(&self) -> bool {
        self.hand.as_ref().is_some_and(|hand| hand.walk.block().is_dead())
    }

    /// Ends the hand's way through its block, of which nothing is left.
    pub(super) fn end_hand(&mut self, hand: Hand) -> Block {
        let block = hand.walk.into_block();
        self.forget(hand.segment, &block);
        block
    }

    /// Whose turn it is: of a segment that is over its share, else of probation.
    fn next_to_leave(&self) -> Option<Segment> {
        let has_any = |segment: &Segment| !self.logs[*segment as usize].blocks.is_empty();
        let over = [Segment::Negative, Segment::Protected].into_iter().find(|&s| self.is_over(s));
        let order = [Segment::Probation, Segment::Protected, Segment::Negative];
        over.into_iter().chain(order).find(has_any)
    }

    /// The block with most holes, if there are too many in all.
    fn most_holes(&mut self) -> Option<Hand> {
        let block_len = self.logs.iter().find_map(|log| log.blocks.front())?.len();
        let holes = self.logs.iter().map(|log| log.filled - log.live).sum::<u64>();
        if holes <= self.blocks_max as u64 * block_len / HOLES_SHARE {
            return None;
        }
        let closed = Segment::ALL.into_iter().flat_map(|segment| {
            let blocks = &self.logs[segment as usize].blocks;
            let closed = blocks.iter().take(blocks.len().saturating_sub(1)).enumerate();
            closed.map(move |(at, block)| (block.dead(), segment, at))
        });
        let (dead, segment, at) = closed.max_by_key(|&(dead, ..)| dead)?;
        if dead < block_len / HOLES_SHARE {
            return None;
        }
        let walk = Walk::new(self.logs[segment as usize].blocks.remove(at)?);
        Some(Hand { walk, segment, to: segment, keeps_all: true })
    }

    /// Whether a segment has more than its share.
    pub(super) fn is_over(&self, segment: Segment) -> bool {
        self.logs[segment as usize].blocks.len() > segment.share(self.blocks_max)
    }

    /// Entries in a segment.
    pub(super) fn entries(&self, segment: Segment) -> u64 {
        self.logs[segment as usize].entries
    }

    /// Bytes that a segment has filled, with the holes in them.
    pub(super) fn bytes(&self, segment: Segment) -> u64 {
        self.logs[segment as usize].filled
    }
}
