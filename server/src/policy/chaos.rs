//! What the server says of itself in class CH: `version.bind`, `version.server`, `hostname.bind` and
//! `id.server` (RFC 4892). Every other question of that class is refused.

use swiftlet_parser::edns::ExtendedError;
use swiftlet_parser::name::fold::eq_ignore_case;
use swiftlet_parser::rr::{Class, Rcode, Type};

use super::{Action, Answer, Policies, Request};

/// The texts, ready as TXT RDATA.
#[derive(Debug)]
pub struct Identity {
    version: Box<[u8]>,
    /// `None`: the server does not say who it is.
    name: Option<Box<[u8]>>,
}

impl Identity {
    /// The longest name, in bytes: with it twice in an answer (TXT and NSID) 512 bytes still suffice.
    pub const MAX_NAME_LEN: usize = 63;

    /// The program's version, and the name of this instance unless it is to stay unnamed.
    #[must_use]
    pub fn new(version: &str, name: Option<&str>) -> Self {
        Self { version: character_string(version), name: name.map(character_string) }
    }

    /// The name of this instance, as NSID carries it (RFC 5001).
    #[must_use]
    pub fn name(&self) -> Option<&[u8]> {
        self.name.as_deref().and_then(|rdata| rdata.get(1..))
    }
}

pub(super) fn query<'a>(policies: &'a Policies, request: &Request<'_>) -> Action<'a> {
    if request.query.qclass != Class::CH {
        return Action::Continue;
    }
    let identity = &policies.identity;
    let text = match request.query.qtype {
        Type::TXT | Type::ANY if is(request.qname, b"\x07version\x04bind\x00") => {
            Some(&identity.version)
        }
        Type::TXT | Type::ANY if is(request.qname, b"\x07version\x06server\x00") => {
            Some(&identity.version)
        }
        Type::TXT | Type::ANY if is(request.qname, b"\x08hostname\x04bind\x00") => {
            identity.name.as_ref()
        }
        Type::TXT | Type::ANY if is(request.qname, b"\x02id\x06server\x00") => {
            identity.name.as_ref()
        }
        _ => None,
    };
    Action::Answer(match text {
        Some(rdata) => Answer::Record { rtype: Type::TXT, class: Class::CH, ttl: 0, rdata },
        None => Answer::code(Rcode::REFUSED, Some((ExtendedError::NOT_SUPPORTED, ""))),
    })
}

fn is(qname: &[u8], wanted: &[u8]) -> bool {
    eq_ignore_case(qname, wanted)
}

fn character_string(text: &str) -> Box<[u8]> {
    let bytes = &text.as_bytes()[..text.len().min(Identity::MAX_NAME_LEN)];
    let mut rdata = Vec::with_capacity(bytes.len() + 1);
    rdata.push(bytes.len() as u8);
    rdata.extend_from_slice(bytes);
    rdata.into()
}
