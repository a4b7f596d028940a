//! Resident memory under all that changes what is in the cache: it stays within 1.15 of the budget.
//!
//! In a process of its own, with the server's allocator; takes a minute and is run by `make soak`.
//! `SWIFTLET_SOAK_SECONDS` and `SWIFTLET_SOAK_MIB` say how long and with what budget;
//! `SWIFTLET_SOAK_HUGE_PAGES` (0 or 1) forbids huge pages or asks for
//! them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use swiftlet_cache::segmented::{BLOCK_LEN_MAX, RETIRED_BLOCKS_MIN, RETIRED_SHARE};
use swiftlet_cache::{Config, Inserted, Key, Kind, Lookup, NewEntry, SegmentedCache, Store};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is asked for, one after the other.
const PHASES: [Phase; 6] = [
    Phase { name: "A", kind: Kind::Data, bytes: |_| 40 },
    Phase { name: "NXDOMAIN", kind: Kind::Negative, bytes: |_| 140 },
    Phase { name: "TXT", kind: Kind::Data, bytes: |random| 1000 + random % 3000 },
    Phase { name: "mixed", kind: Kind::Data, bytes: |random| 40 + (random % 64).pow(2) % 1500 },
    Phase { name: "random sub-domains", kind: Kind::Negative, bytes: |_| 120 },
    Phase { name: "A again", kind: Kind::Data, bytes: |_| 40 },
];

/// How much resident memory may grow, as a share of the budget.
const BAR: f64 = 1.15;

#[derive(Clone, Copy)]
struct Phase {
    name: &'static str,
    kind: Kind,
    bytes: fn(u64) -> u64,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

#[test]
#[ignore = "takes a minute: make soak"]
fn resident_memory_stays_near_the_budget() {
    let seconds = setting("SWIFTLET_SOAK_SECONDS", 60);
    let max_bytes = setting("SWIFTLET_SOAK_MIB", 64) << 20;
    let huge_pages = match setting("SWIFTLET_SOAK_HUGE_PAGES", 2) {
        2 => None,
        asked => Some(asked == 1),
    };
    let before = resident_bytes();
    let soak = Soak {
        cache: SegmentedCache::new(Config { max_bytes, huge_pages }),
        phase: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
        refused: AtomicU64::new(0),
        known: AtomicU64::new(0),
    };
    let grown = || (resident_bytes() - before) as f64 / max_bytes as f64;
    let mut peak = 0.0f64;
    let mut watch = |name: &str, time: Duration| {
        let (until, mut worst) = (Instant::now() + time, 0.0f64);
        while Instant::now() < until {
            std::thread::sleep(Duration::from_millis(100));
            worst = worst.max(grown());
        }
        let stats = soak.cache.stats();
        let counted = (stats.bytes + stats.table_bytes) as f64 / max_bytes as f64;
        let known = soak.known.swap(0, Relaxed) as f64 / 1e6 / time.as_secs_f64();
        println!(
            "{name:>20}: at most {worst:.3}, counted {counted:.3}, {} entries, {known:.1} M known/s",
            stats.entries
        );
        peak = peak.max(worst);
        known
    };
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let soak = &soak;
            scope.spawn(move || soak.work(seed));
        }
        let each = Duration::from_secs(seconds) / (PHASES.len() as u32 + 1);
        for (index, phase) in PHASES.iter().enumerate() {
            soak.phase.store(index, Relaxed);
            watch(phase.name, each);
        }
        // A worker that stops in the middle of a batch.
        soak.phase.store(3, Relaxed);
        let refused_before = soak.refused.load(Relaxed);
        let (resume, stopped) = std::sync::mpsc::channel::<()>();
        let cache = &soak.cache;
        let worker = scope.spawn(move || {
            let pin = cache.pin();
            _ = stopped.recv();
            drop(pin);
        });
        let known = watch("one stopped", each);
        let stats = soak.cache.stats();
        let refused = soak.refused.load(Relaxed) - refused_before;
        println!("{:>20}: {} bytes retired, {refused} refused", "", stats.retired_bytes);
        // In whole blocks, of which the last one may be what goes beyond it.
        let least = RETIRED_BLOCKS_MIN * BLOCK_LEN_MAX;
        let retired_max = (max_bytes / RETIRED_SHARE).max(least) + 2 * BLOCK_LEN_MAX;
        assert!(stats.retired_bytes <= retired_max, "{stats:?}");
        assert!(refused > 0 && known > 0.0, "refused and answered");
        drop(resume);
        worker.join().expect("no panic");
        let give_up = Instant::now() + Duration::from_secs(10);
        while !matches!(insert(cache, 1, &[7; 40], Kind::Data), Inserted::Stored) {
            assert!(Instant::now() < give_up, "it recovers");
            std::thread::yield_now();
        }
        soak.is_over.store(true, Relaxed);
    });
    println!("{:>20}: {peak:.3} of {} MiB", "peak", max_bytes >> 20);
    assert!(peak <= BAR, "{peak}");
}

struct Soak {
    cache: SegmentedCache,
    phase: AtomicUsize,
    is_over: AtomicBool,
    refused: AtomicU64,
    known: AtomicU64,
}

impl Soak {
    /// As a worker does: a batch of lookups, then what was missed is stored.
    fn work(&self, seed: u64) {
        let mut random = seed;
        let mut next = || {
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mixed(random)
        };
        let answer = [7; 4000];
        let mut missed = Vec::with_capacity(64);
        while !self.is_over.load(Relaxed) {
            let index = self.phase.load(Relaxed);
            let phase = PHASES[index];
            let mut known = 0;
            let pin = self.cache.pin();
            for turn in 0..64 {
                let unit = (next() >> 11) as f64 / (1u64 << 53) as f64;
                // A skewed population, of which each phase has its own; a flood asks only for new.
                let name = match phase.name {
                    "random sub-domains" if turn % 4 != 0 => next(),
                    _ => (index as u64) << 32 | (unit.powi(3) * 8e6) as u64,
                };
                let bytes = key_bytes(name);
                let key = Key { hash: mixed(name), bytes: &bytes };
                if self.cache.with(&pin, key, 0, |found| found == Lookup::Miss) {
                    missed.push(name);
                } else {
                    known += 1;
                }
            }
            drop(pin);
            self.known.fetch_add(known, Relaxed);
            for name in missed.drain(..) {
                let len = (phase.bytes)(mixed(name) >> 8) as usize;
                let inserted = insert(&self.cache, name, &answer[..len], phase.kind);
                self.refused.fetch_add(u64::from(inserted == Inserted::Refused), Relaxed);
            }
        }
    }
}

fn insert(cache: &SegmentedCache, name: u64, answer: &[u8], kind: Kind) -> Inserted {
    let bytes = key_bytes(name);
    let entry = NewEntry { answer, ttl_s: 3600, stale_s: 0, kind };
    cache.insert(Key { hash: mixed(name), bytes: &bytes }, entry, 0)
}

/// As long as the key of a name of 20 bytes.
fn key_bytes(name: u64) -> [u8; 26] {
    let mut bytes = [b'x'; 26];
    bytes[..8].copy_from_slice(&name.to_ne_bytes());
    bytes
}

/// SplitMix64.
fn mixed(number: u64) -> u64 {
    let mut hash = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// VmRSS of this process.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") << 10
}
