//! Coalescing: a key that is being asked for, and everyone who waits for it.
//!
//! Bounds: [`MAX_WAITERS`] a key, and as many keys as the worker was told. Being over a bound is the
//! caller's to answer and count, so the key comes back.

use std::collections::HashMap;
use std::rc::Rc;

use crate::pipeline::miss::Waiter;

/// Clients that may wait for one key.
pub(super) const MAX_WAITERS: usize = 1024;

/// What is in flight on one worker.
#[derive(Debug)]
pub(super) struct Inflight {
    waiters: HashMap<Rc<[u8]>, Vec<Waiter>>,
    max_flights: usize,
}

/// How a waiter was taken in.
#[derive(Debug)]
pub(super) enum Join {
    /// It is the first for this key: the caller asks.
    Started(Rc<[u8]>),
    /// The question is being asked already.
    Joined,
    /// As many wait for this key as may.
    TooManyWaiters(Box<[u8]>),
    /// As many keys are being asked for as may.
    TooManyFlights(Box<[u8]>),
}

impl Inflight {
    pub(super) fn new(max_flights: usize) -> Self {
        Self { waiters: HashMap::new(), max_flights }
    }

    pub(super) fn join(&mut self, key: Box<[u8]>, waiter: Waiter) -> Join {
        if let Some(waiters) = self.waiters.get_mut(&*key) {
            if waiters.len() >= MAX_WAITERS {
                return Join::TooManyWaiters(key);
            }
            waiters.push(waiter);
            return Join::Joined;
        }
        if self.waiters.len() >= self.max_flights {
            return Join::TooManyFlights(key);
        }
        let key: Rc<[u8]> = key.into();
        self.waiters.insert(Rc::clone(&key), vec![waiter]);
        Join::Started(key)
    }

    /// Ends the flight of a key and returns everyone who waited for it.
    pub(super) fn leave(&mut self, key: &[u8]) -> Vec<Waiter> {
        self.waiters.remove(key).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Forgets everything and returns how many waited.
    pub(super) fn clear(&mut self) -> usize {
        self.waiters.drain().map(|(_, waiters)| waiters.len()).sum()
    }
}
