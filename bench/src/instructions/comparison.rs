//! Holds counts against a baseline and shows them side by side.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::ensure;

use super::{Conditions, Counts};

/// By how much a count may grow, in percent of the baseline.
pub const GROWTH_MAX_PERCENT: f64 = 3.0;

/// What is in the name of every case that needs a processor with AVX2.
const AVX2_MARK: &str = "avx2";

/// The counts of now beside those of a baseline.
#[derive(Debug)]
pub struct Comparison {
    rows: Vec<Row>,
    /// Names of the conditions that differ, with both values.
    differing: Vec<(&'static str, String, String)>,
}

#[derive(Debug)]
struct Row {
    name: String,
    baseline: Option<u64>,
    now: Option<u64>,
    verdict: Verdict,
}

/// What became of one count.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    /// About as many, or fewer: percent of change.
    Kept(f64),
    /// More than [`GROWTH_MAX_PERCENT`] more: percent of change.
    Grown(f64),
    /// In the baseline alone.
    Gone,
    /// Not in the baseline.
    New,
    /// This processor has no AVX2.
    NotHere,
}

impl Verdict {
    fn of(baseline: Option<u64>, now: Option<u64>) -> Self {
        match (baseline, now) {
            (Some(baseline), Some(now)) => {
                let percent = (now as f64 - baseline as f64) / (baseline.max(1) as f64) * 100.0;
                if percent > GROWTH_MAX_PERCENT {
                    Self::Grown(percent)
                } else {
                    Self::Kept(percent)
                }
            }
            (_, None) => Self::Gone,
            (None, Some(_)) => Self::New,
        }
    }

    fn fails(self) -> bool {
        matches!(self, Self::Grown(_) | Self::Gone | Self::New)
    }
}

impl Comparison {
    /// Compares. Without AVX2, cases that need it are shown and not judged.
    #[must_use]
    pub fn new(baseline: &Counts, now: &Counts, has_avx2: bool) -> Self {
        let names: BTreeSet<&String> =
            baseline.instructions.keys().chain(now.instructions.keys()).collect();
        let row = |name: &String| {
            let before = baseline.instructions.get(name).copied();
            let after = now.instructions.get(name).copied();
            let verdict = match has_avx2 || !name.contains(AVX2_MARK) {
                true => Verdict::of(before, after),
                false => Verdict::NotHere,
            };
            Row { name: name.clone(), baseline: before, now: after, verdict }
        };
        Self {
            rows: names.into_iter().map(row).collect(),
            differing: differing(&baseline.conditions, &now.conditions),
        }
    }

    /// Whether all counts are as they should be.
    ///
    /// # Errors
    /// Names every count that grew too much, is gone, or is new.
    pub fn check(&self) -> anyhow::Result<()> {
        let failed: Vec<&str> = self.failed().map(|row| row.name.as_str()).collect();
        ensure!(
            failed.is_empty(),
            "{} of {} instruction counts grew by more than {GROWTH_MAX_PERCENT} %, are gone or are \
             new: {}. If that is as it should be, run `make bench-baseline` and commit the result",
            failed.len(),
            self.rows.len(),
            failed.join(", "),
        );
        Ok(())
    }

    fn failed(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.verdict.fails())
    }
}

fn differing(baseline: &Conditions, now: &Conditions) -> Vec<(&'static str, String, String)> {
    let pairs = [
        ("rustc", &baseline.rustc, &now.rustc),
        ("target", &baseline.target, &now.target),
        ("valgrind", &baseline.valgrind, &now.valgrind),
        ("libc", &baseline.libc, &now.libc),
    ];
    let differ = pairs.into_iter().filter(|(_, before, after)| before != after);
    differ.map(|(name, before, after)| (name, before.clone(), after.clone())).collect()
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or_default().max(4);
        let header = ("name", "baseline", "now", "change");
        writeln!(f, "{:width$} {:>12} {:>12} {:>10}", header.0, header.1, header.2, header.3)?;
        for row in &self.rows {
            let count =
                |count: Option<u64>| count.map_or_else(|| "-".into(), |count| count.to_string());
            let (before, after) = (count(row.baseline), count(row.now));
            writeln!(f, "{:width$} {before:>12} {after:>12} {}", row.name, row.verdict)?;
        }
        for (name, before, after) in &self.differing {
            writeln!(
                f,
                "WARNING: the baseline was made with another {name}: {before}, now {after}"
            )?;
        }
        if !self.differing.is_empty() {
            writeln!(
                f,
                "WARNING: what changed may be their doing; compare commits on one machine"
            )?;
        }
        write!(f, "{} counts, {} not as they should be", self.rows.len(), self.failed().count())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept(percent) => write!(f, "{percent:>+9.2}%"),
            Self::Grown(percent) => write!(f, "{percent:>+9.2}%  GROWN"),
            Self::Gone => write!(f, "{:>10}  GONE", "-"),
            Self::New => write!(f, "{:>10}  NEW", "-"),
            Self::NotHere => write!(f, "{:>10}  not here: no AVX2", "-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rustc: &str, instructions: &[(&str, u64)]) -> Counts {
        Counts {
            conditions: Conditions {
                rustc: rustc.into(),
                target: "target".into(),
                valgrind: "valgrind".into(),
                libc: "libc".into(),
            },
            instructions: instructions.iter().map(|&(name, n)| (name.to_owned(), n)).collect(),
        }
    }

    fn compare(baseline: &[(&str, u64)], now: &[(&str, u64)]) -> Result<(), String> {
        let comparison = Comparison::new(&counts("1", baseline), &counts("1", now), true);
        comparison.check().map_err(|error| error.to_string())
    }

    #[test]
    fn growth_fails_from_just_above_three_percent_on() {
        for (now, passes) in
            [(0, true), (970, true), (1000, true), (1029, true), (1030, true), (1031, false)]
        {
            let outcome = compare(&[("a", 1000), ("b", 5)], &[("a", now), ("b", 5)]);
            assert_eq!(outcome.is_ok(), passes, "{now}: {outcome:?}");
        }
    }

    #[test]
    fn the_message_names_what_failed_and_nothing_else() {
        let outcome = compare(&[("fine", 10), ("grown", 10)], &[("fine", 10), ("grown", 12)]);
        let message = outcome.unwrap_err();
        assert!(message.contains("1 of 2") && message.contains("new: grown."), "{message}");
        assert!(message.contains("make bench-baseline"), "{message}");
    }

    #[test]
    fn what_is_gone_or_new_fails() {
        assert!(compare(&[("a", 1), ("b", 1)], &[("a", 1)]).unwrap_err().contains("new: b."));
        assert!(compare(&[("a", 1)], &[("a", 1), ("c", 1)]).unwrap_err().contains("new: c."));
        assert!(compare(&[], &[("a", 1)]).is_err());
        // From nothing to something.
        assert!(compare(&[("a", 0)], &[("a", 1)]).is_err());
    }

    #[test]
    fn without_avx2_what_needs_it_is_not_judged() {
        let baseline = counts("1", &[("names::fold::avx2_64", 1000), ("names::fold::sse2_64", 9)]);
        let now = counts("1", &[("names::fold::avx2_64", 3), ("names::fold::sse2_64", 9)]);
        let comparison = Comparison::new(&baseline, &now, false);
        assert!(comparison.check().is_ok());
        assert!(comparison.to_string().contains("not here: no AVX2"));
        let grown = counts("1", &[("names::fold::avx2_64", 2000), ("names::fold::sse2_64", 9)]);
        assert!(Comparison::new(&baseline, &grown, false).check().is_ok());
        assert!(Comparison::new(&baseline, &grown, true).check().is_err());
    }

    #[test]
    fn another_compiler_is_said_and_compared_all_the_same() {
        let (baseline, now) = (counts("1.95", &[("a", 1000)]), counts("1.96", &[("a", 1000)]));
        let comparison = Comparison::new(&baseline, &now, true);
        assert!(comparison.check().is_ok());
        let text = comparison.to_string();
        assert!(text.contains("another rustc: 1.95, now 1.96"), "{text}");
        assert!(!text.contains("another target"), "{text}");
        let grown = counts("1.96", &[("a", 1100)]);
        assert!(Comparison::new(&baseline, &grown, true).check().is_err());
        let same = Comparison::new(&baseline, &baseline, true).to_string();
        assert!(!same.contains("WARNING"), "{same}");
    }

    #[test]
    fn the_table_has_both_counts_and_the_change() {
        let baseline = counts("1", &[("keys", 1000), ("old", 7)]);
        let now = counts("1", &[("keys", 1100), ("young", 8)]);
        let text = Comparison::new(&baseline, &now, true).to_string();
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["name", "baseline", "now", "change"]);
        assert_eq!(lines[1], ["keys", "1000", "1100", "+10.00%", "GROWN"]);
        assert_eq!(lines[2], ["old", "7", "-", "-", "GONE"]);
        assert_eq!(lines[3], ["young", "-", "8", "-", "NEW"]);
        assert_eq!(text.lines().last(), Some("3 counts, 3 not as they should be"));
    }
}
