//! The answer cache of the server: our own, or, in a program with the feature `moka-cache`, the one on
//! `moka` for whoever asks for it.

use clap::ValueEnum;
use swiftlet_cache::{Config, Store};

/// The answer cache of the server. Without the feature there is nothing to choose, and nothing that a hit
/// pays for the choice.
#[cfg(not(feature = "moka-cache"))]
pub type AnswerCache = swiftlet_cache::SegmentedCache;
#[cfg(feature = "moka-cache")]
pub use either::AnswerCache;

/// Proof that the calling thread may read from it. It is not `Send`.
pub type Pin = <AnswerCache as Store>::Pin;

/// Buckets that a worker looks through in each turn for what is past its time.
pub const EXPIRE_BUCKETS: usize = 4;

/// Which answer cache.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Our own: a segmented LRU that is read without locks.
    Segmented,
    /// The one on the library moka.
    Moka,
}

impl Kind {
    /// What `swiftlet config` calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Segmented => "segmented LRU",
            Self::Moka => "moka",
        }
    }

    /// Whether this program has it.
    #[must_use]
    pub const fn is_compiled_in(self) -> bool {
        match self {
            Self::Segmented => true,
            Self::Moka => cfg!(feature = "moka-cache"),
        }
    }
}

/// An empty cache of this kind.
///
/// # Panics
/// If it is not compiled in.
#[must_use]
pub fn open(kind: Kind, config: Config) -> AnswerCache {
    match kind {
        #[cfg(feature = "moka-cache")]
        Kind::Moka => AnswerCache::Moka(Store::new(config)),
        #[cfg(not(feature = "moka-cache"))]
        Kind::Moka => unreachable!("the configuration refuses it"),
        Kind::Segmented => AnswerCache::new(config),
    }
}

#[cfg(feature = "moka-cache")]
mod either {
    use swiftlet_cache::{
        Config, Inserted, Key, Lookup, MokaCache, NewEntry, SegmentedCache, Stats, Store,
    };

    /// One of the two caches. A hit pays a branch for the choice.
    pub enum AnswerCache {
        /// Our own.
        Segmented(SegmentedCache),
        /// The one on `moka`.
        Moka(MokaCache),
    }

    /// Proof that the calling thread may read from the cache that made it.
    pub enum Pin {
        /// Of our own.
        Segmented(<SegmentedCache as Store>::Pin),
        /// Of the one on `moka`.
        Moka(<MokaCache as Store>::Pin),
    }

    /// The same for whichever it is.
    macro_rules! whichever {
        ($cache:ident, $store:ident => $what:expr) => {
            match $cache {
                AnswerCache::Segmented($store) => $what,
                AnswerCache::Moka($store) => $what,
            }
        };
    }

    impl Store for AnswerCache {
        type Pin = Pin;

        fn new(config: Config) -> Self {
            Self::Segmented(Store::new(config))
        }

        fn pin(&self) -> Pin {
            match self {
                Self::Segmented(cache) => Pin::Segmented(cache.pin()),
                Self::Moka(cache) => Pin::Moka(cache.pin()),
            }
        }

        #[inline]
        fn prefetch(&self, hash: u64) {
            whichever!(self, cache => cache.prefetch(hash));
        }

        #[inline]
        fn prefetch_entry(&self, pin: &Pin, hash: u64) {
            if let (Self::Segmented(cache), Pin::Segmented(pin)) = (self, pin) {
                cache.prefetch_entry(pin, hash);
            }
        }

        fn with<R>(
            &self,
            pin: &Pin,
            key: Key<'_>,
            now_ms: u64,
            f: impl FnOnce(Lookup<'_>) -> R,
        ) -> R {
            match (self, pin) {
                (Self::Segmented(cache), Pin::Segmented(pin)) => cache.with(pin, key, now_ms, f),
                (Self::Moka(cache), Pin::Moka(pin)) => cache.with(pin, key, now_ms, f),
                // A pin of another cache proves nothing.
                _ => f(Lookup::Miss),
            }
        }

        fn insert(&self, key: Key<'_>, entry: NewEntry<'_>, now_ms: u64) -> Inserted {
            whichever!(self, cache => cache.insert(key, entry, now_ms))
        }

        fn remove(&self, key: Key<'_>) {
            whichever!(self, cache => cache.remove(key));
        }

        fn remove_if(&self, condition: impl FnMut(&[u8]) -> bool) -> u64 {
            whichever!(self, cache => cache.remove_if(condition))
        }

        fn clear(&self) {
            whichever!(self, cache => cache.clear());
        }

        fn expire(&self, now_ms: u64, buckets: usize) {
            whichever!(self, cache => cache.expire(now_ms, buckets));
        }

        fn stats(&self) -> Stats {
            whichever!(self, cache => cache.stats())
        }

        fn settle(&self) {
            whichever!(self, cache => cache.settle());
        }
    }
}
