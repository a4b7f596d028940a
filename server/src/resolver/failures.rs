//! Failures that are remembered (RFC 9520), so that a name whose servers are broken costs one question
//! now and then, whatever the number of clients that ask for it.
//!
//! Without data in the cache a failure is an entry of its own in the form of [`Failed`], and is answered
//! on the packet path. Where there is data the cache notes at the data that asking is no use now
//! (`Hit::retry_held`), and stale data is answered at once for that time.
//!
//! How long: 1 s, doubled with each failure of that key in a row up to [`HOLD_MAX_S`] ([`Streaks`]). An
//! outage, in which no upstream says anything to anybody, is not held against a key: without data it is
//! asked again after 1 s, and where there is stale data that is answered at once for [`HOLD_MAX_S`] while
//! the key is asked again each second for nobody in particular. So nobody waits for what cannot be had,
//! and answers flow again soon after the outage is over.
//!
//! ```text
//!  0  mark      0xff: a template begins with 0, the high byte of its QDCOUNT
//!  1  -         0
//!  2  rcode     u16, little endian as all numbers here
//!  4  error     u16: the extended error's number
//!  6  -         4 bytes of 0
//! 10  records   0xffff: where a template counts its records
//! 12  -         4 bytes of 0
//! 16  text      UTF-8, at most MAX_TEXT_LEN bytes
//! ```
//!
//! Offsets for 65,535 records would be longer than anything the cache takes, so `Template::from_bytes`
//! finds no template here, and the way of a hit needs no look at the mark.

use swiftlet_parser::edns::ExtendedError;
use swiftlet_parser::rr::Rcode;

use super::Outcome;

/// The longest time for which a failure is remembered, in seconds. RFC 9520 §3.2 allows 5 minutes; a
/// mended zone should not wait for that.
pub const HOLD_MAX_S: u32 = 30;

/// The shortest, in seconds (RFC 9520 §3.2).
const HOLD_MIN_S: u32 = 1;

/// Bytes kept of the text that says what failed, so that the answer fits the smallest client.
pub const MAX_TEXT_LEN: usize = 80;

/// The first byte of a stored failure.
const MARK: u8 = 0xff;

/// Bytes before the text.
const HEAD_LEN: usize = 16;

/// A failure as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed<'a> {
    /// The code that the clients got.
    pub rcode: Rcode,
    /// The extended error that said why.
    pub error: ExtendedError,
    /// The same in words.
    pub text: &'a str,
}

impl<'a> Failed<'a> {
    /// Appends the stored form; a text that is too long is cut.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend([MARK, 0]);
        out.extend(self.rcode.0.to_le_bytes());
        out.extend(self.error.0.to_le_bytes());
        out.extend([0; 4]);
        out.extend([0xff; 2]);
        out.extend([0; 4]);
        let end = (0..=MAX_TEXT_LEN.min(self.text.len())).rev();
        let text = end.filter_map(|end| self.text.get(..end)).next();
        out.extend(text.unwrap_or_default().as_bytes());
    }

    /// Reads it back; `None` if these bytes are something else, as an answer is.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (head, text) = bytes.split_first_chunk::<HEAD_LEN>()?;
        let [MARK, _, r0, r1, e0, e1, ..] = *head else { return None };
        Some(Self {
            rcode: Rcode(u16::from_le_bytes([r0, r1])),
            error: ExtendedError(u16::from_le_bytes([e0, e1])),
            text: std::str::from_utf8(text).ok()?,
        })
    }

    /// What is told to one who asks while it is remembered (RFC 8914 §4.14).
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let error = ExtendedError::CACHED_ERROR;
        Outcome::Failure { rcode: self.rcode, error, text: self.text.to_owned().into() }
    }
}

/// Failures in a row of the keys that one worker owns.
///
/// A table of fixed size, found by the key's hash: of two keys that fall into one place the one that
/// failed last stays, and the other begins again with 1 s. A flush ends the time of a failure, not the
/// row: what fails again after it is held as long as before. Bound: [`PLACES`].
#[derive(Debug)]
pub(super) struct Streaks(Box<[Streak]>);

/// Places of the table, 96 KiB.
const PLACES: usize = 4096;

/// After so long without a further failure the row is broken. Longer than the longest hold, for a key
/// that nobody asks for does not fail.
const FORGOTTEN_AFTER_MS: u64 = 120_000;

#[derive(Clone, Copy, Debug, Default)]
struct Streak {
    hash: u64,
    failed_ms: u64,
    /// Failures that were the key's own.
    failures: u8,
    /// The last one was not.
    is_outage: bool,
}

impl Default for Streaks {
    fn default() -> Self {
        Self(vec![Streak::default(); PLACES].into())
    }
}

impl Streaks {
    /// Notes that a key failed. Returns for how many seconds that is to be remembered, which does not
    /// grow with an outage.
    pub(super) fn failed(&mut self, hash: u64, now_ms: u64, is_outage: bool) -> u32 {
        let streak = self.place(hash);
        let goes_on =
            streak.hash == hash && now_ms.saturating_sub(streak.failed_ms) < FORGOTTEN_AFTER_MS;
        let before = if goes_on { streak.failures } else { 0 };
        let failures = before.saturating_add(u8::from(!is_outage));
        *streak = Streak { hash, failed_ms: now_ms, failures, is_outage };
        if is_outage {
            return HOLD_MIN_S;
        }
        let doublings = u32::from(failures - 1).min(HOLD_MAX_S.ilog2() + 1);
        (HOLD_MIN_S << doublings).min(HOLD_MAX_S)
    }

    /// Whether a key whose refresh is held back may be asked for again all the same: it failed in an
    /// outage, and not just now.
    pub(super) fn may_be_over(&mut self, hash: u64, now_ms: u64) -> bool {
        let streak = self.place(hash);
        let again_ms = streak.failed_ms + u64::from(HOLD_MIN_S) * 1000;
        streak.hash == hash && streak.is_outage && now_ms >= again_ms
    }

    /// Ends the row of a key.
    pub(super) fn succeeded(&mut self, hash: u64) {
        let streak = self.place(hash);
        if streak.hash == hash {
            streak.failures = 0;
        }
    }

    fn place(&mut self, hash: u64) -> &mut Streak {
        // The upper bits: the lower ones say which worker owns the key.
        &mut self.0[(hash >> 32) as usize % PLACES]
    }
}

#[cfg(test)]
mod tests {
    use swiftlet_parser::template::Template;

    use super::*;

    #[test]
    fn a_failure_reads_back_and_is_no_template() {
        let text = "é".repeat(MAX_TEXT_LEN);
        for text in ["", "no upstream answered in time", &text] {
            let failed =
                Failed { rcode: Rcode::SERVFAIL, error: ExtendedError::NETWORK_ERROR, text };
            let mut bytes = Vec::new();
            failed.write(&mut bytes);
            let kept = &text[..text.len().min(MAX_TEXT_LEN)];
            assert_eq!(Failed::read(&bytes), Some(Failed { text: kept, ..failed }));
            assert!(Template::from_bytes(&bytes).is_none());
            // Not even with the longest answer that the cache takes.
            bytes.resize(swiftlet_cache::MAX_ANSWER_LEN, 0);
            assert!(Template::from_bytes(&bytes).is_none());
        }
        assert_eq!(Failed::read(&[0; 64]), None);
        assert_eq!(Failed::read(&[MARK; 15]), None);
        assert_eq!(Failed::read(&[MARK; 17]), None, "no UTF-8");
    }

    #[test]
    fn a_row_of_failures_is_remembered_for_longer_each_time() {
        let mut streaks = Streaks::default();
        let mut now_ms = 5_000;
        for expected_s in [1, 2, 4, 8, 16, 30, 30, 30] {
            let held_s = streaks.failed(7, now_ms, false);
            assert_eq!(held_s, expected_s);
            now_ms += u64::from(held_s) * 1000;
        }
        assert_eq!(streaks.failed(7, now_ms, true), 1, "no fault of the key");
        assert_eq!(streaks.failed(7, now_ms, false), 30);
        for _ in 0..300 {
            assert_eq!(streaks.failed(7, now_ms, false), 30);
        }
        streaks.succeeded(7);
        assert_eq!(streaks.failed(7, now_ms, false), 1);
        assert_eq!(streaks.failed(7, now_ms, false), 2);
        assert_eq!(streaks.failed(7, now_ms + FORGOTTEN_AFTER_MS, false), 1);
        // Another key in the same place.
        assert_eq!(streaks.failed(8, now_ms, false), 1);
        streaks.succeeded(7);
        assert_eq!(streaks.failed(8, now_ms, false), 2);
    }

    #[test]
    fn only_an_outage_may_be_over_before_the_time() {
        let mut streaks = Streaks::default();
        assert!(!streaks.may_be_over(7, 10_000), "nothing is known");
        streaks.failed(7, 10_000, true);
        assert!(!streaks.may_be_over(7, 10_999));
        assert!(streaks.may_be_over(7, 11_000));
        assert!(!streaks.may_be_over(8, 11_000));
        streaks.failed(7, 11_000, false);
        assert!(!streaks.may_be_over(7, 20_000));
    }
}
