//! Each cache's own epochs, so that no other user of the library holds up its garbage.
//!
//! A thread is registered when it first pins, and stays so until it ends or registers with another
//! cache after this one is gone.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Weak};

use crossbeam::epoch::{Collector, Guard, LocalHandle};

/// The epochs of one cache.
pub(super) struct Epochs {
    collector: Collector,
    alive: Arc<()>,
}

/// A thread as these epochs know it.
struct Local {
    alive: Weak<()>,
    handle: LocalHandle,
    /// Whether it has retired anything that may still be in its own bag of garbage.
    has_retired: Cell<bool>,
}

thread_local! {
    /// One for each cache that this thread uses: nearly always one.
    static LOCALS: RefCell<Vec<Local>> = const { RefCell::new(Vec::new()) };
}

impl Epochs {
    pub(super) fn new() -> Self {
        Self { collector: Collector::new(), alive: Arc::new(()) }
    }

    /// Pins the calling thread. What it has retired before is handed on first, for anyone to free.
    #[inline]
    pub(super) fn pin(&self) -> Guard {
        self.with_local(|local| {
            let guard = local.handle.pin();
            if local.has_retired.replace(false) {
                guard.flush();
            }
            guard
        })
    }

    /// Notes that the calling thread has garbage of its own.
    pub(super) fn note_retired(&self) {
        self.with_local(|local| local.has_retired.set(true));
    }

    #[inline]
    fn with_local<R>(&self, f: impl FnOnce(&Local) -> R) -> R {
        LOCALS.with_borrow_mut(|locals| {
            let is_ours = |local: &Local| Weak::as_ptr(&local.alive) == Arc::as_ptr(&self.alive);
            let index = locals.iter().position(is_ours).unwrap_or_else(|| {
                locals.retain(|local| local.alive.strong_count() > 0);
                locals.push(Local {
                    alive: Arc::downgrade(&self.alive),
                    handle: self.collector.register(),
                    has_retired: Cell::new(false),
                });
                locals.len() - 1
            });
            f(&locals[index])
        })
    }
}
