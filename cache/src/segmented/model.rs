//! The cache under loom: each way in which a few threads may meet, with all that the memory model
//! lets them see. Each test also fails if an entry is leaked, or freed twice or while it is read.

use std::sync::Arc;

use loom::model::Builder;
use loom::sync::atomic::{AtomicU8, Ordering::Acquire, Ordering::Release};
use loom::thread;

use super::*;

/// Runs a test for every order in which the threads are interrupted at most so many times.
fn check(interruptions: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(interruptions);
    builder.max_branches = 10_000;
    builder.check(test);
}

/// A cache with one shard of two buckets, and room for two answers of [`LEN`].
fn small() -> Arc<SegmentedCache> {
    Arc::new(SegmentedCache::new(Config::new(5000)))
}

/// Bytes of an answer, each of which names it.
const LEN: usize = 800;

/// All keys have one hash, and so meet in the same buckets.
fn key(bytes: &[u8; 1]) -> Key<'_> {
    Key { hash: 0, bytes }
}

fn insert(cache: &SegmentedCache, bytes: u8, answer: u8, kind: Kind) {
    assert_eq!(try_insert(cache, bytes, answer, kind), Inserted::Stored);
}

fn try_insert(cache: &SegmentedCache, bytes: u8, answer: u8, kind: Kind) -> Inserted {
    let answer = [answer; LEN];
    let entry = NewEntry { answer: &answer, ttl_s: 60, stale_s: 0, kind };
    cache.insert(key(&[bytes]), entry, 0)
}

/// The name of the answer to a key.
fn look(cache: &SegmentedCache, bytes: u8) -> Option<u8> {
    let pin = cache.pin();
    cache.with(&pin, key(&[bytes]), 0, |found| match found {
        Lookup::Fresh(hit) => {
            assert!(hit.answer.len() == LEN && hit.answer.iter().all(|&b| b == hit.answer[0]));
            Some(hit.answer[0])
        }
        Lookup::Stale(_) => panic!("the clock stands still"),
        Lookup::Miss => None,
    })
}

#[test]
fn what_was_replaced_is_not_seen_again() {
    check(4, || {
        let (cache, inserted) = (small(), Arc::new(AtomicU8::new(1)));
        insert(&cache, 7, 1, Kind::Data);
        let writer = {
            let (cache, inserted) = (Arc::clone(&cache), Arc::clone(&inserted));
            thread::spawn(move || {
                insert(&cache, 7, 2, Kind::Data);
                inserted.store(2, Release);
                insert(&cache, 7, 3, Kind::Negative);
                inserted.store(3, Release);
            })
        };
        let mut last = 0;
        for _ in 0..2 {
            let inserted = inserted.load(Acquire);
            if let Some(seen) = look(&cache, 7) {
                assert!(seen >= inserted && seen >= last, "{seen} {inserted} {last}");
                last = seen;
            }
        }
        writer.join().expect("no panic");
        assert_eq!(look(&cache, 7), Some(3));
    });
}

#[test]
fn what_is_evicted_is_read_whole_or_not_at_all() {
    check(4, || {
        let cache = small();
        insert(&cache, 1, 1, Kind::Data);
        let writer = {
            let cache = Arc::clone(&cache);
            // While the reader is pinned there may be no block left to fill.
            thread::spawn(move || (2..5).for_each(|b| _ = try_insert(&cache, b, b, Kind::Data)))
        };
        for bytes in 1..3 {
            let seen = look(&cache, bytes);
            assert!([None, Some(bytes)].contains(&seen), "{seen:?}");
        }
        writer.join().expect("no panic");
        assert!(cache.stats().evicted > 0);
        assert!([None, Some(4)].contains(&look(&cache, 4)));
    });
}

#[test]
fn two_writers_and_a_reader() {
    check(3, || {
        let cache = small();
        insert(&cache, 7, 1, Kind::Data);
        let run = |write: fn(&SegmentedCache)| {
            let cache = Arc::clone(&cache);
            thread::spawn(move || write(&cache))
        };
        let writers = [
            run(|cache| insert(cache, 7, 2, Kind::Data)),
            run(|cache| {
                cache.remove(key(&[7]));
                cache.expire(60_000, 1);
            }),
        ];
        let seen = look(&cache, 7);
        assert!(seen.is_none_or(|seen| seen == 1 || seen == 2), "{seen:?}");
        for writer in writers {
            writer.join().expect("no panic");
        }
        let stats = cache.stats();
        assert_eq!(stats.entries, u64::from(look(&cache, 7).is_some()), "{stats:?}");
        assert_eq!(stats.retired_bytes, 0);
    });
}
