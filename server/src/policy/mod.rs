//! Policies: what is answered, or refused, before the cache is asked.
//!
//! Each policy is one file with one hook, and the table gives their order; the first that does not
//! say [`Action::Continue`] decides. To add one, write its file and add its row.

mod acl;
mod any;
mod chaos;
mod meta;
pub mod special_use;

pub use acl::Acl;
pub use chaos::Identity;

use std::net::IpAddr;

use swiftlet_parser::message::ReplyWriter;
use swiftlet_parser::query::Query;
use swiftlet_parser::rr::{Class, Rcode, Type};

use crate::pipeline::Explanation;

/// A hook on the way of a query.
type Hook = for<'a> fn(&'a Policies, &Request<'_>) -> Action<'a>;

/// The policies in the order in which they are asked.
const TABLE: &[Hook] = &[acl::query, chaos::query, meta::query, special_use::query, any::query];

/// The state of all policies, read-only while queries are served.
#[derive(Debug)]
pub struct Policies {
    /// Who is served.
    pub acl: Acl,
    /// What the server says of itself.
    pub identity: Identity,
    /// Names that are answered here and never forwarded.
    pub special_use: special_use::Zones,
}

/// What a policy may look at.
#[derive(Clone, Copy, Debug)]
pub struct Request<'p> {
    /// The facts of the query.
    pub query: &'p Query,
    /// The question's name as the client wrote it, in wire format.
    pub qname: &'p [u8],
    /// The client's address.
    pub client: IpAddr,
}

/// What a policy decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// The next policy is asked; after the last one, the cache.
    Continue,
    /// This is the answer.
    Answer(Answer<'a>),
}

/// An answer that needs no upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// A bare response code, perhaps with its reason.
    Code(Rcode, Explanation<'a>),
    /// One record that the question's name owns.
    Record {
        /// The record's type.
        rtype: Type,
        /// The record's class.
        class: Class,
        /// Its TTL in seconds.
        ttl: u32,
        /// Its data, without compressed names.
        rdata: &'a [u8],
    },
    /// NXDOMAIN or NODATA of a zone served here, with the zone's SOA (RFC 2308).
    Negative {
        /// NXDOMAIN, or NOERROR for NODATA.
        rcode: Rcode,
        /// Where the zone's name begins inside the question's name.
        zone_at: usize,
    },
    /// A record at the apex of a zone served here.
    Apex {
        /// SOA or NS.
        rtype: Type,
    },
}

impl<'a> Answer<'a> {
    /// A response code and why.
    #[must_use]
    pub fn code(rcode: Rcode, explanation: Explanation<'a>) -> Self {
        Self::Code(rcode, explanation)
    }

    /// The response code.
    #[must_use]
    pub fn rcode(&self) -> Rcode {
        match *self {
            Self::Code(rcode, _) | Self::Negative { rcode, .. } => rcode,
            Self::Record { .. } | Self::Apex { .. } => Rcode::NOERROR,
        }
    }

    /// The Extended DNS Error that goes with it.
    #[must_use]
    pub fn explanation(&self) -> Explanation<'a> {
        match *self {
            Self::Code(_, explanation) => explanation,
            _ => None,
        }
    }

    /// Writes its records behind the question.
    pub(crate) fn write(&self, reply: &mut ReplyWriter<'_>, query: &Query) {
        match *self {
            Self::Code(..) => {}
            Self::Record { rtype, class, ttl, rdata } => {
                reply.answer(rtype, class, ttl, rdata);
            }
            Self::Negative { zone_at, .. } => {
                let soa = special_use::soa(zone_at);
                let ttl = special_use::TTL_S;
                reply.authority(zone_at, Type::SOA, query.qclass, ttl, &soa);
            }
            Self::Apex { rtype } if rtype == Type::SOA => {
                let soa = special_use::soa(0);
                reply.answer(rtype, query.qclass, special_use::TTL_S, &soa);
            }
            Self::Apex { rtype } => {
                let name = special_use::pointer(0);
                reply.answer(rtype, query.qclass, special_use::TTL_S, &name);
            }
        }
    }
}

/// Asks the policies in table order.
pub fn query<'a>(policies: &'a Policies, request: &Request<'_>) -> Action<'a> {
    for hook in TABLE {
        let action = hook(policies, request);
        if action != Action::Continue {
            return action;
        }
    }
    Action::Continue
}
