//! The arm that every target has: eight bytes at a time in a general register.
//!
//! A length that is no multiple of eight ends in a word that overlaps the one before, so nothing is
//! read or written byte by byte but names of fewer than four bytes.

/// Copies `src` to `dst`, which is as long, in lower case.
#[inline]
pub(super) fn fold(src: &[u8], dst: &mut [u8]) {
    debug_assert_eq!(src.len(), dst.len());
    if let (Some(last), Some(last_dst)) = (src.last_chunk::<8>(), dst.last_chunk_mut::<8>()) {
        *last_dst = fold_bytes(*last);
        for (word, word_dst) in src.as_chunks::<8>().0.iter().zip(dst.as_chunks_mut::<8>().0) {
            *word_dst = fold_bytes(*word);
        }
    } else if let (Some(first), Some(last)) = (src.first_chunk::<4>(), src.last_chunk::<4>()) {
        if let Some(first_dst) = dst.first_chunk_mut::<4>() {
            *first_dst = fold_half(*first);
        }
        if let Some(last_dst) = dst.last_chunk_mut::<4>() {
            *last_dst = fold_half(*last);
        }
    } else {
        for (byte, byte_dst) in src.iter().zip(dst) {
            *byte_dst = byte.to_ascii_lowercase();
        }
    }
}

/// Whether `a` and `b`, which are equally long, are equal but for the case of ASCII letters.
#[inline]
pub(super) fn eq_ignore_case(a: &[u8], b: &[u8]) -> bool {
    debug_assert_eq!(a.len(), b.len());
    if let (Some(last_a), Some(last_b)) = (a.last_chunk::<8>(), b.last_chunk::<8>()) {
        let mut words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
        fold_bytes(*last_a) == fold_bytes(*last_b)
            && words.all(|(a, b)| fold_bytes(*a) == fold_bytes(*b))
    } else if let (Some(first_a), Some(last_a), Some(first_b), Some(last_b)) =
        (a.first_chunk::<4>(), a.last_chunk::<4>(), b.first_chunk::<4>(), b.last_chunk::<4>())
    {
        fold_half(*first_a) == fold_half(*first_b) && fold_half(*last_a) == fold_half(*last_b)
    } else {
        a.eq_ignore_ascii_case(b)
    }
}

#[inline(always)]
fn fold_half(bytes: [u8; 4]) -> [u8; 4] {
    let [b0, b1, b2, b3, ..] = fold_word(u64::from(u32::from_le_bytes(bytes))).to_le_bytes();
    [b0, b1, b2, b3]
}

/// Lower-cases the letters among the eight bytes of a word: in each byte the top bit of `letter`
/// says that it is one of `A` to `Z`, and two places to the right that bit is the difference
/// between the cases.
#[inline(always)]
pub(crate) fn fold_word(word: u64) -> u64 {
    /// One in each byte.
    const ONES: u64 = u64::MAX / 255;
    // Without its top bit no byte plus 0x3f carries into the next one.
    let low = word & (ONES * 0x7f);
    let at_least_a = low + ONES * (0x80 - b'A' as u64);
    let beyond_z = low + ONES * (0x7f - b'Z' as u64);
    let letter = at_least_a & !beyond_z & !word & (ONES * 0x80);
    word | letter >> 2
}

#[inline(always)]
fn fold_bytes(bytes: [u8; 8]) -> [u8; 8] {
    fold_word(u64::from_ne_bytes(bytes)).to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::fold_suite;

    fold_suite!(super::fold, super::eq_ignore_case);
}
