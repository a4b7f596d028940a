//! What an ablation came to: a ratio for each switch, workload and number of ports, and what it says.

use serde::Serialize;

use super::switches::{Switch, Turn};
use crate::interval::Interval;
use crate::report::Conditions;
use crate::report::markdown::grouped;
use crate::rounds::{BUSY_MIN, Pair, Summary, ratio};
use crate::workload::Workload;

/// What an ablation came to.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Whether there were enough pairs to support a claim.
    pub is_claim: bool,
    /// Pairs of rounds.
    pub pairs: usize,
    /// Length of a round, in s.
    pub round_s: f64,
    /// The circumstances.
    pub conditions: Conditions,
    /// The switches that were turned, in the order of the table.
    pub switches: Vec<&'static Switch>,
    /// The columns of the table.
    pub scenes: Vec<Scene>,
}

/// One workload with one number of ports.
#[derive(Clone, Debug, Serialize)]
pub struct Scene {
    /// What was asked.
    pub workload: Workload,
    /// Ports that it was asked from.
    pub ports: usize,
    /// Queries outstanding.
    pub window: usize,
    /// The default server over all its rounds.
    pub default: Summary,
    /// The second default server: its ratio is A/A.
    pub twin: Cell,
    /// The switches that were measured.
    pub cells: Vec<Cell>,
    /// Those that were not.
    pub left_out: Vec<LeftOut>,
}

/// The server with one switch turned, against the default.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The switch.
    pub name: String,
    /// CPU per answer divided by that of the default.
    pub ratio: Option<Interval>,
    /// Medians and sums over its rounds.
    pub summary: Summary,
    /// The rounds.
    pub pairs: Vec<Pair>,
}

/// A switch that could not be measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The switch.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// What a ratio says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No more than that the two differ as little as the default from itself.
    Same,
    /// The switch turned costs less than the default.
    Cheaper,
    /// It costs more.
    Dearer,
}

impl Cell {
    /// Of these pairs.
    #[must_use]
    pub fn of(name: &str, pairs: Vec<Pair>) -> Self {
        let summary = Summary::of(pairs.iter().map(|pair| pair.b));
        Self { name: name.to_owned(), ratio: ratio(&pairs), summary, pairs }
    }
}

impl LeftOut {
    /// One that was not measured, and why.
    #[must_use]
    pub fn new(name: &str, reason: &str) -> Self {
        Self { name: name.to_owned(), reason: reason.to_owned() }
    }
}

impl Verdict {
    /// A difference counts if the whole interval lies on one side of 1, and its median farther from
    /// it than any bound of the A/A interval.
    #[must_use]
    pub fn of(ratio: Interval, twin: Interval) -> Self {
        let noise = (twin.high - 1.0).max(1.0 - twin.low);
        if ratio.low > 1.0 && ratio.median - 1.0 > noise {
            Self::Dearer
        } else if ratio.high < 1.0 && 1.0 - ratio.median > noise {
            Self::Cheaper
        } else {
            Self::Same
        }
    }
}

impl Scene {
    /// What came of this switch, if it was measured.
    #[must_use]
    pub fn cell(&self, name: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.name == name)
    }

    /// What that says.
    #[must_use]
    pub fn verdict(&self, name: &str) -> Option<Verdict> {
        Some(Verdict::of(self.cell(name)?.ratio?, self.twin.ratio?))
    }

    /// What it is called.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{}, {} ports", self.workload.name(), grouped(self.ports as f64))
    }

    /// What makes some of its figures worth less, a line each.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let default = ("default", &self.default);
        let others = [&self.twin].into_iter().chain(&self.cells);
        let all = [default].into_iter().chain(others.map(|cell| (&*cell.name, &cell.summary)));
        let doubt = |(name, summary): (&str, &Summary)| {
            let Summary { lost, failed, busy, .. } = *summary;
            let mut doubts = Vec::new();
            if lost > 0 {
                doubts.push(format!("{lost} queries lost"));
            }
            if failed > 0 {
                doubts.push(format!("{failed} answers not NOERROR"));
            }
            if busy < BUSY_MIN {
                doubts.push(format!("only {:.0} % busy", 100.0 * busy));
            }
            let doubts = doubts.join(", ");
            (!doubts.is_empty()).then(|| format!("{}, {name}: {doubts}", self.title()))
        };
        all.filter_map(doubt).collect()
    }
}

impl Outcome {
    /// Where turning this switch has this verdict.
    pub fn where_it_is(&self, switch: &Switch, verdict: Verdict) -> impl Iterator<Item = &Scene> {
        self.scenes.iter().filter(move |scene| scene.verdict(switch.name) == Some(verdict))
    }

    /// Whether any workload shows that the optimization is worth something: what it takes away costs,
    /// or what it adds saves. `None` if it was not measured, or too little for a claim.
    #[must_use]
    pub fn shows_gain(&self, switch: &Switch) -> Option<bool> {
        let is_known = self.scenes.iter().any(|scene| scene.verdict(switch.name).is_some());
        let gain = match switch.turn {
            Turn::Without => Verdict::Dearer,
            Turn::With => Verdict::Cheaper,
        };
        (self.is_claim && is_known).then(|| self.where_it_is(switch, gain).next().is_some())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ablation::switches::SWITCHES;
    use crate::rounds::Sample;

    /// A round of 100,000 answers at this cost in ns.
    fn sample(cost: f64) -> Sample {
        Sample {
            cpu_ns: (cost * 1e5) as u64,
            answered: 100_000,
            lost: 0,
            failed: 0,
            upstream: 0,
            rate: 1e9 / cost,
            server_busy: 0.99,
            generator_busy: 0.5,
        }
    }

    /// 15 pairs whose ratios spread by 1 % around this one.
    pub(crate) fn cell(name: &str, around: f64) -> Cell {
        let pair = |index: i32| {
            let spread = 1.0 + f64::from(index - 7) / 700.0;
            Pair { a: sample(1000.0), b: sample(1000.0 * around * spread) }
        };
        Cell::of(name, (0..15).map(pair).collect())
    }

    /// Both numbers of ports of one workload, with each of these switches at its ratio.
    pub(crate) fn outcome(ratios: &[(&'static str, f64)]) -> Outcome {
        let scene = |ports| Scene {
            workload: Workload::Hit,
            ports,
            window: 1000,
            default: Summary::of([sample(1000.0)].into_iter()),
            twin: cell("default again", 1.0),
            cells: ratios.iter().map(|&(name, around)| cell(name, around)).collect(),
            left_out: Vec::new(),
        };
        let named = |switch: &&Switch| ratios.iter().any(|(name, _)| *name == switch.name);
        Outcome {
            is_claim: true,
            pairs: 15,
            round_s: 0.2,
            conditions: Conditions::read(1, 0),
            switches: SWITCHES.iter().filter(named).collect(),
            scenes: [8, 1000].map(scene).into(),
        }
    }

    fn interval(low: f64, median: f64, high: f64) -> Interval {
        Interval { median, low, high, coverage: 0.96 }
    }

    #[test]
    fn a_difference_counts_beyond_its_interval_and_beyond_that_of_the_default_from_itself() {
        let twin = interval(0.99, 1.0, 1.02);
        for (ratio, verdict) in [
            (interval(1.03, 1.05, 1.06), Verdict::Dearer),
            (interval(0.9, 0.95, 0.97), Verdict::Cheaper),
            // Its interval holds 1.
            (interval(0.99, 1.05, 1.1), Verdict::Same),
            // The default differs as much from itself, if on the other side.
            (interval(0.98, 0.985, 0.99), Verdict::Same),
            (interval(1.005, 1.015, 1.03), Verdict::Same),
        ] {
            assert_eq!(Verdict::of(ratio, twin), verdict, "{ratio:?}");
        }
    }

    #[test]
    fn what_is_a_gain_depends_on_the_turn() {
        let outcome = outcome(&[
            ("no-simd", 1.1),
            ("no-pin", 1.0),
            ("batch-1", 0.8),
            ("jemalloc", 0.9),
            ("huge-pages", 1.1),
        ]);
        let gains: Vec<(&str, Option<bool>)> =
            outcome.switches.iter().map(|one| (one.name, outcome.shows_gain(one))).collect();
        assert_eq!(
            gains,
            [
                ("no-simd", Some(true)),
                ("no-pin", Some(false)),
                ("batch-1", Some(false)),
                ("jemalloc", Some(true)),
                ("huge-pages", Some(false)),
            ]
        );
    }

    #[test]
    fn nothing_is_claimed_of_what_was_not_measured_or_too_little() {
        let mut outcome = outcome(&[("no-simd", 1.1)]);
        let other = SWITCHES.iter().find(|switch| switch.name == "no-pin").expect("known");
        assert_eq!(outcome.shows_gain(other), None);
        outcome.is_claim = false;
        assert_eq!(outcome.shows_gain(outcome.switches[0]), None);
    }

    #[test]
    fn what_makes_figures_doubtful_is_told() {
        let mut scene = outcome(&[("no-simd", 1.1)]).scenes.remove(1);
        assert!(scene.doubts().is_empty());
        scene.cells[0].summary.lost = 3;
        scene.default.busy = 0.5;
        let doubts = scene.doubts();
        assert_eq!(
            doubts,
            [
                "hit, 1,000 ports, default: only 50 % busy",
                "hit, 1,000 ports, no-simd: 3 queries lost"
            ]
        );
    }
}
