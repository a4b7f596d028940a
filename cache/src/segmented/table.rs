//! The table: buckets of one cache line, each with eight slots of a tag and an entry's address.
//!
//! A key has two buckets, both known from its hash, so a lookup reads at most two lines of the
//! table and never follows a chain: it is bounded by sixteen slots whatever writers do. An
//! entry never moves from slot to slot. A key is only in its shard's part of the table, and only
//! who holds that shard's lock writes there.
//!
//! A slot is one word: the address in the lower 48 bits, 16 bits of the hash above it. Addresses of
//! a process's heap are that short on x86-64 and AArch64 unless it asks for more by a hint to
//! mmap(2), which no allocator does; [`Table::publish`] checks it.

#![expect(
    unsafe_code,
    reason = "the table holds addresses of entries, with tags in the upper bits"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::entry::{Entry, Header, Unpublished};
use super::epochs::{Epochs, Pinned};
use super::sync::AtomicPtr;

/// Slots of a bucket: a cache line of 64 bytes.
pub(super) const SLOTS: usize = 8;

/// The most buckets of a table: slots are numbered by 32 bits.
pub(super) const BUCKETS_MAX: usize = u32::MAX as usize / SLOTS;

/// Bits of a slot that are an address.
const ADDRESS_BITS: u32 = 48;

const ADDRESS_MASK: usize = (1 << ADDRESS_BITS) - 1;

#[repr(C, align(64))]
struct Bucket {
    slots: [AtomicPtr<Header>; SLOTS],
}

const _: () = assert!(size_of::<Bucket>() == 64 || cfg!(loom));
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

/// The buckets of all shards in one allocation, which the system fills with pages as they are used.
///
/// Nothing here relies on the shards' locks to be sound, only to be right: a slot is emptied by one
/// atomic exchange, so each entry is taken out once.
pub(super) struct Table {
    buckets: NonNull<[Bucket]>,
    epochs: Epochs,
    shards: usize,
    buckets_per_shard: usize,
}

// SAFETY: the buckets are owned and hold atomics; the entries behind them hold bytes and atomics, and
// are freed only when no thread can have a reference to them (`find`, `Removed`).
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Table {
    /// An empty table.
    pub(super) fn new(shards: usize, buckets_per_shard: usize, epochs: Epochs) -> Self {
        let count = shards * buckets_per_shard;
        assert!((1..=BUCKETS_MAX).contains(&count), "slots are numbered by u32");
        let layout = Self::layout(count);
        // SAFETY: not of size 0.
        let allocation = unsafe { alloc_zeroed(layout) };
        let Some(first) = NonNull::new(allocation.cast::<Bucket>()) else {
            handle_alloc_error(layout)
        };
        // All bits zero is a valid bucket: null in every slot. Not so with loom's atomics.
        #[cfg(loom)]
        for index in 0..count {
            let slots = std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut()));
            // SAFETY: in the allocation.
            let bucket = unsafe { first.add(index) };
            // SAFETY: as above, and nobody else has it.
            unsafe { bucket.write(Bucket { slots }) };
        }
        let buckets = NonNull::slice_from_raw_parts(first, count);
        Self { buckets, epochs, shards, buckets_per_shard }
    }

    fn layout(buckets: usize) -> Layout {
        Layout::array::<Bucket>(buckets).expect("less than the address space")
    }

    /// What is held by whoever looks into the table.
    #[inline]
    pub(super) fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    #[inline]
    fn buckets(&self) -> &[Bucket] {
        // SAFETY: owned, initialized by zeroes, and only ever reached as shared atomics.
        unsafe { self.buckets.as_ref() }
    }

    /// Bytes that the table occupies.
    pub(super) fn len_bytes(&self) -> u64 {
        size_of_val(self.buckets()) as u64
    }

    /// Slots of the whole table.
    pub(super) fn slots(&self) -> usize {
        self.buckets().len() * SLOTS
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
        prefetch(&raw const self.buckets()[place.buckets[0]]);
    }

    /// Fetches the entries that may be the key's.
    #[inline]
    pub(super) fn prefetch_entry(&self, place: Place) {
        for slot in &self.buckets()[place.buckets[0]].slots {
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
        let buckets = self.buckets();
        for bucket in place.buckets {
            for slot in &buckets[bucket].slots {
                if let Some(entry) = matching(slot.load(Acquire), place.tag) {
                    // SAFETY: published by `publish` and read with Acquire. Whoever takes it out
                    // of the table reclaims it only after all guards of that time are gone, and
                    // `pinned` is one of them.
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

    /// Puts an entry into a slot and returns what was there, which is no longer to be found. To be
    /// called under the lock of the slot's shard.
    pub(super) fn publish<'g>(
        &'g self,
        slot: Slot,
        tag_of: Place,
        entry: Unpublished,
        pinned: &'g Pinned,
    ) -> Option<Removed<'g>> {
        let header = entry.into_raw();
        assert!(header.addr().get() <= ADDRESS_MASK, "heap addresses have 48 bits");
        let word = header.as_ptr().map_addr(|address| address | tag_of.tag);
        self.exchange(slot, word, pinned)
    }

    /// Empties a slot. To be called under the lock of the slot's shard.
    pub(super) fn take<'g>(&'g self, slot: Slot, pinned: &'g Pinned) -> Option<Removed<'g>> {
        self.exchange(slot, ptr::null_mut(), pinned)
    }

    fn exchange<'g>(
        &'g self,
        slot: Slot,
        word: *mut Header,
        pinned: &'g Pinned,
    ) -> Option<Removed<'g>> {
        self.check(pinned);
        let header = address(self.slot(slot).swap(word, AcqRel))?;
        Some(Removed { header, epochs: &self.epochs, pinned })
    }

    #[inline]
    fn check(&self, pinned: &Pinned) {
        assert!(self.epochs.is_ours(pinned), "pinned for another cache");
    }

    #[inline]
    fn slot(&self, slot: Slot) -> &AtomicPtr<Header> {
        let slot = slot as usize;
        &self.buckets()[slot / SLOTS].slots[slot % SLOTS]
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        for slot in 0..self.slots() {
            if let Some(header) = address(self.slot(slot as Slot).load(Acquire)) {
                // SAFETY: nobody else has the table, so nobody can have an entry of it, and it is
                // not looked at again.
                drop(unsafe { Unpublished::reclaim(header) });
            }
        }
        let layout = Self::layout(self.buckets().len());
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.buckets.as_ptr().cast(), layout) };
    }
}

/// An entry that is no longer in the table, but may still be read by who found it before. It must
/// be retired; dropped, it is leaked.
#[must_use]
pub(super) struct Removed<'g> {
    header: NonNull<Header>,
    epochs: &'g Epochs,
    pinned: &'g Pinned,
}

impl Removed<'_> {
    /// It, to be looked at by the one who removed it.
    pub(super) fn as_entry(&self) -> Entry<'_> {
        // SAFETY: it is retired only by consuming `self`.
        unsafe { Entry::from_raw(self.header) }
    }

    /// Frees it when every guard that there is now has been dropped.
    pub(super) fn retire(self) {
        let bytes = self.as_entry().footprint();
        let garbage = Garbage(self.header);
        self.epochs.retire(self.pinned, bytes, move || garbage.free());
    }
}

/// An entry that waits to be freed.
struct Garbage(NonNull<Header>);

// SAFETY: it is an owned allocation of bytes and atomics; nothing of it belongs to a thread.
unsafe impl Send for Garbage {}

impl Garbage {
    /// Frees it, and returns the bytes that it occupied.
    fn free(self) -> u64 {
        // SAFETY: it comes from a slot by an exchange, so once; it had left the table before it was
        // retired, so no guard that was pinned later could find it, and those that were there
        // before are gone by now.
        let entry = unsafe { Unpublished::reclaim(self.0) };
        entry.as_entry().footprint()
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
