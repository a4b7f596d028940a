//! What the program can be told to do.

pub(crate) mod ablation;
pub(crate) mod backends;
pub(crate) mod compare;
pub(crate) mod hit;
pub(crate) mod outage;
pub(crate) mod xdp;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use clap::value_parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Where the two sides of a measurement run.
#[derive(clap::Args)]
pub(crate) struct Cores {
    /// Core for the servers, the echo among them.
    #[arg(long, default_value_t = 1)]
    server_core: usize,
    /// Core for the generator, and for the authority.
    #[arg(long, default_value_t = 0)]
    generator_core: usize,
}

/// A number within these bounds.
fn range(low: i64, high: i64) -> clap::builder::RangedI64ValueParser<u32> {
    value_parser!(u32).range(low..=high)
}

/// This program, which is the echo too.
fn this_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find this program")
}

/// The server's program: what was named, or `swiftlet` beside this one.
fn server(named: Option<&Path>, bench: &Path) -> anyhow::Result<PathBuf> {
    let server = named.map_or_else(|| bench.with_file_name("swiftlet"), Path::to_owned);
    anyhow::ensure!(
        server.is_file(),
        "there is no server at {}: build it with `cargo build --release -p swiftlet`, or name it \
         with --server",
        server.display(),
    );
    Ok(server)
}

/// A flag that SIGINT and SIGTERM set, so that no process under test is left behind; the second of
/// them ends the program at once.
fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
