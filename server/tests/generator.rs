//! Three counts of one load: the load generator's, the server's own and dnsperf's.

mod support;

use std::process::Command;
use std::time::Duration;

use support::{Metrics, Swiftlet};
use swiftlet_loadtest::{Authority, Limit, Load, Options, Queries, Report, run, run_with};

const NAMES: usize = 1000;

/// Queries per second, and for how many seconds.
const RATE: u32 = 20_000;
const SECONDS: u32 = 2;

/// How often the two rates are compared. Something else may take the machine's cores for a part of
/// one of the two runs; the counts must agree every time.
const TRIES: usize = 3;

/// Longer than any answer takes, so that none comes too late.
const TIMEOUT: Duration = Duration::from_secs(10);

fn load<'q>(server: &Swiftlet, queries: &'q Queries, limit: Limit, window: usize) -> Load<'q> {
    Load {
        server: server.dns,
        queries,
        sockets: 8,
        window,
        limit,
        timeout: TIMEOUT,
        threads: 1,
        cores: &[],
    }
}

/// By how much the server's counters grew: queries received, answered and dropped.
fn growth(before: &Metrics, after: &Metrics) -> [u64; 3] {
    let counts = |metrics: &Metrics| {
        let [received, answered] = ["queries_received", "queries_answered"].map(|n| metrics.get(n));
        [received, answered, metrics.sum("queries_dropped")]
    };
    let (before, after) = (counts(before), counts(after));
    std::array::from_fn(|index| after[index] - before[index])
}

/// Every query that the generator sent and every answer that it read is one of the server's, and
/// what was lost is known to have been lost where.
fn check(report: &Report, [received, answered, dropped]: [u64; 3]) {
    assert_eq!(report.sent + report.unsent, u64::from(RATE * SECONDS), "{report}");
    assert_eq!(report.sent, report.answered + report.lost, "{report}");
    assert_eq!(answered, report.answered + report.overruns, "{report}");
    assert_eq!((report.mismatched, report.unreachable), (0, 0), "{report}");
    // The server's socket drops what it has no room for; nobody else may lose anything.
    let not_received = report.sent.checked_sub(received).expect("no more than was sent");
    assert_eq!(report.lost, not_received + dropped + report.overruns, "{report}");
}

/// The number after a label of dnsperf's.
fn number(text: &str, label: &str) -> f64 {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(label));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no {label} in {text}"))
}

/// dnsperf's rate, its counts checked against the server's.
fn dnsperf(server: &Swiftlet, file: &std::path::Path) -> f64 {
    let before = server.settled();
    let output = Command::new("dnsperf")
        .args(["-s", &server.dns.ip().to_string(), "-p", &server.dns.port().to_string()])
        .args(["-l", &SECONDS.to_string(), "-Q", &RATE.to_string()])
        .args(["-c", "8", "-q", "2000", "-d"])
        .arg(file)
        .output()
        .expect("dnsperf runs: `make test` installs Debian's package dnsperf");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let [received, answered, _] = growth(&before, &server.settled());
    // It tells nothing of what its own sockets dropped.
    assert!(number(&text, "Queries sent:") >= received as f64, "{received} received: {text}");
    assert!(number(&text, "Queries completed:") <= answered as f64, "{answered} answered: {text}");
    number(&text, "Queries per second:")
}

#[test]
fn the_generator_counts_as_the_server_and_dnsperf_do() {
    let authority = Authority::start(([127, 0, 0, 1], 0).into()).expect("an authority");
    let server = Swiftlet::start(&[("FORWARD", &authority.address().to_string())]);
    let names: Vec<String> = (0..NAMES).map(|n| format!("n{n}.example")).collect();
    let queries = Queries::for_names(names.iter().map(String::as_str)).expect("names");
    let home = tempfile::tempdir().expect("a temporary directory");
    let file = home.path().join("queries");
    std::fs::write(&file, names.join(" A\n") + " A\n").expect("written");
    let warmed = run(&load(&server, &queries, Limit::Each, 8)).expect("runs");
    assert_eq!(warmed.answered, NAMES as u64, "{warmed}");

    let mut rates = Vec::new();
    for _ in 0..TRIES {
        let before = server.settled();
        let limit = Limit::For(Duration::from_secs(SECONDS.into()));
        let options = Options { rate: Some(f64::from(RATE)), ..Options::default() };
        let load = load(&server, &queries, limit, 8 * swiftlet_loadtest::MAX_WINDOW_PER_SOCKET);
        let report = run_with(&load, &options, &mut |_| {}).expect("runs");
        check(&report, growth(&before, &server.settled()));
        let (ours, theirs) = (report.rate(), dnsperf(&server, &file));
        if (0.95..=1.05).contains(&(ours / theirs))
            && (0.95..1.05).contains(&(ours / f64::from(RATE)))
        {
            return;
        }
        rates.push((ours, theirs));
    }
    panic!("answers per second, ours and dnsperf's: {rates:?}");
}
