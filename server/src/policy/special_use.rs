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
mod tests;
