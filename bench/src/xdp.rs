//! What AF_XDP saves: the server on it, beside a bare echo on it, Knot DNS on it, and servers over sockets.
//!
//! Each server gets a link of its own ([`rig`]), is warmed over it and then paused. kxdpgun asks ([`gun`]),
//! which is an open loop: what a server can do is searched for first, as the highest rate at which most
//! rounds lose less than [`LOSS_MAX`]. Then there are pairs of rounds, ours and the other's, in alternating
//! order (ABBA), in two scenes, for the cost of an answer falls as more of them come at once:
//!
//! - **each at its own maximum**: what a core gives that has nothing else to do;
//! - **both at one rate**, [`SHARE`] of what the slower of the two can do: what the same work takes.
//!
//! A server is charged what its threads and the NAPI thread of its interface use. A round in which a
//! server did not carry its answers as it should, or in which nothing was received by NAPI, is an error.
//!
//! At last [`frames`] are counted one by one.

mod contender;
pub mod counters;
pub mod frames;
pub mod gun;
mod metrics;
pub mod outcome;
pub mod rig;

use std::iter;
use std::mem;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use swiftlet_loadtest::Authority;

use crate::ablation::outcome::LeftOut;
use crate::peers::Setup;
use crate::report::Conditions;
use crate::rounds::{Course, PAIRS_MIN, Rounds, Sample, authority};
use crate::workload::Workload;

pub use self::contender::Contender;
use self::contender::Stage;
use self::frames::Frames;
use self::gun::Gun;
use self::outcome::{Outcome, Pair, Round, Row, Scene};
use self::rig::Rig;

/// More than this share of the queries may not be without an answer where a server is at its maximum.
pub const LOSS_MAX: f64 = 0.01;

/// The share of what the slower one can do at which two are compared at one rate.
pub const SHARE: f64 = 0.8;

/// What every server is asked.
const WORKLOAD: Workload = Workload::Hit;

/// The rates that are tried in the search for a maximum: the lowest, per second, and the step between two.
const RATE_MIN: f64 = 40_000.0;
const RATE_STEP: f64 = 1.06;
const RATES: u32 = 58;

/// Searches for a maximum.
const SEARCHES: usize = 3;

/// Rounds at a rate in that search, the best of which counts, for the machine takes cores away at times.
const TRIES: usize = 2;

/// Rounds at the rate that was found, most of which have to confirm it, or the next lower one is looked at.
pub const CONFIRMING: usize = 5;

/// Where more is lost although both sides had this share of their time left, it was the machine, and the
/// round is made again: so many times, for a server may lose queries for its own reasons.
const IDLE: f64 = 0.15;
const DISTURBED_MAX: usize = 4;

/// How AF_XDP is measured.
#[derive(Debug)]
pub struct Settings<'s> {
    /// This program, which is the echo.
    pub bench: PathBuf,
    /// The server's program, with AF_XDP compiled in.
    pub server: PathBuf,
    /// With whom it is compared.
    pub others: Vec<Contender>,
    /// Pairs of rounds; fewer than [`PAIRS_MIN`] are measured but support no claim.
    pub pairs: usize,
    /// Length of a round.
    pub round: Duration,
    /// The core of the servers, and of their interfaces' NAPI threads.
    pub server_core: usize,
    /// The core of the generator, of its interfaces' NAPI threads and of the authority.
    pub generator_core: usize,
    /// Set to end it all early, with an error.
    pub stop: &'s AtomicBool,
}

/// What all rounds share.
struct Bench<'s> {
    settings: &'s Settings<'s>,
    rig: Rig,
    gun: Gun,
    authority: &'s Authority,
}

impl Settings<'_> {
    /// Measures. The calling thread is in a network namespace of its own afterwards.
    ///
    /// # Errors
    /// Without root, if ours or the generator fails, or if this was to be stopped.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        let mut conditions = Conditions::read(self.server_core, self.generator_core);
        let rig = Rig::build(self.server_core, self.generator_core)?;
        let authority = authority(self.generator_core)?;
        let gun = Gun::new(&WORKLOAD.zone(), self.generator_core)?;
        let mut bench = Bench { settings: self, rig, gun, authority: &authority };
        let mut rounds = Rounds::of(WORKLOAD, 0, self.course(), &authority)?;

        let ours = bench.start(Contender::Ours, &mut rounds)?;
        let (mut others, mut left_out) = (Vec::new(), Vec::new());
        for &contender in &self.others {
            let stage = bench.start(contender, &mut rounds);
            rounds.ensure_wanted()?;
            match stage {
                Ok(stage) => others.push(stage),
                Err(error) => leave_out(&mut left_out, contender, &error),
            }
        }
        let mut rows = Vec::new();
        let stages: Vec<&Stage> = iter::once(&ours).chain(&others).collect();
        let mut maxima = bench.maxima(&stages)?.into_iter();
        let maximum = maxima.next().context("ours always takes part")?.context("ours failed")?;
        for (stage, other) in others.iter().zip(maxima) {
            match other {
                Ok(other) => rows.push((stage, Row::new(stage, [maximum, other]))),
                Err(error) => leave_out(&mut left_out, stage.contender, &error),
            }
        }
        let rows = bench.compare(&ours, rows, &mut left_out)?;
        let frames = Frames::count(&bench, &ours)?;
        conditions.finish();
        Ok(Outcome {
            is_claim: self.pairs >= PAIRS_MIN,
            pairs: self.pairs,
            round_s: self.round.as_secs_f64(),
            conditions,
            maximum,
            rows,
            frames,
            left_out,
        })
    }

    fn course(&self) -> Course<'_> {
        Course {
            generator_core: self.generator_core,
            duration: self.round,
            pairs: self.pairs,
            stop: self.stop,
        }
    }
}

impl Bench<'_> {
    /// Starts one on a link of its own, lets the generator's side warm it, and leaves it paused.
    fn start(&mut self, contender: Contender, rounds: &mut Rounds<'_>) -> anyhow::Result<Stage> {
        eprintln!("starting {}", contender.name());
        let zone = WORKLOAD.zone();
        let setup = Setup {
            core: self.settings.server_core,
            upstream: self.authority.address(),
            cache_names: WORKLOAD.shaping(0).cache_names,
            names: &zone,
        };
        let link = self.rig.link()?;
        let Settings { bench, server, .. } = self.settings;
        let mut stage = contender.start(link, bench, server, &setup)?;
        stage.process.wait_until_it_answers(rounds.queries.get(0))?;
        if contender != Contender::Echo {
            let process = &stage.process;
            self.rig.in_generator(|| rounds.warm(process))??;
        }
        stage.process.pause()?;
        self.round(&stage, RATE_MIN as u64, self.settings.round / 4)?;
        Ok(stage)
    }

    /// One round against this server, which is paused before and after.
    fn round(&self, stage: &Stage, rate: u64, duration: Duration) -> anyhow::Result<Round> {
        let Stage { link, process, contender, .. } = stage;
        process.resume()?;
        let before = self.rig.counters(link)?[0];
        let asked = self.authority.answered();
        let (process_ns, before_ns) = (process.cpu_ns()?, link.napi_ns()?);
        let volley = self.gun.fire(&self.rig, link, rate, duration)?;
        let process_ns = process.cpu_ns()?.saturating_sub(process_ns);
        let after_ns = link.napi_ns()?;
        let [napi_ns, generator_ns] =
            [0, 1].map(|end| after_ns[end].saturating_sub(before_ns[end]));
        let at_server = self.rig.counters(link)?[0].since(before);
        process.pause()?;
        self.ensure_wanted()?;
        let name = contender.name();
        anyhow::ensure!(volley.received > 0, "{name} answered none of {} queries", volley.sent);
        anyhow::ensure!(napi_ns > 0, "{name}: nothing was received by the interface's NAPI thread");
        let by_xdp = at_server.redirected;
        anyhow::ensure!(
            if contender.is_xdp() { by_xdp >= volley.received } else { by_xdp == 0 },
            "{name} got {by_xdp} queries over AF_XDP and gave {} answers",
            volley.received,
        );
        let (cpu_ns, elapsed_s) = (process_ns + napi_ns, duration.as_secs_f64());
        let sample = Sample {
            cpu_ns,
            answered: volley.received,
            lost: volley.sent.saturating_sub(volley.received),
            failed: volley.received.saturating_sub(volley.good),
            upstream: self.authority.answered() - asked,
            rate: volley.received as f64 / elapsed_s,
            server_busy: (cpu_ns as f64 / 1e9 / elapsed_s).min(1.0),
            generator_busy: ((volley.cpu.as_secs_f64() + generator_ns as f64 / 1e9) / elapsed_s)
                .min(1.0),
        };
        Ok(Round { sample, asked: rate, napi_ns })
    }

    /// The highest rate, per second, at which each server answers all but [`LOSS_MAX`] of what was due in
    /// most rounds, or why there is none. That may be the generator's maximum: then the server isn't busy.
    ///
    /// A rate that was not borne may have had bad luck, so each is looked at several times, with the others
    /// in between. One that was borne may have had good luck, and has to be confirmed.
    fn maxima(&self, stages: &[&Stage]) -> anyhow::Result<Vec<anyhow::Result<u64>>> {
        let mut borne: Vec<anyhow::Result<u32>> = stages.iter().map(|_| Ok(0)).collect();
        for _ in 0..SEARCHES {
            for (stage, borne) in stages.iter().zip(&mut borne) {
                let Ok(known) = *borne else { continue };
                *borne = self.climb(stage, known);
                self.ensure_wanted()?;
                if let Ok(index @ 1..) = *borne {
                    eprintln!("{}: {}/s or more", stage.contender.name(), rate_at(index - 1));
                }
            }
        }
        let confirmed = stages.iter().zip(borne).map(|(stage, borne)| self.confirm(stage, borne?));
        let rates = confirmed.collect();
        self.ensure_wanted()?;
        Ok(rates)
    }

    /// The highest of so many rates that is borne in most of [`CONFIRMING`] rounds.
    fn confirm(&self, stage: &Stage, borne: u32) -> anyhow::Result<u64> {
        for rate in (0..borne).rev().map(rate_at) {
            let mut confirmed = 0;
            for _ in 0..CONFIRMING {
                let Round { sample, .. } = self.round(stage, rate, self.settings.round)?;
                confirmed += usize::from(self.is_borne(sample, rate));
            }
            eprintln!("{}: {rate}/s in {confirmed} of {CONFIRMING} rounds", stage.contender.name());
            if 2 * confirmed > CONFIRMING {
                return Ok(rate);
            }
        }
        anyhow::bail!("it cannot bear {RATE_MIN} queries/s")
    }

    fn is_borne(&self, sample: Sample, rate: u64) -> bool {
        let due = rate as f64 * self.settings.round.as_secs_f64();
        sample.answered as f64 >= (1.0 - LOSS_MAX) * due
    }

    /// How many of the rates a server bears, of which `low` are known: by halves, unless it fails a little
    /// above them.
    fn climb(&self, stage: &Stage, mut low: u32) -> anyhow::Result<u32> {
        let mut high = RATES;
        let mut index = if low == 0 { RATES / 2 } else { (low + 1).min(RATES - 1) };
        let is_known = low > 0;
        while low < high {
            if self.holds(stage, rate_at(index))? {
                low = index + 1;
            } else if is_known && high == RATES && index <= low + 1 {
                break;
            } else {
                high = index;
            }
            index = low.midpoint(high);
        }
        Ok(low)
    }

    fn holds(&self, stage: &Stage, rate: u64) -> anyhow::Result<bool> {
        let mut failures = 0;
        for _ in 0..DISTURBED_MAX {
            let Round { sample, .. } = self.round(stage, rate, self.settings.round)?;
            if self.is_borne(sample, rate) {
                return Ok(true);
            }
            failures += usize::from(sample.server_busy.max(sample.generator_busy) > 1.0 - IDLE);
            if failures == TRIES {
                break;
            }
        }
        Ok(false)
    }

    /// Pairs of rounds with each of the others, in both scenes. One that fails is left out.
    fn compare(
        &self,
        ours: &Stage,
        mut rows: Vec<(&Stage, Row)>,
        left_out: &mut Vec<LeftOut>,
    ) -> anyhow::Result<Vec<Row>> {
        let (start, pairs) = (Instant::now(), self.settings.pairs);
        for index in 0..pairs {
            for (stage, mut row) in mem::take(&mut rows) {
                let measure = |scene: &mut Scene| self.pair(ours, stage, scene, index);
                let outcome = measure(&mut row.at_maximum);
                match outcome.and_then(|()| measure(&mut row.at_one_rate)) {
                    Ok(()) => rows.push((stage, row)),
                    Err(error) => {
                        self.ensure_wanted()?;
                        leave_out(left_out, stage.contender, &error);
                    }
                }
            }
            let left = start.elapsed() / (index as u32 + 1) * (pairs - index - 1) as u32;
            eprintln!("pair {} of {pairs}, about {} s left", index + 1, left.as_secs());
        }
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    /// One round of ours and one of the other; who is first alternates.
    fn pair(
        &self,
        ours: &Stage,
        other: &Stage,
        scene: &mut Scene,
        index: usize,
    ) -> anyhow::Result<()> {
        let [our_rate, other_rate] = scene.rates;
        let measure_ours = || {
            let round = self.round(ours, our_rate, self.settings.round);
            round.context("ours failed")
        };
        let measure_other = || self.round(other, other_rate, self.settings.round);
        let (ours, other) = if index % 2 == 1 {
            let other = measure_other()?;
            (measure_ours()?, other)
        } else {
            (measure_ours()?, measure_other()?)
        };
        scene.pairs.push(Pair { ours, other });
        Ok(())
    }

    fn ensure_wanted(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.settings.stop.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }
}

/// The rates that are tried, in queries per second.
fn rate_at(index: u32) -> u64 {
    (RATE_MIN * RATE_STEP.powi(index.cast_signed())) as u64
}

fn leave_out(left_out: &mut Vec<LeftOut>, contender: Contender, error: &anyhow::Error) {
    eprintln!("{} is left out: {error:#}", contender.name());
    left_out.push(LeftOut::new(&contender.name(), &format!("{error:#}")));
}
