//! Which answer cache this program was built with.

use swiftlet_cache::Store;

/// The answer cache of the server.
#[cfg(not(feature = "moka-cache"))]
pub type AnswerCache = swiftlet_cache::SegmentedCache;

/// The answer cache of the server.
#[cfg(feature = "moka-cache")]
pub type AnswerCache = swiftlet_cache::MokaCache;

/// Proof that the calling thread may read from it. It is not `Send`.
pub type Pin = <AnswerCache as Store>::Pin;

/// What `swiftlet config` calls it.
pub const NAME: &str = if cfg!(feature = "moka-cache") { "moka" } else { "segmented LRU" };

/// Buckets that a worker looks through in each turn for what is past its time.
pub const EXPIRE_BUCKETS: usize = 4;
