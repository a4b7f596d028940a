//! What the load generator costs: its answers per CPU second beside dnsperf's, its authority beside
//! the bare echo, and its memory.
//!
//! ```text
//! core A   one generator at a time, each a process of its own
//! core B   the authority, knotd, the echo and its twin; only the one under test has anything to do
//!
//! pair i   swiftlet-loadtest, dnsperf (even i) or dnsperf, swiftlet-loadtest (odd i): one ratio
//! ```
//! Both generators are charged all that their process used from its start to its end, as the kernel
//! tells their parent: user and system time, the softirqs that ran on top of it included.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use clap::value_parser;
use serde::Serialize;
use serde_json::Value;
use swiftlet_loadtest::{Authority, Transport};
use swiftlet_net::client::{children_cpu, confine};
use tempfile::TempDir;

use crate::hit::Comparison;
use crate::interval::{Interval, median};
use crate::peers::{PEERS, Setup};
use crate::process::{Process, free_address};
use crate::report::Conditions;
use crate::rounds::{PAIRS_MIN, Pair, Rounds, queries_for, synthetic_names};

/// Names that are asked for.
const NAMES: usize = 10_000;

/// Answers per CPU second, against dnsperf's.
const AGAINST_DNSPERF: f64 = 2.0;

/// The authority's answers per second, against the bare echo's, and by themselves.
const AGAINST_ECHO: f64 = 0.8;
const AUTHORITY_RATE: f64 = 200_000.0;

/// Resident memory in MB.
const MEMORY_MB: f64 = 200.0;

/// How often the memory is read. The kernel keeps the peak, so only what the last moments add is lost.
const MEMORY_STEP: Duration = Duration::from_millis(100);

/// Arguments of `generator`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The load generator's program; `swiftlet-loadtest` beside this one if left out.
    #[arg(long)]
    loadtest: Option<PathBuf>,
    /// Pairs of rounds; a ratio needs at least 15.
    #[arg(long, default_value_t = PAIRS_MIN as u32, value_parser = value_parser!(u32).range(PAIRS_MIN as i64..=1000))]
    pairs: u32,
    /// Length of a round in s.
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u32).range(1..=60))]
    round_seconds: u32,
    /// Length of the run whose memory is measured, in s.
    #[arg(long, default_value_t = 60, value_parser = value_parser!(u32).range(1..=3600))]
    memory_seconds: u32,
    /// Sockets of the generators (dnsperf: clients).
    #[arg(long, default_value_t = 8)]
    sockets: usize,
    /// Queries outstanding.
    #[arg(long, default_value_t = 512)]
    window: usize,
    /// Core for the servers.
    #[arg(long, default_value_t = 1)]
    server_core: usize,
    /// Core for the generators.
    #[arg(long, default_value_t = 0)]
    generator_core: usize,
    /// File to write the table to.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// File to write the result to, as JSON with every round.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One figure and its bar.
#[derive(Debug, Serialize)]
struct Row {
    what: String,
    median: f64,
    /// The 95 % interval of the median, if it is one of several.
    interval: Option<(f64, f64)>,
    unit: &'static str,
    bar: Option<String>,
    holds: Option<bool>,
}

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    rows: Vec<Row>,
    /// Answers per CPU second, ours and dnsperf's, by server and pair.
    rounds: Vec<(String, Vec<(f64, f64)>)>,
    conditions: Vec<String>,
}

/// What is needed to run the generators.
struct Bench<'a> {
    args: &'a Args,
    loadtest: PathBuf,
    home: TempDir,
    /// Who would be asked upstream: any port of loopback, for nobody is.
    nobody: SocketAddr,
}

/// Measures all and prints the table; an error if it cannot be measured, not if a bar is missed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let loadtest =
        args.loadtest.clone().unwrap_or_else(|| program.with_file_name("swiftlet-loadtest"));
    anyhow::ensure!(
        loadtest.is_file(),
        "there is no load generator at {}: build it with `cargo build --release -p \
         swiftlet-loadtest`, or name it with --loadtest",
        loadtest.display()
    );
    let nobody = ([127, 0, 0, 1], 0).into();
    let bench = Bench { args, loadtest, home: TempDir::new()?, nobody };
    let names: String = (0..NAMES).map(|n| format!("n{n:04}.bench.example A\n")).collect();
    fs::write(bench.queries(), names)?;
    let mut conditions = Conditions::read(args.server_core, args.generator_core);
    let mut outcome = Outcome::default();
    let authority = bench.authority()?;
    bench.against_dnsperf(&authority, &mut outcome)?;
    match bench.knot() {
        Ok(knot) => bench.against_dnsperf(&knot, &mut outcome)?,
        Err(error) => outcome.conditions.push(format!("not measured against knotd: {error:#}")),
    }
    bench.against_echo(&program, &authority, &mut outcome)?;
    bench.memory(&authority, &mut outcome)?;
    conditions.finish();
    outcome.conditions.extend(describe(args, &conditions));
    let table = outcome.markdown();
    println!("{table}");
    let write = |file: &Path, text: &str| {
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    if let Some(file) = &args.markdown {
        write(file, &table)?;
    }
    if let Some(file) = &args.json {
        write(file, &(serde_json::to_string_pretty(&outcome)? + "\n"))?;
    }
    Ok(())
}

impl Bench<'_> {
    fn queries(&self) -> PathBuf {
        self.home.path().join("queries")
    }

    fn authority(&self) -> anyhow::Result<Process> {
        let (address, core) = (free_address()?, self.args.server_core);
        let mut command = Command::new(&self.loadtest);
        command.args(["authority", "--listen", &address.to_string(), "--core", &core.to_string()]);
        ready(Process::start("authority", address, command, core, None)?)
    }

    /// With a zone of the names that are asked for.
    fn knot(&self) -> anyhow::Result<Process> {
        let knot = PEERS.iter().find(|peer| peer.name == "knotd").context("it is a peer")?;
        let program = knot.find().context("it is not installed (package knot)")?;
        let names = synthetic_names(NAMES);
        let setup = Setup {
            core: self.args.server_core,
            upstream: self.nobody,
            cache_names: NAMES,
            names: &names,
        };
        ready(knot.start(&program, &setup)?)
    }

    fn against_dnsperf(&self, server: &Process, outcome: &mut Outcome) -> anyhow::Result<()> {
        let mut pairs = Vec::new();
        for index in 0..self.args.pairs {
            pairs.push(if index % 2 == 0 {
                let ours = self.ours(server.address)?;
                (ours, self.dnsperf(server.address)?)
            } else {
                let theirs = self.dnsperf(server.address)?;
                (self.ours(server.address)?, theirs)
            });
            eprintln!("{}: pair {} of {}", server.name, index + 1, self.args.pairs);
        }
        let name = &server.name;
        let ratios: Vec<f64> = pairs.iter().map(|(ours, theirs)| ours / theirs).collect();
        let what = format!("answers per CPU second, swiftlet-loadtest / dnsperf, against {name}");
        outcome.ratio(what, &ratios, Some(AGAINST_DNSPERF));
        let ours = median(pairs.iter().map(|pair| pair.0));
        let theirs = median(pairs.iter().map(|pair| pair.1));
        outcome.figure(format!("swiftlet-loadtest against {name}"), ours, "per CPU s", None);
        outcome.figure(format!("dnsperf against {name}"), theirs, "per CPU s", None);
        outcome.rounds.push((name.clone(), pairs));
        Ok(())
    }

    /// Answers per CPU second of ours.
    fn ours(&self, server: SocketAddr) -> anyhow::Result<f64> {
        let file = self.home.path().join("json");
        let mut command = self.run_command(server, self.args.round_seconds);
        command.arg("--json").arg(&file);
        let (_, cpu) = self.measure(command)?;
        let outcome: Value = serde_json::from_slice(&fs::read(&file)?)?;
        let answered = outcome["answered"].as_f64().context("no count of answers")?;
        Ok(answered / cpu.as_secs_f64())
    }

    fn run_command(&self, server: SocketAddr, seconds: u32) -> Command {
        let Args { sockets, window, .. } = self.args;
        let mut command = Command::new(&self.loadtest);
        command
            .args(["run", "--threads", "1", "--server", &server.to_string()])
            .args(["--sockets", &sockets.to_string(), "--window", &window.to_string()])
            .args(["--duration", &format!("{seconds}s"), "--queries"])
            .arg(self.queries());
        command
    }

    /// Answers per CPU second of dnsperf.
    fn dnsperf(&self, server: SocketAddr) -> anyhow::Result<f64> {
        let Args { sockets, window, round_seconds, .. } = self.args;
        let mut command = Command::new("dnsperf");
        command
            .args(["-s", &server.ip().to_string(), "-p", &server.port().to_string()])
            .args(["-T", "1", "-c", &sockets.to_string(), "-q", &window.to_string()])
            .args(["-l", &round_seconds.to_string(), "-d"])
            .arg(self.queries());
        let (stdout, cpu) = self.measure(command)?;
        let answered = completed(&stdout).context("dnsperf has not told what it completed")?;
        Ok(answered as f64 / cpu.as_secs_f64())
    }

    /// Runs a generator on its core to the end: what it printed, and the CPU time that it used.
    fn measure(&self, mut command: Command) -> anyhow::Result<(String, Duration)> {
        confine(&mut command, self.args.generator_core);
        let name = command.get_program().display().to_string();
        let before = children_cpu();
        let output = command.stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("cannot run {name}"))?;
        let cpu = children_cpu().saturating_sub(before);
        let complaint = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{name}: {}: {complaint}", output.status);
        anyhow::ensure!(!cpu.is_zero(), "{name} has used no time");
        Ok((String::from_utf8_lossy(&output.stdout).into_owned(), cpu))
    }

    fn against_echo(
        &self,
        program: &Path,
        authority: &Process,
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let Args { sockets, window, generator_core, server_core, .. } = *self.args;
        let (upstream, stop) = (Authority::start(self.nobody)?, AtomicBool::new(false));
        let mut rounds = Rounds {
            queries: queries_for(&synthetic_names(NAMES))?,
            transport: Transport::Udp,
            sockets,
            window,
            generator_core,
            duration: Duration::from_secs(1),
            pairs: self.args.pairs as usize,
            authority: &upstream,
            stop: &stop,
            serial: 0,
        };
        let echo = |name| ready(Process::echo(name, program, server_core, 0)?);
        let (echo, twin) = (echo("echo")?, echo("echo again")?);
        let pairs = rounds.pairs;
        let comparison = Comparison::measure(&mut rounds, &echo, authority, &twin, |done| {
            eprintln!("echo: pair {done} of {pairs}");
        })?;
        authority.resume()?;
        let rates = |pairs: &[Pair]| -> Vec<f64> {
            pairs.iter().map(|pair| pair.b.rate / pair.a.rate).collect()
        };
        let costs = |pairs: &[Pair]| -> Vec<f64> { pairs.iter().map(Pair::ratio).collect() };
        let (subject, twins) = (&comparison.subject, &comparison.twin);
        let what = "answers/s, authority / bare echo".to_owned();
        outcome.ratio(what, &rates(subject), Some(AGAINST_ECHO));
        outcome.ratio("A/A: answers/s, echo again / echo".to_owned(), &rates(twins), None);
        outcome.ratio("CPU per answer, authority / bare echo".to_owned(), &costs(subject), None);
        outcome.ratio("A/A: CPU per answer, echo again / echo".to_owned(), &costs(twins), None);
        let rate = median(subject.iter().map(|pair| pair.b.rate));
        let bar = Some((AUTHORITY_RATE, rate >= AUTHORITY_RATE, "at least"));
        outcome.figure("authority's answers".to_owned(), rate, "per s", bar);
        let rate = median(subject.iter().map(|pair| pair.a.rate));
        outcome.figure("bare echo's answers".to_owned(), rate, "per s", None);
        Ok(())
    }

    fn memory(&self, authority: &Process, outcome: &mut Outcome) -> anyhow::Result<()> {
        let seconds = self.args.memory_seconds;
        let mut command = self.run_command(authority.address, seconds);
        confine(&mut command, self.args.generator_core);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().context("cannot run the load generator")?;
        let mut peak_kib = 0;
        let status = loop {
            peak_kib = peak_kib.max(peak_resident_kib(child.id()).unwrap_or_default());
            if let Some(status) = child.try_wait()? {
                break status;
            }
            thread::sleep(MEMORY_STEP);
        };
        anyhow::ensure!(status.success() && peak_kib > 0, "the load generator ended: {status}");
        let megabytes = peak_kib as f64 * 1024.0 / 1e6;
        let bar = Some((MEMORY_MB, megabytes < MEMORY_MB, "under"));
        outcome.figure(format!("peak resident size over {seconds} s"), megabytes, "MB", bar);
        Ok(())
    }
}

fn ready(mut process: Process) -> anyhow::Result<Process> {
    process.wait_until_it_answers(queries_for(&synthetic_names(1))?.get(0))?;
    Ok(process)
}

impl Outcome {
    /// Adds a ratio; its bar is met when the whole interval is at or above it.
    fn ratio(&mut self, what: String, ratios: &[f64], bar: Option<f64>) {
        let Some(interval) = Interval::of(ratios) else { return };
        self.rows.push(Row {
            what,
            median: interval.median,
            interval: Some((interval.low, interval.high)),
            unit: "",
            bar: bar.map(|bar| format!("at least {bar}")),
            holds: bar.map(|bar| interval.low >= bar),
        });
    }

    fn figure(
        &mut self,
        what: String,
        median: f64,
        unit: &'static str,
        bar: Option<(f64, bool, &str)>,
    ) {
        let holds = bar.map(|(_, holds, _)| holds);
        let bar = bar.map(|(bar, _, word)| format!("{word} {bar}"));
        self.rows.push(Row { what, median, interval: None, unit, bar, holds });
    }

    fn markdown(&self) -> String {
        let mut text =
            String::from("| what | median | 95 % interval | bar | |\n|---|---:|---:|---:|---|\n");
        for Row { what, median, interval, unit, bar, holds } in &self.rows {
            let median = match unit {
                &"" => format!("{median:.3}"),
                unit => format!("{median:.0} {unit}"),
            };
            let interval =
                interval.map_or_else(String::new, |(low, high)| format!("{low:.3} .. {high:.3}"));
            let verdict = match holds {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            };
            let bar = bar.as_deref().unwrap_or_default();
            text += &format!("| {what} | {median} | {interval} | {bar} | {verdict} |\n");
        }
        text + "\n" + &self.conditions.join("\n") + "\n"
    }
}

fn describe(args: &Args, conditions: &Conditions) -> [String; 3] {
    let Args { pairs, round_seconds, sockets, window, server_core, generator_core, .. } = args;
    let Conditions { kernel, processor, cores, load_before, load_after, .. } = conditions;
    let build = if cfg!(debug_assertions) { ", DEBUG BUILD" } else { "" };
    [
        format!(
            "{pairs} pairs of rounds, ABBA, of {round_seconds} s (echo: 1 s); {NAMES} names, {sockets} \
             sockets, window {window}; the bar of a ratio is met when its whole interval is."
        ),
        format!(
            "servers on core {server_core}, generators on core {generator_core} of {cores}, loopback; \
             {processor}, Linux {kernel}{build}"
        ),
        format!("load average {load_before} before, {load_after} after"),
    ]
}

/// The count in dnsperf's line `Queries completed:    379701 (100.00%)`.
fn completed(stdout: &str) -> Option<u64> {
    let line = stdout.lines().find_map(|line| line.trim().strip_prefix("Queries completed:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The kernel's own account of the most that was resident at a time.
fn peak_resident_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dnsperf_says_is_read() {
        let text = "Statistics:\n\n  Queries sent:         380000\n  Queries completed:    379701 (99.92%)\n";
        assert_eq!(completed(text), Some(379_701));
        assert_eq!(completed("Queries sent: 5"), None);
    }

    #[test]
    fn this_process_has_a_peak() {
        assert!(peak_resident_kib(std::process::id()).is_some_and(|kib| kib > 100));
        assert_eq!(peak_resident_kib(u32::MAX), None);
    }

    #[test]
    fn a_bar_is_met_by_the_whole_interval() {
        let mut outcome = Outcome::default();
        for ratio in [1.9, 2.1] {
            outcome.ratio("ratio".to_owned(), &[2.5, ratio, 2.2, 2.3, 2.4, 2.2], Some(2.0));
        }
        outcome.figure("memory".to_owned(), 12.0, "MB", Some((200.0, true, "under")));
        let text = outcome.markdown();
        assert!(text.contains("| 2.250 | 1.900 .. 2.500 | at least 2 | MISSED |"), "{text}");
        assert!(text.contains("| 2.250 | 2.100 .. 2.500 | at least 2 | met |"), "{text}");
        assert!(text.contains("| memory | 12 MB |  | under 200 | met |"), "{text}");
    }
}
