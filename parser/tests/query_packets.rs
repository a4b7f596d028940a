//! The named queries of the fuzz corpus, one by one: which are served, and why the others are not.

#[expect(dead_code, reason = "only the queries are used here")]
mod packets;

use swiftlet_parser::query::{Reject, parse};

/// A [`Reject`] without the facts that some carry.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Short,
    Response,
    Opcode,
    Malformed,
    BadVersion,
    BadOptions,
}

#[test]
fn queries_are_served_or_refused_for_what_is_wrong_with_them() {
    use Refused::{BadOptions, BadVersion, Malformed, Opcode, Response, Short};
    let refused = [
        ("name-256", Malformed),
        ("label-64", Malformed),
        ("edns-cookie-length-9", BadOptions),
        ("edns-cookie-length-41", BadOptions),
        ("edns-option-overrun", BadOptions),
        ("edns-option-cut", BadOptions),
        ("edns-option-cut-after-nsid", BadOptions),
        ("edns-option-overrun-before-tsig", BadOptions),
        ("edns-option-overrun-trailing-byte", Malformed),
        ("edns-version-1", BadVersion),
        ("edns-version-1-bad-options", BadVersion),
        ("two-opts", Malformed),
        ("two-opts-bad-options", Malformed),
        ("opt-not-at-root", Malformed),
        ("opt-owner-pointer", Malformed),
        ("additional-17", Malformed),
        ("additional-missing", Malformed),
        ("authority-without-ixfr", Malformed),
        ("response-bit", Response),
        ("opcode-notify", Opcode),
        ("opcode-update-no-body", Opcode),
        ("questions-0", Malformed),
        ("questions-2", Malformed),
        ("answers-1", Malformed),
        ("pointer-in-question", Malformed),
        ("pointer-to-header", Malformed),
        ("trailing-byte", Malformed),
        ("cut-in-name", Malformed),
        ("cut-in-type", Malformed),
        ("header-only", Malformed),
        ("header-short", Short),
        ("empty", Short),
    ];
    let queries = packets::queries::all();
    for (name, packet) in &queries {
        let found = parse(packet).err().map(|reject| match reject {
            Reject::Short => Short,
            Reject::Response => Response,
            Reject::Opcode => Opcode,
            Reject::Malformed => Malformed,
            Reject::BadVersion(_) => BadVersion,
            Reject::BadOptions(_) => BadOptions,
        });
        let expected = refused.iter().find(|(refused, _)| refused == name).map(|(_, why)| why);
        assert_eq!(found.as_ref(), expected, "{name}");
    }
    for (name, _) in refused {
        assert!(queries.iter().any(|(found, _)| *found == name), "no packet {name}");
    }
}
