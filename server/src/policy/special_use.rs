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
    /// An apex with SOA and NS, nothing below (RFC 6303 §3).
    Empty,
    /// As `Empty`, but DS questions are the parent's to answer (RFC 8375 §4).
    EmptyUnsigned,
    /// NODATA at the name and all below (RFC 9462 §6.4: no designated resolver is configured).
    NoData,
    /// One PTR record to `localhost.` at the name itself.
    LocalhostPtr,
}

/// One row a name. IPv4 ranges written as `first..last.rest` stand for one zone a number.
const TABLE: &[(&str, Content)] = &[
    ("localhost", Content::Loopback),
    ("invalid", Content::Nothing),
    ("test", Content::Nothing),
    ("local", Content::Nothing),
    ("onion", Content::Nothing),
    ("alt", Content::Nothing),
    ("home.arpa", Content::EmptyUnsigned),
    ("resolver.arpa", Content::NoData),
    ("0.in-addr.arpa", Content::Empty),
    ("10.in-addr.arpa", Content::Empty),
    ("127.in-addr.arpa", Content::Empty),
    ("1.0.0.127.in-addr.arpa", Content::LocalhostPtr),
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
    (
        "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
        Content::LocalhostPtr,
    ),
    ("d.f.ip6.arpa", Content::Empty),
    ("8.e.f.ip6.arpa", Content::Empty),
    ("9.e.f.ip6.arpa", Content::Empty),
    ("a.e.f.ip6.arpa", Content::Empty),
    ("b.e.f.ip6.arpa", Content::Empty),
    ("8.b.d.0.1.0.0.2.ip6.arpa", Content::Empty),
];

/// The table, ready to be asked.
#[derive(Debug)]
pub struct Zones {
    /// Content by folded wire name.
    by_name: HashMap<Box<[u8]>, Content>,
    /// Last labels, length byte first, under which any of the names lies.
    last_labels: Vec<Box<[u8]>>,
}

impl Default for Zones {
    fn default() -> Self {
        let mut zones = Self { by_name: HashMap::new(), last_labels: Vec::new() };
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

    /// The zone that a name lies in: what it holds, and where its name begins inside `qname`.
    fn find(&self, query: &Query, qname: &[u8]) -> Option<(Content, usize)> {
        let last_label = qname.get(usize::from(query.last_label)..qname.len().checked_sub(1)?)?;
        if !self.last_labels.iter().any(|known| eq_ignore_case(known, last_label)) {
            return None;
        }
        let mut folded = [0; 255];
        let folded = folded.get_mut(..qname.len())?;
        fold(qname, folded);
        suffixes(folded).find_map(|suffix| {
            let content = *self.by_name.get(suffix)?;
            Some((content, qname.len() - suffix.len()))
        })
    }
}

pub(super) fn query<'a>(policies: &'a Policies, request: &Request<'_>) -> Action<'a> {
    let Some((content, zone_at)) = policies.special_use.find(request.query, request.qname) else {
        return Action::Continue;
    };
    let qtype = request.query.qtype;
    let at_apex = zone_at == 0;
    let no_data = Answer::Negative { rcode: Rcode::NOERROR, zone_at };
    let no_name = Answer::Negative { rcode: Rcode::NXDOMAIN, zone_at };
    let record = |rdata| Answer::Record { rtype: qtype, class: Class::IN, ttl: TTL_S, rdata };
    Action::Answer(match (content, qtype) {
        (Content::EmptyUnsigned, Type::DS) if at_apex => return Action::Continue,
        (Content::Loopback, Type::A) => record(&[127, 0, 0, 1]),
        (Content::Loopback, Type::AAAA) => {
            record(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
        }
        (Content::Loopback | Content::NoData, _) => no_data,
        (Content::LocalhostPtr, Type::PTR) if at_apex => record(b"\x09localhost\x00"),
        (Content::Empty | Content::EmptyUnsigned, Type::SOA | Type::NS) if at_apex => {
            Answer::Apex { rtype: qtype }
        }
        (Content::Nothing, _) => no_name,
        _ if at_apex => no_data,
        _ => no_name,
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
