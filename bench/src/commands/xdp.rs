//! `compare xdp`: the server on AF_XDP beside others, over a link that this program makes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use swiftlet_bench::report::xdp::{Page, draw};
use swiftlet_bench::rounds::PAIRS_MIN;
use swiftlet_bench::xdp::{Contender, Settings};

use super::{Cores, range, server, stop_flag, this_program, write};

/// Arguments of `compare xdp`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server's program, built with af-xdp; `swiftlet` beside this one if left out.
    #[arg(long)]
    server: Option<PathBuf>,
    /// With whom to compare; repeatable. All of them if left out.
    #[arg(long, value_enum)]
    with: Vec<Contender>,
    /// Directory for the tables, the chart and all rounds; it is made if need be.
    #[arg(long)]
    results: Option<PathBuf>,
    /// Pairs of rounds; with fewer than 15 the result says that it supports no claim.
    #[arg(long, default_value_t = PAIRS_MIN as u32, value_parser = range(1, 1000))]
    pairs: u32,
    /// Length of a round in ms.
    #[arg(long, default_value_t = 1000, value_parser = range(100, 60_000))]
    round_ms: u32,
    #[command(flatten)]
    cores: Cores,
}

/// Measures, and tells.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let bench = this_program()?;
    let stop = stop_flag()?;
    let all = Contender::value_variants();
    let settings = Settings {
        server: server(args.server.as_deref(), &bench)?,
        bench,
        others: if args.with.is_empty() { all.to_vec() } else { args.with.clone() },
        pairs: args.pairs as usize,
        round: Duration::from_millis(args.round_ms.into()),
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
    write(&directory.join("xdp.md"), &page.to_string())?;
    write(&directory.join("xdp.svg"), &draw(&outcome))?;
    let json = serde_json::to_string_pretty(&outcome).context("cannot write JSON")?;
    write(&directory.join("xdp.json"), &(json + "\n"))
}
