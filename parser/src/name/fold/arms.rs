//! The arms one by one, for benchmarks, which measure each of them at every length. All else calls
//! [`fold`](super::fold) and [`eq_ignore_case`](super::eq_ignore_case), which choose.

use super::scalar;
#[cfg(all(feature = "simd", target_arch = "x86_64", target_feature = "sse2"))]
use super::{avx2, sse2};

/// One way of folding and comparing. A value is the proof that this processor has it.
pub trait Arm: Copy {
    /// The arm's name in reports.
    const NAME: &'static str;

    /// The arm, if this build and this processor have it.
    fn detect() -> Option<Self>;

    /// Copies `src` to `dst`, which must be as long, in lower case. With another length some bytes
    /// of `dst` are left as they were, and debug builds panic.
    fn fold(self, src: &[u8], dst: &mut [u8]);

    /// Whether `a` and `b`, which must be equally long, are equal but for the case of ASCII
    /// letters. With different lengths the result means nothing, and debug builds panic.
    fn eq_ignore_case(self, a: &[u8], b: &[u8]) -> bool;
}

/// Eight bytes at a time; part of every build.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

impl Arm for Scalar {
    const NAME: &'static str = "scalar";

    fn detect() -> Option<Self> {
        Some(Self)
    }

    #[inline]
    fn fold(self, src: &[u8], dst: &mut [u8]) {
        scalar::fold(src, dst);
    }

    #[inline]
    fn eq_ignore_case(self, a: &[u8], b: &[u8]) -> bool {
        scalar::eq_ignore_case(a, b)
    }
}

/// Sixteen bytes at a time; shorter slices go to [`Scalar`].
#[cfg(all(feature = "simd", target_arch = "x86_64", target_feature = "sse2"))]
#[derive(Clone, Copy, Debug)]
pub struct Sse2;

#[cfg(all(feature = "simd", target_arch = "x86_64", target_feature = "sse2"))]
impl Arm for Sse2 {
    const NAME: &'static str = "sse2";

    fn detect() -> Option<Self> {
        Some(Self)
    }

    #[inline]
    fn fold(self, src: &[u8], dst: &mut [u8]) {
        sse2::fold(src, dst);
    }

    #[inline]
    fn eq_ignore_case(self, a: &[u8], b: &[u8]) -> bool {
        sse2::eq_ignore_case(a, b)
    }
}

/// Thirty-two bytes at a time; shorter slices go to [`Sse2`].
#[cfg(all(feature = "simd", target_arch = "x86_64", target_feature = "sse2"))]
#[derive(Clone, Copy)]
pub struct Avx2(avx2::Arm);

#[cfg(all(feature = "simd", target_arch = "x86_64", target_feature = "sse2"))]
impl Arm for Avx2 {
    const NAME: &'static str = "avx2";

    fn detect() -> Option<Self> {
        avx2::Arm::detect().map(Self)
    }

    #[inline]
    fn fold(self, src: &[u8], dst: &mut [u8]) {
        self.0.fold(src, dst);
    }

    #[inline]
    fn eq_ignore_case(self, a: &[u8], b: &[u8]) -> bool {
        self.0.eq_ignore_case(a, b)
    }
}

/// What stands for an arm that this build doesn't have; there is no value of it.
#[cfg(not(all(feature = "simd", target_arch = "x86_64", target_feature = "sse2")))]
#[derive(Clone, Copy, Debug)]
pub enum Absent {}

/// Not in this build.
#[cfg(not(all(feature = "simd", target_arch = "x86_64", target_feature = "sse2")))]
pub type Sse2 = Absent;

/// Not in this build.
#[cfg(not(all(feature = "simd", target_arch = "x86_64", target_feature = "sse2")))]
pub type Avx2 = Absent;

#[cfg(not(all(feature = "simd", target_arch = "x86_64", target_feature = "sse2")))]
impl Arm for Absent {
    const NAME: &'static str = "absent";

    fn detect() -> Option<Self> {
        None
    }

    fn fold(self, _: &[u8], _: &mut [u8]) {
        match self {}
    }

    fn eq_ignore_case(self, _: &[u8], _: &[u8]) -> bool {
        match self {}
    }
}
