//! Names that are answered here and never forwarded: the special-use names of RFC 6761 and its
//! followers, and the locally served zones of RFC 6303. Asking an upstream for them would leak
//! private names and load the root servers.
//!
//! A forward zone (`SWIFTLET_FORWARD_ZONES`) at, above or below one of them switches the built-in answers
//! off where the two overlap: who names a zone means that its servers know it. `localhost`, `invalid` and
//! `onion` are excepted ([`ALWAYS_OURS`]). The reverse zones of loopback are not: RFC 6303 has them served
//! locally only where nothing else is configured, and nothing relies on them for its safety.
//!
//! Cost for every other name: a look at its last label. Names under `arpa` cost one probe a label.

use std::collections::HashMap;

use swiftlet_parser::name::fold::{eq_ignore_case, fold};
use swiftlet_parser::name::{Name, suffixes};
use swiftlet_parser::query::Query;
use swiftlet_parser::rr::{Class, Rcode, Type};

use super::{Action, Answer, Policies, Request};

/// TTL of every record of these zones: 3 hours (RFC 6303 §3).
pub const TTL_S: u32 = 10_800;

/// What no forward zone may take: programs rely on these names never leaving the host or never existing
/// (RFC 6761 §6.3, §6.4; RFC 7686 §2).
pub const ALWAYS_OURS: [&str; 3] = ["localhost", "invalid", "onion"];

/// What stands at and below a zone's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// NXDOMAIN for the name itself and all below (RFC 6761 §6.2, §6.4).
    Nothing,
    /// The loopback addresses at and below it (RFC 6761 §6.3).
    Loopback,
    /// An apex with SOA and NS, nothing below (RFC 6303 §3) but what [`LOCALHOST_NAMES`] says.
    Empty,
    /// NODATA at the name and all below (RFC 9462 §6.4: no designated resolver is configured).
    NoData,
    /// Nothing of ours: a forward zone inside of one of the others.
    Forwarded,
}

/// One row a name. IPv4 ranges written as `first..last.rest` stand for one zone a number.
const TABLE: &[(&str, Content)] = &[
    ("localhost", Content::Loopback),
    ("invalid", Content::Nothing),
    ("test", Content::Nothing),
    ("local", Content::Nothing),
    ("onion", Content::Nothing),
    ("alt", Content::Nothing),
    // RFC 8375.
    ("home.arpa", Content::Empty),
    ("resolver.arpa", Content::NoData),
    ("0.in-addr.arpa", Content::Empty),
    ("10.in-addr.arpa", Content::Empty),
    ("127.in-addr.arpa", Content::Empty),
    ("254.169.in-addr.arpa", Content::Empty),
    ("16..31.172.in-addr.arpa", Content::Empty),
    ("168.192.in-addr.arpa", Content::Empty),
    ("2.0.192.in-addr.arpa", Content::Empty),
    ("100.51.198.in-addr.arpa", Content::Empty),
    ("113.0.203.in-addr.arpa", Content::Empty),
    ("255.255.255.255.in-addr.arpa", Content::Empty),
    // Shared address space: RFC 7793.
    ("64..127.100.in-addr.arpa", Content::Empty),
    ("0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa", Content::Empty),
    ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa", Content::Empty),
    ("d.f.ip6.arpa", Content::Empty),
    ("8.e.f.ip6.arpa", Content::Empty),
    ("9.e.f.ip6.arpa", Content::Empty),
    ("a.e.f.ip6.arpa", Content::Empty),
    ("b.e.f.ip6.arpa", Content::Empty),
    ("8.b.d.0.1.0.0.2.ip6.arpa", Content::Empty),
];

/// Names with one PTR record, to `localhost.`
const LOCALHOST_NAMES: &[&str] = &[
    "1.0.0.127.in-addr.arpa",
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
];

/// The table, ready to be asked.
#[derive(Debug)]
pub struct Zones {
    /// Content by folded wire name.
    by_name: HashMap<Box<[u8]>, Content>,
    /// Names of and inside of zones that exist: whether they have the PTR record, or are only at or above
    /// one that has it or a forward zone.
    inner: HashMap<Box<[u8]>, bool>,
    /// Last labels, length byte first, under which any of the names lies.
    last_labels: Vec<Box<[u8]>>,
}

impl Default for Zones {
    /// The table as it is, with nothing forwarded.
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Zones {
    /// The table without what is at or below one of these zones, which are forwarded.
    #[must_use]
    pub fn new(forwarded: &[Name]) -> Self {
        let mut zones =
            Self { by_name: HashMap::new(), inner: HashMap::new(), last_labels: Vec::new() };
        let is_forwarded =
            |name: &Name| forwarded.iter().any(|zone| name.is_at_or_below(zone.as_wire()));
        for (name, content) in table().filter(|(name, _)| !is_forwarded(name)) {
            zones.by_name.insert(folded(&name), content);
        }
        let has_ptr = LOCALHOST_NAMES.iter().map(|text| (parsed(text), true));
        for (name, has_ptr) in has_ptr.chain(forwarded.iter().map(|zone| (*zone, false))) {
            zones.add_inner(&name, has_ptr);
        }
        for zone in forwarded.iter().filter(|zone| zones.inner.contains_key(&folded(zone))) {
            zones.by_name.insert(folded(zone), Content::Forwarded);
        }
        zones.last_labels = zones.by_name.keys().filter_map(|name| last_label(name)).collect();
        zones.last_labels.sort_unstable();
        zones.last_labels.dedup();
        zones
    }

    /// Adds a name inside of a zone. Names between the two exist as well, though they own nothing: else
    /// NXDOMAIN for them would deny what is below (RFC 8020 §2).
    fn add_inner(&mut self, name: &Name, has_ptr: bool) {
        let name = folded(name);
        let Some(zone) = suffixes(&name).find(|at| self.by_name.contains_key(*at)) else {
            return;
        };
        for at in suffixes(&name).take_while(|at| at.len() >= zone.len()) {
            self.inner.entry(at.into()).or_default();
        }
        if has_ptr {
            self.inner.insert(name, true);
        }
    }

    /// Whether a forward zone of this name is at, above or below a special-use name.
    #[must_use]
    pub fn overlaps(zone: &Name) -> bool {
        table().any(|(name, _)| {
            zone.is_at_or_below(name.as_wire()) || name.is_at_or_below(zone.as_wire())
        })
    }

    /// The zone that a name lies in.
    fn find(&self, query: &Query, qname: &[u8]) -> Option<Found> {
        let last_label = qname.get(usize::from(query.last_label)..qname.len().checked_sub(1)?)?;
        if !self.last_labels.iter().any(|known| eq_ignore_case(known, last_label)) {
            return None;
        }
        let mut folded = [0; 255];
        let folded = folded.get_mut(..qname.len())?;
        fold(qname, folded);
        let mut zones = suffixes(folded)
            .filter_map(|at| Some((*self.by_name.get(at)?, qname.len() - at.len())));
        let found = match zones.next()? {
            // What delegates a zone is its parent's to say (RFC 4035 §3.1.4.1), and here that is ours.
            (Content::Forwarded, 0) if query.qtype == Type::DS => zones.next()?,
            found => found,
        };
        let (content, zone_at) = found;
        Some(Found { content, zone_at, inner: self.inner.get(&*folded).copied() })
    }
}

/// Every zone of [`TABLE`], ranges one by one.
fn table() -> impl Iterator<Item = (Name, Content)> {
    TABLE.iter().flat_map(|&(text, content)| {
        let (octets, parent) = match text.split_once("..") {
            None => (0..=0, None),
            Some((first, rest)) => {
                let (last, parent) = rest.split_once('.').expect("a range has a parent");
                let number = |text: &str| text.parse::<u8>().expect("a range of octets");
                (number(first)..=number(last), Some(parent))
            }
        };
        octets.map(move |octet| match parent {
            None => (parsed(text), content),
            Some(parent) => (parsed(&format!("{octet}.{parent}")), content),
        })
    })
}

fn parsed(text: &str) -> Name {
    Name::from_text(text).expect("the table holds valid names")
}

fn folded(name: &Name) -> Box<[u8]> {
    let mut folded: Box<[u8]> = name.as_wire().into();
    fold(name.as_wire(), &mut folded);
    folded
}

/// The last label of a name with its length byte, as a query's facts point to it.
fn last_label(wire: &[u8]) -> Option<Box<[u8]>> {
    let last = suffixes(wire).filter(|at| at.len() > 1).last()?;
    Some(last.get(..last.len() - 1)?.into())
}

/// Where a name lies.
struct Found {
    content: Content,
    /// Where the zone's name begins inside the name.
    zone_at: usize,
    /// Whether the name is one of [`Zones::inner`], and has the PTR record.
    inner: Option<bool>,
}

pub(super) fn query<'a>(policies: &'a Policies, request: &Request<'_>) -> Action<'a> {
    let Some(found) = policies.special_use.find(request.query, request.qname) else {
        return Action::Continue;
    };
    let Found { content, zone_at, inner } = found;
    if content == Content::Forwarded {
        return Action::Continue;
    }
    let qtype = request.query.qtype;
    let at_apex = zone_at == 0;
    let exists = match content {
        // Above a forward zone a name must exist, or nobody would look below it.
        Content::Nothing => inner.is_some(),
        Content::Loopback | Content::NoData | Content::Forwarded => true,
        Content::Empty => at_apex || inner.is_some(),
    };
    let record = |rdata| Answer::Record { rtype: qtype, class: Class::IN, ttl: TTL_S, rdata };
    Action::Answer(match (content, qtype) {
        _ if !exists => Answer::Negative { rcode: Rcode::NXDOMAIN, zone_at },
        // Whether the zone is signed is its parent's to say (RFC 4035 §3.1.4.1, RFC 8375 §4).
        (Content::Empty, Type::DS) if at_apex => return Action::Continue,
        (_, Type::ANY) => return Action::Continue,
        (Content::Loopback, Type::A) => record(&[127, 0, 0, 1]),
        (Content::Loopback, Type::AAAA) => {
            record(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
        }
        (Content::Empty, Type::PTR) if inner == Some(true) => record(b"\x09localhost\x00"),
        (Content::Empty, Type::SOA | Type::NS) if at_apex => Answer::Apex { rtype: qtype },
        _ => Answer::Negative { rcode: Rcode::NOERROR, zone_at },
    })
}

/// The SOA of a zone served here (RFC 6303 §3), whose name begins at `zone_at` inside the question's
/// name: MNAME is the zone itself, RNAME `nobody.invalid.`.
pub(super) fn soa(zone_at: usize) -> [u8; 38] {
    let mut rdata = [0; 38];
    rdata[..2].copy_from_slice(&pointer(zone_at));
    rdata[2..18].copy_from_slice(b"\x06nobody\x07invalid\x00");
    let numbers: [u32; 5] = [1, 3600, 1200, 604_800, TTL_S];
    for (field, number) in rdata[18..].chunks_exact_mut(4).zip(numbers) {
        field.copy_from_slice(&number.to_be_bytes());
    }
    rdata
}

/// A compression pointer to `at` inside the question's name, which begins behind the header.
pub(super) fn pointer(at: usize) -> [u8; 2] {
    let offset = swiftlet_parser::rr::HEADER_LEN + at;
    [0xC0 | (offset >> 8) as u8, offset as u8]
}

#[cfg(test)]
mod tests {
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
}
