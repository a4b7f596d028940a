//! One question, put to servers try after try until one of them answers or its time is over.
//!
//! A try that takes longer than its server usually does is not given up: it stays in flight while the
//! next one is asked, and whichever answers first ends the race. So a lost datagram costs a time-out of
//! some 20 ms and no SERVFAIL, and an answer that comes late is not thrown away.
//!
//! ```text
//!   first try ──(its server's p95)──► hedge, if the budget has one ──(time-out)──► next try ── ...
//!       └── failed at once ──► next try, after a pause when it is the same server again
//! ```
//!
//! Bounds: [`MAX_TRIES`] tries, [`MAX_IN_FLIGHT`] of them in flight, all within the time-out of the
//! question. A try is one allocation, so that a race, of which thousands wait at a time, stays small.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::{Choice, Failure, Upstreams, estimate::MIN_TIMEOUT};
use crate::telemetry::Counter;

/// Tries for one question.
const MAX_TRIES: usize = 8;

/// Tries in flight at a time: the oldest gives way.
const MAX_IN_FLIGHT: usize = 3;

/// A try is not begun with less time than this left.
const MIN_TRY: Duration = Duration::from_millis(5);

/// The pause before a server that failed at once is asked the same again, doubled each time.
const PAUSE: Duration = Duration::from_millis(5);

/// How long at most a question waits before it looks again whether a server is up, and how long at
/// least.
const LOOK_MAX_MS: u64 = 250;
const LOOK_MIN_MS: u64 = 10;

/// How often a server may say that it has no good answer, when there is no other to ask.
const MAX_REFUSALS_OF_ONE: usize = 2;

/// Puts a question to `candidates`. `ask` is one try at a server with all the time that is left, and
/// fails too when the answer is no good; `probe` asks a server apart from the race.
///
/// # Errors
///
/// The last failure that says more than that there was no answer in time.
pub async fn race<T, F: Future<Output = Result<T, Failure>>>(
    upstreams: &Upstreams,
    candidates: &[usize],
    ask: impl Fn(usize, Duration) -> F,
    probe: impl Fn(usize),
) -> Result<T, Failure> {
    let begun = Instant::now();
    let mut race = Race {
        upstreams,
        candidates,
        ask,
        deadline: begun + upstreams.timeout(),
        lanes: Default::default(),
        asked: [0; MAX_TRIES],
        tries: 0,
        refusals: [0; MAX_TRIES],
        refused: 0,
        pauses: 0,
        next: Next::Nothing,
        failure: None,
    };
    race.begin(probe);
    race.run(pin!(sleep_until(begun))).await
}

struct Race<'r, F, A> {
    upstreams: &'r Upstreams,
    candidates: &'r [usize],
    ask: A,
    deadline: Instant,
    lanes: [Option<Lane<F>>; MAX_IN_FLIGHT],
    /// The servers of the tries so far.
    asked: [usize; MAX_TRIES],
    tries: usize,
    /// The servers that had no good answer to this question, once for each time that they said so.
    refusals: [usize; MAX_TRIES],
    refused: usize,
    pauses: u32,
    next: Next,
    failure: Option<Failure>,
}

/// What to do when nothing comes from those that are in flight.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// Ask a second server, and what is due at `timeout` then.
    Hedge { at: Instant, timeout: Instant },
    /// The last try took too long: another one.
    Expire(Instant),
    /// Another try, after a pause.
    Try(Instant),
    /// Wait for what is in flight until the time is over.
    Nothing,
}

/// A place for a try in flight.
struct Lane<F> {
    flight: Flight,
    future: Pin<Box<F>>,
}

/// A try in flight.
#[derive(Clone, Copy, Debug)]
struct Flight {
    server: usize,
    begun: Instant,
    begun_ms: u64,
    timeout: Instant,
    /// Its time-out is over.
    expired: bool,
}

/// Whom to ask.
enum Pick {
    /// A server that this question was not put to yet, or whose breaker is open.
    Ask(usize),
    /// One that it was put to.
    Again(usize),
    /// Nobody before that time, in ms.
    Wait(u64),
    Nobody,
}

enum Event<T> {
    Ended(Flight, Result<T, Failure>),
    TimeOver,
    Due,
}

impl<T, F, A> Race<'_, F, A>
where
    F: Future<Output = Result<T, Failure>>,
    A: Fn(usize, Duration) -> F,
{
    /// The first try, and a look at another server beside it.
    fn begin(&mut self, probe: impl Fn(usize)) {
        let upstreams = self.upstreams;
        let choice = upstreams.first(self.candidates);
        match (choice.best().first(), choice.soonest) {
            (Some(&best), _) => {
                self.start(best);
                self.plan_hedge(best);
            }
            // All are down: a question is never turned away without having asked anybody.
            (None, Some((_, soonest))) => {
                upstreams.claim(soonest);
                self.start_probe(soonest);
                return;
            }
            (None, None) => return,
        }
        self.look_beside(&choice, probe);
    }

    fn look_beside(&self, choice: &Choice, probe: impl Fn(usize)) {
        let upstreams = self.upstreams;
        let (server, counter) = match (choice.probe, choice.explore) {
            (Some(server), _) if upstreams.claim(server) => (server, Counter::UpstreamProbes),
            (_, Some(server)) => (server, Counter::UpstreamExplored),
            _ => return,
        };
        if upstreams.begin_probe() {
            upstreams.tally.inc(counter);
            probe(server);
        }
    }

    async fn run(&mut self, mut timer: Pin<&mut Sleep>) -> Result<T, Failure> {
        while self.flights().next().is_some() || !matches!(self.next, Next::Nothing) {
            match self.event(timer.as_mut()).await {
                Event::Ended(flight, Ok(answer)) => {
                    self.won(flight);
                    return Ok(answer);
                }
                Event::Ended(flight, Err(failure)) => self.lost(flight, failure),
                Event::TimeOver => {
                    self.expire(self.deadline);
                    break;
                }
                Event::Due => self.due(),
            }
        }
        Err(self.failure.unwrap_or(Failure::Timeout))
    }

    /// Waits for the end of a try or for the time of what is next.
    async fn event(&mut self, mut timer: Pin<&mut Sleep>) -> Event<T> {
        let due = match self.next {
            Next::Hedge { at, .. } | Next::Expire(at) | Next::Try(at) => at.min(self.deadline),
            Next::Nothing => self.deadline,
        };
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        poll_fn(|cx| {
            if let Some((flight, result)) = self.lanes.iter_mut().find_map(|lane| poll(lane, cx)) {
                return Poll::Ready(Event::Ended(flight, result));
            }
            timer.as_mut().poll(cx).map(|()| match due == self.deadline {
                true => Event::TimeOver,
                false => Event::Due,
            })
        })
        .await
    }

    /// The time of what is next has come.
    fn due(&mut self) {
        match self.next {
            Next::Hedge { timeout, .. } => {
                self.next = Next::Expire(timeout);
                self.hedge();
            }
            Next::Expire(at) => {
                self.expire(at);
                self.try_next(false);
            }
            Next::Try(_) => self.try_next(true),
            Next::Nothing => {}
        }
    }

    /// Asks a second server while the first takes longer than it usually does.
    fn hedge(&mut self) {
        let first = self.asked[0];
        let choice = self.upstreams.next(self.candidates, |server| server != first);
        let Some(&second) = choice.best().first() else { return };
        match self.upstreams.may_hedge() {
            true => {
                self.upstreams.tally.inc(Counter::UpstreamHedged);
                self.start(second);
            }
            false => self.upstreams.tally.inc(Counter::UpstreamHedgesRefused),
        }
    }

    fn plan_hedge(&mut self, first: usize) {
        if self.candidates.len() < 2 {
            return;
        }
        if let (Some(after), Next::Expire(timeout)) = (self.upstreams.hedge_after(first), self.next)
        {
            let at = Instant::now() + after;
            if at < timeout {
                self.next = Next::Hedge { at, timeout };
            }
        }
    }

    /// Begins another try if there is somebody to ask and time for it. `rested`: the pause is over.
    fn try_next(&mut self, rested: bool) {
        let now = Instant::now();
        self.next = Next::Nothing;
        if self.tries == MAX_TRIES || self.deadline.saturating_duration_since(now) < MIN_TRY {
            return;
        }
        match self.pick() {
            Pick::Ask(server) => self.retry(server),
            Pick::Again(server) if rested || self.is_in_flight(server) => self.retry(server),
            Pick::Again(_) => {
                self.next = Next::Try(now + PAUSE * (1 << self.pauses));
                self.pauses += 1;
            }
            Pick::Wait(until_ms) => {
                let left_ms = until_ms.saturating_sub(self.upstreams.now_ms());
                let in_flight = self.flights().next().is_some();
                // What was refused just now, not lost, is not going to be better very soon.
                if in_flight || left_ms <= LOOK_MAX_MS || self.failure.is_none() {
                    let wait_ms = left_ms.clamp(LOOK_MIN_MS, LOOK_MAX_MS);
                    self.next = Next::Try(now + Duration::from_millis(wait_ms));
                }
            }
            Pick::Nobody => {}
        }
    }

    fn retry(&mut self, server: usize) {
        self.upstreams.tally.inc(Counter::UpstreamRetries);
        match self.upstreams.is_up(server) {
            true => self.start(server),
            false => self.start_probe(server),
        }
    }

    /// A live question is the probe of a server whose breaker is open.
    fn start_probe(&mut self, server: usize) {
        self.upstreams.tally.inc(Counter::UpstreamProbes);
        self.start(server);
    }

    /// The best that was not asked yet; one whose breaker is open and that is due; the best again.
    fn pick(&self) -> Pick {
        let (upstreams, candidates) = (self.upstreams, self.candidates);
        let fresh = upstreams.next(candidates, |server| !self.was_asked(server));
        if let Some(&server) = fresh.best().first() {
            return Pick::Ask(server);
        }
        let able = upstreams.next(candidates, |server| !self.has_refused(server));
        if let Some((due_ms, server)) = able.soonest
            && due_ms <= upstreams.now_ms()
            && upstreams.claim(server)
        {
            return Pick::Ask(server);
        }
        let free = able.best().iter().find(|&&server| !self.is_in_flight(server));
        match (free.or_else(|| able.best().first()), able.soonest) {
            (Some(&server), _) => Pick::Again(server),
            (None, Some((due_ms, _))) => Pick::Wait(due_ms),
            (None, None) => Pick::Nobody,
        }
    }

    fn was_asked(&self, server: usize) -> bool {
        self.asked[..self.tries].contains(&server)
    }

    fn is_in_flight(&self, server: usize) -> bool {
        self.flights().any(|flight| flight.server == server)
    }

    /// Whether a server said that it has no good answer, often enough to believe it.
    fn has_refused(&self, server: usize) -> bool {
        let most = if self.candidates.len() == 1 { MAX_REFUSALS_OF_ONE } else { 1 };
        self.refusals[..self.refused].iter().filter(|&&refused| refused == server).count() >= most
    }

    fn flights(&self) -> impl Iterator<Item = &Flight> {
        self.lanes.iter().flatten().map(|lane| &lane.flight)
    }

    /// Asks a server, and plans for the end of its time.
    fn start(&mut self, server: usize) {
        let begun = Instant::now();
        let left = self.deadline.saturating_duration_since(begun);
        let timeout = begun + self.timeout_of(server, left);
        let begun_ms = self.upstreams.now_ms();
        let flight = Flight { server, begun, begun_ms, timeout, expired: false };
        self.asked[self.tries] = server;
        self.tries += 1;
        let future = Box::pin((self.ask)(server, left));
        let age = |lane: &&mut Option<Lane<F>>| lane.as_ref().map(|lane| lane.flight.begun);
        if let Some(lane) = self.lanes.iter_mut().min_by_key(age) {
            *lane = Some(Lane { flight, future });
        }
        let running = self.flights().filter(|flight| !flight.expired);
        self.next = Next::Expire(running.map(|flight| flight.timeout).min().unwrap_or(timeout));
    }

    /// What the server usually takes, doubled with each try; half of what is left at most, while
    /// another try may follow. One that is down is not waited for as long: another may be up again.
    fn timeout_of(&self, server: usize, left: Duration) -> Duration {
        if self.tries + 1 >= MAX_TRIES {
            return left;
        }
        let usual = self.upstreams.timeout_of(server) * (1 << self.tries);
        let most = match self.upstreams.is_up(server) {
            true => left / 2,
            false => (left / 2).min(Duration::from_millis(LOOK_MAX_MS)),
        };
        usual.min(most.max(MIN_TIMEOUT)).min(left)
    }

    fn won(&mut self, winner: Flight) {
        if winner.expired {
            self.upstreams.tally.inc(Counter::UpstreamLate);
        }
        self.upstreams.answered(winner.server, winner.begun.elapsed());
        // One whose time-out was over may be lost, which says nothing of how long it takes.
        for flight in self.flights().filter(|flight| !flight.expired) {
            self.upstreams.server(flight.server).outlasted(flight.begun.elapsed());
        }
    }

    /// A try failed: the next one begins, unless another is on its way in good time.
    fn lost(&mut self, flight: Flight, failure: Failure) {
        if failure == Failure::Timeout {
            if !flight.expired {
                self.note_timeout(flight);
            }
        } else {
            let took = flight.begun.elapsed();
            self.upstreams.failed(flight.server, failure, took, flight.begun_ms);
            self.failure = Some(failure);
        }
        if failure.is_answer() && self.refused < MAX_TRIES {
            self.refusals[self.refused] = flight.server;
            self.refused += 1;
        }
        let pausing = matches!(self.next, Next::Try(_));
        if !pausing && self.flights().all(|flight| flight.expired) {
            self.try_next(false);
        }
    }

    /// The tries whose time is over by `at` count as failed; their answers are still waited for.
    fn expire(&mut self, at: Instant) {
        for lane in 0..MAX_IN_FLIGHT {
            let Some(Lane { flight, .. }) = &mut self.lanes[lane] else { continue };
            if flight.timeout <= at && !flight.expired {
                flight.expired = true;
                let flight = *flight;
                self.note_timeout(flight);
            }
        }
    }

    /// One question testifies against a server once: it may be the question that takes long.
    fn note_timeout(&self, flight: Flight) {
        let tries = &self.asked[..self.tries];
        let first = tries.iter().filter(|&&server| server == flight.server).count() == 1;
        self.upstreams.timed_out(flight.server, flight.begun_ms, first);
    }
}

/// The end of the try in a lane, which empties it.
fn poll<F: Future>(
    lane: &mut Option<Lane<F>>,
    cx: &mut Context<'_>,
) -> Option<(Flight, F::Output)> {
    match lane.as_mut()?.future.as_mut().poll(cx) {
        Poll::Ready(result) => Some((lane.take()?.flight, result)),
        Poll::Pending => None,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use swiftlet_net::clock::Clock;
    use swiftlet_parser::rr::Rcode;

    use super::super::{Probing, Servers};
    use super::*;
    use crate::telemetry::Board;

    const TIMEOUT: Duration = Duration::from_millis(3_000);
    const SERVFAIL: Failure = Failure::Rcode(Rcode::SERVFAIL);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// What a server of the script does with a try.
    #[derive(Clone, Copy, Debug)]
    enum Does {
        Answer(u64),
        Fail(Failure),
        Silence,
    }

    /// Servers that act by a script, on a clock that runs when nobody has anything to do.
    struct Scene {
        upstreams: Upstreams,
        board: Board,
        script: RefCell<Vec<Does>>,
        /// Every try: the time in ms and the server.
        log: RefCell<Vec<(u64, usize)>>,
        in_flight: Cell<usize>,
        most_in_flight: Cell<usize>,
        begun: Instant,
    }

    impl Scene {
        fn new(script: &[Does]) -> Rc<Self> {
            let begun = Instant::now();
            let (board, clock) = (Board::new(1), Clock::Timers { since: begun });
            let address = |number: usize| ([192, 0, 2, number as u8], 53).into();
            let addresses: Vec<_> = (0..script.len()).map(address).collect();
            let servers = Servers::new(&addresses);
            Rc::new(Self {
                upstreams: Upstreams::new(servers, TIMEOUT, 1232, clock, board.tally(0)),
                board,
                script: script.to_vec().into(),
                log: RefCell::default(),
                in_flight: Cell::default(),
                most_in_flight: Cell::default(),
                begun,
            })
        }

        fn now_ms(&self) -> u64 {
            self.begun.elapsed().as_millis() as u64
        }

        async fn act(&self, server: usize, within: Duration) -> Result<usize, Failure> {
            struct InFlight<'a>(&'a Cell<usize>);
            impl Drop for InFlight<'_> {
                fn drop(&mut self) {
                    self.0.set(self.0.get() - 1);
                }
            }
            self.log.borrow_mut().push((self.now_ms(), server));
            self.in_flight.set(self.in_flight.get() + 1);
            let _in_flight = InFlight(&self.in_flight);
            self.most_in_flight.set(self.most_in_flight.get().max(self.in_flight.get()));
            self.upstreams.server(server).asks();
            let does = self.script.borrow()[server];
            match does {
                Does::Answer(after) if ms(after) <= within => {
                    tokio::time::sleep(ms(after)).await;
                    Ok(server)
                }
                Does::Fail(failure) => Err(failure),
                Does::Answer(_) | Does::Silence => {
                    tokio::time::sleep(within).await;
                    Err(Failure::Timeout)
                }
            }
        }

        /// One question: its end and how long that took, in ms.
        async fn ask(self: &Rc<Self>) -> (Result<usize, Failure>, u64) {
            let begun_ms = self.now_ms();
            let candidates: Vec<usize> = (0..self.script.borrow().len()).collect();
            let probe = |server| {
                let scene = Rc::clone(self);
                tokio::task::spawn_local(async move {
                    let _probing = Probing(&scene.upstreams.probes);
                    let begun = (Instant::now(), scene.upstreams.now_ms());
                    let result = scene.act(server, ms(1_000)).await;
                    scene.upstreams.probe_ended(server, result.map(drop), begun);
                });
            };
            let ask = |server, within| self.act(server, within);
            let result = race(&self.upstreams, &candidates, ask, probe).await;
            (result, self.now_ms() - begun_ms)
        }

        fn sets(&self, server: usize, does: Does) {
            self.script.borrow_mut()[server] = does;
        }

        fn asked(&self) -> Vec<(u64, usize)> {
            std::mem::take(&mut self.log.borrow_mut())
        }

        fn count(&self, counter: Counter) -> u64 {
            self.board.sum(counter)
        }
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test)
    }

    #[test]
    fn a_lost_datagram_costs_a_time_out_and_no_failure() {
        run(async {
            let scene = Scene::new(&[Does::Answer(1)]);
            for _ in 0..50 {
                assert_eq!(scene.ask().await, (Ok(0), 1));
            }
            scene.sets(0, Does::Silence);
            let again = Rc::clone(&scene);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(ms(10)).await;
                again.sets(0, Does::Answer(1));
            });
            let (result, took) = scene.ask().await;
            assert!(result == Ok(0) && (21..=22).contains(&took), "{result:?} after {took} ms");
            assert_eq!(scene.count(Counter::UpstreamTimeouts), 1);
        });
    }

    #[test]
    fn silence_is_met_with_ever_rarer_tries_until_the_time_is_over() {
        run(async {
            let scene = Scene::new(&[Does::Answer(1)]);
            for _ in 0..50 {
                scene.ask().await.0.unwrap();
            }
            scene.sets(0, Does::Silence);
            scene.asked();
            let begun = scene.now_ms();
            assert_eq!(scene.ask().await, (Err(Failure::Timeout), 3_000));
            let tries: Vec<u64> = scene.asked().iter().map(|(at, _)| at - begun).collect();
            assert_eq!(tries, [0, 20, 60, 140, 300, 620, 1260, 2130]);
            assert_eq!(scene.most_in_flight.get(), MAX_IN_FLIGHT);
            assert_eq!(scene.count(Counter::UpstreamTimeouts), 8);
            assert_eq!(scene.upstreams.server(0).failures(super::super::Class::Timeout).1, 1);
        });
    }

    #[test]
    fn an_answer_that_comes_late_is_used() {
        run(async {
            let scene = Scene::new(&[Does::Answer(1), Does::Silence]);
            for _ in 0..50 {
                scene.ask().await.0.unwrap();
            }
            scene.sets(0, Does::Answer(70));
            assert_eq!(scene.ask().await, (Ok(0), 70), "while the other was asked");
            assert_eq!(scene.count(Counter::UpstreamLate), 1);
        });
    }

    #[test]
    fn the_second_answers_when_the_first_fails_and_nobody_is_asked_the_same_in_vain() {
        run(async {
            for failure in [SERVFAIL, Failure::Malformed, Failure::Network, Failure::Stream] {
                let scene = Scene::new(&[Does::Fail(failure), Does::Answer(1)]);
                assert_eq!(scene.ask().await, (Ok(1), 1), "{failure:?}");
                assert_eq!(scene.asked().len(), 2);
            }
            let scene = Scene::new(&[Does::Fail(SERVFAIL), Does::Fail(SERVFAIL)]);
            assert_eq!(scene.ask().await, (Err(SERVFAIL), 0));
            assert_eq!(scene.asked().len(), 2, "each said it once");
            let scene = Scene::new(&[Does::Fail(SERVFAIL)]);
            assert_eq!(scene.ask().await.0, Err(SERVFAIL));
            assert_eq!(scene.asked().len(), 2, "the only one may try twice");
        });
    }

    #[test]
    fn what_the_network_refuses_fails_soon_and_for_that_reason() {
        run(async {
            let scene = Scene::new(&[Does::Fail(Failure::Network), Does::Silence]);
            assert_eq!(
                scene.ask().await,
                (Err(Failure::Network), 3_000),
                "the other may answer yet"
            );
            let scene = Scene::new(&[Does::Fail(Failure::Network)]);
            let (result, took) = scene.ask().await;
            assert!(result == Err(Failure::Network) && took < 1_000, "{result:?} after {took} ms");
            assert!(scene.asked().len() > 3, "a moment's refusal is bridged");
            for _ in 0..100 {
                let (result, took) = scene.ask().await;
                assert!(result == Err(Failure::Network) && took < 1_000, "{result:?} after {took}");
                assert!(!scene.asked().is_empty(), "somebody is asked always");
            }
        });
    }

    #[test]
    fn a_hedge_rescues_a_slow_first_within_the_budget() {
        run(async {
            let scene = Scene::new(&[Does::Answer(10), Does::Answer(10)]);
            for _ in 0..600 {
                scene.ask().await.0.unwrap();
            }
            let before = scene.count(Counter::UpstreamHedged);
            scene.sets(0, Does::Answer(1_000));
            let (result, took) = scene.ask().await;
            assert!(result == Ok(1) && took < 25, "{result:?} after {took} ms");
            assert_eq!(scene.count(Counter::UpstreamHedged), before + 1);
        });
    }

    /// Answers take 1 to 40 ms, one in 25 of them long, which is more than the budget allows to hedge.
    #[test]
    fn hedges_and_explorations_are_at_most_four_in_a_hundred_questions() {
        run(async {
            let scene = Scene::new(&[Does::Answer(5); 6]);
            const QUESTIONS: u64 = 5_000;
            for question in 0..QUESTIONS {
                let slow = question % 25 == 0;
                (0..6).for_each(|server| {
                    let after = if slow { 40 } else { 6 + question % 3 };
                    scene.sets(server, Does::Answer(after));
                });
                scene.ask().await.0.unwrap();
            }
            let hedged = scene.count(Counter::UpstreamHedged);
            let explored = scene.count(Counter::UpstreamExplored);
            assert!(hedged * 100 <= QUESTIONS * 3 && hedged > 20, "{hedged}");
            assert!(explored * 100 <= QUESTIONS && explored > 20, "{explored}");
            assert!(scene.count(Counter::UpstreamHedgesRefused) > 0);
            let asked = scene.asked().len() as u64;
            let retries = scene.count(Counter::UpstreamRetries);
            let probes = scene.count(Counter::UpstreamProbes);
            assert_eq!(asked, QUESTIONS + hedged + explored + probes + retries);
            assert!(probes <= 5, "each of which nothing was known: {probes}");
        });
    }

    #[test]
    fn questions_move_to_the_faster_server() {
        run(async {
            let scene = Scene::new(&[Does::Answer(300), Does::Answer(5)]);
            for _ in 0..10 {
                scene.ask().await.0.unwrap();
            }
            for _ in 0..20 {
                assert_eq!(scene.ask().await, (Ok(1), 5));
            }
        });
    }

    #[test]
    fn a_dead_server_is_left_after_a_few_questions_and_found_again_by_probes() {
        run(async {
            let scene = Scene::new(&[Does::Answer(1), Does::Answer(1)]);
            for _ in 0..100 {
                scene.ask().await.0.unwrap();
            }
            scene.sets(0, Does::Silence);
            let mut slow = 0;
            for _ in 0..1_000 {
                let (result, took) = scene.ask().await;
                assert!(result == Ok(1) && took < 100, "{result:?} after {took} ms");
                slow += u64::from(took > 1);
                tokio::time::sleep(ms(20)).await;
            }
            assert!(slow <= 12, "{slow} questions waited for the dead one");
            scene.asked();
            scene.sets(0, Does::Answer(1));
            let begun = scene.now_ms();
            while scene.ask().await.0 != Ok(0) {
                tokio::time::sleep(ms(20)).await;
            }
            assert!(scene.now_ms() - begun <= 6_000, "after {} ms", scene.now_ms() - begun);
        });
    }

    /// All are silent for a minute; then answers flow within 2 s, for the questions in flight too.
    #[test]
    fn after_an_outage_of_all_answers_flow_within_two_seconds() {
        for outage in [Does::Silence, Does::Fail(Failure::Network), Does::Fail(SERVFAIL)] {
            run(async {
                let scene = Scene::new(&[Does::Answer(1), Does::Answer(1), Does::Answer(1)]);
                for _ in 0..100 {
                    scene.ask().await.0.unwrap();
                }
                (0..3).for_each(|server| scene.sets(server, outage));
                let until = scene.now_ms() + 60_000;
                while scene.now_ms() < until {
                    let scene = Rc::clone(&scene);
                    tokio::task::spawn_local(async move {
                        scene.ask().await.0.unwrap_err();
                    });
                    tokio::time::sleep(ms(50)).await;
                }
                let states: Vec<_> = (0..3).map(|server| scene.upstreams.is_up(server)).collect();
                assert_eq!(states, [false; 3], "{outage:?}");
                tokio::time::sleep(ms(4_000)).await;

                let (one, two) = (Rc::clone(&scene), Rc::clone(&scene));
                let waits = tokio::task::spawn_local(async move { one.ask().await });
                tokio::time::sleep(ms(100)).await;
                // Only the last to be asked comes back.
                scene.sets(2, Does::Answer(1));
                let after = tokio::task::spawn_local(async move {
                    let mut took = 0;
                    loop {
                        let (result, ms) = two.ask().await;
                        took += ms;
                        if result == Ok(2) {
                            break took;
                        }
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        took += 50;
                    }
                });
                let took = after.await.unwrap();
                assert!(took <= 2_000, "{outage:?}: {took} ms");
                if matches!(outage, Does::Silence) {
                    let (result, took) = waits.await.unwrap();
                    assert!(result == Ok(2) && took <= 2_100, "{outage:?}: {result:?} {took}");
                }
            });
        }
    }

    #[test]
    fn while_all_are_down_each_question_asks_one_and_probes_are_rationed() {
        run(async {
            let scene = Scene::new(&[Does::Silence, Does::Silence]);
            for _ in 0..40 {
                scene.ask().await.0.unwrap_err();
            }
            scene.asked();
            let mut questions = Vec::new();
            for _ in 0..100 {
                let scene = Rc::clone(&scene);
                questions.push(tokio::task::spawn_local(async move { scene.ask().await.1 }));
            }
            for question in questions {
                assert_eq!(question.await.unwrap(), 3_000);
            }
            let asked = scene.asked().len();
            assert!((100..=115).contains(&asked), "{asked} tries of 100 questions in 3 s");
        });
    }

    #[test]
    fn no_servers_at_all_is_a_failure_and_no_hang() {
        run(async {
            let scene = Scene::new(&[]);
            assert_eq!(scene.ask().await, (Err(Failure::Timeout), 0));
        });
    }

    #[test]
    fn a_race_that_is_dropped_leaves_nothing_in_flight() {
        run(async {
            let scene = Scene::new(&[Does::Silence, Does::Silence]);
            let _ = tokio::time::timeout(ms(1_000), scene.ask()).await;
            assert_eq!(scene.in_flight.get(), 0);
        });
    }
}
