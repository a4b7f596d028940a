//! The phases of the process, from binding the sockets to the last answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// What the process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Not every worker has its sockets yet.
    Starting,
    /// Serving, and fit for new clients.
    Ready,
    /// Still serving, but asked to stop: clients should go elsewhere.
    Lameduck,
    /// No new queries are taken; those in flight are answered.
    Stopping,
}

/// The phase, and which workers still take queries; shared by all threads.
#[derive(Clone, Debug)]
pub struct Lifecycle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    phase: AtomicU8,
    /// Workers that may still create misses for others to answer.
    receiving: AtomicUsize,
}

impl Lifecycle {
    /// [`Phase::Starting`], with so many workers that will take queries.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self(Arc::new(Inner {
            phase: AtomicU8::new(Phase::Starting as u8),
            receiving: AtomicUsize::new(workers),
        }))
    }

    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.0.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            2 => Phase::Lameduck,
            _ => Phase::Stopping,
        }
    }

    /// Enters a later phase; an earlier one is ignored.
    pub fn enter(&self, phase: Phase) {
        self.0.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }

    /// A worker takes no more queries. Returns whether it was the last one.
    pub fn stop_receiving(&self) -> bool {
        self.0.receiving.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Whether any worker may still create misses.
    #[must_use]
    pub fn anyone_receiving(&self) -> bool {
        self.0.receiving.load(Ordering::Acquire) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_only_go_forward() {
        let lifecycle = Lifecycle::new(1);
        lifecycle.enter(Phase::Stopping);
        lifecycle.enter(Phase::Ready);
        assert_eq!(lifecycle.phase(), Phase::Stopping);
    }
}
