//! What a cached name takes of memory: how much larger the server is with a cache full of them than
//! with one of next to nothing, divided by the names that are really in it.
//!
//! The sizes are those of two processes: some servers take the memory of their whole cache at their
//! start, so that one process doesn't grow while it fills.

use serde::Serialize;
use swiftlet_loadtest::Limit;

use crate::process::Process;
use crate::rounds::{Rounds, queries_for};

/// Names that the smaller cache is for.
pub const FEW: usize = 1000;

/// Names asked again to see how many are kept.
const SAMPLE: usize = 100_000;

/// The most passes over all names: what is lost or fails in one is asked again in the next.
const PASSES_MAX: usize = 3;

/// What one server's cache came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Held {
    /// Names that were asked.
    pub names: usize,
    /// How many of them are in the cache, by the sample.
    pub kept: f64,
    /// Queries lost in the last pass over the names.
    pub lost: u64,
    /// Answers of that pass with another RCODE than NOERROR.
    pub failed: u64,
    /// Resident bytes with a cache of next to nothing.
    pub before: u64,
    /// Resident bytes with the full cache.
    pub after: u64,
}

impl Held {
    /// By how much the server grew per name that it keeps, in bytes; not a number if it keeps none.
    #[must_use]
    pub fn per_name(&self) -> f64 {
        if self.kept < 1.0 {
            f64::NAN
        } else {
            self.after.saturating_sub(self.before) as f64 / self.kept
        }
    }

    /// Share of the names that are in the cache, from 0 to 1.
    #[must_use]
    pub fn share_kept(&self) -> f64 {
        self.kept / self.names as f64
    }
}

/// Resident bytes of a server with a cache for [`FEW`] names, when it has been asked for a tenth of
/// them, so that what it allocates with its first queries is not taken for the cache.
///
/// # Errors
/// If it cannot be asked, or if this was to be stopped.
pub fn empty(rounds: &mut Rounds<'_>, server: &Process, names: &[String]) -> anyhow::Result<u64> {
    rounds.queries = queries_for(&names[..(FEW / 10).min(names.len())])?;
    rounds.load(server, Limit::Each, rounds.sockets, None)?;
    server.resident_bytes()
}

/// Fills the cache of a server that has just been started; `before` is what [`empty`] gave.
///
/// # Errors
/// If it cannot be asked, or if this was to be stopped.
pub fn fill(
    rounds: &mut Rounds<'_>,
    server: &Process,
    names: &[String],
    before: u64,
) -> anyhow::Result<Held> {
    let window = rounds.window;
    rounds.queries = queries_for(names)?;
    let mut passes = 0;
    let last = loop {
        let report = rounds.load(server, Limit::Each, window, None)?;
        passes += 1;
        if report.rcodes[0] == names.len() as u64 || passes == PASSES_MAX {
            break report;
        }
    };
    let after = server.resident_bytes()?;

    let step = names.len().div_ceil(SAMPLE);
    let sample: Vec<String> = names.iter().step_by(step).cloned().collect();
    rounds.queries = queries_for(&sample)?;
    let asked = rounds.authority.answered();
    let report = rounds.load(server, Limit::Each, window, None)?;
    let upstream = rounds.authority.answered() - asked;
    anyhow::ensure!(report.answered > 0, "{} answered nothing", server.name);
    // A name that was asked upstream twice counts twice, so this is never too high.
    let kept = report.answered.saturating_sub(upstream) as f64 / sample.len() as f64;
    Ok(Held {
        names: names.len(),
        kept: kept * names.len() as f64,
        lost: last.lost,
        failed: last.answered - last.rcodes[0],
        before,
        after,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kept_names_count() {
        let held = Held {
            names: 1000,
            kept: 800.0,
            lost: 0,
            failed: 0,
            before: 1 << 20,
            after: (1 << 20) + 160_000,
        };
        assert_eq!((held.per_name(), held.share_kept()), (200.0, 0.8));
        assert!(Held { kept: 0.0, ..held }.per_name().is_nan());
        assert_eq!(Held { after: 0, ..held }.per_name(), 0.0);
    }
}
