//! The shape of an answer: what is stored, or what a policy said, behind the client's question, finished
//! with a fresh OPT record. Hits, local answers and those who waited all get theirs here.

use swiftlet_parser::edns::ExtendedError;
use swiftlet_parser::key::Key;
use swiftlet_parser::message::{self, ReplyWriter};
use swiftlet_parser::query::Query;
use swiftlet_parser::rr::Rcode;
use swiftlet_parser::template::{self, Template};

use super::miss::Waiter;
use super::{Service, Transport, Verdict};
use crate::policy::Answer;
use crate::resolver::{Outcome, Staleness};
use crate::telemetry::{Counter, Counters};

/// The TTL of every record of a stale answer, in seconds (RFC 8767 §4).
pub const STALE_TTL_S: u32 = 30;

/// Shapes answers for one transport and counts them.
#[derive(Clone, Copy)]
pub struct Shaper<'a> {
    /// What answering needs.
    pub service: &'a Service,
    /// The counters of the worker that answers.
    pub counters: &'a Counters,
    /// What carries the answer.
    pub transport: Transport,
}

impl Shaper<'_> {
    /// Renders a stored answer, aged by so many seconds, behind the question in `buf`.
    pub fn stored<'k>(
        &self,
        buf: &mut [u8],
        query: &Query,
        template: Template<'_>,
        age_s: u32,
    ) -> Verdict<'k> {
        let Self { service, counters, transport } = *self;
        let limit = transport.limit(query, service.edns.udp_size);
        let room = service.edns.room(query, transport, None);
        let rendered = template::render(template, buf, query, age_s, limit.saturating_sub(room));
        if rendered.truncated {
            counters.inc(Counter::Truncated);
        }
        let rcode = template.rcode();
        counters.answer(rcode);
        reply(service.edns.finish(buf, rendered.len, query, transport, rcode, None))
    }

    /// Renders a stored answer whose time is over (RFC 8767) behind the question in `buf`.
    pub fn stale<'k>(
        &self,
        buf: &mut [u8],
        query: &Query,
        template: Template<'_>,
        why: Staleness,
    ) -> Verdict<'k> {
        let Self { service, counters, transport } = *self;
        let rcode = template.rcode();
        let error = match rcode {
            Rcode::NXDOMAIN => ExtendedError::STALE_NXDOMAIN,
            _ => ExtendedError::STALE_ANSWER,
        };
        let explanation = Some((error, why.text()));
        let limit = transport.limit(query, service.edns.udp_size);
        let limit = limit.saturating_sub(service.edns.room(query, transport, explanation));
        let rendered = template::render_stale(template, buf, query, STALE_TTL_S, limit);
        if rendered.truncated {
            counters.inc(Counter::Truncated);
        }
        counters.answer(rcode);
        reply(service.edns.finish(buf, rendered.len, query, transport, rcode, explanation))
    }

    /// Writes an answer that no upstream had a part in behind the question in `buf`.
    pub fn local<'k>(&self, buf: &mut [u8], query: &Query, answer: &Answer<'_>) -> Verdict<'k> {
        let Self { service, counters, transport } = *self;
        let (rcode, explanation) = (answer.rcode(), answer.explanation());
        let Some(mut writer) = ReplyWriter::start(buf, query, rcode) else {
            return Verdict::Drop(Counter::DroppedUnrenderable);
        };
        // The largest of these answers is below 512 bytes (there is a test), so none needs truncation.
        answer.write(&mut writer, query);
        let len = writer.finish();
        counters.answer(rcode);
        reply(service.edns.finish(buf, len, query, transport, rcode, explanation))
    }

    /// Writes the answer for one who waited into `buf`: its question is rebuilt first.
    pub fn waited<'k>(
        &self,
        buf: &mut [u8],
        waiter: &Waiter,
        key: &Key<'_>,
        outcome: &Outcome,
    ) -> Verdict<'k> {
        let query = &waiter.query;
        if message::restore_question(buf, query, key, &waiter.case).is_none() {
            return Verdict::Drop(Counter::DroppedUnrenderable);
        }
        match outcome {
            Outcome::Answer { stored, age_s } => match Template::from_bytes(stored) {
                Some(template) => self.stored(buf, query, template, *age_s),
                None => Verdict::Drop(Counter::DroppedUnrenderable),
            },
            Outcome::Stale { stored, why } => match Template::from_bytes(stored) {
                Some(template) => {
                    self.counters.inc(why.counter());
                    self.stale(buf, query, template, *why)
                }
                None => Verdict::Drop(Counter::DroppedUnrenderable),
            },
            Outcome::Shed { text } => {
                let why = Some((ExtendedError::OTHER, *text));
                self.local(buf, query, &Answer::code(Rcode::SERVFAIL, why))
            }
            Outcome::Duplicate => Verdict::Drop(Counter::DroppedDuplicate),
            Outcome::Failure { rcode, error, text } => {
                self.local(buf, query, &Answer::code(*rcode, Some((*error, &**text))))
            }
        }
    }
}

/// A reply of this length, if it could be written.
pub(super) fn reply<'k>(len: Option<usize>) -> Verdict<'k> {
    len.map_or(Verdict::Drop(Counter::DroppedUnrenderable), Verdict::Reply)
}
