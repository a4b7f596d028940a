//! Messages that are made here instead of stored: errors, local answers, questions to an upstream.
//!
//! Everything writes into the caller's buffer and counts the sections itself, so that what is in the
//! buffer is a valid message at every return. Bound: the buffer; what doesn't fit is refused and
//! leaves the bytes that count as they were. Nothing allocates.

use crate::edns::OptWriter;
use crate::key::{CaseBits, Key};
use crate::query::Query;
use crate::rr::{Class, Flags, HEADER_LEN, Rcode, Type};

/// Where the name of the question begins; a compression pointer to it.
const QNAME_POINTER: u16 = 0xc000 | HEADER_LEN as u16;

/// Turns a message that was rejected into a reply of a header alone: ID, opcode and RD as they were,
/// QR and RA set, no counts. `len` is what was received. Returns the length of the reply, or `None`
/// if there is no header to reply to.
pub fn error_in_place(buf: &mut [u8], len: usize, rcode: Rcode) -> Option<usize> {
    let header = buf.get_mut(..len)?.first_chunk_mut::<HEADER_LEN>()?;
    let received = u16::from_be_bytes([header[2], header[3]]);
    let flags = received & (Flags::OPCODE_MASK | Flags::RD)
        | Flags::QR
        | Flags::RA
        | u16::from(rcode.header_bits());
    let [high, low] = flags.to_be_bytes();
    let [id_high, id_low, ..] = *header;
    *header = [id_high, id_low, high, low, 0, 0, 0, 0, 0, 0, 0, 0];
    Some(HEADER_LEN)
}

/// Writes a reply behind the question that already stands in the buffer, as the query came in:
/// REFUSED and SERVFAIL with their question, and answers that policy knows by itself.
///
/// Invariant: `at` is the end of the last whole record, inside the buffer. The counts are in the
/// header from the first moment, so a writer that is dropped early leaves no lie behind.
#[derive(Debug)]
pub struct ReplyWriter<'b> {
    buf: &'b mut [u8],
    /// Where the next record goes.
    at: usize,
    qname_len: usize,
    answers: u16,
    authorities: u16,
}

impl<'b> ReplyWriter<'b> {
    /// Rewrites the header: ID kept, QR and RA set, RD and CD as in the query (RFC 4035
    /// §3.1.6), one question and nothing else. The buffer's length is the limit of the reply. `None`
    /// if the buffer ends before the question does.
    pub fn start(buf: &'b mut [u8], query: &Query, rcode: Rcode) -> Option<Self> {
        let question_end = query.question_end();
        let header = buf.get_mut(..question_end)?.first_chunk_mut::<HEADER_LEN>()?;
        let flags = query.flags.0 & (Flags::RD | Flags::CD)
            | Flags::QR
            | Flags::RA
            | u16::from(rcode.header_bits());
        let [high, low] = flags.to_be_bytes();
        let [id_high, id_low, ..] = *header;
        *header = [id_high, id_low, high, low, 0, 1, 0, 0, 0, 0, 0, 0];
        Some(Self {
            buf,
            at: question_end,
            qname_len: usize::from(query.qname_len),
            answers: 0,
            authorities: 0,
        })
    }

    /// Sets AA: the answer is this server's own, as for the zones of RFC 6303 and RFC 6761.
    #[must_use]
    pub fn authoritative(self) -> Self {
        if let Some(high) = self.buf.get_mut(2) {
            *high |= (Flags::AA >> 8) as u8;
        }
        self
    }

    /// Adds a record with the question's name as its owner to the answer section. `false`, and
    /// nothing written, if it doesn't fit or the authority section was begun.
    pub fn answer(&mut self, rtype: Type, class: Class, ttl: u32, rdata: &[u8]) -> bool {
        if self.authorities > 0 {
            return false;
        }
        let written = self.record(QNAME_POINTER, rtype, class, ttl, rdata);
        if written.is_some() {
            self.answers += 1;
            self.write_counts();
        }
        written.is_some()
    }

    /// Adds a record to the authority section. Its owner is the part of the question's name that
    /// begins `owner_at` bytes into it. `false`, and nothing written, if it doesn't fit or no label
    /// begins there.
    pub fn authority(
        &mut self,
        owner_at: usize,
        rtype: Type,
        class: Class,
        ttl: u32,
        rdata: &[u8],
    ) -> bool {
        let written = self
            .owner_pointer(owner_at)
            .and_then(|owner| self.record(owner, rtype, class, ttl, rdata));
        if written.is_some() {
            self.authorities += 1;
            self.write_counts();
        }
        written.is_some()
    }

    /// The length of the reply so far; behind it goes the OPT record.
    pub fn finish(self) -> usize {
        self.at
    }

    /// Writes a record at the end of the reply. RDATA goes in as it is, so it holds no pointers.
    fn record(
        &mut self,
        owner: u16,
        rtype: Type,
        class: Class,
        ttl: u32,
        rdata: &[u8],
    ) -> Option<()> {
        let rdlength = u16::try_from(rdata.len()).ok()?;
        let place = self.buf.get_mut(self.at..)?;
        let (fixed, rest) = place.split_first_chunk_mut::<12>()?;
        rest.get_mut(..rdata.len())?.copy_from_slice(rdata);

        let ([o0, o1], [t0, t1]) = (owner.to_be_bytes(), rtype.0.to_be_bytes());
        let ([c0, c1], [d0, d1]) = (class.0.to_be_bytes(), rdlength.to_be_bytes());
        let [l0, l1, l2, l3] = ttl.to_be_bytes();
        *fixed = [o0, o1, t0, t1, c0, c1, l0, l1, l2, l3, d0, d1];
        self.at += fixed.len() + rdata.len();
        Some(())
    }

    /// A pointer to the label of the question's name at this offset, which may be its root.
    fn owner_pointer(&self, owner_at: usize) -> Option<u16> {
        let qname = self.buf.get(HEADER_LEN..HEADER_LEN + self.qname_len)?;
        let mut label_at = 0;
        while label_at < owner_at {
            label_at += 1 + usize::from(*qname.get(label_at)?);
        }
        let within = label_at == owner_at && owner_at < qname.len();
        within.then_some(QNAME_POINTER + owner_at as u16)
    }

    fn write_counts(&mut self) {
        if let Some([_, _, _, _, _, _, an0, an1, ns0, ns1, ..]) =
            self.buf.first_chunk_mut::<HEADER_LEN>()
        {
            [*an0, *an1] = self.answers.to_be_bytes();
            [*ns0, *ns1] = self.authorities.to_be_bytes();
        }
    }
}

/// Rebuilds header and question of a client's query from its facts, the key and the letter case that
/// were kept while it waited, so that its answer can be rendered. Returns where the question ends;
/// `None` if the buffer is too short or the key is not the query's.
pub fn restore_question(
    buf: &mut [u8],
    query: &Query,
    key: &Key<'_>,
    case: &CaseBits,
) -> Option<usize> {
    if key.qname().len() != usize::from(query.qname_len) {
        return None;
    }
    let end = write_question(buf, query.id, query.flags.0, key)?;
    case.apply(buf.get_mut(HEADER_LEN..HEADER_LEN + key.qname().len())?);
    Some(end)
}

/// Writes the query to an upstream for a key: RD and AD set (so that every answer says whether it was
/// validated, RFC 6840 §5.7), CD and DO from the key's variant, and an OPT record that offers
/// `udp_size` bytes. Returns its length; `None` if the buffer is too short.
pub fn write_query(buf: &mut [u8], id: u16, key: &Key<'_>, udp_size: u16) -> Option<usize> {
    let end = write_plain_query(buf, id, key)?;
    let dnssec_ok = key.variant().dnssec_ok();
    let opt = OptWriter::start(buf, end, udp_size, Rcode::NOERROR, dnssec_ok)?;
    Some(opt.finish())
}

/// As [`write_query`] without an OPT record, for an upstream that does not understand EDNS
/// (RFC 6891 §7). What DO would ask for cannot be had then.
pub fn write_plain_query(buf: &mut [u8], id: u16, key: &Key<'_>) -> Option<usize> {
    let cd = if key.variant().checking_disabled() { Flags::CD } else { 0 };
    write_question(buf, id, Flags::RD | Flags::AD | cd, key)
}

/// A header with one question, and the question of the key in lower case.
fn write_question(buf: &mut [u8], id: u16, flags: u16, key: &Key<'_>) -> Option<usize> {
    let qname = key.qname();
    let (header, rest) = buf.split_first_chunk_mut::<HEADER_LEN>()?;
    let (qname_place, rest) = rest.split_at_mut_checked(qname.len())?;
    let fixed = rest.first_chunk_mut::<4>()?;

    let ([i0, i1], [f0, f1]) = (id.to_be_bytes(), flags.to_be_bytes());
    *header = [i0, i1, f0, f1, 0, 1, 0, 0, 0, 0, 0, 0];
    qname_place.copy_from_slice(qname);
    let ([t0, t1], [c0, c1]) = (key.qtype().0.to_be_bytes(), key.qclass().0.to_be_bytes());
    *fixed = [t0, t1, c0, c1];
    Some(HEADER_LEN + qname.len() + fixed.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyBuf, Seed, Variant};
    use crate::query;

    /// A query of 33 bytes with RD and CD set, at the start of a buffer of so many bytes.
    fn asked(len: usize) -> (Vec<u8>, Query) {
        let mut buf =
            b"\xab\xcd\x01\x10\0\x01\0\0\0\0\0\0\x03wWw\x07eXample\x03com\0\0\x1c\0\x01".to_vec();
        let query = query::parse(&buf).unwrap();
        buf.resize(len, 0xaa);
        (buf, query)
    }

    #[test]
    fn an_error_is_a_header_that_echoes_id_opcode_and_rd() {
        let mut buf = *b"\xab\xcd\x29\xff\0\x01\0\x02\0\x03\0\x04garbage";
        assert_eq!(error_in_place(&mut buf, 19, Rcode::NOTIMP), Some(12));
        assert_eq!(buf[..12], *b"\xab\xcd\xa9\x84\0\0\0\0\0\0\0\0");
        assert_eq!(error_in_place(&mut buf, 11, Rcode::FORMERR), None);
        assert_eq!(error_in_place(&mut buf, 20, Rcode::FORMERR), None, "longer than the buffer");
    }

    #[test]
    fn a_local_answer_stands_behind_the_question() {
        let (mut buf, query) = asked(512);
        let writer = ReplyWriter::start(&mut buf, &query, Rcode::NOERROR).unwrap();
        let mut writer = writer.authoritative();
        assert!(writer.answer(Type::AAAA, Class::IN, 60, &[1; 16]));
        assert!(writer.authority(4, Type::NS, Class::IN, 5, &[0]));
        assert!(!writer.answer(Type::AAAA, Class::IN, 60, &[2; 16]), "authority was begun");
        assert!(!writer.authority(5, Type::NS, Class::IN, 5, &[0]), "inside of a label");
        assert!(!writer.authority(17, Type::NS, Class::IN, 5, &[0]), "behind the name");
        assert!(writer.authority(16, Type::NS, Class::IN, 5, &[0]), "the root");
        let len = writer.finish();
        assert_eq!(buf[..12], *b"\xab\xcd\x85\x90\0\x01\0\x01\0\x02\0\0");
        assert_eq!(buf[33..45], *b"\xc0\x0c\0\x1c\0\x01\0\0\0\x3c\0\x10");
        assert_eq!(buf[61..74], *b"\xc0\x10\0\x02\0\x01\0\0\0\x05\0\x01\0");
        assert_eq!(buf[74..len], *b"\xc0\x1c\0\x02\0\x01\0\0\0\x05\0\x01\0");
    }

    #[test]
    fn a_record_that_does_not_fit_is_not_written() {
        let (mut buf, query) = asked(33 + 16);
        let mut writer = ReplyWriter::start(&mut buf, &query, Rcode::REFUSED).unwrap();
        assert!(!writer.answer(Type::A, Class::IN, 60, &[1; 5]));
        assert!(writer.answer(Type::A, Class::IN, 60, &[1; 4]));
        assert!(!writer.authority(0, Type::TXT, Class::IN, 60, &[]));
        assert_eq!(writer.finish(), 49);
        assert_eq!(buf[2..12], *b"\x81\x95\0\x01\0\x01\0\0\0\0");
        assert!(ReplyWriter::start(&mut buf[..32], &query, Rcode::REFUSED).is_none());
    }

    #[test]
    fn a_question_comes_back_with_the_clients_letter_case() {
        let (packet, query) = asked(33);
        let qname = query.qname(&packet);
        let mut scratch = KeyBuf::default();
        let key = scratch.build(
            &Seed::new(3),
            qname,
            query.qtype,
            query.qclass,
            Variant::new(false, true, 0),
        );
        let mut buf = [0xaa; 40];
        let case = CaseBits::of(qname);
        assert_eq!(restore_question(&mut buf, &query, &key, &case), Some(33));
        assert_eq!(buf[..33], packet);
        assert_eq!(restore_question(&mut buf[..32], &query, &key, &case), None);
        let other = Query { qname_len: 16, ..query };
        assert_eq!(restore_question(&mut buf, &other, &key, &case), None);
    }

    #[test]
    fn an_upstream_is_asked_in_lower_case_with_rd_ad_and_an_opt_record() {
        let (packet, query) = asked(33);
        let mut scratch = KeyBuf::default();
        let mut written = |variant| {
            let qname = query.qname(&packet);
            let key = scratch.build(&Seed::new(3), qname, query.qtype, query.qclass, variant);
            let mut buf = [0xaa; 64];
            let len = write_query(&mut buf, 0x1234, &key, 1232).unwrap();
            buf[..len].to_vec()
        };
        let sent = written(Variant::new(true, true, 0));
        assert_eq!(sent[..12], *b"\x12\x34\x01\x30\0\x01\0\0\0\0\0\x01");
        assert_eq!(sent[12..33], *b"\x03www\x07example\x03com\0\0\x1c\0\x01");
        assert_eq!(sent[33..], *b"\0\0\x29\x04\xd0\0\0\x80\0\0\0");
        let sent = written(Variant::new(false, false, 9));
        assert_eq!(sent[2..4], *b"\x01\x20");
        assert_eq!(sent[33..], *b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
    }

    #[test]
    fn an_upstream_without_edns_is_asked_without_an_opt_record() {
        let (packet, query) = asked(33);
        let mut scratch = KeyBuf::default();
        let (qname, variant) = (query.qname(&packet), Variant::new(false, true, 0));
        let key = scratch.build(&Seed::new(3), qname, query.qtype, query.qclass, variant);
        let mut buf = [0xaa; 64];
        assert_eq!(write_plain_query(&mut buf, 0x1234, &key), Some(33));
        assert_eq!(buf[..12], *b"\x12\x34\x01\x30\0\x01\0\0\0\0\0\0");
        assert_eq!(buf[12..33], *b"\x03www\x07example\x03com\0\0\x1c\0\x01");
        assert_eq!(write_plain_query(&mut buf[..32], 0x1234, &key), None);
    }
}
