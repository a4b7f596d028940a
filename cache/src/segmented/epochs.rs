//! Each cache's own epochs, so that no other user of the library holds up its garbage.
//!
//! A thread is registered when it first pins, and stays so until it ends or registers with another
//! cache after this one is gone. What is retired is handed on at once, for anyone to free: it is
//! whole blocks, so that is rare.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use crossbeam::epoch::{Collector, Guard, LocalHandle};

/// The epochs of one cache.
pub(super) struct Epochs {
    collector: Collector,
    /// Never given twice in a process, so that no guard outlives what it is compared with.
    id: u64,
    alive: Arc<()>,
    retired: Arc<AtomicU64>,
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
}

thread_local! {
    /// One for each cache that this thread uses: nearly always one.
    static LOCALS: RefCell<Vec<Local>> = const { RefCell::new(Vec::new()) };
}

impl Epochs {
    pub(super) fn new() -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        Self {
            collector: Collector::new(),
            id: NEXT_ID.fetch_add(1, Relaxed),
            alive: Arc::default(),
            retired: Arc::default(),
        }
    }

    /// Pins the calling thread.
    #[inline]
    pub(super) fn pin(&self) -> Pinned {
        self.with_local(|local| Pinned { guard: local.handle.pin(), id: self.id })
    }

    /// Whether it was these epochs that were pinned.
    #[inline]
    pub(super) fn is_ours(&self, pinned: &Pinned) -> bool {
        pinned.id == self.id
    }

    /// Calls `free` when every guard that there is now has been dropped. Until then `bytes` count
    /// as retired.
    pub(super) fn retire(&self, pinned: &Pinned, bytes: u64, free: impl FnOnce() + Send + 'static) {
        debug_assert!(self.is_ours(pinned), "the guard of another cache");
        self.retired.fetch_add(bytes, Relaxed);
        let retired = Arc::clone(&self.retired);
        pinned.guard.defer(move || {
            free();
            retired.fetch_sub(bytes, Relaxed);
        });
        pinned.guard.flush();
    }

    /// Bytes that are retired and not yet freed.
    pub(super) fn retired_bytes(&self) -> u64 {
        self.retired.load(Relaxed)
    }

    /// Frees some of what may be freed.
    pub(super) fn collect(&self) {
        // With nothing of this thread's own to hand on it only frees, and allocates nothing.
        self.pin().guard.flush();
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
                });
                locals.len() - 1
            });
            f(&locals[index])
        })
    }
}
