//! The whole measuring, with an echo in the server's place.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use swiftlet_bench::hit::Comparison;
use swiftlet_bench::process::Process;
use swiftlet_bench::report::Conditions;
use swiftlet_bench::report::hit::Outcome;
use swiftlet_bench::rounds::{Rounds, queries_for, synthetic_names};
use swiftlet_loadtest::{Authority, Transport};

#[test]
fn an_echo_is_measured_against_an_echo() {
    let bench = Path::new(env!("CARGO_BIN_EXE_swiftlet-bench"));
    let core = usable_core();
    let authority = Authority::start(([127, 0, 0, 1], 0).into()).expect("starts");
    let stop = AtomicBool::new(false);
    let mut rounds = Rounds {
        queries: queries_for(&synthetic_names(100)).expect("valid names"),
        transport: Transport::Udp,
        sockets: 2,
        window: 32,
        generator_core: core,
        duration: Duration::from_millis(40),
        pairs: 3,
        authority: &authority,
        stop: &stop,
        serial: 0,
    };
    let mut conditions = Conditions::read(core, core);
    let echo = |pad| {
        let mut echo = Process::echo("echo", bench, core, pad).expect("starts");
        echo.wait_until_it_answers(rounds.queries.get(0)).expect("answers");
        echo
    };
    let (plain, padded, twin) = (echo(0), echo(16), echo(0));
    let mut done = Vec::new();
    let comparison =
        Comparison::measure(&mut rounds, &plain, &padded, &twin, |pairs| done.push(pairs))
            .expect("measured");
    conditions.finish();

    assert_eq!(done, [1, 2, 3]);
    assert_eq!((comparison.subject.len(), comparison.twin.len()), (3, 3));
    for pair in comparison.subject.iter().chain(&comparison.twin) {
        for sample in [pair.a, pair.b] {
            assert_eq!((sample.failed, sample.upstream), (0, 0));
            assert!(sample.answered > 0 && sample.cpu_ns > 0, "{sample:?}");
        }
    }
    // How much they differ is the machine's affair; that both are measured is ours.
    let ratio = comparison.ratio().expect("pairs");
    assert!(ratio.low > 0.0 && ratio.high.is_finite(), "{ratio:?}");

    let outcome = Outcome {
        subject: "padded",
        rounds: &rounds,
        conditions: &conditions,
        pad: 16,
        upstream: 0,
        comparison: &comparison,
    };
    let table = outcome.to_string();
    assert!(table.contains("padded / echo") && table.contains("A/A"), "{table}");
    let json: serde_json::Value = serde_json::from_str(&outcome.to_json()).expect("JSON");
    assert_eq!(json["subject_pairs"].as_array().map(Vec::len), Some(3));
    assert!(json["aa_pairs"][2]["other"]["cpu_ns"].as_u64() > Some(0), "{json}");
}

#[test]
fn a_dropped_process_is_gone() {
    let bench = Path::new(env!("CARGO_BIN_EXE_swiftlet-bench"));
    let mut echo = Process::echo("echo", bench, usable_core(), 0).expect("starts");
    echo.wait_until_it_answers(&[1; 12]).expect("answers");
    let proc = format!("/proc/{}", echo.pid());
    assert!(Path::new(&proc).exists());
    drop(echo);
    assert!(!Path::new(&proc).exists());
}

/// A core that this process may use, by the list in its status.
fn usable_core() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .expect("a list of cores");
    let first = list.trim().split([',', '-']).next().expect("one core");
    first.parse().expect("a number")
}
