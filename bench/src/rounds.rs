//! Rounds of load, in pairs: how everything here is measured.
//!
//! ```text
//! core A   the generator: S sockets, W queries outstanding (a closed loop), and who is asked upstream
//! core B   the echo and every subject; all but the one under measurement are paused
//!
//! pair i   for each subject: echo, subject (even i) or subject, echo (odd i), one round each: one ratio
//! ```
//!
//! A pair's two rounds follow each other, so what drifts on the machine hits both; the order
//! alternates (ABBA), so a drift within the pairs cancels out. One of the subjects is an echo too:
//! its ratios, the A/A ratios, are made in the same way at the same time, and a difference smaller
//! than theirs from 1 says nothing.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use swiftlet_loadtest::{
    Authority, Behaviour, Limit, Load, Options, Queries, Report, Transport, run_with,
};

use crate::interval::{Interval, median};
use crate::process::Process;
use crate::workload::Workload;

/// Fewer pairs than these support no claim.
pub const PAIRS_MIN: usize = 15;

/// After this time a query counts as lost.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Below this the server had idle moments, and what it costs to fall asleep and wake up is in the
/// ratio.
pub const BUSY_MIN: f64 = 0.9;

/// Rounds without any answer before a server counts as failed.
const ROUND_TRIES: usize = 2;

/// The most passes over the names to warm a cache.
const WARM_PASSES_MAX: usize = 10;

/// The load that every round puts on a server, and who is asked upstream meanwhile.
#[derive(Debug)]
pub struct Rounds<'r> {
    /// What is asked.
    pub queries: Queries,
    /// What carries it.
    pub transport: Transport,
    /// The generator's sockets, or connections.
    pub sockets: usize,
    /// Queries outstanding.
    pub window: usize,
    /// The generator's core.
    pub generator_core: usize,
    /// Length of a round.
    pub duration: Duration,
    /// Pairs of rounds to measure.
    pub pairs: usize,
    /// Whom the servers ask.
    pub authority: &'r Authority,
    /// Set to end it all early, with an error.
    pub stop: &'r AtomicBool,
    /// How many queries there were so far, so that no round repeats what is never asked twice.
    pub serial: u64,
}

/// How the rounds of a measurement go, whatever is asked in them.
#[derive(Clone, Copy, Debug)]
pub struct Course<'s> {
    /// The generator's core.
    pub generator_core: usize,
    /// Length of a round.
    pub duration: Duration,
    /// Pairs of rounds.
    pub pairs: usize,
    /// Set to end it all early, with an error.
    pub stop: &'s AtomicBool,
}

/// An authority for the misses, which shares the generator's core.
///
/// # Errors
/// If it cannot be started.
pub fn authority(core: usize) -> anyhow::Result<Authority> {
    let behaviour = Behaviour { core: Some(core), ..Behaviour::default() };
    Authority::start_with(([127, 0, 0, 1], 0).into(), behaviour)
        .context("cannot start the authority")
}

/// Whom a comparison is about.
#[derive(Debug)]
pub struct Entrant<'p> {
    /// The server.
    pub process: &'p Process,
    /// What came of its rounds.
    pub pairs: Vec<Pair>,
    /// Why it takes part no more.
    pub failure: Option<String>,
}

impl<'p> Entrant<'p> {
    /// One that has not been measured yet.
    #[must_use]
    pub fn new(process: &'p Process) -> Self {
        Self { process, pairs: Vec::new(), failure: None }
    }

    /// Keeps a result, or why there is none and will be none.
    fn keep(&mut self, pair: anyhow::Result<Pair>) {
        match pair {
            Ok(pair) => self.pairs.push(pair),
            Err(error) => self.failure = Some(format!("{error:#}")),
        }
    }
}

impl<'r> Rounds<'r> {
    /// The load of a workload; `names` is how many names its memory is measured with.
    ///
    /// # Errors
    /// If its queries cannot be made.
    pub fn of(
        workload: Workload,
        names: usize,
        course: Course<'r>,
        authority: &'r Authority,
    ) -> anyhow::Result<Self> {
        let shaping = workload.shaping(names);
        Ok(Self {
            queries: workload.queries(names)?,
            transport: workload.transport(),
            sockets: shaping.sockets,
            window: shaping.window,
            generator_core: course.generator_core,
            duration: course.duration,
            pairs: course.pairs,
            authority,
            stop: course.stop,
            serial: 0,
        })
    }
}

impl Rounds<'_> {
    /// Puts a load on a server that is not paused. `window` and `rate` are as in the generator.
    ///
    /// # Errors
    /// If it cannot be reached, or if this was to be stopped.
    pub fn load(
        &mut self,
        server: &Process,
        limit: Limit,
        window: usize,
        rate: Option<f64>,
    ) -> anyhow::Result<Report> {
        let cores = [self.generator_core];
        let load = Load {
            server: server.address,
            queries: &self.queries,
            sockets: self.sockets.min(window),
            window,
            limit,
            timeout: TIMEOUT,
            threads: 1,
            cores: &cores,
        };
        let options = Options {
            rate,
            transport: self.transport,
            stop: Some(self.stop),
            first_serial: self.serial,
            ..Options::default()
        };
        let report = run_with(&load, &options, &mut |_| {})
            .with_context(|| format!("cannot load {}", server.name))?;
        self.ensure_wanted()?;
        // What could not be sent took a serial too.
        self.serial += report.sent + report.unsent + window as u64;
        Ok(report)
    }

    /// An error if this was to be stopped.
    pub fn ensure_wanted(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.stop.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }

    /// Asks for every name until a whole pass is answered with NOERROR and nothing of it went
    /// upstream. That is over UDP whatever carries the rounds: there is one cache, and a server that
    /// closes connections in the midst of their queries is to show it in its rounds.
    pub fn warm(&mut self, server: &Process) -> anyhow::Result<()> {
        let transport = mem::take(&mut self.transport);
        let outcome = self.warm_over_udp(server);
        self.transport = transport;
        outcome
    }

    fn warm_over_udp(&mut self, server: &Process) -> anyhow::Result<()> {
        let mut last = None;
        for _ in 0..WARM_PASSES_MAX {
            let asked = self.authority.answered();
            // Misses need more time than hits: no more of them at once than there are sockets.
            let report = self.load(server, Limit::Each, self.sockets, None)?;
            let upstream = self.authority.answered() - asked;
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

    /// One round against this server, which is paused before and after. A round without any answer
    /// is made once more: on a shared machine the generator may not run at all for as long as a short
    /// one lasts.
    pub fn measure(&mut self, server: &Process) -> anyhow::Result<Sample> {
        let mut sent = 0;
        for _ in 0..ROUND_TRIES {
            server.resume()?;
            let before_ns = server.cpu_ns()?;
            let asked = self.authority.answered();
            let report = self.load(server, Limit::For(self.duration), self.window, None)?;
            let cpu_ns = server.cpu_ns()?.saturating_sub(before_ns);
            server.pause()?;
            if report.answered > 0 {
                return Ok(Sample::new(&report, cpu_ns, self.authority.answered() - asked));
            }
            sent += report.sent;
        }
        anyhow::bail!("{} answered none of {sent} queries in {ROUND_TRIES} rounds", server.name)
    }

    /// A quarter of a round against this server, which is not counted.
    pub fn settle(&mut self, server: &Process) -> anyhow::Result<()> {
        let duration = self.duration;
        self.duration = duration / 4;
        let outcome = self.measure(server);
        self.duration = duration;
        outcome.map(drop)
    }

    /// Lets these servers, all paused, see the load as it is set now: the first queries from new ports
    /// cost more. It isn't counted and decides nothing; who is broken fails in its rounds.
    ///
    /// # Errors
    /// If one cannot be paused, or if this was to be stopped.
    pub fn accustom<'p>(
        &mut self,
        servers: impl Iterator<Item = &'p Process>,
    ) -> anyhow::Result<()> {
        for server in servers {
            let _ = self.settle(server);
            server.pause()?;
            self.ensure_wanted()?;
        }
        Ok(())
    }

    /// Measures all that take part against `yardstick`, which is the echo unless said otherwise. One
    /// that fails is left out from then on. `progress` is called after each pair with how many are done.
    ///
    /// # Errors
    /// If the yardstick fails, or if this was to be stopped.
    pub fn compare(
        &mut self,
        yardstick: &Process,
        entrants: &mut [Entrant<'_>],
        mut progress: impl FnMut(usize),
    ) -> anyhow::Result<()> {
        for index in 0..self.pairs {
            for entrant in entrants.iter_mut().filter(|entrant| entrant.failure.is_none()) {
                let pair = if index % 2 == 1 {
                    let b = self.measure(entrant.process);
                    let a = self.measure(yardstick)?;
                    b.map(|b| Pair { a, b })
                } else {
                    let a = self.measure(yardstick)?;
                    self.measure(entrant.process).map(|b| Pair { a, b })
                };
                self.ensure_wanted()?;
                entrant.keep(pair);
            }
            progress(index + 1);
        }
        Ok(())
    }
}

/// What one round gave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// CPU time of the server's process, in ns.
    pub cpu_ns: u64,
    /// Answers that reached the generator.
    pub answered: u64,
    /// Queries without one.
    pub lost: u64,
    /// Answers with another RCODE than NOERROR.
    pub failed: u64,
    /// Queries that were answered upstream.
    pub upstream: u64,
    /// Answers per second.
    #[serde(rename = "answers_per_s")]
    pub rate: f64,
    /// How busy the server was, from 0 to 1.
    pub server_busy: f64,
    /// How busy the generator was, from 0 to 1.
    pub generator_busy: f64,
}

impl Sample {
    fn new(report: &Report, cpu_ns: u64, upstream: u64) -> Self {
        let elapsed_ns = report.elapsed.as_nanos().max(1) as f64;
        Self {
            cpu_ns,
            server_busy: (cpu_ns as f64 / elapsed_ns).min(1.0),
            answered: report.answered,
            lost: report.lost,
            failed: report.answered - report.rcodes[0],
            upstream,
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

/// Two rounds in a row: the yardstick's, and what is compared to it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// The yardstick, which is the echo unless said otherwise.
    #[serde(rename = "yardstick")]
    pub a: Sample,
    /// The other.
    #[serde(rename = "other")]
    pub b: Sample,
}

impl Pair {
    /// CPU per answer of the other, divided by that of the yardstick.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.b.per_answer_ns() / self.a.per_answer_ns()
    }
}

/// The ratio to the yardstick over all pairs.
#[must_use]
pub fn ratio(pairs: &[Pair]) -> Option<Interval> {
    let ratios: Vec<f64> = pairs.iter().map(Pair::ratio).collect();
    Interval::of(&ratios)
}

/// One process over all its rounds: medians, and sums of what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// CPU time per answer, in ns.
    #[serde(rename = "cpu_per_answer_ns")]
    pub per_answer_ns: f64,
    /// Answers per second.
    #[serde(rename = "answers_per_s")]
    pub rate: f64,
    /// How busy the process was, from 0 to 1.
    pub busy: f64,
    /// How busy the generator was, from 0 to 1.
    pub generator_busy: f64,
    /// Answers in all rounds.
    pub answered: u64,
    /// Queries lost in all rounds.
    pub lost: u64,
    /// Answers with another RCODE than NOERROR in all rounds.
    pub failed: u64,
    /// Queries that were answered upstream in all rounds.
    pub upstream: u64,
}

impl Summary {
    /// Of these rounds of one process.
    pub fn of(samples: impl Iterator<Item = Sample>) -> Self {
        let samples: Vec<Sample> = samples.collect();
        let middle = |value: fn(&Sample) -> f64| median(samples.iter().map(value));
        let sum = |value: fn(&Sample) -> u64| samples.iter().map(value).sum();
        Self {
            per_answer_ns: middle(Sample::per_answer_ns),
            rate: middle(|sample| sample.rate),
            busy: middle(|sample| sample.server_busy),
            generator_busy: middle(|sample| sample.generator_busy),
            answered: sum(|sample| sample.answered),
            lost: sum(|sample| sample.lost),
            failed: sum(|sample| sample.failed),
            upstream: sum(|sample| sample.upstream),
        }
    }

    /// Queries upstream per answer: 0 if all came from the cache, 1 if none did.
    #[must_use]
    pub fn upstream_per_answer(&self) -> f64 {
        self.upstream as f64 / self.answered.max(1) as f64
    }
}

/// Synthetic names: `n0000.bench.example.` and so on, four digits or as many as needed.
#[must_use]
pub fn synthetic_names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("n{n:04}.bench.example.")).collect()
}

/// Queries of type A for these names.
pub fn queries_for(names: &[String]) -> anyhow::Result<Queries> {
    Ok(Queries::for_names(names.iter().map(String::as_str))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented() {
        let queries = queries_for(&synthetic_names(10_000)).expect("valid names");
        assert_eq!(queries.len(), 10_000);
        assert_eq!(queries.get(42)[12..], *b"\x05n0042\x05bench\x07example\0\0\x01\0\x01");
    }

    #[test]
    fn a_summary_has_medians_of_rates_and_sums_of_counts() {
        let sample = |cpu_ns, answered| Sample {
            cpu_ns,
            answered,
            lost: 1,
            failed: 2,
            upstream: answered / 4,
            rate: answered as f64,
            server_busy: 0.5,
            generator_busy: 0.25,
        };
        let samples = [sample(1000, 100), sample(6000, 200), sample(1200, 400)];
        let summary = Summary::of(samples.into_iter());
        assert_eq!((summary.per_answer_ns, summary.rate), (10.0, 200.0));
        assert_eq!((summary.answered, summary.lost, summary.failed), (700, 3, 6));
        assert_eq!(summary.upstream_per_answer(), 0.25);
    }
}
