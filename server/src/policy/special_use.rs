//! Names that are answered here and never forwarded: the special-use names of RFC 6761 and its
//! followers, and the locally served zones of RFC 6303. Asking an upstream for them would leak
//! private names and load the root servers.
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
    /// Names inside of zones: whether they have the PTR record, or are only above one that has it.
    inner: HashMap<Box<[u8]>, bool>,
    /// Last labels, length byte first, under which any of the names lies.
    last_labels: Vec<Box<[u8]>>,
}

impl Default for Zones {
    fn default() -> Self {
        let mut zones =
            Self { by_name: HashMap::new(), inner: HashMap::new(), last_labels: Vec::new() };
        for &(text, content) in TABLE {
            match text.split_once("..") {
                None => zones.add(text, content),
                Some((first, rest)) => {
                    let (last, parent) = rest.split_once('.').expect("a range has a parent");
                    let number = |text: &str| text.parse::<u8>().expect("a range of octets");
                    for octet in number(first)..=number(last) {
                        zones.add(&format!("{octet}.{parent}"), content);
                    }
                }
            }
        }
        for name in LOCALHOST_NAMES {
            let name = Name::from_text(name).expect("the table holds valid names");
            // Names between it and its zone exist, though they own nothing (RFC 8020 §2).
            let up_to_zone =
                suffixes(name.as_wire()).take_while(|at| !zones.by_name.contains_key(*at));
            zones.inner.extend(up_to_zone.map(|at| (at.into(), false)));
            zones.inner.insert(name.as_wire().into(), true);
        }
        zones
    }
}

impl Zones {
    fn add(&mut self, text: &str, content: Content) {
        let name = Name::from_text(text).expect("the table holds valid names");
        let last = name.labels().filter(|label| !label.is_empty()).last().unwrap_or_default();
        let mut label = vec![last.len() as u8];
        label.extend_from_slice(last);
        if !self.last_labels.iter().any(|known| **known == *label) {
            self.last_labels.push(label.into());
        }
        self.by_name.insert(name.as_wire().into(), content);
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
        suffixes(folded).find_map(|suffix| {
            let content = *self.by_name.get(suffix)?;
            let inner = self.inner.get(&*folded).copied();
            Some(Found { content, zone_at: qname.len() - suffix.len(), inner })
        })
    }
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
    let qtype = request.query.qtype;
    let at_apex = zone_at == 0;
    let exists = match content {
        Content::Nothing => false,
        Content::Loopback | Content::NoData => true,
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
        Policies {
            acl: Acl::default(),
            identity: Identity::new("", None),
            special_use: Zones::default(),
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
}
