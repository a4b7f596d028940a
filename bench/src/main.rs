//! This server and the bare echo side by side: server CPU per answer, as a ratio.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand, value_parser};
use swiftlet_bench::hit::{PAIRS_MIN, Rounds, synthetic_names};
use swiftlet_bench::process::Process;
use swiftlet_bench::report::{Conditions, Outcome};
use swiftlet_bench::{echo, generator};
use swiftlet_loadtest::{Authority, Queries};

/// Measures what an answer costs the server, against the least that it could cost.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure cache hits: CPU of one worker per answer, as a ratio to the bare echo.
    Hit(HitArgs),
    /// Measure the load generator: its cost beside dnsperf's, its authority beside the bare echo.
    Generator(generator::Args),
    /// Be the bare echo: send every datagram back as it came.
    Echo {
        /// Address and port to listen on.
        #[arg(long)]
        listen: SocketAddr,
        /// Core to pin to.
        #[arg(long)]
        core: Option<usize>,
        /// Bytes to add to each reply.
        #[arg(long, default_value_t = 0)]
        pad: usize,
    },
}

#[derive(clap::Args)]
struct HitArgs {
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
    /// Core for the server and the echo.
    #[arg(long, default_value_t = 1)]
    server_core: usize,
    /// Core for the generator.
    #[arg(long, default_value_t = 0)]
    generator_core: usize,
    /// Bytes by which the echo's reply is longer than the query.
    #[arg(long, default_value_t = 0)]
    pad: usize,
    /// File to write the result to, as JSON with every round.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn range(low: i64, high: i64) -> clap::builder::RangedI64ValueParser<u32> {
    value_parser!(u32).range(low..=high)
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Hit(args) => hit(&args),
        Command::Generator(args) => generator::run(&args),
        Command::Echo { listen, core, pad } => {
            echo::serve(listen, core, pad).map(|never| match never {})
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("swiftlet-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn hit(args: &HitArgs) -> anyhow::Result<()> {
    let bench = std::env::current_exe().context("cannot find this program")?;
    let server = args.server.clone().unwrap_or_else(|| bench.with_file_name("swiftlet"));
    anyhow::ensure!(
        server.is_file(),
        "there is no server at {}: build it with `cargo build --release -p swiftlet`, or name it \
         with --server",
        server.display(),
    );
    let queries = match &args.names {
        Some(file) => Queries::from_file(file)?,
        None => synthetic_names(args.count as usize)?,
    };
    let rounds = Rounds {
        queries,
        sockets: args.sockets,
        window: args.window,
        generator_core: args.generator_core,
        duration: Duration::from_millis(args.round_ms.into()),
        pairs: args.pairs as usize,
    };
    let mut conditions = Conditions::read(args.server_core, args.pad);

    let core = args.server_core;
    let authority =
        Authority::start(([127, 0, 0, 1], 0).into()).context("cannot start the authority")?;
    let mut echo = Process::echo("echo", &bench, core, args.pad)?;
    let mut twin = Process::echo("echo again", &bench, core, args.pad)?;
    let mut subject = Process::server("swiftlet", &server, core, authority.address())?;
    for process in [&mut echo, &mut twin, &mut subject] {
        process.wait_until_it_answers(rounds.queries.get(0))?;
    }
    rounds.warm(&subject, &authority)?;

    let asked = authority.answered();
    let comparison = rounds.compare(&echo, &subject, &twin, |done| {
        eprintln!("pair {done} of {}", rounds.pairs);
    })?;
    conditions.finish(authority.answered() - asked);
    let outcome = Outcome {
        subject: &subject.name,
        rounds: &rounds,
        conditions: &conditions,
        comparison: &comparison,
    };
    println!("{outcome}");
    if let Some(file) = &args.json {
        write(file, &(outcome.to_json() + "\n"))?;
    }
    outcome.check()
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
