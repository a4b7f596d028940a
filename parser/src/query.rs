//! The facts of a client's query, read in one pass: header, the one question, the OPT record.
//!
//! ```text
//!   header      12 bytes: QR, opcode and counts, each judged as one word
//!   qname       from label to label up to the root; only the length bytes are read
//!   question    type and class
//!   additional  the head of each record; the options of an OPT are walked once
//!   end         the last record must end where the packet does
//! ```
//!
//! Cost budget, for a name of three labels in a warm cache on a Sapphire Rapids core: 8 ns without
//! EDNS, 12 ns with an OPT record, 17 ns with a cookie in it. No allocation, and of the packet only
//! the one or two cache lines that hold it are touched. The letters of the name are not looked at
//! here: the key's builder folds and hashes them ([`crate::key`]). What makes it slower is a value
//! that goes through memory in other pieces than it is read back in: the cursor goes by value, and
//! the cookie's bytes are copied once.
//!
//! Invariant: of what is accepted the question and the OPT record are understood, and of every
//! other record where it ends: TSIG, SIG(0) and the like are skipped unread. There is exactly one
//! question and at most one OPT record, every record ends inside the packet, and nothing stands
//! after the last one. So whoever has a [`Query`] may rely on `packet[12..question_end()]` being a
//! well-formed question that has no compression pointer.
//!
//! Bounds: a name ends within 255 bytes, at most 16 additional records are walked, the options
//! within their RDLEN.

use crate::cursor::Cursor;
use crate::edns::{Edns, OPT_LEN};
use crate::name::MAX_NAME_LEN;
use crate::rr::{Class, Flags, HEADER_LEN, Opcode, Type};

/// The most additional records that a query may have. One OPT and one TSIG or SIG(0) are what is
/// seen.
const MAX_ADDITIONAL: u16 = 16;

/// Bytes of type and class after the name of a question.
const QUESTION_FIXED_LEN: usize = 4;

/// The payload that every client can take over UDP, in bytes (RFC 1035 §2.3.4).
const UDP_PAYLOAD_MIN: u16 = 512;

/// Everything that the way of a query needs to know about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Message ID, to be echoed.
    pub id: u16,
    /// The header's second 16 bits as the client sent them.
    pub flags: Flags,
    /// Bytes of the question's name with the root label, 1 to 255; the name begins at offset 12.
    pub qname_len: u8,
    /// Offset inside the name of the length byte of its last label before the root; 0 for the root
    /// itself, whose `qname_len` is 1.
    pub last_label: u8,
    /// Type of the question, not judged.
    pub qtype: Type,
    /// Class of the question, not judged.
    pub qclass: Class,
    /// What the OPT record says, if there is one.
    pub edns: Option<Edns>,
}

/// Why a packet is not served. The first two get no answer at all: a reply to a response could
/// start a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// Shorter than a header: silence.
    Short,
    /// A response, not a query: silence.
    Response,
    /// Another opcode than QUERY: NOTIMP with the header only.
    Opcode,
    /// Breaks the format where no question and OPT record can be relied on: FORMERR with the header
    /// only.
    Malformed,
    /// EDNS of version 0 with malformed options: FORMERR with the question and an OPT record, as
    /// every answer to an OPT record that could be read has one (RFC 6891 §6.1.1). The facts are
    /// those of [`BadVersion`](Self::BadVersion): of the options none, nor a cookie.
    BadOptions(Query),
    /// EDNS of a version that is not known: BADVERS (RFC 6891 §6.1.3). The facts are those of the
    /// header and the question, and of the OPT record only what every version has.
    BadVersion(Query),
}

/// Reads the facts of a query.
///
/// Rules, in this order: a header; QR clear; opcode QUERY, whatever else the packet is; exactly one
/// question (RFC 9619), no answers, no authority records but the SOA of an IXFR (RFC 1995 §3); a
/// name without compression; at most one OPT record, its owner the root (RFC 6891 §6.1.1); all
/// records whole, and nothing after them; EDNS version 0; whole options, and a cookie of a length
/// that cookies have (RFC 7873 §5.2.2).
///
/// # Errors
/// The [`Reject`] says what the packet is instead and how to answer.
#[inline]
pub fn parse(packet: &[u8]) -> Result<Query, Reject> {
    let (header, body) = packet.split_first_chunk::<HEADER_LEN>().ok_or(Reject::Short)?;
    let [i0, i1, f0, f1, q0, q1, a0, a1, n0, n1, r0, r1] = *header;
    let flags = Flags(u16::from_be_bytes([f0, f1]));
    if flags.qr() {
        return Err(Reject::Response);
    }
    if flags.opcode() != Opcode::QUERY {
        return Err(Reject::Opcode);
    }
    if [q0, q1, a0, a1] != [0, 1, 0, 0] {
        return Err(Reject::Malformed);
    }
    let question = Question::read(body).ok_or(Reject::Malformed)?;
    let mut cursor =
        Cursor::at(packet, HEADER_LEN + usize::from(question.qname_len) + QUESTION_FIXED_LEN);
    if [n0, n1] != [0, 0] {
        let count = u16::from_be_bytes([n0, n1]);
        cursor = after_soa_of_ixfr(cursor, question.qtype, count).ok_or(Reject::Malformed)?;
    }
    let opt = find_opt(cursor, u16::from_be_bytes([r0, r1])).ok_or(Reject::Malformed)?;
    let query = |edns| {
        let Question { qname_len, last_label, qtype, qclass } = question;
        Query {
            id: u16::from_be_bytes([i0, i1]),
            flags,
            qname_len,
            last_label,
            qtype,
            qclass,
            edns,
        }
    };
    match opt {
        None => Ok(query(None)),
        Some(opt) if Edns::version(opt.ttl) != 0 => {
            Err(Reject::BadVersion(query(Edns::read(opt.udp_size, opt.ttl, &[]))))
        }
        Some(opt) => match Edns::read(opt.udp_size, opt.ttl, opt.rdata) {
            Some(edns) => Ok(query(Some(edns))),
            None => Err(Reject::BadOptions(query(Edns::read(opt.udp_size, opt.ttl, &[])))),
        },
    }
}

impl Query {
    /// Offset after the question: the header, the name, type and class. What follows is the reply's
    /// to write.
    #[inline]
    #[must_use]
    pub fn question_end(&self) -> usize {
        HEADER_LEN + usize::from(self.qname_len) + QUESTION_FIXED_LEN
    }

    /// Whether the client wants DNSSEC records: the DO bit of its OPT record (RFC 3225).
    #[inline]
    #[must_use]
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// Whether the client does its own validation: the CD bit (RFC 4035 §3.2.2).
    #[inline]
    #[must_use]
    pub fn checking_disabled(&self) -> bool {
        self.flags.cd()
    }

    /// Whether the client wants recursion: the RD bit (RFC 1035 §4.1.1).
    #[inline]
    #[must_use]
    pub fn recursion_desired(&self) -> bool {
        self.flags.rd()
    }

    /// Whether the client wants to know if the answer was validated: the AD bit of a query (RFC
    /// 6840 §5.7).
    #[inline]
    #[must_use]
    pub fn authentic_data(&self) -> bool {
        self.flags.ad()
    }

    /// The most bytes that a reply over UDP may have: 512 without EDNS, else what the client said,
    /// but at least 512 (RFC 6891 §6.2.3) and at most `server_max`, which counts as 512 if it is
    /// less.
    #[inline]
    #[must_use]
    pub fn payload_limit(&self, server_max: u16) -> usize {
        let client = self.edns.map_or(UDP_PAYLOAD_MIN, |edns| edns.udp_size);
        usize::from(client.min(server_max).max(UDP_PAYLOAD_MIN))
    }

    /// The name of the question in the packet that this query was read from, wire format; empty if
    /// `packet` is too short to be that packet.
    #[inline]
    #[must_use]
    pub fn qname<'p>(&self, packet: &'p [u8]) -> &'p [u8] {
        packet.get(HEADER_LEN..HEADER_LEN + usize::from(self.qname_len)).unwrap_or(&[])
    }
}

/// The question: its name begins at offset 12, so lengths are enough to find its parts.
#[derive(Clone, Copy)]
struct Question {
    qname_len: u8,
    last_label: u8,
    qtype: Type,
    qclass: Class,
}

impl Question {
    /// Reads the question at the start of `body`. A length byte above 63 is a compression pointer
    /// or a label type that was never used (RFC 6891 §5): neither may stand here.
    #[inline]
    fn read(body: &[u8]) -> Option<Self> {
        let (mut at, mut last_label) = (0, 0);
        loop {
            let len = usize::from(*body.get(at)?);
            if len == 0 {
                break;
            }
            last_label = at;
            at += 1 + len;
            // At 254 there is still room for the root label.
            if len > 63 || at >= MAX_NAME_LEN {
                return None;
            }
        }
        let &[t0, t1, c0, c1] = body.get(at + 1..)?.first_chunk::<QUESTION_FIXED_LEN>()?;
        Some(Self {
            qname_len: (at + 1) as u8,
            last_label: last_label as u8,
            qtype: Type(u16::from_be_bytes([t0, t1])),
            qclass: Class(u16::from_be_bytes([c0, c1])),
        })
    }
}

/// Skips the one record that a query may have in the authority section: the SOA that the client of
/// an incremental transfer has (RFC 1995 §3). The cursor comes and goes by value, so that on the
/// usual way it stays in registers.
#[cold]
fn after_soa_of_ixfr(mut cursor: Cursor<'_>, qtype: Type, count: u16) -> Option<Cursor<'_>> {
    if qtype != Type::IXFR || count != 1 {
        return None;
    }
    (cursor.record()?.rtype == Type::SOA).then_some(cursor)
}

/// The fields of an OPT record as they stand in the packet.
struct Opt<'p> {
    /// The class of the record is the sender's UDP payload size (RFC 6891 §6.1.2).
    udp_size: u16,
    /// The TTL of the record is extended rcode, version and flags (RFC 6891 §6.1.3).
    ttl: u32,
    rdata: &'p [u8],
}

/// Walks the `count` records that are left and gives the OPT among them. `None` if a record is cut,
/// if there are too many, if bytes are left after the last one, or if there is a second OPT or one
/// that is not the root's.
#[inline]
fn find_opt(mut cursor: Cursor<'_>, count: u16) -> Option<Option<Opt<'_>>> {
    if count > MAX_ADDITIONAL {
        return None;
    }
    let mut opt = None;
    for _ in 0..count {
        let record = cursor.record()?;
        if record.rtype != Type::OPT {
            continue;
        }
        // A root owner is one byte, the fixed part ten.
        if opt.is_some() || record.rdata_at - record.owner_at != OPT_LEN {
            return None;
        }
        let rdata = cursor.slice(record.rdata_at, record.rdata_len);
        opt = Some(Opt { udp_size: record.class.0, ttl: record.ttl, rdata });
    }
    cursor.is_at_end().then_some(opt)
}

#[cfg(test)]
mod tests;
