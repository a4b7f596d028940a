//! Readers and writers on all cores, with too little room, short lives, removals, flushes and
//! failures. Whatever is found must be what was stored under its key, and no older than what an
//! insert or removal that had returned before left there.
//!
//! Two seconds by default, `SWIFTLET_SOAK_SECONDS` otherwise.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use swiftlet_cache::{Config, Hit, Inserted, Key, Kind, Lookup, NewEntry, SegmentedCache, Store};

const KEYS: u64 = 100_000;
const WRITERS: u64 = 2;
/// A quarter of what all keys need.
const BUDGET: Config = Config::new(8 << 20);
/// Evictions that it goes on for, and how much longer: on a busy machine a reader that is taken off its
/// core while it pins has most inserts refused.
const EVICTED: u64 = 1000;
const PATIENCE: Duration = Duration::from_secs(60);
/// Readings of the statistics of which one must be within the budget.
const READINGS: usize = 8;
/// Number, generation, time and TTL, before the bytes that follow from them.
const HEAD: usize = 32;

#[test]
fn readers_and_writers_on_all_cores() {
    let seconds = std::env::var("SWIFTLET_SOAK_SECONDS").map_or(2, |s| s.parse().expect("seconds"));
    let readers = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    let history = History::new();
    let counts = std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let history = &history;
            scope.spawn(move || history.write(writer));
        }
        scope.spawn(|| history.maintain());
        let readers = (0..readers as u64).map(|seed| {
            let history = &history;
            scope.spawn(move || history.read(seed))
        });
        let readers = readers.collect::<Vec<_>>();
        let until = Instant::now() + Duration::from_secs(seconds);
        let is_on = || {
            let now = Instant::now();
            let is_lazy = history.cache.stats().evicted <= EVICTED && now < until + PATIENCE;
            now < until || is_lazy
        };
        while is_on() && !readers.iter().any(ScopedJoinHandle::is_finished) {
            history.now_ms.fetch_add(5, SeqCst);
            std::thread::sleep(Duration::from_millis(1));
        }
        history.is_over.store(true, SeqCst);
        let counts = readers.into_iter().map(|reader| reader.join().expect("every check held"));
        counts.collect::<Vec<_>>()
    });
    let sum = |of: fn(&Seen) -> u64| counts.iter().map(of).sum::<u64>();
    let (fresh, stale, missed) = (sum(|c| c.fresh), sum(|c| c.stale), sum(|c| c.missed));
    history.cache.settle();
    let stats = history.cache.stats();
    println!("{fresh} fresh, {stale} stale, {missed} missed, {stats:?}");
    assert!(fresh > 100 && missed > 100, "both happened");
    assert!(stats.evicted > EVICTED, "{stats:?}");
    assert_eq!(stats.retired_bytes, 0, "nothing is pinned any more");
    history.cache.clear();
    history.cache.settle();
    assert_eq!((history.cache.stats().entries, history.cache.stats().bytes), (0, 0));
}

/// The cache, and what may be found in it.
struct History {
    cache: SegmentedCache,
    now_ms: AtomicU64,
    is_over: AtomicBool,
    /// By key: no generation below it may be seen any more.
    floors: Vec<AtomicU64>,
    /// By key: the last generation of which the insert had begun.
    begun: Vec<AtomicU64>,
}

/// What a reader has seen.
#[derive(Default)]
struct Seen {
    fresh: u64,
    stale: u64,
    missed: u64,
}

impl History {
    fn new() -> Self {
        let zeroes = || (0..KEYS).map(|_| AtomicU64::new(0)).collect();
        Self {
            cache: SegmentedCache::new(BUDGET),
            now_ms: AtomicU64::new(1_000_000),
            is_over: AtomicBool::new(false),
            floors: zeroes(),
            begun: zeroes(),
        }
    }

    /// Each writer has keys of its own, so it knows the order of their generations.
    fn write(&self, writer: u64) {
        let mut random = Random(writer + 1);
        while !self.is_over.load(SeqCst) {
            let number = random.key() / WRITERS * WRITERS + writer;
            let index = number as usize;
            let bytes = key_bytes(number);
            let key = Key { hash: hash(number), bytes: &bytes };
            let generation = self.begun[index].fetch_add(1, SeqCst) + 1;
            let choice = random.next() % 100;
            if choice < 5 {
                self.cache.remove(key);
                self.floors[index].store(generation, SeqCst);
                continue;
            }
            let now_ms = self.now_ms.load(SeqCst);
            let kind = match choice {
                5..10 => Kind::Failure,
                10..30 => Kind::Negative,
                _ => Kind::Data,
            };
            let ttl_s = (random.next() % 4) as u32;
            let answer = answer(number, generation, now_ms, ttl_s);
            let entry = NewEntry { answer: &answer, ttl_s, stale_s: 1, kind };
            if self.cache.insert(key, entry, now_ms) != Inserted::Held {
                self.floors[index].store(generation, SeqCst);
            }
        }
    }

    fn read(&self, seed: u64) -> Seen {
        let mut random = Random(1000 + seed);
        let mut seen = Seen::default();
        while !self.is_over.load(SeqCst) {
            let pin = self.cache.pin();
            let now_ms = self.now_ms.load(SeqCst);
            let numbers: [u64; 64] = std::array::from_fn(|_| random.key());
            for number in numbers {
                self.cache.prefetch(hash(number));
                self.cache.prefetch_entry(&pin, hash(number));
            }
            for number in numbers {
                let bytes = key_bytes(number);
                let key = Key { hash: hash(number), bytes: &bytes };
                let floor = self.floors[number as usize].load(SeqCst);
                self.cache.with(&pin, key, now_ms, |found| match found {
                    Lookup::Fresh(hit) => {
                        let ends_ms = self.check(number, floor, hit);
                        assert!(now_ms < ends_ms, "fresh at {now_ms}, its TTL ended at {ends_ms}");
                        seen.fresh += 1;
                    }
                    Lookup::Stale(hit) => {
                        let ends_ms = self.check(number, floor, hit);
                        assert!((ends_ms..ends_ms + 1000).contains(&now_ms), "{now_ms} {ends_ms}");
                        seen.stale += 1;
                    }
                    Lookup::Miss => seen.missed += 1,
                });
            }
            drop(pin);
            // There are more threads than cores: better taken off now than while it is pinned.
            std::thread::yield_now();
        }
        seen
    }

    /// Checks what was found under a key, and returns when its TTL ends.
    fn check(&self, number: u64, floor: u64, hit: Hit<'_>) -> u64 {
        let word = |at: usize| {
            let bytes = &hit.answer[at * 8..at * 8 + 8];
            u64::from_ne_bytes(bytes.try_into().expect("eight bytes"))
        };
        let [found, generation, stored_ms, ttl_s] = std::array::from_fn(word);
        assert_eq!(found, number, "another key's answer");
        assert!(generation >= floor, "{number}: {generation} after {floor}");
        let begun = self.begun[number as usize].load(SeqCst);
        assert!(generation <= begun, "{number}: {generation} before its time");
        assert_eq!(hit.answer, answer(number, generation, stored_ms, ttl_s as u32));
        stored_ms + ttl_s * 1000
    }

    /// What workers do by the way and operators now and then.
    fn maintain(&self) {
        for round in 0.. {
            std::thread::yield_now();
            if self.is_over.load(SeqCst) {
                return;
            }
            self.cache.expire(self.now_ms.load(SeqCst), 64);
            // A block that is freed and taken again while one reading counts is in it twice.
            let mut readings = (0..READINGS).map(|_| self.cache.stats());
            let holds = readings.any(|stats| stats.bytes <= BUDGET.max_bytes / 8 * 9);
            assert!(holds, "{:?}", self.cache.stats());
            match round % 2000 {
                600 | 1200 => _ = self.cache.remove_if(|key| key[0] % 16 == 3),
                1999 => self.cache.clear(),
                _ => {}
            }
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// Low numbers more often than high ones.
    fn key(&mut self) -> u64 {
        let random = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        (random * random * random * KEYS as f64) as u64
    }
}

fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Three keys have one hash.
fn hash(number: u64) -> u64 {
    mixed(number / 3 + 1)
}

fn key_bytes(number: u64) -> [u8; 20] {
    let mut bytes = [number as u8; 20];
    bytes[12..].copy_from_slice(&number.to_ne_bytes());
    bytes
}

/// All of it follows from the arguments, its length too.
fn answer(number: u64, generation: u64, now_ms: u64, ttl_s: u32) -> Vec<u8> {
    let random = mixed(number ^ generation << 32);
    let len = HEAD + (random % if random.is_multiple_of(61) { 8000 } else { 400 }) as usize;
    let mut answer = Vec::with_capacity(len);
    for word in [number, generation, now_ms, u64::from(ttl_s)] {
        answer.extend(word.to_ne_bytes());
    }
    answer.resize(len, random as u8);
    answer
}
