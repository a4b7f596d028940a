//! Interfaces that come and go under the server, and servers that do.

use std::process::Command;

use crate::load::{Clients, until_answered};
use crate::rig::{INTERFACE, V4, account, is_filtered, run, until, with_link};

#[test]
fn an_interface_may_go_down_and_come_up() {
    with_link("lifecycle::an_interface_may_go_down_and_come_up", |rig| {
        let server = rig.serve(&[]);
        let clients = Clients::start(rig);
        for end in ["near", "far"] {
            let set = |state: &str| match end {
                "near" => run(&format!("ip link set {INTERFACE} {state}")),
                _ => rig.run(&format!("ip link set eth0 {state}")),
            };
            // Replies are under way when it goes down.
            until_answered(&server, 1000);
            set("down");
            assert!(is_filtered(INTERFACE), "{end}");
            set("up");
            rig.ask_until_answered(V4, "www.example");
            until_answered(&server, 1000);
        }
        clients.end();
        account(&server);
    });
}

/// The other interface is served on, and nothing keeps the server from ending.
#[test]
fn an_interface_may_be_deleted() {
    const ASKED: u64 = 20;
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
        // What is left of the other does not keep a worker awake: that would turn thousands of times
        // while dig is run, however little of the processor it got.
        let turns = || server.metrics().get("worker_turns");
        let before = turns();
        for _ in 0..ASKED {
            rig.ask("10.78.1.1", "www.example");
        }
        let turned = turns() - before;
        eprintln!("{turned} turns for {ASKED} queries");
        assert!(turned < 50 * ASKED, "{turned} turns for {ASKED} queries");
        server.signal("TERM");
        assert_eq!(server.wait().0.code(), Some(0));
    });
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
