//! What was measured, for people and for programs: tables, charts and JSON, each with its
//! conditions.

pub mod ablation;
pub mod backends;
pub mod chart;
pub mod forest;
pub mod hit;
pub mod markdown;
pub mod xdp;

use std::fs;
use std::process::Command;
use std::time::SystemTime;

use serde::Serialize;

/// Under what the numbers came about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Conditions {
    /// When it began, in UTC.
    pub date: String,
    /// The revision of the sources in the current directory, if that is known.
    pub revision: Option<String>,
    /// Kernel release.
    pub kernel: String,
    /// Processor model.
    pub processor: String,
    /// Cores of the machine.
    pub cores: usize,
    /// Load averages over 1, 5 and 15 minutes before the run: what else ran.
    pub load_before: String,
    /// The same after it, the run itself included.
    pub load_after: String,
    /// The core of the servers.
    pub server_core: usize,
    /// The core of the generator.
    pub generator_core: usize,
    /// Whether this program was built without optimization.
    pub debug_build: bool,
}

impl Conditions {
    /// Reads what the system tells, before a run.
    #[must_use]
    pub fn read(server_core: usize, generator_core: usize) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let processor = model.map_or("unknown", |model| model.trim_start_matches([':', ' ', '\t']));
        Self {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            revision: revision(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: processor.to_owned(),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            load_before: load_average(),
            load_after: String::new(),
            server_core,
            generator_core,
            debug_build: cfg!(debug_assertions),
        }
    }

    /// Adds what is known after the run.
    pub fn finish(&mut self) {
        self.load_after = load_average();
    }
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_ascii_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// What git says of the current directory, with a mark if something was changed since.
fn revision() -> Option<String> {
    let git = Command::new("git").args(["describe", "--always", "--dirty"]).output().ok()?;
    let text = String::from_utf8(git.stdout).ok()?;
    (git.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
