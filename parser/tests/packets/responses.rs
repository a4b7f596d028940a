//! Corpus of the target `response`.

use super::*;

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
pub(crate) fn sound() -> Vec<Named> {
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
pub(crate) fn broken() -> Vec<Named> {
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

/// All of them.
pub(crate) fn all() -> Vec<Named> {
    [sound(), broken()].concat()
}
