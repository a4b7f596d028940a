use std::io::Write;

use swiftlet_parser::query;

use super::*;

fn read(text: &[u8]) -> Result<Queries, QueriesError> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text).expect("written");
    Queries::from_file(file.path())
}

#[test]
fn a_file_becomes_packets_that_the_parser_accepts() {
    let queries =
        read(b"# names\nexample.com\n\n; more\r\nWWW.example.com. AAAA\r\n. NS\nx TYPE65\ny 16")
            .expect("valid");
    let expected: [(&[u8], Type); 5] = [
        (b"\x07example\x03com\0", Type::A),
        (b"\x03WWW\x07example\x03com\0", Type::AAAA),
        (b"\0", Type::NS),
        (b"\x01x\0", Type(65)),
        (b"\x01y\0", Type::TXT),
    ];
    assert_eq!(queries.len(), expected.len());
    for (index, (qname, qtype)) in expected.into_iter().enumerate() {
        let packet = queries.get(index);
        let facts = query::parse(packet).expect("a query");
        assert_eq!((facts.qname(packet), facts.qtype), (qname, qtype));
        assert_eq!(facts.question_end(), packet.len());
        assert!(facts.recursion_desired());
    }
}

#[test]
fn a_bad_line_is_named() {
    for bad in ["a..b", "name A B", "name NOTYPE", "name 65536", &"x".repeat(64), "\u{e9}\u{0}"] {
        let text = format!("good.example\n\n{bad}\n");
        match read(text.as_bytes()) {
            Err(QueriesError::Line { line: 3, .. }) => {}
            Ok(queries) if bad == "\u{e9}\u{0}" => assert_eq!(queries.len(), 2),
            other => panic!("{bad}: {other:?}"),
        }
    }
    assert!(matches!(read(b"ok\n\xff\xff"), Err(QueriesError::Line { line: 2, .. })));
}

#[test]
fn no_query_and_no_file_are_errors() {
    assert!(matches!(read(b"# nothing\n\n"), Err(QueriesError::Empty { .. })));
    let missing = Queries::from_file(Path::new("/nonexistent/queries"));
    let message = missing.expect_err("no such file").to_string();
    assert!(message.contains("/nonexistent/queries"), "{message}");
}

#[test]
fn shape_shows_in_the_packets() {
    let shape = Shape { edns: Some(4096), dnssec_ok: true, case_share: 0.5, seed: 9 };
    let build = || {
        let mut builder = Builder::new(shape);
        builder.add_names(1000, 1.0, "bench.example.", 1.0).expect("valid");
        builder.build()
    };
    let queries = build();
    assert_eq!(queries.packets, build().packets, "a seed repeats");
    let mut mixed = 0;
    for index in 0..queries.len() {
        let packet = queries.get(index);
        let facts = query::parse(packet).expect("a query");
        let edns = facts.edns.expect("EDNS");
        assert_eq!((edns.udp_size, edns.dnssec_ok), (4096, true));
        mixed += u32::from(packet[HEADER_LEN..].iter().any(u8::is_ascii_uppercase));
    }
    assert!((400..600).contains(&mixed), "{mixed} of 1000 are of mixed case");
}

#[test]
fn fresh_names_are_never_the_same_and_match_only_themselves() {
    let mut builder = Builder::new(Shape::default());
    builder.add_fresh_names("x.example", 1.0).expect("valid");
    let queries = builder.build();
    let mut seen = std::collections::HashSet::new();
    for serial in 0..10_000 {
        let mut packet = vec![0; queries.longest()];
        queries.write(0, serial, 7, &mut packet);
        let facts = query::parse(&packet).expect("a query");
        assert!(queries.is_question_of(0, serial, &packet));
        assert!(!queries.is_question_of(0, serial + 1, &packet));
        assert!(!queries.is_question_of(0, serial, &packet[..20]));
        assert!(seen.insert(facts.qname(&packet).to_vec()));
    }
}

#[test]
fn what_is_drawn_differs_from_run_to_run() {
    let drawn = |run| {
        let mut builder = Builder::new(Shape::default());
        builder.add_names(1000, 1.0, "example", 1.0).expect("names");
        let queries = builder.build();
        let mut cursor = queries.cursor(0, 1, run);
        (0..20).map(|_| cursor.take()).collect::<Vec<_>>()
    };
    assert_eq!(drawn(7), drawn(7));
    assert_ne!(drawn(0), drawn(1));
}
