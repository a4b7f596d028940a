//! The ablation: what each optimization is worth, as the CPU per answer of a server with one switch
//! turned, divided by that of the default.
//!
//! The pairs are those of [`crate::rounds`], with the default server in the echo's place and a second
//! default for the A/A ratios. All servers of a workload are started and warmed once, then measured
//! with few client ports and with many. One that cannot be built, doesn't start or fails later is
//! reported with the reason, and the others go on.

pub mod build;
pub mod outcome;
pub mod switches;

use std::iter;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use swiftlet_net::limits;

use crate::compare::prepare;
use crate::peers::Setup;
use crate::process::Process;
use crate::report::Conditions;
use crate::rounds::{Course, Entrant, PAIRS_MIN, Rounds, Summary, authority};
use crate::workload::Workload;
use outcome::{Cell, LeftOut, Outcome, Scene};
use switches::Switch;

/// The workloads that switches are measured with.
pub const WORKLOADS: [Workload; 3] = [Workload::Hit, Workload::Zipf, Workload::Miss];

/// Ports that the clients ask from: one generator with few sockets, and many small clients.
pub const PORTS: [usize; 2] = [8, 1000];

/// What the default server and its twin are called.
const DEFAULT: &str = "default";
const TWIN: &str = "default again";

/// How an ablation is made.
#[derive(Debug)]
pub struct Settings<'s> {
    /// The default server's program.
    pub default: PathBuf,
    /// The switches to turn.
    pub variants: Vec<Variant>,
    /// What is asked.
    pub workloads: Vec<Workload>,
    /// Pairs of rounds; fewer than [`PAIRS_MIN`] are measured but support no claim.
    pub pairs: usize,
    /// Length of a round.
    pub round: Duration,
    /// The core of the servers.
    pub server_core: usize,
    /// The core of the generator, and of the authority.
    pub generator_core: usize,
    /// Set to end it all early, with an error.
    pub stop: &'s AtomicBool,
}

/// The server with one switch turned.
#[derive(Clone, Debug)]
pub struct Variant {
    /// What is other than in the default.
    pub switch: &'static Switch,
    /// Its program, or why it could not be built.
    pub program: Result<PathBuf, String>,
}

impl Settings<'_> {
    /// Measures all workloads.
    ///
    /// # Errors
    /// If the default server or the generator fails, or if this was to be stopped.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        // The generator has as many sockets as there are ports.
        limits::raise_open_files().context("cannot raise the limit on open files")?;
        let mut conditions = Conditions::read(self.server_core, self.generator_core);
        let all = self.workloads.len() * PORTS.len() * self.pairs;
        let mut clock = RunClock { start: Instant::now(), done: 0, all };
        let mut scenes = Vec::new();
        for &workload in &self.workloads {
            scenes.extend(self.measure(workload, &mut clock)?);
        }
        conditions.finish();
        Ok(Outcome {
            is_claim: self.pairs >= PAIRS_MIN,
            pairs: self.pairs,
            round_s: self.round.as_secs_f64(),
            conditions,
            switches: self.variants.iter().map(|variant| variant.switch).collect(),
            scenes,
        })
    }

    /// One workload with each number of ports.
    fn measure(&self, workload: Workload, clock: &mut RunClock) -> anyhow::Result<Vec<Scene>> {
        let authority = authority(self.generator_core)?;
        let shaping = workload.shaping(0);
        let course = Course {
            generator_core: self.generator_core,
            duration: self.round,
            pairs: self.pairs,
            stop: self.stop,
        };
        let mut rounds = Rounds::of(workload, 0, course, &authority)?;
        let default = self.start(DEFAULT, &self.default, &[], workload, &mut rounds)?;
        let twin = self.start(TWIN, &self.default, &[], workload, &mut rounds)?;
        let (mut others, mut left_out) = (Vec::new(), Vec::new());
        for Variant { switch, program } in &self.variants {
            let process = program.as_ref().map_err(|reason| anyhow!("{reason}"));
            let process = process.and_then(|program| {
                self.start(switch.name, program, switch.settings, workload, &mut rounds)
            });
            rounds.ensure_wanted()?;
            match process {
                Ok(process) => others.push(process),
                Err(error) => left_out.push(LeftOut::new(switch.name, &format!("{error:#}"))),
            }
        }

        let mut scenes = Vec::new();
        for ports in PORTS {
            (rounds.sockets, rounds.window) = (ports, shaping.window.max(ports));
            let mut scene = measure(workload, &mut rounds, &default, &twin, &others, clock)?;
            // Who failed now takes part no more.
            others.retain(|process| scene.cell(&process.name).is_some());
            left_out.append(&mut scene.left_out);
            scene.left_out.clone_from(&left_out);
            scenes.push(scene);
        }
        Ok(scenes)
    }

    /// Starts and warms one, and leaves it paused.
    fn start(
        &self,
        name: &str,
        program: &Path,
        settings: &[(&str, &str)],
        workload: Workload,
        rounds: &mut Rounds<'_>,
    ) -> anyhow::Result<Process> {
        eprintln!("{}: starting {name}", workload.name());
        let setup = Setup {
            core: self.server_core,
            upstream: rounds.authority.address(),
            cache_names: workload.shaping(0).cache_names,
            names: &[],
        };
        let mut process = Process::variant(name, program, &setup, settings)?;
        process.wait_until_it_answers(rounds.queries.get(0))?;
        prepare(workload, rounds, &process)?;
        Ok(process)
    }
}

/// Measures these servers with the load as it is set.
fn measure(
    workload: Workload,
    rounds: &mut Rounds<'_>,
    default: &Process,
    twin: &Process,
    others: &[Process],
    clock: &mut RunClock,
) -> anyhow::Result<Scene> {
    rounds.accustom([default, twin].into_iter().chain(others))?;
    let mut entrants: Vec<Entrant<'_>> = iter::once(twin).chain(others).map(Entrant::new).collect();
    let (pairs, ports) = (rounds.pairs, rounds.sockets);
    rounds.compare(default, &mut entrants, |done| {
        let left = clock.tick();
        eprintln!("{}, {ports} ports: pair {done} of {pairs}, about {left} left", workload.name());
    })?;

    let mut scene = Scene {
        workload,
        ports,
        window: rounds.window,
        default: Summary::of(entrants.iter().flat_map(|one| one.pairs.iter().map(|pair| pair.a))),
        twin: Cell::of(TWIN, Vec::new()),
        cells: Vec::new(),
        left_out: Vec::new(),
    };
    for entrant in entrants {
        let name = &entrant.process.name;
        match entrant.failure {
            Some(reason) if name == TWIN => anyhow::bail!("{name}: {reason}"),
            Some(reason) => scene.left_out.push(LeftOut::new(name, &reason)),
            None if name == TWIN => scene.twin = Cell::of(name, entrant.pairs),
            None => scene.cells.push(Cell::of(name, entrant.pairs)),
        }
    }
    Ok(scene)
}

/// How long the rest takes, if it goes on as it did; starting and warming is taken for part of it.
struct RunClock {
    start: Instant,
    done: usize,
    all: usize,
}

impl RunClock {
    /// One more pair of all is done: the time left, for people.
    fn tick(&mut self) -> humantime::FormattedDuration {
        self.done += 1;
        let left = self.start.elapsed() / self.done as u32 * (self.all - self.done) as u32;
        humantime::format_duration(Duration::from_secs(left.as_secs()))
    }
}
