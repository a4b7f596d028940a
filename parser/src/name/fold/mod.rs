//! Lower-casing and case-insensitive comparison of names (RFC 1035 §2.3.3, RFC 4343).
//!
//! Only the 26 ASCII letters fold. The length bytes of a name in wire format are at most 63 and so
//! below `A`: a whole wire name is folded and compared at once, without looking for its labels.
//!
//! Three arms, one surface, the same result for every input (one suite at the end of this file runs
//! for each):
//!
//! | bytes  | arm                        | cost of a fold, in loads and stores     |
//! |--------|----------------------------|-----------------------------------------|
//! | 0-15   | `scalar`, words of 8 bytes | two of each, overlapping                |
//! | 16-63  | `sse2`, inlined            | one of each per 16 bytes, then the tail |
//! | 64-    | `avx2`, behind a call      | one of each per 32 bytes, then the tail |
//!
//! Most names are 15 to 40 bytes long. SSE2 is part of x86-64, so its arm is inlined into the
//! caller and needs no detection; AVX2 is asked for at run time (the standard library caches the
//! answer in one word) and cannot be inlined, which only pays for long names. Everywhere else, and
//! without the feature `simd`, `scalar` serves all lengths.

#[doc(hidden)]
pub mod arms;
#[cfg(all(feature = "simd", target_arch = "x86_64", target_feature = "sse2"))]
mod avx2;
mod scalar;
#[cfg(all(feature = "simd", target_arch = "x86_64", target_feature = "sse2"))]
mod sse2;

pub(crate) use self::scalar::fold_word;

/// From this length on a vector of 16 bytes is loaded.
#[cfg(all(feature = "simd", target_arch = "x86_64", target_feature = "sse2"))]
const SSE2_LEN_MIN: usize = 16;

/// From this length on the call into the AVX2 arm is worth it.
#[cfg(all(feature = "simd", target_arch = "x86_64", target_feature = "sse2"))]
const AVX2_LEN_MIN: usize = 64;

/// Copies `src` to `dst` in lower case: as many bytes as the shorter of the two has.
#[inline]
pub fn fold(src: &[u8], dst: &mut [u8]) {
    let len = src.len().min(dst.len());
    let (Some(src), Some(dst)) = (src.get(..len), dst.get_mut(..len)) else { return };
    #[cfg(all(feature = "simd", target_arch = "x86_64", target_feature = "sse2"))]
    {
        if len >= AVX2_LEN_MIN
            && let Some(avx2) = avx2::Arm::detect()
        {
            return avx2.fold(src, dst);
        }
        if len >= SSE2_LEN_MIN {
            return sse2::fold(src, dst);
        }
    }
    scalar::fold(src, dst);
}

/// Whether `a` and `b` are equal but for the case of ASCII letters.
#[inline]
#[must_use]
pub fn eq_ignore_case(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    #[cfg(all(feature = "simd", target_arch = "x86_64", target_feature = "sse2"))]
    {
        if a.len() >= AVX2_LEN_MIN
            && let Some(avx2) = avx2::Arm::detect()
        {
            return avx2.eq_ignore_case(a, b);
        }
        if a.len() >= SSE2_LEN_MIN {
            return sse2::eq_ignore_case(a, b);
        }
    }
    scalar::eq_ignore_case(a, b)
}

/// The widest arm that serves here, by its name in reports.
#[must_use]
pub fn widest_arm() -> &'static str {
    #[cfg(all(feature = "simd", target_arch = "x86_64", target_feature = "sse2"))]
    return if avx2::Arm::detect().is_some() { "AVX2" } else { "SSE2" };
    #[cfg(not(all(feature = "simd", target_arch = "x86_64", target_feature = "sse2")))]
    "scalar words"
}

/// One suite for every arm, against the standard library's byte-wise functions. `$fold` and `$eq`
/// take slices of equal length, as the arms do.
#[cfg(test)]
macro_rules! fold_suite {
    ($fold:expr, $eq:expr) => {
        use proptest::prelude::*;

        /// Bytes on both sides of every edge: `@AZ[`, `` `az{ ``, 0x7f, 0x80, and the letters with
        /// the top bit.
        const EDGES: &[u8] = b"\x00\x01\x1f\x20\x3f@ABYZ[\\_`abyz{\x7f\
            \x80\x81\xa0\xc0\xc1\xda\xdb\xe0\xe1\xfa\xfb\xff";

        fn edge_or_any() -> impl Strategy<Value = u8> {
            prop_oneof![prop::sample::select(EDGES), any::<u8>()]
        }

        /// Folds into the middle of a marked buffer, so that a store outside of the slice is seen.
        fn check(bytes: &[u8], offset: usize) {
            let guarded = [&vec![b'Q'; offset][..], bytes, &[b'Q'; 40]].concat();
            let src = &guarded[offset..offset + bytes.len()];
            let mut dst = vec![0xee; offset + bytes.len() + 40];
            $fold(src, &mut dst[offset..offset + bytes.len()]);
            let expected = bytes.to_ascii_lowercase();
            assert_eq!(&dst[offset..offset + bytes.len()], &expected[..]);
            let mut outside = dst[..offset].iter().chain(&dst[offset + bytes.len()..]);
            assert!(outside.all(|byte| *byte == 0xee));
            assert!($eq(src, &expected));
            assert!($eq(src, &bytes.to_ascii_uppercase()));
            assert!($eq(src, bytes));
        }

        #[test]
        fn every_length_and_alignment_with_bytes_around_every_edge() {
            for len in 0..=300 {
                for offset in [0, 1, 7, 15, 17, 31] {
                    let bytes = (0..len).map(|at| EDGES[(at * 7 + len) % EDGES.len()]);
                    check(&bytes.collect::<Vec<u8>>(), offset);
                }
            }
        }

        #[test]
        fn every_pair_of_bytes_compares_as_the_standard_library_does_at_every_place() {
            for len in [1usize, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100] {
                for at in [0, len / 3, len / 2, len - 1] {
                    for a in 0..=255u8 {
                        for b in [a, a ^ 0x20, a ^ 0x80, a ^ 1, a.wrapping_add(1), b'a', b'Z'] {
                            let (mut left, mut right) = (vec![b'x'; len], vec![b'X'; len]);
                            (left[at], right[at]) = (a, b);
                            let expected = a.eq_ignore_ascii_case(&b);
                            assert_eq!($eq(&left, &right), expected, "{a} {b} at {at} of {len}");
                        }
                    }
                }
            }
        }

        proptest! {
            #[test]
            fn folds_as_the_standard_library_does(
                bytes in prop::collection::vec(edge_or_any(), 0..=300),
                offset in 0usize..64,
            ) {
                check(&bytes, offset);
            }

            #[test]
            fn compares_as_the_standard_library_does(
                a in prop::collection::vec(edge_or_any(), 0..=300),
                flips in prop::collection::vec((any::<prop::sample::Index>(), edge_or_any()), 0..3),
                case in any::<u64>(),
            ) {
                let mut b: Vec<u8> = (0u32..)
                    .zip(&a)
                    .map(|(at, byte)| match case.rotate_left(at) & 1 {
                        0 => byte.to_ascii_lowercase(),
                        _ => byte.to_ascii_uppercase(),
                    })
                    .collect();
                prop_assert!($eq(&a, &b));
                for (at, byte) in flips.iter().filter(|_| !a.is_empty()) {
                    b[at.index(a.len())] = *byte;
                }
                prop_assert_eq!($eq(&a, &b), a.eq_ignore_ascii_case(&b));
            }
        }
    };
}
#[cfg(test)]
use fold_suite;

#[cfg(test)]
mod tests {
    fold_suite!(super::fold, super::eq_ignore_case);

    #[test]
    fn folds_as_many_bytes_as_the_shorter_slice_has() {
        let mut dst = *b"......";
        super::fold(b"ABC", &mut dst);
        assert_eq!(&dst, b"abc...");
        super::fold(b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVWXYZ", &mut dst);
        assert_eq!(&dst, b"abcdef");
        assert!(!super::eq_ignore_case(b"abc", b"abcd"));
    }
}
