//! `backends`: bare echoes over recvmmsg and io_uring, and the server on each backend.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use swiftlet_bench::backends::Settings;
use swiftlet_bench::report::backends::Page;
use swiftlet_bench::rounds::PAIRS_MIN;

use super::{Cores, range, server, stop_flag, this_program, write};

/// Arguments of `backends`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server's program, built with io-uring; `swiftlet` beside this one if left out.
    #[arg(long)]
    server: Option<PathBuf>,
    /// Directory for the tables and all rounds; it is made if need be.
    #[arg(long)]
    results: Option<PathBuf>,
    /// Pairs of rounds; with fewer than 15 the result says that it supports no claim.
    #[arg(long, default_value_t = PAIRS_MIN as u32, value_parser = range(1, 1000))]
    pairs: u32,
    /// Length of a round in ms.
    #[arg(long, default_value_t = 500, value_parser = range(20, 60_000))]
    round_ms: u32,
    /// Length of a round of the open loop, for the latency, in ms.
    #[arg(long, default_value_t = 1000, value_parser = range(20, 60_000))]
    latency_ms: u32,
    #[command(flatten)]
    cores: Cores,
}

/// Measures, and tells.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let bench = this_program()?;
    let stop = stop_flag()?;
    let settings = Settings {
        server: server(args.server.as_deref(), &bench)?,
        bench,
        pairs: args.pairs as usize,
        round: Duration::from_millis(args.round_ms.into()),
        latency_round: Duration::from_millis(args.latency_ms.into()),
        server_core: args.cores.server_core,
        generator_core: args.cores.generator_core,
        stop: &stop,
    };
    let outcome = settings.run()?;
    let page = Page(&outcome);
    println!("{page}");
    let Some(directory) = &args.results else { return Ok(()) };
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    write(&directory.join("backends.md"), &page.to_string())?;
    let json = serde_json::to_string_pretty(&outcome).context("cannot write JSON")?;
    write(&directory.join("backends.json"), &(json + "\n"))
}
