//! Templates against a naive model: a reply is header, question and every record in full, each TTL less
//! the age; cut, it is the longest start that fits. The model knows nothing of compression.

mod answers;

use proptest::prelude::*;
use swiftlet_parser::response::Response;
use swiftlet_parser::rr::HEADER_LEN;
use swiftlet_parser::template::{Template, render, render_stale};

use answers::{answer, ask, store};

/// A record before it is encoded: names as uncompressed wire.
#[derive(Clone, Debug)]
struct Model {
    owner: Vec<u8>,
    rtype: u16,
    ttl: u32,
    rdata: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Bytes(Vec<u8>),
    Name(Vec<u8>),
    /// A name that must not be compressed.
    PlainName(Vec<u8>),
}

impl Model {
    fn rdata_in_full(&self) -> Vec<u8> {
        let parts = self.rdata.iter().map(|part| match part {
            Part::Bytes(bytes) | Part::Name(bytes) | Part::PlainName(bytes) => bytes.clone(),
        });
        parts.collect::<Vec<_>>().concat()
    }

    fn encode(&self) -> Vec<u8> {
        let rdata = self.rdata_in_full();
        let mut wire = self.owner.clone();
        wire.extend(self.rtype.to_be_bytes());
        wire.extend([0, 1]);
        wire.extend(self.ttl.to_be_bytes());
        wire.extend((rdata.len() as u16).to_be_bytes());
        wire.extend(rdata);
        wire
    }
}

fn encode(qname: &[u8], sections: &[Vec<Model>; 3]) -> Vec<u8> {
    let mut wire = vec![0xab, 0xcd, 0x81, 0xa3, 0, 1];
    for section in sections {
        wire.extend((section.len() as u16).to_be_bytes());
    }
    wire.extend(qname);
    wire.extend([0, 1, 0, 1]);
    wire.extend(sections.iter().flatten().flat_map(Model::encode));
    wire
}

//----------- Generators -----------------------------------------------------

/// Few different labels, so that names share suffixes.
fn label() -> impl Strategy<Value = Vec<u8>> {
    let common =
        prop::sample::select(vec!["a", "A", "b", "www", "WwW", "example", "EXAMPLE", "com", "net"]);
    prop_oneof![
        8 => common.prop_map(|text: &str| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..=63),
    ]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let depth = prop_oneof![20 => 0..6usize, 1 => 100..127usize];
    depth.prop_flat_map(|depth| prop::collection::vec(label(), depth)).prop_map(|labels| {
        let mut wire = Vec::new();
        for label in labels {
            if wire.len() + label.len() + 2 > 255 {
                break;
            }
            wire.push(label.len() as u8);
            wire.extend(label);
        }
        wire.push(0);
        wire
    })
}

fn rdata() -> impl Strategy<Value = (u16, Vec<Part>)> {
    use Part::{Bytes, Name, PlainName};
    let bytes = |len: usize| prop::collection::vec(any::<u8>(), len);
    prop_oneof![
        bytes(4).prop_map(|address| (1, vec![Bytes(address)])),
        bytes(16).prop_map(|address| (28, vec![Bytes(address)])),
        name().prop_map(|target| (2, vec![Name(target)])),
        name().prop_map(|target| (5, vec![Name(target)])),
        (name(), name(), bytes(20)).prop_map(|(mname, rname, numbers)| (
            6,
            vec![Name(mname), Name(rname), Bytes(numbers)]
        )),
        (bytes(2), name())
            .prop_map(|(preference, target)| (15, vec![Bytes(preference), Name(target)])),
        (bytes(6), name()).prop_map(|(fixed, target)| (33, vec![Bytes(fixed), PlainName(target)])),
        (bytes(18), name(), bytes(64)).prop_map(|(fixed, signer, signature)| (
            46,
            vec![Bytes(fixed), PlainName(signer), Bytes(signature)]
        )),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|opaque| (65280, vec![Bytes(opaque)])),
    ]
}

fn ttl() -> impl Strategy<Value = u32> {
    prop_oneof![0..1000u32, Just(0), Just(i32::MAX as u32)]
}

fn section(qname: Vec<u8>, records: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Model>> {
    let owner = prop_oneof![Just(qname), name()];
    let record = (owner, ttl(), rdata()).prop_map(|(owner, ttl, (rtype, rdata))| Model {
        owner,
        rtype,
        ttl,
        rdata,
    });
    prop::collection::vec(record, records)
}

fn message() -> impl Strategy<Value = (Vec<u8>, [Vec<Model>; 3])> {
    name().prop_flat_map(|qname| {
        let sections = [0..20, 0..6, 0..6].map(|records| section(qname.clone(), records));
        (Just(qname), sections)
    })
}

//----------- The walk of the test -------------------------------------------

/// Reads a name naively and notes every pointer that isn't strictly backward.
fn expand(reply: &[u8], at: usize) -> (Vec<u8>, usize) {
    let (mut wire, mut at, mut end) = (Vec::new(), at, None);
    loop {
        match reply[at] {
            0 => {
                wire.push(0);
                return (wire, end.unwrap_or(at + 1));
            }
            high @ 0xc0.. => {
                let target = usize::from(high & 0x3f) << 8 | usize::from(reply[at + 1]);
                assert!(target < at, "a pointer at {at} to {target}");
                end.get_or_insert(at + 2);
                at = target;
            }
            len => {
                wire.extend(&reply[at..=at + usize::from(len)]);
                at += 1 + usize::from(len);
            }
        }
    }
}

/// Compares one record of a reply with its model; returns where it ends.
fn check_record(reply: &[u8], at: usize, model: &Model, age_s: u32) -> usize {
    let (owner, fixed_at) = expand(reply, at);
    assert!(owner.eq_ignore_ascii_case(&model.owner));
    let fixed = &reply[fixed_at..fixed_at + 10];
    assert_eq!(fixed[..4], [model.rtype.to_be_bytes(), [0, 1]].concat());
    assert_eq!(fixed[4..8], model.ttl.saturating_sub(age_s).to_be_bytes());
    let end = fixed_at + 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    let mut at = fixed_at + 10;
    for part in &model.rdata {
        at = match part {
            Part::Bytes(bytes) => {
                assert_eq!(&reply[at..at + bytes.len()], bytes);
                at + bytes.len()
            }
            Part::PlainName(name) => {
                assert_eq!(&reply[at..at + name.len()], name, "never compressed, case kept");
                at + name.len()
            }
            Part::Name(name) => {
                let (read, next) = expand(reply, at);
                assert!(read.eq_ignore_ascii_case(name));
                next
            }
        };
    }
    assert_eq!(at, end);
    end
}

//----------- Properties -----------------------------------------------------

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_rendered_answer_is_what_the_model_says(
        (qname, sections) in message(), age_s in prop_oneof![0..1200u32, any::<u32>()],
    ) {
        let bytes = encode(&qname, &sections);
        let stored = store(&Response::parse(&bytes).unwrap()).unwrap();
        let template = Template::from_bytes(&stored).unwrap();
        let models = || sections.iter().flatten();
        prop_assert_eq!(template.min_ttl(), models().map(|model| model.ttl).min().unwrap_or(u32::MAX));
        prop_assert_eq!(template.rcode().0, 3);
        prop_assert!(template.secure());

        let (reply, rendered) = answer(&stored, &ask(&bytes, 0x0120), age_s, 65535, 65535);
        prop_assert!(!rendered.truncated);
        prop_assert!(reply.len() <= bytes.len(), "never longer than in full");
        prop_assert_eq!(&reply[..4], [0xab, 0xcd, 0x81, 0xa3]);
        prop_assert_eq!(&reply[4..HEADER_LEN], &bytes[4..HEADER_LEN]);
        let mut at = HEADER_LEN + qname.len() + 4;
        for model in models() {
            at = check_record(&reply, at, model, age_s);
        }
        prop_assert_eq!(at, reply.len());
    }

    #[test]
    fn a_cut_answer_is_the_longest_start_that_fits(
        (qname, sections) in message(), limit in 0..1500usize, buf_len in 0..1500usize,
    ) {
        let bytes = encode(&qname, &sections);
        let stored = store(&Response::parse(&bytes).unwrap()).unwrap();
        let client = ask(&bytes, 0);
        let question_end = client.0.len();
        let (whole, _) = answer(&stored, &client, 0, 65535, 65535);
        let (reply, rendered) = answer(&stored, &client, 0, limit, buf_len);

        let room = limit.min(buf_len).max(question_end);
        let wanted = sections[0].len() + sections[1].len();
        let mut expected_len = question_end;
        let mut kept = 0;
        let mut at = question_end;
        for model in sections[..2].iter().flatten() {
            at = check_record(&whole, at, model, 0);
            if at <= room {
                (expected_len, kept) = (at, kept + 1);
            }
        }
        if whole.len() <= room {
            expected_len = whole.len();
        }
        if buf_len < question_end {
            expected_len = if buf_len < HEADER_LEN { 0 } else { HEADER_LEN };
            prop_assert!(rendered.truncated);
        } else {
            prop_assert_eq!(rendered.truncated, kept < wanted);
            prop_assert_eq!(&reply[HEADER_LEN..], &whole[HEADER_LEN..expected_len]);
        }
        prop_assert_eq!(reply.len(), expected_len);
    }

    #[test]
    fn a_stale_answer_differs_in_its_ttls_alone(
        (qname, sections) in message(), limit in 0..1500usize, ttl_s in 0..=i32::MAX as u32,
    ) {
        let mut fixed = sections.clone();
        fixed.iter_mut().flatten().for_each(|model| model.ttl = ttl_s);
        let (bytes, fixed) = (encode(&qname, &sections), encode(&qname, &fixed));
        let stored = store(&Response::parse(&bytes).unwrap()).unwrap();
        let expected = store(&Response::parse(&fixed).unwrap()).unwrap();
        let client = ask(&bytes, 0);
        let (reply, rendered) = answer(&expected, &client, 0, limit, 65535);

        let mut buf = vec![0xaa; 65535];
        buf[..client.0.len()].copy_from_slice(&client.0);
        let template = Template::from_bytes(&stored).unwrap();
        let stale = render_stale(template, &mut buf, &client.1, ttl_s, limit);
        prop_assert_eq!(stale, rendered);
        prop_assert_eq!(&buf[..stale.len], reply);
        prop_assert!(buf[stale.len..].iter().all(|byte| *byte == 0xaa));
    }

    #[test]
    fn any_bytes_render_within_the_bounds(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400), records in 0..8u8,
        limit in 0..600usize, buf_len in 0..600usize, age_s in any::<u32>(),
    ) {
        if let Some(count) = bytes.get_mut(10..12) {
            count.copy_from_slice(&[records, 0]);
        }
        if let Some(template) = Template::from_bytes(&bytes) {
            let packet = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x04name\0\0\x01\0\x01";
            let query = swiftlet_parser::query::parse(packet).unwrap();
            let mut buf = vec![0; buf_len];
            let rendered = render(template, &mut buf, &query, age_s, limit);
            prop_assert!(rendered.len <= buf_len && rendered.len <= limit.max(packet.len()));
        }
    }

    #[test]
    fn no_response_makes_build_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let message = [b"\0\x01\x81\x80\0\x01\0\x02\0\x01\0\x01\x01a\0\0\x01\0\x01".as_slice(), &bytes].concat();
        if let Ok(response) = Response::parse(&message) {
            let _ = store(&response);
        }
    }
}

//----------- Examples -------------------------------------------------------

/// Past offset 16383 nothing can be pointed to, and far fewer suffixes than these are remembered.
#[test]
fn names_out_of_reach_are_written_in_full() {
    let wire = |text: String| {
        let labels = text.split('.').map(|label| [&[label.len() as u8], label.as_bytes()].concat());
        [labels.collect::<Vec<_>>().concat(), vec![0]].concat()
    };
    let qname = wire("www.example.com".to_owned());
    let records = (0..1200)
        .map(|index| Model {
            owner: wire(format!("owner-{index}.zone-{}.net", index % 17)),
            rtype: 2,
            ttl: index,
            rdata: vec![Part::Name(wire(format!("ns-{index}.{}.org", index % 400)))],
        })
        .collect();
    let sections = [records, Vec::new(), Vec::new()];
    let bytes = encode(&qname, &sections);
    assert!(bytes.len() > 0x4000 * 3 && bytes.len() < 65535);
    let stored = store(&Response::parse(&bytes).unwrap()).unwrap();
    let (reply, _) = answer(&stored, &ask(&bytes, 0), 1, 65535, 65535);
    let mut at = HEADER_LEN + qname.len() + 4;
    for model in &sections[0] {
        at = check_record(&reply, at, model, 1);
    }
    assert_eq!(at, reply.len());
}

/// Of the same, but with few enough suffixes to remember them all.
#[test]
fn a_name_behind_16_kib_is_not_pointed_to() {
    let filler = |ttl| Model {
        owner: b"\x01a\0".to_vec(),
        rtype: 65280,
        ttl,
        rdata: vec![Part::Bytes(vec![7; 5000])],
    };
    let late = |ttl| Model {
        owner: b"\x04late\x03net\0".to_vec(),
        rtype: 2,
        ttl,
        rdata: vec![Part::Name(b"\x02ns\x04late\x03net\0".to_vec())],
    };
    let records = [vec![late(1)], (0..4).map(filler).collect(), vec![late(1), late(2)]].concat();
    let mut only_late = records.clone();
    only_late.remove(0);
    for records in [records, only_late] {
        let sections = [records, Vec::new(), Vec::new()];
        let bytes = encode(b"\x01a\0", &sections);
        let stored = store(&Response::parse(&bytes).unwrap()).unwrap();
        let (reply, _) = answer(&stored, &ask(&bytes, 0), 0, 65535, 65535);
        let mut at = HEADER_LEN + 3 + 4;
        for model in &sections[0] {
            at = check_record(&reply, at, model, 0);
        }
        assert_eq!(at, reply.len());
    }
}
