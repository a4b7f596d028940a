//! Responses as upstreams send them, and what is kept of each.

use swiftlet_parser::key::{KeyBuf, Seed, Variant};

use super::*;

const LIMITS: Limits =
    Limits { min_ttl_s: 0, max_ttl_s: 86_400, max_negative_ttl_s: 3600, stale_ttl_s: 0 };

/// A record of a response: owner, type, TTL, RDATA.
type Row<'a> = (&'a str, Type, u32, Vec<u8>);

fn wire(name: &str) -> Vec<u8> {
    Name::from_text(name).unwrap().as_wire().to_vec()
}

fn soa(minimum: u32) -> Vec<u8> {
    let numbers: Vec<u8> =
        [1, 2, 3, 4, minimum].iter().flat_map(|n: &u32| n.to_be_bytes()).collect();
    [wire("ns.example"), wire("admin.example"), numbers].concat()
}

fn rrsig(covered: Type) -> Vec<u8> {
    let mut rdata = covered.0.to_be_bytes().to_vec();
    rdata.extend([13, 2, 0, 0, 14, 16, 0, 0, 0, 2, 0, 0, 0, 1, 0, 7]);
    rdata.extend(wire("example"));
    rdata.extend([0xaa; 16]);
    rdata
}

fn message(
    name: &str,
    qtype: Type,
    rcode: Rcode,
    answer: &[Row<'_>],
    authority: &[Row<'_>],
) -> Vec<u8> {
    let mut message = vec![0, 1, 0x81, 0x80 | rcode.0 as u8, 0, 1];
    message.extend((answer.len() as u16).to_be_bytes());
    message.extend((authority.len() as u16).to_be_bytes());
    message.extend([0, 0]);
    message.extend(wire(name));
    message.extend(qtype.0.to_be_bytes());
    message.extend([0, 1]);
    for (owner, rtype, ttl, rdata) in answer.iter().chain(authority) {
        message.extend(wire(owner));
        message.extend(rtype.0.to_be_bytes());
        message.extend([0, 1]);
        message.extend(ttl.to_be_bytes());
        message.extend((rdata.len() as u16).to_be_bytes());
        message.extend(rdata);
    }
    message
}

/// What is kept: type, owner and TTL of each record of answer and authority, or the failure.
type Kept = (Vec<(Type, String, u32)>, Vec<(Type, String, u32)>, bool);

fn scrubbed(message: &[u8], name: &str, qtype: Type, dnssec_ok: bool) -> Result<Kept, Failure> {
    let response = Response::parse(message).unwrap();
    let mut keys = KeyBuf::default();
    let variant = Variant::new(dnssec_ok, false, 0);
    let key = keys.build(&Seed::new(1), &wire(name), qtype, Class::IN, variant);
    let kept = scrub(&response, &key, &LIMITS)?;
    let rows = |records: &[Record<'_>]| {
        let row =
            |record: &Record<'_>| (record.rtype, record.owner().unwrap().to_string(), record.ttl);
        records.iter().map(row).collect()
    };
    Ok((rows(&kept.answer), rows(&kept.authority), kept.storable))
}

fn answers(name: &str, qtype: Type, answer: &[Row<'_>], dnssec_ok: bool) -> Vec<(Type, String)> {
    let message = message(name, qtype, Rcode::NOERROR, answer, &[]);
    let (answer, ..) = scrubbed(&message, name, qtype, dnssec_ok).unwrap();
    answer.into_iter().map(|(rtype, owner, _)| (rtype, owner)).collect()
}

fn a() -> Vec<u8> {
    vec![192, 0, 2, 1]
}

fn owned(rtype: Type, owner: &str) -> (Type, String) {
    (rtype, owner.to_owned())
}

#[test]
fn a_dname_stands_before_the_cname_made_from_it_once() {
    let rows: Vec<Row<'_>> = vec![
        ("b.new.example", Type::A, 60, a()),
        ("a.old.example", Type::CNAME, 60, wire("b.old.example")),
        ("b.old.example", Type::CNAME, 60, wire("b.new.example")),
        ("old.example", Type::RRSIG, 60, rrsig(Type::DNAME)),
        ("old.example", Type::DNAME, 60, wire("new.example")),
    ];
    let whole = [
        owned(Type::DNAME, "old.example."),
        owned(Type::RRSIG, "old.example."),
        owned(Type::CNAME, "a.old.example."),
        owned(Type::CNAME, "b.old.example."),
        owned(Type::A, "b.new.example."),
    ];
    assert_eq!(answers("a.old.example", Type::A, &rows, true), whole);
    // Asked for the CNAME itself, the DNAME still proves it.
    assert_eq!(answers("a.old.example", Type::CNAME, &rows, true), whole[..3]);
}

#[test]
fn only_a_cname_question_stops_at_a_cname() {
    let rows: Vec<Row<'_>> = vec![
        ("alias.example", Type::CNAME, 60, wire("old.example")),
        ("old.example", Type::DNAME, 60, wire("new.example")),
    ];
    let both = [owned(Type::CNAME, "alias.example."), owned(Type::DNAME, "old.example.")];
    assert_eq!(answers("alias.example", Type::DNAME, &rows, false), both);
}

#[test]
fn a_dname_without_its_cname_is_no_answer_unless_the_name_got_too_long() {
    let rows: Vec<Row<'_>> = vec![("old.example", Type::DNAME, 60, wire("new.example"))];
    let broken = message("a.old.example", Type::A, Rcode::NOERROR, &rows, &[]);
    assert_eq!(scrubbed(&broken, "a.old.example", Type::A, false), Err(Failure::Malformed));
    let too_long = message("a.old.example", Type::A, Rcode::YXDOMAIN, &rows, &[]);
    let (answer, _, storable) = scrubbed(&too_long, "a.old.example", Type::A, false).unwrap();
    assert_eq!((answer.len(), storable), (1, false));
}

#[test]
fn an_rrset_has_one_ttl_and_no_record_twice() {
    let rows: Vec<Row<'_>> = vec![
        ("www.example", Type::A, 300, a()),
        ("www.example", Type::A, 100, vec![192, 0, 2, 2]),
        ("WWW.example", Type::A, 200, a()),
        ("www.example", Type::RRSIG, 900, rrsig(Type::A)),
        ("www.example", Type::RRSIG, 900, rrsig(Type::AAAA)),
    ];
    let message = message("www.example", Type::A, Rcode::NOERROR, &rows, &[]);
    let (answer, ..) = scrubbed(&message, "www.example", Type::A, true).unwrap();
    let kept: Vec<_> = answer.iter().map(|(rtype, _, ttl)| (*rtype, *ttl)).collect();
    assert_eq!(kept, [(Type::A, 100), (Type::A, 100), (Type::RRSIG, 100)]);
    let (bare, ..) = scrubbed(&message, "www.example", Type::A, false).unwrap();
    assert_eq!(bare.len(), 2);
}

#[test]
fn the_ttl_of_an_absence_is_the_smallest_there_is() {
    for (soa_ttl, minimum, chain, kept) in [
        (900, 300, 600, 300),
        (200, 300, 600, 200),
        (900, 300, 100, 100),
        (99_999, 99_999, 86_400, 3600),
    ] {
        let chain: Vec<Row<'_>> = vec![("www.example", Type::CNAME, chain, wire("gone.example"))];
        let denial: Vec<Row<'_>> = vec![
            ("example", Type::SOA, soa_ttl, soa(minimum)),
            ("example", Type::NS, 60, wire("ns.example")),
        ];
        let message = message("www.example", Type::A, Rcode::NXDOMAIN, &chain, &denial);
        let (_, authority, storable) = scrubbed(&message, "www.example", Type::A, false).unwrap();
        assert_eq!(authority, [(Type::SOA, "example.".to_owned(), kept)]);
        assert!(storable);
    }
}

#[test]
fn an_absence_without_a_soa_of_its_zone_is_passed_on_but_not_kept() {
    let foreign: Vec<Row<'_>> = vec![("elsewhere", Type::SOA, 60, soa(60))];
    for authority in [&[][..], &foreign] {
        let message = message("www.example", Type::A, Rcode::NXDOMAIN, &[], authority);
        let (_, authority, storable) = scrubbed(&message, "www.example", Type::A, false).unwrap();
        assert_eq!((authority.len(), storable), (0, false));
    }
}

#[test]
fn contradictions_are_failures() {
    let data: Vec<Row<'_>> = vec![("www.example", Type::A, 60, a())];
    let message_ = message("www.example", Type::A, Rcode::NXDOMAIN, &data, &[]);
    assert_eq!(scrubbed(&message_, "www.example", Type::A, false), Err(Failure::Malformed));
    let referral: Vec<Row<'_>> = vec![("example", Type::NS, 60, wire("ns.example"))];
    let message_ = message("www.example", Type::A, Rcode::NOERROR, &[], &referral);
    assert_eq!(scrubbed(&message_, "www.example", Type::A, false), Err(Failure::Malformed));
    let message_ = message("www.example", Type::A, Rcode::SERVFAIL, &[], &[]);
    let failed = Err(Failure::Rcode(Rcode::SERVFAIL));
    assert_eq!(scrubbed(&message_, "www.example", Type::A, false), failed);
}

#[test]
fn a_chain_has_an_end() {
    let names: Vec<String> = (0..=MAX_CHAIN).map(|link| format!("n{link}.example")).collect();
    let link = |at: usize| (names[at].as_str(), Type::CNAME, 60, wire(&names[at + 1]));
    let rows = |links: usize| {
        let mut rows: Vec<Row<'_>> = (0..links).map(link).collect();
        rows.push((&names[links], Type::A, 60, a()));
        message("n0.example", Type::A, Rcode::NOERROR, &rows, &[])
    };
    let longest = rows(MAX_CHAIN - 1);
    let (answer, ..) = scrubbed(&longest, "n0.example", Type::A, false).unwrap();
    assert_eq!(answer.len(), MAX_CHAIN);
    let longer = rows(MAX_CHAIN);
    assert_eq!(scrubbed(&longer, "n0.example", Type::A, false), Err(Failure::Malformed));
}
