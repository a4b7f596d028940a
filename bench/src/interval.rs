//! The median of some ratios, and between which bounds the true one lies.
//!
//! The interval is made of order statistics: of `n` independent values, the number below the true
//! median is binomial (n, 1/2), so the interval from the k-th smallest to the k-th largest covers
//! it with a probability that is known exactly. It needs no shape of the distribution and no random
//! numbers. But pairs of one run follow each other and share its processes, ports and memory: they
//! are not quite independent, and runs differ by more than one run's interval says.

use serde::Serialize;

/// What the interval must cover at least.
const COVERAGE_MIN: f64 = 0.95;

/// A median with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The median of the values.
    pub median: f64,
    /// The lower bound.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
    /// The probability with which the bounds hold the true median. At least 95 %, except for fewer
    /// than six values: their whole range covers less.
    pub coverage: f64,
}

impl Interval {
    /// Of these values, in any order. `None` if there are none or one isn't a number.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() || values.iter().any(|value| value.is_nan()) {
            return None;
        }
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (below, coverage) = cut(sorted.len());
        Some(Self {
            median: middle(&sorted),
            low: sorted[below],
            high: sorted[sorted.len() - 1 - below],
            coverage,
        })
    }
}

/// The median of these values, in any order; not a number if there are none.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    if sorted.is_empty() { f64::NAN } else { middle(&sorted) }
}

fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

/// How many of `n` values can be left out at each end, and what the rest covers.
fn cut(n: usize) -> (usize, f64) {
    // The probability that exactly `below` of them are under the true median, and that at most so
    // many are.
    let mut exactly = 0.5f64.powi(n as i32);
    let mut at_most = exactly;
    let mut below = 0;
    loop {
        let next = exactly * (n - below) as f64 / (below + 1) as f64;
        if 2 * (below + 1) >= n || 1.0 - 2.0 * (at_most + next) < COVERAGE_MIN {
            return (below, (1.0 - 2.0 * at_most).max(0.0));
        }
        below += 1;
        exactly = next;
        at_most += next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the tables that textbooks print (ranks count from 1 there).
    #[test]
    fn the_ranks_are_those_of_the_binomial_tables() {
        for (n, rank, coverage) in [
            (6, 1, 0.9688),
            (8, 1, 0.9922),
            (9, 2, 0.9609),
            (15, 4, 0.9648),
            (20, 6, 0.9586),
            (25, 8, 0.9567),
            (31, 10, 0.9706),
        ] {
            let (below, covered) = cut(n);
            assert_eq!(below + 1, rank, "{n}");
            assert!((covered - coverage).abs() < 1e-4, "{n}: {covered}");
        }
        for n in 6..1000 {
            assert!(cut(n).1 >= COVERAGE_MIN, "{n}");
        }
    }

    #[test]
    fn few_values_say_how_little_they_cover() {
        let five = Interval::of(&[3.0, 1.0, 2.0, 5.0, 4.0]).expect("five values");
        assert_eq!((five.low, five.median, five.high), (1.0, 3.0, 5.0));
        assert!((five.coverage - 0.9375).abs() < 1e-9);
        let one = Interval::of(&[7.0]).expect("one value");
        assert_eq!((one.low, one.median, one.high, one.coverage), (7.0, 7.0, 7.0, 0.0));
        assert_eq!(Interval::of(&[]), None);
        assert_eq!(Interval::of(&[f64::NAN]), None);
    }

    #[test]
    fn outliers_stay_outside() {
        let mut values: Vec<f64> = (0..15).map(|n| 1.0 + f64::from(n) / 100.0).collect();
        values[0] = 0.01;
        values[14] = 99.0;
        let interval = Interval::of(&values).expect("values");
        assert_eq!((interval.low, interval.median, interval.high), (1.03, 1.07, 1.11));
        assert_eq!(median([4.0, 1.0]), 2.5);
        assert!(median([]).is_nan());
    }
}
