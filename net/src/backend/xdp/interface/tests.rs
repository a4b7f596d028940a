//! The plan on links that are made up, and on real ones; and what is said of programs on them.

use std::process::Command;

use super::*;
use crate::backend::Xdp;
use crate::backend::contract::runs_here;
use crate::backend::xdp::filter::Filter;
use crate::backend::xdp::links::Vlan;
use crate::backend::xdp::rig::{isolated, run};
use crate::backend::xdp::{Mode, Request, open};

/// lo, eth0 with a VLAN 7, eth1 (down), wg0 (no frames), veth0 (link-local alone), dummy0, VLANs that
/// cannot be served, a bond and a team without parts, what the kernel calls by another name but has a part,
/// and a bridge with one.
fn host() -> Host {
    let link = |index: u32, name: &str| Link {
        index,
        name: name.into(),
        mac: Some([2, 0, 0, 0, 0, index as u8]),
        mtu: 1500,
        up: true,
        loopback: false,
        kind: String::new(),
        master: None,
        vlan: None,
        program: None,
    };
    let vlan = |lower, id, customer| Some(Vlan { lower, id, customer });
    let links = vec![
        Link { loopback: true, mac: Some([0; 6]), ..link(1, "lo") },
        link(2, "eth0"),
        Link { up: false, ..link(3, "eth1") },
        Link { mac: None, ..link(4, "wg0") },
        link(5, "veth0"),
        Link { kind: "dummy".into(), ..link(6, "dummy0") },
        Link { vlan: vlan(Some(2), 7, true), mtu: 1400, ..link(7, "eth0.7") },
        Link { vlan: vlan(Some(2), 8, false), ..link(8, "eth0.8") },
        Link { vlan: vlan(Some(7), 9, true), ..link(9, "eth0.7.9") },
        Link { vlan: vlan(None, 10, true), ..link(10, "away") },
        Link { vlan: vlan(Some(2), 11, true), up: false, ..link(11, "eth0.11") },
        Link { kind: "bond".into(), ..link(12, "bond0") },
        Link { kind: "team".into(), ..link(13, "team0") },
        link(14, "whole"),
        Link { master: Some(14), ..link(15, "part") },
        Link { vlan: vlan(Some(12), 12, true), ..link(16, "bond0.12") },
        Link { kind: "bridge".into(), ..link(17, "br0") },
        Link { master: Some(17), ..link(18, "port") },
    ];
    let addresses = [
        (1, "127.0.0.1"),
        (1, "::1"),
        (1, "203.0.113.1"),
        (2, "192.0.2.1"),
        (2, "192.0.2.2"),
        (2, "2001:db8::1"),
        (2, "fe80::1"),
        (3, "192.0.2.3"),
        (4, "192.0.2.4"),
        (5, "fe80::5"),
        (6, "203.0.113.6"),
        (7, "198.51.100.7"),
        (7, "fe80::1"),
        (8, "198.51.100.8"),
        (9, "198.51.100.9"),
        (10, "198.51.100.10"),
        (11, "198.51.100.11"),
        (12, "198.51.100.12"),
        (13, "198.51.100.13"),
        (14, "198.51.100.14"),
        (16, "198.51.100.16"),
        (17, "198.51.100.17"),
    ];
    let addresses = addresses.map(|(index, address)| (index, address.parse().unwrap())).into();
    Host { links, addresses }
}

fn listeners(listeners: &[&str]) -> Vec<SocketAddr> {
    listeners.iter().map(|listener| listener.parse().unwrap()).collect()
}

/// `wire: address[/vlan]` for each target.
fn taken(targets: BTreeMap<u32, BTreeSet<Target>>) -> Vec<String> {
    let text = |target: Target| match target.vlan {
        Some(id) => format!("{}/{id}", target.address),
        None => target.address.to_string(),
    };
    let text = |(wire, targets): (u32, BTreeSet<Target>)| {
        let targets: Vec<_> = targets.into_iter().map(text).collect();
        format!("{wire}: {}", targets.join(" "))
    };
    targets.into_iter().map(text).collect()
}

fn unnamed(asked: &[&str]) -> Vec<String> {
    taken(host().take(&listeners(asked), &[]).unwrap())
}

fn named(name: &str, asked: &[&str]) -> Result<Vec<String>, String> {
    let targets = host().take(&listeners(asked), &[name.into()]);
    targets.map(taken).map_err(|error| error.to_string())
}

#[test]
fn without_names_who_carries_the_addresses_is_taken() {
    assert_eq!(unnamed(&["192.0.2.2:53"]), ["2: 192.0.2.2"]);
    assert_eq!(unnamed(&["198.51.100.7:53"]), ["2: 198.51.100.7/7"]);
    assert_eq!(unnamed(&["127.7.7.7:53", "192.0.2.1:53"]), ["2: 192.0.2.1"], "not loopback");
    let error = host().take(&listeners(&["127.0.0.1:53"]), &[]).unwrap_err();
    assert!(error.to_string().contains("SWIFTLET_XDP_INTERFACE=lo"), "{error}");
    assert_eq!(unnamed(&["[fe80::1%7]:53"]), ["2: fe80::1/7"]);
    assert_eq!(unnamed(&["[fe80::5%5]:53"]), ["5: fe80::5"]);
    // A port for each listener.
    let targets = host().take(&listeners(&["192.0.2.1:53", "192.0.2.1:5353"]), &[]).unwrap();
    assert_eq!(targets[&2].iter().map(|target| target.port).collect::<Vec<_>>(), [53, 5353]);
    // A VLAN has packets of its own length.
    let targets = host().take(&listeners(&["198.51.100.7:53"]), &[]).unwrap();
    assert_eq!(targets[&2].iter().map(|target| target.mtu).collect::<Vec<_>>(), [1400]);
}

#[test]
fn wildcards_take_what_reaches_further_than_its_link() {
    let all = ["2: 192.0.2.1 192.0.2.2 198.51.100.7/7", "17: 198.51.100.17"];
    assert_eq!(unnamed(&["0.0.0.0:53"]), all);
    assert_eq!(unnamed(&["[::]:53"]), ["2: 2001:db8::1 fe80::1 fe80::1/7"]);
    assert_eq!(unnamed(&["0.0.0.0:53", "192.0.2.1:53"]), unnamed(&["0.0.0.0:53"]));
}

#[test]
fn a_name_brings_vlans_and_addresses_that_are_routed_here() {
    let all = "2: 192.0.2.1 192.0.2.2 203.0.113.1 203.0.113.6 198.51.100.7/7";
    assert_eq!(named("eth0", &["0.0.0.0:53"]).unwrap(), [all]);
    assert_eq!(named("eth0.7", &["0.0.0.0:53"]).unwrap(), ["2: 198.51.100.7/7"]);
    assert_eq!(named("eth0", &["203.0.113.6:53"]).unwrap(), ["2: 203.0.113.6"]);
    assert_eq!(named("lo", &["0.0.0.0:53"]).unwrap(), ["1: 127.0.0.1 203.0.113.1"]);
    assert_eq!(named("veth0", &["[::]:53"]).unwrap(), ["5: fe80::5"]);
    assert_eq!(named("br0", &["198.51.100.17:53"]).unwrap(), ["17: 198.51.100.17"]);
    // What is routed here comes by a part of something, too.
    assert_eq!(named("part", &["203.0.113.6:53"]).unwrap(), ["15: 203.0.113.6"]);
}

#[test]
fn a_name_that_will_not_do_is_an_error_that_says_why() {
    let fails = |name, expected: &str| {
        let error = named(name, &["0.0.0.0:53"]).unwrap_err();
        assert!(error.contains(name) && error.contains(expected), "{error}");
    };
    fails("eth9", "no interface eth9; there are: lo (127.0.0.1, ::1, 203.0.113.1), eth0 (");
    fails("eth9", "eth1 (192.0.2.3, down)");
    fails("eth1", "down");
    fails("eth0.11", "down");
    fails("wg0", "no Ethernet frames");
    fails("eth0.8", "802.1ad");
    fails("eth0.7.9", "inside of another");
    fails("away", "another network namespace");
    for whole in ["bond0", "team0", "whole"] {
        fails(whole, "is made of other interfaces, and frames come by those");
    }
    fails("bond0.12", "is a VLAN on one made of other interfaces");
    let error = named("part", &["198.51.100.14:53"]).unwrap_err();
    assert!(error.ends_with("part carries none of the addresses listened on; it has: no address"));
    let error = named("veth0", &["192.0.2.1:53"]).unwrap_err();
    assert!(error.ends_with("veth0 carries none of the addresses listened on; it has: fe80::5"));
    for (address, name) in [("192.0.2.4:53", "wg0"), ("198.51.100.12:53", "bond0")] {
        let error = host().take(&listeners(&[address]), &[]).unwrap_err();
        assert!(matches!(error, XdpError::Nothing { .. }) && error.to_string().contains(name));
    }
}

#[test]
fn real_links_are_seen_as_they_are() {
    if !runs_here::<Xdp>() {
        return;
    }
    isolated(|| {
        run("ip link add left numrxqueues 3 numtxqueues 3 type veth peer right");
        run("ip link set left address 02:00:00:00:00:07 mtu 1400 up");
        run("ip link set right up");
        // With a peer and a label.
        run("ip address add 192.0.2.1 peer 192.0.2.2 dev left label left:alias");
        run("ip address add 2001:db8::1/64 dev left nodad");
        let plan = plan(&listeners(&["0.0.0.0:53", "[::]:53"]), &[]).unwrap();
        let [(interface, targets)] = plan.as_slice() else { panic!("{plan:?}") };
        assert_eq!((interface.name.as_str(), interface.mtu), ("left", 1400));
        assert_eq!(interface.mac, [2, 0, 0, 0, 0, 7]);
        assert_eq!(interface.queues, 3);
        assert!(!interface.loopback);
        let told = |address: &str| {
            let address = address.parse().unwrap();
            let target = Target {
                vlan: None,
                address,
                port: 53,
                interface: interface.index,
                mtu: interface.mtu,
            };
            interface.addresses.contains(&address) && targets.contains(&target)
        };
        assert!(told("192.0.2.1") && told("2001:db8::1"), "{plan:?}");
    });
}

#[test]
fn loopback_that_drops_its_own_answers_is_refused() {
    if !runs_here::<Xdp>() {
        return;
    }
    let open = |address| {
        let request = Request {
            listeners: listeners(&[address]),
            interfaces: vec!["lo".into()],
            queues: None,
            mode: Mode::Auto,
            workers: 1,
            batch: 4,
            busy_poll_us: 0,
        };
        open(&request).map(drop).map_err(|error| error.to_string())
    };
    isolated(|| {
        let error = open("127.0.0.1:53").unwrap_err();
        assert!(error.contains("net.ipv4.conf.lo.accept_local=1"), "{error}");
        assert_eq!(open("[::1]:53"), Ok(()));
        fs::write("/proc/sys/net/ipv4/conf/lo/accept_local", "1").unwrap();
        assert_eq!(open("127.0.0.1:53").unwrap_err(), error);
        fs::write("/proc/sys/net/ipv4/conf/lo/route_localnet", "1").unwrap();
        assert_eq!(open("127.0.0.1:53"), Ok(()));
    });
}

#[test]
fn more_targets_than_a_filter_holds_are_an_error() {
    if !runs_here::<Xdp>() {
        return;
    }
    isolated(|| {
        let ports = |count: u16| -> Vec<SocketAddr> {
            (1..=count).map(|port| SocketAddr::from(([0, 0, 0, 0], port))).collect()
        };
        let most = plan(&ports(MAX_TARGETS as u16), &["lo".into()]).unwrap();
        assert_eq!(most[0].1.len(), MAX_TARGETS);
        let error = plan(&ports(MAX_TARGETS as u16 + 1), &["lo".into()]).unwrap_err();
        assert!(matches!(error, XdpError::Targets { count: 257, max: 256, .. }), "{error}");
    });
}

#[test]
fn a_vlan_belongs_to_the_device_below() {
    if !runs_here::<Xdp>() {
        return;
    }
    isolated(|| {
        veth();
        let vlan = ["link", "add", "link", "left", "name", "tagged", "type", "vlan", "id", "7"];
        if !Command::new("ip").args(vlan).output().unwrap().status.success() {
            return eprintln!("skipped: this kernel has no VLANs (CONFIG_VLAN_8021Q)");
        }
        run("ip link set tagged up");
        run("ip address add 198.51.100.1/24 dev tagged");
        let plan = plan(&listeners(&["198.51.100.1:53"]), &[]).unwrap();
        let [(interface, targets)] = plan.as_slice() else { panic!("{plan:?}") };
        assert_eq!(interface.name, "left");
        assert_eq!(targets[0].vlan, Some(7));
        assert_ne!(targets[0].interface, interface.index);
    });
}

#[test]
fn a_bridge_is_served_and_its_port_seen_as_a_part_of_it() {
    if !runs_here::<Xdp>() {
        return;
    }
    isolated(|| {
        veth();
        let bridge = ["link", "add", "whole", "type", "bridge"];
        if !Command::new("ip").args(bridge).output().unwrap().status.success() {
            return eprintln!("skipped: this kernel has no bridges (CONFIG_BRIDGE)");
        }
        run("ip link set right master whole");
        run("ip link set whole up");
        run("ip address add 198.51.100.1/24 dev whole");
        let links = links::links().unwrap();
        let link = |name: &str| links.iter().find(|link| link.name == name).unwrap();
        let (whole, part) = (link("whole"), link("right"));
        assert_eq!((&*part.kind, part.master), ("veth", Some(whole.index)));
        assert_eq!((&*whole.kind, whole.master), ("bridge", None));
        let plan = plan(&listeners(&["198.51.100.1:53"]), &[]).unwrap();
        assert_eq!(plan[0].0.name, "whole");
    });
}

/// Plans for the interface of this name and loads its filter.
fn load(name: &str) -> (Interface, Filter) {
    let plan = plan(&listeners(&["0.0.0.0:53"]), &[name.into()]).unwrap();
    let (interface, targets) = plan.into_iter().next().unwrap();
    let filter = Filter::load(interface.mac, &targets, interface.queues, 1536).unwrap();
    (interface, filter)
}

/// A veth pair, up, with an address on the left.
fn veth() {
    run("ip link add left type veth peer right");
    run("ip link set left up");
    run("ip link set right up");
    run("ip address add 192.0.2.1/24 dev left");
}

#[test]
fn a_filter_is_on_until_its_link_is_dropped() {
    if !runs_here::<Xdp>() {
        return;
    }
    isolated(|| {
        veth();
        let (left, filter) = load("left");
        for (generic, mode) in [(false, AttachMode::Native), (true, AttachMode::Generic)] {
            assert_eq!(attached(left.index).unwrap(), None);
            let link = filter.attach(&left, generic).unwrap();
            let there = attached(left.index).unwrap().unwrap();
            assert_eq!((there.mode, there.name.as_deref()), (mode, Some("swiftlet")));
            assert!(run("ip -d link show left").contains(&format!("prog/xdp id {} ", there.id)));
            drop(link);
        }
        assert_eq!(attached(left.index).unwrap(), None);
        // The interface may go first.
        let _link = filter.attach(&left, false).unwrap();
        run("ip link delete left");
        assert_eq!(attached(left.index).unwrap(), None);
    });
}

#[test]
fn a_program_that_is_there_is_named_and_left_alone() {
    if !runs_here::<Xdp>() {
        return;
    }
    isolated(|| {
        veth();
        let (left, filter) = load("left");
        let _first = filter.attach(&left, false).unwrap();
        let there = attached(left.index).unwrap().unwrap();
        for generic in [false, true] {
            let error = load("left").1.attach(&left, generic).unwrap_err();
            assert!(error.is_conflict(), "{error}");
            let expected = format!("on left (swiftlet, id {}, native)", there.id);
            assert!(error.to_string().contains(&expected), "{error}");
        }
        // One without a link, as `ip` attaches them.
        run("ip address add 198.51.100.1/24 dev right");
        let (right, filter) = load("right");
        run(&format!("bpftool net attach xdpdrv id {} dev right", there.id));
        let error = filter.attach(&right, false).unwrap_err();
        assert!(error.is_conflict() && error.to_string().contains("xdpdrv off"), "{error}");
        run("ip link set dev right xdpdrv off");
        filter.attach(&right, false).unwrap();
        assert_eq!(attached(left.index).unwrap(), Some(there));
    });
}

#[test]
fn a_program_on_a_device_above_is_a_conflict_too() {
    if !runs_here::<Xdp>() {
        return;
    }
    isolated(|| {
        veth();
        run("ip link add link left name above type macvlan");
        let (left, filter) = load("left");
        let above = links::links().unwrap().into_iter().find(|link| link.name == "above");
        let above = Interface { index: above.unwrap().index, ..left.clone() };
        let _above = filter.attach(&above, true).unwrap();
        let error = filter.attach(&left, false).unwrap_err();
        assert!(matches!(error, XdpError::AttachedAbove { .. }) && error.is_conflict(), "{error}");
    });
}

#[test]
fn what_a_driver_cannot_do_says_what_to_choose() {
    if !runs_here::<Xdp>() {
        return;
    }
    isolated(|| {
        let (lo, filter) = load("lo");
        let error = filter.attach(&lo, false).unwrap_err();
        assert!(matches!(error, XdpError::NoNative { .. }), "{error}");
        assert!(error.to_string().contains("SWIFTLET_XDP_MODE=generic"));
        drop(filter.attach(&lo, true).unwrap());
        veth();
        run("ip link set left mtu 9000");
        run("ip link set right mtu 9000");
        let (left, filter) = load("left");
        let error = filter.attach(&left, false).unwrap_err();
        assert!(matches!(error, XdpError::Setup { mtu: 9000, .. }), "{error}");
        run("ip link delete left");
        let error = filter.attach(&left, true).unwrap_err();
        assert!(matches!(error, XdpError::Refused { .. }), "{error}");
    });
}
