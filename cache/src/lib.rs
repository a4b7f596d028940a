//! The answer cache: bytes by key, bounded in bytes, expiring by time; knows no DNS.
//!
//! [`Store`] is the contract; [`SegmentedCache`] keeps it without locks for readers, and
//! `MokaCache` (feature `moka-cache`) on a well-known library, as the yardstick. The suite in
//! `contract.rs` runs against each of them by one line.
//!
//! What holds for all of them:
//!
//! - **Time is the caller's.** Every call that depends on time takes `now_ms`. An entry never comes
//!   as [`Lookup::Fresh`] at or past its TTL, and a clock that steps back only makes ages 0.
//! - **Answers are seen through a closure** and never handed out, so that no implementation needs
//!   an allocation, a lock that a writer holds, or a reference count for a hit. What `MokaCache`
//!   pays in spite of that is written at its head.
//! - **Bytes are bounded**, by what the entries really occupy ([`Config::max_bytes`]). A cache may
//!   forget any entry at any time; it may never return another key's answer.
//! - **An insert supersedes.** Once [`Store::insert`] has returned, no lookup sees what stood under
//!   that key before, whatever the outcome of the insert. The one exception is a failure, which
//!   never takes the place of an answer ([`Kind::Failure`]).

#[cfg(all(test, not(loom)))]
mod contract;
#[cfg(feature = "moka-cache")]
mod moka;
pub mod segmented;

#[cfg(feature = "moka-cache")]
pub use crate::moka::MokaCache;
pub use crate::segmented::SegmentedCache;

/// The longest key in bytes; a longer one is [`Inserted::TooLarge`]. A DNS key has at most 261.
pub const MAX_KEY_LEN: usize = 1024;

/// The longest answer in bytes; a longer one is [`Inserted::TooLarge`]. The part of a DNS message
/// after its question is always shorter (RFC 1035 §4.2.2: a 16-bit length).
pub const MAX_ANSWER_LEN: usize = 65_535;

/// A key with its hash.
///
/// The caller hashes, because it builds the key's bytes anyway: all 64 bits must be well mixed and
/// seeded at random per process, for names are chosen by strangers. Keys with one hash and
/// different bytes are different keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// The seeded hash of `bytes`.
    pub hash: u64,
    /// What is compared; at most [`MAX_KEY_LEN`].
    pub bytes: &'a [u8],
}

/// How large the cache may become, and in what memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Budget in bytes for everything an entry occupies: key, answer and the implementation's own
    /// bookkeeping per entry.
    pub max_bytes: u64,
    /// Whether to ask the system for huge pages, which a large cache reaches with fewer misses of
    /// the processor's address cache, or to forbid them; `None` leaves that to the allocator and the
    /// system (mimalloc asks for them). Where the system has none to give the pages are usual ones;
    /// an implementation that does not have its memory in one piece ignores it.
    pub huge_pages: Option<bool>,
}

impl Config {
    /// A budget, in pages as they come.
    #[must_use]
    pub const fn new(max_bytes: u64) -> Self {
        Self { max_bytes, huge_pages: None }
    }
}

/// An answer to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewEntry<'a> {
    /// The bytes to keep; at most [`MAX_ANSWER_LEN`].
    pub answer: &'a [u8],
    /// Seconds for which the entry is fresh. With 0 nothing is stored.
    pub ttl_s: u32,
    /// Seconds after that for which it is still kept, as [`Lookup::Stale`] (RFC 8767).
    pub stale_s: u32,
    /// What it is worth.
    pub kind: Kind,
}

/// What an answer is worth to the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// It has what was asked for.
    Data,
    /// It says that something does not exist. An implementation may give such answers less room,
    /// so that a flood of them cannot push data out.
    Negative,
    /// It says that no answer was to be had (RFC 9520). It never replaces an entry of another kind
    /// that is not past its stale time, but holds back its refresh for its own TTL
    /// ([`Hit::retry_held`]).
    Failure,
}

/// What became of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It was taken in. The eviction policy may still prefer older entries and drop it soon.
    Stored,
    /// Its TTL is 0, so there is nothing to keep.
    ZeroTtl,
    /// Its key or answer is over its limit, or it alone weighs more than its part of the budget.
    TooLarge,
    /// Too much that was removed is still held by readers ([`Stats::retired_bytes`]).
    Refused,
    /// It is a failure, and there is an answer, whose refresh is held back now.
    Held,
}

/// What a key led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// Younger than its TTL.
    Fresh(Hit<'a>),
    /// Its TTL has passed, its stale time has not.
    Stale(Hit<'a>),
    /// Unknown, forgotten, or past its stale time.
    Miss,
}

/// An entry as a lookup shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit<'a> {
    /// The bytes that were stored.
    pub answer: &'a [u8],
    /// Whole seconds since it was stored, rounded down; 0 when the clock has stepped back.
    pub age_s: u32,
    /// The entry is fresh, was asked for again, and at most a tenth of its TTL is left: a refresh
    /// now will keep it from ever being missed. Never set on a stale hit. It stays set on every
    /// such hit until the entry is replaced, so the caller must join refreshes of one key.
    ///
    /// An implementation may count the hit in the last tenth itself as "asked for again" or ask for
    /// an earlier one.
    pub refresh_due: bool,
    /// A refresh has failed, and the time for which that holds is not over: asking upstream again
    /// is no use now. No refresh is due in that time.
    pub retry_held: bool,
}

/// A count of what is in the cache and of what left it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries held, expired ones that are not reclaimed yet included.
    pub entries: u64,
    /// Bytes that they and what goes with each of them occupy, as [`Config::max_bytes`] counts
    /// them, those of [`Stats::retired_bytes`] included.
    pub bytes: u64,
    /// Bytes of entries that have left and are not freed yet, because readers may still see them.
    pub retired_bytes: u64,
    /// Bytes of the table, which the budget counts beside [`Stats::bytes`].
    pub table_bytes: u64,
    /// Entries that the table can hold; 0 if it has no bound of its own.
    pub slots: u64,
    /// Entries that left, or were not admitted, because the budget was used up.
    pub evicted: u64,
    /// Entries that were reclaimed after their stale time.
    pub expired: u64,
    /// Inserts refused as [`Inserted::TooLarge`].
    pub too_large: u64,
    /// Inserts refused as [`Inserted::Refused`].
    pub refused: u64,
    /// The same by segment, in the order of [`SEGMENT_NAMES`]; zero if there are none.
    pub segments: [SegmentStats; SEGMENT_NAMES.len()],
}

/// The segments of [`SegmentedCache`].
pub const SEGMENT_NAMES: [&str; 3] = ["probation", "negative", "protected"];

/// A count of what is in a segment and of what left the cache from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentStats {
    /// Entries held.
    pub entries: u64,
    /// Bytes that they occupy.
    pub bytes: u64,
    /// Entries that left because the budget was used up.
    pub evicted: u64,
    /// Entries that left because there was no slot for another in the table.
    pub crowded: u64,
    /// Entries that were reclaimed after their stale time.
    pub expired: u64,
}

/// What an answer cache does. Shared by all workers, hence every method takes `&self`.
pub trait Store: Send + Sync {
    /// Proof that the calling thread may read; see [`Store::pin`].
    type Pin;

    /// An empty cache.
    fn new(config: Config) -> Self;

    /// To be taken once per batch of lookups and dropped after it, and never held across an
    /// `.await`: while it lives, nothing that was removed can be freed.
    fn pin(&self) -> Self::Pin;

    /// Begins to load what a lookup of this hash will read first. A hint.
    #[inline]
    fn prefetch(&self, _hash: u64) {}

    /// Begins to load what a lookup of this hash will read next, some time after
    /// [`Store::prefetch`]. A hint.
    #[inline]
    fn prefetch_entry(&self, _pin: &Self::Pin, _hash: u64) {}

    /// Looks the key up as of `now_ms` and passes what was found to `f`.
    fn with<R>(
        &self,
        pin: &Self::Pin,
        key: Key<'_>,
        now_ms: u64,
        f: impl FnOnce(Lookup<'_>) -> R,
    ) -> R;

    /// Stores the entry as of `now_ms`. What stood under the key before is gone in any case.
    fn insert(&self, key: Key<'_>, entry: NewEntry<'_>, now_ms: u64) -> Inserted;

    /// Forgets the key.
    fn remove(&self, key: Key<'_>);

    /// Forgets every key for which the condition holds, and returns how many those were. Takes time
    /// with the size of the cache, during which others go on; what they insert meanwhile may stay.
    /// The condition may be called under a lock: it must not use the cache.
    fn remove_if(&self, condition: impl FnMut(&[u8]) -> bool) -> u64;

    /// Forgets everything, as [`Store::remove_if`] does.
    fn clear(&self) {
        self.remove_if(|_| true);
    }

    /// Looks through the next `buckets` buckets of the table and reclaims what is past its stale
    /// time: a small step of work for each turn of a worker.
    fn expire(&self, now_ms: u64, buckets: usize);

    /// Counts; approximate until [`Store::settle`].
    fn stats(&self) -> Stats;

    /// Does the work that inserts and lookups have put off, so that the budget holds exactly and
    /// [`Store::stats`] is exact when no other thread is writing. Not for a worker's loop.
    fn settle(&self);
}

/// When an entry was stored and for how long it holds. Decides freshness for every implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lifetime {
    stored_ms: u64,
    ttl_s: u32,
    stale_s: u32,
}

impl Lifetime {
    /// How the entry looks at `now_ms`, if asking for it again is held back until `retry_at_s`
    /// after it was stored.
    #[inline]
    fn judge(self, answer: &[u8], now_ms: u64, retry_at_s: u32) -> Lookup<'_> {
        let elapsed_ms = now_ms.saturating_sub(self.stored_ms);
        let ttl_ms = u64::from(self.ttl_s) * 1000;
        let age_s = u32::try_from(elapsed_ms / 1000).unwrap_or(u32::MAX);
        let retry_held = elapsed_ms < u64::from(retry_at_s) * 1000;
        if elapsed_ms < ttl_ms {
            let refresh_due = ttl_ms - elapsed_ms <= ttl_ms / 10 && !retry_held;
            Lookup::Fresh(Hit { answer, age_s, refresh_due, retry_held })
        } else if elapsed_ms < ttl_ms + u64::from(self.stale_s) * 1000 {
            Lookup::Stale(Hit { answer, age_s, refresh_due: false, retry_held })
        } else {
            Lookup::Miss
        }
    }

    /// Whether it is past its stale time.
    #[inline]
    fn is_over(self, now_ms: u64) -> bool {
        let kept_ms = (u64::from(self.ttl_s) + u64::from(self.stale_s)) * 1000;
        now_ms.saturating_sub(self.stored_ms) >= kept_ms
    }
}
