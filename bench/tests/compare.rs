//! A whole comparison with rounds that are far too short to say anything, of what is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use swiftlet_bench::compare::Settings;
use swiftlet_bench::outcome::{Finding, Outcome};
use swiftlet_bench::peers::PEERS;
use swiftlet_bench::report::chart;
use swiftlet_bench::report::markdown::Page;
use swiftlet_bench::subject::{Kind, Subject};
use swiftlet_bench::workload::Workload;

const BENCH: &str = env!("CARGO_BIN_EXE_swiftlet-bench");

/// The echo, its twin, knotd if it is there, and a server that ends at its start.
fn compare(workload: Workload, stop: bool) -> anyhow::Result<Outcome> {
    let mut subjects = vec![Subject::ours(Path::new("/bin/false"))];
    let knotd = PEERS.iter().find(|peer| peer.name == "knotd").expect("a peer");
    match knotd.find() {
        Some(program) => subjects.push(Subject::peer(knotd, program)),
        None => eprintln!("knotd is not there, and so not compared"),
    }
    let core = usable_core();
    let settings = Settings {
        bench: PathBuf::from(BENCH),
        subjects,
        absent: vec!["nobody"],
        pairs: 2,
        round: Duration::from_millis(60),
        latency_round: Duration::from_millis(40),
        server_core: core,
        generator_core: core,
        memory_names: 1000,
        stop: &AtomicBool::new(stop),
    };
    settings.run(workload)
}

#[test]
fn all_who_start_are_compared_and_who_does_not_is_told() {
    for workload in [Workload::Hit, Workload::Tcp] {
        let outcome = compare(workload, false).expect("measured");
        assert!(!outcome.is_claim);
        assert_eq!(outcome.rows[0].kind, Kind::Echo);
        assert_eq!(outcome.rows[1].kind, Kind::Twin);
        for row in &outcome.rows {
            match &row.finding {
                Finding::Rounds(measured) => {
                    let expected = if row.kind == Kind::Echo { 0 } else { 2 };
                    assert_eq!(measured.pairs.len(), expected, "{row:?}");
                    assert!(measured.summary.rate > 0.0 && measured.summary.per_answer_ns > 0.0);
                    let latency = measured.latency.expect("measured");
                    assert!(latency.answered > 0 && latency.p50_us > 0.0, "{latency:?}");
                }
                Finding::Failed(reason) => {
                    assert_eq!(row.kind, Kind::Ours, "{reason}");
                    assert!(reason.contains("ended"), "{reason}");
                }
                Finding::Memory(_) => panic!("{row:?}"),
            }
        }
        let page = Page(&outcome).to_string();
        assert!(page.contains("NO CLAIM") && page.contains("not measured: nobody"), "{page}");
        assert!(page.contains("**swiftlet** could not be measured"), "{page}");
        roxmltree::Document::parse(&chart::draw(&outcome)).expect("well-formed");
        let json = serde_json::to_value(&outcome).expect("JSON");
        assert_eq!(json["rows"][1]["rounds"]["pairs"].as_array().map(Vec::len), Some(2), "{json}");
    }
}

#[test]
fn a_stop_is_an_error_and_no_result() {
    let error = compare(Workload::Hit, true).expect_err("stopped");
    assert_eq!(error.to_string(), "interrupted");
}

#[test]
fn memory_of_who_fails_is_told_too() {
    let outcome = compare(Workload::Memory, false).expect("measured");
    assert_eq!(outcome.rows.len(), 1, "neither an echo nor an authoritative server caches");
    assert!(matches!(outcome.rows[0].finding, Finding::Failed(_)));
}

#[test]
fn the_program_writes_its_files_and_refuses_what_is_not_there() {
    let results = tempfile::tempdir().expect("a directory");
    let bench = |arguments: &[&str]| -> Output {
        let mut command = Command::new(BENCH);
        command.arg("compare").args(arguments).args(["--server", "/bin/false"]);
        command.output().expect("runs")
    };
    let directory = results.path().join("new");
    let path = directory.to_str().expect("a plain path");
    let output = bench(&["--workload", "memory", "--memory-names", "1000", "--results", path]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let page = fs::read_to_string(directory.join("memory.md")).expect("written");
    assert_eq!(page.trim_end(), text(&output.stdout).trim_end());
    for file in ["memory.svg", "memory.json"] {
        assert!(fs::metadata(directory.join(file)).expect("written").len() > 100, "{file}");
    }

    let output = bench(&["--peer", "nobody"]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("no peer nobody"), "{}", text(&output.stderr));
}

/// A core that this process may use, by the list in its status.
fn usable_core() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("readable");
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .expect("a list of cores");
    let first = list.trim().split([',', '-']).next().expect("one core");
    first.parse().expect("a number")
}
