//! An entry: header, key and answer in one allocation that never changes while readers can see it.
//!
//! ```text
//!   0  stored_ms   8 │ 20 retry_at_s  4 (atomic) │ 28 kind      1
//!   8  ttl_s       4 │ 24 key_len     2          │ 29 segment   1 (atomic)   32 key, answer
//!  12  stale_s     4 │ 26 answer_len  2          │ 30 visited   1 (atomic)
//!  16  sequence    4 (atomic)                    │
//! ```
//!
//! What a probe reads (lengths, times, key) begins within one cache line. The atomic fields are
//! hints and bookkeeping: any value of theirs gives a correct answer, hence `Relaxed` everywhere.
//! Everything else is written before the entry's address is published with `Release` and read
//! after it was loaded with `Acquire`.

#![expect(unsafe_code, reason = "entries are allocated with their bytes behind the header")]

use std::alloc::{Layout, handle_alloc_error};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};

use super::sync::{Witness, alloc, dealloc};
use crate::{Key, Kind, Lifetime, Lookup, MAX_ANSWER_LEN, MAX_KEY_LEN, NewEntry};

/// Bytes in front of the key.
const HEADER_LEN: usize = size_of::<Header>();

const _: () = assert!(HEADER_LEN == 32 || cfg!(loom));
const _: () = assert!(MAX_ANSWER_LEN <= u16::MAX as usize);
const _: () = assert!(MAX_KEY_LEN <= u16::MAX as usize);

#[repr(C)]
pub(super) struct Header {
    stored_ms: u64,
    ttl_s: u32,
    stale_s: u32,
    sequence: AtomicU32,
    retry_at_s: AtomicU32,
    key_len: u16,
    answer_len: u16,
    kind: Kind,
    segment: AtomicU8,
    visited: AtomicBool,
    witness: Witness,
}

/// A segment's number, as the queues have it.
pub(super) type SegmentIndex = u8;

/// An entry that nobody else can see yet. Dropping it frees it.
pub(super) struct Unpublished(NonNull<Header>);

impl Unpublished {
    /// Copies key and answer, which are within [`MAX_KEY_LEN`] and [`MAX_ANSWER_LEN`].
    pub(super) fn new(key: Key<'_>, entry: NewEntry<'_>, now_ms: u64) -> Self {
        let (key_len, answer_len) = (key.bytes.len(), entry.answer.len());
        assert!(key_len <= MAX_KEY_LEN && answer_len <= MAX_ANSWER_LEN, "checked before");
        let layout = layout(key_len + answer_len);
        // SAFETY: the layout is at least as long as the header, so not of size 0.
        let allocation = unsafe { alloc(layout) };
        let Some(header) = NonNull::new(allocation.cast::<Header>()) else {
            handle_alloc_error(layout)
        };
        let fields = Header {
            stored_ms: now_ms,
            ttl_s: entry.ttl_s,
            stale_s: entry.stale_s,
            sequence: AtomicU32::new(0),
            retry_at_s: AtomicU32::new(0),
            key_len: key_len as u16,
            answer_len: answer_len as u16,
            kind: entry.kind,
            segment: AtomicU8::new(0),
            visited: AtomicBool::new(false),
            witness: Witness::new(),
        };
        // SAFETY: the allocation is ours alone, aligned for a header, and holds one.
        unsafe { header.write(fields) };
        // SAFETY: the allocation has `key_len + answer_len` bytes behind the header.
        let bytes = unsafe { allocation.add(HEADER_LEN) };
        // SAFETY: `key_len` bytes fit there, and a fresh allocation overlaps nothing.
        unsafe { bytes.copy_from_nonoverlapping(key.bytes.as_ptr(), key_len) };
        // SAFETY: `answer_len` bytes fit behind the key.
        let bytes = unsafe { bytes.add(key_len) };
        // SAFETY: as above.
        unsafe { bytes.copy_from_nonoverlapping(entry.answer.as_ptr(), answer_len) };
        let entry = Self(header);
        entry.as_entry().header().witness.write();
        entry
    }

    /// Gives up the ownership; the entry must be freed through [`Unpublished::reclaim`].
    pub(super) fn into_raw(self) -> NonNull<Header> {
        let header = self.0;
        std::mem::forget(self);
        header
    }

    /// Takes an entry back that nobody can see any more.
    ///
    /// # Safety
    ///
    /// `header` came from [`Unpublished::into_raw`], is taken back once, and no [`Entry`] to it is
    /// left in any thread.
    pub(super) unsafe fn reclaim(header: NonNull<Header>) -> Self {
        Self(header)
    }

    /// It, to be looked at.
    pub(super) fn as_entry(&self) -> Entry<'_> {
        Entry { header: self.0, live: PhantomData }
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        self.as_entry().header().witness.write();
        let layout = layout(self.as_entry().len());
        // SAFETY: allocated in `new` with this layout, for the lengths never change, and owned.
        unsafe { dealloc(self.0.as_ptr().cast(), layout) };
    }
}

/// An entry that stays allocated for `'e`.
#[derive(Clone, Copy)]
pub(super) struct Entry<'e> {
    header: NonNull<Header>,
    live: PhantomData<&'e Header>,
}

impl<'e> Entry<'e> {
    /// The entry behind a pointer from the table.
    ///
    /// # Safety
    ///
    /// `header` came from [`Unpublished::into_raw`], was read with `Acquire`, and is not reclaimed
    /// during `'e`.
    #[inline]
    pub(super) unsafe fn from_raw(header: NonNull<Header>) -> Self {
        Self { header, live: PhantomData }
    }

    #[inline]
    fn header(self) -> &'e Header {
        // SAFETY: initialized before it was published and live for 'e.
        unsafe { self.header.as_ref() }
    }

    #[inline]
    fn bytes(self, start: usize, len: usize) -> &'e [u8] {
        debug_assert!(start + len <= self.len());
        self.header().witness.read();
        // SAFETY: the pointer has the provenance of the whole allocation, and `start` is in it.
        let start = unsafe { self.header.as_ptr().cast::<u8>().add(HEADER_LEN + start) };
        // SAFETY: `len` bytes from there are in the allocation, initialized, and never change.
        unsafe { slice::from_raw_parts(start, len) }
    }

    /// Bytes of key and answer.
    #[inline]
    fn len(self) -> usize {
        usize::from(self.header().key_len) + usize::from(self.header().answer_len)
    }

    #[inline]
    pub(super) fn key(self) -> &'e [u8] {
        self.bytes(0, usize::from(self.header().key_len))
    }

    #[inline]
    fn answer(self) -> &'e [u8] {
        let Header { key_len, answer_len, .. } = *self.header();
        self.bytes(usize::from(key_len), usize::from(answer_len))
    }

    /// Whether it has left its stale time behind.
    #[inline]
    pub(super) fn is_dead(self, now_ms: u64) -> bool {
        self.lifetime().is_over(now_ms)
    }

    #[inline]
    fn lifetime(self) -> Lifetime {
        let Header { stored_ms, ttl_s, stale_s, .. } = *self.header();
        Lifetime { stored_ms, ttl_s, stale_s }
    }

    /// What a lookup shows of it.
    #[inline]
    pub(super) fn judge(self, now_ms: u64) -> Lookup<'e> {
        let retry_at_s = self.header().retry_at_s.load(Relaxed);
        self.lifetime().judge(self.answer(), now_ms, retry_at_s)
    }

    #[inline]
    pub(super) fn kind(self) -> Kind {
        self.header().kind
    }

    /// Bytes that its allocation occupies.
    pub(super) fn footprint(self) -> u64 {
        footprint(self.len())
    }

    /// Notes that it was asked for. One store at most: the line stays shared between the cores.
    #[inline]
    pub(super) fn visit(self) {
        let visited = &self.header().visited;
        if !visited.load(Relaxed) {
            visited.store(true, Relaxed);
        }
    }

    /// Whether it was asked for since the last time.
    pub(super) fn take_visited(self) -> bool {
        let visited = &self.header().visited;
        let was_visited = visited.load(Relaxed);
        if was_visited {
            visited.store(false, Relaxed);
        }
        was_visited
    }

    pub(super) fn is_visited(self) -> bool {
        self.header().visited.load(Relaxed)
    }

    /// The number by which its place in a queue is told from that of another in the same slot.
    pub(super) fn sequence(self) -> u32 {
        self.header().sequence.load(Relaxed)
    }

    pub(super) fn set_sequence(self, sequence: u32) {
        self.header().sequence.store(sequence, Relaxed);
    }

    pub(super) fn segment(self) -> SegmentIndex {
        self.header().segment.load(Relaxed)
    }

    pub(super) fn set_segment(self, segment: SegmentIndex) {
        self.header().segment.store(segment, Relaxed);
    }

    /// Takes over from the entry that this one replaces what its popularity is worth.
    pub(super) fn inherit(self, old: Entry<'_>) {
        self.set_sequence(old.sequence());
        self.set_segment(old.segment());
        self.header().visited.store(old.is_visited(), Relaxed);
    }

    /// Asks its readers not to ask upstream again before this time.
    pub(super) fn hold_retry(self, until_ms: u64) {
        let after_ms = until_ms.saturating_sub(self.header().stored_ms);
        let after_s = u32::try_from(after_ms.div_ceil(1000)).unwrap_or(u32::MAX);
        self.header().retry_at_s.store(after_s, Relaxed);
    }
}

fn layout(len: usize) -> Layout {
    Layout::from_size_align(HEADER_LEN + len, align_of::<Header>())
        .expect("at most 32 + 1024 + 65,535 bytes")
}

/// What an entry with a key and an answer of together `len` bytes occupies, as mimalloc rounds it:
/// to 8 bytes up to 64, from there on to a quarter of the power of two below
/// (mimalloc, src/page-queue.c, `mi_bin`).
pub(super) fn footprint(len: usize) -> u64 {
    const WORD: usize = 8;
    let words = (HEADER_LEN + len).div_ceil(WORD);
    let words = if words <= 8 {
        words.next_multiple_of(2)
    } else {
        let step = 1 << ((words - 1).ilog2() - 2);
        words.next_multiple_of(step)
    };
    (words * WORD) as u64
}
