//! The answer cache of our own: a segmented LRU that is read without locks.
//!
//! ```text
//!   hash ─► shard ─► two buckets of one cache line (table.rs) ─► entry (entry.rs) ─► f(lookup)
//!                                     ▲
//!   insert, remove, expire: under the shard's lock, by its segments (segments.rs)
//! ```
//!
//! Cost of a hit: one line of the table (two for one entry in ten), the entry's own two or three
//! lines, one comparison of the key, and at most one store, of a visited bit that was clear. No
//! lock, no reference count, no allocation, no retry. The epoch is pinned once per batch
//! ([`Store::pin`]).
//!
//! - **The budget** is split evenly over the shards, after the table has been taken off it and
//!   [`RETIRED_SHARE`] for what readers still pin. An entry counts with what its allocation
//!   occupies, and so do the queues. An insert goes over it by one entry for a moment.
//! - **Eviction** takes at most [`SECOND_CHANCES`] second chances per insert; after that the next
//!   in turn leaves, asked for or not. So an insert is bounded.
//! - **What was retired** is freed when no guard of that time is left. While one thread stays
//!   pinned, nothing is: beyond [`RETIRED_SHARE`] inserts are refused and counted, and the cache
//!   goes on to answer.
//! - **Crowding:** a key whose two buckets are full pushes one of their entries out, whatever its
//!   segment. The table has a slot for each [`BYTES_PER_SLOT`] of the budget, so this is rare
//!   unless entries are smaller than any DNS answer; it is counted apart.

mod entry;
#[cfg_attr(any(loom, miri), path = "epochs_model.rs")]
mod epochs;
mod queue;
mod segments;
mod sync;
mod table;

use std::marker::PhantomData;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use self::entry::{Entry, Unpublished, footprint};
use self::epochs::{Epochs, Pinned};
use self::queue::Queued;
use self::segments::{Segment, Segments};
use self::sync::{Mutex, MutexGuard};
use self::table::{Place, Slot, Table};
use crate::{
    Config, Inserted, Key, Kind, Lookup, MAX_ANSWER_LEN, MAX_KEY_LEN, NewEntry, SegmentStats,
    Stats, Store,
};

/// The most shards. Two writers meet in one of them once in so many inserts.
pub const SHARDS_MAX: u64 = 64;

/// Bytes of the budget that a shard has at least, if there is more than one.
pub const SHARD_BYTES_MIN: u64 = 1 << 20;

/// One slot of the table for so many bytes of the budget, half of what the smallest answers with
/// data occupy: half full, two buckets are both full once in some thousand times. The table takes
/// an eighth of the budget, and at most 32 GiB: slots are numbered by 32 bits, so beyond 256 GiB of
/// budget the cache holds no more than some 4 x 10^9 answers.
pub const BYTES_PER_SLOT: u64 = 64;

/// One part in so many of the budget may be retired and not yet freed.
pub const RETIRED_SHARE: u64 = 50;

/// So many bytes may be retired in any case: one answer of the largest size.
pub const RETIRED_MIN: u64 = 96 << 10;

/// Second chances that one insert gives: some 50 µs of work. Only the first eviction after a long
/// time without any comes to it, when nearly all of probation has been asked for again; so few of
/// those are lost.
pub const SECOND_CHANCES: u32 = 512;

/// Buckets that are looked through under one hold of a shard's lock.
const BUCKETS_PER_HOLD: usize = 256;

/// After so many attempts in vain nothing can be freed now. Garbage may be when the epoch has moved
/// on twice.
const ROUNDS_IN_VAIN: usize = 3;

/// The most attempts that one insert makes: each frees at most sixteen bags of garbage.
const ROUNDS_PER_INSERT: usize = 8;

/// The most attempts after each hold of [`BUCKETS_PER_HOLD`], which fills at most 33 bags.
const ROUNDS_PER_HOLD: usize = 64;

/// A segmented LRU that is read without locks.
pub struct SegmentedCache {
    table: Table,
    shards: Box<[Mutex<Shard>]>,
    shard_budget: u64,
    retired_max: u64,
    /// The bucket that [`Store::expire`] looks at next.
    hand: AtomicUsize,
    too_large: AtomicU64,
    refused: AtomicU64,
}

/// What is written under a shard's lock, beside its part of the table.
#[derive(Debug, Default)]
struct Shard {
    segments: Segments,
    left: [Left; segments::SEGMENTS],
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
        let (shards, buckets) = dimensions(config.max_bytes);
        let retired_share = config.max_bytes / RETIRED_SHARE;
        let retired_max = retired_share.max(RETIRED_MIN);
        let table = Table::new(shards as usize, buckets as usize, Epochs::new(retired_max));
        let for_entries = config.max_bytes.saturating_sub(table.len_bytes() + retired_share);
        Self {
            table,
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            shard_budget: for_entries / shards,
            retired_max,
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
        let len = key.bytes.len() + new.answer.len();
        let too_large = key.bytes.len() > MAX_KEY_LEN
            || new.answer.len() > MAX_ANSWER_LEN
            || footprint(len) > self.shard_budget;
        let refused = !too_large && new.ttl_s > 0 && self.is_choked();
        let is_kept = !too_large && !refused && new.ttl_s > 0;
        let entry = is_kept.then(|| Unpublished::new(key, new, now_ms));
        let guard = self.table.epochs().pin_to_write();
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
        let Some(entry) = entry else {
            if let Some((slot, _)) = old {
                self.remove_from(&mut shard, slot, Why::Removed, &guard);
            }
            return if too_large {
                self.too_large.fetch_add(1, Relaxed);
                Inserted::TooLarge
            } else if refused {
                self.refused.fetch_add(1, Relaxed);
                Inserted::Refused
            } else {
                Inserted::ZeroTtl
            };
        };
        self.publish(&mut shard, place, old, entry, now_ms, &guard);
        self.make_room(&mut shard, now_ms, &guard);
        Inserted::Stored
    }

    fn remove(&self, key: Key<'_>) {
        let guard = self.table.epochs().pin_to_write();
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
                let guard = self.table.epochs().pin_to_write();
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
                self.free_down_to(self.retired_max / 2, ROUNDS_PER_HOLD);
            }
        }
        removed
    }

    fn expire(&self, now_ms: u64, buckets: usize) {
        let guard = self.table.epochs().pin_to_write();
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
            stats.bytes += shard.segments.all_bytes();
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
        for SegmentStats { entries, evicted, crowded, expired, .. } in stats.segments {
            stats.entries += entries;
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

    /// Whether too much is retired and not yet freed, in spite of attempts to free it.
    fn is_choked(&self) -> bool {
        self.free_down_to(self.retired_max, ROUNDS_PER_INSERT) > self.retired_max
    }

    /// Frees what may be freed until no more than so many bytes are retired, in at most so many
    /// rounds, and returns how many those are then.
    fn free_down_to(&self, bytes: u64, rounds: usize) -> u64 {
        let mut retired = self.table.epochs().retired_bytes();
        let mut in_vain = 0;
        for _ in 0..rounds {
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

    /// Makes the entry visible, in the place of `old` if there is one.
    fn publish(
        &self,
        shard: &mut Shard,
        place: Place,
        old: Option<(Slot, Entry<'_>)>,
        entry: Unpublished,
        now_ms: u64,
        guard: &Pinned,
    ) {
        let bytes = entry.as_entry().footprint();
        let segment = Segment::of_new(entry.as_entry().kind());
        let stays = |old: Entry<'_>| Segment::of_new(old.kind()) == segment;
        if let Some((slot, old)) = old.filter(|&(_, old)| stays(old)) {
            // A refreshed answer is as popular as the one before, and keeps its turn.
            entry.as_entry().inherit(old);
            let segment = Segment::from_index(old.segment());
            shard.segments.resize(segment, old.footprint(), bytes);
            if let Some(removed) = self.table.publish(slot, place, entry, guard) {
                removed.retire();
            }
            return;
        }
        let slot = match old {
            Some((slot, _)) => slot,
            None => self
                .free_slot(place, guard)
                .unwrap_or_else(|| self.crowded(&shard.segments, segment, place, guard)),
        };
        let why = match self.table.get(slot, guard) {
            Some(_) if old.is_some() => Why::Removed,
            Some(other) if other.is_dead(now_ms) => Why::Expired,
            _ => Why::Crowded,
        };
        self.remove_from(shard, slot, why, guard);
        let sequence = shard.segments.next_sequence();
        entry.as_entry().set_sequence(sequence);
        entry.as_entry().set_segment(segment.index());
        shard.segments.add(segment, Queued { slot, sequence }, bytes);
        let nothing = self.table.publish(slot, place, entry, guard);
        debug_assert!(nothing.is_none(), "the slot was emptied");
    }

    /// An empty slot for a key, in its first bucket if there is one.
    fn free_slot(&self, place: Place, guard: &Pinned) -> Option<Slot> {
        place.slots().find(|&slot| self.table.get(slot, guard).is_none())
    }

    /// The slot to take from another when there is no empty one: that of the entry which is worth
    /// least, but a segment that is over its share takes from itself.
    fn crowded(&self, of: &Segments, segment: Segment, place: Place, guard: &Pinned) -> Slot {
        let is_over = of.bytes(segment) > segment.share(self.shard_budget);
        let worth = |slot: Slot| {
            self.table.get(slot, guard).map(|entry| {
                let its = Segment::from_index(entry.segment());
                let is_spared = is_over && its != segment;
                (is_spared, entry.is_visited(), its == Segment::Protected, entry.sequence())
            })
        };
        place.slots().min_by_key(|&slot| worth(slot)).unwrap_or_default()
    }

    /// Lets entries go until the shard is within its budget.
    fn make_room(&self, shard: &mut Shard, now_ms: u64, guard: &Pinned) {
        let mut chances = SECOND_CHANCES;
        while shard.segments.all_bytes() > self.shard_budget {
            let Some((segment, queued)) = self.next_to_leave(&mut shard.segments) else {
                return;
            };
            let Some(entry) = self.queued_entry(queued, guard) else {
                continue;
            };
            if entry.is_dead(now_ms) {
                self.remove_from(shard, queued.slot, Why::Expired, guard);
            } else if chances > 0 && entry.take_visited() {
                chances -= 1;
                match segment {
                    Segment::Probation => self.promote(&mut shard.segments, queued, entry),
                    Segment::Negative | Segment::Protected => {
                        shard.segments.requeue(segment, queued);
                    }
                }
            } else {
                self.remove_from(shard, queued.slot, Why::Room, guard);
            }
        }
    }

    /// Whose turn it is: of a segment that is over its share, else of probation.
    fn next_to_leave(&self, segments: &mut Segments) -> Option<(Segment, Queued)> {
        let is_over =
            |segment: &Segment| segments.bytes(*segment) > segment.share(self.shard_budget);
        let over = [Segment::Negative, Segment::Protected].into_iter().find(is_over);
        let order = [Segment::Probation, Segment::Protected, Segment::Negative];
        over.into_iter().chain(order).find_map(|segment| Some((segment, segments.pop(segment)?)))
    }

    fn promote(&self, segments: &mut Segments, queued: Queued, entry: Entry<'_>) {
        let bytes = entry.footprint();
        segments.forget(Segment::Probation, bytes);
        entry.set_segment(Segment::Protected.index());
        segments.add(Segment::Protected, queued, bytes);
    }

    /// The entry of a place in a queue, if it is still there.
    fn queued_entry<'g>(&self, queued: Queued, guard: &'g Pinned) -> Option<Entry<'g>> {
        self.table.get(queued.slot, guard).filter(|entry| entry.sequence() == queued.sequence)
    }

    /// Empties a slot and counts what was in it out.
    fn remove_from(&self, shard: &mut Shard, slot: Slot, why: Why, guard: &Pinned) {
        let Some(removed) = self.table.take(slot, guard) else {
            return;
        };
        let entry = removed.as_entry();
        let segment = Segment::from_index(entry.segment());
        shard.segments.forget(segment, entry.footprint());
        let left = &mut shard.left[segment as usize];
        match why {
            Why::Room => left.evicted += 1,
            Why::Crowded => left.crowded += 1,
            Why::Expired => left.expired += 1,
            Why::Removed => {}
        }
        removed.retire();
        if why != Why::Room {
            shard.segments.sweep(segment, |queued| self.queued_entry(queued, guard).is_some());
        }
    }
}

/// Shards, and buckets of each, for a budget.
fn dimensions(max_bytes: u64) -> (u64, u64) {
    let shards = (max_bytes / SHARD_BYTES_MIN).clamp(1, SHARDS_MAX);
    let buckets = max_bytes / shards / BYTES_PER_SLOT / table::SLOTS as u64;
    (shards, buckets.clamp(2, table::BUCKETS_MAX as u64 / shards))
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod model;
