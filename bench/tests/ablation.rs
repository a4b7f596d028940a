//! An ablation and a comparison of backends with rounds that are far too short to say anything. The
//! server is an echo that reads the server's settings, and refuses two of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use swiftlet_bench::ablation::{Settings, Variant, switches};
use swiftlet_bench::backends;
use swiftlet_bench::report::{self, forest};
use swiftlet_bench::workload::Workload;
use tempfile::TempDir;

const BENCH: &str = env!("CARGO_BIN_EXE_swiftlet-bench");

/// A program that stands in for the server.
fn server(directory: &TempDir) -> PathBuf {
    let program = directory.path().join("server");
    let script = format!(
        "#!/bin/sh\n\
         if [ \"$SWIFTLET_HUGE_PAGES$SWIFTLET_BACKEND\" = true ]; then echo no huge pages >&2; exit 2; fi\n\
         if [ \"$SWIFTLET_BACKEND\" = io-uring ]; then echo no io_uring >&2; exit 2; fi\n\
         exec {BENCH} echo --listen \"$SWIFTLET_LISTEN\"\n"
    );
    fs::write(&program, script).expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    program
}

#[test]
fn each_switch_is_measured_or_says_why_not() {
    let directory = TempDir::new().expect("made");
    let program = server(&directory);
    let names = ["batch-16", "huge-pages", "jemalloc"].map(str::to_owned);
    let variant = |switch: &'static switches::Switch| {
        let program = match switch.name {
            "jemalloc" => Err("it cannot be built".to_owned()),
            _ => Ok(program.clone()),
        };
        Variant { switch, program }
    };
    let core = usable_core();
    let settings = Settings {
        default: program.clone(),
        variants: switches::find(&names).expect("known").into_iter().map(variant).collect(),
        workloads: vec![Workload::Hit],
        pairs: 2,
        round: Duration::from_millis(40),
        server_core: core,
        generator_core: core,
        stop: &AtomicBool::new(false),
    };
    let outcome = settings.run().expect("measured");
    assert!(!outcome.is_claim);
    assert_eq!(outcome.scenes.iter().map(|scene| scene.ports).collect::<Vec<_>>(), [8, 1000]);
    for scene in &outcome.scenes {
        assert!(scene.default.per_answer_ns > 0.0 && scene.twin.ratio.is_some(), "{scene:?}");
        assert_eq!(scene.cells.len(), 1, "{scene:?}");
        assert_eq!(scene.cell("batch-16").map(|cell| cell.pairs.len()), Some(2));
        let [jemalloc, huge_pages] = &scene.left_out[..] else { panic!("{scene:?}") };
        assert_eq!(jemalloc.reason, "it cannot be built");
        assert!(huge_pages.reason.ends_with("it said: no huge pages"), "{huge_pages:?}");
    }
    let page = report::ablation::Page(&outcome).to_string();
    assert!(page.contains("NO CLAIM") && page.contains("## Not measured"), "{page}");
    roxmltree::Document::parse(&forest::draw(&outcome)).expect("well-formed");
    let json = serde_json::to_value(&outcome).expect("JSON");
    let pair = &json["scenes"][1]["cells"][0]["pairs"][1];
    assert!(pair["yardstick"]["cpu_ns"].as_u64() > Some(0), "{json}");
}

#[test]
fn backends_are_measured_as_far_as_they_are_there() {
    let directory = TempDir::new().expect("made");
    let core = usable_core();
    let settings = backends::Settings {
        bench: BENCH.into(),
        server: server(&directory),
        pairs: 2,
        round: Duration::from_millis(40),
        latency_round: Duration::from_millis(40),
        server_core: core,
        generator_core: core,
        stop: &AtomicBool::new(false),
    };
    let outcome = settings.run().expect("measured");
    for scene in &outcome.scenes {
        let names: Vec<&str> = scene.rows.iter().map(|row| &*row.name).collect();
        assert_eq!(names[..2], ["echo, recvmmsg", "echo, recvmmsg again (A/A)"]);
        assert!(names.contains(&"**swiftlet**, epoll"), "{names:?}");
        let refused = scene.left_out.iter().find(|one| one.name == "**swiftlet**, io-uring");
        assert!(refused.is_some_and(|one| one.reason.ends_with("no io_uring")), "{scene:?}");
        assert!(scene.overhead().is_none() && scene.tail().is_none());
    }
    let page = report::backends::Page(&outcome).to_string();
    assert!(page.contains("## 1,000 client ports") && page.contains("not measured"), "{page}");
}

#[test]
fn tails_are_measured_where_both_backends_serve() {
    let directory = TempDir::new().expect("made");
    let program = server(&directory);
    let script = fs::read_to_string(&program).expect("readable");
    fs::write(&program, script.replace("= io-uring", "= nothing")).expect("written");
    let core = usable_core();
    let settings = backends::Settings {
        bench: BENCH.into(),
        server: program,
        pairs: 2,
        round: Duration::from_millis(40),
        latency_round: Duration::from_millis(40),
        server_core: core,
        generator_core: core,
        stop: &AtomicBool::new(false),
    };
    let outcome = settings.run().expect("measured");
    for scene in &outcome.scenes {
        assert_eq!(scene.tails.len(), 2);
        assert!(scene.tail().is_some() && scene.tail_twin().is_some(), "{scene:?}");
    }
}

#[test]
fn what_nobody_knows_is_refused_before_anything_is_built() {
    for (arguments, says) in [
        (["--switch", "no-such"], "no switch no-such; there are no-simd"),
        (["--workload", "tcp"], "switches are measured with hit, zipf, miss"),
    ] {
        let output = Command::new(BENCH).arg("ablation").args(arguments).output().expect("runs");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && complaint.contains(says), "{complaint}");
    }
}

/// A core that this process may use, by the list in its status.
fn usable_core() -> usize {
    let status = fs::read_to_string(Path::new("/proc/self/status")).expect("readable");
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .expect("a list of cores");
    let first = list.trim().split([',', '-']).next().expect("one core");
    first.parse().expect("a number")
}
