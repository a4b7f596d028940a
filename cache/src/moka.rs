//! The answer cache on `moka`, and the yardstick for every other implementation.
//!
//! A hit is one walk of moka's lock-free table with the caller's hash (two dependent loads and one
//! comparison of the key), two reference counts up and down, moka's reading of its clock, and one
//! push to its log of reads. Every 64th read drains that log under a lock that is only tried. Once
//! in about 127 hits 2 KiB are allocated and freed there, for moka's epoch collector passes its own
//! bags around even when nothing was retired; nothing else on a hit allocates. Measured: 290 ns a
//! hit (10,000 names in random order, one thread, 2-core Xeon VM).
//!
//! - **Admission** is moka's TinyLFU: when the budget is used up, a newcomer must have been asked
//!   for more often than what it would push out, so a flood of names that are asked for once cannot
//!   empty the cache.
//! - **Freshness** is decided by [`Lifetime`] and the caller's clock. Moka's own clock only
//!   reclaims, [`RECLAIM_SLACK`] later than needed. While the caller's clock is further behind than
//!   that, moka forgets entries that are still fresh or stale; nothing old ever passes for fresh.
//! - **A replacement** is a removal and an insert, so that the old answer's memory goes with it.
//! - **The bound** on bytes is kept by moka's maintenance, which runs within inserts and lookups.
//!   At most 384 inserts and removals, the length of its log of writes, can be waiting for it.

use std::hash::{BuildHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::moka::notification::RemovalCause;
use ::moka::sync::Cache;
use ::moka::{Equivalent, Expiry};

use crate::{
    Config, Inserted, Key, Kind, Lifetime, Lookup, MAX_ANSWER_LEN, MAX_KEY_LEN, NewEntry, Stats,
    Store,
};

/// How much longer than its TTL and stale time moka keeps an entry. It makes up for the difference
/// between moka's clock and the caller's, which is read once per batch and may be virtual. An entry
/// stored by a clock that falls further behind than this is forgotten early.
const RECLAIM_SLACK: Duration = Duration::from_secs(60);

/// Bytes that an entry takes beside its own allocation: moka's key handle, value, entry info, node
/// handles, nodes of the access queue and of the timer wheel, and the slot in its table. Moka 0.12
/// asks for 285 to 310 bytes (measured, and held to by `tests/allocations.rs`); the rest is what an
/// allocator with size classes rounds up over these seven small blocks.
const MOKA_OVERHEAD: usize = 336;

/// An answer cache on [`sync::Cache`](::moka::sync::Cache).
pub struct MokaCache {
    entries: Cache<Entry, Entry, CallersHash>,
    max_bytes: u64,
    too_large: AtomicU64,
    left: Arc<Left>,
}

/// Entries that moka took out by itself.
#[derive(Default)]
struct Left {
    evicted: AtomicU64,
    expired: AtomicU64,
}

/// Moka pins its own epoch in every lookup, so there is nothing to hold; see [`Store::pin`].
pub struct Pin {
    not_send: PhantomData<*const ()>,
}

impl Store for MokaCache {
    type Pin = Pin;

    fn new(config: Config) -> Self {
        let left = Arc::<Left>::default();
        let counted = Arc::clone(&left);
        let entries = Cache::builder()
            .max_capacity(config.max_bytes)
            .weigher(|_, entry: &Entry| entry.weight())
            .expire_after(Reclaim)
            .eviction_listener(move |_, _, cause| {
                match cause {
                    RemovalCause::Size => counted.evicted.fetch_add(1, Ordering::Relaxed),
                    RemovalCause::Expired => counted.expired.fetch_add(1, Ordering::Relaxed),
                    RemovalCause::Explicit | RemovalCause::Replaced => 0,
                };
            })
            .build_with_hasher(CallersHash);
        Self { entries, max_bytes: config.max_bytes, too_large: AtomicU64::new(0), left }
    }

    #[inline]
    fn pin(&self) -> Pin {
        Pin { not_send: PhantomData }
    }

    #[inline]
    fn with<R>(&self, _pin: &Pin, key: Key<'_>, now_ms: u64, f: impl FnOnce(Lookup<'_>) -> R) -> R {
        match self.entries.get(&Probe(key)) {
            Some(entry) => f(entry.lifetime().judge(entry.answer(), now_ms, entry.retry_at_s())),
            None => f(Lookup::Miss),
        }
    }

    fn insert(&self, key: Key<'_>, entry: NewEntry<'_>, now_ms: u64) -> Inserted {
        if entry.kind == Kind::Failure
            && let Some(old) = self.entries.get(&Probe(key))
            && old.kind() != Kind::Failure
            && !old.lifetime().is_over(now_ms)
        {
            let until_ms = now_ms.saturating_add(u64::from(entry.ttl_s) * 1000);
            let held = old.with_retry_at(until_ms);
            self.entries.insert(held.clone(), held);
            return Inserted::Held;
        }
        if entry.ttl_s == 0 {
            self.remove(key);
            return Inserted::ZeroTtl;
        }
        if key.bytes.len() > MAX_KEY_LEN
            || entry.answer.len() > MAX_ANSWER_LEN
            || footprint(key.bytes.len() + entry.answer.len()) as u64 > self.max_bytes
        {
            self.too_large.fetch_add(1, Ordering::Relaxed);
            self.remove(key);
            return Inserted::TooLarge;
        }
        // Moka keeps its key when only the value is new, and this key's allocation holds the old
        // answer. A key of its own would cost some 48 bytes an entry and a cache line a hit; this
        // costs a microsecond for each replacement, and a lookup in that moment misses. Only when
        // two threads insert one key at once, one old answer stays until the next time.
        self.remove(key);
        let entry = Entry::new(key, entry, now_ms);
        self.entries.insert(entry.clone(), entry);
        Inserted::Stored
    }

    fn remove(&self, key: Key<'_>) {
        self.entries.invalidate(&Probe(key));
    }

    fn remove_if(&self, mut condition: impl FnMut(&[u8]) -> bool) -> u64 {
        let mut removed = 0;
        for (key, _) in &self.entries {
            if condition(key.key().bytes) {
                self.entries.invalidate(&*key);
                removed += 1;
            }
        }
        removed
    }

    fn clear(&self) {
        self.entries.invalidate_all();
    }

    /// Moka reclaims within its own maintenance.
    fn expire(&self, _: u64, _: usize) {}

    fn stats(&self) -> Stats {
        Stats {
            entries: self.entries.entry_count(),
            bytes: self.entries.weighted_size(),
            evicted: self.left.evicted.load(Ordering::Relaxed),
            expired: self.left.expired.load(Ordering::Relaxed),
            too_large: self.too_large.load(Ordering::Relaxed),
            ..Stats::default()
        }
    }

    fn settle(&self) {
        // One run drains the logs and evicts one batch; go on until nothing changes.
        let mut before = None;
        while before != Some(self.stats()) {
            before = Some(self.stats());
            self.entries.run_pending_tasks();
        }
    }
}

/// Header, key and answer in one allocation, which is moka's key and moka's value at once.
///
/// The header is, in native byte order: hash, stored-at in ms (8 bytes each), TTL, stale time in s
/// (4 each), second of its life before which its refresh is held back (4), length of the key (2),
/// kind (1), and a byte of padding.
#[derive(Clone)]
struct Entry(Arc<[u8]>);

const HEADER_LEN: usize = 32;

impl Entry {
    fn new(key: Key<'_>, entry: NewEntry<'_>, now_ms: u64) -> Self {
        let len = HEADER_LEN + key.bytes.len() + entry.answer.len();
        let mut allocation: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
        // The only reference there is: nothing is copied.
        let bytes = Arc::make_mut(&mut allocation);
        let (header, rest) = bytes.split_at_mut(HEADER_LEN);
        header[0..8].copy_from_slice(&key.hash.to_ne_bytes());
        header[8..16].copy_from_slice(&now_ms.to_ne_bytes());
        header[16..20].copy_from_slice(&entry.ttl_s.to_ne_bytes());
        header[20..24].copy_from_slice(&entry.stale_s.to_ne_bytes());
        header[28..30].copy_from_slice(&(key.bytes.len() as u16).to_ne_bytes());
        header[30] = entry.kind as u8;
        let (key_bytes, answer) = rest.split_at_mut(key.bytes.len());
        key_bytes.copy_from_slice(key.bytes);
        answer.copy_from_slice(entry.answer);
        Self(allocation)
    }

    /// The bytes of the header at `at`.
    #[inline]
    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.0[at..at + N]);
        field
    }

    #[inline]
    fn hash(&self) -> u64 {
        u64::from_ne_bytes(self.field(0))
    }

    #[inline]
    fn lifetime(&self) -> Lifetime {
        Lifetime {
            stored_ms: u64::from_ne_bytes(self.field(8)),
            ttl_s: u32::from_ne_bytes(self.field(16)),
            stale_s: u32::from_ne_bytes(self.field(20)),
        }
    }

    #[inline]
    fn retry_at_s(&self) -> u32 {
        u32::from_ne_bytes(self.field(24))
    }

    fn kind(&self) -> Kind {
        match self.0[30] {
            kind if kind == Kind::Data as u8 => Kind::Data,
            kind if kind == Kind::Negative as u8 => Kind::Negative,
            _ => Kind::Failure,
        }
    }

    /// A copy whose refresh is held back until this time.
    fn with_retry_at(&self, until_ms: u64) -> Self {
        let after_ms = until_ms.saturating_sub(self.lifetime().stored_ms);
        let after_s = u32::try_from(after_ms.div_ceil(1000)).unwrap_or(u32::MAX);
        let mut copy = Self(Arc::from(&*self.0));
        Arc::make_mut(&mut copy.0)[24..28].copy_from_slice(&after_s.to_ne_bytes());
        copy
    }

    #[inline]
    fn answer_at(&self) -> usize {
        HEADER_LEN + usize::from(u16::from_ne_bytes(self.field(28)))
    }

    #[inline]
    fn key(&self) -> Key<'_> {
        Key { hash: self.hash(), bytes: &self.0[HEADER_LEN..self.answer_at()] }
    }

    #[inline]
    fn answer(&self) -> &[u8] {
        &self.0[self.answer_at()..]
    }

    /// Bytes it occupies: with the limits on key and answer far below `u32::MAX`.
    fn weight(&self) -> u32 {
        footprint(self.0.len() - HEADER_LEN) as u32
    }
}

/// What an entry with a key and an answer of together `len` bytes occupies.
fn footprint(len: usize) -> usize {
    /// The two counts that an `Arc` keeps before its value.
    const ARC_COUNTS: usize = 16;
    (ARC_COUNTS + HEADER_LEN + len).next_multiple_of(16) + MOKA_OVERHEAD
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash());
    }
}

/// A key to look for, without an allocation.
struct Probe<'a>(Key<'a>);

impl Hash for Probe<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl Equivalent<Entry> for Probe<'_> {
    #[inline]
    fn equivalent(&self, entry: &Entry) -> bool {
        self.0 == entry.key()
    }
}

/// Hands the caller's hash on: it is seeded and well mixed already.
#[derive(Clone, Copy, Default)]
struct CallersHash;

impl BuildHasher for CallersHash {
    type Hasher = PassOn;

    #[inline]
    fn build_hasher(&self) -> PassOn {
        PassOn(0)
    }
}

/// See [`CallersHash`].
struct PassOn(u64);

impl Hasher for PassOn {
    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    /// [`Entry`] and [`Probe`] write one `u64`; anything else would still be a valid hash.
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

/// Tells moka when an entry's memory may go.
struct Reclaim;

impl Reclaim {
    fn after(entry: &Entry) -> Option<Duration> {
        let lifetime = entry.lifetime();
        let kept_s = u64::from(lifetime.ttl_s) + u64::from(lifetime.stale_s);
        Some(Duration::from_secs(kept_s) + RECLAIM_SLACK)
    }
}

impl Expiry<Entry, Entry> for Reclaim {
    fn expire_after_create(&self, _: &Entry, entry: &Entry, _: Instant) -> Option<Duration> {
        Self::after(entry)
    }

    /// Called when two threads insert one key at once. Without this, the entry would inherit the
    /// expiry of the other.
    fn expire_after_update(
        &self,
        _: &Entry,
        entry: &Entry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Self::after(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::contract::suite!(MokaCache);

    /// Mixes all bits, as the caller's hash does (SplitMix64).
    fn mixed(number: u64) -> u64 {
        let mut hash = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ (hash >> 31)
    }

    /// Whether the answer to `number` is there; stores it if not.
    fn ask(cache: &MokaCache, number: u64) -> bool {
        let bytes = number.to_ne_bytes();
        let hash = mixed(number);
        let key = Key { hash, bytes: &bytes };
        let known = cache.with(&cache.pin(), key, 0, |found| found != Lookup::Miss);
        if !known {
            let entry =
                NewEntry { answer: &[7; 40], ttl_s: 3600, stale_s: 0, kind: Kind::Negative };
            cache.insert(key, entry, 0);
        }
        known
    }

    #[test]
    fn what_is_asked_for_survives_a_flood_of_names_asked_for_once() {
        const POPULAR: u64 = 500;
        let cache = MokaCache::new(Config::new(1000 * footprint(8 + 40) as u64));
        for round in 0..4 {
            for number in 0..POPULAR {
                assert_eq!(ask(&cache, number), round > 0);
            }
            cache.settle();
        }
        let mut known = 0;
        for step in 0..20_000 {
            ask(&cache, 1_000_000 + step);
            known += u64::from(ask(&cache, step % POPULAR));
        }
        assert!(known > 19_000, "{known} of 20000");
        cache.settle();
        assert!(cache.stats().evicted > 19_000);
    }
}
