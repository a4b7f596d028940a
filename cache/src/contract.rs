//! What every [`Store`] must do, as tests that are generic over it.
//!
//! `suite!(Type)` in an implementation's test module runs all of them, the random histories against
//! [`Model`] first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use crate::{
    Config, Hit, Inserted, Key, Kind, Lookup, MAX_ANSWER_LEN, MAX_KEY_LEN, NewEntry, Store,
};

/// Runs the contract's tests for one implementation.
macro_rules! suite {
    ($store:ty) => {
        $crate::contract::suite!(@each $store:
            random_histories_match_the_model,
            ttl_zero_is_not_stored_and_supersedes,
            the_longest_ttls_do_not_overflow,
            never_fresh_at_its_ttl,
            the_stale_window_ends,
            a_clock_stepping_back_gives_age_zero,
            refresh_is_due_in_the_last_tenth_only,
            keys_with_one_hash_are_kept_apart,
            an_insert_replaces,
            a_failure_replaces_nothing_and_holds_back_the_refresh,
            remove_if_removes_what_it_says,
            what_is_past_its_stale_time_is_reclaimed,
            too_large_is_refused_and_supersedes,
            clear_forgets_everything,
            the_byte_bound_holds,
            two_threads_see_whole_entries,
        );
    };
    (@each $store:ty: $($test:ident,)*) => {
        mod contract {
            use super::*;

            $(#[test]
            fn $test() {
                $crate::contract::$test::<$store>();
            })*
        }
    };
}
pub(crate) use suite;

/// Room for everything that a test stores. Under Miri a small table, for each look at it takes time with its size.
const ROOMY: Config = Config::new(if cfg!(miri) { 1 << 17 } else { 1 << 26 });

/// Tests that store much do so many times less of it under Miri.
const LESS: u64 = if cfg!(miri) { 40 } else { 1 };

fn key(hash: u64, bytes: &[u8]) -> Key<'_> {
    Key { hash, bytes }
}

fn new(answer: &[u8], ttl_s: u32, stale_s: u32) -> NewEntry<'_> {
    NewEntry { answer, ttl_s, stale_s, kind: Kind::Data }
}

/// A [`Lookup`] that owns its bytes.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Fresh { answer: Vec<u8>, age_s: u32, retry_held: bool },
    Stale { answer: Vec<u8>, age_s: u32, retry_held: bool },
    Miss,
}

fn fresh(answer: &[u8], age_s: u32) -> Seen {
    Seen::Fresh { answer: answer.to_vec(), age_s, retry_held: false }
}

fn stale(answer: &[u8], age_s: u32) -> Seen {
    Seen::Stale { answer: answer.to_vec(), age_s, retry_held: false }
}

fn look<S: Store>(store: &S, key: Key<'_>, now_ms: u64) -> Seen {
    let pin = store.pin();
    store.prefetch(key.hash);
    store.prefetch_entry(&pin, key.hash);
    store.with(&pin, key, now_ms, |found| match found {
        Lookup::Fresh(Hit { answer, age_s, retry_held, refresh_due }) => {
            assert!(!(retry_held && refresh_due), "a refresh is held back or due");
            Seen::Fresh { answer: answer.to_vec(), age_s, retry_held }
        }
        Lookup::Stale(Hit { answer, age_s, refresh_due, retry_held }) => {
            assert!(!refresh_due, "a stale hit is past refreshing ahead");
            Seen::Stale { answer: answer.to_vec(), age_s, retry_held }
        }
        Lookup::Miss => Seen::Miss,
    })
}

/// The same, naively: a map, and arithmetic that cannot overflow.
#[derive(Default)]
struct Model {
    entries: HashMap<Vec<u8>, Modelled>,
}

#[derive(Clone)]
struct Modelled {
    answer: Vec<u8>,
    stored_ms: i128,
    ttl_s: i128,
    stale_s: i128,
    kind: Kind,
    retry_at_ms: i128,
}

impl Model {
    fn insert(&mut self, key: &[u8], new: NewEntry<'_>, now_ms: u64) -> Inserted {
        let (now_ms, ttl_s, stale_s) =
            (i128::from(now_ms), i128::from(new.ttl_s), i128::from(new.stale_s));
        if let Some(old) = self.entries.get_mut(key)
            && new.kind == Kind::Failure
            && old.kind != Kind::Failure
            && (now_ms - old.stored_ms).max(0) < (old.ttl_s + old.stale_s) * 1000
        {
            // Held by the whole second of the entry's age, and no longer than can be told.
            let seconds = (now_ms - old.stored_ms + ttl_s * 1000 + 999).div_euclid(1000);
            old.retry_at_ms = old.stored_ms + seconds.clamp(0, u32::MAX.into()) * 1000;
            return Inserted::Held;
        }
        self.entries.remove(key);
        if ttl_s == 0 {
            return Inserted::ZeroTtl;
        }
        let (answer, kind) = (new.answer.to_vec(), new.kind);
        let retry_at_ms = i128::MIN;
        let entry = Modelled { answer, stored_ms: now_ms, ttl_s, stale_s, kind, retry_at_ms };
        self.entries.insert(key.to_vec(), entry);
        Inserted::Stored
    }

    fn look(&self, key: &[u8], now_ms: u64) -> Seen {
        let Some(entry) = self.entries.get(key) else {
            return Seen::Miss;
        };
        let Modelled { stored_ms, ttl_s, stale_s, .. } = *entry;
        let age_ms = (i128::from(now_ms) - stored_ms).max(0);
        let age_s = u32::try_from(age_ms / 1000).unwrap_or(u32::MAX);
        let (answer, retry_held) = (entry.answer.clone(), stored_ms + age_ms < entry.retry_at_ms);
        match age_ms {
            age if age < ttl_s * 1000 => Seen::Fresh { answer, age_s, retry_held },
            age if age < (ttl_s + stale_s) * 1000 => Seen::Stale { answer, age_s, retry_held },
            _ => Seen::Miss,
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert { key: u8, answer: Vec<u8>, ttl_s: u32, stale_s: u32, kind: Kind },
    Look { key: u8 },
    Remove { key: u8 },
    Clear,
    Forward { ms: u64 },
    Back { ms: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let seconds = || prop_oneof![0..5u32, 0..100_000u32, (u32::MAX - 2)..=u32::MAX, Just(1 << 31)];
    let ms = || prop_oneof![Just(1), 0..3000u64, 0..100_000_000u64, Just(1 << 43)];
    let kind = prop_oneof![Just(Kind::Data), Just(Kind::Negative), Just(Kind::Failure)];
    let step = prop_oneof![
        4 => (0..8u8, prop::collection::vec(any::<u8>(), 0..64), seconds(), seconds(), kind)
            .prop_map(|(key, answer, ttl_s, stale_s, kind)| Step::Insert {
                key, answer, ttl_s, stale_s, kind
            }),
        8 => (0..8u8).prop_map(|key| Step::Look { key }),
        1 => (0..8u8).prop_map(|key| Step::Remove { key }),
        1 => Just(Step::Clear),
        4 => ms().prop_map(|ms| Step::Forward { ms }),
        1 => ms().prop_map(|ms| Step::Back { ms }),
    ];
    prop::collection::vec(step, 1..60)
}

/// Histories that fit the budget easily, so a store has no reason to forget anything.
pub(crate) fn random_histories_match_the_model<S: Store>() {
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 128 })
    };
    proptest!(config, |(steps in steps())| {
        let store = S::new(ROOMY);
        let mut model = Model::default();
        let mut now_ms: u64 = 1 << 40;
        for step in steps {
            // Eight keys with three hashes.
            let hash = |key: u8| u64::from(key % 3) << 62;
            match step {
                Step::Insert { key: k, answer, ttl_s, stale_s, kind } => {
                    let entry = NewEntry { kind, ..new(&answer, ttl_s, stale_s) };
                    let inserted = store.insert(key(hash(k), &[k]), entry, now_ms);
                    prop_assert_eq!(inserted, model.insert(&[k], entry, now_ms));
                }
                Step::Look { key: k } => {
                    let seen = look(&store, key(hash(k), &[k]), now_ms);
                    prop_assert_eq!(seen, model.look(&[k], now_ms));
                }
                Step::Remove { key: k } => {
                    store.remove(key(hash(k), &[k]));
                    model.entries.remove(&vec![k]);
                }
                Step::Clear => {
                    store.clear();
                    model.entries.clear();
                }
                Step::Forward { ms } => now_ms += ms,
                Step::Back { ms } => now_ms = now_ms.saturating_sub(ms),
            }
        }
        store.settle();
        prop_assert_eq!(store.stats().evicted, 0);
    });
}

pub(crate) fn ttl_zero_is_not_stored_and_supersedes<S: Store>() {
    let store = S::new(ROOMY);
    let key = key(1, b"k");
    assert_eq!(store.insert(key, new(b"a", 0, 100), 5), Inserted::ZeroTtl);
    assert_eq!(look(&store, key, 5), Seen::Miss);
    store.insert(key, new(b"a", 10, 100), 5);
    assert_eq!(store.insert(key, new(b"b", 0, 100), 6), Inserted::ZeroTtl);
    assert_eq!(look(&store, key, 6), Seen::Miss);
}

pub(crate) fn the_longest_ttls_do_not_overflow<S: Store>() {
    let store = S::new(ROOMY);
    let key = key(1, b"k");
    for ttl_s in [i32::MAX as u32, 1 << 31, u32::MAX] {
        for stored_ms in [0, 1 << 50, u64::MAX] {
            store.insert(key, new(b"a", ttl_s, u32::MAX), stored_ms);
            assert_eq!(look(&store, key, stored_ms), fresh(b"a", 0));
        }
        store.insert(key, new(b"a", ttl_s, u32::MAX), 0);
        let end_ms = u64::from(ttl_s) * 1000;
        assert_eq!(look(&store, key, end_ms - 1), fresh(b"a", ttl_s - 1));
        assert_eq!(look(&store, key, end_ms), stale(b"a", ttl_s));
        let gone_ms = end_ms + u64::from(u32::MAX) * 1000;
        assert_eq!(look(&store, key, gone_ms - 1), stale(b"a", u32::MAX));
        assert_eq!(look(&store, key, gone_ms), Seen::Miss);
        assert_eq!(look(&store, key, u64::MAX), Seen::Miss);
    }
}

pub(crate) fn never_fresh_at_its_ttl<S: Store>() {
    let store = S::new(ROOMY);
    let key = key(1, b"k");
    store.insert(key, new(b"a", 2, 0), 1_000_500);
    assert_eq!(look(&store, key, 1_001_499), fresh(b"a", 0));
    assert_eq!(look(&store, key, 1_001_500), fresh(b"a", 1));
    assert_eq!(look(&store, key, 1_002_499), fresh(b"a", 1));
    assert_eq!(look(&store, key, 1_002_500), Seen::Miss);
}

pub(crate) fn the_stale_window_ends<S: Store>() {
    let store = S::new(ROOMY);
    let key = key(1, b"k");
    store.insert(key, new(b"a", 2, 3), 0);
    assert_eq!(look(&store, key, 1_999), fresh(b"a", 1));
    assert_eq!(look(&store, key, 2_000), stale(b"a", 2));
    assert_eq!(look(&store, key, 4_999), stale(b"a", 4));
    assert_eq!(look(&store, key, 5_000), Seen::Miss);
}

pub(crate) fn a_clock_stepping_back_gives_age_zero<S: Store>() {
    let store = S::new(ROOMY);
    let key = key(1, b"k");
    store.insert(key, new(b"a", 2, 0), 10_000);
    for now_ms in [9_999, 5_000, 0] {
        assert_eq!(look(&store, key, now_ms), fresh(b"a", 0));
    }
    assert_eq!(look(&store, key, 12_000), Seen::Miss);
}

/// On a second hit within the last tenth it must be due; on a first one it may be.
pub(crate) fn refresh_is_due_in_the_last_tenth_only<S: Store>() {
    let store = S::new(ROOMY);
    let key = key(1, b"k");
    let due = |now_ms| {
        let pin = store.pin();
        store.with(&pin, key, now_ms, |found| match found {
            Lookup::Fresh(hit) => hit.refresh_due,
            Lookup::Stale(_) | Lookup::Miss => panic!("not fresh at {now_ms}"),
        })
    };
    store.insert(key, new(b"a", 300, 0), 0);
    assert!(!due(0));
    assert!(!due(269_999));
    assert!(due(270_000));
    assert!(due(299_999));
    store.insert(key, new(b"a", 300, 0), 270_000);
    assert!(!due(271_000));
}

/// How many keys of one hash are kept is each implementation's own affair, but the last few are.
pub(crate) fn keys_with_one_hash_are_kept_apart<S: Store>() {
    const KEPT: usize = 8;
    let store = S::new(ROOMY);
    let keys: Vec<[u8; 2]> = (0..(500 / LESS as u16)).map(u16::to_be_bytes).collect();
    for (count, bytes) in keys.iter().enumerate() {
        store.insert(key(42, bytes), new(bytes, 60, 0), 0);
        for other in &keys[(count + 1).saturating_sub(KEPT)..=count] {
            assert_eq!(look(&store, key(42, other), 0), fresh(other, 0));
        }
    }
    for bytes in &keys {
        let seen = look(&store, key(42, bytes), 0);
        assert!([fresh(bytes, 0), Seen::Miss].contains(&seen), "{bytes:?}: {seen:?}");
        assert_eq!(look(&store, key(43, bytes), 0), Seen::Miss);
    }
    assert_eq!(look(&store, key(42, b""), 0), Seen::Miss);
}

pub(crate) fn an_insert_replaces<S: Store>() {
    let store = S::new(ROOMY);
    let key = key(1, b"k");
    store.insert(key, new(b"first, long-lived", 1000, 1000), 0);
    store.insert(key, new(b"second", 2, 0), 1000);
    assert_eq!(look(&store, key, 2999), fresh(b"second", 1));
    assert_eq!(look(&store, key, 3000), Seen::Miss);
    store.settle();
    assert_eq!(store.stats().entries, 1);
    store.remove(key);
    assert_eq!(look(&store, key, 2999), Seen::Miss);
}

pub(crate) fn a_failure_replaces_nothing_and_holds_back_the_refresh<S: Store>() {
    let store = S::new(ROOMY);
    let failure = |ttl_s| NewEntry { kind: Kind::Failure, ..new(b"failure", ttl_s, 0) };
    let held = |now_ms| match look(&store, key(1, b"k"), now_ms) {
        Seen::Fresh { retry_held, .. } | Seen::Stale { retry_held, .. } => Some(retry_held),
        Seen::Miss => None,
    };
    for kind in [Kind::Data, Kind::Negative] {
        store.insert(key(1, b"k"), NewEntry { kind, ..new(b"a", 10, 100) }, 0);
        assert_eq!(held(9_500), Some(false));
        assert_eq!(store.insert(key(1, b"k"), failure(5), 9_500), Inserted::Held);
        assert_eq!(held(9_500), Some(true));
        assert_eq!(held(14_499), Some(true));
        assert_eq!(held(15_000), Some(false));
        assert_eq!(store.insert(key(1, b"k"), failure(5), 50_000), Inserted::Held);
        assert_eq!(held(54_999), Some(true));
        assert_eq!(held(55_000), Some(false));
        // Past its stale time an answer is none, and the failure is all there is.
        assert_eq!(store.insert(key(1, b"k"), failure(5), 110_000), Inserted::Stored);
        assert_eq!(look(&store, key(1, b"k"), 110_000), fresh(b"failure", 0));
        assert_eq!(store.insert(key(1, b"k"), failure(6), 111_000), Inserted::Stored);
        assert_eq!(store.insert(key(1, b"k"), new(b"b", 60, 0), 112_000), Inserted::Stored);
        assert_eq!(look(&store, key(1, b"k"), 112_000), fresh(b"b", 0));
        assert_eq!(held(112_000), Some(false));
        store.remove(key(1, b"k"));
    }
}

pub(crate) fn remove_if_removes_what_it_says<S: Store>() {
    let store = S::new(ROOMY);
    let hash = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for number in 0..2000 / LESS {
        store.insert(key(hash(number), &number.to_be_bytes()), new(b"a", 60, 60), 0);
    }
    store.settle();
    assert_eq!(store.remove_if(|bytes| bytes[7] % 2 == 0), 1000 / LESS);
    for number in 0..2000 / LESS {
        let seen = look(&store, key(hash(number), &number.to_be_bytes()), 0);
        assert_eq!(seen == Seen::Miss, number % 2 == 0);
    }
    store.settle();
    assert_eq!(store.stats().entries, 1000 / LESS);
    assert_eq!(store.stats().evicted, 0);
}

/// By its own means or by [`Store::expire`], and nothing else with it.
pub(crate) fn what_is_past_its_stale_time_is_reclaimed<S: Store>() {
    let store = S::new(ROOMY);
    let hash = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for number in 0..1000 / LESS {
        let ttl_s = if number % 2 == 0 { 10 } else { 1000 };
        store.insert(key(hash(number), &number.to_be_bytes()), new(b"a", ttl_s, 5), 0);
    }
    for now_ms in [14_999, 15_000] {
        // More than the whole table, in steps that don't divide it.
        for _ in 0..store.stats().slots.div_ceil(8 * 77) {
            store.expire(now_ms, 77);
        }
        store.settle();
        let stats = store.stats();
        if stats.slots > 0 {
            let expired = if now_ms < 15_000 { 0 } else { (1000 / LESS).div_ceil(2) };
            assert_eq!((stats.entries, stats.expired), (1000 / LESS - expired, expired));
        }
        for number in 0..1000 / LESS {
            let seen = look(&store, key(hash(number), &number.to_be_bytes()), now_ms);
            assert_eq!(seen == Seen::Miss, now_ms >= 15_000 && number % 2 == 0, "{number}");
        }
    }
}

pub(crate) fn too_large_is_refused_and_supersedes<S: Store>() {
    let small = S::new(Config::new(4096));
    let roomy = S::new(ROOMY);
    let refused = |store: &S, bytes: &[u8], answer: &[u8]| {
        let key = key(1, bytes);
        store.insert(key, new(b"a", 60, 0), 0);
        let inserted = store.insert(key, new(answer, 60, 0), 0);
        assert_eq!(inserted, Inserted::TooLarge);
        assert_eq!(look(store, key, 0), Seen::Miss);
    };
    refused(&small, b"k", &[0; 4096]);
    refused(&roomy, b"k", &vec![0; MAX_ANSWER_LEN + 1]);
    refused(&roomy, &[0; MAX_KEY_LEN + 1], b"a");
    assert_eq!(small.stats().too_large, 1);
    // Under Miri the budget is too small for it.
    let longest_answer = vec![2; if cfg!(miri) { 100 } else { MAX_ANSWER_LEN }];
    let longest_key = vec![1; MAX_KEY_LEN];
    let key = key(1, &longest_key);
    let inserted = roomy.insert(key, new(&longest_answer, 60, 0), 0);
    assert_eq!(inserted, Inserted::Stored);
    assert_eq!(look(&roomy, key, 0), fresh(&longest_answer, 0));
}

pub(crate) fn clear_forgets_everything<S: Store>() {
    let store = S::new(ROOMY);
    for number in 0..1000 / LESS {
        let bytes = number.to_be_bytes();
        store.insert(key(number << 40, &bytes), new(b"a", 60, 60), 0);
    }
    store.clear();
    for number in 0..1000 / LESS {
        let bytes = number.to_be_bytes();
        assert_eq!(look(&store, key(number << 40, &bytes), 0), Seen::Miss);
    }
    store.settle();
    assert_eq!((store.stats().entries, store.stats().bytes), (0, 0));
    store.insert(key(1, b"k"), new(b"a", 60, 60), 0);
    assert_eq!(look(&store, key(1, b"k"), 0), fresh(b"a", 0));
}

pub(crate) fn the_byte_bound_holds<S: Store>() {
    if cfg!(miri) {
        return; // about sizes, and long
    }
    let max_bytes = 1 << 20;
    let store = S::new(Config::new(max_bytes));
    let answer = [7; 2000];
    for number in 0..20_000u64 {
        let bytes = number.to_be_bytes();
        let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let len = (number * 37 % 2000) as usize;
        store.insert(key(hash, &bytes), new(&answer[..len], 60, 0), 0);
        if number % 100 == 99 {
            store.settle();
            let stats = store.stats();
            assert!(stats.bytes <= max_bytes, "{stats:?}");
            assert!(stats.entries * 8 <= stats.bytes, "{stats:?}");
        }
    }
    let stats = store.stats();
    assert!(stats.bytes > max_bytes / 2, "the budget is used: {stats:?}");
    assert_eq!(stats.entries + stats.evicted, 20_000);
}

/// One thread keeps replacing, removing and growing; the other must see whole entries of the right
/// key only, and at the end the last one.
pub(crate) fn two_threads_see_whole_entries<S: Store>() {
    const KEYS: u8 = 16;
    // So large that a reader which is taken off its core while it reads never gets an insert refused.
    let store = S::new(Config::new(if cfg!(miri) { 1 << 17 } else { 1 << 30 }));
    let done = AtomicBool::new(false);
    let hash = |k: u8| u64::from(k % 4) << 60;
    // Every byte of an answer names its key; its length is at least 1.
    let answer = |k: u8, round: usize| vec![k; 1 + round % 97];
    let check = |k: u8| {
        let pin = store.pin();
        store.with(&pin, key(hash(k), &[k]), 0, |found| match found {
            Lookup::Fresh(hit) => {
                assert!(!hit.answer.is_empty() && hit.answer.iter().all(|&byte| byte == k));
                1
            }
            Lookup::Stale(_) => panic!("the clock stands still"),
            Lookup::Miss => 0,
        })
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..2_000 / LESS as usize {
                for k in 0..KEYS {
                    store.insert(key(hash(k), &[k]), new(&answer(k, round), 60, 0), 0);
                }
                store.remove(key(hash(3), &[3]));
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            for k in 0..KEYS {
                check(k);
            }
        }
    });
    assert_eq!((0..KEYS).map(check).sum::<u32>(), u32::from(KEYS) - 1);
}
