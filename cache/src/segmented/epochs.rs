//! Each cache's own epochs, so that no other user of the library holds up its garbage.
//!
//! A thread is registered when it first pins, and stays so until it ends or registers with another
//! cache after this one is gone.
//!
//! What a thread retires waits in a bag of its own, at most [`BAG_ENTRIES`] entries or
//! [`BAG_FULL_BYTES`] and one entry, until it hands the bag on: when it is full, and at the next
//! [`Epochs::pin`]. A bag that was handed on occupies [`BAG_BYTES`] whatever is in it, which is
//! more than most entries do; so it counts as retired too, and while too much is retired a bag of less
//! than that is kept.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use crossbeam::epoch::{Collector, Guard, LocalHandle};

/// Entries in a bag of garbage, of the 64 for which crossbeam has room; one more is [`BAG_BYTES`].
const BAG_ENTRIES: u32 = 63;

/// A bag is handed on with the entry that takes it to so many bytes.
const BAG_FULL_BYTES: u64 = 32 << 10;

/// What a bag on its way occupies: 64 closures of four words, with its epoch and the next one's
/// address, as mimalloc rounds it.
const BAG_BYTES: u64 = 2560;

/// The epochs of one cache.
pub(super) struct Epochs {
    collector: Collector,
    /// Never given twice in a process, so that no guard outlives what it is compared with.
    id: u64,
    alive: Arc<()>,
    retired: Arc<AtomicU64>,
    retired_max: u64,
}

/// Holds the epoch for a thread: nothing that is found meanwhile is freed while it lives.
pub(super) struct Pinned {
    guard: Guard,
    id: u64,
}

/// A thread as these epochs know it.
struct Local {
    id: u64,
    alive: Weak<()>,
    handle: LocalHandle,
    bag: Cell<Bag>,
}

/// What is in a thread's own bag.
#[derive(Clone, Copy, Default)]
struct Bag {
    entries: u32,
    bytes: u64,
}

thread_local! {
    /// One for each cache that this thread uses: nearly always one.
    static LOCALS: RefCell<Vec<Local>> = const { RefCell::new(Vec::new()) };
}

impl Epochs {
    /// Epochs that are choked when more than `retired_max` bytes are retired and not yet freed.
    pub(super) fn new(retired_max: u64) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        Self {
            collector: Collector::new(),
            id: NEXT_ID.fetch_add(1, Relaxed),
            alive: Arc::default(),
            retired: Arc::default(),
            retired_max,
        }
    }

    /// Pins the calling thread. What it has retired before is handed on first, for anyone to free,
    /// and some of what may be freed is.
    #[inline]
    pub(super) fn pin(&self) -> Pinned {
        self.with_local(|local| {
            let guard = local.handle.pin();
            let Bag { entries, bytes } = local.bag.get();
            if entries > 0 && (bytes >= BAG_BYTES || self.retired_bytes() <= self.retired_max) {
                self.hand_on(local, &guard);
            }
            Pinned { guard, id: self.id }
        })
    }

    /// The same for a writer, who hands on only full bags: one for each insert would cost more than
    /// the insert.
    pub(super) fn pin_to_write(&self) -> Pinned {
        self.with_local(|local| Pinned { guard: local.handle.pin(), id: self.id })
    }

    /// Whether it was these epochs that were pinned.
    #[inline]
    pub(super) fn is_ours(&self, pinned: &Pinned) -> bool {
        pinned.id == self.id
    }

    /// Calls `free` when every guard that there is now has been dropped. Until then `bytes` count
    /// as retired.
    pub(super) fn retire(
        &self,
        pinned: &Pinned,
        bytes: u64,
        free: impl FnOnce() -> u64 + Send + 'static,
    ) {
        debug_assert!(self.is_ours(pinned), "the guard of another cache");
        self.retired.fetch_add(bytes, Relaxed);
        let retired = Arc::clone(&self.retired);
        pinned.guard.defer(move || retired.fetch_sub(free(), Relaxed));
        self.with_local(|local| {
            let Bag { entries, bytes: before } = local.bag.get();
            local.bag.set(Bag { entries: entries + 1, bytes: before + bytes });
            if entries + 1 >= BAG_ENTRIES || before + bytes >= BAG_FULL_BYTES {
                self.hand_on(local, &pinned.guard);
            }
        });
    }

    /// Bytes that are retired and not yet freed.
    pub(super) fn retired_bytes(&self) -> u64 {
        self.retired.load(Relaxed)
    }

    /// Hands this thread's bag on and frees some of what may be freed: at most eight bags.
    pub(super) fn collect(&self) {
        drop(self.pin());
        self.with_local(|local| {
            let guard = local.handle.pin();
            // With an empty bag this only frees, and allocates nothing.
            if local.bag.get().entries == 0 {
                guard.flush();
            }
        });
    }

    fn hand_on(&self, local: &Local, guard: &Guard) {
        local.bag.set(Bag::default());
        self.retired.fetch_add(BAG_BYTES, Relaxed);
        let retired = Arc::clone(&self.retired);
        guard.defer(move || retired.fetch_sub(BAG_BYTES, Relaxed));
        guard.flush();
    }

    #[inline]
    fn with_local<R>(&self, f: impl FnOnce(&Local) -> R) -> R {
        LOCALS.with_borrow_mut(|locals| {
            let index = locals.iter().position(|local| local.id == self.id).unwrap_or_else(|| {
                locals.retain(|local| local.alive.strong_count() > 0);
                locals.push(Local {
                    id: self.id,
                    alive: Arc::downgrade(&self.alive),
                    handle: self.collector.register(),
                    bag: Cell::default(),
                });
                locals.len() - 1
            });
            f(&locals[index])
        })
    }
}
