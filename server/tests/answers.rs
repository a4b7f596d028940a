//! Answers to real clients over a real upstream: dig and dnsperf, knotd.

mod support;

use std::process::Command;

use hickory_proto::op::{Edns, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};
use support::knot::{Knot, NAMES};
use support::{Swiftlet, ask, query};

fn over_knot(settings: &[(&str, &str)]) -> (Knot, Swiftlet) {
    let knot = Knot::start();
    let upstream = knot.address.to_string();
    let mut all = vec![("FORWARD", upstream.as_str())];
    all.extend_from_slice(settings);
    let server = Swiftlet::start(&all);
    (knot, server)
}

fn dig(server: &Swiftlet, arguments: &str) -> String {
    let output = Command::new("dig")
        .args([&format!("@{}", server.dns.ip()), "-p", &server.dns.port().to_string()])
        .args(["+tries=1", "+time=5"])
        .args(arguments.split_whitespace())
        .output()
        .expect("dig runs: `make test` installs Debian's package bind9-dnsutils");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Each row is asked twice: the second answer comes from the cache and must say the same.
#[test]
fn dig_gets_what_the_zone_says_from_the_upstream_and_from_the_cache() {
    let (_knot, server) = over_knot(&[]);
    let rows = [
        ("www.example A", "192.0.2.80"),
        ("www.example AAAA", "2001:db8::80"),
        ("WwW.eXaMpLe A", "192.0.2.80"),
        ("any.thing.wild.example A", "192.0.2.99"),
        ("chain.example A", "alias.example.\nwww.example.\n192.0.2.80"),
        ("chain.example CNAME", "alias.example."),
        ("a.old.example A", "a.new.example.\n192.0.2.44"),
        ("mail.example MX", "10 mx1.example.\n20 mx2.example."),
        ("srv.example SRV", "1 2 3 www.example."),
        ("secret.example TXT", "\"one\" \"two\""),
        ("example NS", "ns.example."),
        ("example SOA", "ns.example. hostmaster.example. 1 3600 600 86400 300"),
        ("future.example TYPE65280", "\\# 4 0A000001"),
        ("nobody.example A", ""),
        ("www.example MX", ""),
    ];
    for (question, expected) in rows {
        for round in ["upstream", "cache"] {
            let answer = dig(&server, &format!("+short {question}"));
            let mut lines: Vec<_> =
                answer.lines().filter(|line| !line.starts_with("new.")).collect();
            if question.starts_with("a.old") {
                lines.retain(|line| *line != "new.example.");
            }
            if question.contains("MX") {
                lines.sort_unstable();
            }
            assert_eq!(lines.join("\n"), expected, "{question} from the {round}");
        }
    }
    let metrics = server.settled();
    assert!(metrics.get("cache_hits") >= rows.len() as u64 - 1);
}

#[test]
fn the_clients_letter_case_and_id_come_back() {
    let (_knot, server) = over_knot(&[]);
    for name in ["wWw.ExAmPlE.", "www.example.", "WWW.EXAMPLE."] {
        let answer = ask(server.dns, &query(name, RecordType::A));
        assert_eq!(answer.queries[0].name().to_ascii(), name);
        assert_eq!(answer.answers[0].name.to_ascii(), name, "the owner points at the question");
    }
}

#[test]
fn absence_is_cached_with_its_soa() {
    let (_knot, server) = over_knot(&[("MAX_NEGATIVE_TTL", "60")]);
    for (name, code) in
        [("nobody.example.", ResponseCode::NXDomain), ("www.example.", ResponseCode::NoError)]
    {
        for _ in 0..2 {
            let answer = ask(server.dns, &query(name, RecordType::MX));
            assert_eq!(answer.metadata.response_code, code);
            assert!(answer.answers.is_empty());
            let [soa] = &answer.authorities[..] else { panic!("one SOA: {answer:?}") };
            assert_eq!(soa.record_type(), RecordType::SOA);
            assert!((59..=60).contains(&soa.ttl), "TTL {}", soa.ttl);
        }
    }
    let metrics = server.settled();
    assert_eq!((metrics.get("cache_misses"), metrics.get("cache_hits")), (2, 2));
}

#[test]
fn recursion_not_desired_gets_the_cache_or_refused() {
    let (_knot, server) = over_knot(&[]);
    let mut question = query("www.example.", RecordType::A);
    question.metadata.recursion_desired = false;
    let answer = ask(server.dns, &question);
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    ask(server.dns, &query("www.example.", RecordType::A));
    let answer = ask(server.dns, &question);
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(!answer.metadata.recursion_desired && answer.metadata.recursion_available);
    assert_eq!(answer.answers.len(), 1);
}

#[test]
fn a_ttl_of_zero_is_passed_on_and_not_kept() {
    let (_knot, server) = over_knot(&[]);
    for _ in 0..2 {
        let answer = ask(server.dns, &query("zero.example.", RecordType::A));
        assert_eq!(answer.answers[0].ttl, 0);
    }
    assert_eq!(server.settled().get("cache_hits"), 0);
}

#[test]
fn ttl_bounds_hold() {
    let (_knot, server) = over_knot(&[("MIN_TTL", "30"), ("MAX_TTL", "100")]);
    for (name, ttl) in [("short.example.", 30), ("www.example.", 100)] {
        let answer = ask(server.dns, &query(name, RecordType::A));
        assert_eq!(answer.answers[0].ttl, ttl, "{name}");
    }
}

#[test]
fn answers_over_the_clients_size_are_cut_at_a_record() {
    let (_knot, server) = over_knot(&[]);
    let mut whole = query("crowd.example.", RecordType::A);
    for (size, complete) in
        [(None, false), (Some(512), false), (Some(1232), true), (Some(4096), true)]
    {
        whole.edns = size.map(|size| {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            edns
        });
        let answer = ask(server.dns, &whole);
        assert_eq!(answer.metadata.truncation, !complete, "{size:?}");
        assert_eq!(answer.answers.len() == 40, complete, "{size:?}");
        assert!(!answer.answers.is_empty(), "{size:?}: whole records up to the limit");
        assert_eq!(answer.edns.is_some(), size.is_some());
    }
    assert_eq!(server.settled().get("answers_truncated"), 2);
}

#[test]
fn an_upstreams_truncated_answer_is_fetched_over_tcp() {
    let (_knot, server) = over_knot(&[("UDP_SIZE", "4096")]);
    let mut question = query("big.example.", RecordType::TXT);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    question.edns = Some(edns);
    let answer = ask(server.dns, &question);
    // 20 strings of 200 bytes do not fit; what matters is that the cache has all of it.
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    let metrics = server.settled();
    let over_tcp = metrics.get("upstream_queries{transport=\"tcp\"}");
    assert_eq!((over_tcp, metrics.get("cache_inserts")), (1, 1));
}

#[test]
fn strangers_are_refused_with_the_reason() {
    let (_knot, server) = over_knot(&[("ALLOW", "192.0.2.0/24")]);
    let answer = dig(&server, "www.example A");
    assert!(answer.contains("status: REFUSED"), "{answer}");
    assert!(answer.contains("EDE: 18 (Prohibited)"), "{answer}");
    assert_eq!(server.settled().get("acl_refused"), 1);
}

#[test]
fn chaos_names_tell_who_answers() {
    let (_knot, server) = over_knot(&[("IDENTITY", "resolver-7")]);
    let version = format!("\"swiftlet {}\"\n", env!("CARGO_PKG_VERSION"));
    for (name, text) in [
        ("version.bind", version.as_str()),
        ("version.server", &version),
        ("HOSTNAME.bind", "\"resolver-7\"\n"),
        ("id.server", "\"resolver-7\"\n"),
    ] {
        assert_eq!(dig(&server, &format!("+short {name} CH TXT")), text, "{name}");
    }
    assert!(dig(&server, "other.bind CH TXT").contains("REFUSED"));
    assert!(dig(&server, "+nsid www.example A").contains("(\"resolver-7\")"));
}

#[test]
fn private_names_are_denied_here_with_their_zones_soa() {
    let (_knot, server) = over_knot(&[]);
    for (name, code, zone) in [
        ("7.0.0.10.in-addr.arpa.", ResponseCode::NXDomain, "10.in-addr.arpa."),
        ("168.192.in-addr.arpa.", ResponseCode::NoError, "168.192.in-addr.arpa."),
        ("printer.home.arpa.", ResponseCode::NXDomain, "home.arpa."),
        ("shop.onion.", ResponseCode::NXDomain, "onion."),
        ("_dns.resolver.arpa.", ResponseCode::NoError, "resolver.arpa."),
    ] {
        let answer = ask(server.dns, &query(name, RecordType::PTR));
        assert_eq!(answer.metadata.response_code, code, "{name}");
        let [soa] = &answer.authorities[..] else { panic!("one SOA: {answer:?}") };
        assert_eq!((soa.name.to_ascii().as_str(), soa.ttl), (zone, 10_800), "{name}");
        let data = soa.data.to_string();
        assert!(data.starts_with(&format!("{zone} nobody.invalid. 1 ")), "{name}: {data}");
    }
    assert_eq!(server.settled().get("upstream_queries{transport=\"udp\"}"), 0);
}

#[test]
fn any_is_answered_with_hinfo() {
    let (_knot, server) = over_knot(&[]);
    let answer = dig(&server, "+notcp +short www.example ANY");
    assert_eq!(answer, "\"RFC8482\" \"\"\n");
    assert_eq!(server.settled().get("upstream_queries{transport=\"udp\"}"), 0);
}

#[test]
fn other_classes_transfers_and_meta_types_are_refused() {
    let (_knot, server) = over_knot(&[]);
    for qtype in [252, 251, 250, 249, 253, 254, 41, 128] {
        let answer = ask(server.dns, &query("example.", RecordType::from(qtype)));
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused, "type {qtype}");
    }
    let mut hesiod = query("example.", RecordType::A);
    hesiod.queries[0].set_query_class(DNSClass::HS);
    let answer = ask(server.dns, &hesiod);
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    assert_eq!(server.settled().get("upstream_queries{transport=\"udp\"}"), 0);
}

#[test]
fn dnssec_ok_and_checking_disabled_have_answers_of_their_own() {
    let (_knot, server) = over_knot(&[]);
    for (arguments, flags) in [
        ("+dnssec", ";; flags: qr rd ra;"),
        ("+cdflag", ";; flags: qr rd ra cd;"),
        ("+adflag", ";; flags: qr rd ra;"),
    ] {
        let answer = dig(&server, &format!("{arguments} www.example A"));
        assert!(answer.contains(flags), "{arguments}: {answer}");
        assert_eq!(answer.contains("flags: do"), arguments == "+dnssec", "{arguments}: {answer}");
    }
}

#[test]
fn signatures_and_proofs_go_to_those_who_ask_for_them() {
    let (_knot, server) = over_knot(&[]);
    for (question, signed, proof) in [
        ("www.signed.example A", "RRSIG\tA 13 3", false),
        ("nobody.signed.example A", "RRSIG\tSOA 13 2", true),
        ("www.signed.example MX", "RRSIG\tSOA 13 2", true),
        ("a.wild.signed.example A", "RRSIG\tA 13 3", true),
        ("alias.signed.example A", "RRSIG\tCNAME 13 3", false),
    ] {
        for round in ["upstream", "cache"] {
            let answer = dig(&server, &format!("+dnssec +bufsize=1232 {question}"));
            assert!(answer.contains(signed), "{question} from the {round}: {answer}");
            assert_eq!(answer.contains("\tNSEC\t"), proof, "{question} from the {round}: {answer}");
            let bare = dig(&server, question);
            assert!(!bare.contains("RRSIG") && !bare.contains("NSEC"), "{question}: {bare}");
        }
    }
}

/// The acceptance run of the project's first release: full speed over a real upstream, nothing lost.
#[test]
fn dnsperf_loses_nothing_in_ten_seconds_at_full_speed() {
    let (_knot, server) = over_knot(&[]);
    let names: String = (0..NAMES).map(|name| format!("n{name}.many.example A\n")).collect();
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), names).expect("a file can be written");
    let output = Command::new("dnsperf")
        .args(["-s", "127.0.0.1", "-p", &server.dns.port().to_string(), "-l", "10", "-d"])
        .arg(file.path())
        .output()
        .expect("dnsperf runs: `make test` installs Debian's package dnsperf");
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}");
    println!("{report}");
    let figure = |label: &str| -> String {
        let line = report.lines().find(|line| line.trim_start().starts_with(label));
        line.and_then(|line| line.split_once(':'))
            .map(|(_, rest)| rest.trim().into())
            .unwrap_or_default()
    };
    assert!(figure("Queries lost").starts_with("0 "), "{report}");
    assert!(figure("Response codes").ends_with("(100.00%)"), "{report}");
    assert!(figure("Response codes").starts_with("NOERROR"), "{report}");
    let metrics = server.settled();
    assert_eq!(metrics.get("cache_inserts"), u64::from(NAMES), "each name was asked upstream once");
}
