//! Making a template of a response, and rendering it behind a question.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use swiftlet_parser::query;
use swiftlet_parser::template::{self, Template};

use crate::inputs::answers::{self, Respond};
use crate::inputs::{names, queries};

/// Answers that one iteration goes through.
const ANSWERS: u64 = 256;

/// Age of the answers in s: every TTL is rewritten.
const AGE_S: u32 = 60;

/// Bytes that a reply may have.
const LIMIT: usize = 1232;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("render");
    group.throughput(Throughput::Elements(ANSWERS));
    let kinds: [(&str, Respond); 3] =
        [("address", answers::address), ("chain", answers::chain), ("thirteen", answers::thirteen)];
    for (kind, response) in kinds {
        let packets: Vec<Vec<u8>> = (0..ANSWERS).map(queries::plain).collect();
        let facts = packets.iter().map(|packet| query::parse(packet).expect("a valid query"));
        let facts: Vec<_> = facts.collect();
        let responses: Vec<_> = (0..ANSWERS).map(|n| response(&names::usual(n))).collect();
        let stored: Vec<_> = responses.iter().map(|r| answers::template(r)).collect();
        // Rendering leaves the question as it was: each buffer serves again and again.
        let mut buffers: Vec<Vec<u8>> = packets.clone();
        buffers.iter_mut().for_each(|buf| buf.resize(LIMIT, 0));
        group.bench_function(format!("reply/{kind}"), |bencher| {
            bencher.iter(|| {
                for ((buf, query), stored) in buffers.iter_mut().zip(&facts).zip(&stored) {
                    let template = Template::from_bytes(black_box(stored)).expect("a template");
                    black_box(template::render(template, black_box(buf), query, AGE_S, LIMIT));
                }
            });
        });
        let mut out = Vec::with_capacity(4096);
        group.bench_function(format!("parse_and_build/{kind}"), |bencher| {
            bencher.iter(|| {
                for response in &responses {
                    answers::with_source(black_box(response), |source| {
                        template::build(source, &mut out).expect("it can be stored");
                    });
                    black_box(&out);
                }
            });
        });
    }
    group.finish();
}
