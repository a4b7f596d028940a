//! A volley at each side of a comparison over AF_XDP, with all of its real parts: links, kxdpgun, the bare
//! echo and the server. The comparison itself takes minutes, most of which kxdpgun waits for late replies,
//! and rates that a busy machine cannot bear.

#![cfg(feature = "af-xdp")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::libc::AF_XDP;
use socket2::{Domain, Socket, Type};
use swiftlet_bench::echo::Over;
use swiftlet_bench::peers::Setup;
use swiftlet_bench::process::Process;
use swiftlet_bench::rounds::{queries_for, synthetic_names};
use swiftlet_bench::xdp::gun::Gun;
use swiftlet_bench::xdp::rig::{Link, Rig};
use swiftlet_loadtest::Authority;

const BENCH: &str = env!("CARGO_BIN_EXE_swiftlet-bench");

/// Far below what either bears.
const RATE: u64 = 1000;
const DURATION: Duration = Duration::from_millis(100);

/// A machine that stands still for a second makes replies too late for kxdpgun.
const TRIES: usize = 10;

#[test]
fn every_frame_of_a_volley_is_accounted_for() {
    let server = match needs() {
        Ok(server) => server,
        Err(why) => {
            let required = std::env::var("SWIFTLET_REQUIRE_AF_XDP").is_ok_and(|set| set == "1");
            assert!(!required, "{why}");
            return eprintln!("skipped: {why}");
        }
    };
    let cores = swiftlet_net::cores::usable().ids;
    let [server_core, generator_core] = [cores[0], cores[cores.len() - 1]];
    let mut rig = Rig::build(server_core, generator_core).expect("built");
    let authority = Authority::start(([127, 0, 0, 1], 0).into()).expect("starts");
    let names = synthetic_names(20);
    let gun = Gun::new(&names, generator_core).expect("made");
    let query = queries_for(&names).expect("valid names");
    let mut volley_at = |name: &str, start: &dyn Fn(&Link) -> anyhow::Result<Process>| {
        let link = rig.link().expect("made");
        let mut process = start(&link).expect("starts");
        process.wait_until_it_answers(query.get(0)).expect("answers");
        account(name, &rig, &link, &gun);
    };
    volley_at("the echo", &|link| {
        Process::echo_at(link.target(), Over::AfXdp, "echo", BENCH.as_ref(), server_core, 0)
    });
    volley_at("the server", &|link| {
        let setup = Setup {
            core: server_core,
            upstream: authority.address(),
            cache_names: names.len(),
            names: &names,
        };
        let settings = [("SWIFTLET_BACKEND", "af-xdp"), ("SWIFTLET_XDP_FALLBACK", "false")];
        Process::variant_at(link.target(), "swiftlet", &server, &setup, &settings)
    });
}

/// The server's program, or why this cannot be measured here.
fn needs() -> Result<PathBuf, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("network namespaces and AF_XDP need root".into());
    }
    if let Err(error) = Socket::new(Domain::from(AF_XDP), Type::RAW, None) {
        return Err(format!("this kernel or container has no AF_XDP: {error}"));
    }
    // Cargo builds the programs of other crates only with those.
    let server = Path::new(BENCH).with_file_name("swiftlet");
    let mut config = Command::new(&server);
    config.arg("config").env_clear();
    config.env("SWIFTLET_BACKEND", "af-xdp").env("SWIFTLET_FORWARD", "192.0.2.1");
    match config.output() {
        Ok(output) if output.status.success() => Ok(server),
        Ok(output) => {
            Err(format!("{}: {}", server.display(), String::from_utf8_lossy(&output.stderr).trim()))
        }
        Err(error) => {
            Err(format!("no server at {} (`make test` builds it): {error}", server.display()))
        }
    }
}

/// Asks until a volley is answered as a whole, and follows its frames there and back.
fn account(name: &str, rig: &Rig, link: &Link, gun: &Gun) {
    for _ in 0..TRIES {
        let before = rig.counters(link).expect("read");
        let napi_ns = link.napi_ns().expect("there");
        let volley = gun.fire(rig, link, RATE, DURATION).expect("fired");
        assert!(volley.sent >= 90 && volley.received <= volley.sent, "{name}: {volley:?}");
        if volley.received < volley.sent {
            eprintln!("{name}, again: {volley:?}");
            continue;
        }
        let after = rig.counters(link).expect("read");
        let [at_server, at_generator] = [0, 1].map(|end| after[end].since(before[end]));
        for (place, frames) in [
            ("sent by the generator", at_generator.sent),
            ("received by the server's interface", at_server.received),
            ("redirected by the filter", at_server.redirected),
            ("sent by the server's interface", at_server.sent),
            ("received by the generator's interface", at_generator.received),
            ("redirected to kxdpgun", at_generator.redirected),
        ] {
            assert_eq!(frames, volley.sent, "{name}: {place}");
        }
        let now_ns = link.napi_ns().expect("there");
        assert!((0..2).all(|end| now_ns[end] > napi_ns[end]), "{name}: received by NAPI");
        return;
    }
    panic!("{name} left queries without an answer in each of {TRIES} volleys");
}
