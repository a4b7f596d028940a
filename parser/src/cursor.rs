//! The one type that reads input: a position in a message that only moves forward, and never past
//! the end.
//!
//! Invariant: `at <= message.len()`. Every step checks that the bytes are there and returns `None`
//! if they are not, without moving. Nothing is copied and nothing is followed: a compression
//! pointer ends a name here; [`Name::read`](crate::name::Name::read) is what resolves it.

use crate::name::MAX_NAME_LEN;
use crate::rr::{Class, Type};

/// A forward-only reader of one message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'m> {
    message: &'m [u8],
    at: usize,
}

/// The head of a record and where its parts stand in the message; the TTL is what the wire has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHead {
    /// Offset of the owner name.
    pub(crate) owner_at: usize,
    pub(crate) rtype: Type,
    pub(crate) class: Class,
    pub(crate) ttl: u32,
    /// Offset of the RDATA, all of which is in the message.
    pub(crate) rdata_at: usize,
    pub(crate) rdata_len: u16,
}

impl<'m> Cursor<'m> {
    /// A cursor at `offset`, or at the end if the message is shorter.
    #[inline]
    pub(crate) fn at(message: &'m [u8], offset: usize) -> Self {
        Self { message, at: offset.min(message.len()) }
    }

    /// The offset of the next byte.
    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Whether every byte has been read.
    #[inline]
    pub(crate) fn is_at_end(&self) -> bool {
        self.at == self.message.len()
    }

    /// Bytes that were read before, such as the RDATA of a record; empty if they are not in the
    /// message.
    #[inline]
    pub(crate) fn slice(&self, at: usize, len: u16) -> &'m [u8] {
        self.message.get(at..).and_then(|rest| rest.get(..usize::from(len))).unwrap_or(&[])
    }

    /// The next `len` bytes.
    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Option<&'m [u8]> {
        let bytes = self.message.get(self.at..)?.get(..len)?;
        self.at += len;
        Some(bytes)
    }

    /// The next `N` bytes as an array.
    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Option<&'m [u8; N]> {
        let bytes = self.message.get(self.at..)?.first_chunk::<N>()?;
        self.at += N;
        Some(bytes)
    }

    /// The next byte.
    #[inline]
    pub(crate) fn u8(&mut self) -> Option<u8> {
        let byte = *self.message.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// The next two bytes, big-endian.
    #[inline]
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(|bytes| u16::from_be_bytes(*bytes))
    }

    /// The next four bytes, big-endian.
    #[inline]
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// Skips a name that may end in a compression pointer (RFC 1035 §4.1.4). The part that stands
    /// here must be well-formed and at most 255 bytes, and a pointer must lead to before the name;
    /// what it leads to is not looked at.
    #[inline]
    pub(crate) fn skip_name(&mut self) -> Option<()> {
        let start = self.at;
        let window = self.message.get(start..)?;
        let mut len = 0usize;
        loop {
            let label = usize::from(*window.get(len)?);
            match label {
                0 => break,
                1..=63 => len += 1 + label,
                0xc0..=0xff => {
                    let target = (label & 0x3f) << 8 | usize::from(*window.get(len + 1)?);
                    if target >= start {
                        return None;
                    }
                    len += 1;
                    break;
                }
                _ => return None,
            }
            if len >= MAX_NAME_LEN {
                return None;
            }
        }
        self.at = start + len + 1;
        Some(())
    }

    /// Reads a whole record: skips the owner, reads the fixed fields and skips the RDATA, which
    /// must be in the message (RFC 1035 §4.1.3).
    #[inline]
    pub(crate) fn record(&mut self) -> Option<RecordHead> {
        let owner_at = self.at;
        self.skip_name()?;
        let [t0, t1, c0, c1, l0, l1, l2, l3, r0, r1] = *self.array::<10>()?;
        let rdata_at = self.at;
        let rdata_len = u16::from_be_bytes([r0, r1]);
        self.take(usize::from(rdata_len))?;
        Some(RecordHead {
            owner_at,
            rtype: Type(u16::from_be_bytes([t0, t1])),
            class: Class(u16::from_be_bytes([c0, c1])),
            ttl: u32::from_be_bytes([l0, l1, l2, l3]),
            rdata_at,
            rdata_len,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn skip_name(message: &[u8], at: usize) -> Option<usize> {
        let mut cursor = Cursor::at(message, at);
        cursor.skip_name().map(|()| cursor.position())
    }

    #[test]
    fn integers_are_big_endian_and_a_short_read_moves_nothing() {
        let mut cursor = Cursor::at(&[1, 2, 3, 4, 5, 6, 7, 8], 0);
        assert_eq!(cursor.u8(), Some(1));
        assert_eq!(cursor.u16(), Some(0x0203));
        assert_eq!(cursor.u32(), Some(0x0405_0607));
        assert_eq!(cursor.u16(), None);
        assert_eq!(cursor.take(2), None);
        assert_eq!(cursor.take(1), Some(&[8][..]));
        assert!(cursor.is_at_end());
        assert_eq!(cursor.u8(), None);
        assert_eq!(cursor.take(usize::MAX), None);
        assert!(Cursor::at(&[], 5).is_at_end());
    }

    #[test]
    fn names_are_skipped_where_they_stand() {
        assert_eq!(skip_name(b"\0", 0), Some(1));
        assert_eq!(skip_name(b"\x01a\x02bc\0rest", 0), Some(6));
        assert_eq!(skip_name(b"\0\x01a\xc0\x00rest", 1), Some(5));
        assert_eq!(skip_name(b"\0\xc0\x00", 1), Some(3));
    }

    #[test]
    fn names_that_are_cut_point_forward_or_are_too_long_are_not_skipped() {
        for cut in [&b""[..], b"\x01", b"\x01a", b"\x05abc\0", b"\xc0", b"\x40a\0", b"\x80a\0"] {
            assert_eq!(skip_name(cut, 0), None, "{cut:?}");
        }
        assert_eq!(skip_name(b"\xc0\x00", 0), None, "points at itself");
        assert_eq!(skip_name(b"\x01a\xc0\x00", 0), None, "points at its own start");
        assert_eq!(skip_name(b"\0\xc0\x09", 1), None, "points forward");

        let longest =
            [[&[62][..], &[b'a'; 62]].concat(), [&[63][..], &[b'a'; 63]].concat().repeat(3)]
                .concat();
        let fits = [&longest[..], &[0]].concat();
        assert_eq!((fits.len(), skip_name(&fits, 0)), (256, None));
        let fits = [&fits[..62], &fits[63..]].concat();
        let fits = [&[61][..], &fits[1..]].concat();
        assert_eq!((fits.len(), skip_name(&fits, 0)), (255, Some(255)));
    }

    #[test]
    fn a_record_is_read_to_the_end_of_its_rdata() {
        let message = b"\0\x01a\xc0\x00\x00\x01\x00\x01\x00\x00\x0e\x10\x00\x04\x7f\x00\x00\x01!";
        let mut cursor = Cursor::at(message, 1);
        let head = cursor.record().unwrap();
        assert_eq!(
            (head.owner_at, head.rtype, head.class, head.ttl),
            (1, Type::A, Class::IN, 3600)
        );
        assert_eq!((head.rdata_at, head.rdata_len, cursor.position()), (15, 4, 19));
        for len in 0..19 {
            assert_eq!(Cursor::at(&message[..len], 1).record(), None, "cut to {len}");
        }
    }

    proptest! {
        #[test]
        fn no_step_leaves_the_message(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            at in 0usize..310,
        ) {
            let mut cursor = Cursor::at(&bytes, at);
            while cursor.record().is_some() {
                prop_assert!(cursor.position() <= bytes.len());
            }
            prop_assert!(cursor.position() <= bytes.len());
        }
    }
}
