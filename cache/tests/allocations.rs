//! What the cache really allocates: per entry what it says, and next to nothing on a hit.
//!
//! In a process of its own with one test, because memory that one cache gives up may be freed by a
//! thread that uses another.

#![cfg(feature = "moka-cache")]

use swiftlet_cache::{AnswerCache, Config, Key, Lookup, NewEntry, Store};

/// The answers to the numbers `0..count`, keyed by their bytes and a well mixed hash.
fn fill(cache: &AnswerCache, count: u64, answer: &[u8]) {
    for number in 0..count {
        let bytes = number.to_ne_bytes();
        let entry = NewEntry { answer, ttl_s: 3600, stale_s: 0, negative: false };
        cache.insert(key(number, &bytes), entry, 0);
    }
    cache.settle();
}

fn key(number: u64, bytes: &[u8]) -> Key<'_> {
    let hash = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Key { hash: hash ^ (hash >> 32), bytes }
}

#[test]
fn entries_weigh_what_they_allocate_and_hits_allocate_next_to_nothing() {
    let config = Config { max_bytes: 1 << 30 };
    for (count, answer_len) in [(10_000, 40), (20_000, 100), (30_000, 100), (5_000, 1200)] {
        let answer = vec![7; answer_len];
        let mut filled = None;
        let allocated = allocation_counter::measure(|| {
            filled = Some(AnswerCache::new(config));
            filled.iter().for_each(|cache| fill(cache, count, &answer));
        });
        let cache = filled.expect("was filled");
        let stats = cache.stats();
        assert_eq!(stats.entries, count);
        // The rest is what an allocator rounds up.
        let real = allocated.bytes_current as f64 / stats.bytes as f64;
        assert!((0.85..1.0).contains(&real), "{count} x {answer_len}: {real}");

        // What takes the place of another leaves nothing of it behind.
        let replaced = allocation_counter::measure(|| fill(&cache, count, &answer));
        assert_eq!(cache.stats(), stats);
        let left = (allocated.bytes_current + replaced.bytes_current) as f64 / stats.bytes as f64;
        assert!((0.85..1.0).contains(&left), "{count} x {answer_len} replaced: {left}");

        let allocated = allocation_counter::measure(|| {
            let pin = cache.pin();
            for number in 0..count {
                let bytes = number.to_ne_bytes();
                let is_fresh = |found: Lookup<'_>| matches!(found, Lookup::Fresh(_));
                assert!(cache.with(&pin, key(number, &bytes), 1000, is_fresh));
            }
        });
        // Moka's maintenance hands a bag of garbage on to its epoch collector now and then, even
        // when it holds nothing of ours.
        assert!(allocated.count_total <= count / 100, "{allocated:?}");
        assert!(allocated.bytes_current.abs() < 8192, "{allocated:?}");
    }
}
