//! `compare`: this server, its peers and the echo, workload by workload.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use swiftlet_bench::compare::Settings;
use swiftlet_bench::outcome::Outcome;
use swiftlet_bench::report::{chart, markdown::Page};
use swiftlet_bench::rounds::PAIRS_MIN;
use swiftlet_bench::subject::{Subject, find_peers};
use swiftlet_bench::workload::Workload;

use super::{Cores, range, server, stop_flag, this_program, write, xdp};

/// Arguments of `compare`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    over: Option<Over>,
    /// What to ask for; repeatable. All of them if left out.
    #[arg(long, value_enum)]
    workload: Vec<Workload>,
    /// Directory for a table, a chart and all rounds of each workload; it is made if need be.
    #[arg(long)]
    results: Option<PathBuf>,
    /// The server's program; `swiftlet` beside this one if left out.
    #[arg(long)]
    server: Option<PathBuf>,
    /// A peer to compare with; repeatable. All that are found if left out.
    #[arg(long)]
    peer: Vec<String>,
    /// Pairs of rounds; with fewer than 15 the result says that it supports no claim.
    #[arg(long, default_value_t = PAIRS_MIN as u32, value_parser = range(1, 1000))]
    pairs: u32,
    /// Length of a round in ms.
    #[arg(long, default_value_t = 500, value_parser = range(20, 60_000))]
    round_ms: u32,
    /// Length of a round of the open loop, for the latency, in ms.
    #[arg(long, default_value_t = 1000, value_parser = range(20, 60_000))]
    latency_ms: u32,
    /// Names to cache where memory is measured.
    #[arg(long, default_value_t = 1_000_000, value_parser = range(1000, 10_000_000))]
    memory_names: u32,
    #[command(flatten)]
    cores: Cores,
}

/// A comparison of its own.
#[derive(clap::Subcommand)]
enum Over {
    /// Measure cache hits over AF_XDP: the server, a bare echo, Knot DNS, and servers over sockets (root).
    Xdp(xdp::Args),
}

/// Measures, and tells after each workload.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(Over::Xdp(args)) = &args.over {
        return xdp::run(args);
    }
    let bench = this_program()?;
    let program = server(args.server.as_deref(), &bench)?;
    let (peers, absent) = find_peers(&args.peer)?;
    let stop = stop_flag()?;
    if let Some(directory) = &args.results {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let settings = Settings {
        bench,
        subjects: [Subject::ours(&program)].into_iter().chain(peers).collect(),
        absent,
        pairs: args.pairs as usize,
        round: Duration::from_millis(args.round_ms.into()),
        latency_round: Duration::from_millis(args.latency_ms.into()),
        server_core: args.cores.server_core,
        generator_core: args.cores.generator_core,
        memory_names: args.memory_names as usize,
        stop: &stop,
    };
    let workloads = if args.workload.is_empty() {
        vec![Workload::Hit, Workload::Zipf, Workload::Miss, Workload::Tcp, Workload::Memory]
    } else {
        args.workload.clone()
    };
    for workload in workloads {
        let outcome = settings.run(workload)?;
        println!("{}", Page(&outcome));
        if let Some(directory) = &args.results {
            save(&outcome, directory)?;
        }
    }
    Ok(())
}

/// The table, the chart, and every round.
fn save(outcome: &Outcome, directory: &Path) -> anyhow::Result<()> {
    let file = |extension| directory.join(outcome.workload.name()).with_extension(extension);
    write(&file("md"), &Page(outcome).to_string())?;
    write(&file("svg"), &chart::draw(outcome))?;
    let json = serde_json::to_string_pretty(outcome).context("cannot write JSON")?;
    write(&file("json"), &(json + "\n"))
}
