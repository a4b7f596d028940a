//! What is answered at and below each special-use name, and where a forward zone switches that off.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::policy::{Acl, Identity};

fn decide<'a>(policies: &'a Policies, name: &str, qtype: Type) -> Action<'a> {
    let name = Name::from_text(name).unwrap();
    let mut packet = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    packet.extend_from_slice(name.as_wire());
    packet.extend_from_slice(&qtype.0.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    let facts = swiftlet_parser::query::parse(&packet).unwrap();
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    query(policies, &Request { query: &facts, qname: name.as_wire(), client })
}

fn policies() -> Policies {
    forwarding(&[])
}

fn forwarding(zones: &[&str]) -> Policies {
    let zones: Vec<Name> = zones.iter().map(|text| Name::from_text(text).unwrap()).collect();
    Policies {
        acl: Acl::default(),
        identity: Identity::new("", None),
        special_use: Zones::new(&zones),
    }
}

/// NXDOMAIN or NODATA of the zone with this name.
fn negative(rcode: Rcode, name: &str, zone: &str) -> Action<'static> {
    let len = |text: &str| Name::from_text(text).unwrap().as_wire().len();
    Action::Answer(Answer::Negative { rcode, zone_at: len(name) - len(zone) })
}

#[test]
fn every_row_answers_at_its_name_and_below() {
    let policies = policies();
    for &(row, content) in TABLE {
        let zone = row.replacen("..31", "", 1).replacen("..127", "", 1);
        let below = format!("deep.Below.{zone}");
        let (at_zone, under) = match content {
            Content::Nothing => (Rcode::NXDOMAIN, Rcode::NXDOMAIN),
            Content::Loopback | Content::NoData => (Rcode::NOERROR, Rcode::NOERROR),
            Content::Empty => (Rcode::NOERROR, Rcode::NXDOMAIN),
            Content::Forwarded => unreachable!("no row of the table"),
        };
        let told = decide(&policies, &zone, Type::MX);
        assert_eq!(told, negative(at_zone, &zone, &zone), "{zone}");
        let told = decide(&policies, &below, Type::MX);
        assert_eq!(told, negative(under, &below, &zone), "{below}");
    }
}

#[test]
fn ranges_are_whole_and_end_where_they_end() {
    let policies = policies();
    for (name, ours) in [
        ("15.172.in-addr.arpa", false),
        ("16.172.in-addr.arpa", true),
        ("31.172.in-addr.arpa", true),
        ("32.172.in-addr.arpa", false),
        ("63.100.in-addr.arpa", false),
        ("64.100.in-addr.arpa", true),
        ("127.100.in-addr.arpa", true),
        ("128.100.in-addr.arpa", false),
    ] {
        let told = decide(&policies, name, Type::PTR);
        assert_eq!(told != Action::Continue, ours, "{name}");
    }
}

#[test]
fn loopback_has_its_addresses_and_its_name() {
    let policies = policies();
    let rdata = |name, qtype| match decide(&policies, name, qtype) {
        Action::Answer(Answer::Record { rdata, .. }) => Some(rdata.to_vec()),
        _ => None,
    };
    for name in ["localhost", "LocalHost", "a.b.localhost"] {
        assert_eq!(rdata(name, Type::A), Some(vec![127, 0, 0, 1]), "{name}");
        assert_eq!(rdata(name, Type::AAAA).map(|rdata| rdata[15]), Some(1), "{name}");
    }
    let ip6 = format!("1.{}ip6.arpa", "0.".repeat(31));
    for name in ["1.0.0.127.in-addr.arpa", &ip6] {
        assert_eq!(rdata(name, Type::PTR), Some(b"\x09localhost\x00".to_vec()), "{name}");
    }
}

#[test]
fn names_above_a_name_that_exists_exist() {
    let policies = policies();
    let zone = "127.in-addr.arpa";
    for (name, rcode) in [
        ("0.127.in-addr.arpa", Rcode::NOERROR),
        ("0.0.127.in-addr.arpa", Rcode::NOERROR),
        ("1.0.0.127.in-addr.arpa", Rcode::NOERROR),
        ("2.0.0.127.in-addr.arpa", Rcode::NXDOMAIN),
        ("7.1.0.0.127.in-addr.arpa", Rcode::NXDOMAIN),
        ("1.127.in-addr.arpa", Rcode::NXDOMAIN),
    ] {
        assert_eq!(decide(&policies, name, Type::A), negative(rcode, name, zone), "{name}");
    }
}

#[test]
fn an_empty_zone_has_an_apex() {
    let policies = policies();
    for rtype in [Type::SOA, Type::NS] {
        let told = decide(&policies, "10.in-addr.arpa", rtype);
        assert_eq!(told, Action::Answer(Answer::Apex { rtype }));
    }
    // The parent knows whether they are signed; ANY has an answer of its own.
    for name in ["home.arpa", "10.in-addr.arpa"] {
        assert_eq!(decide(&policies, name, Type::DS), Action::Continue);
        assert_eq!(decide(&policies, name, Type::ANY), Action::Continue);
    }
    let below = decide(&policies, "www.invalid", Type::ANY);
    assert_eq!(below, negative(Rcode::NXDOMAIN, "www.invalid", "invalid"));
    let below = decide(&policies, "printer.home.arpa", Type::DS);
    assert_eq!(below, negative(Rcode::NXDOMAIN, "printer.home.arpa", "home.arpa"));
}

#[test]
fn other_names_go_on() {
    let policies = policies();
    for name in [
        ".",
        "com",
        "arpa",
        "in-addr.arpa",
        "example.com",
        "localhost.example",
        "notlocalhost",
        "test.example",
        "11.in-addr.arpa",
        "in-addr.arpa.example",
        "onion.example",
    ] {
        assert_eq!(decide(&policies, name, Type::A), Action::Continue, "{name}");
    }
}

#[test]
fn a_forward_zone_switches_the_overlap_off_and_no_more() {
    let go_on = Action::Continue;
    let (none, empty) = (Rcode::NXDOMAIN, Rcode::NOERROR);
    let ours = |rcode, name, zone| negative(rcode, name, zone);
    for (zone, name, qtype, expected) in [
        // At a special-use name: all of it, and DS too, for the parent is not ours.
        ("10.in-addr.arpa", "10.in-addr.arpa", Type::SOA, go_on),
        ("10.in-addr.arpa", "10.in-addr.arpa", Type::DS, go_on),
        ("10.IN-ADDR.arpa", "4.3.2.10.in-addr.Arpa", Type::PTR, go_on),
        (
            "10.in-addr.arpa",
            "x.168.192.in-addr.arpa",
            Type::PTR,
            ours(none, "x.168.192.in-addr.arpa", "168.192.in-addr.arpa"),
        ),
        ("local", "printer.local", Type::A, go_on),
        ("test", "test", Type::DS, go_on),
        ("home.arpa", "nas.home.arpa", Type::A, go_on),
        ("home.arpa", "home.arpa", Type::DS, go_on),
        ("resolver.arpa", "_dns.resolver.arpa", Type::A, go_on),
        ("127.in-addr.arpa", "1.0.0.127.in-addr.arpa", Type::PTR, go_on),
        // Below one: that subtree alone. What is above it exists.
        ("5.10.in-addr.arpa", "1.5.10.in-addr.arpa", Type::PTR, go_on),
        ("5.10.in-addr.arpa", "5.10.in-addr.arpa", Type::SOA, go_on),
        (
            "5.10.in-addr.arpa",
            "6.10.in-addr.arpa",
            Type::PTR,
            ours(none, "6.10.in-addr.arpa", "10.in-addr.arpa"),
        ),
        (
            "7.5.10.in-addr.arpa",
            "5.10.in-addr.arpa",
            Type::PTR,
            ours(empty, "5.10.in-addr.arpa", "10.in-addr.arpa"),
        ),
        ("corp.test", "corp.test", Type::A, go_on),
        ("corp.test", "test", Type::A, ours(empty, "test", "test")),
        ("corp.test", "other.test", Type::A, ours(none, "other.test", "test")),
        // The delegation is the parent's to answer, which is ours there.
        (
            "5.10.in-addr.arpa",
            "5.10.in-addr.arpa",
            Type::DS,
            ours(empty, "5.10.in-addr.arpa", "10.in-addr.arpa"),
        ),
        ("corp.test", "corp.test", Type::DS, ours(empty, "corp.test", "test")),
        ("corp.test", "a.corp.test", Type::DS, go_on),
        // Above one.
        ("arpa", "home.arpa", Type::SOA, go_on),
        ("arpa", "home.arpa", Type::DS, go_on),
        ("in-addr.arpa", "1.0.0.127.in-addr.arpa", Type::PTR, go_on),
        ("in-addr.arpa", "a.home.arpa", Type::A, ours(none, "a.home.arpa", "home.arpa")),
        ("172.in-addr.arpa", "20.172.in-addr.arpa", Type::PTR, go_on),
        // Beside them.
        ("corp.example", "x.invalid", Type::A, ours(none, "x.invalid", "invalid")),
    ] {
        let policies = forwarding(&[zone]);
        assert_eq!(decide(&policies, name, qtype), expected, "{zone}: {name} {qtype}");
    }
    let policies = forwarding(&["a.corp.test", "corp.test"]);
    assert_eq!(decide(&policies, "a.corp.test", Type::DS), Action::Continue, "corp.test knows");
}

/// Against a model by text: what is at or below a forward zone goes on, all else is as without it.
#[test]
fn nothing_else_changes() {
    let labels = ["10", "in-addr", "arpa", "test", "corp", "local", "5", "home"];
    let mut names = vec![String::new()];
    for len in 0..3 {
        let longest = names.iter().filter(|name| name.matches('.').count() == len);
        let longer: Vec<_> =
            longest.flat_map(|name| labels.map(|label| format!("{label}.{name}"))).collect();
        names.extend(longer);
    }
    let names = &names[1..];
    let plain = policies();
    let below = |name: &str, zone: &str| name == zone || name.ends_with(&format!(".{zone}"));
    for zone in ["10.in-addr.arpa.", "arpa.", "corp.test.", "5.corp.local.", "home.", "corp."] {
        let policies = forwarding(&[zone]);
        for name in names {
            let told = decide(&policies, name, Type::A);
            if below(name, zone) {
                assert_eq!(told, Action::Continue, "{zone}: {name}");
            } else if below(zone, name) {
                let exists = !matches!(
                    told,
                    Action::Answer(Answer::Negative { rcode: Rcode::NXDOMAIN, .. })
                );
                assert!(exists, "{zone}: {name} has something below");
            } else {
                assert_eq!(told, decide(&plain, name, Type::A), "{zone}: {name}");
            }
        }
    }
}

#[test]
fn overlaps_are_told() {
    for (zone, overlaps) in [
        ("arpa", true),
        ("in-addr.arpa", true),
        ("1.10.in-addr.arpa", true),
        ("HOME.arpa", true),
        ("corp.local", true),
        ("11.in-addr.arpa", false),
        ("corp.example", false),
        ("arpa.example", false),
    ] {
        assert_eq!(Zones::overlaps(&Name::from_text(zone).unwrap()), overlaps, "{zone}");
    }
}
