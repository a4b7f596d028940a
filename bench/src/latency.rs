//! Latency at a load that a server can bear: an open loop at a share of its own maximum.
//!
//! Latency counts from when a query was due, not from when it was sent, so a server that stalls
//! pays for the queries that had to wait meanwhile.

use std::time::Duration;

use serde::Serialize;
use swiftlet_loadtest::{Limit, MAX_WINDOW_PER_SOCKET, Report, Verdict};

use crate::process::Process;
use crate::rounds::Rounds;

/// The share of the closed loop's rate that is asked for.
pub const RATE_SHARE: f64 = 0.7;

/// Rounds for each server, taken in turn.
pub const ROUNDS: usize = 3;

/// What came of all rounds of one server.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Queries per second that were asked for.
    pub rate: f64,
    /// Answers.
    pub answered: u64,
    /// Queries without one.
    pub lost: u64,
    /// Half of the answers took no longer, in µs.
    pub p50_us: f64,
    /// 99 of 100 answers took no longer, in µs.
    pub p99_us: f64,
    /// 999 of 1000 answers took no longer, in µs.
    pub p999_us: f64,
    /// Whether these are the server's figures, or the generator's.
    pub verdict: Verdict,
}

impl Latency {
    fn of(report: &Report, rate: f64) -> Self {
        Self {
            rate,
            answered: report.answered,
            lost: report.lost,
            p50_us: report.latency_us(0.5),
            p99_us: report.latency_us(0.99),
            p999_us: report.latency_us(0.999),
            verdict: report.verdict(),
        }
    }

    /// Share of the queries without an answer.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.lost as f64 / (self.answered + self.lost).max(1) as f64
    }
}

/// Measures each of these servers at its share of this maximum, in turn. One that fails has the
/// reason in its place.
///
/// # Errors
/// If this was to be stopped.
pub fn measure(
    rounds: &mut Rounds<'_>,
    servers: &[(&Process, f64)],
    duration: Duration,
) -> anyhow::Result<Vec<Result<Latency, String>>> {
    let mut totals: Vec<Result<Option<Report>, String>> =
        servers.iter().map(|_| Ok(None)).collect();
    for _ in 0..ROUNDS {
        for (&(server, max), total) in servers.iter().zip(&mut totals) {
            let Ok(sum) = total else { continue };
            let report = round(rounds, server, RATE_SHARE * max, duration);
            rounds.ensure_wanted()?;
            match (report, sum) {
                (Ok(report), Some(sum)) => sum.append(report),
                (Ok(report), sum @ None) => *sum = Some(report),
                (Err(error), _) => *total = Err(format!("{error:#}")),
            }
        }
    }
    let latency = |(total, &(_, max)): (Result<Option<Report>, String>, &(&Process, f64))| {
        let report = total?.ok_or_else(|| "no round was made".to_owned())?;
        Ok(Latency::of(&report, RATE_SHARE * max))
    };
    Ok(totals.into_iter().zip(servers).map(latency).collect())
}

fn round(
    rounds: &mut Rounds<'_>,
    server: &Process,
    rate: f64,
    duration: Duration,
) -> anyhow::Result<Report> {
    server.resume()?;
    let window = rounds.sockets * MAX_WINDOW_PER_SOCKET;
    let report = rounds.load(server, Limit::For(duration), window, Some(rate))?;
    server.pause()?;
    anyhow::ensure!(report.answered > 0, "{} answered nothing at {rate:.0}/s", server.name);
    Ok(report)
}
