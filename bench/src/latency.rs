//! Latency at a load that a server can bear: an open loop at a share of its own maximum.
//!
//! Latency counts from when a query was due, not from when it was sent, so a server that stalls
//! pays for the queries that had to wait meanwhile. A quantile is the median of those of the rounds:
//! the machine takes a core away for milliseconds at times, and one such round says nothing of the
//! server.

use std::time::Duration;

use serde::Serialize;
use swiftlet_loadtest::{Limit, MAX_WINDOW_PER_SOCKET, Report, Verdict};

use crate::interval::median;
use crate::process::Process;
use crate::rounds::Rounds;

/// The share of the closed loop's rate that is asked for.
pub const RATE_SHARE: f64 = 0.7;

/// Rounds for each server, taken in turn.
pub const ROUNDS: usize = 5;

/// The most queries that may be outstanding: with many sockets, far fewer for each than it could have.
const WINDOW_MAX: usize = 32 * MAX_WINDOW_PER_SOCKET;

/// What came of all rounds of one server.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Queries per second that were asked for.
    pub rate: f64,
    /// Answers.
    pub answered: u64,
    /// Queries without one.
    pub lost: u64,
    /// Half of the answers took no longer, in µs; of the median round, as the others.
    pub p50_us: f64,
    /// 99 of 100 answers took no longer, in µs.
    pub p99_us: f64,
    /// 999 of 1000 answers took no longer, in µs.
    pub p999_us: f64,
    /// Whether these are the server's figures, or the generator's.
    pub verdict: Verdict,
}

impl Latency {
    /// Of at least one report.
    fn of(reports: &[Report], rate: f64) -> Self {
        let quantile = |of: f64| median(reports.iter().map(|report| report.latency_us(of)));
        let bound = reports.iter().map(Report::verdict).find(|&verdict| verdict != Verdict::Server);
        Self {
            rate,
            answered: reports.iter().map(|report| report.answered).sum(),
            lost: reports.iter().map(|report| report.lost).sum(),
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            verdict: bound.unwrap_or(Verdict::Server),
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
    let mut all: Vec<Result<Vec<Report>, String>> =
        servers.iter().map(|_| Ok(Vec::new())).collect();
    for _ in 0..ROUNDS {
        for (&(server, max), reports) in servers.iter().zip(&mut all) {
            let Ok(so_far) = reports else { continue };
            let report = round(rounds, server, RATE_SHARE * max, duration);
            rounds.ensure_wanted()?;
            match report {
                Ok(report) => so_far.push(report),
                Err(error) => *reports = Err(format!("{error:#}")),
            }
        }
    }
    let latency = |(reports, &(_, max)): (Result<Vec<Report>, String>, &(&Process, f64))| {
        Ok(Latency::of(&reports?, RATE_SHARE * max))
    };
    Ok(all.into_iter().zip(servers).map(latency).collect())
}

/// Measures two servers at one rate: rounds of the first, the first again and the other, in changing
/// order, as many as the rounds have pairs. What differs between the first two is the machine's.
///
/// # Errors
/// If one doesn't answer, or if this was to be stopped.
pub fn side_by_side(
    rounds: &mut Rounds<'_>,
    [one, other]: [&Process; 2],
    rate: f64,
    duration: Duration,
) -> anyhow::Result<Vec<[Latency; 3]>> {
    let mut all = Vec::new();
    for index in 0..rounds.pairs {
        let mut take = |server| {
            let report = round(rounds, server, rate, duration)?;
            anyhow::Ok(Latency::of(&[report], rate))
        };
        let triple = if index % 2 == 0 {
            let (first, again) = (take(one)?, take(one)?);
            [first, again, take(other)?]
        } else {
            let (last, again) = (take(other)?, take(one)?);
            [take(one)?, again, last]
        };
        rounds.ensure_wanted()?;
        all.push(triple);
    }
    Ok(all)
}

fn round(
    rounds: &mut Rounds<'_>,
    server: &Process,
    rate: f64,
    duration: Duration,
) -> anyhow::Result<Report> {
    server.resume()?;
    let window = (rounds.sockets * MAX_WINDOW_PER_SOCKET).min(WINDOW_MAX);
    let report = rounds.load(server, Limit::For(duration), window, Some(rate))?;
    server.pause()?;
    anyhow::ensure!(report.answered > 0, "{} answered nothing at {rate:.0}/s", server.name);
    Ok(report)
}
