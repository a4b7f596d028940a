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

/// Tries that this process had no socket for, after which it gives up: it is busy enough.
const MAX_TRIES_WITHOUT_SOCKET: usize = 2;

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
        if failure == Failure::NoSocket && self.tries >= MAX_TRIES_WITHOUT_SOCKET {
            self.next = Next::Nothing;
            return;
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
mod tests;
