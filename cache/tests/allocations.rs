//! What a cache really allocates: its budget, or per entry what it says, and nothing on a hit.
//!
//! In a process of its own with one test, because memory that one cache gives up may be freed by a
//! thread that uses another.

use swiftlet_cache::{Config, Key, Kind, Lookup, NewEntry, SegmentedCache, Store};

/// The answers to the numbers `0..count`, keyed by their bytes and a well mixed hash.
fn fill<S: Store>(cache: &S, count: u64, answer: &[u8]) {
    for number in 0..count {
        let bytes = number.to_ne_bytes();
        let entry = NewEntry { answer, ttl_s: 3600, stale_s: 0, kind: Kind::Data };
        cache.insert(key(number, &bytes), entry, 0);
    }
    cache.settle();
}

fn key(number: u64, bytes: &[u8]) -> Key<'_> {
    let hash = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Key { hash: hash ^ (hash >> 32), bytes }
}

#[test]
fn memory_is_what_it_says_and_hits_allocate_nothing() {
    memory_is_taken_once();
    hits_allocate::<SegmentedCache>(0);
    // Moka's maintenance hands a bag of garbage on to its epoch collector now and then, even when
    // it holds nothing of ours: once in 127 hits.
    #[cfg(feature = "moka-cache")]
    {
        entries_weigh_what_they_allocate::<swiftlet_cache::MokaCache>();
        hits_allocate::<swiftlet_cache::MokaCache>(10);
    }
}

/// The budget, when the cache is made; and next to nothing after that, whatever comes and goes.
fn memory_is_taken_once() {
    let config = Config::new(16 << 20);
    let mut filled = None;
    let allocated = allocation_counter::measure(|| filled = Some(SegmentedCache::new(config)));
    let cache = filled.expect("was made");
    let of_budget = |bytes: i64| bytes as f64 / config.max_bytes as f64;
    let at_first = of_budget(allocated.bytes_current);
    assert!((0.97..1.01).contains(&at_first), "{at_first}");
    for (count, answer_len) in [(300_000, 40), (50_000, 1200), (300_000, 100), (1_000, 60_000)] {
        let answer = vec![7; answer_len];
        let allocated = allocation_counter::measure(|| fill(&cache, count, &answer));
        let grown = of_budget(allocated.bytes_current).abs();
        assert!(grown < 0.005, "{count} x {answer_len}: {grown}");
        let stats = cache.stats();
        assert!(stats.evicted > 0 && stats.bytes + stats.table_bytes <= config.max_bytes);
    }
}

/// An entry counts with what it allocates.
#[cfg(feature = "moka-cache")]
fn entries_weigh_what_they_allocate<S: Store>() {
    let config = Config::new(1 << 30);
    for (count, answer_len) in [(10_000, 40), (20_000, 100), (30_000, 100), (5_000, 1200)] {
        let answer = vec![7; answer_len];
        let mut filled = None;
        let allocated = allocation_counter::measure(|| {
            filled = Some(S::new(config));
            filled.iter().for_each(|cache| fill(cache, count, &answer));
        });
        let cache = filled.expect("was filled");
        let stats = cache.stats();
        assert_eq!(stats.entries, count);
        // The rest is what an allocator rounds up.
        let real = |bytes: i64| (bytes - stats.table_bytes as i64) as f64 / stats.bytes as f64;
        let now = real(allocated.bytes_current);
        assert!((0.85..1.05).contains(&now), "{count} x {answer_len}: {now}");

        // What takes the place of another leaves nothing of it behind.
        let replaced = allocation_counter::measure(|| fill(&cache, count, &answer));
        assert_eq!(cache.stats(), stats);
        let then = real(allocated.bytes_current + replaced.bytes_current);
        assert!((0.85..1.05).contains(&then), "{count} x {answer_len} replaced: {then}");
    }
}

/// With at most so many allocations in a thousand hits.
fn hits_allocate<S: Store>(per_thousand: u64) {
    const COUNT: u64 = 20_000;
    let cache = S::new(Config::new(1 << 30));
    fill(&cache, COUNT, &[7; 40]);
    let allocated = allocation_counter::measure(|| {
        let mut pin = cache.pin();
        for number in 0..COUNT {
            if number % 64 == 0 {
                pin = cache.pin();
            }
            let bytes = number.to_ne_bytes();
            let is_fresh = |found: Lookup<'_>| matches!(found, Lookup::Fresh(_));
            assert!(cache.with(&pin, key(number, &bytes), 1000, is_fresh));
        }
    });
    assert!(allocated.count_total <= COUNT * per_thousand / 1000, "{allocated:?}");
    assert!(allocated.bytes_current.abs() < 8192, "{allocated:?}");
}
