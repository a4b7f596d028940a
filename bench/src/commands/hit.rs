//! `hit`: one server against the echo.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use swiftlet_bench::hit::Comparison;
use swiftlet_bench::peers::Setup;
use swiftlet_bench::process::Process;
use swiftlet_bench::report::Conditions;
use swiftlet_bench::report::hit::Outcome;
use swiftlet_bench::rounds::{PAIRS_MIN, Rounds, queries_for, synthetic_names};
use swiftlet_loadtest::{Authority, Queries, Transport};

use super::{Cores, range, server, stop_flag, this_program, write};

/// Names that the cache has room for, or as many as are asked if they are more.
const CACHE_NAMES: usize = 100_000;

/// Arguments of `hit`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server's program; `swiftlet` beside this one if left out.
    #[arg(long)]
    server: Option<PathBuf>,
    /// File with one name a line to ask for (and a type, unless it is A).
    #[arg(long)]
    names: Option<PathBuf>,
    /// How many synthetic names to ask for, if there is no such file.
    #[arg(long, default_value_t = 10_000, value_parser = range(1, 1_000_000))]
    count: u32,
    /// Pairs of rounds; a ratio needs at least 15.
    #[arg(long, default_value_t = PAIRS_MIN as u32, value_parser = range(PAIRS_MIN as i64, 1000))]
    pairs: u32,
    /// Length of a round in ms.
    #[arg(long, default_value_t = 1000, value_parser = range(100, 60_000))]
    round_ms: u32,
    /// Sockets of the generator.
    #[arg(long, default_value_t = 8)]
    sockets: usize,
    /// Queries outstanding.
    #[arg(long, default_value_t = 512)]
    window: usize,
    #[command(flatten)]
    cores: Cores,
    /// Bytes by which the echo's reply is longer than the query.
    #[arg(long, default_value_t = 0)]
    pad: usize,
    /// File to write the result to, as JSON with every round.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Measures, and tells.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let bench = this_program()?;
    let program = server(args.server.as_deref(), &bench)?;
    let stop = stop_flag()?;
    let queries = match &args.names {
        Some(file) => Queries::from_file(file)?,
        None => queries_for(&synthetic_names(args.count as usize))?,
    };
    let authority =
        Authority::start(([127, 0, 0, 1], 0).into()).context("cannot start the authority")?;
    let mut rounds = Rounds {
        queries,
        transport: Transport::Udp,
        sockets: args.sockets,
        window: args.window,
        generator_core: args.cores.generator_core,
        duration: Duration::from_millis(args.round_ms.into()),
        pairs: args.pairs as usize,
        authority: &authority,
        stop: &stop,
        serial: 0,
    };
    let mut conditions = Conditions::read(args.cores.server_core, args.cores.generator_core);

    let core = args.cores.server_core;
    let setup = Setup {
        core,
        upstream: authority.address(),
        cache_names: rounds.queries.len().max(CACHE_NAMES),
        names: &[],
    };
    let mut echo = Process::echo("echo", &bench, core, args.pad)?;
    let mut twin = Process::echo("echo again", &bench, core, args.pad)?;
    let mut subject = Process::server("swiftlet", &program, &setup)?;
    for process in [&mut echo, &mut twin, &mut subject] {
        process.wait_until_it_answers(rounds.queries.get(0))?;
    }
    rounds.warm(&subject)?;

    let asked = authority.answered();
    let pairs = rounds.pairs;
    let comparison = Comparison::measure(&mut rounds, &echo, &subject, &twin, |done| {
        eprintln!("pair {done} of {pairs}");
    })?;
    conditions.finish();
    let outcome = Outcome {
        subject: &subject.name,
        rounds: &rounds,
        conditions: &conditions,
        pad: args.pad,
        upstream: authority.answered() - asked,
        comparison: &comparison,
    };
    println!("{outcome}");
    if let Some(file) = &args.json {
        write(file, &(outcome.to_json() + "\n"))?;
    }
    outcome.check()
}
