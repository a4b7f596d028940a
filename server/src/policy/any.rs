//! ANY gets one synthesized HINFO record instead of everything there is (RFC 8482 §4.2).

use swiftlet_parser::rr::{Class, Type};

use super::{Action, Answer, Policies, Request};

/// CPU "RFC8482", OS "".
const RDATA: &[u8] = b"\x07RFC8482\x00";

/// An hour; RFC 8482 asks for a TTL that discourages asking again at once.
const TTL_S: u32 = 3600;

pub(super) fn query<'a>(_: &'a Policies, request: &Request<'_>) -> Action<'a> {
    if request.query.qtype != Type::ANY {
        return Action::Continue;
    }
    Action::Answer(Answer::Record {
        rtype: Type::HINFO,
        class: Class::IN,
        ttl: TTL_S,
        rdata: RDATA,
    })
}
