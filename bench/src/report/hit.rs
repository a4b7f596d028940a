//! One server against the echo, as a table for people and as JSON for programs.

use std::fmt;

use serde::Serialize;

use super::Conditions;
use crate::hit::Comparison;
use crate::interval::Interval;
use crate::rounds::{BUSY_MIN, Pair, Rounds, Summary};

/// What a comparison came to.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'r> {
    /// What was compared to the echo.
    pub subject: &'r str,
    /// The load.
    pub rounds: &'r Rounds<'r>,
    /// The circumstances.
    pub conditions: &'r Conditions,
    /// Bytes by which the echo's replies were longer than its queries.
    pub pad: usize,
    /// Queries that went upstream since the cache was warm; 0 unless names expired.
    pub upstream: u64,
    /// The numbers.
    pub comparison: &'r Comparison,
}

impl fmt::Display for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, comparison, .. } = self;
        writeln!(f, "cache hit: server CPU per answer, and its ratio to the bare echo\n")?;
        let heads = ["CPU/answer", "answers/s", "lost", "failed", "busy", "generator busy"];
        let [cpu, rate, lost, failed, busy, generator] = heads;
        write!(f, "{:<16}{cpu:>12}{rate:>12}{lost:>10}{failed:>10}", "")?;
        writeln!(f, "{busy:>8}{generator:>18}")?;
        for (name, summary) in self.names().iter().zip(comparison.summaries()) {
            let Summary { per_answer_ns, rate, busy, generator_busy, lost, failed, .. } = summary;
            write!(f, "{name:<16}{per_answer_ns:>9.0} ns{rate:>12.0}{lost:>10}{failed:>10}")?;
            writeln!(f, "{:>6.0} %{:>16.0} %", 100.0 * busy, 100.0 * generator_busy)?;
        }
        writeln!(f)?;
        write_ratio(f, &format!("{subject} / echo"), comparison.ratio())?;
        write_ratio(f, "A/A: echo again / echo", comparison.twin_ratio())?;
        writeln!(
            f,
            "The interval is of this run, its pairs taken as independent; runs differ more."
        )?;
        let [_, Summary { busy, .. }, _] = comparison.summaries();
        if busy < BUSY_MIN {
            write!(f, "WARNING: {subject} was only {:.0} % busy: the ratio ", 100.0 * busy)?;
            writeln!(f, "is that of a partly idle server, or of a shared core")?;
        }
        writeln!(f)?;
        self.write_conditions(f)
    }
}

impl Outcome<'_> {
    /// Whether what was measured are cache hits and nothing else.
    ///
    /// # Errors
    /// Says what was in between.
    pub fn check(&self) -> anyhow::Result<()> {
        let failed: u64 = self.comparison.summaries().iter().map(|summary| summary.failed).sum();
        let upstream = self.upstream;
        anyhow::ensure!(
            failed == 0 && upstream == 0,
            "not only cache hits were measured: {failed} answers were not NOERROR, and {upstream} \
             queries went upstream",
        );
        Ok(())
    }

    /// What the rows are called, in the order of [`Comparison::summaries`].
    fn names(&self) -> [&str; 3] {
        ["echo", self.subject, "echo again"]
    }

    fn write_conditions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, rounds, conditions, comparison, pad, upstream } = self;
        let Rounds { pairs, duration, sockets, window, .. } = rounds;
        let Conditions { kernel, processor, cores, server_core, generator_core, .. } = conditions;
        let names = rounds.queries.len();
        writeln!(
            f,
            "{pairs} pairs of rounds of {duration:?}, ABBA; {names} names, {sockets} sockets,"
        )?;
        writeln!(f, "window {window}, echo pad {pad} bytes, {upstream} queries went upstream")?;
        let build = if cfg!(debug_assertions) { ", DEBUG BUILD" } else { "" };
        write!(f, "server on core {server_core}, generator on core {generator_core} of {cores}, ")?;
        writeln!(f, "loopback; {processor}, Linux {kernel}{build}")?;
        let Conditions { load_before, load_after, .. } = conditions;
        writeln!(f, "load average {load_before} before, {load_after} after")?;
        let (run_s, ticks_s) = (comparison.run_ns as f64 / 1e9, comparison.ticks_ns as f64 / 1e9);
        let apart = 100.0 * comparison.account_difference();
        write!(f, "CPU of {subject} over the run: {run_s:.3} s by schedstat, ")?;
        write!(f, "{ticks_s:.2} s by utime + stime ({apart:.1} % apart)")
    }
}

fn write_ratio(f: &mut fmt::Formatter<'_>, label: &str, ratio: Option<Interval>) -> fmt::Result {
    let Some(Interval { median, low, high, coverage }) = ratio else {
        return writeln!(f, "{label:<28}no pairs");
    };
    let coverage = 100.0 * coverage;
    writeln!(
        f,
        "{label:<28}{median:>7.3}   {low:.3} .. {high:.3} ({coverage:.1} % interval of the median)"
    )
}

impl Outcome<'_> {
    /// The same as a JSON document, with every single round.
    ///
    /// # Panics
    /// Never: numbers and texts can always be written.
    #[must_use]
    pub fn to_json(&self) -> String {
        let Self { subject, rounds, conditions, comparison, pad, upstream } = *self;
        let summaries = self.names().into_iter().zip(comparison.summaries());
        let document = Document {
            benchmark: "hit",
            subject,
            ratio: comparison.ratio(),
            aa_ratio: comparison.twin_ratio(),
            summaries: summaries.map(|(name, summary)| Named { name, summary }).collect(),
            pairs: rounds.pairs,
            round_s: rounds.duration.as_secs_f64(),
            names: rounds.queries.len(),
            sockets: rounds.sockets,
            window: rounds.window,
            echo_pad: pad,
            conditions,
            upstream_queries: upstream,
            cpu_schedstat_ns: comparison.run_ns,
            cpu_utime_stime_ns: comparison.ticks_ns,
            subject_pairs: &comparison.subject,
            aa_pairs: &comparison.twin,
        };
        serde_json::to_string(&document).expect("no map in it has keys that are no strings")
    }
}

/// The JSON document.
#[derive(Serialize)]
struct Document<'r> {
    benchmark: &'static str,
    subject: &'r str,
    ratio: Option<Interval>,
    aa_ratio: Option<Interval>,
    summaries: Vec<Named<'r>>,
    pairs: usize,
    round_s: f64,
    names: usize,
    sockets: usize,
    window: usize,
    echo_pad: usize,
    #[serde(flatten)]
    conditions: &'r Conditions,
    upstream_queries: u64,
    cpu_schedstat_ns: u64,
    cpu_utime_stime_ns: u64,
    subject_pairs: &'r [Pair],
    aa_pairs: &'r [Pair],
}

/// A summary with whose it is.
#[derive(Serialize)]
struct Named<'r> {
    name: &'r str,
    #[serde(flatten)]
    summary: Summary,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use swiftlet_loadtest::{Authority, Transport};

    use super::*;
    use crate::rounds::{Sample, queries_for, synthetic_names};

    fn check(sample: Sample, upstream: u64) -> (String, anyhow::Result<()>) {
        let echo = Sample { failed: 0, server_busy: 1.0, ..sample };
        let pairs = |other| vec![Pair { a: echo, b: other }; 15];
        let comparison = Comparison {
            subject: pairs(sample),
            twin: pairs(echo),
            run_ns: 1_000_000_000,
            ticks_ns: 1_000_000_000,
        };
        let authority = Authority::start(([127, 0, 0, 1], 0).into()).expect("starts");
        let rounds = Rounds {
            queries: queries_for(&synthetic_names(1)).expect("a name"),
            transport: Transport::Udp,
            sockets: 1,
            window: 1,
            generator_core: 0,
            duration: Duration::from_secs(1),
            pairs: 15,
            authority: &authority,
            stop: &AtomicBool::new(false),
            serial: 0,
        };
        let conditions = Conditions::read(1, 0);
        let outcome = Outcome {
            subject: "swiftlet",
            rounds: &rounds,
            conditions: &conditions,
            pad: 0,
            upstream,
            comparison: &comparison,
        };
        (outcome.to_string(), outcome.check())
    }

    const SAMPLE: Sample = Sample {
        cpu_ns: 980_000_000,
        answered: 500_000,
        lost: 0,
        failed: 0,
        upstream: 0,
        rate: 500_000.0,
        server_busy: 0.98,
        generator_busy: 0.75,
    };

    #[test]
    fn a_partly_idle_server_is_told() {
        let (busy, _) = check(SAMPLE, 0);
        assert!(busy.contains(" 98 %") && busy.contains(" 75 %"), "{busy}");
        assert!(!busy.contains("WARNING"), "{busy}");
        let (idle, outcome) = check(Sample { server_busy: 0.894, ..SAMPLE }, 0);
        assert!(idle.contains("WARNING: swiftlet was only 89 % busy"), "{idle}");
        outcome.expect("is no error");
    }

    #[test]
    fn what_is_no_hit_makes_the_run_an_error() {
        check(SAMPLE, 0).1.expect("hits only");
        for (failed, upstream) in [(1, 0), (0, 1)] {
            let error = check(Sample { failed, ..SAMPLE }, upstream).1.expect_err("a miss");
            assert!(error.to_string().contains("not only cache hits were measured"), "{error}");
        }
    }
}
