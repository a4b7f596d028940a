//! What is known of one upstream server, shared by all workers without a lock.
//!
//! Every try ends in [`Server::answered`] or [`Server::failed`]; [`Server::score_us`] ranks the server by
//! the time that an answer takes on average. The circuit breaker:
//!
//! ```text
//!            failures of one class in a row
//!   closed ─────────────────────────────────► open ◄─────────────────────┐
//!     ▲                                         │ back-off over, claimed  │ the probe failed:
//!     │   it answered                           ▼                         │ back-off doubled
//!     └───────────────────────────────────── half-open ───────────────────┘
//! ```
//!
//! Bounds: one probe at a time is in flight at an open server ([`Server::claim`]); a claim that nobody
//! redeems is void after [`CLAIM_MS`].

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rand::rngs::StdRng;

use super::Habits;
use super::backoff::{self, Class};
use super::estimate::{Loss, RoundTrip};

/// How long a probe may take at most before another may be sent. One that is lost must not keep everybody
/// from a server that has come back, when there is nobody else.
pub const CLAIM_MS: u64 = 250;

/// One server.
#[derive(Debug)]
pub struct Server {
    /// Where it is asked.
    pub address: SocketAddr,
    /// How it speaks.
    pub habits: Habits,
    round_trip: RoundTrip,
    loss: Loss,
    asked: AtomicU64,
    answered: AtomicU64,
    streaks: [Streak; Class::ALL.len()],
    /// Whether the breaker is open or half-open.
    open: AtomicBool,
    /// Until then the one probe belongs to somebody.
    claimed_until_ms: AtomicU64,
    /// The class of the last failure and one, in the lower 8 bits, and when it was, in ms.
    last_error: AtomicU64,
}

/// The failures of one class.
#[derive(Debug, Default)]
struct Streak {
    /// Since the last answer.
    in_a_row: AtomicU32,
    /// Those of them that began after the back-off of the one before.
    doublings: AtomicU32,
    until_ms: AtomicU64,
    total: AtomicU64,
}

/// The breaker's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is asked.
    Closed,
    /// It is not asked before its back-off is over.
    Open,
    /// One probe is on its way.
    HalfOpen,
}

/// What an event did to the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// It opened.
    Opened,
    /// It closed.
    Closed,
}

/// What `/debug/upstreams` shows of it beside the counts.
#[derive(Clone, Copy, Debug)]
pub struct LastError {
    /// What failed.
    pub class: Class,
    /// When, in ms.
    pub at_ms: u64,
}

impl Server {
    /// A server of which nothing is known.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            habits: Habits::default(),
            round_trip: RoundTrip::default(),
            loss: Loss::default(),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            streaks: Default::default(),
            open: AtomicBool::new(false),
            claimed_until_ms: AtomicU64::new(0),
            last_error: AtomicU64::new(0),
        }
    }

    /// Notes that it is asked.
    pub fn asks(&self) {
        self.asked.fetch_add(1, Relaxed);
    }

    /// Notes a good answer, which ends every streak of failures.
    pub fn answered(&self, took: Duration, now_ms: u64) -> Change {
        self.answered.fetch_add(1, Relaxed);
        self.round_trip.sample(took);
        self.loss.note(false, now_ms);
        self.streaks.iter().for_each(Streak::end);
        self.settle()
    }

    /// Notes a failure of a try that began at `begun_ms`. An answer, if a bad one, has its round trip.
    pub fn failed(
        &self,
        class: Class,
        took: Duration,
        (begun_ms, now_ms): (u64, u64),
        random: &mut StdRng,
    ) -> Change {
        self.last_error.store(now_ms << 8 | (class as u64 + 1), Relaxed);
        self.loss.note(class.is_silence(), now_ms);
        if !class.is_silence() {
            // It lives: its silence is over.
            let silent = Class::ALL.iter().filter(|class| class.is_silence());
            silent.for_each(|&class| self.streak(class).end());
        }
        if class.is_answer() {
            self.round_trip.sample(took);
        }
        self.streak(class).grow(begun_ms, now_ms, random);
        self.end_claim(begun_ms);
        self.settle()
    }

    /// Ends the claim of the probe that failed. What began before it is not that probe: when a crowd
    /// fails at one time, each would let the next one claim anew.
    fn end_claim(&self, begun_ms: u64) {
        let claimed_until_ms = self.claimed_until_ms.load(Relaxed);
        if claimed_until_ms <= begun_ms + CLAIM_MS {
            self.claimed_until_ms.store(0, Relaxed);
        }
    }

    /// Notes that its answer had not come after so long, when another made it needless.
    pub fn outlasted(&self, waited: Duration) {
        self.round_trip.outlasted(waited);
    }

    /// Forgets its failures, because the machine's network is another one now.
    pub fn forget_failures(&self) -> Change {
        self.streaks.iter().for_each(Streak::end);
        self.loss.clear();
        self.round_trip.age();
        self.settle()
    }

    /// Takes the one probe that is due, if nobody else has.
    pub fn claim(&self, now_ms: u64) -> bool {
        let claimed = self.claimed_until_ms.load(Relaxed);
        let mine = now_ms + CLAIM_MS;
        claimed <= now_ms
            && self.claimed_until_ms.compare_exchange(claimed, mine, Relaxed, Relaxed).is_ok()
    }

    /// The breaker's state.
    pub fn state(&self, now_ms: u64) -> State {
        match self.open.load(Relaxed) {
            false => State::Closed,
            true if self.claimed_until_ms.load(Relaxed) > now_ms => State::HalfOpen,
            true => State::Open,
        }
    }

    /// When its back-off is over. `all_down`: when there is nobody better to ask, which shortens it.
    pub fn backoff_until_ms(&self, all_down: bool) -> u64 {
        let ends = self.streaks.iter().map(|streak| streak.until_ms.load(Relaxed)).max();
        let until_ms = ends.unwrap_or(0);
        match self.last_error() {
            Some(last) if all_down => until_ms.min(last.at_ms + backoff::MAX_ALL_DOWN_MS),
            _ => until_ms,
        }
    }

    /// When a probe may be sent: when the back-off is over and no other is on its way.
    pub fn due_ms(&self, all_down: bool) -> u64 {
        self.backoff_until_ms(all_down).max(self.claimed_until_ms.load(Relaxed))
    }

    /// The time that an answer takes on average, lost tries and the back-off that is left included; 0
    /// for a server of which nothing is known. One that never answered, but was asked, is taken for
    /// slow until its loss has faded.
    pub fn score_us(&self, now_ms: u64) -> u64 {
        let (timeout, lost) = (self.round_trip.timeout(), self.loss.share(now_ms));
        let srtt_us = match self.round_trip.smoothed() {
            Some((srtt_us, _)) => srtt_us.into(),
            None => (timeout.as_micros() as f64 * (8.0 * lost).min(1.0)) as u64,
        };
        srtt_us + self.loss.penalty_us(timeout, now_ms) + self.silence_left_us(now_ms)
    }

    /// The back-off that is left of the classes that say it cannot be reached.
    fn silence_left_us(&self, now_ms: u64) -> u64 {
        let silent = Class::ALL.iter().filter(|class| class.is_silence());
        let until_ms = silent.map(|&class| self.streak(class).until_ms.load(Relaxed)).max();
        until_ms.unwrap_or(0).saturating_sub(now_ms) * 1_000
    }

    /// Whether nothing is known of it since the network changed, good or bad.
    pub fn is_unknown(&self) -> bool {
        self.round_trip.is_old()
            && self.streaks.iter().all(|streak| streak.in_a_row.load(Relaxed) == 0)
    }

    /// What is known of its round trips.
    pub fn round_trip(&self) -> &RoundTrip {
        &self.round_trip
    }

    /// The share of tries that got no answer.
    pub fn loss(&self, now_ms: u64) -> f64 {
        self.loss.share(now_ms)
    }

    /// How often it was asked, and gave a good answer.
    pub fn counts(&self) -> (u64, u64) {
        (self.asked.load(Relaxed), self.answered.load(Relaxed))
    }

    /// Failures of a class: all, and those in a row.
    pub fn failures(&self, class: Class) -> (u64, u32) {
        let streak = self.streak(class);
        (streak.total.load(Relaxed), streak.in_a_row.load(Relaxed))
    }

    /// The last failure.
    pub fn last_error(&self) -> Option<LastError> {
        let last = self.last_error.load(Relaxed);
        let class = *Class::ALL.get(usize::from(last as u8).checked_sub(1)?)?;
        Some(LastError { class, at_ms: last >> 8 })
    }

    fn streak(&self, class: Class) -> &Streak {
        &self.streaks[class as usize]
    }

    /// Opens or closes the breaker as the streaks have it.
    fn settle(&self) -> Change {
        let broken =
            |&class: &Class| self.streak(class).in_a_row.load(Relaxed) >= class.opens_after();
        let open = Class::ALL.iter().any(broken);
        if self.open.load(Relaxed) == open || self.open.swap(open, Relaxed) == open {
            return Change::None;
        }
        self.claimed_until_ms.store(0, Relaxed);
        if open {
            return Change::Opened;
        }
        self.loss.clear();
        Change::Closed
    }
}

impl Streak {
    /// One more. Tries that began before the back-off was over fail for the reason that it is there for
    /// and don't make it longer: else one moment's thousand questions would double it a thousand times.
    fn grow(&self, begun_ms: u64, now_ms: u64, random: &mut StdRng) {
        self.total.fetch_add(1, Relaxed);
        let before = self.in_a_row.fetch_add(1, Relaxed);
        if begun_ms < self.until_ms.load(Relaxed) {
            return;
        }
        let doublings = if before == 0 { 0 } else { self.doublings.load(Relaxed) + 1 };
        self.doublings.store(doublings, Relaxed);
        self.until_ms.store(now_ms + backoff::delay_ms(doublings, random), Relaxed);
    }

    fn end(&self) {
        // The usual case writes nothing.
        if self.in_a_row.load(Relaxed) != 0 {
            self.in_a_row.store(0, Relaxed);
            self.doublings.store(0, Relaxed);
            self.until_ms.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn server() -> (Server, StdRng) {
        (Server::new("192.0.2.1:53".parse().unwrap()), StdRng::seed_from_u64(5))
    }

    const TOOK: Duration = Duration::from_millis(1);

    /// Fails at once, at that time.
    fn fail(server: &Server, class: Class, now_ms: u64, random: &mut StdRng) -> Change {
        server.failed(class, TOOK, (now_ms, now_ms), random)
    }

    #[test]
    fn the_breaker_opens_lets_one_probe_through_and_closes() {
        let (server, mut random) = server();
        assert_eq!(fail(&server, Class::Timeout, 100, &mut random), Change::None);
        assert_eq!(fail(&server, Class::Timeout, 200, &mut random), Change::None);
        assert_eq!(server.state(200), State::Closed);
        assert_eq!(fail(&server, Class::Timeout, 300, &mut random), Change::Opened);
        assert_eq!(server.state(300), State::Open);

        let due = server.due_ms(false);
        assert!((302..=304).contains(&due), "the third back-off: {due}");
        assert!(server.claim(due) && !server.claim(due), "one probe");
        assert_eq!(server.state(due), State::HalfOpen);
        assert_eq!(server.due_ms(false), due + CLAIM_MS, "no other before its time is over");
        assert_eq!(fail(&server, Class::Timeout, due, &mut random), Change::None);
        assert_eq!(server.state(due), State::Open);
        assert!((due + 4..=due + 8).contains(&server.due_ms(false)), "doubled");

        let due = server.due_ms(false);
        assert!(server.claim(due));
        assert_eq!(server.answered(TOOK, due), Change::Closed);
        assert_eq!((server.state(due), server.due_ms(false)), (State::Closed, 0));
        assert_eq!((server.loss(due), server.failures(Class::Timeout)), (0.0, (4, 0)));
        assert_eq!(fail(&server, Class::Timeout, due, &mut random), Change::None, "from the start");
        assert_eq!(server.due_ms(false), due + 1);
    }

    #[test]
    fn one_that_never_answered_is_taken_for_slow_for_a_while() {
        let (server, mut random) = server();
        assert_eq!(server.score_us(0), 0);
        fail(&server, Class::Timeout, 1_000, &mut random);
        assert!(server.score_us(1_001) > 400_000);
        assert!(server.score_us(11_000) < 2_000);
    }

    #[test]
    fn a_claim_that_nobody_redeems_ends() {
        let (server, mut random) = server();
        (0..3).for_each(|at| {
            fail(&server, Class::WrongReplies, at * 10, &mut random);
        });
        assert!(server.claim(50));
        assert!(!server.claim(50 + CLAIM_MS - 1) && server.claim(50 + CLAIM_MS));
    }

    #[test]
    fn what_fails_together_doubles_the_back_off_once() {
        let (server, mut random) = server();
        for _ in 0..1000 {
            server.failed(Class::Timeout, TOOK, (0, 400), &mut random);
        }
        assert_eq!(server.state(400), State::Open);
        assert!(server.due_ms(false) <= 402, "{}", server.due_ms(false));
    }

    /// Against the plain rule: each failure after the back-off doubles it, up to 5 s, 1 s when all are
    /// down.
    #[test]
    fn the_back_off_of_an_outage_is_bounded() {
        let (server, mut random) = server();
        let mut now_ms = 1_000;
        for failure in 0..30 {
            fail(&server, Class::Network, now_ms, &mut random);
            let longest = backoff::MAX_MS.min(1 << failure.min(20));
            let left = server.backoff_until_ms(false) - now_ms;
            assert!((longest.div_ceil(2)..=longest).contains(&left), "{failure}: {left}");
            assert!(server.backoff_until_ms(true) - now_ms <= backoff::MAX_ALL_DOWN_MS);
            now_ms = server.backoff_until_ms(false);
        }
    }

    #[test]
    fn classes_back_off_apart_and_an_answer_ends_silence() {
        let (server, mut random) = server();
        (0..3).for_each(|at| {
            fail(&server, Class::Timeout, at * 100, &mut random);
        });
        assert_eq!(server.state(300), State::Open);
        assert_eq!(fail(&server, Class::Rcode, 300, &mut random), Change::Closed, "it lives");
        assert_eq!(server.failures(Class::Timeout), (3, 0));
        assert_eq!(server.failures(Class::Rcode), (1, 1));
        assert_eq!(server.score_us(300), 1_000, "it is ranked by its round trip all the same");
    }

    #[test]
    fn bad_codes_open_the_breaker_only_when_nothing_else_comes() {
        let (server, mut random) = server();
        for round in 0..10 {
            for at in 0..60 {
                let change = fail(&server, Class::Rcode, round * 1_000 + at, &mut random);
                assert_eq!(change, Change::None);
            }
            server.answered(TOOK, round * 1_000);
        }
        for at in 0..63 {
            assert_eq!(fail(&server, Class::Rcode, 20_000 + at, &mut random), Change::None);
        }
        assert_eq!(fail(&server, Class::Rcode, 21_000, &mut random), Change::Opened);
    }

    #[test]
    fn a_change_of_the_network_forgets_failures_and_keeps_the_round_trip() {
        let (server, mut random) = server();
        server.answered(Duration::from_millis(7), 5);
        (0..9).for_each(|at| {
            fail(&server, Class::Network, at * 1_000, &mut random);
        });
        assert!(server.due_ms(false) > 8_000 && !server.is_unknown());
        assert_eq!(server.forget_failures(), Change::Closed);
        assert_eq!((server.state(8_000), server.due_ms(false)), (State::Closed, 0));
        assert_eq!(server.score_us(8_000), 7_000);
        assert!(server.is_unknown() && server.round_trip().is_old());
    }
}
