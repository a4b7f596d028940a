//! io_uring beside recvmmsg, in one run: bare echoes, and our server on each backend.
//!
//! The yardstick is the echo over recvmmsg. What the server pays for a backend is judged by what the
//! echoes pay: io-uring over epoll, divided by the echo on our ring over the echo on recvmmsg, pair by
//! pair.
//! The tails are compared at one rate for both, 70 % of what the server does on epoll; there epoll is
//! measured twice, to show how far it differs from itself.

use std::iter;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use swiftlet_net::limits;

use crate::ablation::PORTS;
use crate::ablation::outcome::LeftOut;
use crate::compare::prepare;
use crate::echo::Over;
use crate::interval::Interval;
use crate::latency::{self, Latency, RATE_SHARE};
use crate::outcome::Measured;
use crate::peers::Setup;
use crate::process::Process;
use crate::report::Conditions;
use crate::rounds::{Course, Entrant, PAIRS_MIN, Pair, Rounds, Sample, Summary, authority};
use crate::workload::Workload;

/// How much more the server may pay for io_uring than a bare echo does.
pub const COST_BAR: f64 = 1.03;

/// How much longer its slowest answers in a thousand may take.
pub const TAIL_BAR: f64 = 1.1;

/// What every server is asked.
const WORKLOAD: Workload = Workload::Hit;

/// One who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// A bare echo.
    Echo(Over),
    /// The yardstick once more.
    Twin,
    /// Our server on the backend of this name.
    Server(&'static str),
}

/// The yardstick.
const YARDSTICK: Contender = Contender::Echo(Over::Recvmmsg);
/// The least that our io_uring backend can cost.
const RING_ECHO: Contender = Contender::Echo(Over::IoUring);
/// Our server on each backend.
const EPOLL: Contender = Contender::Server("epoll");
const IO_URING: Contender = Contender::Server("io-uring");

/// All but the yardstick, in the order of the table.
const OTHERS: [Contender; 5] =
    [Contender::Twin, RING_ECHO, Contender::Echo(Over::TokioUring), EPOLL, IO_URING];

impl Contender {
    /// What the table calls it.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Echo(Over::Recvmmsg) => "echo, recvmmsg".to_owned(),
            Self::Twin => "echo, recvmmsg again (A/A)".to_owned(),
            Self::Echo(Over::IoUring) => "echo, our io_uring".to_owned(),
            Self::Echo(Over::TokioUring) => "echo, tokio-uring".to_owned(),
            Self::Echo(Over::AfXdp) => "echo, AF_XDP".to_owned(),
            Self::Server(backend) => format!("**swiftlet**, {backend}"),
        }
    }

    fn start(self, bench: &Path, server: &Path, setup: &Setup<'_>) -> anyhow::Result<Process> {
        let name = self.name();
        match self {
            Self::Echo(over) => Process::echo_over(over, &name, bench, setup.core, 0),
            Self::Twin => Process::echo(&name, bench, setup.core, 0),
            Self::Server(backend) => {
                Process::variant(&name, server, setup, &[("SWIFTLET_BACKEND", backend)])
            }
        }
    }
}

/// How the backends are measured.
#[derive(Debug)]
pub struct Settings<'s> {
    /// This program, which is each echo.
    pub bench: PathBuf,
    /// The server's program, with all backends compiled in.
    pub server: PathBuf,
    /// Pairs of rounds; fewer than [`PAIRS_MIN`] are measured but support no claim.
    pub pairs: usize,
    /// Length of a round.
    pub round: Duration,
    /// Length of a round of the open loop.
    pub latency_round: Duration,
    /// The core of the servers.
    pub server_core: usize,
    /// The core of the generator.
    pub generator_core: usize,
    /// Set to end it all early, with an error.
    pub stop: &'s AtomicBool,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Whether there were enough pairs to support a claim.
    pub is_claim: bool,
    /// Pairs of rounds.
    pub pairs: usize,
    /// Length of a round, in s.
    pub round_s: f64,
    /// Length of a round of the open loop, in s.
    pub latency_round_s: f64,
    /// The circumstances.
    pub conditions: Conditions,
    /// What came of each number of ports.
    pub scenes: Vec<Scene>,
}

/// One number of client ports.
#[derive(Clone, Debug, Serialize)]
pub struct Scene {
    /// Ports that were asked from.
    pub ports: usize,
    /// Queries outstanding.
    pub window: usize,
    /// Who was measured, the yardstick first.
    pub rows: Vec<Row>,
    /// Rounds of the server on epoll, on epoll again and on io-uring, all at one rate.
    pub tails: Vec<[Latency; 3]>,
    /// Those that were not measured.
    pub left_out: Vec<LeftOut>,
}

/// What came of one who took part.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What it is called.
    pub name: String,
    /// What it is.
    #[serde(skip)]
    pub contender: Contender,
    /// Its rounds.
    #[serde(flatten)]
    pub measured: Measured,
}

impl Scene {
    fn pairs(&self, contender: Contender) -> Option<&[Pair]> {
        let row = self.rows.iter().find(|row| row.contender == contender)?;
        Some(&row.measured.pairs)
    }

    /// What the server pays for io-uring in place of epoll, divided by what a bare echo pays: of each
    /// pair, three ratios to the yardstick.
    #[must_use]
    pub fn overhead(&self) -> Option<Interval> {
        let [io_uring, epoll, ring_echo] = [IO_URING, EPOLL, RING_ECHO].map(|one| self.pairs(one));
        let pairs = io_uring?.iter().zip(epoll?).zip(ring_echo?);
        let overhead = |((io_uring, epoll), ring_echo): ((&Pair, &Pair), &Pair)| {
            io_uring.ratio() / epoll.ratio() / ring_echo.ratio()
        };
        Interval::of(&pairs.map(overhead).collect::<Vec<f64>>())
    }

    /// p99.9 on io-uring divided by that on epoll, at one rate.
    #[must_use]
    pub fn tail(&self) -> Option<Interval> {
        self.tail_of(|[epoll, _, io_uring]| io_uring.p999_us / epoll.p999_us)
    }

    /// The same of epoll and epoll again.
    #[must_use]
    pub fn tail_twin(&self) -> Option<Interval> {
        self.tail_of(|[epoll, again, _]| again.p999_us / epoll.p999_us)
    }

    fn tail_of(&self, ratio: impl Fn(&[Latency; 3]) -> f64) -> Option<Interval> {
        Interval::of(&self.tails.iter().map(ratio).collect::<Vec<f64>>())
    }
}

impl Settings<'_> {
    /// Measures with each number of ports.
    ///
    /// # Errors
    /// If the yardstick or the generator fails, or if this was to be stopped.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        // The generator has as many sockets as there are ports.
        limits::raise_open_files().context("cannot raise the limit on open files")?;
        let mut conditions = Conditions::read(self.server_core, self.generator_core);
        let authority = authority(self.generator_core)?;
        let shaping = WORKLOAD.shaping(0);
        let course = Course {
            generator_core: self.generator_core,
            duration: self.round,
            pairs: self.pairs,
            stop: self.stop,
        };
        let mut rounds = Rounds::of(WORKLOAD, 0, course, &authority)?;
        let echo = self.start(YARDSTICK, &mut rounds)?;
        let (mut others, mut left_out) = (Vec::new(), Vec::new());
        for contender in OTHERS {
            let started = self.start(contender, &mut rounds);
            rounds.ensure_wanted()?;
            match started {
                Ok(process) => others.push((contender, process)),
                Err(error) => {
                    eprintln!("{} is left out: {error:#}", contender.name());
                    left_out.push(LeftOut::new(&contender.name(), &format!("{error:#}")));
                }
            }
        }
        let mut scenes = Vec::new();
        for ports in PORTS {
            (rounds.sockets, rounds.window) = (ports, shaping.window.max(ports));
            let mut scene = self.measure(&mut rounds, &echo, &others)?;
            // Who failed now takes part no more.
            others.retain(|&(contender, _)| scene.pairs(contender).is_some());
            left_out.append(&mut scene.left_out);
            scene.left_out.clone_from(&left_out);
            scenes.push(scene);
        }
        conditions.finish();
        Ok(Outcome {
            is_claim: self.pairs >= PAIRS_MIN,
            pairs: self.pairs,
            round_s: self.round.as_secs_f64(),
            latency_round_s: self.latency_round.as_secs_f64(),
            conditions,
            scenes,
        })
    }

    /// Starts and warms one, and leaves it paused.
    fn start(&self, contender: Contender, rounds: &mut Rounds<'_>) -> anyhow::Result<Process> {
        let setup = Setup {
            core: self.server_core,
            upstream: rounds.authority.address(),
            cache_names: WORKLOAD.shaping(0).cache_names,
            names: &[],
        };
        let mut process = contender.start(&self.bench, &self.server, &setup)?;
        process.wait_until_it_answers(rounds.queries.get(0))?;
        match contender {
            Contender::Server(_) => prepare(WORKLOAD, rounds, &process)?,
            Contender::Echo(_) | Contender::Twin => rounds.settle(&process)?,
        }
        Ok(process)
    }

    /// Measures these with the load as it is set.
    fn measure(
        &self,
        rounds: &mut Rounds<'_>,
        echo: &Process,
        others: &[(Contender, Process)],
    ) -> anyhow::Result<Scene> {
        rounds.accustom(iter::once(echo).chain(others.iter().map(|(_, process)| process)))?;
        let mut entrants: Vec<Entrant<'_>> =
            others.iter().map(|(_, process)| Entrant::new(process)).collect();
        let (pairs, ports) = (rounds.pairs, rounds.sockets);
        rounds.compare(echo, &mut entrants, |done| {
            eprintln!("{ports} ports: pair {done} of {pairs}");
        })?;

        let (mut alive, mut left_out) = (Vec::new(), Vec::new());
        let echo_rounds = entrants.iter().flat_map(|one| one.pairs.iter().map(|pair| pair.a));
        alive.push(Alive {
            contender: YARDSTICK,
            process: echo,
            rounds: echo_rounds.collect(),
            pairs: Vec::new(),
        });
        for (entrant, &(contender, _)) in entrants.into_iter().zip(others) {
            let Entrant { process, pairs, failure } = entrant;
            match failure {
                Some(reason) => left_out.push(LeftOut::new(&process.name, &reason)),
                None => {
                    let rounds = pairs.iter().map(|pair| pair.b).collect();
                    alive.push(Alive { contender, process, rounds, pairs });
                }
            }
        }
        let tails = self.tails(rounds, &alive)?;
        Ok(Scene { ports, window: rounds.window, rows: self.rows(rounds, alive)?, tails, left_out })
    }

    /// Their figures, with the latency of each at its share of its own maximum, measured now.
    fn rows(&self, rounds: &mut Rounds<'_>, alive: Vec<Alive<'_>>) -> anyhow::Result<Vec<Row>> {
        let servers: Vec<(&Process, f64)> =
            alive.iter().map(|one| (one.process, one.summary().rate)).collect();
        let latencies = latency::measure(rounds, &servers, self.latency_round)?;
        let row = |(one, latency): (Alive<'_>, Result<Latency, String>)| {
            let costs: Vec<f64> = one.rounds.iter().map(Sample::per_answer_ns).collect();
            Row {
                name: one.contender.name(),
                contender: one.contender,
                measured: Measured::new(one.summary(), &costs, one.pairs, latency),
            }
        };
        Ok(alive.into_iter().zip(latencies).map(row).collect())
    }

    /// The server on both backends at a share of what it does on epoll; none if one is missing.
    fn tails(
        &self,
        rounds: &mut Rounds<'_>,
        alive: &[Alive<'_>],
    ) -> anyhow::Result<Vec<[Latency; 3]>> {
        let of = |contender| alive.iter().find(|one| one.contender == contender);
        let (Some(epoll), Some(io_uring)) = (of(EPOLL), of(IO_URING)) else {
            return Ok(Vec::new());
        };
        let rate = RATE_SHARE * epoll.summary().rate;
        eprintln!("{} ports: latency at {rate:.0}/s", rounds.sockets);
        latency::side_by_side(rounds, [epoll.process, io_uring.process], rate, self.latency_round)
    }
}

/// One that did not fail.
struct Alive<'p> {
    contender: Contender,
    process: &'p Process,
    rounds: Vec<Sample>,
    /// None for the yardstick.
    pairs: Vec<Pair>,
}

impl Alive<'_> {
    fn summary(&self) -> Summary {
        Summary::of(self.rounds.iter().copied())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use swiftlet_loadtest::Verdict;

    fn sample(cost: f64) -> Sample {
        Sample {
            cpu_ns: (cost * 1e8) as u64,
            answered: 100_000,
            lost: 0,
            failed: 0,
            upstream: 0,
            rate: 1e6 / cost,
            server_busy: 0.99,
            generator_busy: 0.5,
        }
    }

    fn latency(p999_us: f64) -> Latency {
        Latency {
            rate: 1e5,
            answered: 1000,
            lost: 0,
            p50_us: 20.0,
            p99_us: 50.0,
            p999_us,
            verdict: Verdict::Server,
        }
    }

    /// 15 pairs on a machine that gets slower all the time, with these costs in µs.
    pub(crate) fn scene(ring_echo: f64, epoll: f64, io_uring: f64) -> Scene {
        let costs = [(RING_ECHO, ring_echo), (EPOLL, epoll), (IO_URING, io_uring)];
        let row = |(contender, cost): (Contender, f64)| {
            let pair = |index: i32| {
                let slow = 1.0 + f64::from(index) / 10.0;
                Pair { a: sample(slow), b: sample(cost * slow) }
            };
            let pairs: Vec<Pair> = (0..15).map(pair).collect();
            let summary = Summary::of(pairs.iter().map(|pair| pair.b));
            let measured = Measured::new(summary, &[cost * 1000.0], pairs, Ok(latency(100.0)));
            Row { name: contender.name(), contender, measured }
        };
        Scene {
            ports: 8,
            window: 512,
            rows: costs.map(row).into(),
            tails: vec![[latency(100.0), latency(110.0), latency(150.0)]; 15],
            left_out: Vec::new(),
        }
    }

    #[test]
    fn what_the_server_pays_is_judged_by_what_the_echo_pays() {
        let overhead = scene(1.1, 1.2, 1.452).overhead().expect("all are there");
        assert!((overhead.median - 1.1).abs() < 1e-6, "{overhead:?}");
        assert!((overhead.high - overhead.low).abs() < 1e-6, "a drift cancels out: {overhead:?}");
        let mut without = scene(1.1, 1.2, 1.3);
        without.rows.remove(0);
        assert_eq!(without.overhead(), None);
    }

    #[test]
    fn tails_are_compared_at_one_rate() {
        let mut scene = scene(1.0, 1.0, 1.0);
        assert_eq!(scene.tail().expect("rounds").median, 1.5);
        assert_eq!(scene.tail_twin().expect("rounds").median, 1.1);
        scene.tails.clear();
        assert_eq!(scene.tail(), None);
    }

    #[test]
    fn names_are_unique_and_their_settings_the_servers() {
        let mut names: Vec<String> = OTHERS.iter().map(|one| one.name()).collect();
        names.push(YARDSTICK.name());
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 6);
    }
}
