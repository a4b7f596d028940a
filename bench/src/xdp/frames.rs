//! What became of each frame, at a rate that is well above what sockets carry.
//!
//! Every place that a query and its answer pass counts them: the generator, both interfaces, the filter, the
//! sockets' rings and the server. What goes into a place must be what comes out of it, or what it says it
//! has dropped.

use std::time::Duration;

use serde::Serialize;

use super::Bench;
use super::contender::Stage;
use super::counters::Interface;
use super::metrics::{self, Metrics};

/// Queries per second.
pub const RATE: u64 = 300_000;

/// Rounds at this rate.
pub const ROUNDS: usize = 5;

/// Length of one.
pub const DURATION: Duration = Duration::from_secs(3);

/// Frames at each place, of all rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Frames {
    /// Queries that the generator sent.
    pub sent: u64,
    /// The generator's interface.
    pub at_generator: Interface,
    /// The server's interface.
    pub at_server: Interface,
    /// Frames that the filter gave to our socket.
    pub redirected: u64,
    /// Frames that it left to the kernel.
    pub passed: u64,
    /// Frames that the server took from the socket's ring.
    pub received: u64,
    /// Frames redirected that the kernel dropped: for want of a free frame, or as the ring was full.
    pub dropped: u64,
    /// Queries that the server dropped.
    pub unanswered: u64,
    /// Replies that the kernel took from it and sent.
    pub answered: u64,
    /// Replies that the kernel refused, with an error that says so.
    pub refused: u64,
    /// Replies that the generator counted.
    pub replies: u64,
}

/// One place on the way: what went in, where it went, and the difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What went in, and its number.
    pub entered: (&'static str, u64),
    /// What it became.
    pub became: Vec<(&'static str, u64)>,
}

impl Frames {
    /// Asks ours so many queries a second, and reads all counters before and after. It is let run as
    /// before, and paused at the end.
    pub(super) fn count(bench: &Bench<'_>, ours: &Stage) -> anyhow::Result<Self> {
        ours.process.resume()?;
        let before = (bench.rig.counters(&ours.link)?, Metrics::fetch(ours.http)?);
        let mut frames = Self::default();
        for round in 0..ROUNDS {
            eprintln!("counting frames: round {} of {ROUNDS}", round + 1);
            let volley = bench.gun.fire(&bench.rig, &ours.link, RATE, DURATION)?;
            bench.ensure_wanted()?;
            frames.sent += volley.sent;
            frames.replies += volley.received;
        }
        let after = (bench.rig.counters(&ours.link)?, Metrics::fetch(ours.http)?);
        ours.process.pause()?;
        let [at_server, at_generator] = [0, 1].map(|end| after.0[end].since(before.0[end]));
        let grown = |name| anyhow::Ok(after.1.sum(name)? - before.1.sum(name)?);
        let refused =
            |metrics: &Metrics| metrics.sum_with(metrics::QUERIES_DROPPED, metrics::SEND_REFUSED);
        let refused = refused(&after.1)? - refused(&before.1)?;
        Ok(Self {
            at_server,
            at_generator,
            redirected: grown(metrics::REDIRECTED)?,
            passed: grown(metrics::PASSED)? + grown(metrics::UNSERVED)?,
            received: grown(metrics::RECEIVED)?,
            dropped: grown(metrics::DROPPED)?,
            unanswered: grown(metrics::QUERIES_DROPPED)? - refused,
            refused,
            answered: grown(metrics::ANSWERED)?,
            ..frames
        })
    }

    /// The way of a query and its answer.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let Self { at_generator, at_server, .. } = *self;
        let step =
            |entered, became: &[(&'static str, u64)]| Step { entered, became: became.to_vec() };
        vec![
            step(
                ("queries sent by kxdpgun", self.sent),
                &[
                    ("given to the server's interface", at_generator.sent),
                    ("dropped: its ring was full", at_generator.sent_dropped),
                ],
            ),
            step(
                ("given to the server's interface", at_generator.sent),
                &[("received there", at_server.received)],
            ),
            step(
                ("received there", at_server.received),
                &[
                    ("redirected by the filter", self.redirected),
                    ("left to the kernel", self.passed),
                ],
            ),
            step(
                ("redirected by the filter", self.redirected),
                &[
                    ("received by the AF_XDP socket", self.received),
                    ("dropped: its ring was full, or no frame was free", self.dropped),
                ],
            ),
            step(
                ("received by the AF_XDP socket", self.received),
                &[
                    ("answered", self.answered),
                    ("answered, and the kernel refused it", self.refused),
                    ("dropped by the server", self.unanswered),
                ],
            ),
            step(
                ("answered, and refused or not", self.answered + self.refused),
                &[
                    ("given to the generator's interface", at_server.sent),
                    ("dropped: its ring was full", at_server.sent_dropped),
                ],
            ),
            step(
                ("given to the generator's interface", at_server.sent),
                &[("received there", at_generator.received)],
            ),
            step(
                ("received there", at_generator.received),
                &[
                    ("counted by kxdpgun", self.replies),
                    ("dropped: kxdpgun's ring was full", at_generator.received_dropped),
                ],
            ),
        ]
    }

    /// Queries on their way to the server that nobody can account for.
    #[must_use]
    pub fn unexplained_queries(&self) -> u64 {
        self.steps()[..4].iter().map(|step| step.unexplained().unsigned_abs()).sum()
    }

    /// The same for the whole way, there and back.
    #[must_use]
    pub fn unexplained(&self) -> u64 {
        self.steps().iter().map(|step| step.unexplained().unsigned_abs()).sum()
    }

    /// Queries that were dropped and counted on their way to the server.
    #[must_use]
    pub fn counted_drops(&self) -> u64 {
        self.at_generator.sent_dropped + self.dropped
    }
}

impl Step {
    /// What went in and did not come out; below 0 if more came out.
    #[must_use]
    pub fn unexplained(&self) -> i64 {
        let out: u64 = self.became.iter().map(|(_, count)| count).sum();
        self.entered.1.cast_signed() - out.cast_signed()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn frames() -> Frames {
        Frames {
            sent: 1000,
            at_generator: Interface {
                sent: 990,
                sent_dropped: 10,
                received: 950,
                received_dropped: 5,
                redirected: 945,
            },
            at_server: Interface {
                received: 990,
                received_dropped: 20,
                sent: 950,
                sent_dropped: 10,
                redirected: 968,
            },
            redirected: 988,
            passed: 2,
            received: 968,
            dropped: 20,
            unanswered: 8,
            answered: 950,
            refused: 10,
            replies: 945,
        }
    }

    #[test]
    fn what_goes_in_comes_out_or_is_told() {
        assert_eq!((frames().unexplained(), frames().counted_drops()), (0, 30));
        let lost = Frames { received: 960, answered: 942, ..frames() };
        // 8 too few at the socket, and so 8 more answers left than there were.
        let differences: Vec<i64> = lost.steps().iter().map(Step::unexplained).collect();
        assert_eq!(differences, [0, 0, 0, 8, 0, -8, 0, 0]);
        assert_eq!((lost.unexplained_queries(), lost.unexplained()), (8, 16));
    }
}
