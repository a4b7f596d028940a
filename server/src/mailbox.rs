//! Mail between workers: a bounded queue for each, and the bell that wakes it.
//!
//! A miss goes to the worker that owns its key, so that one question is in flight for a key in the
//! whole process without any lock. Bound: [`CAPACITY`] letters a worker; a letter that finds no room
//! comes back to its sender, who answers and counts it.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use tokio::sync::Notify;

use crate::pipeline::miss::Miss;

/// Letters that may wait for one worker.
pub const CAPACITY: usize = 16_384;

/// The mailboxes of all workers, by their number.
#[derive(Clone, Debug)]
pub struct Post(Arc<[Mailbox]>);

#[derive(Debug)]
struct Mailbox {
    letters: ArrayQueue<Miss>,
    bell: Notify,
}

impl Post {
    /// Empty mailboxes for `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self(
            (0..workers)
                .map(|_| Mailbox { letters: ArrayQueue::new(CAPACITY), bell: Notify::new() })
                .collect(),
        )
    }

    /// The worker that owns the keys of this hash.
    #[must_use]
    pub fn owner(&self, hash: u64) -> usize {
        (hash % self.0.len() as u64) as usize
    }

    /// Hands a miss to a worker and wakes it; gives it back when that worker's mailbox is full.
    #[expect(clippy::result_large_err, reason = "the miss comes back whole, to be answered")]
    pub fn send(&self, to: usize, miss: Miss) -> Result<(), Miss> {
        let mailbox = &self.0[to];
        mailbox.letters.push(miss)?;
        mailbox.bell.notify_one();
        Ok(())
    }

    /// The next letter for a worker, oldest first.
    #[must_use]
    pub fn take(&self, worker: usize) -> Option<Miss> {
        self.0[worker].letters.pop()
    }

    /// Waits until somebody rang: a letter came, or the control thread wants attention.
    pub async fn rung(&self, worker: usize) {
        self.0[worker].bell.notified().await;
    }

    /// Wakes every worker.
    pub fn ring_all(&self) {
        for mailbox in self.0.iter() {
            mailbox.bell.notify_one();
        }
    }
}
