//! The table: buckets of one cache line, each with eight slots of a tag and an entry's address.
//!
//! A key has two buckets, both known from its hash, so a lookup reads at most two lines of the
//! table and never follows a chain: it is bounded by sixteen slots whatever writers do. An
//! entry never moves from slot to slot. A key is only in its shard's part of the table, and only
//! who holds that shard's lock writes there.
//!
//! A slot is one word: the address in the lower 48 bits, 16 bits of the hash above it. Addresses of
//! a process's heap are that short on x86-64 and AArch64 unless it asks for more by a hint to
//! mmap(2), which no allocator does; [`Table::exchange`] checks it.

#![expect(
    unsafe_code,
    reason = "the table holds addresses of entries, with tags in the upper bits"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::blocks::{Block, Blocks, Unpublished};
use super::entry::{Entry, Header};
use super::epochs::{Epochs, Pinned};
use super::pages::Pages;
use super::sync::AtomicPtr;

/// Slots of a bucket: a cache line of 64 bytes.
pub(super) const SLOTS: usize = 8;

/// The most buckets of a table: slots are numbered by 32 bits.
pub(super) const BUCKETS_MAX: usize = u32::MAX as usize / SLOTS;

/// Bytes of a bucket.
pub(super) const BUCKET_LEN: u64 = 64;

/// Bits of a slot that are an address.
const ADDRESS_BITS: u32 = 48;

const ADDRESS_MASK: usize = (1 << ADDRESS_BITS) - 1;

#[repr(C, align(64))]
struct Bucket {
    slots: [AtomicPtr<Header>; SLOTS],
}

const _: () = assert!(size_of::<Bucket>() as u64 == BUCKET_LEN || cfg!(loom));
const _: () = assert!(usize::BITS == 64, "a tag and an address share a word");

/// Index of a slot in the whole table.
pub(super) type Slot = u32;

/// Where a hash leads to.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The shard of the key.
    pub(super) shard: usize,
    buckets: [usize; 2],
    tag: usize,
}

impl Place {
    /// The slots in which the key may be, those of the first bucket first.
    pub(super) fn slots(self) -> impl Iterator<Item = Slot> {
        let slots = |bucket: usize| (bucket * SLOTS..(bucket + 1) * SLOTS).map(|slot| slot as Slot);
        slots(self.buckets[0]).chain(slots(self.buckets[1]))
    }
}

/// The buckets of all shards in one allocation, which the system fills with pages as they are used,
/// the entries' memory, and when it may be used anew.
///
/// Nothing here relies on the shards' locks to be sound, only to be right: a slot is emptied by one
/// atomic exchange, so each entry is counted out once, and a block is retired only by who owns it
/// and when all of it has been counted out.
pub(super) struct Table {
    first: NonNull<Bucket>,
    layout: Layout,
    buckets: usize,
    blocks: Arc<Blocks>,
    epochs: Epochs,
    shards: usize,
    buckets_per_shard: usize,
}

// SAFETY: the buckets are owned and hold atomics; the entries behind them hold bytes and atomics, and
// their memory is used anew only when no thread can have a reference to them (`find`, `Garbage`).
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Table {
    /// An empty table.
    pub(super) fn new(
        shards: usize,
        buckets_per_shard: usize,
        blocks: Blocks,
        epochs: Epochs,
        pages: Pages,
    ) -> Self {
        let count = shards * buckets_per_shard;
        assert!((1..=BUCKETS_MAX).contains(&count), "slots are numbered by u32");
        let layout = Layout::array::<Bucket>(count).expect("less than the address space");
        let layout = pages.layout(layout);
        // SAFETY: not of size 0.
        let allocation = unsafe { alloc_zeroed(layout) };
        let Some(first) = NonNull::new(allocation.cast::<Bucket>()) else {
            handle_alloc_error(layout)
        };
        pages.ask(first.cast(), layout);
        // All bits zero is a valid bucket: null in every slot. Not so with loom's atomics.
        #[cfg(loom)]
        for index in 0..count {
            let slots = std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut()));
            // SAFETY: in the allocation.
            let bucket = unsafe { first.add(index) };
            // SAFETY: as above, and nobody else has it.
            unsafe { bucket.write(Bucket { slots }) };
        }
        let blocks = Arc::new(blocks);
        Self { first, layout, buckets: count, blocks, epochs, shards, buckets_per_shard }
    }

    /// What is held by whoever looks into the table.
    #[inline]
    pub(super) fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// The memory of the entries.
    pub(super) fn blocks(&self) -> &Arc<Blocks> {
        &self.blocks
    }

    #[inline]
    fn bucket(&self, index: usize) -> &Bucket {
        assert!(index < self.buckets, "a bucket of this table");
        // SAFETY: in the allocation, which is owned, was initialized by zeroes, and is only ever
        // reached as shared atomics. Each bucket by itself, for a reference to all of them costs
        // Miri time with their number.
        let bucket = unsafe { self.first.add(index) };
        // SAFETY: as above.
        unsafe { bucket.as_ref() }
    }

    /// Bytes that the table occupies.
    pub(super) fn len_bytes(&self) -> u64 {
        (self.buckets * size_of::<Bucket>()) as u64
    }

    /// Slots of the whole table.
    pub(super) fn slots(&self) -> usize {
        self.buckets * SLOTS
    }

    /// The buckets of a shard.
    pub(super) fn shard_buckets(&self, shard: usize) -> Range<usize> {
        shard * self.buckets_per_shard..(shard + 1) * self.buckets_per_shard
    }

    /// The shard that a bucket belongs to.
    pub(super) fn shard_of(&self, bucket: usize) -> usize {
        bucket / self.buckets_per_shard
    }

    /// Slots of a bucket.
    pub(super) fn bucket_slots(bucket: usize) -> impl Iterator<Item = Slot> {
        (bucket * SLOTS..(bucket + 1) * SLOTS).map(|slot| slot as Slot)
    }

    /// The shard and the buckets of a hash: its upper half names the first, its lower half, mixed
    /// once more, the second; a tag of its lowest bits, which have the least part in both.
    #[inline]
    pub(super) fn place(&self, hash: u64) -> Place {
        let (first, below) = scale(hash, self.shards);
        let (one, _) = scale(below, self.buckets_per_shard);
        // An odd constant (the golden ratio): what is mixed is as even as the hash.
        let mixed = hash.rotate_left(32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (two, _) = scale(mixed, self.buckets_per_shard);
        let base = first * self.buckets_per_shard;
        let tag = (hash as usize & 0xffff) << ADDRESS_BITS;
        Place { shard: first, buckets: [base + one, base + two], tag }
    }

    /// Fetches the first bucket of a hash into the cache, if the processor will.
    #[inline]
    pub(super) fn prefetch(&self, place: Place) {
        prefetch(&raw const *self.bucket(place.buckets[0]));
    }

    /// Fetches the entries that may be the key's.
    #[inline]
    pub(super) fn prefetch_entry(&self, place: Place) {
        for slot in &self.bucket(place.buckets[0]).slots {
            let word = slot.load(Relaxed);
            if word.addr() & !ADDRESS_MASK == place.tag && !word.is_null() {
                let entry = word.map_addr(|address| address & ADDRESS_MASK).cast::<u8>();
                prefetch(entry);
                prefetch(entry.wrapping_add(64));
            }
        }
    }

    /// The entry with this key.
    ///
    /// # Panics
    ///
    /// `pinned` holds another table's epochs, and so nothing of this one. As of all that take it.
    #[inline]
    pub(super) fn find<'g>(
        &self,
        place: Place,
        key: &[u8],
        pinned: &'g Pinned,
    ) -> Option<Entry<'g>> {
        self.check(pinned);
        for bucket in place.buckets {
            for slot in &self.bucket(bucket).slots {
                if let Some(entry) = matching(slot.load(Acquire), place.tag) {
                    // SAFETY: published by `exchange` and read with Acquire. Its block is retired
                    // only after it has left the table, and freed only after all guards of that
                    // time are gone, of which `pinned` is one.
                    let entry: Entry<'g> = unsafe { Entry::from_raw(entry) };
                    if entry.key() == key {
                        return Some(entry);
                    }
                }
            }
        }
        None
    }

    /// What is in a slot.
    pub(super) fn get<'g>(&self, slot: Slot, pinned: &'g Pinned) -> Option<Entry<'g>> {
        self.check(pinned);
        let header = address(self.slot(slot).load(Acquire))?;
        // SAFETY: as in `find`.
        Some(unsafe { Entry::from_raw(header) })
    }

    /// Whether it is this very entry that its slot holds.
    pub(super) fn holds(&self, entry: Entry<'_>) -> bool {
        let word = self.slot(entry.slot()).load(Acquire);
        address(word).is_some_and(|header| header.addr().get() == entry.address())
    }

    /// Puts an entry into its slot and returns what was there, which is no longer to be found. To be
    /// called under the lock of the slot's shard. As of all entries here, it is of these blocks.
    pub(super) fn publish<'g>(
        &'g self,
        place: Place,
        entry: Unpublished<'_>,
        pinned: &'g Pinned,
    ) -> Option<Entry<'g>> {
        self.exchange(place.tag, entry, pinned)
    }

    /// Puts a copy of the entry that is in a slot in its place. To be called under the lock of the
    /// slot's shard.
    pub(super) fn relocate<'g>(
        &'g self,
        copy: Unpublished<'_>,
        pinned: &'g Pinned,
    ) -> Option<Entry<'g>> {
        let tag = self.slot(copy.as_entry().slot()).load(Relaxed).addr() & !ADDRESS_MASK;
        self.exchange(tag, copy, pinned)
    }

    /// Empties a slot. To be called under the lock of the slot's shard.
    pub(super) fn take<'g>(&'g self, slot: Slot, pinned: &'g Pinned) -> Option<Entry<'g>> {
        self.swap(slot, ptr::null_mut(), pinned)
    }

    fn exchange<'g>(
        &'g self,
        tag: usize,
        entry: Unpublished<'_>,
        pinned: &'g Pinned,
    ) -> Option<Entry<'g>> {
        let slot = entry.as_entry().slot();
        // Before it can be found: a block of which something is in the table is not freed.
        self.blocks.count_in(entry.as_entry());
        let header = entry.into_raw();
        assert!(header.addr().get() <= ADDRESS_MASK, "heap addresses have 48 bits");
        let word = header.as_ptr().map_addr(|address| address | tag);
        self.swap(slot, word, pinned)
    }

    fn swap<'g>(&'g self, slot: Slot, word: *mut Header, pinned: &'g Pinned) -> Option<Entry<'g>> {
        self.check(pinned);
        let header = address(self.slot(slot).swap(word, AcqRel))?;
        // SAFETY: as in `find`: it was in the table after `pinned` was there.
        let old = unsafe { Entry::from_raw(header) };
        self.blocks.count_out(old);
        Some(old)
    }

    /// Frees a block of which nothing is in the table, when every guard that there is now has been
    /// dropped.
    ///
    /// # Panics
    ///
    /// Something of it is in the table.
    pub(super) fn retire(&self, block: Block, pinned: &Pinned) {
        self.check(pinned);
        assert!(block.is_dead(), "in use");
        let (bytes, garbage) = (block.len(), Garbage(block));
        self.epochs.retire(pinned, bytes, move || garbage.free());
    }

    #[inline]
    fn check(&self, pinned: &Pinned) {
        assert!(self.epochs.is_ours(pinned), "pinned for another cache");
    }

    #[inline]
    fn slot(&self, slot: Slot) -> &AtomicPtr<Header> {
        let slot = slot as usize;
        &self.bucket(slot / SLOTS).slots[slot % SLOTS]
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.first.as_ptr().cast(), self.layout) };
    }
}

/// A block that waits to be freed.
struct Garbage(Block);

impl Garbage {
    fn free(self) {
        // SAFETY: nothing of it was in the table when it was retired, so no guard that was pinned
        // later could find it, and those that were there before are gone by now.
        unsafe { self.0.free() };
    }
}

/// The address in a slot.
#[inline]
fn address(word: *mut Header) -> Option<NonNull<Header>> {
    NonNull::new(word.map_addr(|address| address & ADDRESS_MASK))
}

/// The address in a slot if its tag is this one.
#[inline]
fn matching(word: *mut Header, tag: usize) -> Option<NonNull<Header>> {
    if word.addr() & !ADDRESS_MASK == tag { address(word) } else { None }
}

/// Maps an evenly distributed number to `0..range`, and returns what is left of it, evenly
/// distributed as well (Lemire, "Fast random integer generation in an interval").
#[inline]
fn scale(number: u64, range: usize) -> (usize, u64) {
    let product = u128::from(number) * range as u128;
    ((product >> 64) as usize, product as u64)
}

/// Asks the processor to load a line; any address is allowed.
#[inline]
fn prefetch<T>(at: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri), not(loom)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri), not(loom))))]
    let _ = at;
}
