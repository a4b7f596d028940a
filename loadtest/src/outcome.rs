//! What a program run leaves behind: the JSON file, which charts and comparisons are made from.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use swiftlet_parser::rr::Rcode;

use crate::report::QUANTILES;
use crate::{Content, Report, Second, Verdict};

/// Everything that was measured. Latencies are in µs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// What was asked for on the command line.
    pub command: String,
    /// Queries sent, over all runs.
    pub sent: u64,
    /// Answers that matched.
    pub answered: u64,
    /// Queries without an answer in time.
    pub lost: u64,
    /// Replies that matched nothing.
    pub mismatched: u64,
    /// ICMP errors and failed connections.
    pub unreachable: u64,
    /// Answers with TC.
    pub truncated: u64,
    /// Connections that the server closed.
    pub closed: u64,
    /// Answers by RCODE.
    pub rcodes: BTreeMap<String, u64>,
    /// Bytes of messages sent.
    pub bytes_sent: u64,
    /// Bytes of answers.
    pub bytes_received: u64,
    /// Time from the first query to the last answer.
    pub elapsed_s: f64,
    /// Answers per second.
    pub rate: f64,
    /// Share of the queries without an answer.
    pub loss: f64,
    /// By quantile, from the intended sending in the open loop.
    pub latency_us: BTreeMap<String, f64>,
    /// By quantile, from the actual sending; only in the open loop.
    pub uncorrected_us: Option<BTreeMap<String, f64>>,
    /// Points of the distribution: latency in µs, and the share of answers that took no longer.
    pub distribution: Vec<(f64, f64)>,
    /// How the generator fared.
    pub generator: Generator,
    /// What a sample of the answers held.
    pub content: Checked,
    /// What the server's process used, if it was told.
    pub server: Option<Server>,
    /// Second by second, of the last run.
    pub seconds: Vec<Second>,
    /// Each run by itself, if there were several.
    pub runs: Vec<Run>,
    /// What a search for the highest rate walked.
    pub curve: Vec<Step>,
    /// The highest rate that such a search found within its bounds.
    pub max_rate: Option<f64>,
}

/// How the generator fared.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Generator {
    /// Threads.
    pub threads: usize,
    /// Share of the time that its threads ran for, from 0 to 1.
    pub busy: f64,
    /// The same for the busiest of them.
    pub busiest: f64,
    /// CPU time, in µs per answer.
    pub cpu_us_per_answer: f64,
    /// Queries sent more than 10 ms late.
    pub late: u64,
    /// Queries due and never sent.
    pub unsent: u64,
    /// Replies that the kernel dropped at the generator's sockets.
    pub overruns: u64,
    /// Whether the result is the server's.
    pub verdict: Verdict,
}

/// What a sample of the answers held.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Checked {
    /// Answers looked into.
    pub checked: u64,
    /// No well-formed responses.
    pub malformed: u64,
    /// NOERROR with nothing in it.
    pub empty: u64,
}

/// What the server's process used.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Server {
    /// CPU time, in µs per answer.
    pub cpu_us_per_query: f64,
    /// Resident memory at the end, in bytes.
    pub resident: u64,
    /// By how much it grew in bytes per query.
    pub growth_per_query: f64,
}

/// The main figures of one run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Answers per second.
    pub rate: f64,
    /// Share without an answer.
    pub loss: f64,
    /// Latency in µs.
    pub p50_us: f64,
    /// Latency in µs.
    pub p99_us: f64,
    /// Latency in µs.
    pub p999_us: f64,
    /// CPU time of the generator in µs per answer.
    pub generator_us: f64,
    /// CPU time of the server in µs per answer; 0 if unknown.
    pub server_us: f64,
}

/// One rate that a search tried.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Queries per second asked for.
    pub rate: f64,
    /// Answers per second.
    pub answered: f64,
    /// Share without an answer.
    pub loss: f64,
    /// Latency in µs.
    pub p50_us: f64,
    /// Latency in µs.
    pub p99_us: f64,
    /// Whether the bounds held and the generator kept up.
    pub passed: bool,
    /// Whether the generator kept up.
    pub verdict: Verdict,
}

impl Outcome {
    /// Of one report, or of the sum of several.
    #[must_use]
    pub fn new(command: String, report: &Report) -> Self {
        let Content { checked, malformed, empty } = report.content;
        let rcodes = (0u16..).zip(report.rcodes).filter(|&(_, count)| count > 0);
        Self {
            command,
            sent: report.sent,
            answered: report.answered,
            lost: report.lost,
            mismatched: report.mismatched,
            unreachable: report.unreachable,
            truncated: report.truncated,
            closed: report.closed,
            rcodes: rcodes.map(|(rcode, count)| (Rcode(rcode).to_string(), count)).collect(),
            bytes_sent: report.bytes_sent,
            bytes_received: report.bytes_received,
            elapsed_s: report.elapsed.as_secs_f64(),
            rate: report.rate(),
            loss: report.loss(),
            latency_us: quantiles(&report.latency),
            uncorrected_us: (!report.service.is_empty()).then(|| quantiles(&report.service)),
            distribution: distribution(&report.latency),
            generator: Generator {
                threads: report.threads,
                busy: report.busy(),
                busiest: report.busiest(),
                cpu_us_per_answer: report.cpu_us_per_answer(),
                late: report.late,
                unsent: report.unsent,
                overruns: report.overruns,
                verdict: report.verdict(),
            },
            content: Checked { checked, malformed, empty },
            server: None,
            seconds: report.seconds.clone(),
            runs: Vec::new(),
            curve: Vec::new(),
            max_rate: None,
        }
    }

    /// Reads what [`Outcome::write`] wrote.
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_reader(BufReader::new(File::open(path)?))?)
    }

    /// Writes it to a file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.flush()
    }
}

impl Run {
    /// The main figures of a report, and of the server's CPU time.
    #[must_use]
    pub fn new(report: &Report, server_us: f64) -> Self {
        Self {
            rate: report.rate(),
            loss: report.loss(),
            p50_us: report.latency_us(0.5),
            p99_us: report.latency_us(0.99),
            p999_us: report.latency_us(0.999),
            generator_us: report.cpu_us_per_answer(),
            server_us,
        }
    }
}

fn quantiles(latency: &Histogram<u64>) -> BTreeMap<String, f64> {
    let micros = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
    QUANTILES.iter().map(|&(name, quantile)| (name.to_owned(), micros(quantile))).collect()
}

/// About a hundred points, closer together towards the tail.
fn distribution(latency: &Histogram<u64>) -> Vec<(f64, f64)> {
    if latency.is_empty() {
        return Vec::new();
    }
    latency
        .iter_quantiles(8)
        .map(|step| (step.value_iterated_to() as f64 / 1000.0, step.quantile()))
        .collect()
}
