//! The way of a packet: facts, policy, key, probe, render, finish. All branches are here.
//!
//! [`serve`] is a pure function of the packet, the client's address, the clock's reading and what the
//! service knows. It makes no syscall, reads no clock, takes no lock, writes no log line and allocates
//! nothing, so a socket, an XDP frame, a TCP stream, a fuzzer and a benchmark all call it alike.
//!
//! Budget of a hit beyond parse and key (see those files): one probe, one memcpy of the stored tail
//! into the buffer that the query came in, one OPT record.

pub mod answer;
pub mod miss;

use std::net::IpAddr;

use swiftlet_cache::{self as cache, AnswerCache, Lookup, Pin};
use swiftlet_net::clock::Now;
use swiftlet_parser::edns::ExtendedError;
use swiftlet_parser::key::{Key, KeyBuf, Seed, Variant};
use swiftlet_parser::message::{self, ReplyWriter};
use swiftlet_parser::query::{self, Query, Reject};
use swiftlet_parser::rr::Rcode;
use swiftlet_parser::template::{self, Template};

use crate::edns;
use crate::policy::{self, Action, Answer, Policies, Request};
use crate::telemetry::{Counter, Counters};

/// What answering needs: read-only, shared by all workers.
pub struct Service {
    /// The policies, in table order.
    pub policies: Policies,
    /// What goes into the OPT record of a reply.
    pub edns: edns::Settings,
    /// The answer cache.
    pub cache: AnswerCache,
    /// The process's random seed for key hashes.
    pub seed: Seed,
}

/// What holds for all packets of one batch.
pub struct Batch<'a> {
    /// The service as it was when the batch began.
    pub service: &'a Service,
    /// The counters of the worker that serves it.
    pub counters: &'a Counters,
    /// Keeps what the cache lends alive until the batch is done.
    pub pin: Pin,
    /// The clock, read once.
    pub now: Now,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'k> {
    /// The buffer now holds a reply of this many bytes.
    Reply(usize),
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
pub type Explanation = Option<(ExtendedError, &'static str)>;

/// Serves one packet: `buf` holds it in its first `len` bytes and has room for the reply.
pub fn serve<'k>(
    batch: &Batch<'_>,
    keys: &'k mut KeyBuf,
    buf: &mut [u8],
    len: usize,
    client: IpAddr,
) -> Verdict<'k> {
    let Batch { service, counters, .. } = batch;
    let packet = buf.get(..len).unwrap_or_default();
    let query = match query::parse(packet) {
        Ok(query) => query,
        Err(reject) => return refuse(batch, buf, len, reject),
    };
    let qname = query.qname(packet);

    match policy::query(&service.policies, &Request { query: &query, qname, client }) {
        Action::Continue => {}
        Action::Answer(answer) => return answer_locally(batch, buf, &query, &answer),
    }

    let variant = Variant::new(query.dnssec_ok(), query.checking_disabled(), 0);
    let key = keys.build(&service.seed, qname, query.qtype, query.qclass, variant);
    let probe = cache::Key { hash: key.hash, bytes: key.bytes };
    let reply = service.cache.with(&batch.pin, probe, batch.now.boot_ms, |found| match found {
        Lookup::Fresh(hit) => Template::from_bytes(hit.answer)
            .map(|template| respond(service, counters, buf, &query, template, hit.age_s)),
        Lookup::Stale(_) | Lookup::Miss => None,
    });
    match reply {
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

/// Renders a stored answer behind the question in `buf` and finishes it with a fresh OPT record: the
/// one place that shapes an answer, for hits and for those who waited.
pub fn respond<'k>(
    service: &Service,
    counters: &Counters,
    buf: &mut [u8],
    query: &Query,
    template: Template<'_>,
    age_s: u32,
) -> Verdict<'k> {
    let limit = query.payload_limit(service.edns.udp_size);
    let room = service.edns.room(query, None);
    let rendered = template::render(template, buf, query, age_s, limit.saturating_sub(room));
    if rendered.truncated {
        counters.inc(Counter::Truncated);
    }
    counters.answer(template.rcode());
    finished(service.edns.finish(buf, rendered.len, query, template.rcode(), None))
}

/// Writes a reply that no upstream had a part in.
fn answer_locally<'k>(
    batch: &Batch<'_>,
    buf: &mut [u8],
    query: &Query,
    answer: &Answer<'_>,
) -> Verdict<'k> {
    batch.counters.inc(Counter::LocalAnswers);
    let explanation = answer.explanation();
    if matches!(explanation, Some((ExtendedError::PROHIBITED, _))) {
        batch.counters.inc(Counter::AclRefused);
    }
    write_answer(batch.service, batch.counters, buf, query, answer)
}

/// Writes an [`Answer`] behind the question in `buf`.
pub(crate) fn write_answer<'k>(
    service: &Service,
    counters: &Counters,
    buf: &mut [u8],
    query: &Query,
    answer: &Answer<'_>,
) -> Verdict<'k> {
    let (rcode, explanation) = (answer.rcode(), answer.explanation());
    let Some(mut reply) = ReplyWriter::start(buf, query, rcode) else {
        return Verdict::Drop(Counter::DroppedUnrenderable);
    };
    // The largest of these answers is far below 512 bytes, so none can need truncation.
    answer.write(&mut reply, query);
    let len = reply.finish();
    counters.answer(rcode);
    finished(service.edns.finish(buf, len, query, rcode, explanation))
}

/// Answers a packet whose query could not be read as RFC 8906 expects, or stays silent.
fn refuse<'k>(batch: &Batch<'_>, buf: &mut [u8], len: usize, reject: Reject) -> Verdict<'k> {
    let rcode = match reject {
        Reject::Short => return Verdict::Drop(Counter::DroppedShort),
        Reject::Response => return Verdict::Drop(Counter::DroppedResponse),
        Reject::BadVersion(query) => {
            let answer = Answer::code(Rcode::BADVERS, None);
            return write_answer(batch.service, batch.counters, buf, &query, &answer);
        }
        Reject::Opcode => Rcode::NOTIMP,
        Reject::Malformed => Rcode::FORMERR,
    };
    batch.counters.answer(rcode);
    finished(message::error_in_place(buf, len, rcode))
}

fn finished<'k>(len: Option<usize>) -> Verdict<'k> {
    len.map_or(Verdict::Drop(Counter::DroppedUnrenderable), Verdict::Reply)
}
