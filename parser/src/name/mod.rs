//! Domain names: on the stack in wire format, from and to the text people write, and out of
//! compressed messages.
//!
//! Invariant of a [`Name`]: `bytes[..len]` is exactly one uncompressed name, labels of 1 to 63
//! bytes and the root label at the end, 1 to 255 bytes in all (RFC 1035 2.3.4, 3.1). Letter case is
//! kept and never matters for equality (RFC 4343). Nothing here allocates.

pub mod fold;

use std::fmt::{self, Write};
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use self::fold::{eq_ignore_case, fold};

/// The most bytes that a name may have in wire format, with the root label (RFC 1035 2.3.4).
pub const MAX_NAME_LEN: usize = 255;

/// The most bytes that a label may have (RFC 1035 2.3.4).
pub const MAX_LABEL_LEN: usize = 63;

/// The most compression pointers followed for one name. A name has at most 127 labels, and a
/// pointer is only of use before a label, so a message that needs more was written to cost time.
const MAX_POINTERS: usize = 127;

/// A domain name in uncompressed wire format on the stack, letter case kept.
#[derive(Clone, Copy)]
pub struct Name {
    len: u8,
    bytes: [u8; MAX_NAME_LEN],
}

impl Name {
    /// The root.
    pub const ROOT: Self = Self { len: 1, bytes: [0; MAX_NAME_LEN] };

    /// Reads presentation format: labels with dots between them, `\.` and the like for a byte that
    /// is meant literally, `\DDD` for a byte by its decimal value (RFC 1035 5.1). The dot at the
    /// end may be left out; `.` alone is the root. Bytes that cannot be printed, and those outside
    /// of ASCII, have to be escaped.
    ///
    /// # Errors
    /// Says which rule the text breaks.
    pub fn from_text(text: &str) -> Result<Self, NameError> {
        let text = text.as_bytes();
        match text {
            [] => return Err(NameError::Empty),
            [b'.'] => return Ok(Self::ROOT),
            _ => {}
        }
        let mut builder = Builder::new();
        let mut rest = text;
        while !rest.is_empty() {
            rest = builder.text_label(rest)?;
        }
        builder.finish().ok_or(NameError::NameTooLong)
    }

    /// Takes a slice that is exactly one uncompressed name.
    #[must_use]
    pub fn from_wire(wire: &[u8]) -> Option<Self> {
        let (name, end) = Self::read(wire, 0)?;
        // A pointer cannot hide in it: within one name there is nothing before it to point to.
        (end == wire.len()).then_some(name)
    }

    /// Reads the name at `at` of a message, following compression pointers (RFC 1035 4.1.4); also
    /// gives the offset after the name where it stands. Every pointer must lead to before the place
    /// where the labels that it ends began, and at most 127 are followed, so that reading ends
    /// whatever the message is.
    #[must_use]
    pub fn read(message: &[u8], at: usize) -> Option<(Self, usize)> {
        let mut builder = Builder::new();
        let mut end = None;
        let mut start = at;
        let mut next = at;
        let mut pointers = 0;
        loop {
            let rest = message.get(next..)?;
            let (&head, body) = rest.split_first()?;
            match head {
                0 => {
                    let name = builder.finish()?;
                    return Some((name, end.unwrap_or(next + 1)));
                }
                1..=63 => {
                    builder.label(body.get(..usize::from(head))?)?;
                    next += 1 + usize::from(head);
                }
                0xc0.. => {
                    let target = usize::from(head & 0x3f) << 8 | usize::from(*body.first()?);
                    pointers += 1;
                    if target >= start || pointers > MAX_POINTERS {
                        return None;
                    }
                    end.get_or_insert(next + 2);
                    (start, next) = (target, target);
                }
                _ => return None,
            }
        }
    }

    /// The name in wire format, with its root label: 1 to 255 bytes.
    #[inline]
    #[must_use]
    pub fn as_wire(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// Whether this is the root.
    #[inline]
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.len == 1
    }

    /// Whether the name is `ancestor` (wire format, any letter case) or below it.
    #[must_use]
    pub fn is_at_or_below(&self, ancestor: &[u8]) -> bool {
        // A suffix of the right length need not begin at a label, hence the walk.
        suffixes(self.as_wire())
            .find(|suffix| suffix.len() <= ancestor.len())
            .is_some_and(|suffix| eq_ignore_case(suffix, ancestor))
    }

    /// The labels from the left, without their length bytes and without the root label.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        suffixes(self.as_wire()).filter_map(|suffix| {
            let (&len, body) = suffix.split_first()?;
            if len == 0 { None } else { body.get(..usize::from(len)) }
        })
    }
}

/// The name itself, its parent, its parent's parent and so on to the root, each in wire format.
/// Ends early if `wire` is not an uncompressed name.
pub fn suffixes(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = wire;
    std::iter::from_fn(move || {
        let suffix = rest;
        let &len = suffix.first()?;
        rest = if len == 0 { &[] } else { suffix.get(1 + usize::from(len)..).unwrap_or(&[]) };
        Some(suffix)
    })
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        eq_ignore_case(self.as_wire(), other.as_wire())
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut folded = [0; MAX_NAME_LEN];
        fold(self.as_wire(), &mut folded);
        folded.get(..usize::from(self.len)).hash(state);
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::from_text(text)
    }
}

/// Presentation format with the dot at the end; what [`Name::from_text`] reads back to the same
/// bytes.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_char('.');
        }
        for label in self.labels() {
            for &byte in label {
                match byte {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
                        write!(f, "\\{}", char::from(byte))?;
                    }
                    b'!'..=b'~' => f.write_char(char::from(byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_char('.')?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a domain name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// There is no text; the root is written `.`.
    Empty,
    /// Two dots in a row, or one at the start.
    EmptyLabel,
    /// A label of more than 63 bytes.
    LabelTooLong,
    /// More than 255 bytes in wire format.
    NameTooLong,
    /// A backslash that is followed neither by a printable byte nor by three digits up to 255.
    BadEscape,
    /// A space, a control byte or a byte outside of ASCII that is not escaped. An internationalised
    /// name is given in its ASCII form (`xn--...`, RFC 5891).
    NotPrintable,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the name is empty (the root is written \".\")",
            Self::EmptyLabel => {
                "the name has an empty label (two dots in a row, or one at the start)"
            }
            Self::LabelTooLong => "the name has a label of more than 63 bytes",
            Self::NameTooLong => "the name has more than 255 bytes in wire format",
            Self::BadEscape => {
                "the name has a backslash before neither a printable byte nor 000 to 255"
            }
            Self::NotPrintable => {
                "the name has a byte that must be escaped (use xn-- labels for other scripts)"
            }
        })
    }
}

impl std::error::Error for NameError {}

//----------- Builder --------------------------------------------------------

/// A name that grows by labels. `bytes[..len]` holds whole labels, never the root label, and `len
/// <= 254`, so that the root label always fits.
struct Builder {
    len: usize,
    bytes: [u8; MAX_NAME_LEN],
}

impl Builder {
    fn new() -> Self {
        Self { len: 0, bytes: [0; MAX_NAME_LEN] }
    }

    /// Adds a label; `None` if it is empty, longer than 63 bytes, or makes the name too long.
    fn label(&mut self, label: &[u8]) -> Option<()> {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..=63).contains(len))?;
        let end = self.len + 1 + label.len();
        if end >= MAX_NAME_LEN {
            return None;
        }
        let (head, body) = self.bytes.get_mut(self.len..end)?.split_first_mut()?;
        *head = len;
        body.copy_from_slice(label);
        self.len = end;
        Some(())
    }

    /// Adds the first label of a text in presentation format and gives what follows it and its dot.
    fn text_label<'t>(&mut self, text: &'t [u8]) -> Result<&'t [u8], NameError> {
        let mut label = [0; MAX_LABEL_LEN];
        let mut len = 0;
        let mut push = |bytes: &[u8]| -> Result<(), NameError> {
            label
                .get_mut(len..len + bytes.len())
                .ok_or(NameError::LabelTooLong)?
                .copy_from_slice(bytes);
            len += bytes.len();
            Ok(())
        };
        let mut rest = text;
        loop {
            // Nearly all names have no escape: then this runs once per label.
            let plain_len = memchr::memchr2(b'.', b'\\', rest).unwrap_or(rest.len());
            let (plain, special) = rest.split_at_checked(plain_len).unwrap_or((rest, &[]));
            if !plain.iter().all(u8::is_ascii_graphic) {
                return Err(NameError::NotPrintable);
            }
            push(plain)?;
            match special {
                [b'\\', escape @ ..] => {
                    let (byte, after) = unescape(escape).ok_or(NameError::BadEscape)?;
                    push(&[byte])?;
                    rest = after;
                }
                [_, after @ ..] => {
                    rest = after;
                    break;
                }
                [] => {
                    rest = &[];
                    break;
                }
            }
        }
        let label =
            label.get(..len).filter(|label| !label.is_empty()).ok_or(NameError::EmptyLabel)?;
        self.label(label).ok_or(NameError::NameTooLong)?;
        Ok(rest)
    }

    /// The name, with the root label added.
    fn finish(self) -> Option<Name> {
        let Self { len, mut bytes } = self;
        *bytes.get_mut(len)? = 0;
        Some(Name { len: u8::try_from(len + 1).ok()?, bytes })
    }
}

/// Reads what follows a backslash: three digits or one printable byte.
fn unescape(text: &[u8]) -> Option<(u8, &[u8])> {
    match text {
        [h @ b'0'..=b'9', t @ b'0'..=b'9', o @ b'0'..=b'9', rest @ ..] => {
            let value = u16::from(h - b'0') * 100 + u16::from(t - b'0') * 10 + u16::from(o - b'0');
            Some((u8::try_from(value).ok()?, rest))
        }
        [b'0'..=b'9', ..] => None,
        [byte, rest @ ..] if byte.is_ascii_graphic() => Some((*byte, rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
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
            (0..pointers)
                .for_each(|at| message.extend_from_slice(&(0xc000 | (at * 2)).to_be_bytes()));
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
}
