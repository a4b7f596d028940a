//! What a hit takes: all contenders in one run, each round one after the other, the next round in the
//! opposite order.
//!
//! ```text
//! round   stir each cache with 16,384 lookups that are not timed, of every name if they are fewer; then
//! batch   copy 64 keys to where the worker has them (not timed) │ pin, look 64 up, unpin (timed)
//! ```
//! The clock is read twice a batch, which adds less than 1 ns to a lookup; it is not taken off.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use swiftlet_net::cores::pin;

use super::contenders::{Contender, FILLED_MS, Room, Which, fill};
use super::population::{NameKey, evenly};
use super::table::{Bar, Table};

/// Lookups under one pin, as many as a worker's batch has packets at most.
const BATCH: usize = 64;

/// Lookups of a round that come before those that are timed, so that a contender finds the processor's
/// caches as it left them and not as the one before it did.
const STIR: usize = 16_384;

/// Time of the lookups, in ms.
const ASKED_MS: u64 = FILLED_MS + 60_000;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Names that fit into the processor's caches.
    pub few: usize,
    /// Names that don't.
    pub many: usize,
    /// Rounds, at least 15 for an interval of use.
    pub rounds: usize,
    /// Lookups of a round of few names; of many names it is four times as many.
    pub lookups: usize,
    /// For how long the threads of one round run beside each other.
    pub side_by_side: Duration,
    /// The core of the thread, and of a second one.
    pub cores: [usize; 2],
}

/// A contender under the name of its column.
struct Entrant {
    name: String,
    cache: Box<dyn Contender>,
    prefetch: bool,
    ns: Vec<f64>,
}

impl Entrant {
    fn new(which: Which, names: usize) -> Self {
        let mut cache = which.with_room(Room::ample(names));
        fill(cache.as_mut(), 0..names as u64);
        cache.held();
        Self { name: which.name().to_owned(), cache, prefetch: false, ns: Vec::new() }
    }

    fn prefetching(self) -> Self {
        Self { prefetch: true, ..self }
    }

    /// Another cache of our kind.
    fn ours(name: &str, names: usize) -> Self {
        Self { name: name.to_owned(), ..Self::new(Which::Segmented, names) }
    }
}

/// One thread, few names.
#[must_use]
pub fn few(plan: &Plan) -> Table {
    let mut entrants: Vec<Entrant> =
        [Which::Segmented, Which::Moka, Which::QuickUnsync, Which::QuickSync, Which::Lru]
            .map(|which| Entrant::new(which, plan.few))
            .into();
    entrants.push(Entrant::new(Which::LruMutex, plan.few));
    entrants.push(Entrant::ours("segmented, prefetching", plan.few).prefetching());
    entrants.push(Entrant::ours("segmented again (A/A)", plan.few));
    compare(plan, plan.few, plan.lookups, &mut entrants);
    let mut table = Table::new("Hit, few names, one thread");
    table.note(format!("{} names in even random order; ns per lookup.", plan.few));
    rows(&mut table, &entrants, Some(Bar::AtMost(40.0)));
    table.add("segmented / moka", "", Some(Bar::AtMost(0.25)), ratios(&entrants[0], &entrants[1]));
    table.add("A/A", "", None, ratios(&entrants[7], &entrants[0]));
    table
}

/// One thread, many names.
#[must_use]
pub fn many(plan: &Plan) -> Table {
    let mut entrants: Vec<Entrant> =
        [Which::Segmented, Which::Moka, Which::QuickUnsync, Which::QuickSync, Which::Lru]
            .map(|which| Entrant::new(which, plan.many))
            .into();
    entrants.push(Entrant::ours("segmented, prefetching", plan.many).prefetching());
    entrants.push(Entrant::ours("segmented again (A/A)", plan.many));
    compare(plan, plan.many, 4 * plan.lookups, &mut entrants);
    let mut table = Table::new("Hit, many names, one thread, batches of 64");
    table.note(format!("{} names in even random order; ns per lookup.", plan.many));
    rows(&mut table, &entrants, None);
    let prefetching = entrants[5].ns.clone();
    table.add("segmented, as the bar has it", "ns", Some(Bar::AtMost(100.0)), prefetching);
    table.add("prefetching / not", "", None, ratios(&entrants[5], &entrants[0]));
    table.add("segmented / moka", "", None, ratios(&entrants[0], &entrants[1]));
    table.add("A/A", "", None, ratios(&entrants[6], &entrants[0]));
    table
}

/// Two threads beside one, few names.
#[must_use]
pub fn two_threads(plan: &Plan) -> Table {
    let mut table = Table::new("Two reader threads, few names");
    table.note("Lookups per second of two threads together, divided by those of one alone.");
    table.note(
        "The first row says what the machine gives: a cache for each thread, nothing shared. \
         \"The same twice\" is one thread against one.",
    );
    let caches = [Which::Segmented, Which::Moka, Which::QuickSync, Which::LruMutex];
    let mut caches = caches.map(|which| Entrant::new(which, plan.few));
    let mut apart = [(); 2].map(|()| Entrant::new(Which::Segmented, plan.few));
    let (mut alone, mut same) = (Vec::new(), Vec::new());
    let mut ratios: [Vec<f64>; 4] = Default::default();
    for round in 0..plan.rounds {
        let [one, other] = &mut apart;
        alone.push(beside(plan, round, one, other));
        for (entrant, ratios) in caches.iter_mut().zip(&mut ratios) {
            let mut second = entrant.cache.share().map(|cache| Entrant {
                name: String::new(),
                cache,
                prefetch: false,
                ns: Vec::new(),
            });
            ratios.push(beside(plan, round, entrant, second.as_mut().expect("it is shared")));
        }
        let one = together(plan, round, &mut [&mut caches[0]]);
        same.push(together(plan, round, &mut [&mut caches[0]]) / one);
    }
    table.add("segmented, one for each thread", "", None, alone);
    for (entrant, ratios) in caches.iter().zip(ratios) {
        let bar = (entrant.name == Which::Segmented.name()).then_some(Bar::AtLeast(1.8));
        table.add(entrant.name.as_str(), "", bar, ratios);
    }
    table.add("segmented, the same twice (A/A)", "", None, same);
    table
}

fn rows(table: &mut Table, entrants: &[Entrant], bar: Option<Bar>) {
    for (index, entrant) in entrants.iter().enumerate() {
        let bar = bar.filter(|_| index == 0);
        table.add(entrant.name.as_str(), "ns", bar, entrant.ns.clone());
    }
}

fn ratios(of: &Entrant, to: &Entrant) -> Vec<f64> {
    of.ns.iter().zip(&to.ns).map(|(of, to)| of / to).collect()
}

/// Measures all of them in each round, on the first core.
fn compare(plan: &Plan, names: usize, lookups: usize, entrants: &mut [Entrant]) {
    let pool: Vec<NameKey> = (0..names as u64).map(NameKey::of).collect();
    thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            pin(plan.cores[0]);
            for round in 0..plan.rounds {
                let order = evenly(names, lookups, round as u64);
                let stir = stirring(names, round);
                let mut measure = |entrant: &mut Entrant| {
                    time(entrant, &pool, &stir);
                    let ns = time(entrant, &pool, &order);
                    entrant.ns.push(ns);
                };
                if round.is_multiple_of(2) {
                    entrants.iter_mut().for_each(&mut measure);
                } else {
                    entrants.iter_mut().rev().for_each(&mut measure);
                }
            }
        });
        measuring.join().expect("no panic");
    });
}

/// Names to begin a round with: each of them, or as many by chance if they are too many for that.
fn stirring(names: usize, round: usize) -> Vec<u32> {
    if names <= STIR {
        (0..names as u32).cycle().take(STIR).collect()
    } else {
        evenly(names, STIR, !(round as u64))
    }
}

/// Looks all of these up; ns per lookup.
fn time(entrant: &mut Entrant, pool: &[NameKey], order: &[u32]) -> f64 {
    let (mut spent, mut hits) = (Duration::ZERO, 0);
    let mut staged = [pool[0]; BATCH];
    for numbers in order.chunks_exact(BATCH) {
        hits += batch(entrant, pool, numbers, &mut staged, &mut spent);
    }
    let lookups = order.len() / BATCH * BATCH;
    assert_eq!(hits as usize, lookups, "{} has them all", entrant.name);
    spent.as_nanos() as f64 / lookups as f64
}

#[inline]
fn batch(
    entrant: &mut Entrant,
    pool: &[NameKey],
    numbers: &[u32],
    staged: &mut [NameKey; BATCH],
    spent: &mut Duration,
) -> u32 {
    for (staged, &number) in staged.iter_mut().zip(numbers) {
        *staged = pool[number as usize];
    }
    let keys = black_box(&*staged);
    let begun = Instant::now();
    let found = entrant.cache.look_up(keys, ASKED_MS, entrant.prefetch);
    *spent += begun.elapsed();
    black_box(found).hits
}

/// How much more two threads do than one: A, B, B, A for every two rounds.
fn beside(plan: &Plan, round: usize, one: &mut Entrant, other: &mut Entrant) -> f64 {
    if round.is_multiple_of(2) {
        let alone = together(plan, round, &mut [one]);
        together(plan, round, &mut [one, other]) / alone
    } else {
        let both = together(plan, round, &mut [one, other]);
        both / together(plan, round, &mut [one])
    }
}

/// Lookups per second of all of them together, each on a core of its own at the same time. Without
/// the time in which keys are copied, in which they do not meet.
fn together(plan: &Plan, round: usize, entrants: &mut [&mut Entrant]) -> f64 {
    let pool: Vec<NameKey> = (0..plan.few as u64).map(NameKey::of).collect();
    let (start, stop) = (Barrier::new(entrants.len() + 1), AtomicBool::new(false));
    thread::scope(|scope| {
        let (pool, start, stop) = (&pool, &start, &stop);
        let running: Vec<_> = entrants
            .iter_mut()
            .zip(plan.cores)
            .map(|(entrant, core)| {
                scope.spawn(move || {
                    pin(core);
                    let order = evenly(plan.few, STIR * 4, (round + 1000 * core) as u64);
                    time(entrant, pool, &stirring(plan.few, round));
                    start.wait();
                    let (mut spent, mut lookups) = (Duration::ZERO, 0);
                    let mut staged = [pool[0]; BATCH];
                    for numbers in order.chunks_exact(BATCH).cycle() {
                        lookups += batch(entrant, pool, numbers, &mut staged, &mut spent);
                        if stop.load(Relaxed) {
                            break;
                        }
                    }
                    f64::from(lookups) / spent.as_secs_f64()
                })
            })
            .collect();
        start.wait();
        thread::sleep(plan.side_by_side);
        stop.store(true, Relaxed);
        running.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    })
}
