use super::*;

crate::contract::suite!(SegmentedCache);

/// Mixes all bits, as the caller's hash does (SplitMix64).
fn mixed(number: u64) -> u64 {
    let mut hash = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Whether the answer to `number` is there; stores it as this kind if not.
fn ask(cache: &SegmentedCache, number: u64, kind: Kind) -> bool {
    let bytes = number.to_ne_bytes();
    let key = Key { hash: mixed(number), bytes: &bytes };
    let known = cache.with(&cache.pin(), key, 0, |found| found != Lookup::Miss);
    if !known {
        let entry = NewEntry { answer: &[7; 40], ttl_s: 3600, stale_s: 0, kind };
        assert_eq!(cache.insert(key, entry, 0), Inserted::Stored);
    }
    known
}

/// A cache with room for about so many of the entries that [`ask`] stores.
fn with_room_for(entries: u64) -> SegmentedCache {
    SegmentedCache::new(Config { max_bytes: entries * (footprint(8 + 40) + 32) })
}

#[test]
fn what_is_asked_for_survives_floods() {
    const POPULAR: u64 = 5_000;
    for flood in [Kind::Data, Kind::Negative] {
        let cache = with_room_for(10_000);
        for round in 0..4 {
            for number in 0..POPULAR {
                assert_eq!(ask(&cache, number, Kind::Data), round > 0);
            }
        }
        let mut known = 0;
        for step in 0..100_000 {
            ask(&cache, 1_000_000 + step, flood);
            known += u64::from(ask(&cache, step % POPULAR, Kind::Data));
        }
        assert!(known > 99_000, "{known} of 100,000 in a flood of {flood:?}");
    }
}

#[test]
fn negative_answers_stay_within_their_share_when_room_is_short() {
    let cache = with_room_for(20_000);
    for number in 0..40_000 {
        ask(&cache, number, Kind::Data);
    }
    for number in 0..100_000 {
        ask(&cache, 1_000_000 + number, Kind::Negative);
        ask(&cache, 1_000_000 + number, Kind::Negative);
    }
    let stats = cache.stats();
    let [probation, negative, _] = stats.segments;
    let share = cache.shard_budget * cache.shards.len() as u64 / 10;
    assert!(negative.bytes <= share + share / 20, "{share} {stats:?}");
    assert!(probation.entries > 10_000, "{stats:?}");
}

/// While a reader stays pinned nothing is freed: the cache refuses inserts, says so, goes on to
/// answer, and recovers when the reader is gone.
#[test]
fn a_pinned_reader_bounds_what_is_retired() {
    let cache = with_room_for(50_000);
    for number in 0..100_000 {
        ask(&cache, number, Kind::Data);
    }
    let pin = cache.pin();
    let insert = |number: u64| {
        let bytes = number.to_ne_bytes();
        let entry = NewEntry { answer: &[7; 40], ttl_s: 3600, stale_s: 0, kind: Kind::Data };
        cache.insert(Key { hash: mixed(number), bytes: &bytes }, entry, 0)
    };
    let refused_at = (1_000_000..2_000_000).find(|&number| insert(number) == Inserted::Refused);
    let refused_at = refused_at.expect("inserts are refused before long");
    let stats = cache.stats();
    assert!(stats.retired_bytes <= cache.retired_max + 4096, "{stats:?}");
    assert_eq!(stats.refused, 1);
    let known = (refused_at - 1_000..refused_at)
        .filter(|number| {
            let bytes = number.to_ne_bytes();
            let key = Key { hash: mixed(*number), bytes: &bytes };
            cache.with(&pin, key, 0, |found| found != Lookup::Miss)
        })
        .count();
    assert!(known > 900, "{known}");
    drop(pin);
    assert_eq!(insert(refused_at), Inserted::Stored);
}

#[test]
fn memory_is_freed_with_the_cache_and_counted_before() {
    let cache = with_room_for(1_000);
    for number in 0..5_000 {
        ask(&cache, number, Kind::Data);
    }
    cache.settle();
    let stats = cache.stats();
    assert_eq!(stats.retired_bytes, 0);
    assert!(stats.entries > 500 && stats.entries + stats.evicted == 5_000, "{stats:?}");
    let retired = Arc::downgrade(&cache.retired);
    drop(cache);
    assert!(retired.upgrade().is_none());
}
