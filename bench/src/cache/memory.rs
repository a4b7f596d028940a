//! What a cached answer takes of memory: by how much a process of its own grows for each.
//!
//! The cache is as small as it can be to keep what it is for: its budget is found by bisection in
//! one process, and measured in another that has done nothing else.

use std::process::{Command, Stdio};

use anyhow::Context;
use clap::ValueEnum as _;
use serde::{Deserialize, Serialize};

use super::contenders::{FILLED_MS, Room, Which, fill};
use super::population::NameKey;
use super::table::{Bar, Table};
use crate::accounting::resident_bytes;

/// Share of the names that a cache must keep.
const KEPT_MIN: f64 = 0.99;

/// What the process under test tells.
#[derive(Debug, Serialize, Deserialize)]
pub struct Resident {
    budget: u64,
    kept: u64,
    grown: u64,
}

/// What a process is for, as its arguments say.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(id = "resident")]
pub struct Child {
    /// Be the process whose memory is measured, with this cache.
    #[arg(long, hide = true)]
    pub resident_of: Option<Which>,
    /// The budget of its cache; to be found if left out.
    #[arg(long, hide = true, requires = "resident_of")]
    pub budget: Option<u64>,
}

/// All contenders that count bytes, and quick_cache and the LRU with room for all names.
///
/// # Errors
/// If a process cannot be started or fails.
pub fn measure(names: usize) -> anyhow::Result<Table> {
    let mut table = Table::new("Memory per cached A answer");
    let mut budgets = Vec::new();
    for which in [Which::Segmented, Which::Moka, Which::QuickUnsync, Which::QuickSync, Which::Lru] {
        let budget = child(which, names, None)?.budget;
        let Resident { kept, grown, .. } = child(which, names, Some(budget))?;
        let bar = (which == Which::Segmented).then_some(Bar::AtMost(170.0));
        table.add(which.name(), "bytes", bar, vec![grown as f64 / kept as f64]);
        let budget = if which.counts_bytes() {
            format!(", budget {:.1} bytes a name", budget as f64 / names as f64)
        } else {
            String::new()
        };
        budgets.push(format!("{} {kept}{budget}", which.name()));
    }
    table.note(format!(
        "By the growth of VmRSS of a process of its own, divided by the entries that it keeps of {names} \
         names of 20 bytes, one A record each. Kept: {}.",
        budgets.join("; ")
    ));
    Ok(table)
}

fn child(which: Which, names: usize, budget: Option<u64>) -> anyhow::Result<Resident> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    let name = which.to_possible_value().context("each has a name")?;
    command.args(["cache", "--many", &names.to_string(), "--resident-of", name.get_name()]);
    if let Some(budget) = budget {
        command.args(["--budget", &budget.to_string()]);
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    anyhow::ensure!(output.status.success(), "{}: {}", which.name(), output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Does what that process has to do, and prints it.
///
/// # Errors
/// If its own size cannot be read.
pub fn be(which: Which, names: usize, budget: Option<u64>) -> anyhow::Result<()> {
    let Some(budget) = budget else {
        let held = (names as f64 * KEPT_MIN).ceil() as usize;
        let found = Room::to_hold(which, held, names);
        let found = Resident { budget: found.bytes, kept: 0, grown: 0 };
        println!("{}", serde_json::to_string(&found)?);
        return Ok(());
    };
    let resident =
        || resident_bytes(std::process::id()).context("cannot read VmRSS of this process");
    // Whatever the first entry sets up is not taken for the entries'.
    let small = |entries: usize| Room { entries, bytes: 1 << 20 };
    fill(which.with_room(small(64)).as_mut(), 0..16);
    let before = resident()?;
    let mut cache = which.with_room(Room { entries: names, bytes: budget });
    fill(cache.as_mut(), 0..names as u64);
    let held = cache.held();
    let grown = resident()?.saturating_sub(before);
    let is_there =
        |&number: &u64| cache.look_up(&[NameKey::of(number)], FILLED_MS, false).hits == 1;
    let kept = (0..names as u64).filter(is_there).count() as u64;
    anyhow::ensure!(kept == held, "{} says that it holds {held}, not {kept}", which.name());
    println!("{}", serde_json::to_string(&Resident { budget, kept, grown })?);
    Ok(())
}
