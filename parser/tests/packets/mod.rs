//! The packets of the fuzz corpus, by name: what each file under `fuzz/corpus/<target>/` holds.
//!
//! They are written here piece by piece, without this crate's or any other encoder, since most of
//! them are wrong on purpose.

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

//----------- Queries --------------------------------------------------------

const RD: u16 = 0x0100;

fn plain(qname: &[u8], qtype: u16) -> Vec<u8> {
    [header(RD, [1, 0, 0, 0]), question(qname, qtype, IN)].concat()
}

fn with_additional(records: &[Vec<u8>]) -> Vec<u8> {
    let header = header(RD | 0x20, [1, 0, 0, records.len() as u16]);
    let question = question(&name("www.example.com"), A, IN);
    [header, question, records.concat()].concat()
}

/// Corpus of the target `query`.
pub(crate) fn queries() -> Vec<Named> {
    let example = name("www.example.com");
    let asked = question(&example, A, IN);
    let server_cookie = [7; 24];
    let soa = record(QNAME, SOA, IN, 0, &[&[0, 0][..], &SOA_NUMBERS].concat());
    let tsig = record(&name("key"), TSIG, 255, 0, &[3, b'k', b'e', b'y', 0, 1, 2, 3, 4]);
    vec![
        ("plain-a", plain(&example, A)),
        ("plain-aaaa-mixed-case", plain(&name("wWw.eXaMpLe.cOm"), AAAA)),
        ("root-ns", plain(&[0], NS)),
        ("one-label", plain(&name("localhost"), A)),
        ("arpa-ptr", plain(&name("1.0.0.127.in-addr.arpa"), 12)),
        ("any", plain(&example, 255)),
        (
            "chaos-version",
            [header(RD, [1, 0, 0, 0]), question(&name("version.bind"), TXT, CH)].concat(),
        ),
        ("name-255", plain(&long_name(255), A)),
        ("name-256", plain(&long_name(256), A)),
        ("label-63", plain(&name(&"l".repeat(63)), A)),
        ("label-64", plain(&[&[64][..], &[b'l'; 64], &[0]].concat(), A)),
        ("labels-127", plain(&[[1, b'a'].repeat(127), vec![0]].concat(), A)),
        ("binary-label", plain(b"\x06.\\\0\xffA@\x00", A)),
        ("flags-all-of-a-query", [header(0x0130, [1, 0, 0, 0]), asked.clone()].concat()),
        ("flags-none", [header(0, [1, 0, 0, 0]), asked.clone()].concat()),
        ("flags-reserved", [header(0x0140, [1, 0, 0, 0]), asked.clone()].concat()),
        ("edns-plain", with_additional(&[opt(1232, 0, &[])])),
        ("edns-size-0", with_additional(&[opt(0, 0, &[])])),
        ("edns-size-65535", with_additional(&[opt(65535, 0x8000, &[])])),
        ("edns-do-cookie", with_additional(&[opt(1232, 0x8000, &option(10, &[1; 8]))])),
        (
            "edns-cookie-server",
            with_additional(&[opt(
                1232,
                0,
                &option(10, &[[1; 8].to_vec(), server_cookie.to_vec()].concat()),
            )]),
        ),
        ("edns-cookie-length-9", with_additional(&[opt(1232, 0, &option(10, &[1; 9]))])),
        ("edns-cookie-length-41", with_additional(&[opt(1232, 0, &option(10, &[1; 41]))])),
        (
            "edns-two-cookies",
            with_additional(&[opt(1232, 0, &[option(10, &[1; 8]), option(10, &[2; 8])].concat())]),
        ),
        (
            "edns-nsid-keepalive-padding",
            with_additional(&[opt(
                4096,
                0,
                &[option(3, &[]), option(11, &[]), option(12, &[0; 31])].concat(),
            )]),
        ),
        (
            "edns-client-subnet",
            with_additional(&[opt(1232, 0, &option(8, &[0, 1, 24, 0, 192, 0, 2]))]),
        ),
        ("edns-unknown-option", with_additional(&[opt(1232, 0, &option(65001, b"experiment"))])),
        ("edns-option-overrun", with_additional(&[opt(1232, 0, &[0, 3, 0, 9, 1])])),
        ("edns-option-cut", with_additional(&[opt(1232, 0, &[0, 3, 0])])),
        (
            "edns-option-cut-after-nsid",
            with_additional(&[opt(1232, 0x8000, &[&option(3, &[])[..], &[0]].concat())]),
        ),
        (
            "edns-option-overrun-before-tsig",
            with_additional(&[opt(1232, 0, &[0, 3, 0, 9, 1]), tsig.clone()]),
        ),
        (
            "edns-option-overrun-trailing-byte",
            [with_additional(&[opt(1232, 0, &[0, 3, 0, 9, 1])]), vec![0]].concat(),
        ),
        ("edns-version-1", with_additional(&[opt(1232, 0x0001_8000, &[])])),
        ("edns-version-1-bad-options", with_additional(&[opt(1232, 0x0001_0000, &[0, 3, 0, 9])])),
        ("edns-rcode-in-query", with_additional(&[opt(1232, 0x0100_0000, &[])])),
        ("two-opts", with_additional(&[opt(1232, 0, &[]), opt(512, 0, &[])])),
        (
            "two-opts-bad-options",
            with_additional(&[opt(1232, 0, &[0, 3, 0]), opt(1232, 0, &[0, 3, 0])]),
        ),
        ("opt-not-at-root", with_additional(&[record(&name("a"), OPT, 1232, 0, &[])])),
        ("opt-owner-pointer", with_additional(&[record(QNAME, OPT, 1232, 0, &[])])),
        ("opt-then-tsig", with_additional(&[opt(1232, 0, &[]), tsig.clone()])),
        ("additional-17", with_additional(&vec![record(&[0], A, IN, 0, &[1, 2, 3, 4]); 17])),
        ("additional-missing", [header(RD, [1, 0, 0, 1]), asked.clone()].concat()),
        ("ixfr-soa", [header(0, [1, 0, 1, 0]), question(&example, 251, IN), soa.clone()].concat()),
        ("authority-without-ixfr", [header(0, [1, 0, 1, 0]), asked.clone(), soa].concat()),
        ("response-bit", [header(0x8000, [1, 0, 0, 0]), asked.clone()].concat()),
        ("opcode-notify", [header(0x2000, [1, 0, 0, 0]), asked.clone()].concat()),
        ("opcode-update-no-body", header(0x2800, [1, 1, 1, 1])),
        ("questions-0", header(RD, [0, 0, 0, 0])),
        ("questions-2", [header(RD, [2, 0, 0, 0]), asked.clone(), asked.clone()].concat()),
        (
            "answers-1",
            [header(RD, [1, 1, 0, 0]), asked.clone(), record(QNAME, A, IN, 1, &[1; 4])].concat(),
        ),
        ("pointer-in-question", plain(&[1, b'a', 0xc0, 12], A)),
        ("pointer-to-header", plain(&[0xc0, 0], A)),
        ("trailing-byte", [plain(&example, A), vec![0]].concat()),
        ("cut-in-name", plain(&example, A)[..20].to_vec()),
        ("cut-in-type", plain(&example, A)[..30].to_vec()),
        ("header-only", header(RD, [1, 0, 0, 0])),
        ("header-short", header(RD, [1, 0, 0, 0])[..11].to_vec()),
        ("empty", Vec::new()),
    ]
}

//----------- Responses ------------------------------------------------------

const OK: u16 = 0x8180;

/// A response to the question for `qtype` at www.example.com.
fn reply(flags: u16, qtype: u16, sections: [&[Vec<u8>]; 3]) -> Vec<u8> {
    let [answer, authority, additional] = sections.map(|section| section.len() as u16);
    let mut wire = header(flags, [1, answer, authority, additional]);
    wire.extend(question(&name("www.example.com"), qtype, IN));
    wire.extend(sections.concat().concat());
    wire
}

fn answers(qtype: u16, records: &[Vec<u8>]) -> Vec<u8> {
    reply(OK, qtype, [records, &[], &[]])
}

/// Offset of the first record behind the question for www.example.com.
const RECORDS_AT: u8 = 12 + 17 + 4;

/// A pointer to example.com within the question.
const EXAMPLE: &[u8] = &[0xc0, 16];

fn soa(owner: &[u8], ttl: u32) -> Vec<u8> {
    let rdata = [b"\x02ns".as_slice(), EXAMPLE, b"\x05admin", EXAMPLE, &SOA_NUMBERS].concat();
    record(owner, SOA, IN, ttl, &rdata)
}

fn rrsig(owner: &[u8], covered: u16, signer: &[u8]) -> Vec<u8> {
    let fixed = [&covered.to_be_bytes()[..], &[13, 3], &[0, 0, 1, 44], &[1; 8], &[2; 2]].concat();
    record(owner, RRSIG, IN, 300, &[&fixed, signer, &[0x5a; 64]].concat())
}

/// Corpus of the target `response`: those a server may well send.
pub(crate) fn sound_responses() -> Vec<Named> {
    let a = |ttl| record(QNAME, A, IN, ttl, &[192, 0, 2, 1]);
    let many = |count: u8| {
        (0..count).map(|last| record(QNAME, A, IN, 60, &[192, 0, 2, last])).collect::<Vec<_>>()
    };
    let chain = [
        record(QNAME, CNAME, IN, 300, &[b"\x01a".as_slice(), EXAMPLE].concat()),
        record(&[0xc0, RECORDS_AT + 12], CNAME, IN, 200, b"\x03cdn\x07example\x03net\0"),
        record(b"\x03CDN\x07example\x03net\0", A, IN, 20, &[192, 0, 2, 3]),
    ];
    let glue = [
        record(b"\x03ns1\x07example\x03com\0", A, IN, 3600, &[192, 0, 2, 53]),
        record(b"\x03ns1\x07example\x03com\0", AAAA, IN, 3600, &[0x20; 16]),
    ];
    let referral = [
        record(EXAMPLE, NS, IN, 86400, &[b"\x03ns1".as_slice(), EXAMPLE].concat()),
        record(EXAMPLE, NS, IN, 86400, b"\x02ns\x05other\x03org\0"),
    ];
    let naptr = b"\0\x0a\0\x14\x01u\x07E2U+sip\x18!^.*$!sip:a@example.com!\0";
    let https = b"\0\x01\0\0\x01\0\x03\x02h2\0\x04\0\x04\xc0\0\x02\x01";
    vec![
        ("a", answers(A, &[a(300)])),
        ("a-20", answers(A, &many(20))),
        ("a-and-opt", reply(OK, A, [&[a(300)], &[], &[opt(1232, 0, &option(15, b"\0\x03stale"))]])),
        ("aaaa", answers(AAAA, &[record(QNAME, AAAA, IN, 300, &[0x20; 16])])),
        (
            "mixed-case",
            [header(OK, [1, 1, 0, 0]), question(&name("wWw.ExAmPlE.cOm"), A, IN), a(5)].concat(),
        ),
        ("cname-chain", answers(A, &chain)),
        ("nxdomain-soa", reply(OK | 3, A, [&[], &[soa(EXAMPLE, 900)], &[]])),
        ("nxdomain-cname-soa", reply(OK | 3, A, [&chain[..1], &[soa(EXAMPLE, 900)], &[]])),
        ("nodata-soa", reply(OK, A, [&[], &[soa(EXAMPLE, 100)], &[]])),
        ("nodata-bare", reply(OK, A, [&[], &[], &[]])),
        ("referral-glue", reply(0x8000, A, [&[], &referral, &glue])),
        ("answer-authority-additional", reply(OK, A, [&many(4), &referral, &glue])),
        (
            "mx",
            answers(
                MX,
                &[record(EXAMPLE, MX, IN, 60, &[&[0, 10, 4][..], b"mail", EXAMPLE].concat())],
            ),
        ),
        (
            "txt-long",
            answers(
                TXT,
                &[record(QNAME, TXT, IN, 60, &[[255; 256].as_slice(), &[100; 101]].concat())],
            ),
        ),
        (
            "srv",
            answers(
                SRV,
                &[record(QNAME, SRV, IN, 60, b"\0\x01\0\x02\x01\xbb\x03sip\x07example\x03com\0")],
            ),
        ),
        (
            "srv-compressed-target",
            answers(
                SRV,
                &[record(
                    QNAME,
                    SRV,
                    IN,
                    60,
                    &[b"\0\x01\0\x02\x01\xbb\x03sip".as_slice(), EXAMPLE].concat(),
                )],
            ),
        ),
        ("naptr", answers(NAPTR, &[record(QNAME, NAPTR, IN, 60, naptr)])),
        ("https", answers(HTTPS, &[record(QNAME, HTTPS, IN, 60, https)])),
        (
            "svcb-alias",
            answers(SVCB, &[record(QNAME, SVCB, IN, 60, b"\0\0\x04pool\x07example\x03net\0")]),
        ),
        ("caa", answers(CAA, &[record(QNAME, CAA, IN, 60, b"\0\x05issueca.example.net")])),
        (
            "rrsig",
            reply(
                OK | 0x20,
                A,
                [&[a(300), rrsig(QNAME, A, &name("example.com"))], &[], &[opt(1232, 0x8000, &[])]],
            ),
        ),
        ("rrsig-compressed-signer", answers(A, &[a(300), rrsig(QNAME, A, EXAMPLE)])),
        (
            "nsec-denial",
            reply(
                OK | 3,
                A,
                [
                    &[],
                    &[
                        soa(EXAMPLE, 900),
                        record(EXAMPLE, NSEC, IN, 900, b"\x01a\x07example\x03com\0\0\x01\x40"),
                        rrsig(EXAMPLE, NSEC, &name("example.com")),
                    ],
                    &[],
                ],
            ),
        ),
        (
            "dname",
            answers(
                A,
                &[
                    record(EXAMPLE, DNAME, IN, 60, b"\x07example\x03net\0"),
                    record(QNAME, CNAME, IN, 60, b"\x03www\x07example\x03net\0"),
                ],
            ),
        ),
        ("unknown-type", answers(65280, &[record(QNAME, 65280, IN, 60, &[0xc0, 0xff, 0, 1])])),
        ("chaos-a", answers(A, &[record(QNAME, A, CH, 60, &[EXAMPLE, &[1, 2]].concat())])),
        ("empty-rdata", answers(65280, &[record(QNAME, 65280, IN, 60, &[])])),
        (
            "root-owner",
            answers(NS, &[record(&[0], NS, IN, 518_400, b"\x01a\x0croot-servers\x03net\0")]),
        ),
        ("ttl-0", answers(A, &[a(0)])),
        ("ttl-largest", answers(A, &[a(0x7fff_ffff)])),
        ("ttl-high-bit", answers(A, &[a(0x8000_0000)])),
        ("owner-255", answers(A, &[record(&long_name(255), A, IN, 60, &[1; 4])])),
        (
            "owners-127-labels",
            answers(
                A,
                &vec![record(&[[1, b'x'].repeat(127), vec![0]].concat(), A, IN, 60, &[1; 4]); 3],
            ),
        ),
        ("opt-badvers", reply(OK, A, [&[], &[], &[opt(1232, 0x0100_0000, &[])]])),
        ("refused", reply(OK | 5, A, [&[], &[], &[]])),
        ("tsig", reply(OK, A, [&[a(9)], &[], &[record(&name("key"), TSIG, 255, 0, &[0; 16])]])),
        ("truncated-empty", reply(OK | 0x200, A, [&[], &[], &[]])),
    ]
}

/// And those that are wrong in one place.
pub(crate) fn broken_responses() -> Vec<Named> {
    let a = record(QNAME, A, IN, 300, &[192, 0, 2, 1]);
    let sound = answers(A, std::slice::from_ref(&a));
    let www = question(&name("www.example.com"), A, IN);
    let claims =
        |flags, counts, body: &[u8]| [header(flags, counts), www.clone(), body.to_vec()].concat();
    let to_itself = [0xc0, RECORDS_AT];
    vec![
        ("pointer-loop", answers(A, &[record(&[1, b'a', 0xc0, RECORDS_AT], A, IN, 1, &[1; 4])])),
        ("pointer-to-itself", answers(A, &[record(&to_itself, A, IN, 1, &[1; 4])])),
        ("pointer-forward", answers(A, &[record(&[0xc0, 200], A, IN, 1, &[1; 4]), a.clone()])),
        ("pointer-past-end", answers(A, &[record(&[0xff, 0xff], A, IN, 1, &[1; 4])])),
        ("pointer-into-header", answers(A, &[record(&[0xc0, 2], A, IN, 1, &[1; 4])])),
        (
            "pointer-loop-in-rdata",
            answers(CNAME, &[record(QNAME, CNAME, IN, 1, &[1, b'a', 0xc0, RECORDS_AT + 12])]),
        ),
        (
            "pointers-between-rdata",
            answers(
                CNAME,
                &[
                    record(QNAME, CNAME, IN, 1, &[0xc0, RECORDS_AT + 26]),
                    record(QNAME, CNAME, IN, 1, &[0xc0, RECORDS_AT + 12]),
                ],
            ),
        ),
        ("label-type-01", answers(A, &[record(&[0x41, b'a', 0], A, IN, 1, &[1; 4])])),
        (
            "owner-too-long",
            answers(
                A,
                &[record(&[vec![63; 64], QNAME.to_vec()].concat().repeat(4), A, IN, 1, &[1; 4])],
            ),
        ),
        (
            "owner-too-long-by-pointer",
            answers(
                A,
                &[
                    record(&long_name(250), A, IN, 1, &[1; 4]),
                    record(&[&[5][..], b"abcde", &[0xc0, RECORDS_AT]].concat(), A, IN, 1, &[1; 4]),
                ],
            ),
        ),
        ("a-rdata-3", answers(A, &[record(QNAME, A, IN, 1, &[1; 3])])),
        ("aaaa-rdata-17", answers(AAAA, &[record(QNAME, AAAA, IN, 1, &[1; 17])])),
        ("cname-rdata-empty", answers(CNAME, &[record(QNAME, CNAME, IN, 1, &[])])),
        ("cname-rdata-trailing", answers(CNAME, &[record(QNAME, CNAME, IN, 1, &[0, 0])])),
        (
            "cname-name-past-rdata",
            answers(CNAME, &[record(QNAME, CNAME, IN, 1, &[5, b'a', b'b']), a.clone()]),
        ),
        (
            "soa-short",
            answers(SOA, &[record(QNAME, SOA, IN, 1, &[&[0, 0][..], &SOA_NUMBERS[..19]].concat())]),
        ),
        (
            "naptr-string-overrun",
            answers(NAPTR, &[record(QNAME, NAPTR, IN, 1, &[0, 1, 0, 1, 1, b'u', 200, 0, 0])]),
        ),
        ("rrsig-short", answers(RRSIG, &[record(QNAME, RRSIG, IN, 1, &[0, 1, 13])])),
        ("rdlength-overrun", [&sound[..sound.len() - 6], &[0, 5, 1, 2, 3, 4]].concat()),
        ("record-cut", sound[..sound.len() - 1].to_vec()),
        ("truncated-record-cut", claims(OK | 0x200, [1, 2, 1, 1], &[&a[..], &a[..9]].concat())),
        ("count-too-high", claims(OK, [1, 2, 0, 0], &a)),
        ("count-too-low", claims(OK, [1, 0, 0, 0], &a)),
        ("counts-65535", claims(OK, [1, 65535, 65535, 65535], &a)),
        ("two-opts", reply(OK, A, [&[], &[], &[opt(1232, 0, &[]), opt(1232, 0, &[])]])),
        ("opt-in-answer", answers(A, &[opt(1232, 0, &[])])),
        ("opt-not-at-root", reply(OK, A, [&[], &[], &[record(QNAME, OPT, 1232, 0, &[])]])),
        ("questions-0", header(OK | 1, [0, 0, 0, 0])),
        ("questions-2", [header(OK, [2, 0, 0, 0]), www.clone(), www.clone()].concat()),
        ("question-compressed", [header(OK, [1, 0, 0, 0]), question(&[0xc0, 12], A, IN)].concat()),
        ("trailing-byte", [sound.clone(), vec![0]].concat()),
        ("query-bit", [header(RD, [1, 1, 0, 0]), www.clone(), a.clone()].concat()),
        ("opcode-notify", [header(0xa000, [1, 0, 0, 0]), www.clone()].concat()),
        ("header-only", header(OK, [1, 0, 0, 0])),
        ("empty", Vec::new()),
        ("bare-formerr-and-opt", [header(OK | 1, [0, 0, 0, 1]), opt(1232, 0, &[])].concat()),
        ("bare-refused-and-junk", [header(0x8105, [0; 4]), vec![0xff; 7]].concat()),
        ("bare-refused-cut", header(0x8105, [0; 4])[..11].to_vec()),
        ("bare-noerror", header(OK, [0; 4])),
        ("bare-query", header(RD | 1, [0; 4])),
        ("bare-notify", header(0xa001, [0; 4])),
    ]
}

/// Corpus of the target `response`.
pub(crate) fn responses() -> Vec<Named> {
    [sound_responses(), broken_responses()].concat()
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
    let mut named: Vec<Named> = responses()
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
    [("query", queries()), ("response", responses()), ("template_round_trip", templates())]
}
