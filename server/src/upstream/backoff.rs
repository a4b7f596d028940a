//! How failures at a server are classed, and how long each class keeps it from being asked again.
//!
//! Each class backs off by itself: 1 ms after its first failure, doubled with each that follows a
//! back-off that was over, [`MAX_MS`] at most, and a random half of that less, so that workers and
//! machines do not ask in step.

use rand::RngExt;
use rand::rngs::StdRng;

/// The longest back-off.
pub const MAX_MS: u64 = 5_000;

/// The longest when no server of those that may be asked is up: after an outage of all, answers have to
/// flow again within 2 s.
pub const MAX_ALL_DOWN_MS: u64 = 1_000;

/// What kind of failure a server had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// No answer in time.
    Timeout,
    /// The network or the server's host refused.
    Network,
    /// An answer with SERVFAIL, REFUSED and the like.
    Rcode,
    /// An answer that makes no sense.
    Malformed,
    /// Only answers to other questions.
    WrongReplies,
    /// TCP was refused, closed or broken.
    Stream,
}

impl Class {
    /// Every class, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Timeout,
        Self::Network,
        Self::Rcode,
        Self::Malformed,
        Self::WrongReplies,
        Self::Stream,
    ];

    /// The name that `/metrics` and `/debug/upstreams` show.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Network => "network",
            Self::Rcode => "rcode",
            Self::Malformed => "malformed",
            Self::WrongReplies => "wrong_replies",
            Self::Stream => "stream",
        }
    }

    /// Whether it says that the server cannot be reached. After the others it is known to live: TCP is
    /// used when it answered over UDP.
    #[must_use]
    pub fn is_silence(self) -> bool {
        matches!(self, Self::Timeout | Self::Network | Self::WrongReplies)
    }

    /// Whether it is an answer, if a bad one.
    #[must_use]
    pub fn is_answer(self) -> bool {
        matches!(self, Self::Rcode | Self::Malformed)
    }

    /// Failures in a row that open the breaker. SERVFAIL and REFUSED are about one question mostly (a
    /// broken zone, a name under a policy), so that only a server that says nearly nothing else is taken
    /// for broken: so many without one good answer between them.
    #[must_use]
    pub fn opens_after(self) -> u32 {
        match self {
            Self::Network => 2,
            Self::Timeout | Self::WrongReplies => 3,
            // Answers that UDP carries go on.
            Self::Stream | Self::Malformed => 16,
            Self::Rcode => 64,
        }
    }
}

/// The back-off after so many doublings: between half of it and all of it.
pub fn delay_ms(doublings: u32, random: &mut StdRng) -> u64 {
    let longest = MAX_MS.min(1 << doublings.min(16));
    random.random_range(longest.div_ceil(2)..=longest)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn delays_double_from_one_millisecond_to_the_longest_and_are_spread() {
        let mut random = StdRng::seed_from_u64(1);
        for doublings in 0..40 {
            let longest = MAX_MS.min(1 << doublings.min(20));
            let delays: Vec<u64> = (0..1000).map(|_| delay_ms(doublings, &mut random)).collect();
            let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
            assert!(*least >= longest.div_ceil(2) && *most <= longest, "{doublings}");
            assert!(*least >= 1);
            let mean = delays.iter().sum::<u64>() as f64 / 1000.0;
            let middle = (longest.div_ceil(2) + longest) as f64 / 2.0;
            assert!((mean - middle).abs() <= longest as f64 / 20.0, "{doublings}: {mean}");
        }
    }

    #[test]
    fn the_classes_have_their_numbers_in_order() {
        for (at, class) in Class::ALL.iter().enumerate() {
            assert_eq!(*class as usize, at);
        }
    }
}
