//! Questions that no cache can answer: other classes than IN, transfers and meta types (RFC 6895 §3.1).

use swiftlet_parser::edns::ExtendedError;
use swiftlet_parser::rr::{Class, Rcode, Type};

use super::{Action, Answer, Policies, Request};

pub(super) fn query<'a>(_: &'a Policies, request: &Request<'_>) -> Action<'a> {
    let why = match (request.query.qtype, request.query.qclass) {
        (Type::AXFR | Type::IXFR, Class::IN) => "zone transfers are not served",
        (Type::ANY, Class::IN) => return Action::Continue,
        (qtype, Class::IN) if qtype.is_meta() || qtype == Type(0) => "a meta type is not data",
        (_, Class::IN) => return Action::Continue,
        _ => "only the Internet class is served",
    };
    Action::Answer(Answer::code(Rcode::REFUSED, Some((ExtendedError::NOT_SUPPORTED, why))))
}
