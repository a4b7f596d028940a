//! The caches that are compared, each behind one trait that takes a batch at a time: a call through
//! it is paid once for 64 lookups.
//!
//! Those that are not a [`Store`] of ours are set up as one would for this: an entry is one
//! allocation, which is key and value at once, and the hash is the caller's. They know nothing of
//! kinds of answers, and what has expired leaves when it is replaced.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::ValueEnum;
use hashlink::LinkedHashMap;
use hashlink::linked_hash_map::RawEntryMut;
use moka::sync::Cache;
use quick_cache::{Equivalent, UnitWeighter, sync, unsync};
use serde::Serialize;
use swiftlet_cache::{Config, Key, Kind, Lookup, MokaCache, NewEntry, SegmentedCache, Store};

use super::population::{NameKey, answer};

/// Buckets that a worker looks through in a turn for what is past its time, as the server does.
const EXPIRE_BUCKETS: usize = 4;

/// A cache under test.
pub trait Contender: Send {
    /// Looks up a batch. With `prefetch`, all of it is prefetched before, if it can be.
    fn look_up(&mut self, keys: &[NameKey], now_ms: u64, prefetch: bool) -> Found;

    /// Stores an answer.
    fn store(&mut self, key: Key<'_>, entry: NewEntry<'_>, now_ms: u64);

    /// What a worker does at the end of a turn.
    fn tidy(&mut self, _now_ms: u64) {}

    /// Entries that it holds, expired ones included, when all is done that was put off.
    fn held(&mut self) -> u64;

    /// The same cache for another thread, if it can be shared.
    fn share(&self) -> Option<Box<dyn Contender>>;
}

/// What a batch of lookups led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How many were fresh.
    pub hits: u32,
    /// The first and the last byte of each answer, added up: whoever renders it reads it all.
    pub touched: u32,
}

impl Found {
    #[inline]
    fn add(&mut self, answer: &[u8]) {
        if let [first, .., last] = answer {
            self.hits += 1;
            self.touched += u32::from(*first) + u32::from(*last);
        }
    }
}

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// The cache of the server.
    Segmented,
    /// The one on `moka`.
    Moka,
    /// `moka` bounded by entries, as it admits best: bounded by bytes, its hit ratio is some points
    /// lower with the very same entries.
    MokaEntries,
    /// `quick_cache::unsync`, for one thread.
    QuickUnsync,
    /// `quick_cache::sync`.
    QuickSync,
    /// A plain LRU on `hashlink`, for one thread.
    Lru,
    /// The same under a mutex.
    LruMutex,
}

impl Which {
    /// What the report calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Segmented => "segmented",
            Self::Moka => "moka",
            Self::MokaEntries => "moka by entries",
            Self::QuickUnsync => "quick_cache unsync",
            Self::QuickSync => "quick_cache sync",
            Self::Lru => "plain LRU",
            Self::LruMutex => "plain LRU in a mutex",
        }
    }

    /// An empty cache with room for so many: bytes for those that count bytes, else entries.
    #[must_use]
    pub fn with_room(self, room: Room) -> Box<dyn Contender> {
        let (entries, config) = (room.entries, Config::new(room.bytes));
        match self {
            Self::Segmented => Box::new(OfStore::<SegmentedCache>(Arc::new(Store::new(config)))),
            Self::Moka => Box::new(OfStore::<MokaCache>(Arc::new(Store::new(config)))),
            Self::MokaEntries => Box::new(MokaEntries::with_room(entries)),
            Self::QuickUnsync => Box::new(QuickUnsync::with_room(entries)),
            Self::QuickSync => Box::new(QuickSync::with_room(entries)),
            Self::Lru => Box::new(PlainLru::with_room(entries)),
            Self::LruMutex => {
                Box::new(SharedLru(Arc::new(Mutex::new(PlainLru::with_room(entries)))))
            }
        }
    }

    /// Whether it is told its room in bytes.
    #[must_use]
    pub fn counts_bytes(self) -> bool {
        matches!(self, Self::Segmented | Self::Moka)
    }
}

/// How much a cache may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Room {
    /// Entries.
    pub entries: usize,
    /// Bytes.
    pub bytes: u64,
}

impl Room {
    /// So much that so many entries do not come near it.
    #[must_use]
    pub fn ample(entries: usize) -> Self {
        Self { entries: 2 * entries, bytes: 1024 * entries as u64 }
    }

    /// The least that a cache needs to hold `held` of the first `asked` names, by bisection.
    #[must_use]
    pub fn to_hold(which: Which, held: usize, asked: usize) -> Self {
        let room = |bytes| Self { entries: held, bytes };
        if !which.counts_bytes() {
            return room(0);
        }
        let (mut low, mut high) = (0, Self::ample(held).bytes);
        // To a thousandth.
        while high - low > high / 1000 {
            let middle = low.midpoint(high);
            let mut cache = which.with_room(room(middle));
            fill(cache.as_mut(), 0..asked as u64);
            if cache.held() >= held as u64 { high = middle } else { low = middle }
        }
        room(high)
    }
}

/// Time of the inserts of [`fill`], in ms.
pub const FILLED_MS: u64 = 1_000_000;

/// Stores the names of these numbers, all with the same answer, for a day.
pub fn fill(cache: &mut dyn Contender, numbers: impl Iterator<Item = u64>) {
    let answer = answer();
    let entry = NewEntry { answer: &answer, ttl_s: 86_400, stale_s: 0, kind: Kind::Data };
    for number in numbers {
        cache.store(NameKey::of(number).key(), entry, FILLED_MS);
    }
}

//----------- Stores ---------------------------------------------------------

struct OfStore<S>(Arc<S>);

impl<S: Store + 'static> Contender for OfStore<S> {
    #[inline(never)]
    fn look_up(&mut self, keys: &[NameKey], now_ms: u64, prefetch: bool) -> Found {
        let (cache, mut found) = (&*self.0, Found::default());
        let pin = cache.pin();
        if prefetch {
            for key in keys {
                cache.prefetch(key.key().hash);
            }
            for key in keys {
                cache.prefetch_entry(&pin, key.key().hash);
            }
        }
        for key in keys {
            cache.with(&pin, key.key(), now_ms, |lookup| {
                if let Lookup::Fresh(hit) = lookup {
                    found.add(hit.answer);
                }
            });
        }
        found
    }

    fn store(&mut self, key: Key<'_>, entry: NewEntry<'_>, now_ms: u64) {
        self.0.insert(key, entry, now_ms);
    }

    fn tidy(&mut self, now_ms: u64) {
        self.0.expire(now_ms, EXPIRE_BUCKETS);
    }

    fn held(&mut self) -> u64 {
        self.0.settle();
        self.0.stats().entries
    }

    fn share(&self) -> Option<Box<dyn Contender>> {
        Some(Box::new(Self(Arc::clone(&self.0))))
    }
}

//----------- Record ---------------------------------------------------------

/// Header, key and answer. The header is the hash, the end of its life in ms (8 bytes each, native
/// byte order) and the length of the key (2).
#[derive(Clone)]
struct Record(Arc<[u8]>);

const HEADER_LEN: usize = 18;

impl Record {
    fn new(key: Key<'_>, entry: NewEntry<'_>, now_ms: u64) -> Self {
        let end_ms = now_ms + u64::from(entry.ttl_s) * 1000;
        let key_len = key.bytes.len() as u16;
        let mut bytes = Vec::with_capacity(HEADER_LEN + key.bytes.len() + entry.answer.len());
        bytes.extend(key.hash.to_ne_bytes());
        bytes.extend(end_ms.to_ne_bytes());
        bytes.extend(key_len.to_ne_bytes());
        bytes.extend(key.bytes);
        bytes.extend(entry.answer);
        Self(bytes.into())
    }

    #[inline]
    fn parts(&self) -> (u64, u64, &[u8], &[u8]) {
        let (header, rest) = self.0.split_at(HEADER_LEN);
        let word = |at: usize| u64::from_ne_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let key_len = u16::from_ne_bytes([header[16], header[17]]);
        let (key, answer) = rest.split_at(key_len.into());
        (word(0), word(8), key, answer)
    }

    #[inline]
    fn has(&self, key: Key<'_>) -> bool {
        let (hash, _, bytes, _) = self.parts();
        hash == key.hash && bytes == key.bytes
    }

    #[inline]
    fn show(&self, now_ms: u64, found: &mut Found) {
        let (_, end_ms, _, answer) = self.parts();
        if now_ms < end_ms {
            found.add(answer);
        }
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.parts().2 == other.parts().2
    }
}

impl Eq for Record {}

impl Hash for Record {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.parts().0);
    }
}

/// A key to look for.
struct Probe<'k>(Key<'k>);

impl Hash for Probe<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl Equivalent<Record> for Probe<'_> {
    #[inline]
    fn equivalent(&self, record: &Record) -> bool {
        record.has(self.0)
    }
}

/// Hands the caller's hash through.
#[derive(Clone, Copy, Default)]
struct CallersHash(u64);

impl BuildHasher for CallersHash {
    type Hasher = Self;

    #[inline]
    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl Hasher for CallersHash {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes are hashed");
    }

    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

//----------- moka -----------------------------------------------------------

struct MokaEntries(Cache<Record, Record, CallersHash>);

impl MokaEntries {
    fn with_room(entries: usize) -> Self {
        let builder = Cache::builder().max_capacity(entries as u64);
        Self(builder.build_with_hasher(CallersHash::default()))
    }
}

impl Contender for MokaEntries {
    #[inline(never)]
    fn look_up(&mut self, keys: &[NameKey], now_ms: u64, _: bool) -> Found {
        let mut found = Found::default();
        for key in keys {
            if let Some(record) = self.0.get(&Probe(key.key())) {
                record.show(now_ms, &mut found);
            }
        }
        found
    }

    fn store(&mut self, key: Key<'_>, entry: NewEntry<'_>, now_ms: u64) {
        let record = Record::new(key, entry, now_ms);
        self.0.insert(record.clone(), record);
    }

    fn held(&mut self) -> u64 {
        let mut before = None;
        while before != Some(self.0.entry_count()) {
            before = Some(self.0.entry_count());
            self.0.run_pending_tasks();
        }
        self.0.entry_count()
    }

    fn share(&self) -> Option<Box<dyn Contender>> {
        Some(Box::new(Self(self.0.clone())))
    }
}

//----------- quick_cache ----------------------------------------------------

struct QuickUnsync(unsync::Cache<Record, Record, UnitWeighter, CallersHash>);

impl QuickUnsync {
    fn with_room(entries: usize) -> Self {
        let (hash, lifecycle) = (CallersHash::default(), unsync::DefaultLifecycle::default());
        Self(unsync::Cache::with(entries, entries as u64, UnitWeighter, hash, lifecycle))
    }
}

impl Contender for QuickUnsync {
    #[inline(never)]
    fn look_up(&mut self, keys: &[NameKey], now_ms: u64, _: bool) -> Found {
        let mut found = Found::default();
        for key in keys {
            if let Some(record) = self.0.get(&Probe(key.key())) {
                record.show(now_ms, &mut found);
            }
        }
        found
    }

    fn store(&mut self, key: Key<'_>, entry: NewEntry<'_>, now_ms: u64) {
        let record = Record::new(key, entry, now_ms);
        self.0.insert(record.clone(), record);
    }

    fn held(&mut self) -> u64 {
        self.0.len() as u64
    }

    fn share(&self) -> Option<Box<dyn Contender>> {
        None
    }
}

struct QuickSync(Arc<sync::Cache<Record, Record, UnitWeighter, CallersHash>>);

impl QuickSync {
    fn with_room(entries: usize) -> Self {
        let (hash, lifecycle) = (CallersHash::default(), sync::DefaultLifecycle::default());
        let cache = sync::Cache::with(entries, entries as u64, UnitWeighter, hash, lifecycle);
        Self(Arc::new(cache))
    }
}

impl Contender for QuickSync {
    #[inline(never)]
    fn look_up(&mut self, keys: &[NameKey], now_ms: u64, _: bool) -> Found {
        let mut found = Found::default();
        for key in keys {
            if let Some(record) = self.0.get(&Probe(key.key())) {
                record.show(now_ms, &mut found);
            }
        }
        found
    }

    fn store(&mut self, key: Key<'_>, entry: NewEntry<'_>, now_ms: u64) {
        let record = Record::new(key, entry, now_ms);
        self.0.insert(record.clone(), record);
    }

    fn held(&mut self) -> u64 {
        self.0.len() as u64
    }

    fn share(&self) -> Option<Box<dyn Contender>> {
        Some(Box::new(Self(Arc::clone(&self.0))))
    }
}

//----------- LRU ------------------------------------------------------------

/// What was asked for last is at the back; when it is full, the front leaves.
struct PlainLru {
    map: LinkedHashMap<Record, (), CallersHash>,
    entries_max: usize,
}

impl PlainLru {
    fn with_room(entries_max: usize) -> Self {
        Self { map: LinkedHashMap::with_hasher(CallersHash::default()), entries_max }
    }

    #[inline]
    fn show(&mut self, key: Key<'_>, now_ms: u64, found: &mut Found) {
        let entry = self.map.raw_entry_mut().from_hash(key.hash, |record| record.has(key));
        if let RawEntryMut::Occupied(mut entry) = entry {
            entry.to_back();
            entry.get_key_value().0.show(now_ms, found);
        }
    }
}

impl Contender for PlainLru {
    #[inline(never)]
    fn look_up(&mut self, keys: &[NameKey], now_ms: u64, _: bool) -> Found {
        let mut found = Found::default();
        for key in keys {
            self.show(key.key(), now_ms, &mut found);
        }
        found
    }

    fn store(&mut self, key: Key<'_>, entry: NewEntry<'_>, now_ms: u64) {
        let record = Record::new(key, entry, now_ms);
        match self.map.raw_entry_mut().from_hash(key.hash, |record| record.has(key)) {
            RawEntryMut::Occupied(mut entry) => {
                entry.to_back();
                *entry.get_key_value_mut().0 = record;
            }
            RawEntryMut::Vacant(entry) => {
                entry.insert_hashed_nocheck(key.hash, record, ());
            }
        }
        if self.map.len() > self.entries_max {
            self.map.pop_front();
        }
    }

    fn held(&mut self) -> u64 {
        self.map.len() as u64
    }

    fn share(&self) -> Option<Box<dyn Contender>> {
        None
    }
}

/// Its lock is taken for each lookup, as by callers that know of no batches.
struct SharedLru(Arc<Mutex<PlainLru>>);

impl SharedLru {
    #[inline]
    fn lock(&self) -> MutexGuard<'_, PlainLru> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contender for SharedLru {
    #[inline(never)]
    fn look_up(&mut self, keys: &[NameKey], now_ms: u64, _: bool) -> Found {
        let mut found = Found::default();
        for key in keys {
            self.lock().show(key.key(), now_ms, &mut found);
        }
        found
    }

    fn store(&mut self, key: Key<'_>, entry: NewEntry<'_>, now_ms: u64) {
        self.lock().store(key, entry, now_ms);
    }

    fn held(&mut self) -> u64 {
        self.lock().held()
    }

    fn share(&self) -> Option<Box<dyn Contender>> {
        Some(Box::new(Self(Arc::clone(&self.0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finds_what_was_stored_until_it_expires() {
        for &which in Which::value_variants() {
            let mut cache = which.with_room(Room::ample(1000));
            fill(cache.as_mut(), 0..100);
            // A replacement shows its own life.
            let (answer, key) = (answer(), NameKey::of(7));
            let entry = NewEntry { answer: &answer, ttl_s: 10, stale_s: 0, kind: Kind::Data };
            cache.store(key.key(), entry, FILLED_MS);
            assert_eq!(cache.held(), 100, "{which:?}");
            let keys: Vec<_> = (0..200).map(NameKey::of).collect();
            let hits = |cache: &mut dyn Contender, now_ms| cache.look_up(&keys, now_ms, true).hits;
            assert_eq!(hits(cache.as_mut(), FILLED_MS + 9_999), 100, "{which:?}");
            assert_eq!(hits(cache.as_mut(), FILLED_MS + 10_000), 99, "{which:?}");
            let shared = cache.share().map(|mut shared| hits(shared.as_mut(), FILLED_MS));
            let is_for_one = matches!(which, Which::QuickUnsync | Which::Lru);
            assert_eq!(shared, (!is_for_one).then_some(100), "{which:?}");
        }
    }

    #[test]
    fn each_has_the_room_that_was_asked_for() {
        for &which in Which::value_variants() {
            let room = Room::to_hold(which, 4000, 12_000);
            let mut cache = which.with_room(room);
            fill(cache.as_mut(), 0..12_000);
            let held = cache.held();
            // Shares of shards are rounded.
            assert!((3960..=4040).contains(&held), "{which:?}: {held} in {room:?}");
        }
    }
}
