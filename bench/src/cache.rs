//! The answer cache by itself, beside moka, quick_cache and a plain LRU in one run: what a hit takes,
//! how often there is one, and what an entry takes of memory; and what a flood does to it.
//!
//! [`lookups`] is timed, [`ratio`] runs in virtual time, [`memory`] in processes of its own.
//! [`contenders`] are who takes part, [`population`] is what they are asked for, and [`table`] judges.

pub mod contenders;
pub mod lookups;
pub mod memory;
pub mod population;
pub mod ratio;
pub mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{ValueEnum, value_parser};

use self::contenders::Which;
use self::table::{Report, Table};
use crate::report::Conditions;
use crate::rounds::PAIRS_MIN;

/// Exponents of Zipf's law for the hit ratio.
const EXPONENTS: [f64; 3] = [0.9, 1.0, 1.1];

/// One name in so many has room in the cache whose hit ratio is measured.
const ROOM_SHARE: usize = 20;

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Figure {
    Few,
    Many,
    Threads,
    Ratio,
    Memory,
}

/// Arguments of `cache`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Measure this alone; may be given more than once.
    #[arg(long)]
    figure: Vec<Figure>,
    /// Rounds; an interval needs at least 15.
    #[arg(long, default_value_t = 31, value_parser = value_parser!(u32).range(PAIRS_MIN as i64..=1000))]
    rounds: u32,
    /// Lookups of a round.
    #[arg(long, default_value_t = 1 << 16, value_parser = value_parser!(u32).range(64..=1 << 24))]
    lookups: u32,
    /// Names that fit into the processor's caches.
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u32).range(64..=1_000_000))]
    few: u32,
    /// Names that don't.
    #[arg(long, default_value_t = 1_000_000, value_parser = value_parser!(u32).range(1000..=1 << 24))]
    many: u32,
    /// Queries for each hit ratio.
    #[arg(long, default_value_t = 6_000_000, value_parser = value_parser!(u32).range(1000..=1 << 27))]
    queries: u32,
    /// For how long two threads run beside each other in a round, in ms.
    #[arg(long, default_value_t = 40, value_parser = value_parser!(u32).range(1..=10_000))]
    side_by_side_ms: u32,
    /// Core of the thread that is measured.
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// Core of the second thread.
    #[arg(long, default_value_t = 0)]
    second_core: usize,
    #[command(flatten)]
    child: memory::Child,
    #[command(flatten)]
    files: Files,
}

/// Arguments of `flood`.
#[derive(Debug, clap::Args)]
pub struct FloodArgs {
    /// Names that are asked for again and again. The cache has room for a fifth of them.
    #[arg(long, default_value_t = 100_000, value_parser = value_parser!(u32).range(1000..=1 << 24))]
    names: u32,
    /// Queries for them: the first half warms the cache.
    #[arg(long, default_value_t = 4_000_000, value_parser = value_parser!(u32).range(1000..=1 << 27))]
    queries: u32,
    /// Ask this one alone; may be given more than once.
    #[arg(long)]
    contender: Vec<Which>,
    #[command(flatten)]
    files: Files,
}

#[derive(Debug, clap::Args)]
struct Files {
    /// File to write the tables to.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// File to write the results to, as JSON with every round.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Measures what was asked for and prints the tables.
///
/// # Errors
/// If something cannot be measured or written; not if a bar is missed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let many = args.many as usize;
    if let Some(which) = args.child.resident_of {
        return memory::be(which, many, args.child.budget);
    }
    let mut conditions = Conditions::read(args.core, args.second_core);
    let lookups = lookups::Plan {
        few: args.few as usize,
        many,
        rounds: args.rounds as usize,
        lookups: args.lookups as usize,
        side_by_side: Duration::from_millis(args.side_by_side_ms.into()),
        cores: [args.core, args.second_core],
    };
    let ratio =
        ratio::Plan { names: many, room: many / ROOM_SHARE, queries: args.queries as usize };
    let mut tables = Vec::new();
    for &figure in Figure::value_variants() {
        if args.figure.is_empty() || args.figure.contains(&figure) {
            eprintln!("measuring: {figure:?} ...");
            let table = match figure {
                Figure::Few => lookups::few(&lookups),
                Figure::Many => lookups::many(&lookups),
                Figure::Threads => lookups::two_threads(&lookups),
                Figure::Ratio => ratio::zipf(&ratio, &EXPONENTS),
                Figure::Memory => memory::measure(many)?,
            };
            println!("{}", table.markdown());
            tables.push(table);
        }
    }
    conditions.finish();
    args.files.write("The answer cache beside others", &tables, &conditions)
}

/// Measures what a flood does and prints the table.
///
/// # Errors
/// If the files cannot be written.
pub fn run_flood(args: &FloodArgs) -> anyhow::Result<()> {
    let mut conditions = Conditions::read(0, 0);
    let names = args.names as usize;
    let plan = ratio::Plan { names, room: names / 5, queries: args.queries as usize };
    let all = args.contender.is_empty();
    let contenders = if all { &ratio::CONTENDERS[..] } else { &args.contender };
    let table = ratio::flood(&plan, contenders);
    println!("{}", table.markdown());
    conditions.finish();
    args.files.write("A flood of random names", &[table], &conditions)
}

impl Files {
    fn write(
        &self,
        benchmark: &'static str,
        tables: &[Table],
        conditions: &Conditions,
    ) -> anyhow::Result<()> {
        let report = Report { benchmark, tables, conditions };
        let write = |file: &Path, text: &str| {
            fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
        };
        println!("{}", report.circumstances());
        if let Some(file) = &self.markdown {
            write(file, &report.markdown())?;
        }
        if let Some(file) = &self.json {
            write(file, &report.json())?;
        }
        Ok(())
    }
}
