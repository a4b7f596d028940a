//! The comparison: this server, its peers and the bare echo, one workload at a time.
//!
//! All are started and warmed, then paused; in its rounds each has the machine to itself. One that
//! doesn't start, doesn't warm or fails later is reported with the reason, and the others go on.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context;
use swiftlet_loadtest::Limit;

use crate::latency;
use crate::memory::{self, Held};
use crate::outcome::{Finding, Measured, Outcome, Row};
use crate::peers::Setup;
use crate::process::Process;
use crate::report::Conditions;
use crate::rounds::{
    Course, Entrant, PAIRS_MIN, Pair, Rounds, Summary, authority, synthetic_names,
};
use crate::subject::Subject;
use crate::workload::Workload;

/// Queries that bring a cache into the steady state of Zipf's law.
const STEADY_QUERIES: u64 = 1_000_000;

/// How long that may take, in runs of a second.
const STEADY_RUNS_MAX: usize = 30;

/// How a comparison is made.
#[derive(Debug)]
pub struct Settings<'s> {
    /// This program, which is the echo.
    pub bench: PathBuf,
    /// Who takes part beside the echo and its twin.
    pub subjects: Vec<Subject>,
    /// The peers that are not there to take part.
    pub absent: Vec<&'static str>,
    /// Pairs of rounds; fewer than [`PAIRS_MIN`] are measured but support no claim.
    pub pairs: usize,
    /// Length of a round.
    pub round: Duration,
    /// Length of a round of the open loop.
    pub latency_round: Duration,
    /// The core of the servers.
    pub server_core: usize,
    /// The core of the generator, and of the authority.
    pub generator_core: usize,
    /// How many names are cached where memory is measured.
    pub memory_names: usize,
    /// Set to end it all early, with an error.
    pub stop: &'s AtomicBool,
}

impl Settings<'_> {
    /// Runs one workload over all who take part in it.
    ///
    /// # Errors
    /// If the echo or the generator fails, or if this was to be stopped.
    pub fn run(&self, workload: Workload) -> anyhow::Result<Outcome> {
        let conditions = Conditions::read(self.server_core, self.generator_core);
        let authority = authority(self.generator_core)?;
        let shaping = workload.shaping(self.memory_names);
        let course = Course {
            generator_core: self.generator_core,
            duration: self.round,
            pairs: self.pairs,
            stop: self.stop,
        };
        let mut rounds = Rounds::of(workload, self.memory_names, course, &authority)?;
        let rows = match workload {
            Workload::Memory => self.fill(&mut rounds)?,
            _ => self.compare(workload, &mut rounds)?,
        };
        let mut outcome = Outcome {
            workload,
            shaping,
            is_claim: workload == Workload::Memory || self.pairs >= PAIRS_MIN,
            pairs: self.pairs,
            round_s: self.round.as_secs_f64(),
            latency_round_s: self.latency_round.as_secs_f64(),
            conditions,
            absent: self.absent.clone(),
            rows,
        };
        outcome.conditions.finish();
        outcome.sort();
        Ok(outcome)
    }

    /// Rounds of all who take part, in pairs with the echo's.
    fn compare(&self, workload: Workload, rounds: &mut Rounds<'_>) -> anyhow::Result<Vec<Row>> {
        let subjects: Vec<Subject> = [Subject::echo(&self.bench), Subject::twin(&self.bench)]
            .into_iter()
            .chain(self.subjects.iter().cloned())
            .filter(|subject| subject.takes_part_in(workload))
            .collect();
        let zone = workload.zone();
        let mut processes = Vec::new();
        for subject in &subjects {
            say(workload, &format!("starting {}", subject.name));
            let process = self.ready(subject, workload, &zone, rounds);
            rounds.ensure_wanted()?;
            if let Err(error) = &process {
                say(workload, &format!("{} is left out: {error:#}", subject.name));
            }
            processes.push(process.map_err(|error| format!("{error:#}")));
        }
        let mut processes = processes.into_iter();
        let echo = processes.next().context("an echo always takes part")?;
        let echo = echo.map_err(|reason| anyhow::anyhow!("the echo: {reason}"))?;
        let others: Vec<Result<Process, String>> = processes.collect();
        let mut entrants: Vec<Entrant<'_>> = others.iter().flatten().map(Entrant::new).collect();

        let start = Instant::now();
        let (pairs, count) = (rounds.pairs, entrants.len() as u32 + 1);
        let open_loop = self.latency_round * latency::ROUNDS as u32 * count;
        rounds.compare(&echo, &mut entrants, |done| {
            let left = start.elapsed() / done as u32 * (pairs - done) as u32 + open_loop;
            let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
            say(workload, &format!("pair {done} of {pairs}, about {left} left"));
        })?;
        let findings = self.judge(rounds, &echo, entrants)?;

        let mut findings = findings.into_iter();
        let first = findings.next();
        let rest = others.iter().map(|other| match other {
            Ok(_) => findings.next().unwrap_or_else(|| Finding::Failed("not measured".to_owned())),
            Err(reason) => Finding::Failed(reason.clone()),
        });
        let all: Vec<Finding> = first.into_iter().chain(rest).collect();
        Ok(subjects.iter().zip(all).map(|(subject, finding)| row(subject, finding)).collect())
    }

    /// Starts and warms one, and leaves it paused.
    fn ready(
        &self,
        subject: &Subject,
        workload: Workload,
        zone: &[String],
        rounds: &mut Rounds<'_>,
    ) -> anyhow::Result<Process> {
        let cache_names = workload.shaping(self.memory_names).cache_names;
        let process = self.start(subject, cache_names, zone, rounds)?;
        if subject.kind.is_yardstick() {
            rounds.settle(&process)?;
        } else {
            prepare(workload, rounds, &process)?;
        }
        Ok(process)
    }

    fn start(
        &self,
        subject: &Subject,
        cache_names: usize,
        zone: &[String],
        rounds: &Rounds<'_>,
    ) -> anyhow::Result<Process> {
        let setup = Setup {
            core: self.server_core,
            upstream: rounds.authority.address(),
            cache_names,
            names: zone,
        };
        let mut process = subject.start(&setup)?;
        process.wait_until_it_answers(rounds.queries.get(0))?;
        Ok(process)
    }

    /// The figures of the echo and of each entrant, with the latency that is measured now.
    fn judge(
        &self,
        rounds: &mut Rounds<'_>,
        echo: &Process,
        entrants: Vec<Entrant<'_>>,
    ) -> anyhow::Result<Vec<Finding>> {
        let echo_rounds =
            entrants.iter().flat_map(|entrant| entrant.pairs.iter().map(|pair| pair.a));
        let echo_summary = Summary::of(echo_rounds.clone());
        let echo_ns: Vec<f64> = echo_rounds.map(|round| round.per_answer_ns()).collect();
        let summaries: Vec<Summary> = entrants
            .iter()
            .map(|entrant| Summary::of(entrant.pairs.iter().map(|pair| pair.b)))
            .collect();
        let alive = entrants.iter().zip(&summaries).filter(|(one, _)| one.failure.is_none());
        let mut servers = vec![(echo, echo_summary.rate)];
        servers.extend(alive.map(|(entrant, summary)| (entrant.process, summary.rate)));
        let mut latencies = latency::measure(rounds, &servers, self.latency_round)?.into_iter();

        let mut measured = |summary, costs: &[f64], pairs: Vec<Pair>| {
            let latency = latencies.next().unwrap_or_else(|| Err("not measured".to_owned()));
            Finding::Rounds(Box::new(Measured::new(summary, costs, pairs, latency)))
        };
        let mut findings = vec![measured(echo_summary, &echo_ns, Vec::new())];
        for (entrant, summary) in entrants.into_iter().zip(summaries) {
            findings.push(match entrant.failure {
                Some(reason) => {
                    Finding::Failed(format!("after {} pairs: {reason}", entrant.pairs.len()))
                }
                None => {
                    let costs: Vec<f64> =
                        entrant.pairs.iter().map(|pair| pair.b.per_answer_ns()).collect();
                    measured(summary, &costs, entrant.pairs)
                }
            });
        }
        Ok(findings)
    }

    /// The memory of all who cache, one after the other; none runs beside another.
    fn fill(&self, rounds: &mut Rounds<'_>) -> anyhow::Result<Vec<Row>> {
        let workload = Workload::Memory;
        let names = synthetic_names(self.memory_names);
        let mut rows = Vec::new();
        for subject in self.subjects.iter().filter(|one| one.takes_part_in(workload)) {
            say(workload, &format!("filling {}", subject.name));
            let held = self.fill_one(subject, rounds, &names);
            rounds.ensure_wanted()?;
            let finding = match held {
                Ok(held) => Finding::Memory(held),
                Err(error) => Finding::Failed(format!("{error:#}")),
            };
            rows.push(row(subject, finding));
        }
        Ok(rows)
    }

    fn fill_one(
        &self,
        subject: &Subject,
        rounds: &mut Rounds<'_>,
        names: &[String],
    ) -> anyhow::Result<Held> {
        let small = self.start(subject, memory::FEW, &[], rounds)?;
        let before = memory::empty(rounds, &small, names)?;
        drop(small);
        let process = self.start(subject, names.len(), &[], rounds)?;
        memory::fill(rounds, &process, names, before)
    }
}

/// Brings a server into the state that the workload is about, and leaves it paused.
pub(crate) fn prepare(
    workload: Workload,
    rounds: &mut Rounds<'_>,
    server: &Process,
) -> anyhow::Result<()> {
    match workload {
        Workload::Hit | Workload::Tcp => rounds.warm(server)?,
        Workload::Zipf => steady(rounds, server)?,
        Workload::Miss | Workload::Memory => {}
    }
    rounds.settle(server)
}

/// Brings a cache into the steady state, as far as time allows.
fn steady(rounds: &mut Rounds<'_>, server: &Process) -> anyhow::Result<()> {
    let mut answered = 0;
    for _ in 0..STEADY_RUNS_MAX {
        let second = Limit::For(Duration::from_secs(1));
        answered += rounds.load(server, second, rounds.window, None)?.answered;
        if answered >= STEADY_QUERIES {
            break;
        }
    }
    Ok(())
}

fn row(subject: &Subject, finding: Finding) -> Row {
    let Subject { name, kind, ref version, .. } = *subject;
    Row { name, kind, version: version.clone(), finding }
}

fn say(workload: Workload, what: &str) {
    eprintln!("{}: {what}", workload.name());
}
