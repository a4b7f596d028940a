//! From an upstream's response to a stored answer: only what answers the question is kept.
//!
//! The answer section is rebuilt along the chain from the question's name (CNAMEs first, in their
//! order, always), then the RRset asked for. Of the authority section a negative answer keeps its SOA
//! (RFC 2308) and, when DNSSEC data was asked for, the proofs. The rest is left out: nothing that the
//! question did not lead to can reach the cache.
//!
//! Bounds: [`MAX_RECORDS`] in a response, [`MAX_CHAIN`] links of a chain.

use std::collections::HashSet;

use swiftlet_cache::{self as cache, Kind, NewEntry, Store as _};
use swiftlet_parser::key::{Key, KeyBuf, NO_TYPE, Seed};
use swiftlet_parser::name::Name;
use swiftlet_parser::response::{Record, Response, Section};
use swiftlet_parser::rr::{Class, Rcode, Type};
use swiftlet_parser::template::{self, Source, Template};

use super::failures::Failed;
use super::{Resolver, timeline};
use crate::telemetry::Counter;
use crate::upstream::Failure;

/// Records that a response may have.
pub const MAX_RECORDS: usize = 1024;

/// CNAME and DNAME links that an answer may have.
pub const MAX_CHAIN: usize = 16;

/// For how long answers are kept, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Shorter TTLs are raised to this.
    pub min_ttl_s: u32,
    /// Longer TTLs are lowered to this.
    pub max_ttl_s: u32,
    /// Bound for negative answers (RFC 2308 §5 suggests 1 to 3 hours).
    pub max_negative_ttl_s: u32,
    /// For how long after its TTL an answer may be given when no other is to be had (RFC 8767 §5).
    pub stale_ttl_s: u32,
}

impl Limits {
    fn clamp(&self, ttl_s: u32) -> u32 {
        // The largest wins over the smallest, whatever was configured.
        ttl_s.max(self.min_ttl_s).min(self.max_ttl_s)
    }

    fn clamp_negative(&self, ttl_s: u32) -> u32 {
        self.clamp(ttl_s).min(self.max_negative_ttl_s)
    }
}

/// The records of a response that answer its question.
#[derive(Debug)]
pub struct Scrubbed<'m> {
    /// The chain, then the RRset asked for, each with its signatures.
    pub answer: Vec<Record<'m>>,
    /// SOA and proofs.
    pub authority: Vec<Record<'m>>,
    /// Whether it says that the name or the type does not exist.
    pub negative: bool,
    /// Whether it may be kept at all: a negative answer without SOA may not (RFC 2308 §5).
    pub storable: bool,
}

/// Scrubs a response, stores it under the key if its TTL allows, and returns its stored form.
/// `flushes` is their count when upstream was asked. That a name doesn't exist is stored without the
/// type as well, for questions of other types ([`nonexistence`]).
pub(super) fn store(
    resolver: &Resolver,
    key: &Key<'_>,
    message: &[u8],
    flushes: u64,
) -> Result<Vec<u8>, Failure> {
    let response = Response::parse(message).map_err(|_| Failure::Malformed)?;
    let scrubbed = scrub(&response, key, &resolver.limits)?;
    let mut stored = Vec::with_capacity(256);
    let source = Source {
        qname: key.qname(),
        rcode: response.rcode(),
        secure: response.flags().ad(),
        answer: &scrubbed.answer,
        authority: &scrubbed.authority,
        additional: &[],
    };
    template::build(&source, &mut stored).map_err(|_| Failure::Malformed)?;
    let ttl_s = match Template::from_bytes(&stored) {
        Some(template) if scrubbed.storable => template.min_ttl(),
        _ => 0,
    };
    let kind = if scrubbed.negative { Kind::Negative } else { Kind::Data };
    let entry = NewEntry { answer: &stored, ttl_s, stale_s: resolver.limits.stale_ttl_s, kind };
    insert(resolver, key, entry, 0, flushes);
    // What a forward zone's parent says does not hold for the zone's own servers.
    let of_a_parent = resolver.upstreams.is_of_a_parent(key);
    if response.rcode() == Rcode::NXDOMAIN && scrubbed.answer.is_empty() && !of_a_parent {
        let mut keys = KeyBuf::default();
        let marker = nonexistence(&resolver.service.seed, key, &mut keys);
        // What follows for types that nobody asked about must hold now.
        insert(resolver, &marker, NewEntry { stale_s: 0, ..entry }, 0, flushes);
    }
    Ok(stored)
}

/// Stores for a key that its name doesn't exist, as it was found under [`nonexistence`], so that the
/// next such question is a hit. `flushes` is their count when it was found.
pub(super) fn keep_absence(
    resolver: &Resolver,
    key: &Key<'_>,
    stored: &[u8],
    age_s: u32,
    flushes: u64,
) {
    let Some(template) = Template::from_bytes(stored) else { return };
    let (ttl_s, kind) = (template.min_ttl(), Kind::Negative);
    // Ages are rounded down: the copy must not outlive the original by what is left of a second.
    let age_ms = u64::from(age_s) * 1000 + 999;
    let entry = NewEntry { answer: stored, ttl_s, stale_s: resolver.limits.stale_ttl_s, kind };
    insert(resolver, key, entry, age_ms, flushes);
}

/// Stores that a question failed, for so many seconds; where there is data, it only holds back the next
/// question. `flushes` is their count when upstream was asked.
pub(super) fn keep_failure(
    resolver: &Resolver,
    key: &Key<'_>,
    failed: &Failed<'_>,
    hold_s: u32,
    flushes: u64,
) {
    let mut stored = Vec::new();
    failed.write(&mut stored);
    let entry = NewEntry { answer: &stored, ttl_s: hold_s, stale_s: 0, kind: Kind::Failure };
    insert(resolver, key, entry, 0, flushes);
}

/// Stores an entry of this age, unless there was a flush since their number was `flushes`.
fn insert(resolver: &Resolver, key: &Key<'_>, entry: NewEntry<'_>, age_ms: u64, flushes: u64) {
    let service = &resolver.service;
    let stored_ms = resolver.clock.now().boot_ms.saturating_sub(age_ms);
    let place = cache::Key { hash: key.hash, bytes: key.bytes };
    let inserted =
        service.flushes.unless_since(flushes, || service.cache.insert(place, entry, stored_ms));
    timeline::note(|| match inserted {
        Some(inserted) => format!("cache: {inserted:?}, {:?} for {} s", entry.kind, entry.ttl_s),
        None => "not stored: the cache was flushed meanwhile".to_owned(),
    });
    match (inserted, entry.kind) {
        (Some(cache::Inserted::Stored | cache::Inserted::Held), Kind::Failure) => {
            resolver.tally.inc(Counter::FailuresKept);
        }
        (Some(cache::Inserted::Stored), _) => resolver.tally.inc(Counter::CacheInserts),
        _ => {}
    }
}

/// The key under which it is stored that the name of `key` doesn't exist, whatever type is asked for
/// (RFC 2308 §5, RFC 8020 §2 for the name itself). An answer with a CNAME says that of another name.
/// Nothing else is ever stored there: `policy::meta` refuses questions of that type.
pub(super) fn nonexistence<'k>(seed: &Seed, key: &Key<'_>, keys: &'k mut KeyBuf) -> Key<'k> {
    keys.build(seed, key.qname(), NO_TYPE, key.qclass(), key.variant())
}

/// Keeps what answers the question.
///
/// # Errors
///
/// When the response says nothing about the name, or contradicts itself.
pub fn scrub<'m>(
    response: &Response<'m>,
    key: &Key<'_>,
    limits: &Limits,
) -> Result<Scrubbed<'m>, Failure> {
    let rcode = response.rcode();
    match rcode {
        Rcode::NOERROR | Rcode::NXDOMAIN | Rcode::YXDOMAIN => {}
        other => return Err(Failure::Rcode(other)),
    }
    let too_many = response.records().take(MAX_RECORDS + 1).count() > MAX_RECORDS;
    if too_many || response.flags().tc() {
        return Err(Failure::Malformed);
    }
    let answers = Answers::read(response, key.variant().dnssec_ok())?;
    let (mut answer, last_name) = answers.follow_chain(key, rcode)?;
    let chain_len = answer.len();
    answers.gather(&last_name, key.qtype(), &mut answer);
    let negative = answer.len() == chain_len;
    if !negative && rcode == Rcode::NXDOMAIN {
        return Err(Failure::Malformed);
    }
    for record in &mut answer {
        record.ttl = limits.clamp(record.ttl);
    }
    let mut scrubbed = Scrubbed { answer, authority: Vec::new(), negative, storable: true };
    if negative {
        scrubbed.storable = keep_denial(response, key, &last_name, limits, &mut scrubbed)?;
    } else if key.variant().dnssec_ok() {
        // An answer made from a wildcard needs the proof that nothing closer exists (RFC 4035 §3.1.3.3).
        keep_proofs(response, limits.max_ttl_s, &mut scrubbed.authority);
    }
    scrubbed.storable &= rcode != Rcode::YXDOMAIN;
    Ok(scrubbed)
}

/// The answer section with its owners' names read once: a chain looks at each of them again at every
/// link, and a long name in a compressed form takes long to read.
struct Answers<'m> {
    records: Vec<(Name, Record<'m>)>,
    with_signatures: bool,
}

impl<'m> Answers<'m> {
    fn read(response: &Response<'m>, with_signatures: bool) -> Result<Self, Failure> {
        let records = response
            .section(Section::Answer)
            .filter(|record| record.class == Class::IN)
            .map(|record| Ok((record.owner().ok_or(Failure::Malformed)?, record)))
            .collect::<Result<_, _>>()?;
        Ok(Self { records, with_signatures })
    }

    /// The links from the question's name on, and the name that they end at.
    fn follow_chain(
        &self,
        key: &Key<'_>,
        rcode: Rcode,
    ) -> Result<(Vec<Record<'m>>, Name), Failure> {
        let mut name = Name::from_wire(key.qname()).ok_or(Failure::Malformed)?;
        let mut chain = Vec::new();
        // DNAMEs that are in the chain already.
        let mut dnames: Vec<Name> = Vec::new();
        for _ in 0..MAX_CHAIN {
            if key.qtype() != Type::CNAME && self.owned(&name, key.qtype()).next().is_some() {
                return Ok((chain, name));
            }
            let cname = self.owned(&name, Type::CNAME).next();
            if let Some(dname) = self.dname_above(&name).filter(|dname| !dnames.contains(dname)) {
                // A server makes the CNAME itself (RFC 6672 §3.1), unless the name would get too long.
                if cname.is_none() && rcode != Rcode::YXDOMAIN {
                    return Err(Failure::Malformed);
                }
                self.gather(&dname, Type::DNAME, &mut chain);
                dnames.push(dname);
            }
            let Some(cname) = cname.filter(|_| key.qtype() != Type::CNAME) else {
                return Ok((chain, name));
            };
            let target = cname.rdata_name(0).ok_or(Failure::Malformed)?;
            let first = chain.len();
            chain.push(cname);
            self.gather_signatures(&name, Type::CNAME, first, &mut chain);
            name = target;
        }
        Err(Failure::Malformed)
    }

    /// Appends an RRset without duplicates (RFC 2181 §5), and its signatures.
    fn gather(&self, owner: &Name, rtype: Type, records: &mut Vec<Record<'m>>) {
        let first = records.len();
        let mut seen = HashSet::new();
        records.extend(self.owned(owner, rtype).filter(|record| seen.insert(record.rdata())));
        self.gather_signatures(owner, rtype, first, records);
    }

    /// Appends the signatures of the RRset that begins at `first`, and makes all their TTLs equal
    /// (RFC 2181 §5.2, RFC 4034 §3).
    fn gather_signatures(
        &self,
        owner: &Name,
        covered: Type,
        first: usize,
        records: &mut Vec<Record<'m>>,
    ) {
        if records.len() == first {
            return;
        }
        if self.with_signatures && covered != Type::RRSIG {
            let covers = |record: &Record<'_>| record.covered_type() == Some(covered);
            records.extend(self.owned(owner, Type::RRSIG).filter(covers));
        }
        let rrset = records.get_mut(first..).unwrap_or_default();
        let ttl = rrset.iter().map(|record| record.ttl).min().unwrap_or_default();
        rrset.iter_mut().for_each(|record| record.ttl = ttl);
    }

    /// The records of one owner and type.
    fn owned(&self, owner: &Name, rtype: Type) -> impl Iterator<Item = Record<'m>> {
        self.records
            .iter()
            .filter(move |(name, record)| record.rtype == rtype && name == owner)
            .map(|(_, record)| *record)
    }

    /// The owner of a DNAME that lies above a name.
    fn dname_above(&self, name: &Name) -> Option<Name> {
        self.records
            .iter()
            .filter(|(_, record)| record.rtype == Type::DNAME)
            .map(|(owner, _)| *owner)
            .find(|owner| owner != name && name.is_at_or_below(owner.as_wire()))
    }
}

/// Keeps the SOA that a negative answer is cached by, with the answer's TTL written into it, and the
/// proofs. Returns whether there was one.
fn keep_denial<'m>(
    response: &Response<'m>,
    key: &Key<'_>,
    denied: &Name,
    limits: &Limits,
    scrubbed: &mut Scrubbed<'m>,
) -> Result<bool, Failure> {
    let in_authority = || response.section(Section::Authority).filter(|r| r.class == Class::IN);
    let soa = in_authority()
        .filter(|record| record.rtype == Type::SOA)
        .find(|record| record.owner().is_some_and(|owner| denied.is_at_or_below(owner.as_wire())));
    let Some(soa) = soa else {
        // NOERROR without data or SOA but with NS records is a referral: not a resolver's answer.
        let refers = in_authority().any(|record| record.rtype == Type::NS);
        return match (response.rcode(), refers, scrubbed.answer.is_empty()) {
            (Rcode::NOERROR, true, true) => Err(Failure::Malformed),
            _ => Ok(false),
        };
    };
    let minimum = soa.soa_minimum().ok_or(Failure::Malformed)?;
    let chain = scrubbed.answer.iter().map(|record| record.ttl).min().unwrap_or(u32::MAX);
    let ttl = limits.clamp_negative(soa.ttl.min(minimum).min(chain));
    scrubbed.authority.push(with_ttl(soa, ttl));
    if key.variant().dnssec_ok() {
        let soa_owner = soa.owner();
        let signatures = in_authority().filter(|record| {
            record.covered_type() == Some(Type::SOA) && record.owner() == soa_owner
        });
        scrubbed.authority.extend(signatures.map(|record| with_ttl(record, ttl)));
        keep_proofs(response, ttl, &mut scrubbed.authority);
    }
    Ok(true)
}

/// Keeps NSEC and NSEC3 records with their signatures, for at most `max_ttl_s`.
fn keep_proofs<'m>(response: &Response<'m>, max_ttl_s: u32, authority: &mut Vec<Record<'m>>) {
    let is_proof = |rtype| matches!(rtype, Type::NSEC | Type::NSEC3);
    let proofs = response
        .section(Section::Authority)
        .filter(|record| record.class == Class::IN)
        .filter(|record| is_proof(record.rtype) || record.covered_type().is_some_and(is_proof));
    authority.extend(proofs.map(|record| with_ttl(record, record.ttl.min(max_ttl_s))));
}

fn with_ttl(mut record: Record<'_>, ttl: u32) -> Record<'_> {
    record.ttl = ttl;
    record
}

#[cfg(test)]
mod tests;
