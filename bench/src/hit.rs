//! What a cache hit costs: CPU of the server per answer, divided by that of the bare echo.
//!
//! One server at a time, told to the last digit: the rounds of [`crate::rounds`] with the echo's twin
//! in between, and the account of the server's CPU checked against the kernel's other one.

use crate::accounting::{run_ns, ticks_ns};
use crate::interval::Interval;
use crate::process::Process;
use crate::rounds::{Entrant, Pair, Rounds, Summary, ratio};

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
    /// Measures `subject` against `echo`, and `twin`, which does the same as `echo`, in between.
    /// `progress` is called after each pair with how many are done.
    pub fn measure(
        rounds: &mut Rounds<'_>,
        echo: &Process,
        subject: &Process,
        twin: &Process,
        progress: impl FnMut(usize),
    ) -> anyhow::Result<Self> {
        for process in [echo, subject, twin] {
            rounds.settle(process)?;
        }
        let (run_before_ns, ticks_before_ns) = (run_ns(subject.pid())?, ticks_ns(subject.pid())?);
        let mut entrants = [Entrant::new(subject), Entrant::new(twin)];
        rounds.compare(echo, &mut entrants, progress)?;
        if let Some(failure) = entrants.iter().find_map(|entrant| entrant.failure.as_ref()) {
            anyhow::bail!("{failure}");
        }
        let [subject_pairs, twin_pairs] = entrants.map(|entrant| entrant.pairs);
        Ok(Self {
            subject: subject_pairs,
            twin: twin_pairs,
            run_ns: run_ns(subject.pid())? - run_before_ns,
            ticks_ns: ticks_ns(subject.pid())? - ticks_before_ns,
        })
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::Sample;

    fn sample(cpu_ns: u64, answered: u64) -> Sample {
        let busy = cpu_ns as f64 / 1e5;
        Sample {
            cpu_ns,
            answered,
            lost: 1,
            failed: 0,
            upstream: 0,
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
}
