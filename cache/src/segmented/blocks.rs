//! Memory for entries: one allocation of the whole budget, cut into blocks of one length.
//!
//! ```text
//!   free ──take──► Block: filled from its start, entry after entry ──retire──► waits for the epoch ─┐
//!    ▲                                                                                              │
//!    └──────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! So the bound on memory holds by construction, whatever sizes come after one another, and an entry
//! costs what it is long and no more. What leaves the table leaves a hole behind; the block is free
//! again when nothing of it is in the table, and no guard of that time is left.
//!
//! Who has a [`Block`] has its bytes beyond what is filled for itself alone. How many bytes of a
//! block are in the table is counted here, by address, and a block in use is never freed.

#![expect(unsafe_code, reason = "entries lie one behind the other in a larger allocation")]

use std::alloc::{Layout, handle_alloc_error};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering::AcqRel, Ordering::Acquire};
use std::sync::{Arc, PoisonError};

use super::entry::{Entry, Header, NewHeader, size_of_entry};
use super::pages::Pages;
use super::sync::{Mutex, alloc, dealloc};

/// What a block's length and its place in the allocation are multiples of: a cache line.
const ALIGN: usize = 64;

/// All blocks of a cache.
pub(super) struct Blocks {
    first: NonNull<u8>,
    layout: Layout,
    block_len: usize,
    /// Bytes of each block that are in the table.
    live: Box<[AtomicU32]>,
    free: Mutex<Free>,
}

/// The blocks that nobody has.
struct Free {
    /// None from this one on has been used yet, and so no page of them.
    unused: usize,
    /// The last one freed is the first one taken: its lines may still be in a cache.
    used: Vec<u32>,
}

// SAFETY: the allocation is owned. A part of it is written only by who has its block, before it is
// published, and freed only when nobody can have a reference to it.
unsafe impl Send for Blocks {}
// SAFETY: as above.
unsafe impl Sync for Blocks {}

impl Blocks {
    /// So many blocks of `block_len` bytes, a multiple of [`Blocks::align`] and below 2^32.
    pub(super) fn new(count: usize, block_len: usize, pages: Pages) -> Self {
        assert!(block_len > 0 && block_len.is_multiple_of(ALIGN) && block_len <= u32::MAX as usize);
        assert!(u32::try_from(count).is_ok(), "blocks are numbered by u32");
        let layout = Layout::from_size_align((count * block_len).max(ALIGN), ALIGN)
            .expect("less than the address space");
        let layout = pages.layout(layout);
        // SAFETY: not of size 0.
        let allocation = unsafe { alloc(layout) };
        let Some(first) = NonNull::new(allocation) else { handle_alloc_error(layout) };
        pages.ask(first, layout);
        Self {
            first,
            layout,
            block_len,
            live: (0..count).map(|_| AtomicU32::new(0)).collect(),
            free: Mutex::new(Free { unused: 0, used: Vec::new() }),
        }
    }

    /// Rounds a length down to one that a block may have.
    pub(super) fn align(len: u64) -> u64 {
        len / ALIGN as u64 * ALIGN as u64
    }

    /// Bytes of a block.
    pub(super) fn block_len(&self) -> usize {
        self.block_len
    }

    /// A block that is free, if there is one.
    pub(super) fn take(self: &Arc<Self>) -> Option<Block> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let index = match free.used.pop() {
            Some(index) => index as usize,
            None if free.unused < self.live.len() => {
                free.unused += 1;
                free.unused - 1
            }
            None => return None,
        };
        Some(Block { blocks: Arc::clone(self), index, filled: 0 })
    }

    /// Counts an entry in that comes into the table. It must be of these blocks, or this panics.
    pub(super) fn count_in(&self, entry: Entry<'_>) {
        self.live_of(entry).fetch_add(entry.size() as u32, AcqRel);
    }

    /// Counts an entry out that has left the table.
    pub(super) fn count_out(&self, entry: Entry<'_>) {
        self.live_of(entry).fetch_sub(entry.size() as u32, AcqRel);
    }

    /// The number of the block that an entry is in.
    pub(super) fn index_of(&self, entry: Entry<'_>) -> usize {
        (entry.address() - self.first.addr().get()) / self.block_len
    }

    /// Bytes of a block that are in the table.
    pub(super) fn live(&self, index: usize) -> u64 {
        u64::from(self.live[index].load(Acquire))
    }

    fn live_of(&self, entry: Entry<'_>) -> &AtomicU32 {
        &self.live[self.index_of(entry)]
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout. No block is left, for each has a share in
        // this, and an entry is seen only while its table is there, which has one too.
        unsafe { dealloc(self.first.as_ptr(), self.layout) };
    }
}

/// The right to fill a block. Dropped, the block is lost to its cache.
pub(super) struct Block {
    blocks: Arc<Blocks>,
    index: usize,
    /// Bytes from its start that are entries.
    filled: usize,
}

impl Block {
    /// Bytes of it.
    pub(super) fn len(&self) -> u64 {
        self.blocks.block_len as u64
    }

    /// Bytes that entries have taken, those that have left the table included.
    pub(super) fn filled(&self) -> u64 {
        self.filled as u64
    }

    /// Bytes of the entries that have left the table, or never came into it.
    pub(super) fn dead(&self) -> u64 {
        self.filled() - self.blocks.live(self.index)
    }

    /// Whether no entry of it is in the table.
    pub(super) fn is_dead(&self) -> bool {
        self.blocks.live(self.index) == 0
    }

    /// Its number.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// Whether an entry of so many bytes has room.
    pub(super) fn has_room(&self, size: usize) -> bool {
        size <= self.blocks.block_len - self.filled
    }

    /// Writes an entry behind the others.
    ///
    /// # Panics
    ///
    /// There is no room ([`Block::has_room`]).
    pub(super) fn append(&mut self, header: NewHeader, bytes: [&[u8]; 2]) -> Unpublished<'_> {
        let size = size_of_entry(bytes[0].len() + bytes[1].len());
        assert!(self.has_room(size), "asked for before");
        let at = self.at(self.filled);
        // SAFETY: from `at` on there are `size` bytes in the allocation, aligned as a header, for
        // both the block and each entry's size are. Nobody else has this part of it: the block is
        // ours, what is filled is not touched, and when the block was freed no reader was left.
        let entry = unsafe { Header::write(at.cast(), header, bytes) };
        self.filled += size;
        Unpublished { header: entry, block: PhantomData }
    }

    fn at(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(offset <= self.blocks.block_len);
        // SAFETY: within the block, or at its end, and so in the allocation.
        unsafe { self.blocks.first.add(self.index * self.blocks.block_len + offset) }
    }

    /// Gives it back. To be called when no guard is left of the time when something of it was in
    /// the table.
    ///
    /// # Safety
    ///
    /// No [`Entry`] of it is left in any thread.
    ///
    /// # Panics
    ///
    /// Something of it is in the table.
    pub(super) unsafe fn free(self) {
        assert!(self.is_dead(), "in use");
        #[cfg(loom)]
        {
            let mut at = 0;
            while at < self.filled {
                // SAFETY: `at` is where an entry begins.
                let entry = unsafe { Entry::from_raw(self.at(at).cast()) };
                entry.freed();
                at += entry.size();
            }
        }
        let mut free = self.blocks.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.used.push(self.index as u32);
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, filled, .. } = self;
        f.debug_struct("Block").field("index", index).field("filled", filled).finish()
    }
}

/// An entry that is written and not in the table yet. Dropped, it is a hole in its block.
#[must_use]
pub(super) struct Unpublished<'b> {
    header: NonNull<Header>,
    block: PhantomData<&'b mut Block>,
}

impl Unpublished<'_> {
    /// It, to be looked at.
    pub(super) fn as_entry(&self) -> Entry<'_> {
        // SAFETY: written, and its block is not freed while it is borrowed.
        unsafe { Entry::from_raw(self.header) }
    }

    pub(super) fn into_raw(self) -> NonNull<Header> {
        self.header
    }
}

/// A way through the entries of a block that is no longer filled, in the order in which they came.
#[derive(Debug)]
pub(super) struct Walk {
    block: Block,
    /// Where the next entry begins, or as many bytes as are filled.
    at: usize,
}

impl Walk {
    pub(super) fn new(block: Block) -> Self {
        Self { block, at: 0 }
    }

    /// The entry that the walk has come to, in the table or not.
    pub(super) fn entry(&self) -> Option<Entry<'_>> {
        // SAFETY: an entry begins here, written before the block came to this walk, and stays while
        // the block is not freed.
        (self.at < self.block.filled)
            .then(|| unsafe { Entry::from_raw(self.block.at(self.at).cast()) })
    }

    /// Goes on to the next entry.
    pub(super) fn step(&mut self) {
        if let Some(size) = self.entry().map(Entry::size) {
            self.at += size;
        }
    }

    pub(super) fn block(&self) -> &Block {
        &self.block
    }

    pub(super) fn into_block(self) -> Block {
        self.block
    }
}
