//! The whole way of a packet that needs no upstream, in batches as they come from a socket.

use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};

use crate::inputs::served::{BATCH, CLIENT, Packets, STRANGER, Served};
use crate::inputs::{Make, queries, scattered};

/// Names that the cache knows.
const NAMES: u64 = 10_000;

/// Packets that are served in turn, of names in no order.
const PACKETS: u64 = 1 << 14;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("serve");
    group.throughput(Throughput::Elements(BATCH as u64));
    let served = Served::new(NAMES);
    let cases: [(&str, Make, IpAddr); 6] = [
        ("hit", queries::plain, CLIENT),
        ("hit_edns", queries::edns, CLIENT),
        ("hit_cookie", queries::cookie, CLIENT),
        ("local_answer", queries::chaos, CLIENT),
        ("refused", queries::plain, STRANGER),
        ("hostile", queries::hostile, CLIENT),
    ];
    for (case, query, client) in cases {
        let packets: Vec<Vec<u8>> =
            (0..PACKETS).map(|number| query(scattered(number) % NAMES)).collect();
        let mut slots = Packets::new();
        group.bench_function(case, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut batches = packets.chunks_exact(BATCH).cycle();
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    // A reply has overwritten the query; to put the next one there is the kernel's work.
                    slots.fill(batches.next().unwrap_or_default().iter().map(Vec::as_slice));
                    let begun = Instant::now();
                    black_box(served.serve(black_box(&mut slots), client));
                    spent += begun.elapsed();
                }
                spent
            });
        });
    }
    group.finish();
}
