//! `run`: one load, once or several times.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use swiftlet_loadtest::values;
use swiftlet_loadtest::{
    Limit, Load, MAX_WINDOW_PER_SOCKET, Options, Outcome, Queries, Report, Run, Server, Usage,
    html, run_with,
};

use super::load_args::{LoadArgs, command_line, ensure_answers, stop_flag};
use super::progress::Progress;

/// Arguments of `run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    load: LoadArgs,
    /// Time to send for: 5s, 500ms, or plain seconds.
    #[arg(long, default_value = "10s", value_parser = values::duration)]
    duration: Duration,
    /// Open loop: queries per second over all threads, as 20000 or 20k.
    #[arg(long, value_parser = values::rate)]
    rate: Option<f64>,
    /// Closed loop: queries outstanding over all sockets, 512 if left out. Replies are read in batches
    /// then, which adds up to an eighth (at most 200 us) to the latency. With --rate, the bound of what
    /// may be outstanding.
    #[arg(long)]
    window: Option<usize>,
    /// Measure so many times; `compare` makes intervals of them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeat: u16,
    /// Exit with 1 if a larger share of the queries is lost: 0.001, or 0.1%.
    #[arg(long, value_parser = values::share)]
    max_loss: Option<f64>,
    /// Exit with 1 if the 99th percentile of the latency is larger: 10ms.
    #[arg(long, value_parser = values::duration)]
    max_p99: Option<Duration>,
}

/// False if a bound was missed.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    args.load.check()?;
    let queries = args.load.queries()?;
    let stop = stop_flag()?;
    let mut total: Option<Report> = None;
    let (mut runs, mut cpu_ns) = (Vec::new(), 0);
    let usage = || args.load.pid.map(Usage::of).transpose().context("the server has ended");
    let before = usage()?;
    let mut after = before;
    for index in 0..args.repeat {
        let start = usage()?;
        let report = measure(args, &queries, index, &stop)?;
        after = usage()?;
        let used_ns = match (start, after) {
            (Some(start), Some(after)) => after.cpu_ns.saturating_sub(start.cpu_ns),
            _ => 0,
        };
        cpu_ns += used_ns;
        runs.push(Run::new(&report, used_ns as f64 / 1e3 / report.answered.max(1) as f64));
        match &mut total {
            Some(total) => total.append(report),
            None => total = Some(report),
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    let total = total.context("nothing was measured")?;
    let mut outcome = Outcome::new(command_line(), &total);
    outcome.runs = runs;
    if let (Some(before), Some(after)) = (before, after) {
        let answered = total.answered.max(1) as f64;
        outcome.server = Some(Server {
            cpu_us_per_query: cpu_ns as f64 / 1e3 / answered,
            resident: after.resident,
            growth_per_query: (after.resident as f64 - before.resident as f64) / answered,
        });
    }
    tell(&args.load, &total, &outcome)?;
    ensure_answers(args.load.server, &total)?;
    Ok(bounds_hold(args, &total))
}

fn measure(
    args: &Args,
    queries: &Queries,
    index: u16,
    stop: &AtomicBool,
) -> anyhow::Result<Report> {
    let channels = args.load.channels();
    let default = match args.rate {
        Some(_) => channels * MAX_WINDOW_PER_SOCKET,
        None => channels.max(512),
    };
    let load = Load {
        server: args.load.server,
        queries,
        sockets: channels,
        window: args.window.unwrap_or(default),
        limit: Limit::For(args.duration),
        timeout: args.load.timeout,
        threads: args.load.threads(),
        cores: &args.load.cores,
    };
    let options = Options {
        rate: args.rate,
        transport: args.load.transport(),
        datagrams_apart: args.load.no_segmentation,
        sources: args.load.sources(),
        stop: Some(stop),
        first_serial: u64::from(index) << 36,
    };
    let mut progress = Progress::new(args.duration, stop);
    let report = run_with(&load, &options, &mut |second| progress.show(second))?;
    progress.end();
    Ok(report)
}

fn tell(load: &LoadArgs, report: &Report, outcome: &Outcome) -> anyhow::Result<()> {
    println!("{report}");
    if let Some(server) = &outcome.server {
        println!(
            "server       {:>12.3} us of CPU per answer, {:.1} MiB resident, {:+.1} bytes per answer",
            server.cpu_us_per_query,
            server.resident as f64 / f64::from(1 << 20),
            server.growth_per_query
        );
    }
    save(load, outcome)
}

/// Writes the files that were asked for.
pub(crate) fn save(load: &LoadArgs, outcome: &Outcome) -> anyhow::Result<()> {
    if let Some(path) = &load.json {
        outcome.write(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &load.html {
        std::fs::write(path, html::page(outcome))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn bounds_hold(args: &Args, report: &Report) -> bool {
    let mut hold = true;
    if let Some(max_loss) = args.max_loss.filter(|&max_loss| report.loss() > max_loss) {
        println!("MISSED: loss is {:.4} %, above {:.4} %", 100.0 * report.loss(), 100.0 * max_loss);
        hold = false;
    }
    let p99_us = report.latency_us(0.99);
    if let Some(max) = args.max_p99.filter(|max| p99_us > max.as_secs_f64() * 1e6) {
        println!("MISSED: p99 is {p99_us:.1} us, above {:.1} us", max.as_secs_f64() * 1e6);
        hold = false;
    }
    hold
}
