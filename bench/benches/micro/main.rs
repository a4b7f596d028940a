//! What each step on the way of a packet costs in time, by criterion; `make bench-micro` runs all of
//! it in a few minutes, `cargo bench --bench micro -- keys` one group.
//!
//! Each iteration goes through many inputs that differ, so that the branch predictor cannot learn
//! one of them, and figures are per input (criterion's `thrpt`; its `time` is of the whole round).
//! They are for comparing variants of one function in one run: for claims about the server see
//! `swiftlet-bench`, for changes from commit to commit see `make bench-check`.

mod cache;
#[path = "../inputs/mod.rs"]
mod inputs;
mod keys;
mod names;
mod parse;
mod render;
mod serve;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use swiftlet_cache::{MokaCache, SegmentedCache};

/// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Inputs that one iteration goes through, where they are small.
const ROUND: usize = 1024;

fn stores(criterion: &mut Criterion) {
    // One line for each implementation of the trait.
    cache::bench::<SegmentedCache>(criterion, "segmented");
    cache::bench::<MokaCache>(criterion, "moka");
}

fn briefly() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30)
        .nresamples(10_000)
        .without_plots()
}

criterion_group! {
    name = micro;
    config = briefly();
    targets = parse::bench, names::bench, keys::bench, stores, render::bench, serve::bench
}
criterion_main!(micro);
