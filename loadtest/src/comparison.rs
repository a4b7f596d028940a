//! Two measurements side by side, with an interval for each difference.
//!
//! The interval is that of the ratio of medians over the repeated runs, by the bootstrap: runs are
//! drawn anew, with replacement, many times, and the middle 95 % of the ratios is the interval. It
//! supposes nothing about how the runs are spread. With few runs it is too narrow; the table says
//! so below [`RUNS_MIN`].

use std::fmt::Write as _;

use crate::random::Random;
use crate::{Outcome, Run};

/// Runs of each below which the interval supports no claim.
const RUNS_MIN: usize = 5;

/// Times that the runs are drawn anew.
const DRAWS: usize = 10_000;

/// The figures that are compared: a label, where it is, and whether less is better.
type Figure = (&'static str, fn(&Run) -> f64);

const FIGURES: [Figure; 7] = [
    ("answers/s", |run| run.rate),
    ("loss", |run| run.loss),
    ("p50 us", |run| run.p50_us),
    ("p99 us", |run| run.p99_us),
    ("p99.9 us", |run| run.p999_us),
    ("generator us/answer", |run| run.generator_us),
    ("server us/answer", |run| run.server_us),
];

/// The table of `other` against `base`.
#[must_use]
pub fn comparison(base: &Outcome, other: &Outcome) -> String {
    let mut table = String::new();
    let (base_runs, other_runs) = (base.runs.len(), other.runs.len());
    // Writing to a string cannot fail.
    let _ = writeln!(table, "A: {} ({base_runs} runs)", base.command);
    let _ = writeln!(table, "B: {} ({other_runs} runs)\n", other.command);
    let _ = writeln!(table, "{:<20} {:>12} {:>12} {:>8}  95 % interval", "", "A", "B", "B / A");
    for (label, figure) in FIGURES {
        let of = |outcome: &Outcome| outcome.runs.iter().map(figure).collect::<Vec<f64>>();
        let (a, b) = (of(base), of(other));
        let (middle_a, middle_b) = (median(&a), median(&b));
        if middle_a == 0.0 && middle_b == 0.0 {
            continue;
        }
        let _ = write!(table, "{label:<20} {middle_a:>12.3} {middle_b:>12.3}");
        if middle_a > 0.0 {
            let _ = write!(table, " {:>8.3}", middle_b / middle_a);
        } else {
            let _ = write!(table, " {:>8}", "-");
        }
        if let Some((low, high)) = interval(&a, &b) {
            let is_difference = !(low..=high).contains(&1.0);
            let mark = if is_difference { "differs" } else { "no difference shown" };
            let _ = write!(table, "  {low:.3} .. {high:.3}  {mark}");
        }
        table.push('\n');
    }
    if base_runs < RUNS_MIN || other_runs < RUNS_MIN {
        let _ = writeln!(
            table,
            "\nFewer than {RUNS_MIN} runs of each: no claim rests on this. `run --repeat 15` makes more."
        );
    }
    table
}

/// The interval of the ratio of medians; `None` without repeated runs of both.
fn interval(a: &[f64], b: &[f64]) -> Option<(f64, f64)> {
    if a.len() < 2 || b.len() < 2 {
        return None;
    }
    let mut random = Random::new(0, 0);
    let mut draw = |runs: &[f64]| {
        let drawn: Vec<f64> = runs.iter().map(|_| runs[random.below(runs.len())]).collect();
        median(&drawn)
    };
    let mut ratios: Vec<f64> = (0..DRAWS).map(|_| draw(b) / draw(a)).collect();
    ratios.retain(|ratio| ratio.is_finite());
    ratios.sort_by(f64::total_cmp);
    let at = |share: f64| ratios.get((share * ratios.len() as f64) as usize).copied();
    Some((at(0.025)?, at(0.975)?))
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        len if len % 2 == 1 => values[len / 2],
        len => f64::midpoint(values[len / 2 - 1], values[len / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_the_ratio_and_sees_a_difference() {
        let mut random = Random::new(4, 0);
        let mut runs = |center: f64| -> Vec<f64> {
            (0..15).map(|_| center * (0.97 + 0.06 * random.unit())).collect()
        };
        let (a, b, twin) = (runs(100.0), runs(120.0), runs(100.0));
        let (low, high) = interval(&a, &b).expect("repeated");
        assert!(low > 1.1 && low < 1.2 && high > 1.2 && high < 1.3, "{low} {high}");
        let (low, high) = interval(&a, &twin).expect("repeated");
        assert!(low < 1.02 && high > 0.98, "{low} {high}");
        assert_eq!(interval(&a[..1], &b), None);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
