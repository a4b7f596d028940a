//! Where the names are inside RDATA, by type: the one table that an answer is taken apart with.
//!
//! A name may be compressed on the wire, so RDATA that holds one cannot be copied from a message to
//! another. RFC 3597 §4 splits the types in three:
//! - those of RFC 1035 may be compressed by a sender, so they are decompressed and compressed again;
//! - a few later ones must be decompressed by a receiver, yet never be compressed by a sender;
//! - all others, known or unknown, hold no compressed name: they are opaque and copied as they are.
//!
//! RFC 3597 closed the first two groups, so the table is complete. SVCB and HTTPS (RFC 9460) belong to
//! the third and are listed nevertheless: a sender that compresses their target name is wrong, yet
//! its pointer must not be stored.

use crate::rr::{Class, Type};

/// One part of RDATA, in the order of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// A name of a type of RFC 1035: may be compressed in a reply.
    CompressibleName,
    /// A name that may arrive compressed and is always sent in full.
    PlainName,
    /// So many bytes.
    Bytes(usize),
    /// One length byte and that many more (`<character-string>`, RFC 1035 §3.3).
    CharacterString,
    /// Whatever is left, possibly nothing.
    Rest,
}

use Field::{Bytes, CharacterString, CompressibleName, PlainName, Rest};

/// The parts of this type's RDATA. What is left behind the last of them makes the RDATA malformed.
pub(crate) fn layout(rtype: Type, class: Class) -> &'static [Field] {
    match rtype {
        // RFC 1035 §3.3
        Type::NS
        | Type::MD
        | Type::MF
        | Type::CNAME
        | Type::MB
        | Type::MG
        | Type::MR
        | Type::PTR => &[CompressibleName],
        // mname, rname, and serial, refresh, retry, expire, minimum
        Type::SOA => &[CompressibleName, CompressibleName, Bytes(20)],
        Type::MINFO => &[CompressibleName, CompressibleName],
        Type::MX => &[Bytes(2), CompressibleName],
        // RFC 1183 §2.2
        Type::RP => &[PlainName, PlainName],
        // RFC 1183 §1 and §3.3
        Type::AFSDB | Type::RT => &[Bytes(2), PlainName],
        // The signer's name, then the signature (RFC 4034 §3.1)
        Type::SIG | Type::RRSIG => &[Bytes(18), PlainName, Rest],
        // The next name, then the type bitmap (RFC 4034 §4.1)
        Type::NXT | Type::NSEC => &[PlainName, Rest],
        // RFC 6672 §2.1
        Type::DNAME => &[PlainName],
        _ => layout_of_class(rtype, class),
    }
}

/// Types that mean something else, or nothing, outside their class (RFC 3597 §4).
fn layout_of_class(rtype: Type, class: Class) -> &'static [Field] {
    match (class, rtype) {
        (Class::IN, Type::A) => &[Bytes(4)],
        // RFC 3596 §2.2
        (Class::IN, Type::AAAA) => &[Bytes(16)],
        // RFC 2163 §4
        (Class::IN, Type::PX) => &[Bytes(2), PlainName, PlainName],
        // RFC 2782
        (Class::IN, Type::SRV) => &[Bytes(6), PlainName],
        // Order, preference, flags, services, regexp, replacement (RFC 3403 §4.1)
        (Class::IN, Type::NAPTR) => {
            &[Bytes(4), CharacterString, CharacterString, CharacterString, PlainName]
        }
        // RFC 2230 §3.1
        (Class::IN, Type::KX) => &[Bytes(2), PlainName],
        // RFC 9460 §2.2
        (Class::IN, Type::SVCB | Type::HTTPS) => &[Bytes(2), PlainName, Rest],
        // The network's name and an address of 16 bits (RFC 1035 §3.4)
        (Class::CH, Type::A) => &[CompressibleName, Bytes(2)],
        _ => &[Rest],
    }
}
