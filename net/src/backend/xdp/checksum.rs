//! The Internet checksum (RFC 1071), as sums that are added up before they are folded.
//!
//! A sum is a `u64` over the 16-bit words as they stand in memory: the arithmetic does not care about
//! the byte order as long as all parts have the same, so no word is ever swapped. It holds for up to
//! 2^32 words; a frame has at most 2^15.

/// Sums bytes; the last word of an odd number of them is filled up with a zero. Parts may be added
/// when each but the last has an even length.
#[inline]
#[must_use]
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let (eights, rest) = bytes.as_chunks::<8>();
    let mut total = 0;
    for eight in eights {
        let words = u64::from_ne_bytes(*eight);
        total += (words & 0xffff_ffff) + (words >> 32);
    }
    let (four, rest) = match rest.split_first_chunk::<4>() {
        Some((four, rest)) => (u32::from_ne_bytes(*four), rest),
        None => (0, rest),
    };
    let last = match *rest {
        [a] => [a, 0, 0, 0],
        [a, b] => [a, b, 0, 0],
        [a, b, c] => [a, b, c, 0],
        _ => [0; 4],
    };
    total + u64::from(four) + u64::from(u32::from_ne_bytes(last))
}

/// One word more for a sum, given by its value.
#[inline]
#[must_use]
pub(super) fn word(value: u16) -> u64 {
    u64::from(value.to_be())
}

/// Brings a sum down to 16 bits; 0xffff if it covers a correct checksum. It is 0 only for a sum of 0.
#[inline]
#[must_use]
pub(super) fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As RFC 1071 words it, one byte pair after the other.
    fn naive(bytes: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in bytes.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    fn folded(bytes: &[u8]) -> u16 {
        u16::from_be(fold(sum(bytes)))
    }

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(folded(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn extremes_of_every_length() {
        for len in 0..=300 {
            for byte in [0, 1, 0x80, 0xff] {
                let bytes = vec![byte; len];
                assert_eq!(folded(&bytes), naive(&bytes), "{len} times {byte}");
            }
        }
        assert_eq!(fold(u64::MAX), 0xffff);
        assert_eq!(fold(0), 0);
    }

    proptest! {
        #[test]
        fn a_sum_is_what_the_naive_one_is(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            prop_assert_eq!(folded(&bytes), naive(&bytes));
        }

        #[test]
        fn parts_add_up(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..150) {
            let at = (2 * at).min(bytes.len() & !1);
            let (front, back) = bytes.split_at(at);
            prop_assert_eq!(fold(sum(front) + sum(back)), fold(sum(&bytes)));
        }

        #[test]
        fn a_word_is_its_bytes(value: u16) {
            prop_assert_eq!(fold(word(value)), fold(sum(&value.to_be_bytes())));
        }
    }
}
