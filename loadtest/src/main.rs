//! The load generator, and an authority that answers anything, as a program.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use swiftlet_loadtest::{Authority, Limit, Load, Queries, run};

/// Exit status for arguments and query files that cannot be used; clap's own for the former.
const USAGE: u8 = 2;

/// Puts a load on a DNS server, or answers what a DNS server asks.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Keep a window of queries outstanding and report what comes back (a closed loop).
    Run(RunArgs),
    /// Answer every query over UDP: type A with one address, the others with none, TTL 3600.
    Authority {
        /// Address and port to listen on.
        #[arg(long, default_value = "127.0.0.1:5300")]
        listen: SocketAddr,
    },
}

#[derive(clap::Args)]
struct RunArgs {
    /// Address and port of the server.
    #[arg(long)]
    server: SocketAddr,
    /// File with one query a line: a name, and a type unless it is A.
    #[arg(long)]
    queries: PathBuf,
    /// Seconds to send for.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    duration: f64,
    /// Threads that share the sockets.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Cores to pin the threads to, in turn. Not pinned if left out.
    #[arg(long, value_delimiter = ',')]
    cores: Vec<usize>,
    /// UDP sockets, that is source ports, over all threads.
    #[arg(long, default_value_t = 8)]
    sockets: usize,
    /// Queries outstanding over all sockets.
    #[arg(long, default_value_t = 512)]
    window: usize,
    /// Seconds after which a query counts as lost.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    timeout: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let is_sound = seconds > 0.0 && seconds <= 86_400.0;
    if is_sound { Ok(seconds) } else { Err("not between 0 and 86400 seconds".to_owned()) }
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => load(&args),
        Command::Authority { listen } => answer(listen),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("swiftlet-loadtest: {error:#}");
        ExitCode::FAILURE
    })
}

fn load(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let queries = match Queries::from_file(&args.queries) {
        Ok(queries) => queries,
        Err(error) => {
            eprintln!("swiftlet-loadtest: {error}");
            return Ok(ExitCode::from(USAGE));
        }
    };
    let report = run(&Load {
        server: args.server,
        queries: &queries,
        sockets: args.sockets,
        window: args.window,
        limit: Limit::For(Duration::from_secs_f64(args.duration)),
        timeout: Duration::from_secs_f64(args.timeout),
        threads: args.threads,
        cores: &args.cores,
    })?;
    println!("{report}");
    Ok(ExitCode::SUCCESS)
}

fn answer(listen: SocketAddr) -> anyhow::Result<ExitCode> {
    let authority =
        Authority::start(listen).with_context(|| format!("cannot listen on {listen}"))?;
    println!("answering on {}", authority.address());
    authority.wait();
    Ok(ExitCode::FAILURE)
}
