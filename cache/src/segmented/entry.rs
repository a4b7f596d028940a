//! An entry: header, key and answer in one piece of a block, which never changes while readers can
//! see it.
//!
//! ```text
//!   0  stored_ms   8 │ 20 retry_at_s  4 (atomic) │ 28 kind      1
//!   8  ttl_s       4 │ 24 key_len     2          │ 29 segment   1
//!  12  stale_s     4 │ 26 answer_len  2          │ 30 visited   1 (atomic)   32 key, answer
//!  16  slot        4                             │
//! ```
//!
//! What a probe reads (lengths, times, key) begins within one cache line. The atomic fields are
//! hints: any value of theirs gives a correct answer, hence `Relaxed` everywhere. Everything else is
//! written before the entry's address is published with `Release` and read after it was loaded with
//! `Acquire`.

#![expect(unsafe_code, reason = "the bytes of an entry lie behind its header")]

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use super::segments::Segment;
use super::sync::Witness;
use super::table::Slot;
use crate::{Kind, Lifetime, Lookup, MAX_ANSWER_LEN, MAX_KEY_LEN};

/// Bytes in front of the key.
const HEADER_LEN: usize = size_of::<Header>();

const _: () = assert!(HEADER_LEN == 32 || cfg!(loom));
const _: () = assert!(MAX_ANSWER_LEN <= u16::MAX as usize);
const _: () = assert!(MAX_KEY_LEN <= u16::MAX as usize);

/// Bytes of the longest entry.
pub(super) const SIZE_MAX: usize = size_of_entry(MAX_KEY_LEN + MAX_ANSWER_LEN);

/// Bytes that an entry takes whose key and answer have `len`.
pub(super) const fn size_of_entry(len: usize) -> usize {
    (HEADER_LEN + len).next_multiple_of(align_of::<Header>())
}

#[repr(C)]
pub(super) struct Header {
    stored_ms: u64,
    ttl_s: u32,
    stale_s: u32,
    slot: Slot,
    retry_at_s: AtomicU32,
    key_len: u16,
    answer_len: u16,
    kind: Kind,
    segment: Segment,
    visited: AtomicBool,
    witness: Witness,
}

/// What an entry is to say of itself, beside the lengths.
#[derive(Clone, Copy)]
pub(super) struct NewHeader {
    pub(super) lifetime: Lifetime,
    pub(super) retry_at_s: u32,
    pub(super) kind: Kind,
    /// The slot of the table that it is for.
    pub(super) slot: Slot,
    pub(super) segment: Segment,
    pub(super) is_visited: bool,
}

impl Header {
    /// Writes an entry with this key and this answer.
    ///
    /// # Safety
    ///
    /// From `at` on there are [`size_of_entry`] bytes that may be written and that nobody else uses,
    /// with the provenance of all of them, aligned for a header.
    pub(super) unsafe fn write(
        at: NonNull<Self>,
        new: NewHeader,
        [key, answer]: [&[u8]; 2],
    ) -> NonNull<Self> {
        assert!(key.len() <= MAX_KEY_LEN && answer.len() <= MAX_ANSWER_LEN, "checked before");
        let Lifetime { stored_ms, ttl_s, stale_s } = new.lifetime;
        let header = Self {
            stored_ms,
            ttl_s,
            stale_s,
            slot: new.slot,
            retry_at_s: AtomicU32::new(new.retry_at_s),
            key_len: key.len() as u16,
            answer_len: answer.len() as u16,
            kind: new.kind,
            segment: new.segment,
            visited: AtomicBool::new(new.is_visited),
            witness: Witness::new(),
        };
        // SAFETY: the caller's promise.
        unsafe { at.write(header) };
        // SAFETY: as above; the bytes of the key follow the header's.
        let bytes = unsafe { at.cast::<u8>().add(HEADER_LEN) };
        // SAFETY: as above; what nobody else uses overlaps no key.
        unsafe { bytes.copy_from_nonoverlapping(NonNull::from(key).cast(), key.len()) };
        // SAFETY: as above; the answer follows the key.
        let bytes = unsafe { bytes.add(key.len()) };
        // SAFETY: as above.
        unsafe { bytes.copy_from_nonoverlapping(NonNull::from(answer).cast(), answer.len()) };
        // SAFETY: written just now, and nobody else has it.
        unsafe { at.as_ref() }.witness.write();
        at
    }
}

/// An entry that stays as it is for `'e`.
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
    /// `header` was written by [`Header::write`], before it was published and read with `Acquire` if
    /// by another thread, and its memory is not used anew during `'e`.
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
        // SAFETY: the pointer has the provenance of the whole entry, and `start` is in it.
        let start = unsafe { self.header.as_ptr().cast::<u8>().add(HEADER_LEN + start) };
        // SAFETY: `len` bytes from there are in the entry, initialized, and do not change.
        unsafe { slice::from_raw_parts(start, len) }
    }

    /// Where it is.
    pub(super) fn address(self) -> usize {
        self.header.addr().get()
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
    pub(super) fn answer(self) -> &'e [u8] {
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

    /// Bytes that it takes in its block.
    pub(super) fn size(self) -> usize {
        size_of_entry(self.len())
    }

    /// What to say in a copy of it for a segment.
    pub(super) fn header_for(self, segment: Segment, is_visited: bool) -> NewHeader {
        NewHeader {
            lifetime: self.lifetime(),
            retry_at_s: self.header().retry_at_s.load(Relaxed),
            kind: self.kind(),
            slot: self.slot(),
            segment,
            is_visited,
        }
    }

    /// Notes that it was asked for. One store at most: the line stays shared between the cores.
    #[inline]
    pub(super) fn visit(self) {
        let visited = &self.header().visited;
        if !visited.load(Relaxed) {
            visited.store(true, Relaxed);
        }
    }

    /// Whether it was asked for since it came into its segment.
    pub(super) fn is_visited(self) -> bool {
        self.header().visited.load(Relaxed)
    }

    /// When it was stored.
    pub(super) fn stored_ms(self) -> u64 {
        self.header().stored_ms
    }

    /// The slot of the table that it is in, or was in.
    pub(super) fn slot(self) -> Slot {
        self.header().slot
    }

    pub(super) fn segment(self) -> Segment {
        self.header().segment
    }

    /// Asks its readers not to ask upstream again before this time.
    pub(super) fn hold_retry(self, until_ms: u64) {
        let after_ms = until_ms.saturating_sub(self.header().stored_ms);
        let after_s = u32::try_from(after_ms.div_ceil(1000)).unwrap_or(u32::MAX);
        self.header().retry_at_s.store(after_s, Relaxed);
    }

    /// Nobody reads it any more.
    #[cfg(loom)]
    pub(super) fn freed(self) {
        self.header().witness.write();
    }
}
