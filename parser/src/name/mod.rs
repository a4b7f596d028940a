//! Domain names: on the stack in wire format, from and to the text people write, and out of
//! compressed messages.
//!
//! Invariant of a [`Name`]: `bytes[..len]` is exactly one uncompressed name, labels of 1 to 63
//! bytes and the root label at the end, 1 to 255 bytes in all (RFC 1035 §2.3.4, §3.1). Letter case is
//! kept and never matters for equality (RFC 4343). Nothing here allocates.

pub mod fold;

use std::fmt::{self, Write};
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use self::fold::{eq_ignore_case, fold};

/// The most bytes that a name may have in wire format, with the root label (RFC 1035 §2.3.4).
pub const MAX_NAME_LEN: usize = 255;

/// The most bytes that a label may have (RFC 1035 §2.3.4).
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
    /// is meant literally, `\DDD` for a byte by its decimal value (RFC 1035 §5.1). The dot at the
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

    /// Reads the name at `at` of a message, following compression pointers (RFC 1035 §4.1.4); also
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
mod tests;
