//! A cache of any kind and the keys to ask it for.

use swiftlet_cache::{Config, Inserted, Key, Kind, Lookup, NewEntry, Store};
use swiftlet_parser::key::{KeyBuf, Seed, Variant};
use swiftlet_parser::rr::{Class, Type};

use super::{answers, names};

/// Bytes that one of these entries takes at most, whatever the cache.
const ENTRY_BYTES_MAX: u64 = 1024;

/// Time of the inserts, and of the lookups a minute later, in ms.
const INSERTED_MS: u64 = 1_000_000;
const ASKED_MS: u64 = INSERTED_MS + 60_000;

/// The seed of all hashes: the same every time.
pub(crate) fn seed() -> Seed {
    Seed::new(0x5eed)
}

/// Keys in one run of bytes, so that asking for them costs no more than it must.
#[derive(Default)]
pub(crate) struct Keys {
    bytes: Vec<u8>,
    /// Hash, and where the key's bytes end.
    ends: Vec<(u64, usize)>,
}

impl Keys {
    /// Of the usual names of these numbers, for A records.
    pub(crate) fn of(numbers: impl IntoIterator<Item = u64>) -> Self {
        let (seed, mut buf, mut keys) = (seed(), KeyBuf::default(), Self::default());
        for number in numbers {
            let name = names::usual(number);
            let key = buf.build(&seed, &name, Type::A, Class::IN, Variant::new(false, false, 0));
            keys.bytes.extend(key.bytes);
            keys.ends.push((key.hash, keys.bytes.len()));
        }
        keys
    }

    /// How many they are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// One of them.
    pub(crate) fn get(&self, index: usize) -> Key<'_> {
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before].1);
        let (hash, end) = self.ends[index];
        Key { hash, bytes: &self.bytes[begin..end] }
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Key<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }
}

/// A cache with room for so many names.
pub(crate) fn empty<S: Store>(names: usize) -> S {
    S::new(Config::new(names as u64 * ENTRY_BYTES_MAX))
}

/// A cache that knows all of the keys, and has nothing to tidy up.
pub(crate) fn filled<S: Store>(keys: &Keys) -> S {
    let cache: S = empty(keys.len());
    let answer = answer();
    for key in keys.iter() {
        insert(&cache, key, &answer);
    }
    cache.settle();
    let pin = cache.pin();
    assert!(keys.iter().all(|key| get(&cache, &pin, key) > 0), "everything fits");
    drop(pin);
    cache.settle();
    cache
}

/// The stored form of one A record.
pub(crate) fn answer() -> Vec<u8> {
    answers::template(&answers::address(&names::usual(0)))
}

/// Looks the key up and touches the answer: its length and first byte, or 0.
#[inline(always)]
pub(crate) fn get<S: Store>(cache: &S, pin: &S::Pin, key: Key<'_>) -> usize {
    cache.with(pin, key, ASKED_MS, |found| match found {
        Lookup::Fresh(hit) => hit.answer.len() + usize::from(hit.answer[0]),
        Lookup::Stale(_) | Lookup::Miss => 0,
    })
}

/// Stores an answer.
#[inline(always)]
pub(crate) fn insert<S: Store>(cache: &S, key: Key<'_>, answer: &[u8]) {
    let entry = NewEntry { answer, ttl_s: answers::TTL_S, stale_s: 0, kind: Kind::Data };
    let inserted = cache.insert(key, entry, INSERTED_MS);
    debug_assert_eq!(inserted, Inserted::Stored);
}
