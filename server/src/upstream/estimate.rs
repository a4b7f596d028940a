//! How long a server takes, and how often it does not answer: estimates that all workers write without
//! a lock.
//!
//! A write is a load and a store. Two at once may lose one sample, which an estimate can bear; it is
//! never torn, for what belongs together is one word.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The shortest time-out of a try: what a busy host's scheduler may take.
pub const MIN_TIMEOUT: Duration = Duration::from_millis(20);

/// The time-out of a try at a server of which nothing is known.
pub const UNKNOWN_TIMEOUT: Duration = Duration::from_millis(400);

/// Samples before the 95th percentile is worth asking a second server for.
const P95_SAMPLES: u32 = 20;

/// The smoothed round trip, its deviation (RFC 6298 §2) and its 95th percentile, in µs.
#[derive(Debug, Default)]
pub struct RoundTrip {
    /// The smoothed round trip in the upper half, its deviation in the lower; 0 while unknown.
    smoothed: AtomicU64,
    p95: AtomicU32,
    /// Samples since the network changed last: with none, what is here is old.
    samples: AtomicU32,
}

impl RoundTrip {
    /// Takes a round trip in. The first one after [`age`](Self::age) stands for itself.
    pub fn sample(&self, took: Duration) {
        let us = micros(took);
        let (samples, (srtt, rttvar)) = (self.samples.load(Relaxed), self.unpacked());
        if samples == 0 {
            self.pack(us, us / 2);
            self.p95.store(us.saturating_mul(2), Relaxed);
        } else {
            let deviation = srtt.abs_diff(us);
            self.pack(srtt - srtt / 8 + us / 8, rttvar - rttvar / 4 + deviation / 4);
            self.step_p95(us);
        }
        self.samples.store(samples.saturating_add(1), Relaxed);
    }

    /// Takes in that an answer had not come after so long when another server's made it needless.
    pub fn outlasted(&self, waited: Duration) {
        let us = micros(waited);
        if us > self.p95.load(Relaxed) && self.samples.load(Relaxed) > 0 {
            // It would have taken longer still; that much is certain.
            self.sample(waited);
        }
    }

    /// A step up for a sample above, a nineteenth of it down for one below, so that both balance where
    /// one in twenty is above. Steps are a share of the value: they must not follow the deviation,
    /// which one slow answer makes large just then.
    fn step_p95(&self, us: u32) {
        let p95 = self.p95.load(Relaxed);
        let stepped = match us > p95 {
            true => p95.saturating_add(p95 / 8 + 1),
            false => p95 - p95 / 152,
        };
        self.p95.store(stepped, Relaxed);
    }

    /// Marks what is known as old: it goes on ranking the server, and the next sample replaces it.
    pub fn age(&self) {
        self.samples.store(0, Relaxed);
    }

    /// Whether there is no sample since the network changed.
    pub fn is_old(&self) -> bool {
        self.samples.load(Relaxed) == 0
    }

    /// The smoothed round trip and its deviation, if there are any, in µs.
    pub fn smoothed(&self) -> Option<(u32, u32)> {
        Some(self.unpacked()).filter(|&known| known != (0, 0))
    }

    /// The 95th percentile, once there are samples enough.
    pub fn p95(&self) -> Option<Duration> {
        let known = self.samples.load(Relaxed) >= P95_SAMPLES;
        known.then(|| Duration::from_micros(self.p95.load(Relaxed).into()))
    }

    /// How long to wait before a datagram counts as lost: the round trip and four times its deviation
    /// (RFC 6298 §2), [`MIN_TIMEOUT`] at least.
    pub fn timeout(&self) -> Duration {
        match self.smoothed() {
            Some((srtt, rttvar)) => {
                let us = u64::from(srtt) + 4 * u64::from(rttvar);
                let least = if self.is_old() { UNKNOWN_TIMEOUT } else { MIN_TIMEOUT };
                Duration::from_micros(us).max(least)
            }
            None => UNKNOWN_TIMEOUT,
        }
    }

    fn unpacked(&self) -> (u32, u32) {
        let smoothed = self.smoothed.load(Relaxed);
        ((smoothed >> 32) as u32, smoothed as u32)
    }

    fn pack(&self, srtt: u32, rttvar: u32) {
        // 0 means unknown.
        self.smoothed.store(u64::from(srtt.max(1)) << 32 | u64::from(rttvar), Relaxed);
    }
}

fn micros(took: Duration) -> u32 {
    u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1)
}

/// The share of tries that got no answer: a moving average over some eight tries, which fades while
/// nobody asks, so that a server that had bad luck gets another chance.
#[derive(Debug, Default)]
pub struct Loss {
    /// The share in the upper 16 bits, in 65,535ths, and when that was, in ms, in the lower 48.
    noted: AtomicU64,
}

/// The loss halves in this time without tries.
const LOSS_HALF_LIFE_MS: u64 = 1_000;

/// All of it.
const WHOLE: u64 = u16::MAX as u64;

const MS_MASK: u64 = (1 << 48) - 1;

impl Loss {
    /// Takes in whether a try got an answer.
    pub fn note(&self, lost: bool, now_ms: u64) {
        let share = self.share_of_whole(now_ms);
        if share == 0 && !lost {
            // The usual case writes nothing.
            return;
        }
        let share = match lost {
            true => share + (WHOLE - share) / 8,
            false => share - share.div_ceil(8),
        };
        self.noted.store(share << 48 | now_ms & MS_MASK, Relaxed);
    }

    /// Forgets.
    pub fn clear(&self) {
        if self.noted.load(Relaxed) != 0 {
            self.noted.store(0, Relaxed);
        }
    }

    /// What the loss adds to the time of an answer on average when each lost try costs `timeout`: the
    /// tries that are lost before one is not. In µs; some 50 time-outs when all are lost.
    pub fn penalty_us(&self, timeout: Duration, now_ms: u64) -> u64 {
        let lost = self.share_of_whole(now_ms);
        let answered = (WHOLE - lost).max(WHOLE / 50);
        micros(timeout) as u64 * lost / answered
    }

    /// The share, from 0 to 1.
    pub fn share(&self, now_ms: u64) -> f64 {
        self.share_of_whole(now_ms) as f64 / WHOLE as f64
    }

    fn share_of_whole(&self, now_ms: u64) -> u64 {
        let noted = self.noted.load(Relaxed);
        if noted == 0 {
            return 0;
        }
        let age_ms = (now_ms & MS_MASK).saturating_sub(noted & MS_MASK);
        (noted >> 48) >> (age_ms / LOSS_HALF_LIFE_MS).min(16)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_round_trip_is_smoothed_as_rfc_6298_has_it() {
        let round_trip = RoundTrip::default();
        assert_eq!((round_trip.smoothed(), round_trip.timeout()), (None, UNKNOWN_TIMEOUT));
        round_trip.sample(ms(80));
        assert_eq!(round_trip.smoothed(), Some((80_000, 40_000)));
        assert_eq!(round_trip.timeout(), ms(240));
        round_trip.sample(ms(160));
        assert_eq!(round_trip.smoothed(), Some((90_000, 50_000)));
        for _ in 0..200 {
            round_trip.sample(Duration::from_micros(100));
        }
        assert_eq!(round_trip.timeout(), MIN_TIMEOUT);
    }

    #[test]
    fn after_a_change_of_the_network_the_first_sample_stands_for_itself() {
        let round_trip = RoundTrip::default();
        (0..50).for_each(|_| round_trip.sample(ms(1)));
        assert!(round_trip.p95().is_some());
        round_trip.age();
        assert!(round_trip.is_old() && round_trip.p95().is_none());
        assert!(round_trip.smoothed().is_some(), "it ranks the server as before");
        assert_eq!(round_trip.timeout(), UNKNOWN_TIMEOUT, "but is not relied upon");
        round_trip.sample(ms(200));
        assert_eq!(round_trip.smoothed(), Some((200_000, 100_000)));
    }

    /// The estimate beside the true percentile of several distributions, some with two humps, as a
    /// resolver's answers have them: known or not.
    #[test]
    fn the_percentile_comes_near_the_true_one() {
        let mut random = StdRng::seed_from_u64(3);
        let two = |slow: f64| {
            move |random: &mut StdRng| match random.random_bool(slow) {
                true => random.random_range(250_000..350_000),
                false => random.random_range(900..1_100),
            }
        };
        type Draw = Box<dyn Fn(&mut StdRng) -> u32>;
        let draws: [(&str, Draw); 4] = [
            ("even", Box::new(|random: &mut StdRng| random.random_range(1_000..11_000))),
            ("narrow", Box::new(|random: &mut StdRng| random.random_range(20_000..20_100))),
            ("3 % slow", Box::new(two(0.02))),
            ("10 % slow", Box::new(two(0.10))),
        ];
        for (what, draw) in draws {
            let round_trip = RoundTrip::default();
            let mut samples: Vec<u32> = (0..20_000).map(|_| draw(&mut random)).collect();
            let mut estimates = Vec::new();
            for (at, &us) in samples.iter().enumerate() {
                round_trip.sample(Duration::from_micros(us.into()));
                if at > 2_000 {
                    estimates.push(round_trip.p95().unwrap().as_micros() as u32);
                }
            }
            samples.sort_unstable();
            estimates.sort_unstable();
            let truth = samples[samples.len() * 95 / 100];
            let middle = estimates[estimates.len() / 2];
            assert!((truth / 2..truth * 2).contains(&middle), "{what}: {middle} for {truth}");
        }
    }

    #[test]
    fn an_answer_that_was_outlasted_moves_the_estimates_up() {
        let round_trip = RoundTrip::default();
        (0..100).for_each(|_| round_trip.sample(ms(2)));
        let (before, p95) = (round_trip.smoothed().unwrap().0, round_trip.p95().unwrap());
        round_trip.outlasted(Duration::from_micros(100));
        assert_eq!(round_trip.smoothed().unwrap().0, before, "that says nothing");
        round_trip.outlasted(ms(50));
        assert!(round_trip.smoothed().unwrap().0 > before && round_trip.p95().unwrap() > p95);
    }

    #[test]
    fn loss_follows_the_tries_and_fades() {
        let loss = Loss::default();
        loss.note(false, 5);
        assert_eq!(loss.share(5), 0.0);
        loss.note(true, 5);
        assert!((loss.share(5) - 0.125).abs() < 0.001);
        assert!(loss.penalty_us(ms(400), 5) > 50_000);
        assert!(loss.penalty_us(ms(20), 5) < 3_000, "one datagram on a short way is little");
        assert!((loss.share(1_005) - 0.0625).abs() < 0.001);
        assert_eq!(loss.share(100_000), 0.0);
        for _ in 0..100 {
            loss.note(true, 5);
        }
        assert!(loss.share(5) > 0.99);
        assert_eq!(loss.penalty_us(ms(20), 5) / 20_000, 50);
        (0..200).for_each(|_| loss.note(false, 5));
        assert_eq!(loss.share(5), 0.0);
    }
}
