//! What a comparison over AF_XDP came to.

use serde::Serialize;

use crate::ablation::outcome::LeftOut;
use crate::interval::{Interval, median};
use crate::report::Conditions;
use crate::rounds::{Sample, Summary};

use super::SHARE;
use super::contender::{Contender, Stage};
use super::frames::Frames;

/// What a comparison came to.
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
    /// The highest rate that ours can bear, in queries per second.
    pub maximum: u64,
    /// With whom it was compared.
    pub rows: Vec<Row>,
    /// What became of each frame.
    pub frames: Frames,
    /// Those that were not measured.
    pub left_out: Vec<LeftOut>,
}

/// One who was compared with ours.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Who.
    pub contender: Contender,
    /// Of a peer.
    pub version: Option<String>,
    /// Both at their own maximum.
    pub at_maximum: Scene,
    /// Both at one rate.
    pub at_one_rate: Scene,
}

/// Pairs of rounds at certain rates.
#[derive(Clone, Debug, Serialize)]
pub struct Scene {
    /// Queries per second that ours was asked, and the other.
    pub rates: [u64; 2],
    /// The rounds.
    pub pairs: Vec<Pair>,
}

/// Two rounds in a row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// Our server on AF_XDP.
    pub ours: Round,
    /// The other.
    pub other: Round,
}

/// What one round gave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Round {
    /// The server's CPU time, its interface's NAPI thread included, and what it answered.
    #[serde(flatten)]
    pub sample: Sample,
    /// Queries per second that were asked for.
    pub asked: u64,
    /// CPU time of that NAPI thread alone, in ns.
    pub napi_ns: u64,
}

/// The rounds of one server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Side {
    /// Medians and sums.
    pub summary: Summary,
    /// CPU time per answer, in ns.
    pub cost: Option<Interval>,
    /// The part of the CPU time that the NAPI thread had.
    pub napi: f64,
    /// The part of the queries that a round lost, as the median, and all of them together.
    pub lost: [f64; 2],
}

/// A figure that has a bar, by its place in the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// What it is called.
    pub what: &'static str,
    /// With whom ours is compared.
    pub other: Contender,
    /// What it is to be.
    pub bar: Bar,
}

/// What a figure is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// CPU per answer, ours divided by the other's: at most this.
    CostAtMost(f64),
    /// Answers per CPU second, ours divided by the other's: at least this.
    YieldAtLeast(f64),
}

/// The bars.
pub const FIGURES: [Figure; 4] = [
    Figure {
        what: "CPU per answer, af-xdp / Knot DNS on AF_XDP",
        other: Contender::Knot,
        bar: Bar::CostAtMost(1.0),
    },
    Figure {
        what: "CPU per answer, af-xdp / bare AF_XDP echo",
        other: Contender::Echo,
        bar: Bar::CostAtMost(1.15),
    },
    Figure {
        what: "answers per CPU second, af-xdp / own epoll",
        other: Contender::Epoll,
        bar: Bar::YieldAtLeast(2.5),
    },
    Figure {
        what: "answers per CPU second, af-xdp / Unbound",
        other: Contender::Unbound,
        bar: Bar::YieldAtLeast(3.0),
    },
];

impl Outcome {
    /// The row of this one, if it was measured.
    #[must_use]
    pub fn row(&self, contender: Contender) -> Option<&Row> {
        self.rows.iter().find(|row| row.contender == contender)
    }

    /// All rounds of ours at its maximum.
    pub fn ours(&self) -> impl Iterator<Item = &Round> {
        self.rows.iter().flat_map(|row| row.at_maximum.pairs.iter().map(|pair| &pair.ours))
    }
}

impl Row {
    /// One without rounds yet; `maxima` are ours and its own.
    pub(super) fn new(stage: &Stage, maxima: [u64; 2]) -> Self {
        let one_rate = (SHARE * maxima[0].min(maxima[1]) as f64) as u64;
        let scene = |rates| Scene { rates, pairs: Vec::new() };
        Self {
            contender: stage.contender,
            version: stage.version.clone(),
            at_maximum: scene(maxima),
            at_one_rate: scene([one_rate; 2]),
        }
    }
}

impl Scene {
    /// The rounds of the other.
    pub fn others(&self) -> impl Iterator<Item = &Round> {
        self.pairs.iter().map(|pair| &pair.other)
    }

    /// The rounds of ours.
    pub fn ours(&self) -> impl Iterator<Item = &Round> {
        self.pairs.iter().map(|pair| &pair.ours)
    }

    /// What an answer costs ours, divided by what it costs the other.
    #[must_use]
    pub fn cost(&self) -> Option<Interval> {
        self.ratio(|[ours, other]| ours / other)
    }

    /// What a bar is held against.
    #[must_use]
    pub fn figure(&self, bar: Bar) -> Option<Interval> {
        match bar {
            Bar::CostAtMost(_) => self.cost(),
            Bar::YieldAtLeast(_) => self.ratio(|[ours, other]| other / ours),
        }
    }

    fn ratio(&self, of: impl Fn([f64; 2]) -> f64) -> Option<Interval> {
        let costs = |pair: &Pair| [pair.ours, pair.other].map(|round| round.sample.per_answer_ns());
        Interval::of(&self.pairs.iter().map(|pair| of(costs(pair))).collect::<Vec<f64>>())
    }
}

impl Side {
    /// Of these rounds.
    pub fn of<'r>(rounds: impl Iterator<Item = &'r Round>) -> Self {
        let rounds: Vec<&Round> = rounds.collect();
        let costs: Vec<f64> = rounds.iter().map(|round| round.sample.per_answer_ns()).collect();
        let summary = Summary::of(rounds.iter().map(|round| round.sample));
        let [napi, all] = rounds
            .iter()
            .fold([0; 2], |[napi, all], round| [napi + round.napi_ns, all + round.sample.cpu_ns]);
        let share = |lost: u64, answered: u64| lost as f64 / (lost + answered).max(1) as f64;
        let of_round = |round: &&Round| share(round.sample.lost, round.sample.answered);
        Self {
            summary,
            cost: Interval::of(&costs),
            napi: napi as f64 / all.max(1) as f64,
            lost: [median(rounds.iter().map(of_round)), share(summary.lost, summary.answered)],
        }
    }
}

/// How a figure stands to its bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The median is on the right side.
    Met,
    /// The median is not, and the interval reaches over.
    MetByInterval,
    /// Neither is.
    Missed,
}

impl Bar {
    /// A bar is met when the true median may well be on the right side of it.
    #[must_use]
    pub fn verdict(self, figure: Interval) -> Verdict {
        let is_met = |value: f64| match self {
            Self::CostAtMost(bar) => value <= bar,
            Self::YieldAtLeast(bar) => value >= bar,
        };
        match [figure.median, figure.low, figure.high].map(is_met) {
            [true, ..] => Verdict::Met,
            [false, false, false] => Verdict::Missed,
            _ => Verdict::MetByInterval,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn round(cost_ns: f64) -> Round {
        let sample = Sample {
            cpu_ns: (cost_ns * 1e5) as u64,
            answered: 100_000,
            lost: 100,
            failed: 0,
            upstream: 0,
            rate: 1e5,
            server_busy: 0.99,
            generator_busy: 0.5,
        };
        Round { sample, asked: 100_000, napi_ns: (cost_ns * 4e4) as u64 }
    }

    /// 15 pairs on a machine that gets slower all the time.
    pub(crate) fn scene(ours: f64, other: f64) -> Scene {
        let pair = |index: i32| {
            let slow = 1.0 + f64::from(index) / 10.0;
            Pair { ours: round(ours * slow), other: round(other * slow) }
        };
        Scene { rates: [500_000, 400_000], pairs: (0..15).map(pair).collect() }
    }

    #[test]
    fn ratios_are_of_pairs_and_bars_have_sides() {
        let scene = scene(1500.0, 4500.0);
        let cost = scene.cost().expect("rounds");
        assert!((cost.median - 1.0 / 3.0).abs() < 1e-6 && cost.high - cost.low < 1e-6, "{cost:?}");
        let bar = Bar::YieldAtLeast(2.9);
        let figure = scene.figure(bar).expect("rounds");
        assert!((figure.median - 3.0).abs() < 1e-6, "{figure:?}");
        assert_eq!(bar.verdict(figure), Verdict::Met);
        assert_eq!(Bar::YieldAtLeast(3.1).verdict(figure), Verdict::Missed);
        assert_eq!(Bar::CostAtMost(0.4).verdict(cost), Verdict::Met);
        assert_eq!(Bar::CostAtMost(0.3).verdict(cost), Verdict::Missed);
        assert_eq!(Scene { pairs: Vec::new(), ..scene }.cost(), None);
    }

    #[test]
    fn an_interval_that_reaches_over_a_bar_is_told_from_a_median() {
        let figure = Interval { median: 1.0, low: 0.9, high: 1.2, coverage: 0.95 };
        let verdicts = [1.0, 0.95, 0.8].map(|bar| Bar::CostAtMost(bar).verdict(figure));
        assert_eq!(verdicts, [Verdict::Met, Verdict::MetByInterval, Verdict::Missed]);
        let verdicts = [1.0, 1.1, 1.3].map(|bar| Bar::YieldAtLeast(bar).verdict(figure));
        assert_eq!(verdicts, [Verdict::Met, Verdict::MetByInterval, Verdict::Missed]);
    }

    #[test]
    fn a_summary_is_of_medians() {
        let mut scene = scene(1000.0, 2000.0);
        scene.pairs[3].other.sample.lost = 100_000;
        let lost = Side::of(scene.others()).lost;
        assert!((lost[0] - 0.001).abs() < 1e-4 && (lost[1] - 0.063).abs() < 1e-3, "{lost:?}");
        scene.pairs[3].other.sample.lost = 100;
        let Side { summary, cost, napi, .. } = Side::of(scene.others());
        assert_eq!((summary.lost, summary.answered), (1500, 1_500_000));
        assert!((cost.expect("rounds").median - 3400.0).abs() < 1.0, "{cost:?}");
        assert!((napi - 0.4).abs() < 1e-3, "{napi}");
    }
}
