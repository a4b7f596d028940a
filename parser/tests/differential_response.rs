//! Against hickory-proto: what it writes we read the same, and what we render it reads back as the same
//! records, at every length a reply may be cut to.

mod answers;

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::svcb::{Alpn, IpHint, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{
    A, AAAA, CAA, CNAME, HTTPS, MX, NAPTR, NS, NULL, PTR, SOA, SRV, SVCB, TXT,
};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::BinEncodable;
use swiftlet_parser::response::{Response, Section};
use swiftlet_parser::rr::{Rcode, Type};

use answers::{answer, ask, store, store_without};

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn record(owner: &str, ttl: u32, data: RData) -> Record {
    Record::from_rdata(name(owner), ttl, data)
}

fn a(owner: &str, ttl: u32, last: u8) -> Record {
    record(owner, ttl, RData::A(A(Ipv4Addr::new(192, 0, 2, last))))
}

fn aaaa(owner: &str, ttl: u32) -> Record {
    record(owner, ttl, RData::AAAA(AAAA(Ipv6Addr::LOCALHOST)))
}

fn ns(owner: &str, target: &str) -> Record {
    record(owner, 86400, RData::NS(NS(name(target))))
}

fn cname(owner: &str, ttl: u32, target: &str) -> Record {
    record(owner, ttl, RData::CNAME(CNAME(name(target))))
}

fn soa(owner: &str, minimum: u32) -> Record {
    let (mname, rname) = (name("ns1.example.com."), name("hostmaster.example.com."));
    let data = SOA::new(mname, rname, 2024, 7200, 3600, 1_209_600, minimum);
    record(owner, 3600, RData::SOA(data))
}

fn unknown(owner: &str, code: RecordType, rdata: Vec<u8>) -> Record {
    let rdata = NULL::with(rdata);
    record(owner, 300, RData::Unknown { code, rdata })
}

fn message(qname: &str, qtype: RecordType, sections: [Vec<Record>; 3]) -> Message {
    let mut message = Message::response(0x4321, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.recursion_available = true;
    message.add_query(Query::query(name(qname), qtype));
    let [answer, authority, additional] = sections;
    message.add_answers(answer);
    message.add_authorities(authority);
    message.add_additionals(additional);
    message
}

fn service(priority: u16) -> SVCB {
    let parameters = vec![
        (SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(vec!["h2".to_owned(), "h3".to_owned()]))),
        (
            SvcParamKey::Ipv4Hint,
            SvcParamValue::Ipv4Hint(IpHint(vec![A(Ipv4Addr::new(192, 0, 2, 1))])),
        ),
    ];
    SVCB::new(priority, name("pool.Example.com."), parameters)
}

/// Answers of every kind, each with a name for the messages of assertions.
fn cases() -> Vec<(&'static str, Message)> {
    let www = "www.example.com.";
    let none = Vec::new;
    let answer = |qtype, records| message(www, qtype, [records, none(), none()]);
    let rrsig = [&[0, 1, 13, 3, 0, 0, 1, 44][..], &[1; 10], b"\x07example\x03com\0", &[90; 64]];
    let boxed = |text: &[u8]| text.to_vec().into_boxed_slice();
    let naptr = NAPTR::new(
        10,
        20,
        boxed(b"u"),
        boxed(b"E2U+sip"),
        boxed(b"!^.*$!sip:a@example.com!"),
        Name::root(),
    );
    let mut nxdomain =
        message(www, RecordType::A, [none(), vec![soa("example.com.", 300)], none()]);
    nxdomain.metadata.response_code = ResponseCode::NXDomain;
    nxdomain.metadata.authentic_data = true;
    vec![
        ("A", answer(RecordType::A, vec![a(www, 300, 1)])),
        ("A, many", answer(RecordType::A, (0..60).map(|last| a(www, 60, last)).collect())),
        ("AAAA", answer(RecordType::AAAA, vec![aaaa(www, 300), aaaa(www, 299)])),
        (
            "NS of the root",
            message(
                ".",
                RecordType::NS,
                [
                    vec![ns(".", "a.root-servers.net."), ns(".", "B.root-servers.net.")],
                    none(),
                    none(),
                ],
            ),
        ),
        (
            "CNAME chain",
            answer(
                RecordType::A,
                vec![
                    cname(www, 300, "web.example.com."),
                    cname("web.example.com.", 5, "edge.cdn.example.net."),
                    a("Edge.cdn.example.NET.", 20, 7),
                ],
            ),
        ),
        ("NXDOMAIN with SOA", nxdomain),
        ("no data, no records", answer(RecordType::TXT, none())),
        (
            "referral",
            message(
                www,
                RecordType::A,
                [
                    none(),
                    vec![
                        ns("example.com.", "ns1.example.com."),
                        ns("example.com.", "ns.other.org."),
                    ],
                    vec![a("ns1.example.com.", 3600, 53), aaaa("ns1.example.com.", 3600)],
                ],
            ),
        ),
        (
            "all sections",
            message(
                www,
                RecordType::A,
                [
                    vec![
                        cname(www, 300, "w.example.com."),
                        a("w.example.com.", 30, 1),
                        a("w.example.com.", 30, 2),
                    ],
                    vec![ns("example.com.", "ns1.example.com.")],
                    vec![a("ns1.example.com.", 3600, 53), aaaa("ns1.example.com.", 3600)],
                ],
            ),
        ),
        (
            "MX",
            answer(
                RecordType::MX,
                vec![
                    record(www, 60, RData::MX(MX::new(10, name("mail.example.com.")))),
                    record(www, 60, RData::MX(MX::new(20, name("mail.example.com.")))),
                    record(www, 60, RData::MX(MX::new(0, Name::root()))),
                ],
            ),
        ),
        (
            "TXT",
            answer(
                RecordType::TXT,
                vec![record(
                    www,
                    60,
                    RData::TXT(TXT::new(vec!["v=spf1 -all".to_owned(), "x".repeat(255)])),
                )],
            ),
        ),
        (
            "SRV",
            answer(
                RecordType::SRV,
                vec![record(www, 60, RData::SRV(SRV::new(1, 2, 443, name("sip.example.com."))))],
            ),
        ),
        (
            "PTR",
            message(
                "1.2.0.192.in-addr.arpa.",
                RecordType::PTR,
                [
                    vec![record(
                        "1.2.0.192.in-addr.arpa.",
                        60,
                        RData::PTR(PTR(name("host.2.0.192.in-addr.arpa."))),
                    )],
                    none(),
                    none(),
                ],
            ),
        ),
        ("NAPTR", answer(RecordType::NAPTR, vec![record(www, 60, RData::NAPTR(naptr))])),
        ("SVCB", answer(RecordType::SVCB, vec![record(www, 60, RData::SVCB(service(2)))])),
        (
            "HTTPS",
            answer(RecordType::HTTPS, vec![record(www, 60, RData::HTTPS(HTTPS(service(1))))]),
        ),
        (
            "CAA",
            answer(
                RecordType::CAA,
                vec![record(
                    www,
                    60,
                    RData::CAA(CAA::new_issue(true, Some(name("ca.example.net.")), Vec::new())),
                )],
            ),
        ),
        (
            "RRSIG",
            answer(
                RecordType::A,
                vec![a(www, 300, 1), unknown(www, RecordType::RRSIG, rrsig.concat())],
            ),
        ),
        (
            "unknown types",
            answer(
                RecordType::Unknown(65280),
                vec![
                    unknown(www, RecordType::Unknown(65280), vec![0xc0, 12, 0xff]),
                    unknown(www, RecordType::Unknown(300), vec![0]),
                ],
            ),
        ),
        (
            "many names",
            message(
                "a.b.c.d.e.f.example.com.",
                RecordType::NS,
                [
                    none(),
                    (0..300)
                        .map(|index| {
                            ns(
                                &format!("z{}.example.com.", index % 7),
                                &format!("ns{index}.z{}.example.ORG.", index % 9),
                            )
                        })
                        .collect(),
                    none(),
                ],
            ),
        ),
    ]
}

fn wire(data: &impl BinEncodable) -> Vec<u8> {
    data.to_bytes().unwrap()
}

#[test]
fn what_hickory_writes_is_read_the_same() {
    for (case, written) in cases() {
        let bytes = written.to_vec().unwrap();
        let response = Response::parse(&bytes).unwrap_or_else(|error| panic!("{case}: {error:?}"));
        assert_eq!(response.id(), 0x4321);
        assert_eq!(response.rcode(), Rcode(u16::from(written.metadata.response_code)));
        assert_eq!(response.flags().ad(), written.metadata.authentic_data);
        assert_eq!(response.qname(), wire(&written.queries[0].name));
        assert_eq!(response.qtype(), Type(u16::from(written.queries[0].query_type)));

        let sections = [
            (Section::Answer, &written.answers),
            (Section::Authority, &written.authorities),
            (Section::Additional, &written.additionals),
        ];
        for (section, records) in sections {
            assert_eq!(response.section(section).count(), records.len(), "{case}");
            for (read, record) in response.section(section).zip(records) {
                assert_eq!(read.rtype, Type(u16::from(record.record_type())), "{case}");
                assert_eq!(read.class.0, u16::from(record.dns_class), "{case}");
                assert_eq!(read.ttl, record.ttl, "{case}");
                let owner = read.owner().unwrap();
                assert_eq!(owner.as_wire().to_ascii_lowercase(), wire(&record.name.to_lowercase()));
                check_rdata(case, &read, &record.data);
            }
        }
    }
}

/// The parts of RDATA that this crate gives out.
fn check_rdata(case: &str, read: &swiftlet_parser::response::Record<'_>, written: &RData) {
    let (skip, target) = match written {
        RData::NS(NS(target)) => (0, target),
        RData::CNAME(CNAME(target)) => (0, target),
        RData::PTR(PTR(target)) => (0, target),
        RData::MX(mx) => (2, &mx.exchange),
        RData::SRV(srv) => (6, &srv.target),
        RData::SOA(soa) => {
            assert_eq!(read.soa_minimum(), Some(soa.minimum));
            (0, &soa.mname)
        }
        other => return assert_eq!(read.rdata(), wire(other), "{case}"),
    };
    let read = read.rdata_name(skip).unwrap();
    assert_eq!(read.as_wire().to_ascii_lowercase(), wire(&target.to_lowercase()), "{case}");
}

/// Records without their TTLs compare equal in hickory, so these are compared beside them.
fn assert_same(case: &str, read: &[Record], written: &[Record], age_s: u32) {
    assert_eq!(read, written, "{case}");
    for (read, written) in read.iter().zip(written) {
        assert_eq!(read.ttl, written.ttl.saturating_sub(age_s), "{case}");
    }
}

#[test]
fn what_is_rendered_hickory_reads_as_the_same_records() {
    const RD_AD: u16 = 0x0120;
    for (case, written) in cases() {
        let bytes = written.to_vec().unwrap();
        let stored = store(&Response::parse(&bytes).unwrap()).unwrap();
        let mut client = ask(&bytes, RD_AD);
        client.0[13..].iter_mut().take(3).for_each(u8::make_ascii_uppercase);
        for age_s in [0, 1, 59, 299, 100_000, u32::MAX] {
            let (reply, rendered) = answer(&stored, &client, age_s, 65535, 65535);
            assert!(!rendered.truncated);
            let (header, question) = (&reply[..12], &reply[12..client.0.len()]);
            assert_eq!(header[..2], bytes[..2], "{case}: the ID is kept");
            assert_eq!(question, &client.0[12..], "{case}: the letter case is kept");

            let read = Message::from_vec(&reply).unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(read.metadata.response_code, written.metadata.response_code);
            assert_eq!(read.metadata.authentic_data, written.metadata.authentic_data);
            assert!(read.metadata.recursion_available && !read.metadata.authoritative);
            assert!(!read.metadata.truncation);
            assert_same(case, &read.answers, &written.answers, age_s);
            assert_same(case, &read.authorities, &written.authorities, age_s);
            assert_same(case, &read.additionals, &written.additionals, age_s);
        }
    }
}

/// Scrubbing takes records away: no pointer may reach into where they had been.
#[test]
fn a_record_that_was_left_out_is_not_missed_by_the_others() {
    for (case, written) in cases() {
        let bytes = written.to_vec().unwrap();
        let response = Response::parse(&bytes).unwrap();
        for left_out in 0..response.records().count() {
            let stored = store_without(&response, left_out).unwrap();
            let (reply, _) = answer(&stored, &ask(&bytes, 0), 0, 65535, 65535);
            let read = Message::from_vec(&reply).unwrap_or_else(|error| panic!("{case}: {error}"));
            let mut expected: Vec<&Record> = written.all_sections().collect();
            expected.remove(left_out);
            let read: Vec<&Record> = read.all_sections().collect();
            assert_eq!(read, expected, "{case} without {left_out}");
        }
    }
}

#[test]
fn compression_is_about_as_good_as_hickorys() {
    for (case, written) in cases() {
        let bytes = written.to_vec().unwrap();
        let stored = store(&Response::parse(&bytes).unwrap()).unwrap();
        let (reply, _) = answer(&stored, &ask(&bytes, 0), 0, 65535, 65535);
        // Their names in SVCB and NAPTR are never compressed either; 300 distinct names are more than
        // what is remembered.
        let allowed = if case == "many names" { bytes.len() * 5 / 4 } else { bytes.len() };
        assert!(reply.len() <= allowed, "{case}: {} of {}", reply.len(), bytes.len());
    }
}

#[test]
fn a_reply_cut_at_any_limit_is_read_as_the_first_records() {
    for (case, written) in cases() {
        let bytes = written.to_vec().unwrap();
        let stored = store(&Response::parse(&bytes).unwrap()).unwrap();
        let client = ask(&bytes, 0x0100);
        let (whole, _) = answer(&stored, &client, 0, 65535, 65535);
        let wanted = [&written.answers, &written.authorities, &written.additionals];
        let mut kept_before = 0;
        for limit in 0..=whole.len().min(2000) + 2 {
            // The buffer and the limit are the same bound, reached in two ways.
            let (reply, rendered) = answer(&stored, &client, 7, limit, 4096);
            let bound = limit.max(client.0.len());
            assert!(reply.len() <= bound, "{case}: {} at limit {limit}", reply.len());
            if limit >= client.0.len() {
                let (other, _) = answer(&stored, &client, 7, 65535, limit);
                assert_eq!(reply, other, "{case}: limit and buffer of {limit}");
            }

            let read = Message::from_vec(&reply).unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(read.metadata.truncation, rendered.truncated);
            let kept = [&read.answers, &read.authorities, &read.additionals];
            let [answers, authorities, additionals] = [0, 1, 2].map(|section| {
                let (kept, wanted) = (kept[section], wanted[section]);
                assert_same(case, kept, &wanted[..kept.len()], 7);
                kept.len() == wanted.len()
            });
            assert_eq!(rendered.truncated, !(answers && authorities), "{case} at {limit}");
            assert!(answers || read.authorities.is_empty(), "{case} at {limit}");
            assert!(additionals || read.additionals.is_empty(), "{case} at {limit}");
            let kept: usize = kept.iter().map(|section| section.len()).sum();
            assert!(kept >= kept_before, "{case}: more room, fewer records at {limit}");
            kept_before = kept;
        }
        let all: usize = wanted.iter().map(|section| section.len()).sum();
        assert!(whole.len() > 2000 || kept_before == all, "{case}");
    }
}
