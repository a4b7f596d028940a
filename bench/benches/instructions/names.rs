//! Folding and comparing names, each arm by itself.

use std::hint::black_box;

use gungraun::prelude::*;
use swiftlet_parser::name::fold::arms::{Arm, Avx2, Scalar, Sse2};

use crate::inputs::names::{of_length, recased};

/// Names of each benchmark.
const NAMES: u64 = 64;

/// An arm, and pairs of names of one length that are equal but for their case.
struct Pairs<A> {
    arm: A,
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    folded: Vec<u8>,
}

/// `None` where the processor lacks the arm.
fn pairs<A: Arm>(len: usize) -> Option<Pairs<A>> {
    let pair = |number| {
        let name = of_length(len, number);
        (recased(&name, number), recased(&name, number + NAMES))
    };
    let arm = A::detect()?;
    Some(Pairs { arm, pairs: (0..NAMES).map(pair).collect(), folded: vec![0; len] })
}

#[library_benchmark]
#[bench::scalar_8(pairs::<Scalar>(8))]
#[bench::scalar_32(pairs::<Scalar>(32))]
#[bench::scalar_255(pairs::<Scalar>(255))]
#[bench::sse2_16(pairs::<Sse2>(16))]
#[bench::sse2_32(pairs::<Sse2>(32))]
#[bench::sse2_255(pairs::<Sse2>(255))]
#[bench::avx2_64(pairs::<Avx2>(64))]
#[bench::avx2_255(pairs::<Avx2>(255))]
fn fold<A: Arm>(mut pairs: Option<Pairs<A>>) -> Option<Pairs<A>> {
    if let Some(Pairs { arm, pairs, folded }) = &mut pairs {
        for (name, _) in pairs {
            arm.fold(black_box(name), black_box(folded));
        }
    }
    pairs
}

#[library_benchmark]
#[bench::scalar_8(pairs::<Scalar>(8))]
#[bench::scalar_32(pairs::<Scalar>(32))]
#[bench::scalar_255(pairs::<Scalar>(255))]
#[bench::sse2_16(pairs::<Sse2>(16))]
#[bench::sse2_32(pairs::<Sse2>(32))]
#[bench::sse2_255(pairs::<Sse2>(255))]
#[bench::avx2_64(pairs::<Avx2>(64))]
#[bench::avx2_255(pairs::<Avx2>(255))]
fn compare<A: Arm>(pairs: Option<Pairs<A>>) -> Option<Pairs<A>> {
    if let Some(Pairs { arm, pairs, .. }) = &pairs {
        for (name, other) in pairs {
            black_box(arm.eq_ignore_case(black_box(name), black_box(other)));
        }
    }
    pairs
}

library_benchmark_group!(name = arms, benchmarks = [fold, compare]);
