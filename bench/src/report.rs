//! A comparison as a table for people and as JSON for programs, each with its conditions.

use std::fmt::{self, Write};
use std::fs;

use crate::hit::{BUSY_MIN, Comparison, Pair, Rounds, Sample, Summary};
use crate::interval::Interval;

/// Under what the numbers came about.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// Kernel release.
    pub kernel: String,
    /// Processor model.
    pub processor: String,
    /// Cores of the machine.
    pub cores: usize,
    /// Load averages over 1, 5 and 15 minutes before the run: what else ran.
    pub load_before: String,
    /// The same after it, the run itself included.
    pub load_after: String,
    /// The core of the servers.
    pub server_core: usize,
    /// Bytes by which the echo's replies were longer than its queries.
    pub pad: usize,
    /// Queries that went upstream since the cache was warm; 0 unless names expired.
    pub upstream: u64,
}

impl Conditions {
    /// Reads what the system tells, before a run.
    #[must_use]
    pub fn read(server_core: usize, pad: usize) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let processor = model.map_or("unknown", |model| model.trim_start_matches([':', ' ', '\t']));
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: processor.to_owned(),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            load_before: load_average(),
            load_after: String::new(),
            server_core,
            pad,
            upstream: 0,
        }
    }

    /// Adds what is known after the run.
    pub fn finish(&mut self, upstream: u64) {
        self.load_after = load_average();
        self.upstream = upstream;
    }
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_ascii_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// What a comparison came to.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'r> {
    /// What was compared to the echo.
    pub subject: &'r str,
    /// The load.
    pub rounds: &'r Rounds,
    /// The circumstances.
    pub conditions: &'r Conditions,
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
            let Summary { per_answer_ns, rate, busy, generator_busy, lost, failed } = summary;
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
        let upstream = self.conditions.upstream;
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
        let Self { subject, rounds, conditions, comparison } = self;
        let Rounds { pairs, duration, sockets, window, generator_core, .. } = rounds;
        let Conditions { kernel, processor, cores, server_core, pad, upstream, .. } = conditions;
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
    #[must_use]
    pub fn to_json(&self) -> String {
        let Self { subject, rounds, conditions, comparison } = self;
        let rows = self.names().into_iter().zip(comparison.summaries());
        let summaries: Vec<String> = rows.map(|(name, row)| summary(name, &row)).collect();
        object(&[
            ("benchmark", quoted("hit")),
            ("subject", quoted(subject)),
            ("ratio", interval(comparison.ratio())),
            ("aa_ratio", interval(comparison.twin_ratio())),
            ("summaries", format!("[{}]", summaries.join(","))),
            ("pairs", rounds.pairs.to_string()),
            ("round_s", rounds.duration.as_secs_f64().to_string()),
            ("names", rounds.queries.len().to_string()),
            ("sockets", rounds.sockets.to_string()),
            ("window", rounds.window.to_string()),
            ("echo_pad", conditions.pad.to_string()),
            ("server_core", conditions.server_core.to_string()),
            ("generator_core", rounds.generator_core.to_string()),
            ("cores", conditions.cores.to_string()),
            ("processor", quoted(&conditions.processor)),
            ("kernel", quoted(&conditions.kernel)),
            ("debug_build", cfg!(debug_assertions).to_string()),
            ("load_before", quoted(&conditions.load_before)),
            ("load_after", quoted(&conditions.load_after)),
            ("upstream_queries", conditions.upstream.to_string()),
            ("cpu_schedstat_ns", comparison.run_ns.to_string()),
            ("cpu_utime_stime_ns", comparison.ticks_ns.to_string()),
            ("subject_pairs", pairs(&comparison.subject)),
            ("aa_pairs", pairs(&comparison.twin)),
        ])
    }
}

fn summary(name: &str, summary: &Summary) -> String {
    object(&[
        ("name", quoted(name)),
        ("cpu_per_answer_ns", format!("{:.1}", summary.per_answer_ns)),
        ("answers_per_s", format!("{:.0}", summary.rate)),
        ("busy", format!("{:.4}", summary.busy)),
        ("generator_busy", format!("{:.4}", summary.generator_busy)),
        ("lost", summary.lost.to_string()),
        ("failed", summary.failed.to_string()),
    ])
}

fn interval(ratio: Option<Interval>) -> String {
    let Some(Interval { median, low, high, coverage }) = ratio else {
        return "null".to_owned();
    };
    object(&[
        ("median", format!("{median:.4}")),
        ("low", format!("{low:.4}")),
        ("high", format!("{high:.4}")),
        ("coverage", format!("{coverage:.4}")),
    ])
}

fn pairs(pairs: &[Pair]) -> String {
    let pair = |pair: &Pair| object(&[("echo", sample(&pair.a)), ("other", sample(&pair.b))]);
    let pairs: Vec<String> = pairs.iter().map(pair).collect();
    format!("[{}]", pairs.join(","))
}

fn sample(sample: &Sample) -> String {
    object(&[
        ("cpu_ns", sample.cpu_ns.to_string()),
        ("answered", sample.answered.to_string()),
        ("lost", sample.lost.to_string()),
        ("failed", sample.failed.to_string()),
        ("answers_per_s", format!("{:.0}", sample.rate)),
        ("server_busy", format!("{:.4}", sample.server_busy)),
        ("generator_busy", format!("{:.4}", sample.generator_busy)),
    ])
}

/// A JSON object; the values are JSON already.
fn object(fields: &[(&str, String)]) -> String {
    let fields: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
    format!("{{{}}}", fields.join(","))
}

/// A JSON string (RFC 8259 §7).
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\0'..='\x1f' => {
                // Writing to a string cannot fail.
                let _ = write!(quoted, "\\u{:04x}", u32::from(character));
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hit::synthetic_names;

    fn check(sample: Sample, upstream: u64) -> (String, anyhow::Result<()>) {
        let echo = Sample { failed: 0, server_busy: 1.0, ..sample };
        let pairs = |other| vec![Pair { a: echo, b: other }; 15];
        let comparison = Comparison {
            subject: pairs(sample),
            twin: pairs(echo),
            run_ns: 1_000_000_000,
            ticks_ns: 1_000_000_000,
        };
        let rounds = Rounds {
            queries: synthetic_names(1).expect("a name"),
            sockets: 1,
            window: 1,
            generator_core: 0,
            duration: Duration::from_secs(1),
            pairs: 15,
        };
        let mut conditions = Conditions::read(1, 0);
        conditions.finish(upstream);
        let outcome = Outcome {
            subject: "swiftlet",
            rounds: &rounds,
            conditions: &conditions,
            comparison: &comparison,
        };
        (outcome.to_string(), outcome.check())
    }

    const SAMPLE: Sample = Sample {
        cpu_ns: 980_000_000,
        answered: 500_000,
        lost: 0,
        failed: 0,
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

    #[test]
    fn strings_are_quoted() {
        assert_eq!(quoted("a\"b\\c\n\u{e9}"), "\"a\\\"b\\\\c\\u000a\u{e9}\"");
    }
}
