//! What a comparison came to.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::interval::Interval;
use crate::latency::Latency;
use crate::memory::Held;
use crate::report::Conditions;
use crate::rounds::{BUSY_MIN, Pair, Summary, ratio};
use crate::subject::Kind;
use crate::workload::{Shaping, Workload};

/// What a comparison came to.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// What was asked.
    pub workload: Workload,
    /// How it was asked.
    #[serde(flatten)]
    pub shaping: Shaping,
    /// Whether there were enough pairs to support a claim.
    pub is_claim: bool,
    /// Pairs of rounds.
    pub pairs: usize,
    /// Length of a round, in s.
    pub round_s: f64,
    /// Length of a round of the open loop, in s.
    pub latency_round_s: f64,
    /// The circumstances.
    pub conditions: Conditions,
    /// The peers that are not there to take part.
    pub absent: Vec<&'static str>,
    /// Who took part, yardsticks first, then the cheapest first.
    pub rows: Vec<Row>,
}

/// What came of one who took part.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What it is called.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its version.
    pub version: Option<String>,
    /// What came of it.
    #[serde(flatten)]
    pub finding: Finding,
}

/// What came of one who took part.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// Its rounds.
    Rounds(Box<Measured>),
    /// Its memory.
    Memory(Held),
    /// Why there is nothing to tell.
    Failed(String),
}

/// The rounds of one server.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Medians and sums.
    pub summary: Summary,
    /// CPU time per answer in ns, over its rounds.
    pub cpu_ns: Option<Interval>,
    /// CPU per answer divided by the echo's, over its pairs; `None` for the echo itself.
    pub ratio: Option<Interval>,
    /// At a share of its own maximum.
    pub latency: Option<Latency>,
    /// Why there is no latency.
    pub latency_failure: Option<String>,
    /// Its pairs; none for the echo, whose rounds are in those of the others.
    pub pairs: Vec<Pair>,
}

impl Measured {
    /// Puts together what was measured; `costs` are the CPU times per answer in ns.
    #[must_use]
    pub fn new(
        summary: Summary,
        costs: &[f64],
        pairs: Vec<Pair>,
        latency: Result<Latency, String>,
    ) -> Self {
        Self {
            summary,
            cpu_ns: Interval::of(costs),
            ratio: ratio(&pairs),
            latency_failure: latency.as_ref().err().cloned(),
            latency: latency.ok(),
            pairs,
        }
    }

    /// Whether the answers per second are only a lower bound, since the server had time left.
    #[must_use]
    pub fn is_lower_bound(&self) -> bool {
        self.summary.busy < BUSY_MIN
    }
}

impl Row {
    /// The rounds, if it came to that.
    #[must_use]
    pub fn measured(&self) -> Option<&Measured> {
        match &self.finding {
            Finding::Rounds(measured) => Some(measured),
            _ => None,
        }
    }

    /// What it is ranked by, the least first: CPU per answer in ns, or bytes per name.
    #[must_use]
    pub fn cost(&self) -> Option<f64> {
        let cost = match &self.finding {
            Finding::Rounds(measured) => measured.summary.per_answer_ns,
            Finding::Memory(held) => held.per_name(),
            Finding::Failed(_) => return None,
        };
        (!cost.is_nan()).then_some(cost)
    }
}

impl Outcome {
    /// Ranks from 1 of all but the yardsticks by this figure, the highest first; who has none isn't
    /// ranked.
    pub fn ranks(&self, figure: impl Fn(&Row) -> Option<f64>) -> BTreeMap<&'static str, usize> {
        let servers = self.rows.iter().filter(|row| !row.kind.is_yardstick());
        let mut figures: Vec<(&'static str, f64)> =
            servers.filter_map(|row| Some((row.name, figure(row)?))).collect();
        figures.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        figures.into_iter().zip(1..).map(|((name, _), rank)| (name, rank)).collect()
    }

    /// Yardsticks first, then the cheapest first, those without figures last.
    pub fn sort(&mut self) {
        self.rows.sort_by(|one, other| {
            let place = |row: &Row| (!row.kind.is_yardstick(), row.cost().is_none());
            let cost =
                |row: &Row| if row.kind.is_yardstick() { 0.0 } else { row.cost().unwrap_or(0.0) };
            place(one)
                .cmp(&place(other))
                .then(cost(one).total_cmp(&cost(other)))
                .then(one.kind.cmp(&other.kind))
        });
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::rounds::Sample;

    /// An outcome of servers with these CPU times per answer, in ns.
    pub(crate) fn outcome(workload: Workload, servers: &[(&'static str, Kind, u64)]) -> Outcome {
        let sample = |cost: u64| Sample {
            cpu_ns: cost * 100_000,
            answered: 100_000,
            lost: 0,
            failed: 0,
            upstream: 20_000,
            rate: 1e9 / cost as f64,
            server_busy: 0.95,
            generator_busy: 0.5,
        };
        let row = |&(name, kind, cost): &(&'static str, Kind, u64)| {
            let pairs: Vec<Pair> =
                (0..15).map(|index| Pair { a: sample(1000), b: sample(cost + index) }).collect();
            let costs: Vec<f64> = pairs.iter().map(|pair| pair.b.per_answer_ns()).collect();
            let is_echo = kind == Kind::Echo;
            Row {
                name,
                kind,
                version: (!kind.is_yardstick()).then(|| format!("{name} 1.2.3")),
                finding: Finding::Rounds(Box::new(Measured {
                    summary: Summary::of(pairs.iter().map(|pair| pair.b)),
                    cpu_ns: Interval::of(&costs),
                    ratio: if is_echo { None } else { ratio(&pairs) },
                    latency: None,
                    latency_failure: None,
                    pairs: if is_echo { Vec::new() } else { pairs },
                })),
            }
        };
        let mut outcome = Outcome {
            workload,
            shaping: workload.shaping(1_000_000),
            is_claim: true,
            pairs: 15,
            round_s: 0.5,
            latency_round_s: 1.0,
            conditions: Conditions::read(1, 0),
            absent: vec!["nsd"],
            rows: servers.iter().map(row).collect(),
        };
        outcome.sort();
        outcome
    }

    /// What one server with a cache of 800 names took.
    pub(crate) fn held(per_name: u64) -> Finding {
        let (before, after) = (1 << 20, (1 << 20) + 800 * per_name);
        Finding::Memory(Held { names: 1000, kept: 800.0, lost: 0, failed: 0, before, after })
    }

    #[test]
    fn the_cheapest_comes_first_and_yardsticks_before() {
        let mut outcome = outcome(
            Workload::Hit,
            &[
                ("slow", Kind::Resolver, 3000),
                ("echo again", Kind::Twin, 1010),
                ("swiftlet", Kind::Ours, 1200),
                ("echo", Kind::Echo, 1000),
                ("zone", Kind::Authoritative, 1100),
            ],
        );
        let failed = Finding::Failed("did not start".to_owned());
        outcome
            .rows
            .insert(0, Row { name: "dead", kind: Kind::Resolver, version: None, finding: failed });
        outcome.sort();
        let names: Vec<&str> = outcome.rows.iter().map(|row| row.name).collect();
        assert_eq!(names, ["echo", "echo again", "zone", "swiftlet", "slow", "dead"]);
        let by_cost = outcome.ranks(|row| row.cost().map(|cost| -cost));
        assert_eq!(by_cost, BTreeMap::from([("zone", 1), ("swiftlet", 2), ("slow", 3)]));
        let by_rate = outcome.ranks(|row| row.measured().map(|one| one.summary.rate));
        assert_eq!(by_rate, by_cost, "nobody idled here");
    }

    #[test]
    fn who_keeps_nothing_has_no_rank() {
        let mut outcome = outcome(Workload::Memory, &[]);
        for (name, per_name) in [("fat", 900), ("slim", 100)] {
            let kind = Kind::Resolver;
            outcome.rows.push(Row { name, kind, version: None, finding: held(per_name) });
        }
        let Finding::Memory(empty) = held(1) else { unreachable!("it is memory") };
        let finding = Finding::Memory(Held { kept: 0.0, ..empty });
        outcome.rows.insert(0, Row { name: "empty", kind: Kind::Resolver, version: None, finding });
        outcome.sort();
        let names: Vec<&str> = outcome.rows.iter().map(|row| row.name).collect();
        assert_eq!(names, ["slim", "fat", "empty"]);
        assert_eq!(outcome.ranks(|row| row.cost().map(|cost| -cost)).len(), 2);
    }
}
