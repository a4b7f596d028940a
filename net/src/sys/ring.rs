//! The rings of an AF_XDP socket, as one side of each.
#![expect(unsafe_code, reason = "rings in memory shared with the kernel")]

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::umem::Mapping;

/// One side of a ring. Which side it is says who calls what: a producer `room`, `push`
/// and `publish`, a consumer `ready`, `pop` and `release`.
///
/// Invariant: `entries` leads to `mask + 1` values within the mapping, and `0 <= produced -
/// consumed <= mask + 1`, modulo 2^32.
pub(super) struct Ring<T> {
    entries: NonNull<T>,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    mask: u32,
    /// As this side knows it: its own index is ahead of the shared one until it is published, the
    /// other's is behind.
    produced: u32,
    consumed: u32,
    _mapping: Mapping,
}

// SAFETY: the pointers lead into the mapping, which goes along and belongs to no thread.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T: Copy> Ring<T> {
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        len: u32,
        which: i64,
        offsets: &libc::xdp_ring_offset,
    ) -> io::Result<Self> {
        let bytes = offsets.desc as usize + len as usize * size_of::<T>();
        let mapping = Mapping::shared(socket, bytes, which)?;
        let at = |offset: u64| {
            assert!((offset as usize) < mapping.len(), "a ring's offset lies in its mapping");
            // SAFETY: within the mapping, by the assertion.
            unsafe { mapping.first().add(offset as usize) }
        };
        Ok(Self {
            entries: at(offsets.desc).cast(),
            producer: at(offsets.producer).cast(),
            consumer: at(offsets.consumer).cast(),
            flags: at(offsets.flags).cast(),
            mask: len - 1,
            produced: 0,
            consumed: 0,
            _mapping: mapping,
        })
    }

    /// Entries that may be pushed. The kernel's word is looked at only if there seem to be fewer
    /// than wanted.
    pub(super) fn room(&mut self, wanted: usize) -> usize {
        let room =
            |ring: &Self| (ring.mask + 1 - ring.produced.wrapping_sub(ring.consumed)) as usize;
        if room(self) < wanted {
            self.consumed = shared(&self.consumer).load(Ordering::Acquire);
        }
        room(self)
    }

    /// Puts an entry in; there must be room.
    pub(super) fn push(&mut self, entry: T) {
        let at = self.entry(self.produced);
        // SAFETY: it lies in the ring, and the kernel reads it only once it is published.
        unsafe { at.write(entry) };
        self.produced = self.produced.wrapping_add(1);
    }

    pub(super) fn publish(&self) {
        shared(&self.producer).store(self.produced, Ordering::Release);
    }

    /// Entries that may be popped.
    pub(super) fn ready(&mut self) -> usize {
        self.produced = shared(&self.producer).load(Ordering::Acquire);
        self.produced.wrapping_sub(self.consumed) as usize
    }

    /// Takes an entry; there must be one.
    pub(super) fn pop(&mut self) -> T {
        let at = self.entry(self.consumed);
        self.consumed = self.consumed.wrapping_add(1);
        // SAFETY: it lies in the ring; the kernel has written it and leaves it alone until it is
        // released.
        unsafe { at.read() }
    }

    pub(super) fn release(&self) {
        shared(&self.consumer).store(self.consumed, Ordering::Release);
    }

    /// Entries that were pushed and not consumed.
    pub(super) fn left(&mut self) -> usize {
        self.consumed = shared(&self.consumer).load(Ordering::Acquire);
        self.produced.wrapping_sub(self.consumed) as usize
    }

    /// Whether the driver has stopped looking at the ring. One that runs on another core (zero-copy)
    /// raises the flag before its last look, so that what was published must be seen by then: between
    /// `publish` and this there has to be a full barrier.
    pub(super) fn needs_wake_up(&self) -> bool {
        shared(&self.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    fn entry(&self, index: u32) -> NonNull<T> {
        // SAFETY: masked, so within the entries.
        unsafe { self.entries.add((index & self.mask) as usize) }
    }
}

/// A word that the kernel reads and writes too.
fn shared(word: &NonNull<AtomicU32>) -> &AtomicU32 {
    // SAFETY: it lies in a mapping that lives as long as the ring whose field is borrowed, is
    // aligned, and is only accessed atomically on either side.
    unsafe { word.as_ref() }
}
