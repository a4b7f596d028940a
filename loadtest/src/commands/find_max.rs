//! `find-max`: the highest rate that a server answers within bounds.
//!
//! Each rate is an open loop of its own; whether it passes is judged by its loss, by its p99 from
//! the intended sending, and by whether the generator kept up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use swiftlet_loadtest::values;
use swiftlet_loadtest::{
    Limit, Load, MAX_WINDOW_PER_SOCKET, Options, Outcome, Queries, Report, Server, Step, Usage,
    Verdict, highest_rate, run_with,
};

use super::load_args::{LoadArgs, command_line, ensure_answers, stop_flag};
use super::run::save;

/// How close to the true limit the search comes.
const PRECISION: f64 = 0.02;

/// A rate fails when it has failed so many times: the machine may have had something else to do.
const TRIES: usize = 2;

/// Arguments of `find-max`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    load: LoadArgs,
    /// Time for which each rate is tried.
    #[arg(long, default_value = "3s", value_parser = values::duration)]
    step: Duration,
    /// The first rate that is tried.
    #[arg(long, default_value = "10k", value_parser = values::rate)]
    start_rate: f64,
    /// The highest rate that is tried.
    #[arg(long, default_value = "100M", value_parser = values::rate)]
    limit_rate: f64,
    /// The largest share of queries that may be lost.
    #[arg(long, default_value = "0.1%", value_parser = values::share)]
    max_loss: f64,
    /// The largest 99th percentile of the latency.
    #[arg(long, default_value = "10ms", value_parser = values::duration)]
    max_p99: Duration,
}

/// False if not even the lowest rate held the bounds.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    args.load.check()?;
    let queries = args.load.queries()?;
    let stop = stop_flag()?;
    let (mut curve, mut best, mut last) = (Vec::new(), None, None);
    let mut failure = None;
    println!("     rate/s  answers/s    loss %     p50 us     p99 us");
    let max_rate = highest_rate(args.start_rate, args.limit_rate, PRECISION, |rate| {
        let mut passed = false;
        for _ in 0..TRIES {
            let (report, server) = match measure(args, &queries, rate, curve.len(), &stop) {
                Ok(measured) => measured,
                Err(error) => {
                    failure = Some(error);
                    return None;
                }
            };
            if report.answered == 0 || stop.load(Ordering::Relaxed) {
                last = Some(report);
                return None;
            }
            let step = step(args, rate, &report);
            tell(&step);
            curve.push(step);
            passed = step.passed;
            if passed {
                best = Some((report, server));
                break;
            }
            last = Some(report);
        }
        Some(passed)
    });
    if let Some(error) = failure {
        return Err(error);
    }
    // What is reported in full is the best rate, or what failed if none passed.
    let server = best.as_ref().and_then(|(_, server)| *server);
    let report = best.map(|(report, _)| report).or(last).context("nothing was measured")?;
    let mut outcome = Outcome::new(command_line(), &report);
    (outcome.curve, outcome.max_rate, outcome.server) = (curve, max_rate, server);
    save(&args.load, &outcome)?;
    ensure_answers(args.load.server, &report)?;
    conclude(&outcome);
    Ok(max_rate.is_some())
}

fn measure(
    args: &Args,
    queries: &Queries,
    rate: f64,
    index: usize,
    stop: &AtomicBool,
) -> anyhow::Result<(Report, Option<Server>)> {
    let channels = args.load.channels();
    let load = Load {
        server: args.load.server,
        queries,
        sockets: channels,
        window: channels * MAX_WINDOW_PER_SOCKET,
        limit: Limit::For(args.step),
        timeout: args.load.timeout,
        threads: args.load.threads(),
        cores: &args.load.cores,
    };
    let options = Options {
        rate: Some(rate),
        transport: args.load.transport(),
        datagrams_apart: args.load.no_segmentation,
        sources: args.load.sources(),
        stop: Some(stop),
        first_serial: (index as u64) << 36,
    };
    let usage = || args.load.pid.map(Usage::of).transpose().context("the server has ended");
    let before = usage()?;
    let report = run_with(&load, &options, &mut |_| {})?;
    let server = before.zip(usage()?).map(|(before, after)| {
        let answered = report.answered.max(1) as f64;
        Server {
            cpu_us_per_query: after.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e3 / answered,
            resident: after.resident,
            growth_per_query: (after.resident as f64 - before.resident as f64) / answered,
        }
    });
    Ok((report, server))
}

fn step(args: &Args, rate: f64, report: &Report) -> Step {
    let p99_us = report.latency_us(0.99);
    let verdict = report.verdict();
    let holds = report.loss() <= args.max_loss && p99_us <= args.max_p99.as_secs_f64() * 1e6;
    Step {
        rate,
        answered: report.rate(),
        loss: report.loss(),
        p50_us: report.latency_us(0.5),
        p99_us,
        passed: holds && verdict == Verdict::Server,
        verdict,
    }
}

fn tell(step: &Step) {
    let mark = match (step.passed, step.verdict) {
        (true, _) => "ok",
        (false, Verdict::Server) => "missed",
        (false, _) => "bound by the generator",
    };
    println!(
        "{:>11.0} {:>10.0} {:>9.3} {:>10.1} {:>10.1}  {mark}",
        step.rate,
        step.answered,
        100.0 * step.loss,
        step.p50_us,
        step.p99_us
    );
}

fn conclude(outcome: &Outcome) {
    match outcome.max_rate {
        Some(rate) => println!("highest rate within the bounds: {rate:.0} queries/s"),
        None => println!("no rate held the bounds"),
    }
    // The lowest rate that failed is what ended the search.
    let is_above = |step: &&Step| outcome.max_rate.is_none_or(|rate| step.rate > rate);
    let failed = outcome.curve.iter().filter(is_above);
    let first = failed.min_by(|a, b| a.rate.total_cmp(&b.rate));
    if let Some(step) = first.filter(|step| step.verdict != Verdict::Server) {
        println!("BOUND BY THE GENERATOR at {:.0} queries/s: the server may do more", step.rate);
    }
}
