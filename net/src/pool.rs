//! Buffers for what is longer-lived than a slot: TCP frames, upstream responses, answers on their
//! way between threads.
//!
//! Each thread keeps a few free buffers per size class and takes from them without a lock. A buffer
//! goes to the pool of the thread that drops it, so one that crosses threads simply changes its
//! home.
//!
//! Bound: per thread and class, free buffers of [`KEPT_BYTES`] in all (128 of 512 bytes, 64 of
//! 1024, 16 of 4096); more are freed. Larger buffers than the largest class are allocated and freed
//! each time.

use std::cell::RefCell;
use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut};

use bytes::Bytes;

/// The size classes, in bytes.
pub const CLASSES: [usize; 3] = [512, 1024, 4096];

/// Bytes of free buffers that a thread keeps in each class.
pub const KEPT_BYTES: usize = 64 * 1024;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool::new()) };
}

/// A byte buffer from the current thread's pool, back in the pool of whichever thread drops it.
///
/// Its length can shrink and grow within its capacity; the bytes beyond what was written are old
/// ones.
pub struct PooledBuf {
    /// Empty only while it is dropped.
    bytes: Box<[u8]>,
    len: usize,
}

impl PooledBuf {
    /// A buffer of `len` bytes, which may hold anything that was in it before.
    pub fn new(len: usize) -> Self {
        let bytes = match class_of(len) {
            Some(class) => with_pool(|pool| pool.take(class))
                .flatten()
                .unwrap_or_else(|| new_bytes(CLASSES[class])),
            None => new_bytes(len),
        };
        Self { bytes, len }
    }

    /// How long it can become, in bytes.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Sets the length, at most the [`capacity`](Self::capacity).
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.capacity());
    }

    /// Shares the buffer without copying it; it returns to the pool of the thread that drops the
    /// last handle.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for PooledBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DerefMut for PooledBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl AsRef<[u8]> for PooledBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for PooledBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledBuf")
            .field("len", &self.len)
            .field("capacity", &self.capacity())
            .finish()
    }
}

impl Drop for PooledBuf {
    fn drop(&mut self) {
        let bytes = mem::take(&mut self.bytes);
        // While its thread ends there is no pool any more, and the buffer is simply freed.
        with_pool(|pool| pool.put(bytes));
    }
}

/// How the current thread's pool did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Buffers taken from the pool.
    pub hits: u64,
    /// Buffers of a size class that had to be allocated.
    pub misses: u64,
    /// Buffers of a size class that were freed because the pool was full.
    pub overflows: u64,
}

/// Reads the counters of the current thread's pool.
pub fn stats() -> Stats {
    with_pool(|pool| pool.stats).unwrap_or_default()
}

struct Pool {
    free: [Vec<Box<[u8]>>; CLASSES.len()],
    stats: Stats,
}

impl Pool {
    const fn new() -> Self {
        Self {
            free: [const { Vec::new() }; CLASSES.len()],
            stats: Stats { hits: 0, misses: 0, overflows: 0 },
        }
    }

    fn take(&mut self, class: usize) -> Option<Box<[u8]>> {
        let bytes = self.free[class].pop();
        match bytes {
            Some(_) => self.stats.hits += 1,
            None => self.stats.misses += 1,
        }
        bytes
    }

    fn put(&mut self, bytes: Box<[u8]>) {
        let Some(class) = CLASSES.iter().position(|&len| len == bytes.len()) else { return };
        let free = &mut self.free[class];
        let kept = KEPT_BYTES / CLASSES[class];
        if free.len() == kept {
            self.stats.overflows += 1;
        } else {
            // The list itself is allocated once.
            free.reserve_exact(kept - free.len());
            free.push(bytes);
        }
    }
}

fn with_pool<R>(f: impl FnOnce(&mut Pool) -> R) -> Option<R> {
    POOL.try_with(|pool| f(&mut pool.borrow_mut())).ok()
}

fn class_of(len: usize) -> Option<usize> {
    CLASSES.iter().position(|&class| len <= class)
}

fn new_bytes(len: usize) -> Box<[u8]> {
    vec![0; len].into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Take(usize),
        Drop(usize),
        Share(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0usize..6000).prop_map(Step::Take),
            2 => any::<usize>().prop_map(Step::Drop),
            1 => any::<usize>().prop_map(Step::Share),
        ]
    }

    /// The naive model: how many buffers of each class lie free.
    fn expect_take(free: &mut [usize; 3], len: usize) -> bool {
        let Some(class) = class_of(len) else { return false };
        let hit = free[class] > 0;
        free[class] -= usize::from(hit);
        hit
    }

    fn expect_drop(free: &mut [usize; 3], len: usize) {
        if let Some(class) = class_of(len) {
            free[class] = (free[class] + 1).min(KEPT_BYTES / CLASSES[class]);
        }
    }

    proptest! {
        #[test]
        fn buffers_are_reused_as_in_the_model_and_never_shared(
            steps in prop::collection::vec(step(), 1..300),
        ) {
            // A fresh thread has a fresh pool.
            thread::scope(|scope| scope.spawn(|| {
                let mut free = [0; 3];
                let mut held: Vec<(u8, PooledBuf)> = Vec::new();
                for (mark, step) in steps.into_iter().enumerate() {
                    match step {
                        Step::Take(len) => {
                            let hits = stats().hits;
                            let mut buf = PooledBuf::new(len);
                            prop_assert_eq!(buf.len(), len);
                            let expected = u64::from(expect_take(&mut free, len));
                            prop_assert_eq!(stats().hits - hits, expected);
                            buf.fill(mark as u8);
                            held.push((mark as u8, buf));
                        }
                        Step::Drop(at) | Step::Share(at) if !held.is_empty() => {
                            let (mark, buf) = held.swap_remove(at % held.len());
                            prop_assert!(buf.iter().all(|&byte| byte == mark));
                            expect_drop(&mut free, buf.len());
                            if matches!(step, Step::Share(_)) {
                                let bytes = buf.into_bytes();
                                let clone = bytes.clone();
                                drop(bytes);
                                prop_assert!(clone.iter().all(|&byte| byte == mark));
                            }
                        }
                        _ => {}
                    }
                }
                Ok(())
            }).join().unwrap())?;
        }
    }

    #[test]
    fn a_buffer_goes_to_the_pool_of_the_thread_that_drops_it() {
        let mut buf = PooledBuf::new(5);
        buf.copy_from_slice(b"hello");
        let bytes = buf.into_bytes();
        let theirs = thread::spawn(move || {
            assert_eq!(&bytes[..], b"hello");
            let before = stats();
            drop(bytes);
            let buf = PooledBuf::new(100);
            (before, stats(), buf.capacity())
        });
        let (before, after, capacity) = theirs.join().unwrap();
        assert_eq!((after.hits - before.hits, capacity), (1, 512));
    }

    #[test]
    fn a_full_pool_frees_and_counts() {
        thread::spawn(|| {
            let kept = KEPT_BYTES / 4096;
            drop((0..kept + 3).map(|_| PooledBuf::new(4000)).collect::<Vec<_>>());
            assert_eq!(stats(), Stats { hits: 0, misses: kept as u64 + 3, overflows: 3 });
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_length_stays_within_the_capacity() {
        let mut buf = PooledBuf::new(600);
        buf.set_len(5000);
        assert_eq!((buf.len(), buf.capacity()), (1024, 1024));
        buf.set_len(3);
        assert_eq!(buf.len(), 3);
    }
}
