//! Responses of upstreams, and what is stored of them.

use swiftlet_parser::response::{Record, Response, Section};
use swiftlet_parser::rr::{Class, Rcode, Type};
use swiftlet_parser::template::{self, Source};

/// TTL of all records in s.
pub(crate) const TTL_S: u32 = 3600;

/// A pointer to the name of the question.
const QNAME: [u8; 2] = [0xc0, 12];

/// Makes the response to the question for a name.
pub(crate) type Respond = fn(&[u8]) -> Vec<u8>;

/// One A record.
pub(crate) fn address(qname: &[u8]) -> Vec<u8> {
    response(qname, Type::A, &[(&QNAME, Type::A, &[192, 0, 2, 1])])
}

/// Four CNAMEs and the A record that they lead to, as content networks answer.
pub(crate) fn chain(qname: &[u8]) -> Vec<u8> {
    let targets: [&[u8]; 4] = [
        b"\x03www\x05bench\x07example\x04edge\x03cdn\x04test\0",
        b"\x04e123\x04edge\x03cdn\x04test\0",
        b"\x03geo\x04e123\x04node\x03net\x04test\0",
        b"\x05node7\x04node\x03net\x04test\0",
    ];
    let mut owner = &QNAME[..];
    let mut records: Vec<(&[u8], Type, &[u8])> = Vec::new();
    for target in targets {
        records.push((owner, Type::CNAME, target));
        owner = target;
    }
    records.push((owner, Type::A, &[192, 0, 2, 1]));
    response(qname, Type::A, &records)
}

/// Thirteen NS records, as the root has them.
pub(crate) fn thirteen(qname: &[u8]) -> Vec<u8> {
    let hosts = (b'a'..=b'm').map(|letter| [&[1, letter], &b"\x07servers\x04test\0"[..]].concat());
    let hosts: Vec<Vec<u8>> = hosts.collect();
    let records: Vec<_> = hosts.iter().map(|host| (&QNAME[..], Type::NS, &host[..])).collect();
    response(qname, Type::NS, &records)
}

/// Passes a response as it is stored to `f`: everything of it, its name folded already.
pub(crate) fn with_source<R>(response: &[u8], f: impl FnOnce(&Source<'_, '_>) -> R) -> R {
    let response = Response::parse(response).expect("a valid response");
    let answer: Vec<Record<'_>> = response.section(Section::Answer).collect();
    f(&Source {
        qname: response.qname(),
        rcode: Rcode::NOERROR,
        secure: false,
        answer: &answer,
        authority: &[],
        additional: &[],
    })
}

/// What is stored of a response.
pub(crate) fn template(response: &[u8]) -> Vec<u8> {
    let mut stored = Vec::new();
    with_source(response, |source| template::build(source, &mut stored)).expect("it can be stored");
    stored
}

fn response(qname: &[u8], qtype: Type, answer: &[(&[u8], Type, &[u8])]) -> Vec<u8> {
    let words = [0x1234, 0x8180, 1, answer.len() as u16, 0, 0];
    let mut message: Vec<u8> = words.into_iter().flat_map(u16::to_be_bytes).collect();
    message.extend(qname);
    message.extend(qtype.0.to_be_bytes());
    message.extend(Class::IN.0.to_be_bytes());
    for (owner, rtype, rdata) in answer {
        message.extend(*owner);
        message.extend(rtype.0.to_be_bytes());
        message.extend(Class::IN.0.to_be_bytes());
        message.extend(TTL_S.to_be_bytes());
        message.extend((rdata.len() as u16).to_be_bytes());
        message.extend(*rdata);
    }
    message
}
