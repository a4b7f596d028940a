//! Sixteen bytes at a time. This file is compiled only where SSE2 is part of the target, as it is
//! of every ordinary x86-64 target; so there is nothing to detect, and the arm is inlined into its
//! callers.
//!
//! Slices shorter than a vector go to the scalar arm; the last vector of a longer one overlaps the
//! one before.
#![expect(
    unsafe_code,
    reason = "vectors go through pointers, and intrinsics are safe only under their feature"
)]

use std::arch::x86_64::{
    __m128i, _mm_add_epi8, _mm_and_si128, _mm_cmpeq_epi8, _mm_cmplt_epi8, _mm_loadu_si128,
    _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8, _mm_storeu_si128,
};

use super::scalar;

/// Bytes in a vector.
const LANES: usize = 16;

/// Copies `src` to `dst`, which is as long, in lower case.
#[inline]
pub(super) fn fold(src: &[u8], dst: &mut [u8]) {
    // SAFETY: this file is compiled only for targets that have SSE2.
    unsafe { fold_chunks(src, dst) }
}

/// Whether `a` and `b`, which are equally long, are equal but for the case of ASCII letters.
#[inline]
pub(super) fn eq_ignore_case(a: &[u8], b: &[u8]) -> bool {
    // SAFETY: this file is compiled only for targets that have SSE2.
    unsafe { equal_chunks(a, b) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn fold_chunks(src: &[u8], dst: &mut [u8]) {
    debug_assert_eq!(src.len(), dst.len());
    let (Some(last), Some(last_dst)) = (src.last_chunk::<LANES>(), dst.last_chunk_mut::<LANES>())
    else {
        return scalar::fold(src, dst);
    };
    store(last_dst, fold_vector(load(last)));
    for (chunk, chunk_dst) in src.as_chunks::<LANES>().0.iter().zip(dst.as_chunks_mut::<LANES>().0)
    {
        store(chunk_dst, fold_vector(load(chunk)));
    }
}

#[inline]
#[target_feature(enable = "sse2")]
fn equal_chunks(a: &[u8], b: &[u8]) -> bool {
    debug_assert_eq!(a.len(), b.len());
    let (Some(last_a), Some(last_b)) = (a.last_chunk::<LANES>(), b.last_chunk::<LANES>()) else {
        return scalar::eq_ignore_case(a, b);
    };
    if !equal(last_a, last_b) {
        return false;
    }
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        if !equal(a, b) {
            return false;
        }
    }
    true
}

#[inline]
#[target_feature(enable = "sse2")]
fn equal(a: &[u8; LANES], b: &[u8; LANES]) -> bool {
    _mm_movemask_epi8(_mm_cmpeq_epi8(fold_vector(load(a)), fold_vector(load(b)))) == 0xffff
}

/// Lower-cases the letters among sixteen bytes. There is only a signed comparison, so the bytes are
/// moved until `A` is the smallest value there is: then the letters are what is below the smallest
/// value plus 26.
#[inline]
#[target_feature(enable = "sse2")]
fn fold_vector(bytes: __m128i) -> __m128i {
    let moved = _mm_add_epi8(bytes, _mm_set1_epi8(i8::MIN.wrapping_sub(b'A' as i8)));
    let letter = _mm_cmplt_epi8(moved, _mm_set1_epi8(i8::MIN + 26));
    _mm_or_si128(bytes, _mm_and_si128(letter, _mm_set1_epi8(0x20)))
}

#[inline]
#[target_feature(enable = "sse2")]
fn load(bytes: &[u8; LANES]) -> __m128i {
    // SAFETY: the reference is valid for reads of 16 bytes, and the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn store(bytes: &mut [u8; LANES], vector: __m128i) {
    // SAFETY: the reference is valid for writes of 16 bytes, and the store needs no alignment.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), vector) }
}

#[cfg(test)]
mod tests {
    use super::super::fold_suite;

    fold_suite!(super::fold, super::eq_ignore_case);
}
