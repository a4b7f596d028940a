//! Who is asked for: names of 20 bytes, how often each is drawn, and for how long its answer holds.
//!
//! Everything follows from the number of a name or of a round, so that all contenders are asked the
//! same in the same order, and the next run asks it again.

use std::sync::LazyLock;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Zipf};
use swiftlet_cache::Key;
use swiftlet_parser::key::{KeyBuf, Seed, Variant};
use swiftlet_parser::response::{Record, Response, Section};
use swiftlet_parser::rr::{Class, Rcode, Type};
use swiftlet_parser::template::{self, Source};

/// Bytes of a name in wire format.
pub const NAME_LEN: usize = 20;

/// Bytes of its key: type, class and variant go behind the name.
pub const KEY_LEN: usize = NAME_LEN + 6;

/// The smallest and the largest TTL in s.
const TTL_S: [u32; 2] = [30, 86_400];

static SEED: LazyLock<Seed> = LazyLock::new(|| Seed::new(0x5eed));

/// A key with its hash, as the worker has it when it has parsed a query.
#[derive(Clone, Copy)]
pub struct NameKey {
    hash: u64,
    bytes: [u8; KEY_LEN],
}

impl NameKey {
    /// Of the `number`th name, type A. Numbers differ in their lower 35 bits.
    #[must_use]
    pub fn of(number: u64) -> Self {
        let (name, mut buf) = (name(number), KeyBuf::default());
        let variant = Variant::new(false, false, 0);
        let key = buf.build(&SEED, &name, Type::A, Class::IN, variant);
        let mut bytes = [0; KEY_LEN];
        bytes.copy_from_slice(key.bytes);
        Self { hash: key.hash, bytes }
    }

    /// It, to ask a cache for.
    #[inline]
    #[must_use]
    pub fn key(&self) -> Key<'_> {
        Key { hash: self.hash, bytes: &self.bytes }
    }

    /// For how many seconds its answer holds: the logarithms are spread evenly, so that there are as
    /// many of 1 to 10 minutes as of 1 to 10 hours.
    #[must_use]
    pub fn ttl_s(&self) -> u32 {
        let [low, high] = TTL_S.map(f64::from);
        // Other bits than a table would take: the hash, mixed once more.
        let mixed = (self.hash ^ (self.hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let even = (mixed >> 11) as f64 / (1u64 << 53) as f64;
        (low * (high / low).powf(even)) as u32
    }
}

/// Seven digits of base 32, then `bench.test`.
fn name(number: u64) -> [u8; NAME_LEN] {
    let mut name = *b"\x070000000\x05bench\x04test\0";
    for (place, digit) in name[1..=7].iter_mut().enumerate() {
        *digit = b"0123456789abcdefghijklmnopqrstuv"[(number >> (5 * place)) as usize % 32];
    }
    name
}

/// The stored form of one A record with TTL 3600.
#[must_use]
pub fn answer() -> Vec<u8> {
    let mut response = Vec::from(*b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0");
    response.extend(name(0));
    response.extend(b"\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\x0e\x10\0\x04\xc0\0\x02\x01");
    let response = Response::parse(&response).expect("a valid response");
    let records: Vec<Record<'_>> = response.section(Section::Answer).collect();
    let source = Source {
        qname: response.qname(),
        rcode: Rcode::NOERROR,
        secure: false,
        answer: &records,
        authority: &[],
        additional: &[],
    };
    let mut stored = Vec::new();
    template::build(&source, &mut stored).expect("it can be stored");
    stored
}

/// Numbers of names, drawn by Zipf's law, mixed with some that are asked for once.
pub struct Draw {
    random: SmallRng,
    zipf: Zipf<f64>,
    once: f64,
    next_once: u64,
}

impl Draw {
    /// Numbers from here on are those of names that are asked for once.
    const ONCE: u64 = 1 << 28;

    /// Of so many names by this exponent; a share of `once` (0 to 1) goes to names of their own.
    #[must_use]
    pub fn new(names: usize, exponent: f64, once: f64, seed: u64) -> Self {
        let zipf = Zipf::new(names as f64, exponent).expect("at least one name, exponent above 0");
        Self { random: SmallRng::seed_from_u64(seed), zipf, once, next_once: Self::ONCE }
    }

    /// Whether some are asked for once.
    #[must_use]
    pub fn has_once(&self) -> bool {
        self.once > 0.0
    }
}

impl Iterator for Draw {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.once > 0.0 && self.random.random::<f64>() < self.once {
            self.next_once += 1;
            return Some(self.next_once);
        }
        // Ranks count from 1.
        Some(self.zipf.sample(&mut self.random) as u64 - 1)
    }
}

/// So many numbers below `names`, each as likely as any other.
#[must_use]
pub fn evenly(names: usize, count: usize, seed: u64) -> Vec<u32> {
    let mut random = SmallRng::seed_from_u64(seed);
    (0..count).map(|_| random.random_range(0..names as u32)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_and_answers_are_as_documented() {
        let names: HashSet<_> = (0..40_000).map(|number| NameKey::of(number * 31).bytes).collect();
        assert_eq!(names.len(), 40_000);
        let key = NameKey::of(0x1234);
        assert_eq!(key.key().bytes, b"\x07kh40000\x05bench\x04test\0\0\x01\0\x01\0\0");
        assert!(answer().ends_with(&[192, 0, 2, 1]));
    }

    #[test]
    fn ttls_are_spread_by_their_logarithm() {
        let ttls: Vec<u32> = (0..10_000).map(|number| NameKey::of(number).ttl_s()).collect();
        assert!(ttls.iter().all(|ttl| (30..=86_400).contains(ttl)));
        // ln(600 / 30) / ln(86,400 / 30)
        let short = ttls.iter().filter(|&&ttl| ttl < 600).count() as f64 / 10_000.0;
        assert!((short - 0.376).abs() < 0.02, "{short}");
    }

    #[test]
    fn ranks_follow_the_law_and_one_in_five_is_new() {
        let drawn: Vec<u64> = Draw::new(1000, 1.0, 0.2, 1).take(100_000).collect();
        let once = drawn.iter().filter(|&&number| number >= Draw::ONCE).count() as f64;
        let first = drawn.iter().filter(|&&number| number == 0).count() as f64;
        let second = drawn.iter().filter(|&&number| number == 1).count() as f64;
        assert!((once / 100_000.0 - 0.2).abs() < 0.01, "{once}");
        // The first has 1 of H(1000) = 7.485.
        assert!((first / (100_000.0 - once) - 1.0 / 7.485).abs() < 0.01, "{first}");
        assert!((first / second - 2.0).abs() < 0.15, "{first} {second}");
        assert!(evenly(7, 1000, 3).iter().all(|&number| number < 7));
    }
}
