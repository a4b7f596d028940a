//! The stored form of an answer: everything that comes after the question.
//!
//! Two queries with the same key have questions of the same length, so an answer is kept as the tail
//! that goes behind *any* of them, and a hit costs one copy of that tail. [`build()`] makes the bytes
//! when a response is stored, [`render()`] puts them behind a question when they are asked for.
//!
//! The bytes of a template (numbers little endian unless they are an image of the wire):
//!
//! ```text
//!  0  counts      8 bytes, the image of the header's QDCOUNT = 1, ANCOUNT, NSCOUNT, ARCOUNT
//!  8  status      u16: low 12 bits the response code, bit 15 secure
//! 10  records     u16: how many TTL offsets follow = ANCOUNT + NSCOUNT + ARCOUNT
//! 12  min_ttl     u32: smallest TTL of all records in seconds, u32::MAX if there are none
//! 16  ttl_at      records * u16: where each record's TTL is, from the tail's start
//!     tail        the records, as they go behind the question
//! ```
//!
//! A record ends at `ttl_at + 4 + 2 + RDLENGTH`, so the offsets also say where a reply may be cut.
//!
//! Invariant: what `build` made renders to a valid message behind every question of its key. Bytes
//! from elsewhere (a damaged file) render to some bytes within the same bounds, and never panic.

mod build;
mod compress;
mod render;

pub use build::{BuildError, Source, build};
pub use render::{Rendered, render, render_stale};

use crate::rr::Rcode;

/// Length of the fixed head of a template.
const HEAD_LEN: usize = 16;

/// Bit of the status: the upstream said that it had validated the answer (AD).
const SECURE: u16 = 1 << 15;

/// Bits of the status that hold the response code: twelve with EDNS (RFC 6891 §6.1.3).
const RCODE_MASK: u16 = 0x0fff;

/// Bytes of a record from its TTL to its RDATA: the TTL itself and the RDLENGTH.
const TTL_TO_RDATA: usize = 6;

/// A stored answer, seen through its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Template<'a> {
    head: &'a [u8; HEAD_LEN],
    ttl_offsets: &'a [[u8; 2]],
    tail: &'a [u8],
}

impl<'a> Template<'a> {
    /// Splits the bytes into head, offsets and tail; `None` if they are too short for what the head
    /// says. Costs two loads and no look at the records.
    #[inline]
    pub fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_LEN>()?;
        let records = u16::from_le_bytes([head[10], head[11]]);
        let (offsets, tail) = rest.split_at_checked(2 * usize::from(records))?;
        let (ttl_offsets, _) = offsets.as_chunks::<2>();
        Some(Self { head, ttl_offsets, tail })
    }

    /// The response code with all twelve bits; the header of a reply only holds the lower four.
    #[inline]
    pub fn rcode(&self) -> Rcode {
        Rcode(self.status() & RCODE_MASK)
    }

    /// Whether the upstream had validated the answer.
    #[inline]
    pub fn secure(&self) -> bool {
        self.status() & SECURE != 0
    }

    /// Records of the answer section.
    #[inline]
    pub fn answer_count(&self) -> u16 {
        u16::from_be_bytes([self.head[2], self.head[3]])
    }

    /// Records of the authority section.
    #[inline]
    pub fn authority_count(&self) -> u16 {
        u16::from_be_bytes([self.head[4], self.head[5]])
    }

    /// Smallest TTL of all records when they were stored, in seconds; `u32::MAX` if there are none.
    #[inline]
    pub fn min_ttl(&self) -> u32 {
        let [.., a, b, c, d] = *self.head;
        u32::from_le_bytes([a, b, c, d])
    }

    /// The bytes that go behind the question.
    #[inline]
    pub fn tail(&self) -> &'a [u8] {
        self.tail
    }

    #[inline]
    fn status(&self) -> u16 {
        u16::from_le_bytes([self.head[8], self.head[9]])
    }

    /// Where the TTLs are, from the tail's start, in the order of the records.
    #[inline]
    fn ttl_offsets(&self) -> impl Iterator<Item = usize> + use<'a> {
        self.ttl_offsets.iter().map(|bytes| usize::from(u16::from_le_bytes(*bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A template of one record: status 3 and secure, TTL offset 6, smallest TTL 300.
    const BYTES: [u8; 20] = [0, 1, 0, 0, 0, 1, 0, 0, 3, 0x80, 1, 0, 0x2c, 1, 0, 0, 6, 0, 7, 8];

    #[test]
    fn the_head_is_read_field_by_field() {
        let template = Template::from_bytes(&BYTES).unwrap();
        assert_eq!(template.rcode(), Rcode::NXDOMAIN);
        assert!(template.secure());
        assert_eq!(template.answer_count(), 0);
        assert_eq!(template.authority_count(), 1);
        assert_eq!(template.min_ttl(), 300);
        assert_eq!(template.ttl_offsets().collect::<Vec<_>>(), [6]);
        assert_eq!(template.tail(), [7, 8]);
    }

    #[test]
    fn bytes_that_are_too_short_are_no_template() {
        for len in 0..18 {
            assert!(Template::from_bytes(&BYTES[..len]).is_none(), "{len} bytes");
        }
        assert!(Template::from_bytes(&BYTES[..18]).is_some());
    }
}
