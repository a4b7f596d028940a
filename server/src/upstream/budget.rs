//! What may be asked beyond one question each: a bucket of tokens that every question adds to.
//!
//! Shared by the workers. A full bucket is only read, so that it costs nothing while nothing is spent.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What one extra query takes.
const PRICE: u64 = 100;

/// Extra queries that may be saved up.
const MOST: u64 = 16;

/// A bucket. Invariant: extra queries never exceed the given percentage of the questions.
#[derive(Debug)]
pub(super) struct Budget {
    tokens: AtomicU64,
    percent: u64,
}

impl Budget {
    /// An empty bucket for so many extra queries in a hundred questions.
    #[must_use]
    pub(super) fn new(percent: u64) -> Self {
        Self { tokens: AtomicU64::new(0), percent }
    }

    /// Adds a question's share.
    pub(super) fn earn(&self) {
        if self.tokens.load(Relaxed) < MOST * PRICE {
            self.tokens.fetch_add(self.percent, Relaxed);
        }
    }

    /// Takes what an extra query costs, if it is there.
    pub(super) fn spend(&self) -> bool {
        self.tokens.fetch_update(Relaxed, Relaxed, |tokens| tokens.checked_sub(PRICE)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_queries_stay_below_their_share_however_they_are_asked_for() {
        for eager in [1, 2, 7, 40, 500] {
            let budget = Budget::new(3);
            let mut spent = 0;
            for question in 1..=10_000 {
                budget.earn();
                if question % eager == 0 {
                    while budget.spend() {
                        spent += 1;
                    }
                }
                assert!(spent * 100 <= question * 3, "{spent} of {question}");
            }
            assert!(spent >= 300 - MOST, "{eager}: {spent}");
        }
    }

    #[test]
    fn little_is_saved_up() {
        let budget = Budget::new(3);
        (0..100_000).for_each(|_| budget.earn());
        let spent = (0..100).filter(|_| budget.spend()).count() as u64;
        assert!((MOST..=MOST + 1).contains(&spent), "{spent}");
    }
}
