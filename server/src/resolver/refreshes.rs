//! Which answers this worker has asked to be refreshed lately.
//!
//! The cache says of each hit in the last tenth of a TTL that a refresh is due, until it has come. This
//! keeps one worker from telling the owner of the key more than once in [`AGAIN_AFTER_MS`]; the owner
//! joins what still comes, so that upstream is asked once.
//!
//! Bound: [`PLACES`]; of two keys in one place the later one stays, which costs a letter more.

/// Places of the table, 16 KiB.
const PLACES: usize = 1024;

/// The owner is told again after so long, for a refresh may have found no room.
const AGAIN_AFTER_MS: u64 = 1_000;

/// The hashes of the keys, and until when they need no refresh.
#[derive(Debug)]
pub(super) struct Refreshes(Box<[(u64, u64)]>);

impl Default for Refreshes {
    fn default() -> Self {
        Self(vec![(0, 0); PLACES].into())
    }
}

impl Refreshes {
    /// Whether the owner of this key is to be told now; if so, it is noted.
    pub(super) fn begin(&mut self, hash: u64, now_ms: u64) -> bool {
        let place = &mut self.0[(hash >> 32) as usize % PLACES];
        let (noted, until_ms) = *place;
        if noted == hash && now_ms < until_ms {
            return false;
        }
        *place = (hash, now_ms + AGAIN_AFTER_MS);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_told_once_in_a_while() {
        let mut refreshes = Refreshes::default();
        assert!(refreshes.begin(1, 10_000));
        assert!(!refreshes.begin(1, 10_999));
        assert!(refreshes.begin(1 << 32, 10_999), "another place");
        assert!(refreshes.begin(1, 11_000));
        assert!(!refreshes.begin(1, 11_001));
        assert!(refreshes.begin(2, 11_002), "another key in the same place");
        assert!(refreshes.begin(1, 11_003));
    }
}
