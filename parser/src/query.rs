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
//! Invariant: what is accepted is wholly understood. There is exactly one question and at most one
//! OPT record, every record ends inside the packet, and nothing stands after the last one. So
//! whoever has a [`Query`] may rely on `packet[12..question_end()]` being a well-formed question
//! that has no compression pointer.
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

/// The payload that every client can take over UDP, in bytes (RFC 1035 2.3.4).
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
    /// EDNS of a version that is not known: BADVERS (RFC 6891 6.1.3). The facts are those of the
    /// header and the question, and of the OPT record only what every version has.
    BadVersion(Query),
}

/// Reads the facts of a query.
///
/// Rules, in this order: a header; QR clear; opcode QUERY, whatever else the packet is; exactly one
/// question (RFC 9619), no answers, no authority records but the SOA of an IXFR (RFC 1995 3); a
/// name without compression; at most one OPT record, its owner the root (RFC 6891 6.1.1); all
/// records whole, and nothing after them; EDNS version 0; whole options, and a cookie of a length
/// that cookies have (RFC 7873 5.2.2).
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

    /// Whether the client does its own validation: the CD bit (RFC 4035 3.2.2).
    #[inline]
    #[must_use]
    pub fn checking_disabled(&self) -> bool {
        self.flags.cd()
    }

    /// Whether the client wants recursion: the RD bit (RFC 1035 4.1.1).
    #[inline]
    #[must_use]
    pub fn recursion_desired(&self) -> bool {
        self.flags.rd()
    }

    /// Whether the client wants to know if the answer was validated: the AD bit of a query (RFC
    /// 6840 5.7).
    #[inline]
    #[must_use]
    pub fn authentic_data(&self) -> bool {
        self.flags.ad()
    }

    /// The most bytes that a reply over UDP may have: 512 without EDNS, else what the client said,
    /// but at least 512 (RFC 6891 6.2.3) and at most `server_max`, which counts as 512 if it is
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
    /// or a label type that was never used (RFC 6891 5): neither may stand here.
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
/// an incremental transfer has (RFC 1995 3). The cursor comes and goes by value, so that on the
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
    /// The class of the record is the sender's UDP payload size (RFC 6891 6.1.2).
    udp_size: u16,
    /// The TTL of the record is extended rcode, version and flags (RFC 6891 6.1.3).
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
mod tests {
    use super::*;
    use crate::edns::{Cookie, OptWriter, cookie, keepalive, nsid};
    use crate::name::{Name, suffixes};
    use crate::rr::Rcode;
    use proptest::prelude::*;

    const OPT: &[u8] = b"\0\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00";
    const A_RECORD: &[u8] = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x7f\x00\x00\x01";

    /// A query with RD set for `qname` (wire format), type A, class IN, and these records after it.
    fn packet(qname: &[u8], counts: [u16; 2], records: &[&[u8]]) -> Vec<u8> {
        typed_packet(qname, Type::A, counts, records)
    }

    fn typed_packet(qname: &[u8], qtype: Type, [ns, ar]: [u16; 2], records: &[&[u8]]) -> Vec<u8> {
        let mut packet = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0];
        packet.extend([ns.to_be_bytes(), ar.to_be_bytes()].concat());
        packet.extend(qname);
        packet.extend([qtype.0.to_be_bytes(), Class::IN.0.to_be_bytes()].concat());
        records.iter().for_each(|record| packet.extend(*record));
        packet
    }

    fn opt(version: u8, rdata: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rdata.len()).unwrap().to_be_bytes();
        [&b"\0\x00\x29\x04\xd0\x00"[..], &[version, 0x80, 0], &len, rdata].concat()
    }

    fn wire(text: &str) -> Vec<u8> {
        Name::from_text(text).unwrap().as_wire().to_vec()
    }

    #[test]
    fn the_facts_of_a_plain_query() {
        let packet = packet(&wire("www.example.com"), [0, 0], &[]);
        let query = parse(&packet).unwrap();
        assert_eq!((query.id, query.qtype, query.qclass), (0x1234, Type::A, Class::IN));
        assert_eq!((query.qname_len, query.last_label), (17, 12));
        assert_eq!(query.qname(&packet), wire("www.example.com"));
        assert_eq!(query.question_end(), packet.len());
        assert!(query.recursion_desired() && !query.checking_disabled() && !query.authentic_data());
        assert!(!query.dnssec_ok() && query.edns.is_none());
        assert_eq!(query.payload_limit(1232), 512);
        assert_eq!(query.qname(&packet[..28]), b"", "of another packet");
    }

    #[test]
    fn the_facts_of_a_query_with_edns() {
        let options = b"\x00\x0a\x00\x08clientck\x00\x03\x00\x00\x00\x0b\x00\x00";
        let packet = packet(&wire("a.b"), [0, 1], &[&opt(0, options)]);
        let query = parse(&packet).unwrap();
        let edns = query.edns.unwrap();
        assert_eq!((edns.udp_size, edns.dnssec_ok, query.dnssec_ok()), (1232, true, true));
        assert_eq!(edns.cookie, Cookie::new(*b"clientck", b""));
        assert!(
            edns.options.has_nsid() && edns.options.has_keepalive() && edns.options.has_cookie()
        );
        assert_eq!(query.question_end(), 12 + 5 + 4);
    }

    #[test]
    fn the_root_and_the_longest_name_may_be_asked_for() {
        let query = parse(&packet(b"\0", [0, 0], &[])).unwrap();
        assert_eq!((query.qname_len, query.last_label, query.question_end()), (1, 0, 17));

        let label = "a".repeat(63);
        let longest = wire(&format!("{label}.{label}.{label}.{}", "b".repeat(61)));
        let query = parse(&packet(&longest, [0, 0], &[])).unwrap();
        assert_eq!((query.qname_len, query.last_label), (255, 192));
        let smallest_labels = wire(&vec!["a"; 127].join("."));
        let query = parse(&packet(&smallest_labels, [0, 0], &[])).unwrap();
        assert_eq!((query.qname_len, query.last_label), (255, 252));
    }

    #[test]
    fn names_that_are_too_long_or_compressed_are_malformed() {
        let too_long =
            [&[b"\x3f", &[b'a'; 63][..]].concat().repeat(3)[..], b"\x3e", &[b'b'; 62], b"\0"]
                .concat();
        assert_eq!(too_long.len(), 256);
        let endless = b"\x01a".repeat(20_000);
        for qname in [&too_long[..], &endless, b"\x01a\xc0\x0c", b"\xc0\x0c", b"\x40\0", b"\x80\0"]
        {
            assert_eq!(parse(&packet(qname, [0, 0], &[])), Err(Reject::Malformed), "{qname:?}");
        }
    }

    #[test]
    fn silence_comes_before_everything_and_notimp_before_the_format() {
        for len in 0..12 {
            assert_eq!(parse(&vec![0x80; len]), Err(Reject::Short));
        }
        assert_eq!(parse(&[0xff; 12]), Err(Reject::Response));
        assert_eq!(parse(&[0x7f; 12]), Err(Reject::Opcode));
        assert_eq!(parse(&[0; 12]), Err(Reject::Malformed));
        for opcode in 1..16u8 {
            let mut update = packet(b"\xff", [9, 9], &[]);
            update[2] = opcode << 3;
            assert_eq!(parse(&update), Err(Reject::Opcode), "opcode {opcode}");
        }
    }

    #[test]
    fn there_is_one_question_and_nothing_else_but_additional_records() {
        for (at, count) in [(4, 1), (5, 0), (5, 2), (6, 1), (7, 1), (8, 1), (9, 1), (10, 1)] {
            let mut wrong = packet(b"\0", [0, 0], &[]);
            wrong[at] = count;
            assert_eq!(parse(&wrong), Err(Reject::Malformed), "byte {at} is {count}");
        }
    }

    #[test]
    fn every_cut_and_every_byte_too_many_is_malformed() {
        let rdata = b"\x00\x0a\x00\x10clientckservercs\x00\x03\x00\x00";
        for whole in [
            packet(&wire("a.bc"), [0, 0], &[]),
            packet(&wire("a.bc"), [0, 2], &[A_RECORD, &opt(0, rdata)]),
        ] {
            assert!(parse(&whole).is_ok());
            for len in 12..whole.len() {
                assert_eq!(parse(&whole[..len]), Err(Reject::Malformed), "cut to {len}");
            }
            assert_eq!(parse(&[&whole[..], b"\0"].concat()), Err(Reject::Malformed));
        }
    }

    #[test]
    fn one_opt_is_found_wherever_it_stands_and_must_be_the_roots() {
        let tsig = b"\x03key\0\x00\xfa\x00\xff\x00\x00\x00\x00\x00\x02ab";
        let qname = wire("a");
        for records in [&[OPT, A_RECORD, tsig][..], &[A_RECORD, OPT, tsig], &[A_RECORD, tsig, OPT]]
        {
            let query = parse(&packet(&qname, [0, 3], records)).unwrap();
            assert!(query.dnssec_ok(), "{records:?}");
        }
        assert!(parse(&packet(&qname, [0, 1], &[tsig])).unwrap().edns.is_none());

        let not_the_roots = [b"\x01a".as_slice(), OPT].concat();
        let pointing_at_the_root = [b"\xc0\x0e", &OPT[1..]].concat();
        for records in
            [&[OPT, OPT][..], &[&not_the_roots, A_RECORD], &[&pointing_at_the_root, A_RECORD]]
        {
            assert_eq!(
                parse(&packet(&qname, [0, 2], records)),
                Err(Reject::Malformed),
                "{records:?}"
            );
        }
    }

    #[test]
    fn sixteen_additional_records_are_walked() {
        let with =
            |count: u16| parse(&packet(b"\0", [0, count], &vec![A_RECORD; usize::from(count)]));
        assert!(with(16).is_ok());
        assert_eq!(with(17), Err(Reject::Malformed));
    }

    #[test]
    fn an_incremental_transfer_may_carry_its_soa() {
        let soa = b"\xc0\x0c\x00\x06\x00\x01\x00\x00\x00\x00\x00\x16\0\0aaaabbbbccccddddeeee";
        let ask = |qtype, count, records: &[&[u8]]| {
            parse(&typed_packet(&wire("zone"), qtype, [count, 1], records))
        };
        assert!(ask(Type::IXFR, 1, &[soa, OPT]).unwrap().dnssec_ok());
        assert!(ask(Type::IXFR, 0, &[OPT]).is_ok());
        assert_eq!(ask(Type::IXFR, 2, &[soa, soa, OPT]), Err(Reject::Malformed));
        assert_eq!(ask(Type::IXFR, 1, &[A_RECORD, OPT]), Err(Reject::Malformed));
        assert_eq!(ask(Type::AXFR, 1, &[soa, OPT]), Err(Reject::Malformed));
    }

    #[test]
    fn an_unknown_version_is_told_apart_from_what_is_malformed() {
        let overrun = b"\x00\x0a\x00\x09short";
        for (version, rdata) in [(1, &b""[..]), (255, b""), (1, overrun), (1, b"\0")] {
            let Err(Reject::BadVersion(query)) =
                parse(&packet(&wire("a.b"), [0, 1], &[&opt(version, rdata)]))
            else {
                panic!("version {version} with {rdata:?}");
            };
            assert_eq!((query.id, query.qname_len), (0x1234, 5));
            let edns = query.edns.unwrap();
            assert_eq!((edns.udp_size, edns.dnssec_ok, edns.cookie), (1232, true, None));
        }
        let two = packet(&wire("a.b"), [0, 2], &[&opt(1, b""), &opt(0, b"")]);
        assert_eq!(parse(&two), Err(Reject::Malformed));
    }

    #[test]
    fn options_and_cookies_must_be_whole() {
        let with = |rdata: &[u8]| parse(&packet(b"\0", [0, 1], &[&opt(0, rdata)]));
        // What is left of a query whose options are malformed is the query without options.
        let bad_options = Err(Reject::BadOptions(with(b"").unwrap()));
        let edns = with(b"").unwrap().edns.unwrap();
        assert_eq!((edns.udp_size, edns.dnssec_ok, edns.cookie), (1232, true, None));
        for rdata in [
            &b"\0"[..],
            b"\x00\x0a\x00",
            b"\xff\xff\x00\x01",
            b"\x00\x03\xff\xff",
            b"\x00\x03\x00\x00\x00\x0a\x00\x08clientck\x00",
        ] {
            assert_eq!(with(rdata), bad_options, "{rdata:?}");
        }
        for len in 0..48u8 {
            let rdata = [&[0, 10, 0, len][..], &vec![7; usize::from(len)]].concat();
            if len == 8 || (16..=40).contains(&len) {
                assert!(with(&rdata).is_ok(), "a cookie of {len} bytes");
            } else {
                assert_eq!(with(&rdata), bad_options, "a cookie of {len} bytes");
            }
        }
    }

    #[test]
    fn bad_options_do_not_hide_what_else_is_malformed() {
        let bad = opt(0, b"\x00\x0a\x00\x09short");
        let whole = packet(b"\0", [0, 1], &[&bad]);
        assert!(matches!(parse(&whole), Err(Reject::BadOptions(_))));
        assert_eq!(parse(&whole[..whole.len() - 1]), Err(Reject::Malformed), "the record is cut");
        assert_eq!(parse(&[&whole[..], b"\0"].concat()), Err(Reject::Malformed));
        for records in [[&bad, &bad], [&bad, &opt(0, b"")], [&opt(0, b""), &bad]] {
            let two = packet(b"\0", [0, 2], &records.map(Vec::as_slice));
            assert_eq!(parse(&two), Err(Reject::Malformed), "two OPT records");
        }
    }

    #[test]
    fn the_payload_limit_has_bounds_on_both_sides() {
        let limit = |size: u16, server_max| {
            let mut opt = opt(0, b"");
            opt[3..5].copy_from_slice(&size.to_be_bytes());
            parse(&packet(b"\0", [0, 1], &[&opt])).unwrap().payload_limit(server_max)
        };
        assert_eq!((limit(0, 1232), limit(511, 1232), limit(512, 1232)), (512, 512, 512));
        assert_eq!(
            (limit(1000, 1232), limit(4096, 1232), limit(65535, 65535)),
            (1000, 1232, 65535)
        );
        assert_eq!((limit(4096, 0), limit(0, 0)), (512, 512));
    }

    /// Queries as clients write them: a name, maybe other records, maybe an OPT with some options.
    fn valid_packet() -> impl Strategy<Value = Vec<u8>> {
        let label = prop::collection::vec(any::<u8>(), 1..=63);
        let option = prop_oneof![
            (Just(cookie::CODE), prop::collection::vec(any::<u8>(), 8)),
            (Just(cookie::CODE), prop::collection::vec(any::<u8>(), 16..=40)),
            (Just(nsid::CODE), Just(Vec::new())),
            (Just(keepalive::CODE), Just(Vec::new())),
            (100u16..200, prop::collection::vec(any::<u8>(), 0..20)),
        ];
        let edns =
            prop::option::of((any::<u16>(), any::<bool>(), prop::collection::vec(option, 0..4)));
        (prop::collection::vec(label, 0..4), any::<[u8; 6]>(), edns, 0u16..3).prop_map(
            |(labels, [i0, i1, t0, t1, c0, c1], edns, others)| {
                let mut packet = vec![i0, i1, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 0];
                for label in labels.iter().filter(|label| label.len() < 60) {
                    packet.push(u8::try_from(label.len()).unwrap());
                    packet.extend(label);
                }
                packet.extend([0, t0, t1, c0, c1]);
                (0..others).for_each(|_| packet.extend(A_RECORD));
                packet[10..12].copy_from_slice(&others.to_be_bytes());
                if let Some((size, dnssec_ok, options)) = edns {
                    let at = packet.len();
                    packet.resize(at + 400, 0);
                    let mut opt =
                        OptWriter::start(&mut packet, at, size, Rcode::NOERROR, dnssec_ok).unwrap();
                    options.iter().for_each(|(code, data)| assert!(opt.option(*code, data)));
                    let len = opt.finish();
                    packet.truncate(len);
                }
                packet
            },
        )
    }

    /// What whoever has a query relies on.
    fn check_invariant(packet: &[u8]) {
        let (Ok(query) | Err(Reject::BadVersion(query) | Reject::BadOptions(query))) =
            parse(packet)
        else {
            return;
        };
        let qname = query.qname(packet);
        assert!(Name::from_wire(qname).is_some());
        assert!(query.question_end() <= packet.len());
        let top = suffixes(qname).zip(suffixes(qname).skip(1)).last();
        let last_label = top.map_or(0, |(top, _)| qname.len() - top.len());
        assert_eq!(usize::from(query.last_label), last_label);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn what_clients_write_is_accepted(packet in valid_packet()) {
            prop_assert!(parse(&packet).is_ok());
            check_invariant(&packet);
        }

        #[test]
        fn any_bytes_are_judged_without_a_panic(
            mut packet in prop::collection::vec(prop_oneof![0u8..4, Just(41), any::<u8>()], 0..300),
            make_it_a_query: bool,
        ) {
            if let Some(header) = packet.first_chunk_mut::<12>().filter(|_| make_it_a_query) {
                *header = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, header[11] & 3];
            }
            check_invariant(&packet);
        }

        #[test]
        fn mutated_queries_are_judged_without_a_panic(
            mut packet in valid_packet(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            for (at, byte) in changes {
                let at = at.index(packet.len());
                packet[at] = byte;
            }
            if let Some(cut) = cut {
                packet.truncate(cut.index(packet.len()));
            }
            check_invariant(&packet);
        }
    }
}
