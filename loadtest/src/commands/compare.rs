//! `compare`: two measurements side by side.

use std::path::{Path, PathBuf};

use anyhow::Context;
use swiftlet_loadtest::{Outcome, comparison};

/// Arguments of `compare`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// JSON file of the measurement that is the base.
    base: PathBuf,
    /// JSON file of the measurement that is compared to it.
    other: PathBuf,
}

/// Always true: a difference is no failure.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let (base, other) = (read(&args.base)?, read(&args.other)?);
    print!("{}", comparison(&base, &other));
    Ok(true)
}

fn read(path: &Path) -> anyhow::Result<Outcome> {
    Outcome::read(path)
        .with_context(|| format!("{}: the JSON file of a `run --json` is expected", path.display()))
}
