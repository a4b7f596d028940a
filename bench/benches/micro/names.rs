//! Folding and comparing names: each arm at each length, and the choice among them.
//!
//! An arm at a length that is too short for it shows what its way to the next smaller one costs.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use swiftlet_parser::name::fold::arms::{Arm, Avx2, Scalar, Sse2};
use swiftlet_parser::name::fold::{eq_ignore_case, fold};

use crate::inputs::names;

/// Lengths of names in bytes.
const LENGTHS: [usize; 7] = [4, 8, 16, 32, 64, 128, 255];

/// Names that one iteration goes through: few enough to stay in the first cache at every length.
const NAMES: u64 = 64;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("names");
    group.measurement_time(Duration::from_millis(500)).warm_up_time(Duration::from_millis(250));
    group.throughput(Throughput::Elements(NAMES));
    arm::<Scalar>(&mut group);
    arm::<Sse2>(&mut group);
    arm::<Avx2>(&mut group);
    for len in LENGTHS {
        measure(&mut group, "chosen", len, fold, eq_ignore_case);
    }
    group.finish();
}

fn arm<A: Arm>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let Some(arm) = A::detect() else {
        eprintln!("names: an arm is left out, for this processor lacks it: {}", A::NAME);
        return;
    };
    for len in LENGTHS {
        let fold = |src: &[u8], dst: &mut [u8]| arm.fold(src, dst);
        measure(group, A::NAME, len, fold, |a: &[u8], b: &[u8]| arm.eq_ignore_case(a, b));
    }
}

fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    arm: &str,
    len: usize,
    fold: impl Fn(&[u8], &mut [u8]),
    eq_ignore_case: impl Fn(&[u8], &[u8]) -> bool,
) {
    let name = |number| names::recased(&names::of_length(len, number), number);
    let all: Vec<Vec<u8>> = (0..NAMES).map(name).collect();
    let mut folded = vec![0; len];
    group.bench_function(format!("fold/{arm}/{len}"), |bencher| {
        bencher.iter(|| {
            for name in &all {
                fold(black_box(name), black_box(&mut folded));
            }
        });
    });
    // Equal but for the case, so that every byte is looked at.
    let others: Vec<Vec<u8>> = all.iter().zip(NAMES..).map(|(a, n)| names::recased(a, n)).collect();
    group.bench_function(format!("compare/{arm}/{len}"), |bencher| {
        bencher.iter(|| {
            for (name, other) in all.iter().zip(&others) {
                black_box(eq_ignore_case(black_box(name), black_box(other)));
            }
        });
    });
}
