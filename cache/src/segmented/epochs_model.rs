//! The same as `epochs.rs`, in its place for loom and Miri, which follow crossbeam's own code not at
//! all or not strictly: what is retired is freed as soon as the last guard of that time is gone, by
//! whoever drops it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::sync::Mutex;

type Free = Box<dyn FnOnce() + Send>;

#[derive(Clone)]
pub(super) struct Epochs {
    state: Arc<Mutex<State>>,
    retired: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    next_guard: u64,
    guards: Vec<u64>,
    /// Each with the guards that it still waits for.
    garbage: Vec<(Vec<u64>, u64, Free)>,
}

pub(super) struct Pinned {
    epochs: Epochs,
    number: u64,
}

impl Epochs {
    pub(super) fn new() -> Self {
        Self { state: Arc::new(Mutex::new(State::default())), retired: Arc::default() }
    }

    pub(super) fn pin(&self) -> Pinned {
        let mut state = self.state.lock().expect("no panic under it");
        let number = state.next_guard;
        state.next_guard += 1;
        state.guards.push(number);
        Pinned { epochs: self.clone(), number }
    }

    pub(super) fn is_ours(&self, pinned: &Pinned) -> bool {
        Arc::ptr_eq(&self.state, &pinned.epochs.state)
    }

    pub(super) fn retire(
        &self,
        _pinned: &Pinned,
        bytes: u64,
        free: impl FnOnce() + Send + 'static,
    ) {
        self.retired.fetch_add(bytes, Relaxed);
        let mut state = self.state.lock().expect("no panic under it");
        let guards = state.guards.clone();
        state.garbage.push((guards, bytes, Box::new(free)));
    }

    pub(super) fn retired_bytes(&self) -> u64 {
        self.retired.load(Relaxed)
    }

    pub(super) fn collect(&self) {
        drop(self.pin());
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut state = self.epochs.state.lock().expect("no panic under it");
        state.guards.retain(|&number| number != self.number);
        for (guards, ..) in &mut state.garbage {
            guards.retain(|&number| number != self.number);
        }
        let free =
            state.garbage.extract_if(.., |(guards, ..)| guards.is_empty()).collect::<Vec<_>>();
        drop(state);
        for (_, bytes, free) in free {
            free();
            self.epochs.retired.fetch_sub(bytes, Relaxed);
        }
    }
}
