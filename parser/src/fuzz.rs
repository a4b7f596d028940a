//! What every fuzz target calls: each function takes any bytes and asserts what must hold for them.
//!
//! They are ordinary functions so that the same assertions run three ways: under libFuzzer
//! (`parser/fuzz`), over the committed corpus in a plain test, and over random mutations of it
//! (`parser/tests/fuzz_entry_points.rs`). Nothing of the program calls them; a panic here is a finding.
#![cfg_attr(
    not(test),
    allow(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        reason = "assertions are what these functions are for"
    )
)]

use crate::edns::{OptWriter, OptionSet};
use crate::key::{CaseBits, Key, KeyBuf, MAX_KEY_LEN, Seed, Variant};
use crate::message::{self, ReplyWriter};
use crate::name::{Name, fold};
use crate::query::{Query, Reject};
use crate::rdata::{self, Field};
use crate::response::{Echo, Record, Response, Section, bare_error};
use crate::rr::{Class, HEADER_LEN, Opcode, Rcode, Type};
use crate::template::{Source, Template, build, render};

/// Parses a query, and writes all that may be written because of it.
///
/// # Panics
/// If a fact is outside of the packet, or a builder leaves its buffer or its own format.
pub fn query(data: &[u8]) {
    let query = match crate::query::parse(data) {
        Ok(query) => query,
        Err(Reject::BadVersion(query) | Reject::BadOptions(query)) => {
            let edns = query.edns.expect("an OPT record that could be read");
            assert_eq!((edns.options, edns.cookie), (OptionSet::default(), None));
            query
        }
        Err(reject) => return check_reject(data, reject),
    };
    check_facts(data, &query);
    check_question_restored(data, &query);
    for spare in [0, 10, 11, 27, 28, 40, 64, 512] {
        check_reply(data, &query, query.question_end() + spare);
    }
}

/// Parses a response and looks at every part of every record.
///
/// # Panics
/// If the walk finds other records than the check of the whole message did.
pub fn response(data: &[u8]) {
    if let Some((id, rcode)) = bare_error(data) {
        assert!(Response::parse(data).is_err(), "either a response or an error without a question");
        assert_eq!(data[..2], id.to_be_bytes());
        assert!((1..16).contains(&rcode.0));
    }
    let Ok(response) = Response::parse(data) else {
        return;
    };
    assert!(Name::from_wire(response.qname()).is_some());
    let mut key = KeyBuf::default();
    let key =
        key.build(&Seed::new(1), response.qname(), response.qtype(), response.qclass(), Variant(0));
    let is_response = response.flags().qr() && response.flags().opcode() == Opcode::QUERY;
    assert_eq!(response.is_answer_to(&key), is_response);
    check_echo(&response, is_response, &key);

    let mut last = Section::Answer;
    for (section, record) in response.records() {
        assert!(section >= last, "sections come in the order of the wire");
        last = section;
        assert!(record.ttl <= i32::MAX as u32);
        assert_ne!(record.rtype, Type::OPT);
        for skip in 0..=record.rdata().len() {
            if let Some(name) = record.rdata_name(skip) {
                assert!(Name::from_wire(name.as_wire()).is_some());
            }
        }
        assert!(record.owner().is_none_or(|owner| owner.as_wire().len() <= 255));
        assert!(record.soa_minimum().is_none() || record.rtype == Type::SOA);
        assert!(record.covered_type().is_none() || record.rtype == Type::RRSIG);
    }
    let by_section: usize =
        Section::ALL.map(|section| response.section(section).count()).iter().sum();
    assert_eq!(by_section, response.records().count());
}

/// A response repeats the query of its own question, and no query with one byte of it changed, but for
/// the case of the name.
fn check_echo(response: &Response<'_>, is_response: bool, key: &Key<'_>) {
    let mut query = [0; HEADER_LEN + MAX_KEY_LEN];
    let Some(len) = message::write_plain_query(&mut query, 7, key) else { return };
    let is_lower = !response.qname().iter().any(u8::is_ascii_uppercase);
    let folded = if is_lower { Echo::Exact } else { Echo::OtherCase };
    assert_eq!(response.echo_of(&query[..len]), is_response.then_some(folded));
    query[HEADER_LEN..HEADER_LEN + response.qname().len()].copy_from_slice(response.qname());
    assert_eq!(response.echo_of(&query[..len]), is_response.then_some(Echo::Exact));
    assert_eq!(response.echo_of(&query[..len - 1]), None);
    for at in HEADER_LEN..len {
        query[at] ^= 0x80;
        assert_eq!(response.echo_of(&query[..len]), None);
        query[at] ^= 0x80;
    }
}

/// Bytes of control before the response or template in the input of [`template_round_trip`].
pub const CONTROL_LEN: usize = 8;

/// Builds a template from a response, renders it and reads it back; or renders arbitrary bytes as a
/// template. The first [`CONTROL_LEN`] bytes choose: bit 0 of the first which of both, then two
/// bytes each for age, limit and length of the buffer (big endian), then a mask of the records of each
/// section that are left out (bit 0 for the first, the ninth and so on).
///
/// # Panics
/// If what is read back is not what was in the response, or a limit isn't kept.
pub fn template_round_trip(data: &[u8]) {
    let Some((control, rest)) = data.split_first_chunk::<CONTROL_LEN>() else {
        return;
    };
    let [mode, age_high, age_low, limit_high, limit_low, buf_high, buf_low, left_out] = *control;
    let age_s = u32::from(u16::from_be_bytes([age_high, age_low]));
    let limit = usize::from(u16::from_be_bytes([limit_high, limit_low]));
    let buf_len = usize::from(u16::from_be_bytes([buf_high, buf_low]));
    if mode & 1 == 1 {
        render_arbitrary(rest, age_s, limit, buf_len);
    } else {
        round_trip(rest, left_out, age_s, limit, buf_len);
    }
}

fn check_reject(data: &[u8], reject: Reject) {
    let mut buf = data.to_vec();
    let reply = message::error_in_place(&mut buf, data.len(), Rcode::FORMERR);
    assert_eq!(reply.is_none(), data.len() < HEADER_LEN);
    assert_eq!(reject == Reject::Short, data.len() < HEADER_LEN);
    if let Some(len) = reply {
        assert_eq!(buf[..2], data[..2], "the ID is kept");
        assert_eq!(buf[4..len], [0; 8], "a header alone counts nothing");
        assert!(matches!(crate::query::parse(&buf[..len]), Err(Reject::Response)));
    }
}

fn check_facts(data: &[u8], query: &Query) {
    assert!(query.question_end() <= data.len());
    let qname = query.qname(data);
    assert_eq!(qname.len(), usize::from(query.qname_len));
    let name = Name::from_wire(qname).expect("the question holds a whole name");
    let last_label = name.labels().last().map_or(0, <[u8]>::len);
    let from_end = if name.is_root() { 1 } else { last_label + 2 };
    assert_eq!(usize::from(query.last_label), qname.len() - from_end);
    for server_max in [512, 1232, 4096, u16::MAX] {
        let limit = query.payload_limit(server_max);
        assert!((512..=usize::from(server_max)).contains(&limit));
    }
}

/// A waiter's question comes back byte for byte, and the upstream is asked the same.
fn check_question_restored(data: &[u8], query: &Query) {
    let (dnssec_ok, checking_disabled) = (query.dnssec_ok(), query.checking_disabled());
    let variant = Variant::new(dnssec_ok, checking_disabled, 0);
    let qname = query.qname(data);
    let mut key = KeyBuf::default();
    let key = key.build(&Seed::new(2), qname, query.qtype, query.qclass, variant);

    let mut buf = [0xaa; 512];
    let end = message::restore_question(&mut buf, query, &key, &CaseBits::of(qname));
    assert_eq!(end, Some(query.question_end()));
    let end = query.question_end();
    assert_eq!(buf[HEADER_LEN..end], data[HEADER_LEN..end]);
    let restored = crate::query::parse(&buf[..end]).expect("a restored query is a query");
    assert_eq!(restored, Query { edns: None, ..*query });

    for buf_len in [0, HEADER_LEN, end - 1, end, end + 10, end + 11, 512] {
        let mut buf = [0xaa; 512];
        let written = message::write_query(&mut buf[..buf_len], 7, &key, 1232);
        assert_eq!(written.is_some(), buf_len >= end + 11);
        let Some(len) = written else { continue };
        let sent = crate::query::parse(&buf[..len]).expect("our own query is a query");
        assert_eq!((sent.id, sent.dnssec_ok()), (7, dnssec_ok));
        assert_eq!(sent.checking_disabled(), checking_disabled);
        assert!(sent.recursion_desired() && sent.authentic_data());
        assert!(fold::eq_ignore_case(sent.qname(&buf), qname));
    }
}

/// A reply stays in a buffer of any length and is a sound response to the query.
fn check_reply(data: &[u8], query: &Query, buf_len: usize) {
    let question_end = query.question_end();
    let mut buf = vec![0xaa; buf_len];
    buf[..question_end].copy_from_slice(&data[..question_end]);
    assert!(ReplyWriter::start(&mut buf[..question_end - 1], query, Rcode::REFUSED).is_none());

    let mut writer = ReplyWriter::start(&mut buf, query, Rcode::NXDOMAIN).unwrap();
    let spare = buf_len - question_end;
    let answered = writer.answer(Type::A, Class::IN, 60, &[127, 0, 0, 1]);
    assert_eq!(answered, spare >= 16);
    let owner_at = usize::from(query.last_label);
    let left = spare - if answered { 16 } else { 0 };
    let has_authority = writer.authority(owner_at, Type::NS, Class::IN, 60, &[0]);
    assert_eq!(has_authority, left >= 13);
    let mut len = writer.finish();
    let opt = OptWriter::start(&mut buf, len, 1232, Rcode::NXDOMAIN, true);
    let has_edns = opt.is_some();
    len = opt.map_or(len, OptWriter::finish);
    assert!(len <= buf_len);

    let reply = Response::parse(&buf[..len]).expect("our own reply is a response");
    assert_eq!((reply.id(), reply.rcode()), (query.id, Rcode::NXDOMAIN));
    assert_eq!(reply.has_edns(), has_edns);
    assert_eq!(reply.section(Section::Answer).count(), usize::from(answered));
    let owner = Name::from_wire(&query.qname(data)[owner_at..]).unwrap();
    for record in reply.section(Section::Authority) {
        assert_eq!(record.owner(), Some(owner));
    }
}

/// What a record means, without regard to how it was compressed.
#[derive(Debug, PartialEq, Eq)]
struct Meaning {
    owner: Name,
    rtype: Type,
    class: Class,
    ttl: u32,
    /// RDATA with its names in full and in lower case.
    rdata: Vec<u8>,
}

impl Meaning {
    fn of(record: &Record<'_>, age_s: u32) -> Option<Self> {
        let mut rdata = Vec::new();
        let mut at = 0;
        for field in rdata::layout(record.rtype, record.class) {
            let len = match *field {
                Field::CompressibleName | Field::PlainName => {
                    let (name, end) = record.rdata_name_and_end(at)?;
                    rdata.extend(name.as_wire().to_ascii_lowercase());
                    at = end;
                    continue;
                }
                Field::Bytes(len) => len,
                Field::CharacterString => 1 + usize::from(*record.rdata().get(at)?),
                Field::Rest => record.rdata().len() - at,
            };
            rdata.extend(record.rdata().get(at..at + len)?);
            at += len;
        }
        (at == record.rdata().len()).then_some(())?;
        Some(Self {
            owner: record.owner()?,
            rtype: record.rtype,
            class: record.class,
            ttl: record.ttl.saturating_sub(age_s),
            rdata,
        })
    }
}

fn round_trip(data: &[u8], left_out: u8, age_s: u32, limit: usize, buf_len: usize) {
    let Ok(response) = Response::parse(data) else {
        return;
    };
    let [answer, authority, additional] = Section::ALL.map(|section| {
        let records = response.section(section).enumerate();
        records
            .filter(|(index, _)| left_out >> (index % 8) & 1 == 0)
            .map(|(_, record)| record)
            .filter(|record| !record.rtype.is_meta())
            .collect::<Vec<_>>()
    });
    let source = Source {
        qname: &response.qname().to_ascii_lowercase(),
        rcode: response.rcode(),
        secure: response.flags().ad(),
        answer: &answer,
        authority: &authority,
        additional: &additional,
    };
    let expected: Option<Vec<Meaning>> = [&answer, &authority, &additional]
        .into_iter()
        .flatten()
        .map(|record| Meaning::of(record, age_s))
        .collect();
    let mut stored = vec![0x55];
    let Ok(()) = build(&source, &mut stored) else {
        assert!(stored.is_empty(), "nothing is left after an error");
        return;
    };
    let expected = expected.expect("what is malformed is not stored");

    let template = Template::from_bytes(&stored).expect("what was built is a template");
    assert_eq!(template.rcode(), response.rcode());
    assert_eq!(template.secure(), response.flags().ad());
    let (packet, query) = client_query(data, &response);

    let mut buf = vec![0xaa; usize::from(u16::MAX)];
    buf[..packet.len()].copy_from_slice(&packet);
    let whole = render(template, &mut buf, &query, age_s, usize::from(u16::MAX));
    assert_eq!(whole.len, packet.len() + template.tail().len());
    assert!(!whole.truncated);
    let (counts, found) = read_back(&buf[..whole.len]);
    assert_eq!(counts, [answer.len(), authority.len(), additional.len()]);
    assert_eq!(found, expected);

    let mut buf = vec![0xaa; buf_len];
    let shown = packet.len().min(buf_len);
    buf[..shown].copy_from_slice(&packet[..shown]);
    let cut = render(template, &mut buf, &query, age_s, limit);
    assert!(cut.len <= buf_len && cut.len <= limit.max(packet.len()));
    if cut.len < packet.len() {
        assert!(cut.truncated && (cut.len == 0 || cut.len == HEADER_LEN));
        return;
    }
    assert_eq!(buf[HEADER_LEN..packet.len()], packet[HEADER_LEN..]);
    let (kept, found) = read_back(&buf[..cut.len]);
    let truncated = kept[0] < answer.len() || kept[1] < authority.len();
    assert_eq!(cut.truncated, truncated);
    assert_eq!(buf[2] & 0x02 != 0, truncated);
    assert!(kept[2] == 0 || kept[2] == additional.len());
    assert_eq!(found[..], expected[..found.len()], "whole records, from the start");
}

fn render_arbitrary(bytes: &[u8], age_s: u32, limit: usize, buf_len: usize) {
    let Some(template) = Template::from_bytes(bytes) else {
        return;
    };
    let packet = *b"\x12\x34\x01\x20\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01";
    let query = crate::query::parse(&packet).unwrap();
    let mut buf = vec![0xaa; buf_len];
    let shown = packet.len().min(buf_len);
    buf[..shown].copy_from_slice(&packet[..shown]);
    let rendered = render(template, &mut buf, &query, age_s, limit);
    assert!(rendered.len <= buf_len && rendered.len <= limit.max(packet.len()));
    if buf_len >= packet.len() {
        assert!(rendered.len >= packet.len());
        assert_eq!(buf[HEADER_LEN..packet.len()], packet[HEADER_LEN..]);
    }
}

/// The query that the response answers, as a client without EDNS sends it.
fn client_query(data: &[u8], response: &Response<'_>) -> (Vec<u8>, Query) {
    let question_end = HEADER_LEN + response.qname().len() + 4;
    let mut packet = data[..question_end].to_vec();
    packet[2..HEADER_LEN].copy_from_slice(&[0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 0]);
    let query = crate::query::parse(&packet).expect("a response's question makes a query");
    (packet, query)
}

/// Records per section and the meaning of all of them; all that the header counts must be there.
fn read_back(reply: &[u8]) -> ([usize; 3], Vec<Meaning>) {
    let response = Response::parse(reply).expect("what is rendered is a response");
    let counts = Section::ALL.map(|section| response.section(section).count());
    for (index, count) in counts.iter().enumerate() {
        let at = 6 + 2 * index;
        let counted = u16::from_be_bytes([reply[at], reply[at + 1]]);
        assert_eq!(usize::from(counted), *count);
    }
    let meanings = response.records().map(|(_, record)| Meaning::of(&record, 0));
    (counts, meanings.map(|meaning| meaning.expect("names lead somewhere")).collect())
}
