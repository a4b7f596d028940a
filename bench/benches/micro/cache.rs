//! Looking up and storing answers: hits, misses and inserts, by one thread and by two at once.
//!
//! Names are drawn from a Zipf distribution with exponent 1, which is near what resolvers see; each
//! thread draws its own. With two threads the figure is still what one of them does, while the
//! other does the same: twice the time of one thread alone means that nothing was won.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rand_distr::{Distribution as _, Zipf};
use swiftlet_cache::Store;

use crate::inputs::stored::{self, Keys};

/// Operations of one iteration: one pin for each, as the worker takes one for each batch.
const BATCH: usize = 64;

/// Names that each thread draws in advance. Longer than what the processor remembers.
const DRAWN: usize = 1 << 16;

/// How many names there are.
const NAMES: [usize; 2] = [10_000, 1_000_000];

pub(crate) fn bench<S: Store>(criterion: &mut Criterion, store: &str) {
    let mut group = criterion.benchmark_group(format!("cache/{store}"));
    group.throughput(Throughput::Elements(BATCH as u64));
    for names in NAMES {
        let known = Keys::of(0..names as u64);
        let cache: S = stored::filled(&known);
        // As many more, of which the cache knows none.
        let unknown = Keys::of(names as u64..2 * names as u64);
        let answer = stored::answer();
        for threads in [1, 2] {
            let case = |operation: &str| format!("{operation}/{names}_names/{threads}_threads");
            measure(&mut group, &case("hit"), threads, names, |numbers| {
                let pin = cache.pin();
                for &number in numbers {
                    black_box(stored::get(&cache, &pin, black_box(known.get(number as usize))));
                }
            });
            measure(&mut group, &case("miss"), threads, names, |numbers| {
                let pin = cache.pin();
                for &number in numbers {
                    black_box(stored::get(&cache, &pin, black_box(unknown.get(number as usize))));
                }
            });
            // What is stored replaces what was there, and the cache stays as full as it was.
            measure(&mut group, &case("insert"), threads, names, |numbers| {
                for &number in numbers {
                    stored::insert(&cache, black_box(known.get(number as usize)), &answer);
                }
            });
        }
    }
    group.finish();
}

/// Measures `operate`, which gets [`BATCH`] numbers of names, in so many threads at once.
fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    case: &str,
    threads: usize,
    names: usize,
    operate: impl Fn(&[u32]) + Sync,
) {
    let drawn: Vec<Vec<u32>> = (0..threads).map(|thread| draw(names, thread as u64)).collect();
    group.bench_function(case, |bencher| {
        bencher.iter_custom(|iterations| match drawn.as_slice() {
            [numbers] => time(&operate, numbers, iterations),
            drawn => {
                let start = Barrier::new(threads);
                thread::scope(|scope| {
                    let running: Vec<_> = drawn
                        .iter()
                        .map(|numbers| {
                            scope.spawn(|| {
                                start.wait();
                                time(&operate, numbers, iterations)
                            })
                        })
                        .collect();
                    let times = running.into_iter().map(|thread| thread.join().expect("no panic"));
                    times.max().unwrap_or_default()
                })
            }
        });
    });
}

fn time(operate: &impl Fn(&[u32]), numbers: &[u32], iterations: u64) -> Duration {
    let mut batches = numbers.chunks_exact(BATCH).cycle();
    let begun = Instant::now();
    for _ in 0..iterations {
        operate(batches.next().unwrap_or_default());
    }
    begun.elapsed()
}

fn draw(names: usize, seed: u64) -> Vec<u32> {
    let zipf = Zipf::new(names as f64, 1.0).expect("a valid distribution");
    let mut random = SmallRng::seed_from_u64(seed);
    // Ranks count from 1.
    (0..DRAWN).map(|_| zipf.sample(&mut random) as u32 - 1).collect()
}
