//! In which order the queries of a set are asked: one after the other, or drawn.
//!
//! Drawing from a Zipf distribution over N names is one random number and one probe of an alias
//! table (Vose, 1991), whatever N is.

use std::ops::Range;
use std::sync::Arc;

use crate::random::Random;

/// The order within one part of the queries.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// One after the other, round and round.
    InTurn,
    /// Each as often as the others, at random.
    Uniform,
    /// By weight.
    Weighted(Arc<Alias>),
}

/// A run of queries that are asked in the same order, and its share of all queries.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) range: Range<usize>,
    pub(crate) order: Order,
    /// Its weight among the parts.
    pub(crate) share: f64,
}

/// Where one thread is in its order.
#[derive(Debug)]
pub(crate) struct Cursor<'q> {
    parts: &'q [Part],
    /// The next query of each part that is asked in turn.
    next: Vec<usize>,
    /// The sums of the shares.
    shares: Vec<f64>,
    random: Random,
}

impl<'q> Cursor<'q> {
    /// For the `index`th of `threads` threads: each begins elsewhere in what is asked in turn.
    pub(crate) fn new(parts: &'q [Part], seed: u64, index: usize, threads: usize) -> Self {
        let begin = |part: &Part| part.range.start + part.range.len() * index / threads;
        let mut sum = 0.0;
        let mut add = |part: &Part| {
            sum += part.share;
            sum
        };
        Self {
            parts,
            next: parts.iter().map(begin).collect(),
            shares: parts.iter().map(&mut add).collect(),
            random: Random::new(seed, index as u64),
        }
    }

    /// The next query.
    pub(crate) fn take(&mut self) -> usize {
        let index = self.pick_part();
        let part = &self.parts[index];
        match &part.order {
            Order::InTurn => {
                let taken = self.next[index];
                let next = taken + 1;
                self.next[index] = if next == part.range.end { part.range.start } else { next };
                taken
            }
            Order::Uniform => part.range.start + self.random.below(part.range.len()),
            Order::Weighted(alias) => part.range.start + alias.draw(&mut self.random),
        }
    }

    fn pick_part(&mut self) -> usize {
        if self.parts.len() == 1 {
            return 0;
        }
        let total = self.shares.last().copied().unwrap_or_default();
        let point = self.random.unit() * total;
        self.shares.partition_point(|&sum| sum <= point).min(self.parts.len() - 1)
    }
}

/// An alias table: each column holds its own number with some probability, else another's.
#[derive(Debug)]
pub(crate) struct Alias {
    columns: Vec<(f32, u32)>,
}

impl Alias {
    /// For the numbers from 0 to `count`, each with the weight 1/(rank + 1)^exponent.
    pub(crate) fn zipf(count: usize, exponent: f64) -> Self {
        Self::new((1..=count).map(|rank| (rank as f64).powf(-exponent)).collect())
    }

    fn new(mut weights: Vec<f64>) -> Self {
        let scale = weights.len() as f64 / weights.iter().sum::<f64>();
        weights.iter_mut().for_each(|weight| *weight *= scale);
        let mut columns: Vec<(f32, u32)> = (0..weights.len() as u32).map(|n| (1.0, n)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|&number| weights[number] < 1.0);
        while let (Some(&few), Some(&many)) = (small.last(), large.last()) {
            columns[few] = (weights[few] as f32, many as u32);
            small.pop();
            weights[many] -= 1.0 - weights[few];
            if weights[many] < 1.0 {
                large.pop();
                small.push(many);
            }
        }
        Self { columns }
    }

    fn draw(&self, random: &mut Random) -> usize {
        let column = random.below(self.columns.len());
        let (own, other) = self.columns[column];
        if random.unit() < f64::from(own) { column } else { other as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_draws_by_rank() {
        for exponent in [0.0, 0.8, 1.0, 1.3] {
            let (count, draws) = (100, 200_000);
            let alias = Alias::zipf(count, exponent);
            let mut random = Random::new(3, 0);
            let mut seen = vec![0u32; count];
            for _ in 0..draws {
                seen[alias.draw(&mut random)] += 1;
            }
            let sum: f64 = (1..=count).map(|rank| (rank as f64).powf(-exponent)).sum();
            for rank in [1, 2, 5, 10] {
                let expected = f64::from(draws) * (rank as f64).powf(-exponent) / sum;
                let got = f64::from(seen[rank - 1]);
                // Six standard deviations.
                let off = (got - expected).abs();
                assert!(off < 6.0 * expected.sqrt(), "{exponent} {rank}: {got} {expected}");
            }
        }
    }

    #[test]
    fn parts_get_their_shares_and_stay_in_their_range() {
        let parts = [
            Part { range: 0..10, order: Order::InTurn, share: 70.0 },
            Part { range: 10..1000, order: Order::Uniform, share: 30.0 },
        ];
        let mut cursor = Cursor::new(&parts, 1, 0, 1);
        let (mut first, mut next) = (0u32, 0);
        for _ in 0..100_000 {
            let query = cursor.take();
            assert!(query < 1000);
            if query < 10 {
                assert_eq!(query, next, "in turn, whatever comes between");
                next = (next + 1) % 10;
                first += 1;
            }
        }
        assert!((69_000..71_000).contains(&first), "{first}");
    }

    #[test]
    fn threads_begin_apart_and_a_seed_repeats() {
        let parts = [Part { range: 4..12, order: Order::InTurn, share: 1.0 }];
        let firsts: Vec<usize> =
            (0..4).map(|index| Cursor::new(&parts, 0, index, 4).take()).collect();
        assert_eq!(firsts, [4, 6, 8, 10]);
        let parts = [Part { range: 0..1000, order: Order::Uniform, share: 1.0 }];
        let draw = |seed| {
            let mut cursor = Cursor::new(&parts, seed, 0, 1);
            (0..20).map(|_| cursor.take()).collect::<Vec<_>>()
        };
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
    }
}
