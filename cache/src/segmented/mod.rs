//! The answer cache of our own: a segmented LRU that is read without locks.
//!
//! ```text
//!   hash ─► shard ─► two buckets of one cache line (table.rs) ─► entry (entry.rs) ─► f(lookup)
//!                                     ▲
//!   insert, remove, expire: under the shard's lock, by its segments (segments.rs), which are logs
//!   of blocks (blocks.rs)
//! ```
//!
//! Cost of a hit: one line of the table (two for one entry in ten), the entry's own two or three
//! lines, one comparison of the key, and at most one store, of a visited bit that was clear. No
//! lock, no reference count, no allocation, no retry. The epoch is pinned once per batch
//! ([`Store::pin`]).
//!
//! - **The budget** is the table and one allocation of blocks for all entries, split evenly over the
//!   shards, [`RETIRED_SHARE`] of it set aside for what readers still pin. Pages of it are taken
//!   from the system when they are first used, and not given back. Whether they are huge
//!   can be said ([`Config::huge_pages`]).
//! - **Eviction** is a hand that goes through a segment's oldest block. It is kept [`PACE`] times
//!   faster than entries come in when there is no block left to open, so that one insert seldom
//!   waits for more. It gives at most [`SECOND_CHANCES`] second chances per insert; after that
//!   entries leave, asked for or not. So an insert is bounded.
//! - **What was retired** is freed when no guard of that time is left. While one thread stays
//!   pinned, nothing is: beyond [`RETIRED_SHARE`] inserts are refused and counted, and the cache
//!   goes on to answer.
//! - **Crowding:** a key whose two buckets are full pushes one of their entries out, whatever its
//!   segment. The table has a slot for each [`BYTES_PER_SLOT`] of the budget, so this is rare
//!   unless entries are smaller than any DNS answer; it is counted apart.

mod blocks;
mod entry;
#[cfg_attr(any(loom, miri), path = "epochs_model.rs")]
mod epochs;
mod pages;
mod segments;
mod sync;
mod table;

use std::marker::PhantomData;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use self::blocks::Blocks;
use self::entry::{Entry, NewHeader, SIZE_MAX, size_of_entry};
use self::epochs::{Epochs, Pinned};
use self::pages::Pages;
use self::segments::{Hand, Segment, Segments};
use self::sync::{Mutex, MutexGuard};
use self::table::{Place, Slot, Table};
use crate::{
    Config, Inserted, Key, Kind, Lifetime, Lookup, MAX_ANSWER_LEN, MAX_KEY_LEN, NewEntry,
    SegmentStats, Stats, Store,
};

/// The most shards. Two writers meet in one of them once in so many inserts.
pub const SHARDS_MAX: u64 = 64;

/// Bytes of the budget that a shard has at least, if there is more than one.
pub const SHARD_BYTES_MIN: u64 = 4 << 20;

/// Blocks that a shard has at least: three of them are not full yet and one is just being emptied,
/// whatever there is in all. With a budget that is too small for so many of [`BLOCK_LEN_MAX`] the
/// blocks are shorter, and so is the longest answer that is kept.
pub const BLOCKS_PER_SHARD: u64 = 48;

/// Bytes of a block: at most enough for the longest entry.
pub const BLOCK_LEN_MAX: u64 = SIZE_MAX.next_multiple_of(4096) as u64;

/// Bytes of a block at least.
pub const BLOCK_LEN_MIN: u64 = 1024;

/// One slot of the table for so many bytes of the budget, half of what the smallest answers with
/// data occupy: half full, two buckets are both full once in some thousand times. The table takes
/// an eighth of the budget, and at most 32 GiB: slots are numbered by 32 bits, so beyond 256 GiB of
/// budget the cache holds no more than some 4 x 10^9 answers.
pub const BYTES_PER_SLOT: u64 = 64;

/// One part in so many of the budget may be retired and not yet freed.
pub const RETIRED_SHARE: u64 = 50;

/// So many blocks may be retired in any case, if there are four times as many.
pub const RETIRED_BLOCKS_MIN: u64 = 4;

/// Second chances that one insert gives: some 50 µs of work. Only the first eviction after a long
/// time without any comes to it, when nearly all of probation has been asked for again; so few of
/// those are lost.
pub const SECOND_CHANCES: u32 = 512;

/// Buckets that are looked through under one hold of a shard's lock.
const BUCKETS_PER_HOLD: usize = 256;

/// Steps of the hand for each insert, when there is no block left to open.
const PACE: usize = 8;

/// After so many attempts in vain nothing can be freed now. Garbage may be when the epoch has moved
/// on twice.
const ROUNDS_IN_VAIN: usize = 3;

/// The most attempts that are made at once: each frees at most eight blocks.
const ROUNDS: usize = 64;

/// A segmented LRU that is read without locks.
pub struct SegmentedCache {
    table: Table,
    shards: Box<[Mutex<Shard>]>,
    blocks_per_shard: usize,
    retired_max: u64,
    /// The bucket that [`Store::expire`] looks at next.
    hand: AtomicUsize,
    too_large: AtomicU64,
    refused: AtomicU64,
}

/// What is written under a shard's lock, beside its part of the table.
#[derive(Debug)]
struct Shard {
    segments: Segments,
    left: [Left; segments::SEGMENTS],
    /// Which of a key's slots is looked at first when another's must be taken.
    turn: usize,
}

/// Entries that have left a segment, by why.
#[derive(Clone, Copy, Debug, Default)]
struct Left {
    evicted: u64,
    crowded: u64,
    expired: u64,
}

/// Why an entry leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Room,
    Crowded,
    Expired,
    Removed,
}

/// Holds the epoch: nothing that is found is freed while it lives.
///
/// It is good for the cache that gave it: a lookup in another panics.
pub struct Pin {
    pinned: Pinned,
    not_send: PhantomData<*const ()>,
}

impl Store for SegmentedCache {
    type Pin = Pin;

    fn new(config: Config) -> Self {
        let Dimensions { shards, buckets, blocks, block_len, retired } =
            Dimensions::new(config.max_bytes);
        let pages = Pages(config.huge_pages);
        let memory = Blocks::new(blocks as usize, block_len as usize, pages);
        let table = Table::new(shards as usize, buckets as usize, memory, Epochs::new(), pages);
        let blocks_per_shard = ((blocks - retired) / shards) as usize;
        let shard = || Shard {
            segments: Segments::new(blocks_per_shard),
            left: Default::default(),
            turn: 0,
        };
        Self {
            table,
            shards: (0..shards).map(|_| Mutex::new(shard())).collect(),
            blocks_per_shard,
            retired_max: retired * block_len,
            hand: AtomicUsize::new(0),
            too_large: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    #[inline]
    fn pin(&self) -> Pin {
        Pin { pinned: self.table.epochs().pin(), not_send: PhantomData }
    }

    #[inline]
    fn prefetch(&self, hash: u64) {
        self.table.prefetch(self.table.place(hash));
    }

    #[inline]
    fn prefetch_entry(&self, _pin: &Pin, hash: u64) {
        self.table.prefetch_entry(self.table.place(hash));
    }

    #[inline]
    fn with<R>(&self, pin: &Pin, key: Key<'_>, now_ms: u64, f: impl FnOnce(Lookup<'_>) -> R) -> R {
        match self.table.find(self.table.place(key.hash), key.bytes, &pin.pinned) {
            Some(entry) => {
                entry.visit();
                f(entry.judge(now_ms))
            }
            None => f(Lookup::Miss),
        }
    }

    fn insert(&self, key: Key<'_>, new: NewEntry<'_>, now_ms: u64) -> Inserted {
        let too_large = self.is_too_large(key, new);
        let choked = !too_large && new.ttl_s > 0 && self.is_choked();
        let guard = self.table.epochs().pin();
        let place = self.table.place(key.hash);
        let mut shard = self.lock(place.shard);
        let old = self.slot_of(place, key.bytes, &guard);
        if let Some((_, old)) = old
            && new.kind == Kind::Failure
            && old.kind() != Kind::Failure
            && !old.is_dead(now_ms)
        {
            old.hold_retry(now_ms.saturating_add(u64::from(new.ttl_s) * 1000));
            return Inserted::Held;
        }
        let segment = Segment::of_new(new.kind);
        // A refreshed answer is as popular as the one before.
        let same = old.map(|(_, old)| old).filter(|old| Segment::of_new(old.kind()) == segment);
        let (segment, is_visited) =
            same.map_or((segment, false), |old| (old.segment(), old.is_visited()));
        let size = size_of_entry(key.bytes.len() + new.answer.len());
        let inserted = if too_large {
            Inserted::TooLarge
        } else if new.ttl_s == 0 {
            Inserted::ZeroTtl
        } else if choked || !self.make_room(&mut shard, segment, size, now_ms, &guard) {
            Inserted::Refused
        } else {
            let lifetime = Lifetime { stored_ms: now_ms, ttl_s: new.ttl_s, stale_s: new.stale_s };
            let (slot, why) = self.slot_for(&mut shard, place, key, segment, now_ms, &guard);
            let kind = new.kind;
            let header = NewHeader { lifetime, retry_at_s: 0, kind, slot, segment, is_visited };
            let entry = shard.segments.append(header, [key.bytes, new.answer]);
            if let Some(old) = self.table.publish(place, entry, &guard) {
                self.count_out(&mut shard, old, why, &guard);
            }
            self.keep_pace(&mut shard, now_ms, &guard);
            return Inserted::Stored;
        };
        if let Some((slot, _)) = self.slot_of(place, key.bytes, &guard) {
            self.remove_from(&mut shard, slot, Why::Removed, &guard);
        }
        match inserted {
            Inserted::TooLarge => _ = self.too_large.fetch_add(1, Relaxed),
            Inserted::Refused => _ = self.refused.fetch_add(1, Relaxed),
            _ => {}
        }
        inserted
    }

    fn remove(&self, key: Key<'_>) {
        let guard = self.table.epochs().pin();
        let place = self.table.place(key.hash);
        let mut shard = self.lock(place.shard);
        if let Some((slot, _)) = self.slot_of(place, key.bytes, &guard) {
            self.remove_from(&mut shard, slot, Why::Removed, &guard);
        }
    }

    fn remove_if(&self, mut condition: impl FnMut(&[u8]) -> bool) -> u64 {
        let mut removed = 0;
        for index in 0..self.shards.len() {
            let mut buckets = self.table.shard_buckets(index);
            while !buckets.is_empty() {
                let guard = self.table.epochs().pin();
                let mut shard = self.lock(index);
                for slot in buckets.by_ref().take(BUCKETS_PER_HOLD).flat_map(Table::bucket_slots) {
                    if self.table.get(slot, &guard).is_some_and(|entry| condition(entry.key())) {
                        self.remove_from(&mut shard, slot, Why::Removed, &guard);
                        removed += 1;
                    }
                }
                drop(shard);
                drop(guard);
                // Left to the inserts that come after, all of it at once would choke them.
                self.free_down_to(self.retired_max / 2);
            }
        }
        removed
    }

    fn expire(&self, now_ms: u64, buckets: usize) {
        let guard = self.table.epochs().pin();
        let is_dead =
            |slot: Slot| self.table.get(slot, &guard).is_some_and(|entry| entry.is_dead(now_ms));
        let count = self.table.slots() / table::SLOTS;
        let first = self.hand.fetch_add(buckets, Relaxed);
        for step in 0..buckets.min(count) {
            let bucket = first.wrapping_add(step) % count;
            if !Table::bucket_slots(bucket).any(is_dead) {
                continue;
            }
            let mut shard = self.lock(self.table.shard_of(bucket));
            for slot in Table::bucket_slots(bucket).filter(|&slot| is_dead(slot)) {
                self.remove_from(&mut shard, slot, Why::Expired, &guard);
            }
        }
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats {
            retired_bytes: self.table.epochs().retired_bytes(),
            table_bytes: self.table.len_bytes(),
            slots: self.table.slots() as u64,
            too_large: self.too_large.load(Relaxed),
            refused: self.refused.load(Relaxed),
            ..Stats::default()
        };
        for index in 0..self.shards.len() {
            let shard = self.lock(index);
            for segment in Segment::ALL {
                let of = &mut stats.segments[segment as usize];
                let Left { evicted, crowded, expired } = shard.left[segment as usize];
                of.entries += shard.segments.entries(segment);
                of.bytes += shard.segments.bytes(segment);
                of.evicted += evicted;
                of.crowded += crowded;
                of.expired += expired;
            }
        }
        for SegmentStats { entries, bytes, evicted, crowded, expired } in stats.segments {
            stats.entries += entries;
            stats.bytes += bytes;
            stats.evicted += evicted + crowded;
            stats.expired += expired;
        }
        stats.bytes += stats.retired_bytes;
        stats
    }

    fn settle(&self) {
        /// Another thread's guard may be in the way for a moment, but not for so many tries.
        const TRIES: usize = 1000;
        for _ in 0..TRIES {
            if self.table.epochs().retired_bytes() == 0 {
                return;
            }
            self.table.epochs().collect();
            std::thread::yield_now();
        }
    }
}

impl SegmentedCache {
    fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        // A panic under the lock can only leave counts behind that are off by one entry.
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_too_large(&self, key: Key<'_>, new: NewEntry<'_>) -> bool {
        let (key_len, answer_len) = (key.bytes.len(), new.answer.len());
        key_len > MAX_KEY_LEN
            || answer_len > MAX_ANSWER_LEN
            || size_of_entry(key_len + answer_len) > self.table.blocks().block_len()
            // A budget for no block at all.
            || self.blocks_per_shard < 2
    }

    /// Whether too much is retired and not yet freed, in spite of attempts to free it.
    fn is_choked(&self) -> bool {
        // Half of it in good time, for a block that is taken must be there.
        self.free_down_to(self.retired_max / 2) > self.retired_max
    }

    /// Frees what may be freed until no more than so many bytes are retired, and returns how many
    /// those are then.
    fn free_down_to(&self, bytes: u64) -> u64 {
        let mut retired = self.table.epochs().retired_bytes();
        let mut in_vain = 0;
        for _ in 0..ROUNDS {
            if retired <= bytes || in_vain == ROUNDS_IN_VAIN {
                break;
            }
            self.table.epochs().collect();
            let before = std::mem::replace(&mut retired, self.table.epochs().retired_bytes());
            in_vain = if retired < before { 0 } else { in_vain + 1 };
        }
        retired
    }

    /// The slot and the entry of a key.
    fn slot_of<'g>(
        &self,
        place: Place,
        key: &[u8],
        guard: &'g Pinned,
    ) -> Option<(Slot, Entry<'g>)> {
        place
            .slots()
            .filter_map(|slot| Some((slot, self.table.get(slot, guard)?)))
            .find(|(_, entry)| entry.key() == key)
    }

    /// The slot for a key, and why what is in it leaves: the key's own, an empty one, in its first
    /// bucket if there is one, or that of another.
    fn slot_for(
        &self,
        shard: &mut Shard,
        place: Place,
        key: Key<'_>,
        segment: Segment,
        now_ms: u64,
        guard: &Pinned,
    ) -> (Slot, Why) {
        let own = self.slot_of(place, key.bytes, guard).map(|(slot, _)| slot);
        let empty = || place.slots().find(|&slot| self.table.get(slot, guard).is_none());
        if let Some(slot) = own.or_else(empty) {
            return (slot, Why::Removed);
        }
        let slot = self.crowded(shard, segment, place, guard);
        let is_dead = self.table.get(slot, guard).is_some_and(|entry| entry.is_dead(now_ms));
        (slot, if is_dead { Why::Expired } else { Why::Crowded })
    }

    /// The slot to take from another when there is no empty one: that of the entry which is worth
    /// least, but a segment that is over its share takes from itself. Among equals they take turns.
    fn crowded(&self, shard: &mut Shard, segment: Segment, place: Place, guard: &Pinned) -> Slot {
        let is_over = shard.segments.is_over(segment);
        let worth = |slot: Slot| {
            self.table.get(slot, guard).map(|entry| {
                let is_spared = is_over && entry.segment() != segment;
                let is_protected = entry.segment() == Segment::Protected;
                (is_spared, entry.is_visited(), is_protected, entry.stored_ms())
            })
        };
        let slots = place.slots().enumerate();
        let (at, slot) = slots
            .min_by_key(|&(at, slot)| {
                (worth(slot), at.wrapping_sub(shard.turn) % (2 * table::SLOTS))
            })
            .unwrap_or_default();
        shard.turn = at + 1;
        slot
    }

    /// Lets entries go until one of so many bytes has room at the end of a segment. Fails if too
    /// much is retired and not yet freed.
    fn make_room(
        &self,
        shard: &mut Shard,
        segment: Segment,
        size: usize,
        now_ms: u64,
        guard: &Pinned,
    ) -> bool {
        let mut chances = SECOND_CHANCES;
        while !shard.segments.has_room(segment, size) {
            if shard.segments.may_open() {
                let Some(block) = self.table.blocks().take() else { return false };
                shard.segments.open(segment, block);
            } else if !self.step(shard, now_ms, &mut chances, guard) {
                return false;
            }
        }
        true
    }

    /// Moves the hand on, if there is no block left to open.
    fn keep_pace(&self, shard: &mut Shard, now_ms: u64, guard: &Pinned) {
        let mut chances = SECOND_CHANCES;
        for _ in 0..PACE {
            if shard.segments.may_open() || !self.step(shard, now_ms, &mut chances, guard) {
                return;
            }
        }
    }

    /// One step of the hand. Fails if what stays has nowhere to go, as too much is retired.
    fn step(&self, shard: &mut Shard, now_ms: u64, chances: &mut u32, guard: &Pinned) -> bool {
        let Some(mut hand) = shard.segments.take_hand(*chances > 0) else { return false };
        if hand.walk.block().is_dead() || hand.walk.entry().is_none() {
            let block = shard.segments.end_hand(hand);
            self.table.retire(block, guard);
            return true;
        }
        let entry = hand.walk.entry().filter(|&entry| self.table.holds(entry));
        let is_done = entry.is_none_or(|entry| {
            let has_chance = *chances > 0 && entry.is_visited();
            let why = if entry.is_dead(now_ms) {
                Why::Expired
            } else if hand.keeps_all || has_chance {
                *chances = chances.saturating_sub(1);
                return self.copy(shard, entry, &hand, guard);
            } else {
                Why::Room
            };
            self.remove_from(shard, entry.slot(), why, guard);
            true
        });
        if is_done {
            hand.walk.step();
        }
        if hand.walk.block().is_dead() {
            // Nothing that is removed later would lead to it.
            let block = shard.segments.end_hand(hand);
            self.table.retire(block, guard);
        } else {
            shard.segments.put_hand(hand);
        }
        is_done
    }

    /// Copies an entry from the hand's block to the end of the segment where it goes. Fails if there
    /// is no block for it.
    fn copy(&self, shard: &mut Shard, entry: Entry<'_>, hand: &Hand, guard: &Pinned) -> bool {
        let segments = &mut shard.segments;
        if !segments.has_room(hand.to, entry.size()) {
            let block = if segments.may_open_last() { self.table.blocks().take() } else { None };
            let Some(block) = block else { return false };
            segments.open(hand.to, block);
        }
        let header = entry.header_for(hand.to, hand.keeps_all && entry.is_visited());
        let copy = segments.append(header, [entry.key(), entry.answer()]);
        let old = self.table.relocate(copy, guard);
        debug_assert!(old.is_some_and(|old| old.address() == entry.address()), "was in its slot");
        segments.count_out(entry);
        true
    }

    /// Empties a slot and counts what was in it out.
    fn remove_from(&self, shard: &mut Shard, slot: Slot, why: Why, guard: &Pinned) {
        if let Some(entry) = self.table.take(slot, guard) {
            self.count_out(shard, entry, why, guard);
        }
    }

    /// Counts an entry out that has left the table, and its block if it was the last.
    fn count_out(&self, shard: &mut Shard, entry: Entry<'_>, why: Why, guard: &Pinned) {
        let segment = entry.segment();
        shard.segments.count_out(entry);
        let left = &mut shard.left[segment as usize];
        match why {
            Why::Room => left.evicted += 1,
            Why::Crowded => left.crowded += 1,
            Why::Expired => left.expired += 1,
            Why::Removed => {}
        }
        let index = self.table.blocks().index_of(entry);
        if self.table.blocks().live(index) == 0
            && let Some(block) = shard.segments.take_dead(segment, index)
        {
            self.table.retire(block, guard);
        }
    }
}

/// How a budget is divided.
#[derive(Clone, Copy, Debug)]
struct Dimensions {
    shards: u64,
    /// Buckets of each shard.
    buckets: u64,
    /// Blocks of all shards, and those that may be retired.
    blocks: u64,
    block_len: u64,
    /// Blocks that may be retired and not yet freed.
    retired: u64,
}

impl Dimensions {
    fn new(max_bytes: u64) -> Self {
        let shards = (max_bytes / SHARD_BYTES_MIN).clamp(1, SHARDS_MAX);
        let buckets = max_bytes / shards / BYTES_PER_SLOT / table::SLOTS as u64;
        let buckets = buckets.clamp(2, table::BUCKETS_MAX as u64 / shards);
        let table = shards * buckets * table::BUCKET_LEN;
        let for_blocks = max_bytes.saturating_sub(table);
        let block_len =
            (for_blocks / shards / BLOCKS_PER_SHARD).clamp(BLOCK_LEN_MIN, BLOCK_LEN_MAX);
        let block_len = Blocks::align(block_len);
        let blocks = (for_blocks / block_len).min(u64::from(u32::MAX));
        let retired = (max_bytes / RETIRED_SHARE).div_ceil(block_len).max(RETIRED_BLOCKS_MIN);
        Self { shards, buckets, blocks, block_len, retired: retired.min(blocks / 4) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod model;
