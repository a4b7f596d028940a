//! What was learned of how one server speaks, shared by all workers: whether it repeats the letter case of a
//! question, whether it understands EDNS, and when the ways to it have to be made anew.
//!
//! Nothing here follows from one reply that an attacker may have sent.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// For how long a server is asked without EDNS before it is asked with it again.
const WITHOUT_EDNS: Duration = Duration::from_secs(15 * 60);

/// The habits of one server.
#[derive(Debug, Default)]
pub struct Habits {
    /// It repeated a question in random letter case exactly.
    keeps_case: AtomicBool,
    /// The local port at which it seemed not to understand EDNS; 0 if it does, or that is not known.
    doubted_at: AtomicU32,
    /// Until then (as `Now::boot_ms`) it is asked without EDNS.
    without_edns_until_ms: AtomicU64,
    /// Raised when ports and connections to it must not be used any more.
    renewals: AtomicU32,
}

/// Where a server said that it does not understand a question with EDNS (RFC 6891 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// In a datagram to this port, which somebody else may have guessed.
    Port(u16),
    /// Over TCP, where it was the server itself.
    Stream,
}

impl Habits {
    /// Whether a reply in another letter case than the question's is not the server's.
    pub(super) fn keeps_case(&self) -> bool {
        self.keeps_case.load(Relaxed)
    }

    /// Notes whether it repeated a question that had upper-case letters exactly.
    pub(super) fn note_case(&self, kept: bool) {
        // Read first: a line that all workers read is seldom written.
        if self.keeps_case() != kept {
            self.keeps_case.store(kept, Relaxed);
        }
    }

    /// Whether it is to be asked without EDNS for now.
    pub(super) fn is_without_edns(&self, now_ms: u64) -> bool {
        self.without_edns_until_ms.load(Relaxed) > now_ms
    }

    /// Notes that it refused a question with EDNS and gave a good answer to the same without. One sign in a
    /// datagram is not enough: a second one has to come, at another port. Returns whether it is asked
    /// without EDNS from now on.
    pub(super) fn note_without_edns(&self, sign: Sign, now_ms: u64) -> bool {
        let before = match sign {
            Sign::Port(port) => self.doubted_at.swap(port.into(), Relaxed),
            Sign::Stream => 0,
        };
        let is_sure = match sign {
            Sign::Port(port) => before != 0 && before != u32::from(port),
            Sign::Stream => true,
        };
        if is_sure {
            let until_ms = now_ms + WITHOUT_EDNS.as_millis() as u64;
            self.without_edns_until_ms.store(until_ms, Relaxed);
            self.doubted_at.store(0, Relaxed);
        }
        is_sure
    }

    /// Notes that it answered with EDNS.
    pub(super) fn note_edns(&self) {
        if self.doubted_at.load(Relaxed) != 0 {
            self.doubted_at.store(0, Relaxed);
        }
    }

    /// Has all workers make new ports and connections to the server, as after a change of the machine's
    /// addresses or routes: a connected socket keeps the address that it began with.
    pub fn renew(&self) {
        self.renewals.fetch_add(1, Relaxed);
    }

    /// How often [`renew`](Self::renew) was called.
    pub(super) fn renewals(&self) -> u32 {
        self.renewals.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUARTER_MS: u64 = 15 * 60 * 1000;

    #[test]
    fn edns_is_left_out_after_two_signs_at_different_ports_for_a_quarter_of_an_hour() {
        let habits = Habits::default();
        assert!(!habits.note_without_edns(Sign::Port(5000), 1000));
        assert!(!habits.note_without_edns(Sign::Port(5000), 1001), "whoever guessed the port");
        assert!(!habits.is_without_edns(1001));
        assert!(habits.note_without_edns(Sign::Port(5001), 1002));
        assert!(habits.is_without_edns(1002 + QUARTER_MS - 1));
        assert!(!habits.is_without_edns(1002 + QUARTER_MS));
        assert!(!habits.note_without_edns(Sign::Port(5001), 2000), "it takes two again");
    }

    #[test]
    fn an_answer_with_edns_takes_a_sign_back() {
        let habits = Habits::default();
        habits.note_without_edns(Sign::Port(5000), 0);
        habits.note_edns();
        assert!(!habits.note_without_edns(Sign::Port(5001), 0));
    }

    #[test]
    fn over_tcp_one_sign_is_enough() {
        let habits = Habits::default();
        assert!(habits.note_without_edns(Sign::Stream, 0));
        assert!(habits.is_without_edns(0));
    }
}
