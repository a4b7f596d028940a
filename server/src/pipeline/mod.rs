//! The way of a packet: facts, policy, key, probe, render, finish. All branches are here.
//!
//! [`serve`] is a pure function of the packet, the client's address, the clock's reading and what the
//! service knows. It makes no syscall, reads no clock, takes no lock, writes no log line and allocates
//! nothing, so a socket, an XDP frame, a TCP stream, a fuzzer and a benchmark all call it alike.
//!
//! Budget of a hit beyond parse and key (see those files): one probe, one memcpy of the stored tail
//! into the buffer that the query came in, one OPT record. What is not a usual hit and answered here all
//! the same: a failure that is remembered (RFC 9520), and stale data while asking again is no use
//! (RFC 8767).

mod answer;
pub mod miss;

pub use answer::{STALE_TTL_S, Shaper};

use std::net::IpAddr;

use swiftlet_cache::{Lookup, Store as _};
use swiftlet_net::clock::Now;
use swiftlet_parser::edns::ExtendedError;
use swiftlet_parser::key::{Key, KeyBuf, Seed, Variant};
use swiftlet_parser::message;
use swiftlet_parser::query::{self, Query, Reject};
use swiftlet_parser::rr::Rcode;
use swiftlet_parser::template::Template;

use crate::cache::{AnswerCache, Pin};
use crate::edns;
use crate::flush::Flushes;
use crate::policy::{self, Action, Answer, Policies, Request};
use crate::resolver::Staleness;
use crate::resolver::failures::Failed;
use crate::telemetry::Counter;

/// What answering needs: read-only, shared by all workers.
pub struct Service {
    /// The policies, in table order.
    pub policies: Policies,
    /// What goes into the OPT record of a reply.
    pub edns: edns::Settings,
    /// The answer cache.
    pub cache: AnswerCache,
    /// How often answers were flushed from it.
    pub flushes: Flushes,
    /// The process's random seed for key hashes.
    pub seed: Seed,
}

/// What holds for all packets of one batch.
pub struct Batch<'a> {
    /// The service as it was when the batch began, and how answers are shaped for what carries them.
    pub shaper: Shaper<'a>,
    /// Keeps what the cache lends alive until the batch is done.
    pub pin: Pin,
    /// The clock, read once.
    pub now: Now,
}

/// What carries a query and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams: the client says how much it can take.
    Udp,
    /// A TCP connection, which carries any message and stays open.
    Stream,
}

impl Transport {
    /// Bytes that an answer may have.
    fn limit(self, query: &Query, udp_size: u16) -> usize {
        match self {
            Self::Udp => query.payload_limit(udp_size),
            Self::Stream => MAX_MESSAGE_LEN,
        }
    }
}

/// The longest DNS message (RFC 1035 §4.2.2).
pub const MAX_MESSAGE_LEN: usize = 65_535;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'k> {
    /// The buffer now holds a reply of this many bytes.
    Reply(usize),
    /// The same, and the answer's time is over or almost: whoever carries the query may have it asked
    /// for anew, though nobody waits for that.
    ReplyAndRefresh {
        /// Bytes of the reply.
        len: usize,
        /// What the cache was asked for.
        key: Key<'k>,
    },
    /// No answer; the reason is the counter to move.
    Drop(Counter),
    /// The answer is not known: the question goes to the owner of its key.
    Wait {
        /// The facts of the query, which outlive its packet.
        query: Query,
        /// What the cache was asked for.
        key: Key<'k>,
    },
}

/// An Extended DNS Error with the text that explains it (RFC 8914).
pub type Explanation<'a> = Option<(ExtendedError, &'a str)>;

/// Shorter TTLs, in seconds, are not refreshed before their time: it would be asking again and again
/// for what the zone wants to be asked for again and again.
pub const REFRESH_TTL_MIN_S: u32 = 10;

/// Serves one packet: `buf` holds it in its first `len` bytes and has room for the reply.
pub fn serve<'k>(
    batch: &Batch<'_>,
    keys: &'k mut KeyBuf,
    buf: &mut [u8],
    len: usize,
    client: IpAddr,
) -> Verdict<'k> {
    let Shaper { service, counters, .. } = batch.shaper;
    let packet = buf.get(..len).unwrap_or_default();
    let query = match query::parse(packet) {
        Ok(query) => query,
        Err(reject) => return refuse(batch, buf, len, client, reject),
    };
    let qname = query.qname(packet);

    match policy::query(&service.policies, &Request { query: &query, qname, client }) {
        Action::Continue => {}
        Action::Answer(answer) => return answer_locally(batch, buf, &query, &answer),
    }

    let key = key_of(service, keys, &query, qname);
    let probe = swiftlet_cache::Key { hash: key.hash, bytes: key.bytes };
    let mut refresh = false;
    let reply = service.cache.with(&batch.pin, probe, batch.now.boot_ms, |found| match found {
        Lookup::Fresh(hit) => match Template::from_bytes(hit.answer) {
            Some(template) => {
                refresh = hit.refresh_due && template.min_ttl() >= REFRESH_TTL_MIN_S;
                Some(batch.shaper.stored(buf, &query, template, hit.age_s))
            }
            None => answer_failure(batch, buf, &query, hit.answer),
        },
        Lookup::Stale(hit) if hit.retry_held => {
            // The owner knows whether it is worth while to ask again.
            refresh = true;
            answer_stale(batch, buf, &query, hit.answer)
        }
        Lookup::Stale(_) | Lookup::Miss => None,
    });
    match reply {
        // Who doesn't want recursion causes none.
        Some(Verdict::Reply(len)) if refresh && query.recursion_desired() => {
            counters.inc(Counter::CacheHits);
            Verdict::ReplyAndRefresh { len, key }
        }
        Some(reply) => {
            counters.inc(Counter::CacheHits);
            reply
        }
        // A cache may be asked without wanting recursion; there is nothing to refer such a client to.
        None if !query.recursion_desired() => {
            let answer = Answer::code(Rcode::REFUSED, Some((ExtendedError::NOT_AUTHORITATIVE, "")));
            answer_locally(batch, buf, &query, &answer)
        }
        None => {
            counters.inc(Counter::CacheMisses);
            Verdict::Wait { query, key }
        }
    }
}

/// The hash of the key that [`serve`] will probe for this packet, if it gets that far: a second parse
/// and key, which cost less than the waits for memory that they save.
#[inline]
pub fn foresee(batch: &Batch<'_>, keys: &mut KeyBuf, packet: &[u8]) -> Option<u64> {
    let query = query::parse(packet).ok()?;
    Some(key_of(batch.shaper.service, keys, &query, query.qname(packet)).hash)
}

#[inline]
fn key_of<'k>(service: &Service, keys: &'k mut KeyBuf, query: &Query, qname: &[u8]) -> Key<'k> {
    let variant = Variant::new(query.dnssec_ok(), query.checking_disabled(), 0);
    keys.build(&service.seed, qname, query.qtype, query.qclass, variant)
}

/// Tells that asking failed a moment ago.
#[cold]
fn answer_failure<'k>(
    batch: &Batch<'_>,
    buf: &mut [u8],
    query: &Query,
    stored: &[u8],
) -> Option<Verdict<'k>> {
    let failed = Failed::read(stored)?;
    batch.shaper.counters.inc(Counter::FailuresGiven);
    let why = Some((ExtendedError::CACHED_ERROR, failed.text));
    Some(batch.shaper.local(buf, query, &Answer::code(failed.rcode, why)))
}

/// Gives data past its TTL while asking again is no use.
#[cold]
fn answer_stale<'k>(
    batch: &Batch<'_>,
    buf: &mut [u8],
    query: &Query,
    stored: &[u8],
) -> Option<Verdict<'k>> {
    let template = Template::from_bytes(stored)?;
    batch.shaper.counters.inc(Counter::StaleHeld);
    Some(batch.shaper.stale(buf, query, template, Staleness::Held))
}

/// Writes a reply that no upstream had a part in.
fn answer_locally<'k>(
    batch: &Batch<'_>,
    buf: &mut [u8],
    query: &Query,
    answer: &Answer<'_>,
) -> Verdict<'k> {
    let counters = batch.shaper.counters;
    counters.inc(Counter::LocalAnswers);
    if matches!(answer.explanation(), Some((ExtendedError::PROHIBITED, _))) {
        counters.inc(Counter::AclRefused);
    }
    batch.shaper.local(buf, query, answer)
}

/// Answers a packet whose query could not be read as RFC 8906 expects, or stays silent. Strangers learn no
/// more from it than from any other query.
fn refuse<'k>(
    batch: &Batch<'_>,
    buf: &mut [u8],
    len: usize,
    client: IpAddr,
    reject: Reject,
) -> Verdict<'k> {
    let Shaper { service, counters, .. } = batch.shaper;
    let stranger = !service.policies.acl.allows(client);
    let rcode = match reject {
        Reject::Short => return Verdict::Drop(Counter::DroppedShort),
        Reject::Response => return Verdict::Drop(Counter::DroppedResponse),
        _ if stranger => Rcode::REFUSED,
        Reject::BadVersion(query) => {
            return batch.shaper.local(buf, &query, &Answer::code(Rcode::BADVERS, None));
        }
        Reject::BadOptions(query) => {
            return batch.shaper.local(buf, &query, &Answer::code(Rcode::FORMERR, None));
        }
        Reject::Opcode => Rcode::NOTIMP,
        Reject::Malformed => Rcode::FORMERR,
    };
    counters.add(Counter::AclRefused, u64::from(stranger));
    counters.answer(rcode);
    answer::reply(message::error_in_place(buf, len, rcode))
}
