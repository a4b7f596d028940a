//! Where AF_XDP is not to be had: who is in the way or what is missing is said, and sockets serve unless
//! that was forbidden.

use std::process::Command;

use crate::rig::{
    INTERFACE, V4, account, is_filtered, output, run, run_by, with_link, with_queues,
};
use crate::support::program;

/// A second server would take the queries of the first; no fallback hides that.
#[test]
fn a_second_server_stops_and_says_who_is_there() {
    with_link("refusals::a_second_server_stops_and_says_who_is_there", |rig| {
        run(&format!("ip address add 10.78.0.3/24 dev {INTERFACE}"));
        let first = rig.serve(&[]);
        for fallback in ["true", "false"] {
            let said =
                rig.refusal(program(), &[("LISTEN", "10.78.0.3:53"), ("XDP_FALLBACK", fallback)]);
            assert!(said.contains(&format!("another XDP program is on {INTERFACE}")), "{said}");
            assert!(said.contains(&program_on(INTERFACE)) && said.contains("swiftlet"), "{said}");
        }
        rig.ask(V4, "www.example");
        assert_eq!(account(&first).received, 1);
    });
}

/// The number of the program on an interface, as `ip` shows it.
fn program_on(interface: &str) -> String {
    let shown = output(&format!("ip -d link show dev {interface}"));
    let (_, id) = shown.split_once("prog/xdp id ").expect("a program");
    id.split_whitespace().next().expect("a number").into()
}

/// A program that somebody put there by hand, which no process holds.
#[test]
fn a_foreign_program_is_left_alone() {
    with_link("refusals::a_foreign_program_is_left_alone", |rig| {
        rig.add_link("swp1", "eth1", 1, 1);
        // Any program will do: that of a server on another interface.
        let other = rig.serve(&[("LISTEN", "10.78.1.1:53")]);
        let id = program_on("swp1");
        run(&format!("bpftool net attach xdp id {id} dev {INTERFACE}"));
        for mode in ["auto", "copy", "generic"] {
            let said = rig.refusal(program(), &[("XDP_MODE", mode), ("XDP_FALLBACK", "true")]);
            assert!(said.contains(&format!("another XDP program is on {INTERFACE}")), "{said}");
            assert!(
                said.contains(&id) && said.contains(&format!("ip link set dev {INTERFACE} xdp")),
                "{said}"
            );
        }
        assert_eq!(program_on(INTERFACE), id);
        drop(other);
        // As the message says.
        run(&format!("ip link set dev {INTERFACE} xdp off"));
        assert!(!is_filtered(INTERFACE));
        let _server = rig.serve(&[]);
    });
}

/// The capability that is missing is named; sockets serve, unless that was forbidden.
#[test]
fn a_missing_capability_is_named() {
    with_link("refusals::a_missing_capability_is_named", |rig| {
        for (dropped, named) in [
            ("-net_admin,-bpf,-sys_admin", "CAP_BPF"),
            ("-bpf,-sys_admin", "CAP_BPF"),
            ("-net_admin,-sys_admin", "CAP_NET_ADMIN"),
            ("-net_raw", "CAP_NET_RAW"),
        ] {
            let without =
                || run_by(&format!("setpriv --bounding-set {dropped} --inh-caps {dropped}"));
            let said = rig.refusal(without(), &[]);
            assert!(said.contains(named) && said.contains("--cap-add"), "{dropped}: {said}");
            assert!(said.contains("SWIFTLET_XDP_FALLBACK"), "{dropped}: {said}");
            assert!(!is_filtered(INTERFACE), "{dropped}");
            let server = rig.serve_by(without, &[("XDP_FALLBACK", "true")]);
            let log = server.logged.join("\n");
            assert!(log.contains("WARN") && log.contains(named), "{dropped}: {log}");
            rig.ask(V4, "www.example");
            assert_eq!(server.settled().get("queries_answered"), 1, "{dropped}");
        }
    });
}

/// The memory of sockets is locked, which users have a limit for.
#[test]
fn a_limit_on_locked_memory_is_named() {
    with_link("refusals::a_limit_on_locked_memory_is_named", |rig| {
        let limited = || -> Command {
            run_by(
                "prlimit --memlock=65536:65536 setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock",
            )
        };
        let said = rig.refusal(limited(), &[]);
        assert!(said.contains("65536") && said.contains("ulimit -l"), "{said}");
        let server = rig.serve_by(limited, &[("XDP_FALLBACK", "true")]);
        rig.ask(V4, "www.example");
        assert_eq!(server.settled().get("queries_answered"), 1);
    });
}

/// Nothing is guessed: a setting that cannot be met is refused with what there is.
#[test]
fn what_the_interface_does_not_have_is_refused() {
    with_queues("refusals::what_the_interface_does_not_have_is_refused", 2, |rig| {
        run("ip link set lo up");
        rig.add_link("swp1", "eth1", 1, 1);
        for (settings, expected) in [
            (&[("XDP_QUEUES", "0,2")][..], &["no receive queue 2", "ethtool -l"][..]),
            (&[("XDP_MODE", "zero-copy")], &["zero-copy", "SWIFTLET_XDP_MODE=copy"]),
            (&[("XDP_INTERFACE", "swp9")], &["no interface swp9", INTERFACE]),
            (&[("XDP_INTERFACE", "swp1")], &["swp1 carries none", "10.78.1.1"]),
        ] {
            let said = rig.refusal(program(), settings);
            for text in expected {
                assert!(said.contains(text), "{settings:?}: '{text}' is not in {said}");
            }
            assert!(!is_filtered(INTERFACE), "{settings:?}");
        }
        run(&format!("ip link set {INTERFACE} down"));
        let said =
            rig.refusal(program(), &[("XDP_INTERFACE", INTERFACE), ("LISTEN", "0.0.0.0:53")]);
        assert!(said.contains(&format!("{INTERFACE} is down")), "{said}");
    });
}

/// The mode that works with each driver serves as well.
#[test]
fn the_generic_mode_serves() {
    with_link("refusals::the_generic_mode_serves", |rig| {
        let server = rig.serve(&[("XDP_MODE", "generic")]);
        let line = format!("backend af-xdp on {INTERFACE} (generic, copy; queue 0)");
        assert!(server.logged.iter().any(|logged| logged.contains(&line)), "{:?}", server.logged);
        rig.ask(V4, "www.example");
        rig.ask(V4, "www.example");
        let account = account(&server);
        assert_eq!((account.received, account.answered), (2, 1));
        assert_eq!(account.metrics.get("backend{asked=\"af-xdp\",in_use=\"af-xdp\"}"), 1);
    });
}
