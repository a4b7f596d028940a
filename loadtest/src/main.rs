//! The load generator, and an authority that answers anything, as a program.

mod commands {
    //! One file per subcommand.
    pub(crate) mod authority;
    pub(crate) mod compare;
    pub(crate) mod find_max;
    pub(crate) mod load_args;
    pub(crate) mod progress;
    pub(crate) mod run;
}

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use commands::{authority, compare, find_max, run};

/// Exit status when a bound that was given has been missed.
const MISSED: u8 = 1;

/// Exit status for what cannot be used: arguments, files, a server that isn't there. Clap's own too.
const USAGE: u8 = 2;

/// Puts a load on a DNS server, or answers what a DNS server asks.
///
/// Exit status: 0 measured, 1 a bound given on the command line was missed, 2 bad arguments, a file
/// that cannot be used, or a server that does not answer.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put a load on a server and report what comes back.
    Run(Box<run::Args>),
    /// Search the highest rate that a server answers within bounds on loss and latency.
    FindMax(Box<find_max::Args>),
    /// Answer every name under a suffix, over UDP and TCP.
    Authority(Box<authority::Args>),
    /// Compare the JSON files of two measurements, with intervals over their repeated runs.
    Compare(compare::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::FindMax(args) => find_max::run(&args),
        Command::Authority(args) => authority::run(&args),
        Command::Compare(args) => compare::run(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(MISSED),
        Err(error) => {
            eprintln!("swiftlet-loadtest: {error:#}");
            ExitCode::from(USAGE)
        }
    }
}
