//! What came of a run.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use swiftlet_parser::rr::Rcode;

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
    /// From just before a query was sent to when its answer was read, in ns. Both moments are taken
    /// once per batch, and a closed loop waits for slow answers: this says nothing about latency
    /// under a given rate.
    pub latency: Histogram<u64>,
    /// CPU time of the generator's own threads.
    pub cpu: Duration,
    /// Threads that it ran on.
    pub threads: usize,
}

impl Report {
    pub(crate) fn new(threads: usize) -> Self {
        let latency = Histogram::new_with_bounds(1_000, LATENCY_MAX_NS, 3);
        Self {
            sent: 0,
            answered: 0,
            lost: 0,
            mismatched: 0,
            unreachable: 0,
            rcodes: [0; 16],
            truncated: 0,
            elapsed: Duration::ZERO,
            latency: latency.expect("the bounds are constant and valid"),
            cpu: Duration::ZERO,
            threads,
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
    }

    /// Answers per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Share of the time for which the generator's threads were running, from 0 to 1. Near 1, the
    /// generator is what limits the rate.
    #[must_use]
    pub fn busy(&self) -> f64 {
        let elapsed = self.elapsed.as_secs_f64().max(1e-9);
        (self.cpu.as_secs_f64() / elapsed / self.threads as f64).min(1.0)
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
        writeln!(f, "truncated    {:>12}", self.truncated)?;
        for (rcode, count) in (0u16..).zip(self.rcodes).filter(|&(_, count)| count > 0) {
            writeln!(f, "{:<12} {count:>12}", Rcode(rcode).to_string())?;
        }
        writeln!(f, "elapsed      {:>12.3} s", self.elapsed.as_secs_f64())?;
        writeln!(f, "answers/s    {:>12.0}", self.rate())?;
        for (label, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
            let latency_us = self.latency.value_at_quantile(quantile) as f64 / 1000.0;
            writeln!(f, "{label:<12} {latency_us:>12.1} us")?;
        }
        let (busy, threads) = (100.0 * self.busy(), self.threads);
        write!(f, "generator    {busy:>12.1} % busy on {threads} thread(s)")?;
        if self.busy() > 0.95 {
            write!(f, ": the generator is what limits the rate")?;
        }
        Ok(())
    }
}
