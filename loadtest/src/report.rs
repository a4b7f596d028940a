//! What came of a run.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use swiftlet_parser::rr::Rcode;

use crate::content::Content;

/// The quantiles that are told of a latency.
pub(crate) const QUANTILES: [(&str, f64); 7] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
    ("max", 1.0),
];

/// The longest latency that is told apart: one minute, in ns.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// The counts of a run. At its end, `sent == answered + lost`.
#[derive(Clone, Debug)]
pub struct Report {
    /// Queries that the kernel accepted.
    pub sent: u64,
    /// Replies that matched an outstanding query by socket, ID and question.
    pub answered: u64,
    /// Queries without a reply within the time-out.
    pub lost: u64,
    /// Datagrams that matched no outstanding query: late, doubled, or somebody else's.
    pub mismatched: u64,
    /// Times that the kernel reported an ICMP error, as it does when nobody listens.
    pub unreachable: u64,
    /// Answers by the RCODE in their header.
    pub rcodes: [u64; 16],
    /// Answers with TC set.
    pub truncated: u64,
    /// From the first query to the last answer.
    pub elapsed: Duration,
    /// From when a query was due to when its answer was read, in ns; the latter is taken once per
    /// batch. In a closed loop a query is due when it is sent, and slow answers hold up what would
    /// have come next: this says nothing about latency under a given rate then.
    pub latency: Histogram<u64>,
    /// CPU time of the generator's own threads.
    pub cpu: Duration,
    /// Threads that it ran on.
    pub threads: usize,
    /// In the open loop: from when a query was sent, not from when it was due.
    pub service: Histogram<u64>,
    /// In the open loop: queries sent more than 10 ms after they were due.
    pub late: u64,
    /// In the open loop: queries that were due and never sent.
    pub unsent: u64,
    /// Replies that the kernel dropped at the generator's sockets, which were not read in time. They
    /// count as lost too.
    pub overruns: u64,
    /// TCP connections that the server closed.
    pub closed: u64,
    /// Bytes of DNS messages sent.
    pub bytes_sent: u64,
    /// Bytes of the answers.
    pub bytes_received: u64,
    /// What a sample of the answers holds.
    pub content: Content,
    /// Second by second.
    pub seconds: Vec<Second>,
    /// In the report of one second: how much of it has been measured.
    pub(crate) length: Duration,
    /// CPU time per thread: in a report of one thread's second, there is one.
    busiest: f64,
}

/// One second of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Seconds since the start, at its end.
    pub at_s: u64,
    /// Its length in s: the last one is rarely whole.
    #[serde(default = "whole")]
    pub length_s: f64,
    /// Queries sent.
    pub sent: u64,
    /// Answers.
    pub answered: u64,
    /// Queries given up on.
    pub lost: u64,
    /// Half of the answers took no longer, in µs.
    pub p50_us: f64,
    /// 99 of 100 answers took no longer, in µs.
    pub p99_us: f64,
    /// The slowest answer, in µs.
    pub max_us: f64,
    /// How busy the busiest thread was, from 0 to 1.
    pub busiest: f64,
}

/// What files that don't tell a second's length take it for.
fn whole() -> f64 {
    1.0
}

impl Report {
    pub(crate) fn new(threads: usize) -> Self {
        let latency = Histogram::new_with_bounds(1_000, LATENCY_MAX_NS, 3)
            .expect("the bounds are constant and valid");
        Self {
            sent: 0,
            answered: 0,
            lost: 0,
            mismatched: 0,
            unreachable: 0,
            rcodes: [0; 16],
            truncated: 0,
            elapsed: Duration::ZERO,
            latency: latency.clone(),
            cpu: Duration::ZERO,
            threads,
            service: latency,
            late: 0,
            unsent: 0,
            overruns: 0,
            closed: 0,
            bytes_sent: 0,
            bytes_received: 0,
            content: Content::default(),
            seconds: Vec::new(),
            length: Duration::ZERO,
            busiest: 0.0,
        }
    }

    /// Takes in what another thread of the same run counted.
    pub(crate) fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.lost += other.lost;
        self.mismatched += other.mismatched;
        self.unreachable += other.unreachable;
        for (rcode, count) in self.rcodes.iter_mut().zip(other.rcodes) {
            *rcode += count;
        }
        self.truncated += other.truncated;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.latency.add(&other.latency).expect("all histograms have the same bounds");
        self.cpu += other.cpu;
        self.service.add(&other.service).expect("all histograms have the same bounds");
        self.late += other.late;
        self.unsent += other.unsent;
        self.overruns += other.overruns;
        self.closed += other.closed;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.content.add_all(other.content);
        self.length = self.length.max(other.length);
        self.busiest = self.busiest.max(other.cpu.as_secs_f64() / other.threads as f64);
    }

    /// Takes in what all threads counted in the second of this number.
    pub(crate) fn end_second(&mut self, number: u64, sum: &Self) -> &Second {
        let micros = |quantile| sum.latency.value_at_quantile(quantile) as f64 / 1000.0;
        let busiest_before = self.busiest;
        self.add(sum);
        // A thread's CPU time over the run is unknown here; the sum of the busiest of each second
        // is at least that of any.
        self.busiest = busiest_before + sum.busiest;
        self.seconds.push(Second {
            at_s: number + 1,
            length_s: sum.length.as_secs_f64(),
            sent: sum.sent,
            answered: sum.answered,
            lost: sum.lost,
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            max_us: micros(1.0),
            busiest: sum.busiest.min(1.0),
        });
        &self.seconds[self.seconds.len() - 1]
    }

    /// How busy the busiest thread was, from 0 to 1; a little too high if it wasn't always the same.
    #[must_use]
    pub fn busiest(&self) -> f64 {
        (self.busiest / self.elapsed.as_secs_f64().max(1e-9)).min(1.0)
    }

    /// Why the result is the generator's and not the server's, if it is.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let asked = self.sent + self.unsent;
        if self.busiest() > BUSY_MAX {
            Verdict::Busy
        } else if self.unsent as f64 > UNSENT_MAX * asked as f64 {
            Verdict::Unsent
        } else if self.overruns as f64 > UNSENT_MAX * asked as f64 {
            Verdict::Overrun
        } else if self.late as f64 > LATE_MAX * asked as f64 {
            Verdict::Late
        } else {
            Verdict::Server
        }
    }

    /// Answers per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Share of the queries that got no answer; those that were due and never sent are not of them.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.lost as f64 / self.sent.max(1) as f64
    }

    /// A quantile of the latency, in µs.
    #[must_use]
    pub fn latency_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// CPU time of the generator per answer, in µs.
    #[must_use]
    pub fn cpu_us_per_answer(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.answered.max(1) as f64
    }

    /// Adds a later run to this one: times add up too, and the last run's seconds stay.
    pub fn append(&mut self, later: Self) {
        let (elapsed, busiest) = (self.elapsed + later.elapsed, self.busiest + later.busiest);
        self.add(&later);
        (self.elapsed, self.busiest) = (elapsed, busiest);
        self.seconds = later.seconds;
    }

    /// Share of the time for which the generator's threads were running, from 0 to 1. Near 1, the
    /// generator is what limits the rate.
    #[must_use]
    pub fn busy(&self) -> f64 {
        let elapsed = self.elapsed.as_secs_f64().max(1e-9);
        (self.cpu.as_secs_f64() / elapsed / self.threads as f64).min(1.0)
    }
}

/// Above this a thread of the generator limits the rate.
const BUSY_MAX: f64 = 0.95;

/// Share of the schedule that may be missed before the result is the generator's.
const UNSENT_MAX: f64 = 0.001;

/// Share of the queries that may be late.
const LATE_MAX: f64 = 0.01;

/// What limited a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The server, or the rate that was asked for.
    Server,
    /// A thread of the generator had no time left.
    Busy,
    /// Queries were due that were never sent: too few may be outstanding, or there was no time.
    Unsent,
    /// Queries went out late.
    Late,
    /// Replies were dropped at the generator's own sockets.
    Overrun,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "the generator kept up",
            Self::Busy => "BOUND BY THE GENERATOR: a thread of it was more than 95 % busy",
            Self::Unsent => {
                "BOUND BY THE GENERATOR: it fell behind its schedule and left queries out"
            }
            Self::Overrun => {
                "BOUND BY THE GENERATOR: it did not read replies in time and the kernel dropped them"
            }
            Self::Late => {
                "BOUND BY THE GENERATOR: it fell behind its schedule by more than 10 ms too often"
            }
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_cent = |count: u64| 100.0 * count as f64 / (self.sent.max(1)) as f64;
        writeln!(f, "sent         {:>12}", self.sent)?;
        writeln!(f, "answered     {:>12}  {:.3} %", self.answered, per_cent(self.answered))?;
        writeln!(f, "lost         {:>12}  {:.3} %", self.lost, per_cent(self.lost))?;
        writeln!(f, "mismatched   {:>12}", self.mismatched)?;
        writeln!(f, "unreachable  {:>12}", self.unreachable)?;
        if self.overruns > 0 {
            writeln!(f, "overruns     {:>12}  replies, at the generator's sockets", self.overruns)?;
        }
        if self.closed > 0 {
            writeln!(f, "closed       {:>12}  connections, by the server", self.closed)?;
        }
        writeln!(f, "truncated    {:>12}", self.truncated)?;
        for (rcode, count) in (0u16..).zip(self.rcodes).filter(|&(_, count)| count > 0) {
            writeln!(f, "{:<12} {count:>12}", Rcode(rcode).to_string())?;
        }
        writeln!(f, "elapsed      {:>12.3} s", self.elapsed.as_secs_f64())?;
        writeln!(f, "answers/s    {:>12.0}", self.rate())?;
        writeln!(
            f,
            "bytes        {:>12}  sent, {} received",
            self.bytes_sent, self.bytes_received
        )?;
        let Content { checked, malformed, empty } = self.content;
        writeln!(f, "looked into  {checked:>12}  answers: {malformed} malformed, {empty} empty")?;
        if self.service.is_empty() {
            writeln!(f, "latency from the sending, as a closed loop sees it")?;
        } else {
            writeln!(f, "latency from the intended sending; beside it from the actual one")?;
        }
        for (label, quantile) in QUANTILES {
            let micros =
                |histogram: &Histogram<u64>| histogram.value_at_quantile(quantile) as f64 / 1000.0;
            write!(f, "{label:<12} {:>12.1} us", micros(&self.latency))?;
            if self.service.is_empty() {
                writeln!(f)?;
            } else {
                writeln!(f, " {:>12.1} us", micros(&self.service))?;
            }
        }
        let (busy, threads) = (100.0 * self.busy(), self.threads);
        writeln!(f, "generator    {busy:>12.1} % busy on {threads} thread(s), {} late", self.late)?;
        write!(f, "verdict      {}", self.verdict())
    }
}
