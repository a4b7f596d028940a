//! Interfaces that come and go under the server, and servers that do.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::load::names;
use crate::rig::{INTERFACE, V4, account, is_filtered, run, until, with_link};
use crate::support::Swiftlet;

#[test]
fn an_interface_may_go_down_and_come_up() {
    with_link("lifecycle::an_interface_may_go_down_and_come_up", |rig| {
        let server = rig.serve(&[]);
        // Replies are under way when it goes down.
        let names = names();
        let mut dnsperf = rig.far.command("dnsperf");
        dnsperf.args(["-s", V4, "-t", "1", "-l", "60", "-Q", "5000", "-d"]).arg(names.path());
        let mut dnsperf =
            dnsperf.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
        for end in ["near", "far"] {
            let set = |state: &str| match end {
                "near" => run(&format!("ip link set {INTERFACE} {state}")),
                _ => rig.run(&format!("ip link set eth0 {state}")),
            };
            until("answers", || server.metrics().sum("xdp_answered") > 1000);
            set("down");
            assert!(is_filtered(INTERFACE), "{end}");
            let answered = server.metrics().sum("xdp_answered");
            set("up");
            rig.ask_until_answered(V4, "www.example");
            until("more answers", || server.metrics().sum("xdp_answered") > answered + 1000);
        }
        dnsperf.kill().and_then(|()| dnsperf.wait()).expect("it still runs");
        account(&server);
    });
}

/// The other interface is served on, and nothing keeps the server from ending.
#[test]
fn an_interface_may_be_deleted() {
    with_link("lifecycle::an_interface_may_be_deleted", |rig| {
        rig.add_link("swp1", "eth1", 1, 1);
        let mut server = rig.serve(&[("LISTEN", &format!("{V4}:53,10.78.1.1:53"))]);
        for address in [V4, "10.78.1.1"] {
            rig.ask(address, "www.example");
            rig.ask(address, "www.example");
        }
        assert_eq!(account(&server).received, 4);
        run(&format!("ip link del {INTERFACE}"));
        for _ in 0..2 {
            rig.ask("10.78.1.1", "www.example");
        }
        let account = account(&server);
        assert_eq!((account.received, account.answered), (6, 5));
        // What is left of the other does not keep a worker awake.
        let before = cpu_ticks(&server);
        std::thread::sleep(Duration::from_millis(300));
        assert!(cpu_ticks(&server) - before < 15, "the server is busy with nothing");
        server.signal("TERM");
        assert_eq!(server.wait().0.code(), Some(0));
    });
}

/// Processor time of a server so far, in hundredths of a second.
fn cpu_ticks(server: &Swiftlet) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("the name in parentheses");
    fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

/// Whatever ends the process takes the filter along, and the kernel has all frames again.
#[test]
fn a_killed_server_leaves_no_filter() {
    with_link("lifecycle::a_killed_server_leaves_no_filter", |rig| {
        let mut server = rig.serve(&[]);
        rig.ask(V4, "www.example");
        assert!(is_filtered(INTERFACE));
        assert!(programs_on_interfaces().contains(INTERFACE));
        server.signal("KILL");
        server.wait();
        // The kernel lets go of what a process had while that ends, and shortly after.
        until("the filter to be gone", || !is_filtered(INTERFACE));
        assert!(!programs_on_interfaces().contains(INTERFACE));
        rig.ping(V4);
        let sockets = rig.serve_over_sockets();
        rig.ask(V4, "www.example");
        drop(sockets);
        // And the queue is free for the next.
        let server = rig.serve(&[]);
        rig.ask(V4, "www.example");
        assert_eq!(account(&server).received, 1);
    });
}

fn programs_on_interfaces() -> String {
    let output = Command::new("bpftool").arg("net").output().expect("`make test` installs bpftool");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An announced stop is served through by AF_XDP; its end leaves nothing behind.
#[test]
fn a_stop_is_served_through_and_takes_the_filter_off() {
    with_link("lifecycle::a_stop_is_served_through_and_takes_the_filter_off", |rig| {
        let mut server = rig.serve(&[("LAMEDUCK_MS", "1500")]);
        rig.ask(V4, "www.example");
        server.signal("TERM");
        assert!(server.wait_for_log("then stopping"), "{:?}", server.logged);
        for name in ["www.example", "new.example"] {
            rig.ask(V4, name);
        }
        assert_eq!(server.wait().0.code(), Some(0));
        assert!(!is_filtered(INTERFACE));
    });
}
