//! Answers that are held back for a time, and how long that is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use swiftlet_net::client::Parcel;

use crate::random::Random;
use crate::values;

/// The most answers that are held back; further ones are dropped.
const HELD_MAX: usize = 1 << 18;

/// The longest time that an exponential delay may come to, in means.
const EXPONENTIAL_MAX: f64 = 20.0;

/// How long an answer is held back.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Delay {
    /// Not at all.
    #[default]
    None,
    /// This long.
    Fixed(Duration),
    /// Anything between these two.
    Uniform(Duration, Duration),
    /// This long on average, most of them shorter and a few much longer.
    Exponential(Duration),
}

impl Delay {
    /// `10ms`, `uniform:5ms,20ms` or `exp:10ms`.
    pub fn from_text(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self::None);
        }
        match text.split_once(':') {
            None => values::duration(text).map(Self::Fixed),
            Some(("exp", mean)) => values::duration(mean).map(Self::Exponential),
            Some(("uniform", range)) => {
                let (low, high) = range.split_once(',').ok_or("uniform:LOW,HIGH is expected")?;
                let (low, high) = (values::duration(low)?, values::duration(high)?);
                if low > high {
                    return Err("the lower end is above the higher".to_owned());
                }
                Ok(Self::Uniform(low, high))
            }
            Some(_) => Err("10ms, uniform:5ms,20ms or exp:10ms is expected".to_owned()),
        }
    }

    pub(super) fn draw(self, random: &mut Random) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Fixed(delay) => delay,
            Self::Uniform(low, high) => low + (high - low).mul_f64(random.unit()),
            Self::Exponential(mean) => {
                mean.mul_f64((-(1.0 - random.unit()).ln()).min(EXPONENTIAL_MAX))
            }
        }
    }
}

/// Answers in the order in which they are due.
#[derive(Default)]
pub(super) struct Held {
    order: BinaryHeap<Reverse<(Instant, usize)>>,
    parcels: Vec<Option<Parcel>>,
    free: Vec<usize>,
}

impl Held {
    /// Holds an answer until this moment. False if there are too many already.
    pub(super) fn hold(&mut self, due: Instant, parcel: Parcel) -> bool {
        if self.order.len() == HELD_MAX {
            return false;
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.parcels.push(None);
            self.parcels.len() - 1
        });
        self.parcels[at] = Some(parcel);
        self.order.push(Reverse((due, at)));
        true
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.order.peek().map(|Reverse((due, _))| *due)
    }

    /// Takes the next one that is due by now.
    pub(super) fn take(&mut self, now: Instant) -> Option<Parcel> {
        self.next_due().filter(|&due| due <= now)?;
        let Reverse((_, at)) = self.order.pop()?;
        self.free.push(at);
        self.parcels[at].take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions() {
        let ms = Duration::from_millis;
        assert_eq!(Delay::from_text("0"), Ok(Delay::None));
        assert_eq!(Delay::from_text("10ms"), Ok(Delay::Fixed(ms(10))));
        assert_eq!(Delay::from_text("uniform:5ms,20ms"), Ok(Delay::Uniform(ms(5), ms(20))));
        assert_eq!(Delay::from_text("exp:10ms"), Ok(Delay::Exponential(ms(10))));
        for text in ["", "x", "exp:", "uniform:5ms", "uniform:5ms,1ms", "normal:1ms"] {
            assert!(Delay::from_text(text).is_err(), "{text}");
        }
        let mut random = Random::new(1, 0);
        for delay in [Delay::Uniform(ms(5), ms(15)), Delay::Exponential(ms(10))] {
            let sum: Duration = (0..10_000).map(|_| delay.draw(&mut random)).sum();
            assert!((9.5..10.5).contains(&(sum.as_secs_f64() / 10.0)), "{sum:?}");
        }
    }
}
