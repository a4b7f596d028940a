//! Building a key, its hash included.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use swiftlet_parser::key::{KeyBuf, Variant};
use swiftlet_parser::rr::{Class, Type};

use crate::ROUND;
use crate::inputs::{Make, names, stored};

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("keys");
    group.throughput(Throughput::Elements(ROUND as u64));
    let kinds: [(&str, Make); 4] = [
        ("short", |number| names::of_length(7, number)),
        ("usual", names::usual),
        ("mixed_case", |number| names::recased(&names::usual(number), number)),
        ("longest", |number| names::of_length(255, number)),
    ];
    let (seed, mut keys) = (stored::seed(), KeyBuf::default());
    let variant = Variant::new(false, false, 0);
    for (kind, name) in kinds {
        let all: Vec<Vec<u8>> = (0..ROUND as u64).map(name).collect();
        group.bench_function(kind, |bencher| {
            bencher.iter(|| {
                for name in &all {
                    let key = keys.build(&seed, black_box(name), Type::A, Class::IN, variant);
                    black_box((key.hash, key.bytes));
                }
            });
        });
    }
    group.finish();
}
