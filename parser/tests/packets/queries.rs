//! Corpus of the target `query`.

use super::*;

fn plain(qname: &[u8], qtype: u16) -> Vec<u8> {
    [header(RD, [1, 0, 0, 0]), question(qname, qtype, IN)].concat()
}

fn with_additional(records: &[Vec<u8>]) -> Vec<u8> {
    let header = header(RD | 0x20, [1, 0, 0, records.len() as u16]);
    let question = question(&name("www.example.com"), A, IN);
    [header, question, records.concat()].concat()
}

/// The packets, sound and broken.
pub(crate) fn all() -> Vec<Named> {
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
