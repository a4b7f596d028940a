//! How often the answer is there: all contenders are asked the same, in virtual time, and store what
//! they did not have. Nothing here is timed.
//!
//! What is counted is cut into blocks of equal length, and an interval is of the differences block by
//! block. Each block has the same queries for all, so what is left is how the differences vary.

use swiftlet_cache::{Kind, NewEntry};

use super::contenders::{Contender, FILLED_MS, Room, Which};
use super::population::{Draw, NameKey, answer};
use super::table::{Bar, Table};

/// Blocks of the queries that are counted.
const BLOCKS: usize = 16;

/// Queries per second of virtual time.
const QUERIES_PER_S: u64 = 10_000;

/// Queries after which a worker's turn ends.
const TURN: u64 = 64;

/// Which are asked.
pub const CONTENDERS: [Which; 5] =
    [Which::Segmented, Which::Moka, Which::MokaEntries, Which::QuickUnsync, Which::Lru];

/// How much is asked.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Names that there are.
    pub names: usize,
    /// Entries that each contender has room for.
    pub room: usize,
    /// Queries for hit ratios; the first third of them warms the caches.
    pub queries: usize,
}

/// A contender, and its hits of each block.
struct Asked {
    which: Which,
    cache: Box<dyn Contender>,
    hits: Vec<u32>,
    /// Entries at the end.
    held: u64,
}

impl Asked {
    fn all(rooms: &[(Which, Room)]) -> Vec<Self> {
        let asked = |&(which, room): &(Which, Room)| Self {
            which,
            cache: which.with_room(room),
            hits: Vec::new(),
            held: 0,
        };
        rooms.iter().map(asked).collect()
    }

    /// Asks for a name and stores it if it is not there; whether it was.
    fn ask(&mut self, name: &NameKey, entry: NewEntry<'_>, now_ms: u64) -> bool {
        let hit = self.cache.look_up(std::slice::from_ref(name), now_ms, false).hits == 1;
        if !hit {
            self.cache.store(name.key(), entry, now_ms);
        }
        hit
    }
}

fn rooms(contenders: &[Which], entries: usize) -> Vec<(Which, Room)> {
    let room = |&which| (which, Room::to_hold(which, entries, 2 * entries));
    contenders.iter().map(room).collect()
}

/// Hit ratios by Zipf's law with these exponents, with one name in five asked for once and TTLs.
#[must_use]
pub fn zipf(plan: &Plan, exponents: &[f64]) -> Table {
    let mut table = Table::new("Hit ratio");
    let rooms = rooms(&CONTENDERS, plan.room);
    let mut held = Vec::new();
    for &exponent in exponents {
        let mut asked = Asked::all(&rooms);
        let draw = Draw::new(plan.names, exponent, 0.2, exponent.to_bits());
        let block = run(plan.queries / 3, plan.queries - plan.queries / 3, draw, None, &mut asked);
        let [ours, moka, by_entries, _, lru] = asked.as_slice() else {
            unreachable!("five contenders")
        };
        let name = format!("Zipf {exponent:.1}");
        for asked in &asked {
            table.add(format!("{name}: {}", asked.which.name()), "%", None, percent(asked, block));
        }
        let (least, over_lru) = (Bar::AtLeast(2.0), points(ours, lru, block));
        table.add(format!("{name}: segmented − plain LRU"), "points", Some(least), over_lru);
        for moka in [moka, by_entries] {
            let (least, over_moka) = (Bar::AtLeast(-1.0), points(ours, moka, block));
            let what = format!("{name}: segmented − {}", moka.which.name());
            table.add(what, "points", Some(least), over_moka);
        }
        held = asked.iter().map(|asked| (asked.which.name(), asked.held)).collect();
    }
    let held: Vec<String> = held.iter().map(|(name, held)| format!("{name} {held}")).collect();
    table.note(format!(
        "{} names, {} queries of which the first third warms, {QUERIES_PER_S} a second in virtual time; one \
         query in five is for a name of its own; TTLs of 30 s to 1 day, their logarithms spread \
         evenly; what has expired is a miss.",
        plan.names, plan.queries
    ));
    table.note(format!(
        "Room for {} entries each; held at the end of the last: {}. Moka's own clock does not know \
         the virtual time: what has expired stays until it is replaced, as in the LRU. \
         \"moka\" is the cache of the feature `moka-cache`, bounded by bytes; \"moka by entries\" is the library \
         by itself, which hits more often when it need not weigh.",
        plan.room,
        held.join(", ")
    ));
    table
}

/// What a flood of names that are asked for once does to the others' hit ratio.
#[must_use]
pub fn flood(plan: &Plan, contenders: &[Which]) -> Table {
    let mut table = Table::new("Hit ratio under a flood of random names");
    let rooms = rooms(contenders, plan.room);
    let (warm, counted) = (plan.queries / 2, plan.queries / 2);
    let go = |flood: Option<Flood>| {
        let mut asked = Asked::all(&rooms);
        let draw = Draw::new(plan.names, 1.0, 0.0, 1);
        let block = run(warm, counted, draw, flood, &mut asked);
        (asked, block)
    };
    let (quiet, block) = go(None);
    for asked in &quiet {
        table.add(format!("no flood: {}", asked.which.name()), "%", None, percent(asked, block));
    }
    for (kind, what) in [(Kind::Data, "data"), (Kind::Negative, "negative answers")] {
        for times in [1, 10] {
            let (flooded, _) = go(Some(Flood { kind, times }));
            for (asked, quiet) in flooded.iter().zip(&quiet) {
                let name = asked.which.name();
                let bar = (asked.which == Which::Segmented).then_some(Bar::AtLeast(-2.0));
                let change = points(asked, quiet, block);
                let last = change[BLOCKS * 3 / 4..].to_vec();
                table.add(format!("{what}, {times}:1: {name}"), "points", None, change);
                let row = format!("{what}, {times}:1: {name}, last quarter");
                table.add(row, "points", bar, last);
            }
        }
    }
    table.note(format!(
        "Zipf 1.0 over {} names, room for {} entries each. {warm} queries warm the cache, {counted} are \
         counted, with 0, 1 or 10 queries for a name of its own beside each, which are not. The \
         change is that of the hit ratio of the others, against the same queries without a flood.",
        plan.names, plan.room
    ));
    table.note(
        "The bar is on the last quarter of the blocks: a flood wears a cache down bit by bit, and \
         the median of all hides where that ends. Four blocks are too few for an interval of 95 %: \
         theirs is their whole range.",
    );
    table.note("Only the segmented cache knows what a negative answer is.");
    table
}

/// Names that nobody asks for again.
#[derive(Clone, Copy)]
struct Flood {
    /// What their answers are stored as.
    kind: Kind,
    /// How many come with each other query.
    times: u64,
}

/// Numbers of the flood's names begin here.
const FLOOD: u64 = 1 << 32;

/// Seconds for which an answer holds in a flood's run: longer than it lasts.
const LONG_S: u32 = 86_400;

/// Asks all of them; returns the length of a block.
fn run(
    warm: usize,
    counted: usize,
    draw: Draw,
    flood: Option<Flood>,
    asked: &mut [Asked],
) -> usize {
    let answer = answer();
    let entry = |ttl_s, kind| NewEntry { answer: &answer, ttl_s, stale_s: 0, kind };
    let block = (counted / BLOCKS).max(1);
    let mut flooded = FLOOD;
    let with_ttls = draw.has_once();
    for (index, number) in draw.take(warm + block * BLOCKS).enumerate() {
        let now_ms = FILLED_MS + index as u64 * 1000 / QUERIES_PER_S;
        let name = NameKey::of(number);
        let new = entry(if with_ttls { name.ttl_s() } else { LONG_S }, Kind::Data);
        let counts = index >= warm;
        for asked in asked.iter_mut() {
            if counts && (index - warm).is_multiple_of(block) {
                asked.hits.push(0);
            }
            let hit = asked.ask(&name, new, now_ms);
            if let Some(hits) = asked.hits.last_mut() {
                *hits += u32::from(hit);
            }
            if (index as u64).is_multiple_of(TURN) {
                asked.cache.tidy(now_ms);
            }
        }
        let Some(Flood { kind, times }) = flood.filter(|_| counts) else { continue };
        for _ in 0..times {
            flooded += 1;
            let name = NameKey::of(flooded);
            for asked in asked.iter_mut() {
                asked.ask(&name, entry(LONG_S, kind), now_ms);
            }
        }
    }
    for asked in asked {
        asked.held = asked.cache.held();
    }
    block
}

fn percent(asked: &Asked, block: usize) -> Vec<f64> {
    asked.hits.iter().map(|&hits| 100.0 * f64::from(hits) / block as f64).collect()
}

/// Percentage points by which one hits more often than the other, block by block.
fn points(of: &Asked, to: &Asked, block: usize) -> Vec<f64> {
    percent(of, block).iter().zip(percent(to, block)).map(|(of, to)| of - to).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_holds_all_misses_each_name_once() {
        let mut asked = Asked::all(&CONTENDERS.map(|which| (which, Room::ample(1000))));
        let flood = Some(Flood { kind: Kind::Data, times: 1 });
        let block = run(0, 1600, Draw::new(200, 1.0, 0.0, 5), flood, &mut asked);
        assert_eq!(block, 100);
        let names: std::collections::HashSet<u64> =
            Draw::new(200, 1.0, 0.0, 5).take(1600).collect();
        for asked in asked.iter().filter(|asked| asked.which.counts_bytes()) {
            let hits: u32 = asked.hits.iter().sum();
            assert_eq!((asked.hits.len(), hits as usize), (16, 1600 - names.len()));
            assert_eq!(asked.held as usize, 1600 + names.len());
        }
    }
}
