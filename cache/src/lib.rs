//! The answer cache: bytes by key, bounded in bytes, expiring by time; knows no DNS.
//!
//! [`AnswerCache`] is what the server uses, [`Store`] the contract that every implementation
//! keeps; the suite in `contract.rs` runs against each of them by one line.
//!
//! What holds for all of them:
//!
//! - **Time is the caller's.** Every call that depends on time takes `now_ms`. An entry never comes
//!   as [`Lookup::Fresh`] at or past its TTL, and a clock that steps back only makes ages 0.
//! - **Answers are seen through a closure** and never handed out, so that no implementation needs
//!   an allocation, a lock that a writer holds, or a reference count for a hit. What [`MokaCache`]
//!   pays in spite of that is written at its head.
//! - **Bytes are bounded**, by what the entries really occupy ([`Config::max_bytes`]). A cache may
//!   forget any entry at any time; it may never return another key's answer.
//! - **An insert supersedes.** Once [`Store::insert`] has returned, no lookup sees what stood under
//!   that key before, whatever the outcome of the insert.

#[cfg(all(test, feature = "moka-cache"))]
mod contract;
#[cfg(feature = "moka-cache")]
mod moka;

#[cfg(feature = "moka-cache")]
pub use crate::moka::MokaCache;

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

/// How large the cache may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Budget in bytes for everything an entry occupies: key, answer and the implementation's own
    /// bookkeeping per entry.
    pub max_bytes: u64,
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
    /// Whether the answer says that something does not exist. Policies may hold such entries
    /// shorter in the cache than others; [`MokaCache`] only records it.
    pub negative: bool,
}

/// What became of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It was taken in. The eviction policy may still prefer older entries and drop it soon.
    Stored,
    /// Its TTL is 0, so there is nothing to keep.
    ZeroTtl,
    /// Its key or answer is over its limit, or it alone weighs more than the whole budget.
    TooLarge,
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
    /// An implementation may count the hit in the last tenth itself as "asked for again" (as
    /// [`MokaCache`] does) or ask for an earlier one.
    pub refresh_due: bool,
}

/// A count of what is in the cache and of what left it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries held, expired ones that are not reclaimed yet included.
    pub entries: u64,
    /// Bytes they occupy, as [`Config::max_bytes`] counts them.
    pub bytes: u64,
    /// Entries that left, or were not admitted, because the budget was used up.
    pub evicted: u64,
    /// Entries that were reclaimed after their stale time.
    pub expired: u64,
    /// Inserts refused as [`Inserted::TooLarge`].
    pub too_large: u64,
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

    /// Forgets everything.
    fn clear(&self);

    /// Counts; approximate until [`Store::settle`].
    fn stats(&self) -> Stats;

    /// Does the work that inserts and lookups have put off, so that the budget holds exactly and
    /// [`Store::stats`] is exact when no other thread is writing. Not for a worker's loop.
    fn settle(&self);
}

/// Proof that the calling thread may read from the [`AnswerCache`]. It is not `Send`.
#[cfg(feature = "moka-cache")]
pub type Pin = <MokaCache as Store>::Pin;

/// The cache of the server: the [`Store`] of choice.
#[cfg(feature = "moka-cache")]
pub type AnswerCache = MokaCache;

/// When an entry was stored and for how long it holds. Decides freshness for every implementation.
#[cfg(feature = "moka-cache")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lifetime {
    stored_ms: u64,
    ttl_s: u32,
    stale_s: u32,
}

#[cfg(feature = "moka-cache")]
impl Lifetime {
    /// How the entry looks at `now_ms`.
    #[inline]
    fn judge(self, answer: &[u8], now_ms: u64) -> Lookup<'_> {
        let elapsed_ms = now_ms.saturating_sub(self.stored_ms);
        let ttl_ms = u64::from(self.ttl_s) * 1000;
        let age_s = u32::try_from(elapsed_ms / 1000).unwrap_or(u32::MAX);
        if elapsed_ms < ttl_ms {
            Lookup::Fresh(Hit { answer, age_s, refresh_due: ttl_ms - elapsed_ms <= ttl_ms / 10 })
        } else if elapsed_ms < ttl_ms + u64::from(self.stale_s) * 1000 {
            Lookup::Stale(Hit { answer, age_s, refresh_due: false })
        } else {
            Lookup::Miss
        }
    }
}
