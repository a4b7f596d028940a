use super::*;
use proptest::prelude::*;
use std::hash::{BuildHasher, RandomState};

fn wire(labels: &[&[u8]]) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in labels {
        wire.push(u8::try_from(label.len()).unwrap());
        wire.extend_from_slice(label);
    }
    wire.push(0);
    wire
}

#[test]
fn text_becomes_wire_format() {
    for (text, labels) in [
        ("example.com", &[&b"example"[..], b"com"][..]),
        ("Example.COM.", &[b"Example", b"COM"]),
        (".", &[]),
        ("a\\.b.c", &[b"a.b", b"c"]),
        ("a\\046b\\\\.c", &[b"a.b\\", b"c"]),
        ("\\000\\255.x", &[b"\0\xff", b"x"]),
        ("_sip._tcp.*.example", &[b"_sip", b"_tcp", b"*", b"example"]),
    ] {
        assert_eq!(Name::from_text(text).unwrap().as_wire(), wire(labels), "{text}");
    }
    assert!(Name::from_text(".").unwrap().is_root());
    assert_eq!(".".parse(), Ok(Name::ROOT));
}

#[test]
fn text_that_breaks_a_rule_is_refused_with_that_rule() {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    for (text, error) in [
        (String::new(), NameError::Empty),
        ("..".into(), NameError::EmptyLabel),
        (".a".into(), NameError::EmptyLabel),
        ("a..b".into(), NameError::EmptyLabel),
        (format!("{label}a"), NameError::LabelTooLong),
        (format!("{longest}a"), NameError::NameTooLong),
        (format!("{longest}.a"), NameError::NameTooLong),
        ("a\\".into(), NameError::BadEscape),
        ("a\\25".into(), NameError::BadEscape),
        ("a\\256".into(), NameError::BadEscape),
        ("a b".into(), NameError::NotPrintable),
        ("münchen.de".into(), NameError::NotPrintable),
    ] {
        assert_eq!(Name::from_text(&text), Err(error), "{text}");
    }
    assert_eq!(Name::from_text(&longest).unwrap().as_wire().len(), MAX_NAME_LEN);
    assert_eq!(Name::from_text(&format!("{longest}.")).unwrap().as_wire().len(), MAX_NAME_LEN);
}

#[test]
fn wire_format_must_be_exactly_one_name() {
    assert_eq!(Name::from_wire(b"\0"), Some(Name::ROOT));
    assert_eq!(Name::from_wire(b"\x01a\0").unwrap().to_string(), "a.");
    for wrong in [&b""[..], b"\x01a", b"\x01a\0\0", b"\xc0\x00", b"\x01a\xc0\x00", b"\x40a\0"] {
        assert_eq!(Name::from_wire(wrong), None, "{wrong:?}");
    }
}

#[test]
fn pointers_are_followed_backwards_only() {
    let message = b"\x03com\0\x07example\xc0\x00\x03www\xc0\x05\xc0\x0f";
    let read = |at| Name::read(message, at).map(|(name, end)| (name.to_string(), end));
    assert_eq!(read(5), Some(("example.com.".into(), 15)));
    assert_eq!(read(15), Some(("www.example.com.".into(), 21)));
    assert_eq!(
        read(21),
        Some(("www.example.com.".into(), 23)),
        "a pointer to a name that ends in a pointer"
    );
    assert_eq!(read(23), None);

    for (looped, at) in [
        (&b"\xc0\x00"[..], 0),
        (b"\x01a\xc0\x00", 0),
        (b"\xc0\x02\xc0\x00", 0),
        (b"\xc0\x02\xc0\x00", 2),
        (b"\x01a\xc0\x04\x01b\xc0\x00", 4),
        (b"\x01a\x01b\xc0\x02", 0),
        (b"\xc0\x02\0", 0),
        (b"\xff\xff", 0),
        (b"\xc0", 0),
    ] {
        assert_eq!(Name::read(looped, at), None, "{looped:?}");
    }
}

#[test]
fn a_chain_of_pointers_has_a_bound() {
    let chain = |pointers: u16| {
        let mut message = vec![0, 0];
        (0..pointers).for_each(|at| message.extend_from_slice(&(0xc000 | (at * 2)).to_be_bytes()));
        Name::read(&message, usize::from(pointers) * 2).map(|(name, _)| name)
    };
    assert_eq!(chain(127), Some(Name::ROOT));
    assert_eq!(chain(128), None);
}

#[test]
fn pointers_cannot_make_a_name_of_more_than_255_bytes() {
    // Each name is one label of 63 bytes and a pointer to the name before it.
    let mut message = vec![0];
    let mut before = 0u16;
    for links in 1..=5 {
        let at = message.len();
        message.push(63);
        message.extend_from_slice(&[b'a'; 63]);
        message.extend_from_slice(&(0xc000 | before).to_be_bytes());
        before = u16::try_from(at).unwrap();
        let len = Name::read(&message, at).map(|(name, _)| name.as_wire().len());
        assert_eq!(len, (links < 4).then_some(links * 64 + 1));
    }
}

#[test]
fn ancestors_are_compared_by_label_and_without_case() {
    let name = Name::from_text("www.Example.com").unwrap();
    for (ancestor, expected) in [
        (".", true),
        ("COM", true),
        ("example.COM", true),
        ("WWW.example.com", true),
        ("a.www.example.com", false),
        ("ample.com", false),
        ("org", false),
        ("www", false),
    ] {
        assert_eq!(
            name.is_at_or_below(Name::from_text(ancestor).unwrap().as_wire()),
            expected,
            "{ancestor}"
        );
    }
    // The letter "c" of a label has the value of no length, yet a label may hold bytes that
    // look like a name.
    let tricky = Name::from_text("a\\003com").unwrap();
    assert!(!tricky.is_at_or_below(Name::from_text("com").unwrap().as_wire()));
    assert!(!name.is_at_or_below(b""));
}

#[test]
fn suffixes_go_up_to_the_root() {
    let all: Vec<&[u8]> = suffixes(b"\x01a\x02bc\0").collect();
    assert_eq!(all, [&b"\x01a\x02bc\0"[..], b"\x02bc\0", b"\0"]);
    assert_eq!(suffixes(b"\0").count(), 1);
    assert_eq!(suffixes(b"").count(), 0);
    assert_eq!(suffixes(b"\x05a").count(), 1);
}

/// Names whose labels have any bytes at all.
fn any_name() -> impl Strategy<Value = Name> {
    let label = prop::collection::vec(any::<u8>(), 1..=63);
    prop::collection::vec(label, 0..8).prop_map(|labels| {
        let mut builder = Builder::new();
        labels.iter().for_each(|label| _ = builder.label(label));
        builder.finish().unwrap()
    })
}

proptest! {
    #[test]
    fn text_reads_back_to_the_same_bytes(name in any_name()) {
        let again = Name::from_text(&name.to_string()).unwrap();
        prop_assert_eq!(again.as_wire(), name.as_wire());
        let again = Name::from_wire(name.as_wire()).unwrap();
        prop_assert_eq!(again.as_wire(), name.as_wire());
    }

    #[test]
    fn equal_but_for_case_is_equal_with_the_same_hash(name in any_name(), other in any_name()) {
        let upper = Name::from_wire(&upper_labels(&name)).unwrap();
        prop_assert_eq!(upper, name);
        let state = RandomState::new();
        prop_assert_eq!(state.hash_one(upper), state.hash_one(name));
        prop_assert_eq!(name == other, name.as_wire().eq_ignore_ascii_case(other.as_wire()));
    }

    #[test]
    fn any_text_either_fails_or_round_trips(text in "[a-zA-Z0-9.\\\\ -]{0,80}") {
        if let Ok(name) = Name::from_text(&text) {
            let again = Name::from_text(&name.to_string()).unwrap();
            prop_assert_eq!(again.as_wire(), name.as_wire());
        }
    }

    #[test]
    fn reading_any_bytes_ends_with_a_name_or_without(
        message in
            prop::collection::vec(prop_oneof![Just(0xc0u8), 0u8..8, any::<u8>()], 0..600),
        at in 0usize..610,
    ) {
        if let Some((name, end)) = Name::read(&message, at) {
            prop_assert!(end <= message.len());
            prop_assert!(Name::from_wire(name.as_wire()).is_some());
        }
    }
}

/// The name with its letters in upper case: length bytes are no letters.
fn upper_labels(name: &Name) -> Vec<u8> {
    name.as_wire().to_ascii_uppercase()
}
