//! The packets of the fuzz corpus, by name: what each file under `fuzz/corpus/<target>/` holds.
//!
//! They are written here piece by piece, without this crate's or any other encoder, since most of
//! them are wrong on purpose.

pub(crate) mod queries;
pub(crate) mod responses;

/// A packet and the name of its file.
pub(crate) type Named = (&'static str, Vec<u8>);

const A: u16 = 1;
const NS: u16 = 2;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const MX: u16 = 15;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const NAPTR: u16 = 35;
const DNAME: u16 = 39;
const OPT: u16 = 41;
const RRSIG: u16 = 46;
const NSEC: u16 = 47;
const SVCB: u16 = 64;
const HTTPS: u16 = 65;
const TSIG: u16 = 250;
const CAA: u16 = 257;

const IN: u16 = 1;
const CH: u16 = 3;

const RD: u16 = 0x0100;

/// A pointer to the question's name.
const QNAME: &[u8] = &[0xc0, 12];

/// The numbers of a SOA record: serial, refresh, retry, expire and a minimum of 300.
const SOA_NUMBERS: [u8; 20] = [0, 0, 0, 9, 0, 0, 28, 32, 0, 0, 14, 16, 0, 18, 117, 0, 0, 0, 1, 44];

fn header(flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let words = [0x1234, flags, counts[0], counts[1], counts[2], counts[3]];
    words.iter().flat_map(|word: &u16| word.to_be_bytes()).collect()
}

/// A name in wire format from its labels with dots between them.
fn name(text: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        wire.push(label.len() as u8);
        wire.extend(label.bytes());
    }
    wire.push(0);
    wire
}

/// A name of so many bytes, in labels of at most 63.
fn long_name(len: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    while wire.len() + 1 < len {
        let label = (len - wire.len() - 2).min(63);
        wire.push(label as u8);
        wire.extend(std::iter::repeat_n(b'n', label));
    }
    wire.push(0);
    wire
}

fn question(qname: &[u8], qtype: u16, qclass: u16) -> Vec<u8> {
    [qname, &qtype.to_be_bytes(), &qclass.to_be_bytes()].concat()
}

fn record(owner: &[u8], rtype: u16, class: u16, ttl: u32, rdata: &[u8]) -> Vec<u8> {
    let mut wire = question(owner, rtype, class);
    wire.extend(ttl.to_be_bytes());
    wire.extend((rdata.len() as u16).to_be_bytes());
    wire.extend(rdata);
    wire
}

fn opt(udp_size: u16, ttl: u32, options: &[u8]) -> Vec<u8> {
    record(&[0], OPT, udp_size, ttl, options)
}

fn option(code: u16, data: &[u8]) -> Vec<u8> {
    let len = data.len() as u16;
    [&code.to_be_bytes(), &len.to_be_bytes(), data].concat()
}

//----------- Templates ------------------------------------------------------

/// The control bytes of the target: which way, age, limit and length of the buffer, and what of the
/// records is left out.
fn control(mode: u8, age_s: u16, limit: u16, buf_len: u16, left_out: u8) -> Vec<u8> {
    let words = [age_s, limit, buf_len];
    let mut bytes = vec![mode];
    bytes.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    bytes.push(left_out);
    bytes
}

/// Bytes for the render of arbitrary templates: head, TTL offsets, tail.
fn arbitrary(counts: [u16; 3], ttl_at: &[u16], tail: &[u8]) -> Vec<u8> {
    let mut bytes = control(1, 10, 512, 512, 0);
    bytes.extend([0, 1]);
    bytes.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    bytes.extend([0, 0x80]);
    bytes.extend((ttl_at.len() as u16).to_le_bytes());
    bytes.extend(60u32.to_le_bytes());
    bytes.extend(ttl_at.iter().flat_map(|at| at.to_le_bytes()));
    bytes.extend(tail);
    bytes
}

/// Corpus of the target `template_round_trip`: all responses, cut at a place that differs from one to
/// the next, and templates that `build` would not make.
pub(crate) fn templates() -> Vec<Named> {
    let limits = [65535, 512, 100, 60, 40, 12, 0];
    let buffers = [4096, 512, 90, 34, 33, 32, 12, 11, 0];
    let mut named: Vec<Named> = responses::all()
        .into_iter()
        .enumerate()
        .map(|(index, (name, message))| {
            let (limit, buf_len) = (limits[index % limits.len()], buffers[index % buffers.len()]);
            let left_out = [0, 0b1, 0b10, 0b1111_0101][index % 4];
            let control = control(0, index as u16 * 7, limit, buf_len, left_out);
            (name, [control, message].concat())
        })
        .collect();
    let a = record(QNAME, A, IN, 60, &[1; 4]);
    named.extend([
        ("arbitrary-one-record", arbitrary([1, 0, 0], &[6], &a)),
        ("arbitrary-head-cut", arbitrary([0, 0, 0], &[], &[])[..20].to_vec()),
        ("arbitrary-offsets-cut", arbitrary([9, 0, 0], &[6, 22, 38], &[])[..26].to_vec()),
        ("arbitrary-offset-past-end", arbitrary([1, 0, 0], &[65535], &a)),
        ("arbitrary-offset-at-edge", arbitrary([1, 0, 0], &[13], &a)),
        ("arbitrary-offsets-descending", arbitrary([2, 0, 0], &[22, 6], &a.repeat(40))),
        ("arbitrary-offsets-equal", arbitrary([3, 3, 3], &[6; 9], &a.repeat(40))),
        ("arbitrary-counts-too-high", arbitrary([65535; 3], &[6], &a.repeat(40))),
        (
            "arbitrary-rdlength-past-end",
            arbitrary([1, 1, 1], &[6, 22, 38], &[a.repeat(30), vec![0xff; 20]].concat()),
        ),
        ("arbitrary-tail-64k", arbitrary([1, 0, 0], &[6], &vec![0; 65536])),
        ("arbitrary-empty", control(1, 0, 0, 0, 0)),
        ("control-cut", vec![1, 2, 3]),
    ]);
    named
}

/// A target's name and its corpus.
pub(crate) fn corpora() -> [(&'static str, Vec<Named>); 3] {
    [
        ("query", queries::all()),
        ("response", responses::all()),
        ("template_round_trip", templates()),
    ]
}
