//! Compares the instruction counts of the hot functions with the committed ones.
//!
//! The benchmark `instructions` runs each function under callgrind and leaves one `summary.json` per
//! case, which [`summaries`] reads; [`comparison`] judges. The committed counts are in
//! `bench/baseline.json`, which looks like
//!
//! ```text
//! {
//!   "conditions": { "rustc": "rustc 1.95.0 (...)", "target": "x86_64-...", ..., ... },
//!   "instructions": { "stores::hit::moka": 123456, ... }
//! }
//! ```
//!
//! A count depends on the compiler as much as on the code. With another compiler than the
//! baseline's it is compared all the same, and the report says so: what grew then grew for our
//! users too, and whoever changes the compiler also renews the baseline.

pub mod comparison;
mod summaries;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use self::comparison::Comparison;

/// What the subcommand `instructions` is told.
#[derive(clap::Args)]
#[group(id = "task", args = ["check", "write"], required = true)]
pub struct InstructionsArgs {
    /// Compare, print a table, and fail if a count grew by more than 3 %, is gone, or is new.
    #[arg(long, conflicts_with = "write")]
    check: bool,
    /// Make the counts the new baseline.
    #[arg(long)]
    write: bool,
    /// Where the benchmark left its summaries.
    #[arg(long)]
    summaries: PathBuf,
    /// The committed counts.
    #[arg(long, default_value = "bench/baseline.json")]
    baseline: PathBuf,
}

/// Does what the subcommand was asked for.
///
/// # Errors
/// A file is missing or not as expected, or the comparison failed.
pub fn run(args: &InstructionsArgs) -> anyhow::Result<()> {
    let now =
        Counts { conditions: Conditions::read()?, instructions: summaries::read(&args.summaries)? };
    if args.write {
        now.write(&args.baseline)?;
        println!("{} counts written to {}", now.instructions.len(), args.baseline.display());
        return Ok(());
    }
    let comparison = Comparison::new(&Counts::read(&args.baseline)?, &now, has_avx2());
    println!("{comparison}");
    comparison.check()
}

/// Instruction counts, and what they were made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// What they were made with.
    pub conditions: Conditions,
    /// Instructions of each case by `group::function::case`.
    pub instructions: BTreeMap<String, u64>,
}

impl Counts {
    /// Reads a baseline.
    ///
    /// # Errors
    /// The file cannot be read or is not a baseline.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file)
            .with_context(|| format!("cannot read the baseline {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no baseline", file.display()))
    }

    /// Writes a baseline, sorted by name.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// What counts depend on beside the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// The compiler with its version.
    pub rustc: String,
    /// What it compiled for.
    pub target: String,
    /// The counter with its version.
    pub valgrind: String,
    /// The C library with its version: copying, comparing and allocating are its.
    pub libc: String,
}

impl Conditions {
    /// Those of this machine.
    ///
    /// # Errors
    /// rustc, valgrind or getconf cannot be asked.
    pub fn read() -> anyhow::Result<Self> {
        let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
        let told = told_by(&rustc, "-vV")?;
        let target = told.lines().find_map(|line| line.strip_prefix("host: "));
        Ok(Self {
            rustc: told.lines().next().unwrap_or_default().to_owned(),
            target: target.unwrap_or_default().to_owned(),
            valgrind: told_by("valgrind", "--version")?.trim_end().to_owned(),
            libc: told_by("getconf", "GNU_LIBC_VERSION")?.trim_end().to_owned(),
        })
    }
}

fn told_by(program: &str, flag: &str) -> anyhow::Result<String> {
    let output = Command::new(program)
        .arg(flag)
        .output()
        .with_context(|| format!("cannot run {program} {flag}"))?;
    ensure!(output.status.success(), "{program} {flag} failed: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_baseline_is_read_back_as_it_was_written_and_is_sorted() {
        let counts = Counts {
            conditions: Conditions {
                rustc: "rustc 1.95.0".into(),
                target: "x86_64-unknown-linux-gnu".into(),
                valgrind: "valgrind-3.19.0".into(),
                libc: "glibc 2.36".into(),
            },
            instructions: [("b::b::b".into(), 2), ("a::a::a".into(), u64::MAX)].into(),
        };
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("baseline.json");
        counts.write(&file).unwrap();
        assert_eq!(Counts::read(&file).unwrap(), counts);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.find("a::a::a") < text.find("b::b::b"), "{text}");
        assert!(text.ends_with("}\n"));
    }

    #[test]
    fn what_is_no_baseline_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("baseline.json");
        let error = |file| format!("{:#}", Counts::read(file).unwrap_err());
        assert!(error(&file).contains("baseline.json"), "{}", error(&file));
        fs::write(&file, "{}").unwrap();
        assert!(error(&file).contains("baseline.json is no baseline"), "{}", error(&file));
    }

    #[test]
    fn the_committed_baseline_can_be_read() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline.json");
        assert!(!Counts::read(&file).unwrap().instructions.is_empty());
    }
}
