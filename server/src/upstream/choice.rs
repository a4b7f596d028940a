//! Whom to ask: the best few of the servers that may be asked, found in one pass.
//!
//! Cost: a look at every candidate for the best score, then O(n log k) for the k best in a bounded heap;
//! nothing is sorted but those k and nothing is allocated. A server that is about as fast as the best
//! ([`is_equal`]) counts as equal to it, and among equals the order of the configuration decides.
//!
//! Bounds: [`BEST`] servers are kept; one more is probed or explored beside them for one question.

use rand::RngExt;
use rand::rngs::StdRng;

use super::server::{Server, State};

/// Servers that are kept of all candidates.
pub(super) const BEST: usize = 3;

/// What is slower than the best by less than this is as good.
const EQUAL_US: u64 = 2_000;

/// Round trips so short that it isn't worth looking whether an unknown server has shorter ones.
const GOOD_ENOUGH_US: u64 = 5_000;

/// What was chosen.
#[derive(Debug, Default)]
pub(super) struct Choice {
    best: [usize; BEST],
    len: usize,
    /// An open or unknown server that a probe should go to; it is to be claimed first.
    pub(super) probe: Option<usize>,
    /// A server that isn't among the best, drawn at random.
    pub(super) explore: Option<usize>,
    /// The server that may be probed first of those whose breaker is open, and when.
    pub(super) soonest: Option<(u64, usize)>,
}

impl Choice {
    /// The best servers of those that are up, best first.
    #[must_use]
    pub(super) fn best(&self) -> &[usize] {
        &self.best[..self.len]
    }
}

/// Chooses of `candidates`, which stand in the order of the configuration, those that `may` be asked.
/// `explore` is the random number generator if this question explores.
pub(super) fn choose(
    servers: &[Server],
    candidates: &[usize],
    may: impl Fn(usize) -> bool,
    now_ms: u64,
    mut explore: Option<&mut StdRng>,
) -> Choice {
    let up = |server: usize| servers[server].state(now_ms) == State::Closed;
    let all_down = !candidates.iter().any(|&server| up(server));
    let able = candidates.iter().filter(|&&server| may(server) && up(server));
    let scores = able.map(|&server| servers[server].score_us(now_ms));
    let best_us = scores.filter(|&score| score > 0).min().unwrap_or(0);

    let mut heap = Heap::default();
    let mut others = Reservoir::default();
    let mut offer_other = |server| {
        if let Some(random) = explore.as_deref_mut() {
            others.offer(server, random);
        }
    };
    let mut choice = Choice::default();
    let (mut healthy, mut unknown, mut due) = (0, None, None);
    for (place, &number) in candidates.iter().enumerate().filter(|&(_, &number)| may(number)) {
        let server = &servers[number];
        if server.state(now_ms) != State::Closed {
            let due_ms = server.due_ms(all_down);
            choice.soonest = choice.soonest.into_iter().chain([(due_ms, number)]).min();
            if due_ms <= now_ms {
                due = due.or(Some(number));
                offer_other(number);
            }
            continue;
        }
        healthy += 1;
        if server.is_unknown() && server.due_ms(false) <= now_ms {
            unknown = unknown.or(Some(number));
        }
        let score = server.score_us(now_ms);
        let rank = if is_equal(score, best_us) { 0 } else { score };
        if let Some((_, _, loser)) = heap.offer((rank, place, number)) {
            offer_other(loser);
        }
    }
    for (_, _, number) in heap.sorted() {
        choice.best[choice.len] = number;
        choice.len += 1;
    }
    let (first, rest) = match choice.best().split_first() {
        Some((&first, rest)) => (Some(first), rest),
        None => (None, &[][..]),
    };
    // With no more candidates than are kept, those behind the first are the others.
    if heap.losers == 0 {
        rest.iter().for_each(|&server| offer_other(server));
    }
    let gain = best_us > GOOD_ENOUGH_US;
    let due = due.filter(|_| healthy < BEST);
    choice.probe = due.or_else(|| unknown.filter(|&server| gain && Some(server) != first));
    choice.explore = others.drawn;
    choice
}

/// Whether a score is as good as the best one.
fn is_equal(score_us: u64, best_us: u64) -> bool {
    score_us <= (best_us + best_us / 4).max(best_us + EQUAL_US)
}

/// A rank, the place in the configured order, and the server.
type Ranked = (u64, usize, usize);

/// The least [`BEST`] of what is offered: a heap whose root is the greatest of them.
#[derive(Debug, Default)]
struct Heap {
    kept: [Ranked; BEST],
    len: usize,
    losers: usize,
}

impl Heap {
    /// Offers one, and returns the one that is not among the least for it.
    fn offer(&mut self, offered: Ranked) -> Option<Ranked> {
        if self.len < BEST {
            self.kept[self.len] = offered;
            self.len += 1;
            self.sift_up();
            return None;
        }
        self.losers += 1;
        if offered >= self.kept[0] {
            return Some(offered);
        }
        let loser = std::mem::replace(&mut self.kept[0], offered);
        self.sift_down();
        Some(loser)
    }

    fn sift_up(&mut self) {
        let mut at = self.len - 1;
        while at > 0 && self.kept[at] > self.kept[(at - 1) / 2] {
            self.kept.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    fn sift_down(&mut self) {
        let mut at = 0;
        while let Some(child) = (2 * at + 1..self.len.min(2 * at + 3)).max_by_key(|&c| self.kept[c])
        {
            if self.kept[child] <= self.kept[at] {
                break;
            }
            self.kept.swap(child, at);
            at = child;
        }
    }

    fn sorted(&self) -> impl Iterator<Item = Ranked> + use<> {
        let mut kept = self.kept;
        kept[..self.len].sort_unstable();
        kept.into_iter().take(self.len)
    }
}

/// One of what is offered, each with the same chance, however many they are.
#[derive(Debug, Default)]
struct Reservoir {
    drawn: Option<usize>,
    offered: u32,
}

impl Reservoir {
    fn offer(&mut self, server: usize, random: &mut StdRng) {
        self.offered += 1;
        if random.random_range(0..self.offered) == 0 {
            self.drawn = Some(server);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::super::backoff::Class;
    use super::*;

    fn servers(round_trips_ms: &[u64]) -> Vec<Server> {
        let server = |&ms: &u64| {
            let server = Server::new("192.0.2.1:53".parse().unwrap());
            if ms > 0 {
                server.answered(Duration::from_millis(ms), 0);
            }
            server
        };
        round_trips_ms.iter().map(server).collect()
    }

    fn all(servers: &[Server]) -> Vec<usize> {
        (0..servers.len()).collect()
    }

    fn best(servers: &[Server], now_ms: u64) -> Vec<usize> {
        choose(servers, &all(servers), |_| true, now_ms, None).best().to_vec()
    }

    fn take_down(server: &Server, now_ms: u64) {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..3 {
            let took = Duration::from_millis(1);
            server.failed(Class::Network, took, (now_ms, now_ms), &mut random);
        }
    }

    #[test]
    fn equals_stand_in_the_configured_order_and_the_others_by_their_time() {
        assert_eq!(best(&servers(&[11, 10, 10]), 0), [0, 1, 2], "about as fast");
        assert_eq!(best(&servers(&[125, 100]), 0), [0, 1], "up to a quarter");
        assert_eq!(best(&servers(&[126, 100]), 0), [1, 0]);
        assert_eq!(best(&servers(&[90, 20, 30, 10, 40]), 0), [3, 1, 2]);
        assert_eq!(
            best(&servers(&[0, 10, 0]), 0),
            [0, 1, 2],
            "unknown ones are as good as the best"
        );
        // However many equals there are, the first of the configuration are kept.
        assert_eq!(best(&servers(&[12, 12, 12, 12, 10, 10]), 0), [0, 1, 2]);
    }

    #[test]
    fn the_open_ones_are_left_out_and_probed_while_too_few_are_up() {
        let some = servers(&[10, 10, 10, 10]);
        take_down(&some[0], 1_000);
        let chosen = |now_ms| choose(&some, &all(&some), |_| true, now_ms, None);
        let choice = chosen(1_000);
        assert_eq!((choice.best(), choice.probe), (&[1, 2, 3][..], None));
        assert_eq!(choice.soonest.map(|(_, server)| server), Some(0));
        assert_eq!(chosen(2_000).probe, None, "three are up: nobody needs it");
        take_down(&some[1], 1_000);
        let choice = chosen(2_000);
        assert_eq!((choice.best(), choice.probe), (&[2, 3][..], Some(0)));
        assert!(some[0].claim(2_000));
        assert_eq!(chosen(2_000).probe, Some(1), "one at a time for each");
        take_down(&some[2], 2_000);
        take_down(&some[3], 2_000);
        let choice = chosen(2_000);
        assert!(choice.best().is_empty() && choice.soonest.is_some_and(|(_, server)| server == 1));
    }

    #[test]
    fn an_unknown_server_is_probed_when_there_is_something_to_gain() {
        let probe = |some: &[Server]| choose(some, &all(some), |_| true, 0, None).probe;
        assert_eq!(probe(&servers(&[1, 0])), None);
        let slow = servers(&[50, 0]);
        assert_eq!(probe(&slow), Some(1));
        assert!(slow[1].claim(0));
        assert_eq!(probe(&slow), None, "once");
        assert_eq!(probe(&servers(&[0, 50])), None, "it is asked first anyway");
    }

    #[test]
    fn what_may_not_be_asked_is_not_chosen() {
        let some = servers(&[10, 10, 10]);
        take_down(&some[2], 0);
        let mut random = StdRng::seed_from_u64(1);
        let choice = choose(&some, &all(&some), |server| server == 1, 9, Some(&mut random));
        assert_eq!((choice.best(), choice.probe, choice.soonest), (&[1][..], None, None));
    }

    /// How often each of `n` servers is explored in 10,000 draws.
    fn draws(some: &[Server]) -> Vec<usize> {
        let mut random = StdRng::seed_from_u64(9);
        let mut drawn = vec![0; some.len()];
        for _ in 0..10_000 {
            let choice = choose(some, &all(some), |_| true, 9_000, Some(&mut random));
            drawn[choice.explore.expect("there are others")] += 1;
        }
        drawn
    }

    #[test]
    fn every_server_but_the_best_is_explored_as_often() {
        let many = servers(&[90, 10, 80, 12, 70, 14, 60, 100]);
        take_down(&many[0], 0);
        let drawn = draws(&many);
        assert_eq!((drawn[1], drawn[3], drawn[5]), (0, 0, 0), "the best are asked anyway");
        for (server, &count) in
            drawn.iter().enumerate().filter(|(server, _)| ![1, 3, 5].contains(server))
        {
            assert!((1_800..2_200).contains(&count), "{server}: {drawn:?}");
        }
        let drawn = draws(&servers(&[10, 40, 50]));
        assert_eq!(drawn[0], 0);
        assert!((4_700..5_300).contains(&drawn[1]), "{drawn:?}");
    }

    proptest! {
        /// The heap beside a full sort.
        #[test]
        fn the_heap_keeps_the_least(ranks in prop::collection::vec(0u64..20, 0..40)) {
            let mut heap = Heap::default();
            let mut losers = Vec::new();
            let ranked: Vec<Ranked> =
                ranks.iter().enumerate().map(|(at, &rank)| (rank, at, at)).collect();
            losers.extend(ranked.iter().filter_map(|&ranked| heap.offer(ranked)));
            let mut sorted = ranked;
            sorted.sort_unstable();
            let split = sorted.len().min(BEST);
            prop_assert_eq!(heap.sorted().collect::<Vec<_>>(), &sorted[..split]);
            losers.sort_unstable();
            prop_assert_eq!(losers, &sorted[split..]);
        }

        /// The whole choice beside sorting all by rank and place.
        #[test]
        fn the_best_are_those_of_a_full_sort(round_trips in prop::collection::vec(0u64..60, 1..30)) {
            let some = servers(&round_trips);
            let least = round_trips.iter().copied().filter(|&ms| ms > 0).min().unwrap_or(0) * 1_000;
            let mut sorted = all(&some);
            sorted.sort_by_key(|&server| {
                let score = round_trips[server] * 1_000;
                let limit = (least + least / 4).max(least + 2_000);
                (if score <= limit { 0 } else { score }, server)
            });
            sorted.truncate(BEST);
            prop_assert_eq!(best(&some, 0), sorted);
        }
    }
}
