//! `ablation`: the default server against one with a switch turned, switch by switch.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use swiftlet_bench::ablation::build::{Build, Builder};
use swiftlet_bench::ablation::{Settings, Variant, WORKLOADS, switches};
use swiftlet_bench::report::ablation::Page;
use swiftlet_bench::report::forest;
use swiftlet_bench::rounds::PAIRS_MIN;
use swiftlet_bench::workload::Workload;

use super::{Cores, range, stop_flag, this_program, write};

/// Arguments of `ablation`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A switch to turn, such as no-simd; repeatable. All of them if left out.
    #[arg(long = "switch")]
    switches: Vec<String>,
    /// What to ask for: hit, zipf or miss; repeatable. All of them if left out.
    #[arg(long, value_parser = workload)]
    workload: Vec<Workload>,
    /// Directory for the table, the chart and all rounds; it is made if need be.
    #[arg(long)]
    results: Option<PathBuf>,
    /// Where cargo builds the servers; `ablation` beside the directory of this program if left out.
    #[arg(long)]
    target: Option<PathBuf>,
    /// Pairs of rounds; with fewer than 15 the result says that it supports no claim.
    #[arg(long, default_value_t = PAIRS_MIN as u32, value_parser = range(1, 1000))]
    pairs: u32,
    /// Length of a round in ms.
    #[arg(long, default_value_t = 200, value_parser = range(20, 60_000))]
    round_ms: u32,
    #[command(flatten)]
    cores: Cores,
}

/// One of those that switches are measured with.
fn workload(text: &str) -> Result<Workload, String> {
    let known = Workload::from_str(text, false).ok().filter(|one| WORKLOADS.contains(one));
    known.ok_or_else(|| {
        let names: Vec<&str> = WORKLOADS.iter().map(|one| one.name()).collect();
        format!("switches are measured with {}", names.join(", "))
    })
}

/// Builds, measures, and tells.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let switches = switches::find(&args.switches)?;
    let target = match &args.target {
        Some(target) => target.clone(),
        None => this_program()?.ancestors().nth(2).context("no target directory")?.join("ablation"),
    };
    let builder = Builder { target };
    let stop = stop_flag()?;
    eprintln!("building the default server");
    let default = builder.build(Build::DEFAULT)?;
    let mut variants = Vec::new();
    for switch in switches {
        eprintln!("building {}", switch.name);
        let program = builder.build(switch.build).map_err(|error| format!("{error:#}"));
        // An interrupt reaches cargo too, which then fails.
        anyhow::ensure!(!stop.load(Ordering::Relaxed), "interrupted");
        if let Err(reason) = &program {
            eprintln!("{} is left out: {reason}", switch.name);
        }
        variants.push(Variant { switch, program });
    }
    let workloads =
        if args.workload.is_empty() { WORKLOADS.to_vec() } else { args.workload.clone() };
    let settings = Settings {
        default,
        variants,
        workloads,
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
    write(&directory.join("ablation.md"), &page.to_string())?;
    write(&directory.join("ablation.svg"), &forest::draw(&outcome))?;
    // There are thousands of rounds: a line each would be too many.
    let json = serde_json::to_string(&outcome).context("cannot write JSON")?;
    write(&directory.join("ablation.json"), &(json + "\n"))
}
