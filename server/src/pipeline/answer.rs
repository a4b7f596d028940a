//! The answer to a query that waited: its question is rebuilt, then the same render and finish as a
//! hit's shape it.

use swiftlet_parser::key::Key;
use swiftlet_parser::message;
use swiftlet_parser::template::Template;

use super::miss::Waiter;
use super::{Service, Verdict, respond, write_answer};
use crate::policy::Answer;
use crate::resolver::Outcome;
use crate::telemetry::{Counter, Counters};

/// Writes the answer for one waiter into `buf`, which holds a packet of at most its length.
pub fn compose<'k>(
    service: &Service,
    counters: &Counters,
    waiter: &Waiter,
    key: &Key<'_>,
    outcome: &Outcome,
    buf: &mut [u8],
) -> Verdict<'k> {
    let query = &waiter.query;
    if message::restore_question(buf, query, key, &waiter.case).is_none() {
        return Verdict::Drop(Counter::DroppedUnrenderable);
    }
    match outcome {
        Outcome::Answer(stored) => match Template::from_bytes(stored) {
            Some(template) => respond(service, counters, buf, query, template, 0),
            None => Verdict::Drop(Counter::DroppedUnrenderable),
        },
        Outcome::Failure { rcode, error, text } => {
            let answer = Answer::code(*rcode, Some((*error, text)));
            write_answer(service, counters, buf, query, &answer)
        }
    }
}
