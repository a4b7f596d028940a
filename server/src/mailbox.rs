//! Mail between workers: bounded queues for each, and the bell that wakes it.
//!
//! A miss goes to the worker that owns its key, so that one question is in flight for a key in the
//! whole process without any lock. An answer for a TCP client goes to the worker that has the
//! connection. Bounds: [`CAPACITY`] misses a worker; a miss that finds no room comes back to its sender,
//! who answers and counts it. Answers must not get lost, and need no bound of their own: there are at
//! most as many as queries in flight on connections. Of an operator's questions, which come last, a
//! few may wait ([`timeline::MAX_AT_ONCE`]).

use std::sync::Arc;

use crossbeam::queue::{ArrayQueue, SegQueue};
use tokio::sync::Notify;

use crate::pipeline::miss::Miss;
use crate::resolver::timeline::{self, Asked};

/// Misses that may wait for one worker: a few turns' worth of them.
pub const CAPACITY: usize = 4_096;

/// What one worker tells another.
#[derive(Debug)]
pub enum Letter {
    /// A question whose key the addressee owns.
    Miss(Miss),
    /// An answer for one of the addressee's connections.
    Answer(StreamAnswer),
    /// A question of the operator's, whose key the addressee owns.
    Asked(Asked),
}

/// An answer to a query that came over TCP.
#[derive(Debug)]
pub struct StreamAnswer {
    /// The connection's number.
    pub connection: u64,
    /// The DNS message; `None` when there is none after all.
    pub message: Option<Box<[u8]>>,
}

/// The mailboxes of all workers, by their number.
#[derive(Clone, Debug)]
pub struct Post(Arc<[Mailbox]>);

#[derive(Debug)]
struct Mailbox {
    misses: ArrayQueue<Miss>,
    answers: SegQueue<StreamAnswer>,
    asked: ArrayQueue<Asked>,
    bell: Notify,
}

impl Post {
    /// Empty mailboxes for `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let mailbox = |_| Mailbox {
            misses: ArrayQueue::new(CAPACITY),
            answers: SegQueue::new(),
            asked: ArrayQueue::new(timeline::MAX_AT_ONCE),
            bell: Notify::new(),
        };
        Self((0..workers).map(mailbox).collect())
    }

    /// The worker that owns the keys of this hash.
    #[must_use]
    pub fn owner(&self, hash: u64) -> usize {
        (hash % self.0.len() as u64) as usize
    }

    /// Hands a miss to a worker and wakes it; gives it back when that worker's mailbox is full.
    #[expect(clippy::result_large_err, reason = "the miss comes back whole, to be answered")]
    pub fn send_miss(&self, to: usize, miss: Miss) -> Result<(), Miss> {
        let mailbox = &self.0[to];
        mailbox.misses.push(miss)?;
        mailbox.bell.notify_one();
        Ok(())
    }

    /// Hands an answer to the worker that has the connection, and wakes it.
    pub fn send_answer(&self, to: usize, answer: StreamAnswer) {
        let mailbox = &self.0[to];
        mailbox.answers.push(answer);
        mailbox.bell.notify_one();
    }

    /// Hands a question of the operator's to a worker and wakes it; false when that has too many already.
    #[must_use]
    pub fn send_asked(&self, to: usize, asked: Asked) -> bool {
        let mailbox = &self.0[to];
        let taken = mailbox.asked.push(asked).is_ok();
        mailbox.bell.notify_one();
        taken
    }

    /// The next letter for a worker: answers first, for their clients have waited longest.
    #[must_use]
    pub fn take(&self, worker: usize) -> Option<Letter> {
        let mailbox = &self.0[worker];
        let answer = || mailbox.answers.pop().map(Letter::Answer);
        let miss = || mailbox.misses.pop().map(Letter::Miss);
        answer().or_else(miss).or_else(|| mailbox.asked.pop().map(Letter::Asked))
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
