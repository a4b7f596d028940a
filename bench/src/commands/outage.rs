//! `outage`: how long hits take while misses hang on a dead upstream.
//!
//! The misses come from a generator of their own, on the core of the one whose hits are timed, and take
//! its core from it at times. So the rounds to compare with have it too: it asks as often for known
//! names then.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use swiftlet_bench::interval::{Interval, median};
use swiftlet_bench::peers::Setup;
use swiftlet_bench::process::Process;
use swiftlet_bench::report::Conditions;
use swiftlet_bench::rounds::{PAIRS_MIN, Rounds, queries_for, synthetic_names};
use swiftlet_loadtest::{
    Authority, Builder, Limit, Load, MAX_WINDOW_PER_SOCKET, Options, Queries, Shape, Transport,
    run_with,
};

use super::{Cores, range, server, stop_flag, this_program, write};

/// Names that are asked for and known.
const NAMES: usize = 10_000;

/// Names that nobody knows, a second; or known ones in their place.
const MISSES_PER_S: f64 = 5000.0;

/// The share of the closed loop's rate that is asked for.
const RATE_SHARE: f64 = 0.5;

/// How much longer hits may take.
const BAR: f64 = 1.2;

/// Arguments of `outage`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server's program; `swiftlet` beside this one if left out.
    #[arg(long)]
    server: Option<PathBuf>,
    /// Pairs of rounds; a ratio needs at least 15.
    #[arg(long, default_value_t = PAIRS_MIN as u32, value_parser = range(1, 1000))]
    pairs: u32,
    /// Length of a round in ms.
    #[arg(long, default_value_t = 1000, value_parser = range(100, 60_000))]
    round_ms: u32,
    #[command(flatten)]
    cores: Cores,
    /// File to write the table to.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// File to write the result to, as JSON with every round.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One round at half of full speed.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    p50_us: f64,
    p99_us: f64,
    answered: u64,
    lost: u64,
}

/// Two rounds with known names beside the hits and one with misses, in changing order.
#[derive(Clone, Copy, Debug, Serialize)]
struct Triple {
    without: Round,
    again: Round,
    with: Round,
}

/// Measures, and tells.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let bench = this_program()?;
    let program = server(args.server.as_deref(), &bench)?;
    let stop = stop_flag()?;
    let authority =
        Authority::start(([127, 0, 0, 1], 0).into()).context("cannot start the authority")?;
    let upstream = authority.address();
    let core = args.cores.server_core;
    let setup = Setup { core, upstream, cache_names: 10 * NAMES, names: &[] };
    let mut subject = Process::server("swiftlet", &program, &setup)?;
    let mut conditions = Conditions::read(core, args.cores.generator_core);
    let mut rounds = hits(args, &authority, &stop, 0)?;
    subject.wait_until_it_answers(rounds.queries.get(0))?;
    rounds.warm(&subject)?;
    let full = rounds.measure(&subject)?.rate;
    subject.resume()?;

    // From now on nobody answers there, and nobody refuses either.
    let serial = rounds.serial;
    drop(authority);
    let silent = UdpSocket::bind(upstream).context("cannot take the upstream's place")?;
    let nobody = Authority::start(([127, 0, 0, 1], 0).into())?;
    let mut rounds = hits(args, &nobody, &stop, serial)?;
    let mut builder = Builder::new(Shape::default());
    builder.add_fresh_names("gone.example.", 1.0)?;
    let known = queries_for(&synthetic_names(NAMES))?;
    let mut outage = Outage { rate: RATE_SHARE * full, fresh: builder.build(), known, asked: 0 };
    let mut triples = Vec::new();
    for pair in 0..rounds.pairs {
        let without = outage.round(&mut rounds, &subject, false)?;
        let triple = if pair % 2 == 0 {
            let again = outage.round(&mut rounds, &subject, false)?;
            let with = outage.round(&mut rounds, &subject, true)?;
            Triple { without, again, with }
        } else {
            let with = outage.round(&mut rounds, &subject, true)?;
            let again = outage.round(&mut rounds, &subject, false)?;
            Triple { without, again, with }
        };
        triples.push(triple);
        eprintln!("pair {} of {}", pair + 1, rounds.pairs);
    }
    drop(silent);
    conditions.finish();
    let text = table(&triples, outage.rate, &conditions)?;
    println!("{text}");
    if let Some(file) = &args.markdown {
        write(file, &text)?;
    }
    if let Some(file) = &args.json {
        let json = serde_json::json!({ "conditions": conditions, "rounds": triples });
        write(file, &(serde_json::to_string_pretty(&json)? + "\n"))?;
    }
    Ok(())
}

/// Rounds of hits; `serial` is how many queries there were before.
fn hits<'r>(
    args: &Args,
    authority: &'r Authority,
    stop: &'r AtomicBool,
    serial: u64,
) -> anyhow::Result<Rounds<'r>> {
    Ok(Rounds {
        queries: queries_for(&synthetic_names(NAMES))?,
        transport: Transport::Udp,
        sockets: 8,
        window: 512,
        generator_core: args.cores.generator_core,
        duration: Duration::from_millis(args.round_ms.into()),
        pairs: args.pairs as usize,
        authority,
        stop,
        serial,
    })
}

/// The load of a round.
struct Outage {
    /// Hits a second.
    rate: f64,
    /// Names that were never asked before.
    fresh: Queries,
    /// Names that are known.
    known: Queries,
    /// How many of them were asked.
    asked: u64,
}

impl Outage {
    /// A round of hits, with misses beside them or with more hits.
    fn round(
        &mut self,
        rounds: &mut Rounds<'_>,
        subject: &Process,
        with_misses: bool,
    ) -> anyhow::Result<Round> {
        let is_over = AtomicBool::new(false);
        let (fresh, known, first_serial) = (&self.fresh, &self.known, self.asked);
        let (address, core, duration) = (subject.address, rounds.generator_core, rounds.duration);
        let (report, asked) = thread::scope(|scope| {
            let queries = if with_misses { fresh } else { known };
            let stop = &is_over;
            let beside = scope.spawn(move || {
                let load = Load {
                    server: address,
                    queries,
                    sockets: 8,
                    window: 8 * MAX_WINDOW_PER_SOCKET,
                    limit: Limit::For(10 * duration),
                    timeout: Duration::from_secs(1),
                    threads: 1,
                    cores: &[core],
                };
                let rate = Some(MISSES_PER_S);
                let options =
                    Options { rate, stop: Some(stop), first_serial, ..Options::default() };
                run_with(&load, &options, &mut |_| {})
            });
            // Some of the misses are to hang before the first hit is asked for.
            thread::sleep(duration / 4);
            let window = rounds.sockets * MAX_WINDOW_PER_SOCKET;
            let report = rounds.load(subject, Limit::For(duration), window, Some(self.rate));
            is_over.store(true, Ordering::Relaxed);
            let beside = beside.join().expect("no panic")?;
            anyhow::Ok((report?, beside.sent))
        })?;
        // What could not be sent took a number too; there are more than enough of them.
        self.asked += asked + 1_000_000;
        anyhow::ensure!(asked > 0, "nothing was asked beside the hits");
        let quantile = |of| report.latency_us(of);
        let (answered, lost) = (report.answered, report.lost);
        Ok(Round { p50_us: quantile(0.5), p99_us: quantile(0.99), answered, lost })
    }
}

fn table(triples: &[Triple], rate: f64, conditions: &Conditions) -> anyhow::Result<String> {
    let ratio = |of: fn(&Triple) -> f64| {
        let values = triples.iter().map(of).collect::<Vec<_>>();
        Interval::of(&values).context("no rounds")
    };
    let with = ratio(|triple| triple.with.p99_us / triple.without.p99_us)?;
    let control = ratio(|triple| triple.again.p99_us / triple.without.p99_us)?;
    let middle = |of: fn(&Triple) -> f64| median(triples.iter().map(of));
    let lost = |of: fn(&Triple) -> Round| triples.iter().map(|t| of(t).lost).sum::<u64>();
    let verdict = if with.low <= BAR { "met" } else { "missed" };
    Ok(format!(
        "# Hits while misses hang on a dead upstream\n\n\
         {NAMES} known names at {rate:.0}/s, half of full speed, and from a second generator on the same \
         core {MISSES_PER_S:.0} names a second that nobody knows, while the only upstream is silent; or as \
         many known ones, to compare with. Latency of the hits, from when each was due.\n\n\
         | | p50 | p99 | p99, ratio to without | lost |\n|---|--:|--:|--:|--:|\n\
         | without misses | {:.0} µs | {:.0} µs | 1 | {} |\n\
         | without, again (A/A) | {:.0} µs | {:.0} µs | {:.3} ({:.3}–{:.3}) | {} |\n\
         | with misses | {:.0} µs | {:.0} µs | {:.3} ({:.3}–{:.3}), at most {BAR}: {verdict} | {} |\n\n\
         Medians over {} rounds of each, in changing order; intervals cover the true median with \
         {:.1} %.\n\n\
         - {}, revision {}\n- {}, {} cores, Linux {}; server on core {}, both generators on core {}, loopback\n\
         - load average {} before, {} after\n",
        middle(|t| t.without.p50_us),
        middle(|t| t.without.p99_us),
        lost(|t| t.without),
        middle(|t| t.again.p50_us),
        middle(|t| t.again.p99_us),
        control.median,
        control.low,
        control.high,
        lost(|t| t.again),
        middle(|t| t.with.p50_us),
        middle(|t| t.with.p99_us),
        with.median,
        with.low,
        with.high,
        lost(|t| t.with),
        triples.len(),
        100.0 * with.coverage,
        conditions.date,
        conditions.revision.as_deref().unwrap_or("unknown"),
        conditions.processor,
        conditions.cores,
        conditions.kernel,
        conditions.server_core,
        conditions.generator_core,
        conditions.load_before,
        conditions.load_after,
    ))
}
