//! What every [`Store`] must do, as tests that are generic over it.
//!
//! `suite!(Type)` in an implementation's test module runs all of them, the random histories against
//! [`Model`] first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use crate::{Config, Hit, Inserted, Key, Lookup, MAX_ANSWER_LEN, MAX_KEY_LEN, NewEntry, Store};

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

const ROOMY: Config = Config { max_bytes: 1 << 26 };

fn key(hash: u64, bytes: &[u8]) -> Key<'_> {
    Key { hash, bytes }
}

fn new(answer: &[u8], ttl_s: u32, stale_s: u32) -> NewEntry<'_> {
    NewEntry { answer, ttl_s, stale_s, negative: false }
}

/// A [`Lookup`] that owns its bytes.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Fresh { answer: Vec<u8>, age_s: u32 },
    Stale { answer: Vec<u8>, age_s: u32 },
    Miss,
}

fn fresh(answer: &[u8], age_s: u32) -> Seen {
    let answer = answer.to_vec();
    Seen::Fresh { answer, age_s }
}

fn stale(answer: &[u8], age_s: u32) -> Seen {
    let answer = answer.to_vec();
    Seen::Stale { answer, age_s }
}

fn look<S: Store>(store: &S, key: Key<'_>, now_ms: u64) -> Seen {
    let pin = store.pin();
    store.with(&pin, key, now_ms, |found| match found {
        Lookup::Fresh(Hit { answer, age_s, .. }) => fresh(answer, age_s),
        Lookup::Stale(Hit { answer, age_s, refresh_due }) => {
            assert!(!refresh_due, "a stale hit is past refreshing ahead");
            stale(answer, age_s)
        }
        Lookup::Miss => Seen::Miss,
    })
}

/// The same, naively: a map, and arithmetic that cannot overflow.
#[derive(Default)]
struct Model {
    entries: HashMap<Vec<u8>, (Vec<u8>, u64, u32, u32)>,
}

impl Model {
    fn insert(&mut self, key: &[u8], answer: &[u8], ttl_s: u32, stale_s: u32, now_ms: u64) {
        self.entries.remove(key);
        if ttl_s > 0 {
            let entry = (answer.to_vec(), now_ms, ttl_s, stale_s);
            self.entries.insert(key.to_vec(), entry);
        }
    }

    fn look(&self, key: &[u8], now_ms: u64) -> Seen {
        let Some((answer, stored_ms, ttl_s, stale_s)) = self.entries.get(key) else {
            return Seen::Miss;
        };
        let age_ms = (i128::from(now_ms) - i128::from(*stored_ms)).max(0);
        let age_s = u32::try_from(age_ms / 1000).unwrap_or(u32::MAX);
        let (ttl_s, stale_s) = (i128::from(*ttl_s), i128::from(*stale_s));
        match age_ms {
            age if age < ttl_s * 1000 => fresh(answer, age_s),
            age if age < (ttl_s + stale_s) * 1000 => stale(answer, age_s),
            _ => Seen::Miss,
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert { key: u8, answer: Vec<u8>, ttl_s: u32, stale_s: u32, negative: bool },
    Look { key: u8 },
    Remove { key: u8 },
    Clear,
    Forward { ms: u64 },
    Back { ms: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let seconds = || prop_oneof![0..5u32, 0..100_000u32, (u32::MAX - 2)..=u32::MAX, Just(1 << 31)];
    let ms = || prop_oneof![Just(1), 0..3000u64, 0..100_000_000u64, Just(1 << 43)];
    let flag = any::<bool>();
    let step = prop_oneof![
        4 => (0..8u8, prop::collection::vec(any::<u8>(), 0..64), seconds(), seconds(), flag)
            .prop_map(|(key, answer, ttl_s, stale_s, negative)| Step::Insert {
                key, answer, ttl_s, stale_s, negative
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
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) };
    proptest!(config, |(steps in steps())| {
        let store = S::new(ROOMY);
        let mut model = Model::default();
        let mut now_ms: u64 = 1 << 40;
        for step in steps {
            // Eight keys with three hashes.
            let hash = |key: u8| u64::from(key % 3) << 62;
            match step {
                Step::Insert { key: k, answer, ttl_s, stale_s, negative } => {
                    let entry = NewEntry { negative, ..new(&answer, ttl_s, stale_s) };
                    let inserted = store.insert(key(hash(k), &[k]), entry, now_ms);
                    prop_assert_eq!(inserted == Inserted::Stored, ttl_s > 0);
                    model.insert(&[k], &answer, ttl_s, stale_s, now_ms);
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

pub(crate) fn keys_with_one_hash_are_kept_apart<S: Store>() {
    let store = S::new(ROOMY);
    let keys: Vec<[u8; 2]> = (0..500u16).map(u16::to_be_bytes).collect();
    for bytes in &keys {
        store.insert(key(42, bytes), new(bytes, 60, 0), 0);
    }
    for bytes in &keys {
        assert_eq!(look(&store, key(42, bytes), 0), fresh(bytes, 0));
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

pub(crate) fn too_large_is_refused_and_supersedes<S: Store>() {
    let small = S::new(Config { max_bytes: 4096 });
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
    let (longest_key, longest_answer) = (vec![1; MAX_KEY_LEN], vec![2; MAX_ANSWER_LEN]);
    let key = key(1, &longest_key);
    let inserted = roomy.insert(key, new(&longest_answer, 60, 0), 0);
    assert_eq!(inserted, Inserted::Stored);
    assert_eq!(look(&roomy, key, 0), fresh(&longest_answer, 0));
}

pub(crate) fn clear_forgets_everything<S: Store>() {
    let store = S::new(ROOMY);
    for number in 0..1000u64 {
        let bytes = number.to_be_bytes();
        store.insert(key(number << 40, &bytes), new(b"a", 60, 60), 0);
    }
    store.clear();
    for number in 0..1000u64 {
        let bytes = number.to_be_bytes();
        assert_eq!(look(&store, key(number << 40, &bytes), 0), Seen::Miss);
    }
    store.settle();
    assert_eq!((store.stats().entries, store.stats().bytes), (0, 0));
    store.insert(key(1, b"k"), new(b"a", 60, 60), 0);
    assert_eq!(look(&store, key(1, b"k"), 0), fresh(b"a", 0));
}

pub(crate) fn the_byte_bound_holds<S: Store>() {
    let max_bytes = 1 << 20;
    let store = S::new(Config { max_bytes });
    let answer = [7; 2000];
    for number in 0..20_000u64 {
        let bytes = number.to_be_bytes();
        let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let len = (number * 37 % 2000) as usize;
        store.insert(key(hash, &bytes), new(&answer[..len], 60, 0), 0);
        if number % 1000 == 999 {
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
    let store = S::new(ROOMY);
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
            for round in 0..2_000 {
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
