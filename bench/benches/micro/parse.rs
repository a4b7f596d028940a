//! Reading the facts of a query.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use swiftlet_parser::query;

use crate::ROUND;
use crate::inputs::{Make, queries};

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Elements(ROUND as u64));
    let kinds: [(&str, Make); 5] = [
        ("plain", queries::plain),
        ("edns", queries::edns),
        ("cookie", queries::cookie),
        ("long", queries::long),
        ("hostile", queries::hostile),
    ];
    for (kind, query) in kinds {
        let packets: Vec<Vec<u8>> = (0..ROUND as u64).map(query).collect();
        group.bench_function(kind, |bencher| {
            bencher.iter(|| {
                for packet in &packets {
                    black_box(query::parse(black_box(packet))).ok();
                }
            });
        });
    }
    group.finish();
}
