//! From a response to what a client gets: the way of an answer through the cache, without the cache.

use swiftlet_parser::query::{self, Query};
use swiftlet_parser::response::{Record, Response, Section};
use swiftlet_parser::rr::HEADER_LEN;
use swiftlet_parser::template::{BuildError, Rendered, Source, Template, build, render};

/// The template of everything that a response holds.
pub(crate) fn store(response: &Response<'_>) -> Result<Vec<u8>, BuildError> {
    store_without(response, usize::MAX)
}

/// The template of a response without one of its records, counted over all sections.
pub(crate) fn store_without(
    response: &Response<'_>,
    left_out: usize,
) -> Result<Vec<u8>, BuildError> {
    let kept = response.records().enumerate().filter(|(index, _)| *index != left_out);
    let kept: Vec<(Section, Record<'_>)> = kept.map(|(_, record)| record).collect();
    let [answer, authority, additional] = Section::ALL.map(|section| {
        let records = kept.iter().filter(|(of, _)| *of == section);
        records.map(|(_, record)| *record).collect::<Vec<_>>()
    });
    let source = Source {
        qname: &response.qname().to_ascii_lowercase(),
        rcode: response.rcode(),
        secure: response.flags().ad(),
        answer: &answer,
        authority: &authority,
        additional: &additional,
    };
    let mut out = Vec::new();
    build(&source, &mut out).map(|()| out)
}

/// The query for the question of a message, from a client that set these flags.
pub(crate) fn ask(message: &[u8], flags: u16) -> (Vec<u8>, Query) {
    let qname_len = Response::parse(message).expect("a response").qname().len();
    let mut packet = message[..HEADER_LEN + qname_len + 4].to_vec();
    packet[2..4].copy_from_slice(&flags.to_be_bytes());
    packet[4..HEADER_LEN].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    let query = query::parse(&packet).expect("a question makes a query");
    (packet, query)
}

/// Renders a template behind a question, into a buffer of so many bytes.
pub(crate) fn answer(
    stored: &[u8],
    (packet, query): &(Vec<u8>, Query),
    age_s: u32,
    limit: usize,
    buf_len: usize,
) -> (Vec<u8>, Rendered) {
    let template = Template::from_bytes(stored).expect("what was built is a template");
    let mut buf = vec![0xaa; buf_len];
    let shown = packet.len().min(buf_len);
    buf[..shown].copy_from_slice(&packet[..shown]);
    let rendered = render(template, &mut buf, query, age_s, limit);
    buf.truncate(rendered.len);
    (buf, rendered)
}
