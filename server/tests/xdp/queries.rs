//! Queries and answers, as clients see them.

use crate::capture::Capture;
use crate::load::{Clients, until_answered};
use crate::rig::{INTERFACE, LINK_LOCAL, V4, V6, account, run, with_link};

/// What is known leaves in the frame of its query; what is not comes through the ordinary socket. tcpdump
/// finds the checksums of both right.
#[test]
fn both_families_are_answered_in_place() {
    with_link("queries::both_families_are_answered_in_place", |rig| {
        // Else the kernel leaves the checksums of its own datagrams to a device that is none.
        run(&format!("ethtool -K {INTERFACE} tx off"));
        let server = rig.serve(&[]);
        let line = format!("backend af-xdp on {INTERFACE} (native, copy; queue 0)");
        assert!(server.logged.iter().any(|logged| logged.contains(&line)), "{:?}", server.logged);
        let capture = Capture::start(rig, 8, "udp and src port 53");
        for address in [V4, V6] {
            for name in [
                "www.example",
                "www.example",
                "www.example",
                &format!("x{}.example", address.len()),
            ] {
                rig.ask(address, name);
            }
        }
        let seen = capture.finish();
        assert!(!seen.contains("bad") && !seen.contains("incorrect"), "{seen}");
        assert_eq!(seen.matches("udp sum ok").count(), 8, "{seen}");
        assert!(seen.contains("ttl 64") && seen.contains("hlim 64"), "{seen}");
        let account = account(&server);
        assert_eq!((account.received, account.answered, account.dropped), (8, 5, 0));
        assert_eq!(account.metrics.get("queries_received"), 8);
        assert_eq!(account.metrics.get("queries_answered"), 8);
    });
}

/// A tag in the frame is kept; one that the device holds beside it is the kernel's.
#[test]
fn a_vlan_is_answered_with_its_tag() {
    with_link("queries::a_vlan_is_answered_with_its_tag", |rig| {
        if !rig.add_vlan(7) {
            eprintln!("skipped: this kernel has no VLANs (CONFIG_VLAN_8021Q)");
            return;
        }
        const VLAN_V4: &str = "10.78.7.1";
        let server = rig.serve(&[("LISTEN", &format!("{VLAN_V4}:53"))]);
        rig.run("ethtool -K eth0 txvlan off");
        rig.ask(VLAN_V4, "www.example");
        let capture = Capture::start(rig, 1, "vlan 7 and udp and src port 53");
        rig.ask(VLAN_V4, "www.example");
        let seen = capture.finish();
        assert!(seen.contains("vlan 7, p 0") && seen.contains("udp sum ok"), "{seen}");
        let before = account(&server);
        assert_eq!((before.received, before.answered), (2, 1));
        rig.run("ethtool -K eth0 txvlan on");
        rig.ask(VLAN_V4, "www.example");
        let after = account(&server);
        assert_eq!((after.received, after.metrics.get("queries_answered")), (2, 3));
    });
}

/// Wildcards serve the addresses that the interface has, and answer from the one asked.
#[test]
fn wildcards_are_answered_from_the_address_asked() {
    with_link("queries::wildcards_are_answered_from_the_address_asked", |rig| {
        run(&format!("ip address add 10.78.0.9/24 dev {INTERFACE}"));
        let server = rig.serve(&[("LISTEN", "0.0.0.0:53,[::]:53"), ("XDP_INTERFACE", INTERFACE)]);
        // The miss and the hit; dig takes no answer from elsewhere.
        let link_local = format!("{LINK_LOCAL}%eth0");
        for (number, address) in [V4, "10.78.0.9", V6, &link_local].iter().enumerate() {
            for _ in 0..2 {
                rig.ask(address, &format!("n{number}.example"));
            }
        }
        let before = account(&server);
        assert_eq!((before.received, before.answered), (8, 4));
        // Not there at the start: the ordinary socket has it.
        run(&format!("ip address add 10.78.0.10/24 dev {INTERFACE}"));
        rig.ask("10.78.0.10", "www.example");
        assert_eq!(account(&server).received, 8);
    });
}

/// What is none of ours takes its usual way, while queries are served beside it all the time.
#[test]
fn other_traffic_keeps_its_way() {
    with_link("queries::other_traffic_keeps_its_way", |rig| {
        let server = rig.serve(&[]);
        let clients = Clients::start(rig);
        for address in [V4, V6] {
            until_answered(&server, 100);
            assert_eq!(rig.dig(address, "+tcp +short www.example A"), "192.0.2.1\n");
            rig.ping(address);
        }
        // The neighbour's MAC has to be asked for anew: ARP, and neighbour discovery.
        until_answered(&server, 100);
        rig.run("ip neigh flush dev eth0");
        rig.ping(V4);
        rig.ping(V6);
        rig.ask(V6, "www.example");
        // Nobody listens there, and the kernel says so.
        let mut dig = rig.far.command("dig");
        let output = dig.args([&format!("@{V4}"), "-p", "54", "+tries=1", "a"]).output();
        let output = output.expect("dig runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("connection refused"), "{said}");
        until_answered(&server, 100);
        clients.end();
        let account = account(&server);
        // Those over TCP are all that the sockets had.
        assert_eq!(account.metrics.get("queries_received"), account.received + 2);
        assert!(account.passed >= 12, "{}", account.passed);
    });
}

/// An answer that the interface cannot carry in one packet is cut; TCP has all of it.
#[test]
fn an_answer_beyond_the_mtu_is_truncated() {
    with_link("queries::an_answer_beyond_the_mtu_is_truncated", |rig| {
        run(&format!("ip link set {INTERFACE} mtu 600"));
        let server = rig.serve(&[("LISTEN", &format!("{V4}:53"))]);
        // The miss comes through the socket, whose kernel makes fragments.
        let missed = rig.dig(V4, "+bufsize=1232 +ignore big.example TXT");
        assert!(missed.contains("ANSWER: 5,") && !missed.contains(" tc "), "{missed}");
        let hit = rig.dig(V4, "+bufsize=1232 +ignore big.example TXT");
        assert!(hit.contains("flags: qr tc rd ra"), "{hit}");
        let (_, size) = hit.split_once("rcvd: ").expect("dig says how long it was");
        assert!(size.trim().parse::<u32>().is_ok_and(|size| size <= 600 - 28), "{hit}");
        let account = account(&server);
        assert_eq!((account.received, account.answered), (2, 1));
        let whole = rig.dig(V4, "+bufsize=1232 big.example TXT");
        assert!(whole.contains("ANSWER: 5,") && whole.contains("(TCP)"), "{whole}");
    });
}
