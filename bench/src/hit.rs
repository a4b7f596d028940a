//! What a cache hit costs: CPU of the server per answer, divided by that of the bare echo.
//!
//! ```text
//! core A   the generator: S sockets, W queries outstanding (a closed loop)
//! core B   echo, its twin, and the server; only the one under test has anything to do
//!
//! warm     ask for every name until all come from the cache
//! pair i   echo, server (even i) or server, echo (odd i): one round each, one ratio
//!          echo, twin   (even i) or twin, echo   (odd i): one round each, one A/A ratio
//! ```
//!
//! A pair's two rounds follow each other, so what drifts on the machine hits both; the order
//! alternates (ABBA), so a drift within the pairs cancels out. The A/A ratios are made in the same
//! way at the same time: a difference smaller than theirs from 1 says nothing.

use std::time::Duration;

use anyhow::Context;
use swiftlet_loadtest::{Authority, Limit, Load, Queries, Report, run};

use crate::accounting::{run_ns, ticks_ns};
use crate::interval::{Interval, median};
use crate::process::Process;

/// Fewer pairs than these support no claim.
pub const PAIRS_MIN: usize = 15;

/// After this time a query counts as lost.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Below this the server had idle moments, and what it costs to fall asleep and wake up is in the
/// ratio.
pub const BUSY_MIN: f64 = 0.9;

/// The most passes over the names to warm a cache.
const WARM_PASSES_MAX: usize = 10;

/// The load that every round puts on a server.
#[derive(Clone, Debug)]
pub struct Rounds {
    /// What is asked.
    pub queries: Queries,
    /// The generator's sockets.
    pub sockets: usize,
    /// Queries outstanding.
    pub window: usize,
    /// The generator's core.
    pub generator_core: usize,
    /// Length of a round.
    pub duration: Duration,
    /// Pairs of rounds to measure.
    pub pairs: usize,
}

impl Rounds {
    fn load<'q>(&'q self, server: &Process, limit: Limit, cores: &'q [usize]) -> Load<'q> {
        Load {
            server: server.address,
            queries: &self.queries,
            sockets: self.sockets,
            window: self.window,
            limit,
            timeout: TIMEOUT,
            threads: 1,
            cores,
        }
    }

    /// Asks for every name until a whole pass is answered with NOERROR and nothing of it went to
    /// the authority.
    pub fn warm(&self, server: &Process, authority: &Authority) -> anyhow::Result<()> {
        let mut last = None;
        for _ in 0..WARM_PASSES_MAX {
            let asked = authority.answered();
            let load = self.load(server, Limit::Each, &[]);
            // Misses need more time than hits: no more of them at once than there are sockets.
            let report = run(&Load { window: self.sockets, ..load })?;
            let upstream = authority.answered() - asked;
            if report.rcodes[0] == self.queries.len() as u64 && upstream == 0 {
                return Ok(());
            }
            last = Some((report, upstream));
        }
        let (report, upstream) = last.context("no pass was made")?;
        anyhow::bail!(
            "{} is not warm after {WARM_PASSES_MAX} passes over {} names: in the last one {} were \
             lost, {} were not NOERROR, and {upstream} queries went upstream",
            server.name,
            self.queries.len(),
            report.lost,
            report.answered - report.rcodes[0],
        )
    }

    /// One round against this server.
    pub fn measure(&self, server: &Process) -> anyhow::Result<Sample> {
        let before_ns = run_ns(server.pid())?;
        let cores = [self.generator_core];
        let report = run(&self.load(server, Limit::For(self.duration), &cores))?;
        let cpu_ns = run_ns(server.pid())? - before_ns;
        anyhow::ensure!(report.answered > 0, "{} answered nothing in a round", server.name);
        Ok(Sample::new(&report, cpu_ns))
    }

    /// Two rounds in a row, `b` first if `reversed`.
    fn pair(&self, a: &Process, b: &Process, reversed: bool) -> anyhow::Result<Pair> {
        let (a, b) = if reversed {
            let b = self.measure(b)?;
            (self.measure(a)?, b)
        } else {
            (self.measure(a)?, self.measure(b)?)
        };
        Ok(Pair { a, b })
    }

    /// Measures `subject` against `echo`, and `twin`, which does the same as `echo`, in between.
    /// `progress` is called after each pair with how many are done.
    pub fn compare(
        &self,
        echo: &Process,
        subject: &Process,
        twin: &Process,
        mut progress: impl FnMut(usize),
    ) -> anyhow::Result<Comparison> {
        let short = Self { duration: self.duration / 4, ..self.clone() };
        for process in [echo, subject, twin] {
            short.measure(process)?;
        }
        let (run_before_ns, ticks_before_ns) = (run_ns(subject.pid())?, ticks_ns(subject.pid())?);
        let mut comparison = Comparison::default();
        for index in 0..self.pairs {
            let reversed = index % 2 == 1;
            comparison.subject.push(self.pair(echo, subject, reversed)?);
            comparison.twin.push(self.pair(echo, twin, reversed)?);
            progress(index + 1);
        }
        comparison.run_ns = run_ns(subject.pid())? - run_before_ns;
        comparison.ticks_ns = ticks_ns(subject.pid())? - ticks_before_ns;
        Ok(comparison)
    }
}

/// What one round gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// CPU time of the server's process, in ns.
    pub cpu_ns: u64,
    /// Answers that reached the generator.
    pub answered: u64,
    /// Queries without one.
    pub lost: u64,
    /// Answers with another RCODE than NOERROR.
    pub failed: u64,
    /// Answers per second.
    pub rate: f64,
    /// How busy the server was, from 0 to 1.
    pub server_busy: f64,
    /// How busy the generator was, from 0 to 1.
    pub generator_busy: f64,
}

impl Sample {
    fn new(report: &Report, cpu_ns: u64) -> Self {
        let elapsed_ns = report.elapsed.as_nanos().max(1) as f64;
        Self {
            cpu_ns,
            server_busy: (cpu_ns as f64 / elapsed_ns).min(1.0),
            answered: report.answered,
            lost: report.lost,
            failed: report.answered - report.rcodes[0],
            rate: report.rate(),
            generator_busy: report.busy(),
        }
    }

    /// CPU time of the server per answer, in ns.
    #[must_use]
    pub fn per_answer_ns(&self) -> f64 {
        self.cpu_ns as f64 / self.answered as f64
    }
}

/// Two rounds in a row: the echo's, and what is compared to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// The echo.
    pub a: Sample,
    /// The other.
    pub b: Sample,
}

impl Pair {
    /// CPU per answer of the other, divided by that of the echo.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.b.per_answer_ns() / self.a.per_answer_ns()
    }
}

/// All pairs of a comparison.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// The echo and what is measured.
    pub subject: Vec<Pair>,
    /// The echo and its twin.
    pub twin: Vec<Pair>,
    /// CPU time of the subject over the whole run, by the sum that the rounds are read from, in ns.
    pub run_ns: u64,
    /// The same by utime + stime, in ns.
    pub ticks_ns: u64,
}

impl Comparison {
    /// The subject's ratio to the echo.
    #[must_use]
    pub fn ratio(&self) -> Option<Interval> {
        ratio(&self.subject)
    }

    /// The A/A ratio.
    #[must_use]
    pub fn twin_ratio(&self) -> Option<Interval> {
        ratio(&self.twin)
    }

    /// How far the two accounts of the subject's CPU time differ, as a share.
    #[must_use]
    pub fn account_difference(&self) -> f64 {
        self.run_ns.abs_diff(self.ticks_ns) as f64 / self.run_ns.max(1) as f64
    }

    /// The medians of the echo, the subject and the twin.
    #[must_use]
    pub fn summaries(&self) -> [Summary; 3] {
        [
            Summary::of(self.subject.iter().chain(&self.twin).map(|pair| pair.a)),
            Summary::of(self.subject.iter().map(|pair| pair.b)),
            Summary::of(self.twin.iter().map(|pair| pair.b)),
        ]
    }
}

fn ratio(pairs: &[Pair]) -> Option<Interval> {
    let ratios: Vec<f64> = pairs.iter().map(Pair::ratio).collect();
    Interval::of(&ratios)
}

/// One process over all its rounds: medians, and sums of what went wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// CPU time per answer, in ns.
    pub per_answer_ns: f64,
    /// Answers per second.
    pub rate: f64,
    /// How busy the process was, from 0 to 1.
    pub busy: f64,
    /// How busy the generator was, from 0 to 1.
    pub generator_busy: f64,
    /// Queries lost in all rounds.
    pub lost: u64,
    /// Answers with another RCODE than NOERROR in all rounds.
    pub failed: u64,
}

impl Summary {
    fn of(samples: impl Iterator<Item = Sample> + Clone) -> Self {
        Self {
            per_answer_ns: median(samples.clone().map(|sample| sample.per_answer_ns())),
            rate: median(samples.clone().map(|sample| sample.rate)),
            busy: median(samples.clone().map(|sample| sample.server_busy)),
            generator_busy: median(samples.clone().map(|sample| sample.generator_busy)),
            lost: samples.clone().map(|sample| sample.lost).sum(),
            failed: samples.map(|sample| sample.failed).sum(),
        }
    }
}

/// Synthetic names: `n0000.bench.example.` and so on, four digits or as many as needed.
pub fn synthetic_names(count: usize) -> anyhow::Result<Queries> {
    let names: Vec<String> = (0..count).map(|n| format!("n{n:04}.bench.example.")).collect();
    Ok(Queries::for_names(names.iter().map(String::as_str))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu_ns: u64, answered: u64) -> Sample {
        let busy = cpu_ns as f64 / 1e5;
        Sample {
            cpu_ns,
            answered,
            lost: 1,
            failed: 0,
            rate: 1000.0,
            server_busy: busy,
            generator_busy: 0.5,
        }
    }

    #[test]
    fn ratios_are_per_pair_and_per_answer() {
        // The machine gets slower by half from pair to pair; the ratios don't notice.
        let pairs = (0..15).map(|index| {
            let slow = 2 + index;
            Pair { a: sample(1000 * slow, 1000), b: sample(2500 * slow, 2000) }
        });
        let comparison = Comparison {
            subject: pairs.clone().collect(),
            twin: pairs.map(|pair| Pair { b: pair.a, ..pair }).collect(),
            run_ns: 1000,
            ticks_ns: 990,
        };
        let ratio = comparison.ratio().expect("pairs");
        assert_eq!((ratio.low, ratio.median, ratio.high), (1.25, 1.25, 1.25));
        assert_eq!(comparison.twin_ratio().expect("pairs").median, 1.0);
        assert!((comparison.account_difference() - 0.01).abs() < 1e-9);
        let [echo, subject, _] = comparison.summaries();
        assert_eq!((echo.per_answer_ns, echo.lost), (9.0, 30));
        assert_eq!((subject.per_answer_ns, subject.lost), (11.25, 15));
        assert_eq!((echo.busy, subject.busy), (0.09, 0.225));
    }

    #[test]
    fn names_are_as_documented() {
        let queries = synthetic_names(10_000).expect("valid names");
        assert_eq!(queries.len(), 10_000);
        assert_eq!(queries.get(42)[12..], *b"\x05n0042\x05bench\x07example\0\0\x01\0\x01");
    }
}
