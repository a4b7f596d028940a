//! The named responses of the fuzz corpus, one by one: what is refused and why, what is read from the
//! others, and what their templates and replies look like to the byte.

mod answers;
#[expect(dead_code, reason = "only the responses are used here")]
mod packets;

use swiftlet_parser::response::{Record, Response, ResponseError, Section, bare_error};
use swiftlet_parser::rr::{Rcode, Type};
use swiftlet_parser::template::{BuildError, Template};

use answers::{answer, ask, store};

fn packet(name: &str) -> Vec<u8> {
    let mut named = packets::responses::all().into_iter();
    named.find(|(found, _)| *found == name).unwrap_or_else(|| panic!("no packet {name}")).1
}

/// What becomes of a message on its way into the cache.
fn fate(message: &[u8]) -> Result<Result<Vec<u8>, BuildError>, ResponseError> {
    Response::parse(message).map(|response| store(&response))
}

#[test]
fn sound_responses_are_stored() {
    for (name, message) in packets::responses::sound() {
        let expected = if name == "tsig" { Err(BuildError::MetaType) } else { Ok(()) };
        assert_eq!(fate(&message).unwrap().map(drop), expected, "{name}");
    }
}

#[test]
fn broken_responses_are_refused_for_what_is_wrong_with_them() {
    use ResponseError::{Opt, Question, Record, Short, Trailing};
    let refused = [
        ("pointer-forward", Record),
        ("pointer-past-end", Record),
        ("pointer-to-itself", Record),
        ("pointer-loop", Record),
        ("label-type-01", Record),
        ("owner-too-long", Record),
        ("rdlength-overrun", Record),
        ("record-cut", Record),
        ("count-too-high", Record),
        ("counts-65535", Record),
        ("count-too-low", Trailing),
        ("trailing-byte", Trailing),
        ("two-opts", Opt),
        ("opt-in-answer", Opt),
        ("opt-not-at-root", Opt),
        ("questions-0", Question),
        ("bare-formerr-and-opt", Question),
        ("bare-refused-and-junk", Question),
        ("bare-refused-cut", Short),
        ("bare-noerror", Question),
        ("bare-query", Question),
        ("bare-notify", Question),
        ("questions-2", Question),
        ("question-compressed", Question),
        ("header-only", Question),
        ("empty", Short),
    ];
    let not_stored = [
        ("pointer-into-header", BuildError::Owner),
        ("owner-too-long-by-pointer", BuildError::Owner),
        ("pointer-loop-in-rdata", BuildError::Rdata),
        ("pointers-between-rdata", BuildError::Rdata),
        ("a-rdata-3", BuildError::Rdata),
        ("aaaa-rdata-17", BuildError::Rdata),
        ("cname-rdata-empty", BuildError::Rdata),
        ("cname-rdata-trailing", BuildError::Rdata),
        ("cname-name-past-rdata", BuildError::Rdata),
        ("soa-short", BuildError::Rdata),
        ("naptr-string-overrun", BuildError::Rdata),
        ("rrsig-short", BuildError::Rdata),
    ];
    // Flags are for whoever has the response to judge.
    let passed = ["truncated-record-cut", "query-bit", "opcode-notify"];
    for (name, message) in packets::responses::broken() {
        let fate = fate(&message);
        if let Some((_, error)) = refused.iter().find(|(refused, _)| *refused == name) {
            assert_eq!(fate, Err(*error), "{name}");
        } else if let Some((_, error)) = not_stored.iter().find(|(kept, _)| *kept == name) {
            assert_eq!(fate, Ok(Err(*error)), "{name}");
        } else {
            assert!(passed.contains(&name), "{name} is in no list");
            assert!(matches!(fate, Ok(Ok(_))), "{name}");
        }
    }
}

#[test]
fn an_error_without_a_question_tells_its_id_and_code() {
    let bare = [
        ("questions-0", Rcode::FORMERR),
        ("bare-formerr-and-opt", Rcode::FORMERR),
        ("bare-refused-and-junk", Rcode::REFUSED),
    ];
    for (name, message) in packets::responses::all() {
        let expected = bare.iter().find(|(bare, _)| *bare == name);
        assert_eq!(bare_error(&message), expected.map(|(_, rcode)| (0x1234, *rcode)), "{name}");
    }
}

#[test]
fn a_cut_response_keeps_the_records_that_are_whole() {
    let message = packet("truncated-record-cut");
    let response = Response::parse(&message).unwrap();
    assert!(response.flags().tc());
    let counts = Section::ALL.map(|section| response.section(section).count());
    assert_eq!(counts, [1, 0, 0]);
}

#[test]
fn a_record_gives_out_its_parts() {
    let first = |message: &[u8], section| {
        let response = Response::parse(message).unwrap();
        let record: Record<'_> = response.section(section).next().unwrap();
        (record.ttl, record.soa_minimum(), record.covered_type())
    };
    assert_eq!(first(&packet("nxdomain-soa"), Section::Authority), (900, Some(300), None));
    assert_eq!(first(&packet("soa-short"), Section::Answer), (1, None, None));
    assert_eq!(first(&packet("rrsig-short"), Section::Answer).2, Some(Type::A));
    assert_eq!(first(&packet("ttl-high-bit"), Section::Answer).0, 0);
    assert_eq!(first(&packet("ttl-largest"), Section::Answer).0, i32::MAX as u32);

    let badvers = packet("opt-badvers");
    let response = Response::parse(&badvers).unwrap();
    assert_eq!(response.rcode().0, 16);
    assert!(response.has_edns());
    assert_eq!(response.records().count(), 0, "OPT is no record");
}

#[test]
fn a_template_holds_no_pointer_when_nothing_repeats_and_one_for_the_question() {
    let stored = store(&Response::parse(&packet("a")).unwrap()).unwrap();
    let template = Template::from_bytes(&stored).unwrap();
    assert_eq!(template.tail(), b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\xc0\0\x02\x01");
    assert_eq!(stored.len(), 16 + 2 + 16);
    assert_eq!((template.answer_count(), template.authority_count()), (1, 0));
}

#[test]
fn an_answer_of_more_than_64k_is_refused_and_leaves_nothing() {
    // Each compressed signer is two bytes on the wire and 255 in full.
    let long = [&[63; 64].repeat(3)[..], &[61; 62], &[0]].concat();
    let fixed = [[0; 18].as_slice(), &[0xc0, 12]].concat();
    let mut message = vec![0, 1, 0x81, 0x80, 0, 1, 2, 0, 0, 0, 0, 0];
    message.extend([&long[..], &[0, 46, 0, 1]].concat());
    for _ in 0..512 {
        message.extend([&[0xc0, 12, 0, 46, 0, 1, 0, 0, 0, 9, 0, 20][..], &fixed].concat());
    }
    assert_eq!(fate(&message), Ok(Err(BuildError::TooLong)));
}

/// Work on names has a bound: the labels of this message are a hundred times what it takes 200 µs to
/// match.
#[test]
fn thousands_of_deep_names_are_refused_soon() {
    let mut message = vec![0, 1, 0x81, 0x80, 0, 1, 0x13, 0x88, 0, 0, 0, 0];
    message.extend([&[1, b'x'].repeat(127)[..], &[0, 0xff, 0, 0, 1]].concat());
    for index in 0..5000u16 {
        let owner = if index % 2 == 0 { 12 } else { 14 };
        message.extend([0xc0, owner, 0xff, 0, 0, 1, 0, 0, 0, 9, 0, 0]);
    }
    assert_eq!(fate(&message), Ok(Err(BuildError::TooLong)));
}

#[test]
fn flags_are_the_querys_and_ad_is_for_those_who_ask_for_it() {
    const QR_RA: u16 = 0x8080;
    let secure = packet("rrsig");
    let insecure = packet("a");
    let rendered_flags = |message: &[u8], flags: u16, dnssec_ok: bool| {
        let stored = store(&Response::parse(message).unwrap()).unwrap();
        let (question, _) = ask(message, flags);
        let mut query = question.clone();
        query[11] = 1;
        query.extend([0, 0, 41, 4, 208, 0, 0, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
        let query = swiftlet_parser::query::parse(&query).unwrap();
        let (reply, _) = answer(&stored, &(question, query), 0, 512, 512);
        u16::from_be_bytes([reply[2], reply[3]])
    };
    let (rd, ad, cd) = (0x0100, 0x0020, 0x0010);
    assert_eq!(rendered_flags(&secure, rd, false), QR_RA | rd);
    assert_eq!(rendered_flags(&secure, rd | ad, false), QR_RA | rd | ad);
    assert_eq!(rendered_flags(&secure, rd, true), QR_RA | rd | ad);
    assert_eq!(rendered_flags(&secure, cd, true), QR_RA | cd | ad);
    assert_eq!(rendered_flags(&insecure, rd | ad | cd, true), QR_RA | rd | cd);
    // What a query has no business to set: AA, TC, RA, Z and a response code.
    assert_eq!(rendered_flags(&insecure, 0x06cf, false), QR_RA);
}
