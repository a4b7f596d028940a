//! Thirty-two bytes at a time, where the processor has AVX2.
//!
//! An [`Arm`] is the proof that it has: its methods are safe because only [`Arm::detect`] makes
//! one. Slices shorter than a vector go to the SSE2 arm; the last vector of a longer one overlaps
//! the one before.
#![expect(
    unsafe_code,
    reason = "a vector is loaded and stored through a pointer, and AVX2 is not part of the target"
)]

use std::arch::x86_64::{
    __m256i, _mm256_add_epi8, _mm256_and_si256, _mm256_cmpeq_epi8, _mm256_cmpgt_epi8,
    _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8,
    _mm256_storeu_si256,
};

use super::sse2;

/// Bytes in a vector.
const LANES: usize = 32;

/// Proof that the processor has AVX2.
#[derive(Clone, Copy)]
pub(super) struct Arm(());

impl Arm {
    /// The arm, if the processor has it. The standard library asks the processor once and caches
    /// the answer.
    #[inline]
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    /// Copies `src` to `dst`, which is as long, in lower case.
    #[inline]
    pub(super) fn fold(self, src: &[u8], dst: &mut [u8]) {
        // SAFETY: `self` exists, so `detect` has found AVX2.
        unsafe { fold(src, dst) }
    }

    /// Whether `a` and `b`, which are equally long, are equal but for the case of ASCII letters.
    #[inline]
    pub(super) fn eq_ignore_case(self, a: &[u8], b: &[u8]) -> bool {
        // SAFETY: `self` exists, so `detect` has found AVX2.
        unsafe { eq_ignore_case(a, b) }
    }
}

#[target_feature(enable = "avx2")]
fn fold(src: &[u8], dst: &mut [u8]) {
    debug_assert_eq!(src.len(), dst.len());
    let (Some(last), Some(last_dst)) = (src.last_chunk::<LANES>(), dst.last_chunk_mut::<LANES>())
    else {
        return sse2::fold(src, dst);
    };
    store(last_dst, fold_vector(load(last)));
    for (chunk, chunk_dst) in src.as_chunks::<LANES>().0.iter().zip(dst.as_chunks_mut::<LANES>().0)
    {
        store(chunk_dst, fold_vector(load(chunk)));
    }
}

#[target_feature(enable = "avx2")]
fn eq_ignore_case(a: &[u8], b: &[u8]) -> bool {
    debug_assert_eq!(a.len(), b.len());
    let (Some(last_a), Some(last_b)) = (a.last_chunk::<LANES>(), b.last_chunk::<LANES>()) else {
        return sse2::eq_ignore_case(a, b);
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
#[target_feature(enable = "avx2")]
fn equal(a: &[u8; LANES], b: &[u8; LANES]) -> bool {
    _mm256_movemask_epi8(_mm256_cmpeq_epi8(fold_vector(load(a)), fold_vector(load(b)))) == -1
}

/// Lower-cases the letters among thirty-two bytes. There is only a signed comparison, so the bytes
/// are moved until `A` is the smallest value there is: then the letters are what the smallest value
/// plus 26 is greater than.
#[inline]
#[target_feature(enable = "avx2")]
fn fold_vector(bytes: __m256i) -> __m256i {
    let moved = _mm256_add_epi8(bytes, _mm256_set1_epi8(i8::MIN.wrapping_sub(b'A' as i8)));
    let letter = _mm256_cmpgt_epi8(_mm256_set1_epi8(i8::MIN + 26), moved);
    _mm256_or_si256(bytes, _mm256_and_si256(letter, _mm256_set1_epi8(0x20)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; LANES]) -> __m256i {
    // SAFETY: the reference is valid for reads of 32 bytes, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(bytes: &mut [u8; LANES], vector: __m256i) {
    // SAFETY: the reference is valid for writes of 32 bytes, and the store needs no alignment.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), vector) }
}

#[cfg(test)]
mod tests {
    use super::super::fold_suite;
    use super::Arm;

    // On a processor without AVX2 the suite has nothing to run: what stands in for the arm is the
    // reference itself.
    fn fold(src: &[u8], dst: &mut [u8]) {
        match Arm::detect() {
            Some(arm) => arm.fold(src, dst),
            None => dst.copy_from_slice(&src.to_ascii_lowercase()),
        }
    }

    fn eq_ignore_case(a: &[u8], b: &[u8]) -> bool {
        Arm::detect().map_or_else(|| a.eq_ignore_ascii_case(b), |arm| arm.eq_ignore_case(a, b))
    }

    fold_suite!(fold, eq_ignore_case);
}
