use super::*;

crate::contract::suite!(SegmentedCache);

/// Tests that store much do so many times less of it under Miri.
const LESS: u64 = if cfg!(miri) { 100 } else { 1 };

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
    SegmentedCache::new(Config::new(entries * (size_of_entry(8 + 40) as u64 + 32)))
}

#[test]
#[cfg_attr(miri, ignore = "about sizes, and long")]
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
#[cfg_attr(miri, ignore = "about sizes, and long")]
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
    let block_len = cache.table.blocks().block_len() as u64;
    let share = cache.blocks_per_shard as u64 / 10 * block_len;
    // One that the hand has, and the one by which it was over its share.
    assert!(negative.bytes <= share + 2 * block_len, "{share} {stats:?}");
    assert!(probation.entries > 10_000, "{stats:?}");
}

/// Wherever the hand stands: nothing that is removed later would lead to the block that it has.
#[test]
#[cfg_attr(miri, ignore = "about sizes, and long")]
fn the_hand_keeps_no_block_of_which_nothing_is_left() {
    let cache = with_room_for(10_000);
    for number in 0..100_000_u64 {
        let bytes = number.to_ne_bytes();
        let key = Key { hash: mixed(number), bytes: &bytes };
        // Lengths differ, so that the hand's steps end anywhere in a block.
        let answer = &[7; 80][..mixed(number) as usize % 80];
        let entry = NewEntry { answer, ttl_s: 3600, stale_s: 0, kind: Kind::Data };
        assert_eq!(cache.insert(key, entry, 0), Inserted::Stored);
        for index in 0..cache.shards.len() {
            assert!(!cache.lock(index).segments.hand_is_dead(), "after {number}");
        }
    }
    assert!(cache.stats().evicted > 20_000);
    cache.clear();
    cache.settle();
    assert_eq!((cache.stats().entries, cache.stats().bytes), (0, 0));
}

/// While a reader stays pinned nothing is freed: the cache refuses inserts, says so, goes on to
/// answer, and recovers when the reader is gone.
#[test]
fn a_pinned_reader_bounds_what_is_retired() {
    let cache = with_room_for(50_000 / LESS);
    for number in 0..100_000 / LESS {
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
    let block_len = cache.table.blocks().block_len() as u64;
    assert!(stats.retired_bytes <= cache.retired_max + block_len, "{stats:?}");
    assert_eq!(stats.refused, 1);
    let new = 1_000_000..refused_at;
    assert!(new.end - new.start > 500 / LESS, "{new:?}");
    let known = new
        .clone()
        .filter(|number| {
            let bytes = number.to_ne_bytes();
            let key = Key { hash: mixed(*number), bytes: &bytes };
            cache.with(&pin, key, 0, |found| found != Lookup::Miss)
        })
        .count();
    assert!(known as u64 * 10 > (new.end - new.start) * 9, "{known} of {new:?}");
    drop(pin);
    assert_eq!(insert(refused_at), Inserted::Stored);
}

#[test]
#[cfg_attr(miri, ignore = "about sizes, and long")]
fn memory_is_freed_with_the_cache_and_counted_before() {
    let cache = with_room_for(1_000);
    for number in 0..5_000 {
        ask(&cache, number, Kind::Data);
    }
    cache.settle();
    let stats = cache.stats();
    assert_eq!(stats.retired_bytes, 0);
    assert!(stats.entries > 500 && stats.entries + stats.evicted == 5_000, "{stats:?}");
}

/// A lookup must not go unprotected because a guard of another cache was passed.
#[test]
#[should_panic(expected = "pinned for another cache")]
fn a_pin_is_good_for_its_own_cache_only() {
    let [one, other] = [with_room_for(100), with_room_for(100)];
    one.with(&other.pin(), Key { hash: 1, bytes: b"k" }, 0, |_| ());
}

/// The ceiling of the slots' numbers is one of the table, not of the budget.
#[test]
fn the_table_of_a_huge_budget_has_a_bound() {
    for max_bytes in [256 << 30, 1 << 40, u64::MAX] {
        let Dimensions { shards, buckets, .. } = Dimensions::new(max_bytes);
        let slots = shards * buckets * table::SLOTS as u64;
        assert!((1 << 31..1 << 32).contains(&slots), "{max_bytes}: {slots}");
    }
}

/// Whatever the budget is: the table and all blocks are within it, and nearly all of it is used.
#[test]
fn the_budget_is_divided_without_a_rest() {
    for max_bytes in [0, 1, 5000, 40_000, 1 << 20, 3 << 20, 5 << 20, 64 << 20, 300 << 20, 16 << 30]
    {
        let dimensions = Dimensions::new(max_bytes);
        let Dimensions { shards, buckets, blocks, block_len, retired } = dimensions;
        assert!(shards >= 1 && buckets >= 2 && block_len <= BLOCK_LEN_MAX, "{dimensions:?}");
        let table = shards * buckets * table::BUCKET_LEN;
        assert!(table <= max_bytes / 8 + 128, "{max_bytes}: {dimensions:?}");
        assert!(table + blocks * block_len <= max_bytes + 128, "{max_bytes}: {dimensions:?}");
        if max_bytes >= 40_000 {
            assert!(
                table + blocks * block_len > max_bytes / 20 * 19,
                "{max_bytes}: {dimensions:?}"
            );
            assert!((blocks - retired) / shards >= 24, "{max_bytes}: {dimensions:?}");
            assert!(retired * block_len <= max_bytes / 9, "{max_bytes}: {dimensions:?}");
        }
        if max_bytes >= 4 << 20 {
            assert_eq!(block_len, BLOCK_LEN_MAX, "the longest answer has room: {max_bytes}");
        }
    }
}

#[test]
fn a_cache_too_small_for_anything_works() {
    for max_bytes in [0, 100, 300, 2048, 10_000] {
        let cache = SegmentedCache::new(Config::new(max_bytes));
        for number in 0..1000 / LESS {
            let bytes = number.to_ne_bytes();
            let kind = [Kind::Data, Kind::Negative, Kind::Failure][number as usize % 3];
            let key = Key { hash: mixed(number % 40), bytes: &bytes };
            cache.insert(key, NewEntry { answer: &[7; 40], ttl_s: 3600, stale_s: 0, kind }, 0);
            cache.expire(number, usize::MAX);
            let stats = cache.stats();
            assert!(stats.bytes - stats.retired_bytes <= max_bytes, "{max_bytes} {stats:?}");
        }
        cache.clear();
        cache.settle();
        assert_eq!((cache.stats().bytes, cache.stats().entries), (0, 0));
    }
}

/// An answer that comes and goes leaves a hole behind each time, but a block of holes is free.
#[test]
fn what_is_replaced_leaves_little_behind() {
    let cache = with_room_for(100_000 / LESS);
    for number in 0..200 {
        ask(&cache, number, Kind::Data);
    }
    let before = cache.stats().bytes;
    let bytes = 7u64.to_ne_bytes();
    let key = Key { hash: mixed(7), bytes: &bytes };
    for round in 0..100_000 / LESS {
        let kind = if round % 2 == 0 { Kind::Negative } else { Kind::Data };
        cache.insert(key, NewEntry { answer: &[7; 40], ttl_s: 3600, stale_s: 0, kind }, 0);
        let stats = cache.stats();
        let grown = stats.bytes - stats.retired_bytes - before;
        assert!(grown <= 4 * cache.table.blocks().block_len() as u64, "{round}: {grown}");
    }
}

/// Where all that is known is refreshed again and again, holes take little of the room: nearly all
/// of what fits is kept.
#[test]
#[cfg_attr(miri, ignore = "about sizes, and long")]
fn what_is_refreshed_is_not_pushed_out_by_its_own_holes() {
    const KNOWN: u64 = 8_000;
    let cache = with_room_for(10_000);
    let mut random = 0;
    let mut known = 0;
    for round in 0..40 * KNOWN {
        // Half of all refreshes are of a tenth of the names.
        random = mixed(random + round);
        let number = if random % 2 == 0 { random / 2 % (KNOWN / 10) } else { random / 2 % KNOWN };
        let bytes = number.to_ne_bytes();
        let key = Key { hash: mixed(number), bytes: &bytes };
        known += u64::from(cache.with(&cache.pin(), key, 0, |found| found != Lookup::Miss));
        let entry = NewEntry { answer: &[7; 40], ttl_s: 3600, stale_s: 0, kind: Kind::Data };
        assert_eq!(cache.insert(key, entry, 0), Inserted::Stored);
    }
    let stats = cache.stats();
    assert!(known > 38 * KNOWN, "{known} of {} {stats:?}", 40 * KNOWN);
    assert!(stats.entries * 20 > KNOWN * 19, "{stats:?}");
}

/// Answers of other sizes come in the place of those before, and the memory is the same.
#[test]
#[cfg_attr(miri, ignore = "about sizes, and long")]
fn a_shift_of_sizes_stays_within_the_budget() {
    let max_bytes = 8 << 20;
    let cache = SegmentedCache::new(Config::new(max_bytes));
    let longest = (cache.table.blocks().block_len() - 64).min(MAX_ANSWER_LEN) as u64;
    let answer = vec![7; longest as usize];
    let mut number = 0u64;
    for len in [40, longest, 300, 3000, longest / 2, 100] {
        let mut bytes_in = 0;
        while bytes_in < 3 * max_bytes {
            number += 1;
            let bytes = number.to_ne_bytes();
            let key = Key { hash: mixed(number), bytes: &bytes };
            let answer = &answer[..len as usize];
            let entry = NewEntry { answer, ttl_s: 3600, stale_s: 0, kind: Kind::Data };
            assert_eq!(cache.insert(key, entry, 0), Inserted::Stored);
            cache.with(&cache.pin(), key, 0, |found| assert!(found != Lookup::Miss));
            bytes_in += len;
        }
        let stats = cache.stats();
        assert!(stats.bytes + stats.table_bytes <= max_bytes, "{stats:?}");
        // What is longer than half a block leaves the rest of it empty.
        let used = stats.bytes * if len == longest / 2 { 2 } else { 1 };
        assert!(used > max_bytes / 10 * 7, "{len}: {stats:?}");
    }
}

/// What a flush leaves to be freed must not choke the inserts after it.
#[test]
fn a_clear_frees_as_it_goes() {
    let cache = with_room_for(100_000 / LESS);
    for number in 0..100_000 / LESS {
        ask(&cache, number, Kind::Data);
    }
    cache.clear();
    let stats = cache.stats();
    assert!(stats.entries == 0 && stats.retired_bytes <= cache.retired_max, "{stats:?}");
    for number in 0..1000 / LESS {
        ask(&cache, number, Kind::Data);
    }
    assert_eq!(cache.stats().refused, 0);
}

/// What was held counts as held, not as refused besides.
#[test]
fn a_failure_held_is_not_counted_as_refused() {
    let cache = with_room_for(1000);
    let key = Key { hash: 1, bytes: b"k" };
    let data = NewEntry { answer: b"a", ttl_s: 60, stale_s: 0, kind: Kind::Data };
    assert_eq!(cache.insert(key, data, 0), Inserted::Stored);
    let answer = vec![0; MAX_ANSWER_LEN + 1];
    let failure = NewEntry { answer: &answer, kind: Kind::Failure, ..data };
    assert_eq!(cache.insert(key, failure, 0), Inserted::Held);
    assert_eq!(cache.stats().too_large, 0);
}
