//! A view over an upstream's response: checked once as a whole, then walked record by record.
//!
//! Invariant: every offset in a [`Response`] or a [`Record`] lies inside the message, and owner, fixed
//! part and RDATA of every record were seen to fit when the response was parsed. What the bytes of a
//! name mean is looked at when the name is asked for, since most names of a response are never
//! needed; a name whose pointers lead nowhere reads as `None`.
//!
//! Bound: a message has at most 65535 bytes, hence at most 5957 records of eleven bytes; the walk is
//! linear in the message. Nothing is copied and nothing allocated.

use crate::cursor::{Cursor, RecordHead};
use crate::key::Key;
use crate::name::{MAX_NAME_LEN, Name, fold};
use crate::rr::{Class, Flags, HEADER_LEN, Opcode, Rcode, Type};

/// The largest TTL; what has the highest bit set counts as 0 (RFC 2181 §8).
const MAX_TTL: u32 = i32::MAX as u32;

/// A response whose header, question and record walk are sound.
#[derive(Clone, Copy, Debug)]
pub struct Response<'m> {
    message: &'m [u8],
    flags: Flags,
    rcode: Rcode,
    has_edns: bool,
    qtype: Type,
    qclass: Class,
    /// Records per section that are there in full (less than the header says if TC is set).
    counts: [u16; 3],
    /// Where the question ends.
    records_at: usize,
}

/// Why a message is no usable response. Nothing is known about whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// Less than a header.
    Short,
    /// More than 65535 bytes, which no transport of DNS carries.
    Long,
    /// Not exactly one question with an uncompressed name (RFC 9619).
    Question,
    /// A record that runs over the end of the message.
    Record,
    /// A second OPT record, one outside of the additional section or with another owner than the
    /// root (RFC 6891 §6.1.1).
    Opt,
    /// Bytes after the last record.
    Trailing,
}

/// How a response repeats the question it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// Byte for byte.
    Exact,
    /// With the letters of its name in another case.
    OtherCase,
}

/// The three sections of records (RFC 1035 §4.1), in the order of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// The answer to the question.
    Answer,
    /// Records that point to an authority: NS of a referral, SOA of a negative answer.
    Authority,
    /// Glue and other records that may help.
    Additional,
}

impl Section {
    /// All sections in the order of the wire.
    pub const ALL: [Self; 3] = [Self::Answer, Self::Authority, Self::Additional];
}

impl<'m> Response<'m> {
    /// Checks the header, the question and the bounds of every record.
    ///
    /// If TC is set, the walk ends at the first record that isn't there in full: some servers cut
    /// at a byte and leave the counts as they were, and all that such a response is good for is to
    /// ask again over TCP (RFC 2181 §9).
    pub fn parse(message: &'m [u8]) -> Result<Self, ResponseError> {
        if message.len() > usize::from(u16::MAX) {
            return Err(ResponseError::Long);
        }
        let mut cursor = Cursor::at(message, 0);
        let &[_, _, f0, f1, q0, q1, an0, an1, ns0, ns1, ar0, ar1] =
            cursor.array::<HEADER_LEN>().ok_or(ResponseError::Short)?;
        if [q0, q1] != [0, 1] {
            return Err(ResponseError::Question);
        }
        let (qtype, qclass) = read_question(&mut cursor).ok_or(ResponseError::Question)?;
        let records_at = cursor.position();

        let flags = Flags(u16::from_be_bytes([f0, f1]));
        let announced = [[an0, an1], [ns0, ns1], [ar0, ar1]].map(u16::from_be_bytes);
        let Walk { counts, opt } = Walk::over(&mut cursor, announced, flags.tc())?;
        let upper_bits = opt.map_or(0, |opt| (opt.ttl >> 24) as u16);
        Ok(Self {
            message,
            flags,
            rcode: Rcode(upper_bits << 4 | u16::from(flags.rcode())),
            has_edns: opt.is_some(),
            qtype,
            qclass,
            counts,
            records_at,
        })
    }

    /// The ID of the transaction.
    pub fn id(&self) -> u16 {
        Cursor::at(self.message, 0).u16().unwrap_or(0)
    }

    /// The flags of the header.
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// The response code; its upper eight bits come from the OPT record (RFC 6891 §6.1.3).
    pub fn rcode(&self) -> Rcode {
        self.rcode
    }

    /// Whether there was an OPT record.
    pub fn has_edns(&self) -> bool {
        self.has_edns
    }

    /// The name of the question in wire format, its letter case as received.
    pub fn qname(&self) -> &'m [u8] {
        let end = self.records_at.saturating_sub(4);
        self.message.get(HEADER_LEN..end).unwrap_or_default()
    }

    /// The type of the question.
    pub fn qtype(&self) -> Type {
        self.qtype
    }

    /// The class of the question.
    pub fn qclass(&self) -> Class {
        self.qclass
    }

    /// Whether this is a response to a query with the question of `key`, letter case aside. The ID
    /// is for the caller to compare, as is the case of the name if it had been made random.
    pub fn is_answer_to(&self, key: &Key<'_>) -> bool {
        self.flags.qr()
            && self.flags.opcode() == Opcode::QUERY
            && self.qtype == key.qtype()
            && self.qclass == key.qclass()
            && fold::eq_ignore_case(self.qname(), key.qname())
    }

    /// How this response repeats the question of a query, given as it was sent: `None` if it is no
    /// response to it. The ID is for the caller to compare.
    pub fn echo_of(&self, query: &[u8]) -> Option<Echo> {
        if !self.flags.qr() || self.flags.opcode() != Opcode::QUERY {
            return None;
        }
        let asked = query.get(HEADER_LEN..self.records_at)?;
        let repeated = self.message.get(HEADER_LEN..self.records_at)?;
        if asked == repeated {
            return Some(Echo::Exact);
        }
        let (asked_name, asked_type) = asked.split_last_chunk::<4>()?;
        let (name, qtype) = repeated.split_last_chunk::<4>()?;
        (asked_type == qtype && fold::eq_ignore_case(asked_name, name)).then_some(Echo::OtherCase)
    }

    /// All records in the order of the wire, OPT left out.
    pub fn records(&self) -> impl Iterator<Item = (Section, Record<'m>)> + use<'m> {
        let message = self.message;
        let mut cursor = Cursor::at(message, self.records_at);
        Section::ALL
            .into_iter()
            .zip(self.counts)
            .flat_map(|(section, count)| std::iter::repeat_n(section, usize::from(count)))
            .map_while(move |section| {
                let head = cursor.record()?;
                Some((section, Record::new(message, head)?))
            })
            .filter(|(_, record)| record.rtype != Type::OPT)
    }

    /// The records of one section in the order of the wire, OPT left out.
    pub fn section(&self, section: Section) -> impl Iterator<Item = Record<'m>> + use<'m> {
        self.records()
            .skip_while(move |(of, _)| *of < section)
            .take_while(move |(of, _)| *of == section)
            .map(|(_, record)| record)
    }
}

/// The ID and the code of an error reply that leaves out the question, and so is no [`Response`]:
/// QR set, opcode QUERY, no question, and a code other than NOERROR. Servers that do not understand
/// a query answer so, often with the header alone (RFC 8906).
///
/// What follows the header is not looked at. Nothing but the ID and the addresses ties such a reply
/// to a query: it says that this server has no answer, and nothing about the name, whatever its
/// code.
pub fn bare_error(message: &[u8]) -> Option<(u16, Rcode)> {
    let &[i0, i1, f0, f1, q0, q1, ..] = message.first_chunk::<HEADER_LEN>()?;
    let flags = Flags(u16::from_be_bytes([f0, f1]));
    let is_reply = flags.qr() && flags.opcode() == Opcode::QUERY;
    let rcode = Rcode(u16::from(flags.rcode()));
    (is_reply && [q0, q1] == [0, 0] && rcode != Rcode::NOERROR)
        .then_some((u16::from_be_bytes([i0, i1]), rcode))
}

/// What the walk over all records found.
struct Walk {
    counts: [u16; 3],
    opt: Option<RecordHead>,
}

impl Walk {
    /// Walks all records once: bounds, counts and the OPT record. A message that `is_cut` may end
    /// anywhere.
    fn over(
        cursor: &mut Cursor<'_>,
        announced: [u16; 3],
        is_cut: bool,
    ) -> Result<Self, ResponseError> {
        let mut walk = Self { counts: [0; 3], opt: None };
        let sections = Section::ALL.into_iter().zip(announced);
        for ((section, announced), count) in sections.zip(&mut walk.counts) {
            while *count < announced {
                let Some(head) = cursor.record() else {
                    return if is_cut { Ok(walk) } else { Err(ResponseError::Record) };
                };
                if head.rtype == Type::OPT {
                    // A root owner is one byte, and the fixed part of a record has ten.
                    let owned_by_root = head.rdata_at == head.owner_at + 11;
                    if section != Section::Additional || !owned_by_root || walk.opt.is_some() {
                        return Err(ResponseError::Opt);
                    }
                    walk.opt = Some(head);
                }
                *count += 1;
            }
        }
        if cursor.is_at_end() || is_cut { Ok(walk) } else { Err(ResponseError::Trailing) }
    }
}

/// Reads the question behind the header: its name must not be compressed, as there is nothing before
/// it to point at.
fn read_question(cursor: &mut Cursor<'_>) -> Option<(Type, Class)> {
    loop {
        match cursor.u8()? {
            0 => break,
            label @ 1..=63 => cursor.take(usize::from(label))?,
            _ => return None,
        };
    }
    if cursor.position() > HEADER_LEN + MAX_NAME_LEN {
        return None;
    }
    Some((Type(cursor.u16()?), Class(cursor.u16()?)))
}

/// One resource record of a message, decompressed where and when it is asked for.
#[derive(Clone, Copy)]
pub struct Record<'m> {
    message: &'m [u8],
    owner_at: u16,
    /// The type of the record.
    pub rtype: Type,
    /// The class of the record.
    pub class: Class,
    /// Seconds the record may be kept; 2^31 and more were received as 0 (RFC 2181 §8). May
    /// be overwritten, for instance to cap it: [`crate::template::build`] stores what is here.
    pub ttl: u32,
    rdata_at: u16,
    rdata_len: u16,
}

impl<'m> Record<'m> {
    /// The owner name, decompressed; `None` if its labels or pointers are no name.
    pub fn owner(&self) -> Option<Name> {
        Name::read(self.message, usize::from(self.owner_at)).map(|(name, _)| name)
    }

    /// The RDATA as it stands in the message: names inside of it may be compressed.
    pub fn rdata(&self) -> &'m [u8] {
        let at = usize::from(self.rdata_at);
        self.message.get(at..at + usize::from(self.rdata_len)).unwrap_or_default()
    }

    /// The name that begins `skip` bytes into the RDATA, decompressed: the target of CNAME, NS, PTR
    /// and DNAME and the SOA's mname at 0, the exchange of MX at 2, the target of SRV at 6.
    pub fn rdata_name(&self, skip: usize) -> Option<Name> {
        self.rdata_name_and_end(skip).map(|(name, _)| name)
    }

    /// As [`Self::rdata_name`], with the offset inside the RDATA of what follows the name.
    pub(crate) fn rdata_name_and_end(&self, skip: usize) -> Option<(Name, usize)> {
        if skip >= usize::from(self.rdata_len) {
            return None;
        }
        let rdata_at = usize::from(self.rdata_at);
        let (name, end) = Name::read(self.message, rdata_at + skip)?;
        let end = end.checked_sub(rdata_at)?;
        (end <= usize::from(self.rdata_len)).then_some((name, end))
    }

    /// The minimum field of a SOA record: how long a negative answer may be kept, in seconds
    /// (RFC 2308 §4). `None` for other types and for malformed RDATA.
    pub fn soa_minimum(&self) -> Option<u32> {
        if self.rtype != Type::SOA {
            return None;
        }
        let (_mname, rname_at) = self.rdata_name_and_end(0)?;
        let (_rname, numbers_at) = self.rdata_name_and_end(rname_at)?;
        let mut numbers = Cursor::at(self.rdata(), numbers_at);
        let _serial_refresh_retry_expire = numbers.take(16)?;
        let minimum = numbers.u32()?;
        numbers.is_at_end().then_some(minimum)
    }

    /// The type that an RRSIG record covers (RFC 4034 §3.1.1); `None` for other types.
    pub fn covered_type(&self) -> Option<Type> {
        if self.rtype != Type::RRSIG {
            return None;
        }
        Cursor::at(self.rdata(), 0).u16().map(Type)
    }

    fn new(message: &'m [u8], head: RecordHead) -> Option<Self> {
        Some(Self {
            message,
            owner_at: u16::try_from(head.owner_at).ok()?,
            rtype: head.rtype,
            class: head.class,
            ttl: if head.ttl > MAX_TTL { 0 } else { head.ttl },
            rdata_at: u16::try_from(head.rdata_at).ok()?,
            rdata_len: head.rdata_len,
        })
    }
}

impl std::fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("owner", &self.owner())
            .field("rtype", &self.rtype)
            .field("class", &self.class)
            .field("ttl", &self.ttl)
            .field("rdata", &self.rdata())
            .finish()
    }
}
