//! This server, its peers and the bare echo side by side: server CPU per answer, as a ratio.

mod commands;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use swiftlet_bench::echo::Over;
use swiftlet_bench::{cache, echo, generator, instructions};

use commands::{ablation, backends, compare, hit, outage};

/// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    Hit(hit::Args),
    /// Put the server, its peers and the bare echo side by side, workload by workload.
    Compare(compare::Args),
    /// Measure what each optimization is worth: the default server against one with a switch turned.
    Ablation(ablation::Args),
    /// Measure io_uring beside recvmmsg: bare echoes, and the server on each backend.
    Backends(backends::Args),
    /// Measure how long hits take while misses hang on a dead upstream.
    Outage(outage::Args),
    /// Measure the load generator: its cost beside dnsperf's, its authority beside the bare echo.
    Generator(generator::Args),
    /// Measure the answer cache beside others: time, hit ratio and memory.
    Cache(cache::Args),
    /// Measure what a flood of random names does to the hit ratio.
    Flood(cache::FloodArgs),
    /// Compare the instruction counts of the hot functions with the committed ones.
    Instructions(instructions::InstructionsArgs),
    /// Be the bare echo: send everything back as it came.
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
        /// What to receive and send with.
        #[arg(long, value_enum, default_value = "recvmmsg")]
        over: Over,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Hit(args) => hit::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Ablation(args) => ablation::run(&args),
        Command::Backends(args) => backends::run(&args),
        Command::Outage(args) => outage::run(&args),
        Command::Generator(args) => generator::run(&args),
        Command::Cache(args) => cache::run(&args),
        Command::Flood(args) => cache::run_flood(&args),
        Command::Instructions(args) => instructions::run(&args),
        Command::Echo { listen, core, pad, over } => {
            echo::serve(listen, core, pad, over).map(|never| match never {})
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
