//! Looking up and storing answers, for each implementation: one line in each benchmark.
//!
//! Moka does what it has put off after so many operations, and also when 300 ms have passed since the
//! last time, which is never here. What its counts vary by all the same comes of its reading the
//! clock: whether a difference of times borrows a second is a branch, and the same for a whole run.
//! That makes 1.2 % of a hit and 0.5 % of the rest between any two runs.

use std::hint::black_box;

use gungraun::prelude::*;
use swiftlet_cache::{MokaCache, SegmentedCache, Store};

use crate::inputs::stored::{self, Keys};

/// Names that the cache knows.
const NAMES: u64 = 1024;

/// Operations of each benchmark.
const OPERATIONS: u64 = 256;

/// A cache, and the keys that it is asked for.
struct Ready<S> {
    cache: S,
    keys: Keys,
    answer: Vec<u8>,
}

fn ready<S: Store>(asked: std::ops::Range<u64>) -> Ready<S> {
    let (keys, answer) = (Keys::of(asked), stored::answer());
    Ready { cache: stored::filled(&Keys::of(0..NAMES)), keys, answer }
}

fn known<S: Store>() -> Ready<S> {
    ready(NAMES / 2..NAMES / 2 + OPERATIONS)
}

fn unknown<S: Store>() -> Ready<S> {
    ready(NAMES..NAMES + OPERATIONS)
}

#[library_benchmark]
#[bench::segmented(known::<SegmentedCache>())]
#[bench::moka(known::<MokaCache>())]
fn hit<S: Store>(ready: Ready<S>) -> Ready<S> {
    get_all(&ready);
    ready
}

#[library_benchmark]
#[bench::segmented(unknown::<SegmentedCache>())]
#[bench::moka(unknown::<MokaCache>())]
fn miss<S: Store>(ready: Ready<S>) -> Ready<S> {
    get_all(&ready);
    ready
}

#[inline(always)]
fn get_all<S: Store>(ready: &Ready<S>) {
    let pin = ready.cache.pin();
    for key in ready.keys.iter() {
        black_box(stored::get(&ready.cache, &pin, black_box(key)));
    }
}

#[library_benchmark]
#[bench::segmented(known::<SegmentedCache>())]
#[bench::moka(known::<MokaCache>())]
fn replace<S: Store>(ready: Ready<S>) -> Ready<S> {
    insert_all(&ready);
    ready
}

#[library_benchmark]
#[bench::segmented(unknown::<SegmentedCache>())]
#[bench::moka(unknown::<MokaCache>())]
fn insert<S: Store>(ready: Ready<S>) -> Ready<S> {
    insert_all(&ready);
    ready
}

#[inline(always)]
fn insert_all<S: Store>(ready: &Ready<S>) {
    for key in ready.keys.iter() {
        stored::insert(&ready.cache, black_box(key), &ready.answer);
    }
}

library_benchmark_group!(name = stores, benchmarks = [hit, miss, replace, insert]);
