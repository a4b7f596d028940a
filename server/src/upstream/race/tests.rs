//! Races against servers that act by a script, on a clock that runs when nobody has anything to do.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use swiftlet_net::clock::Clock;
use swiftlet_parser::rr::Rcode;

use super::super::server::CLAIM_MS;
use super::super::{PROBE_TIMEOUT, Probing, Servers};
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
                let result = scene.act(server, PROBE_TIMEOUT).await;
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
        assert_eq!(scene.ask().await, (Err(Failure::Network), 3_000), "the other may answer yet");
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
        let probes = 2 * TIMEOUT.as_millis() as usize / CLAIM_MS as usize;
        assert!((100..=100 + probes).contains(&asked), "{asked} tries of 100 questions in 3 s");
    });
}

#[test]
fn a_process_without_sockets_does_not_blame_the_servers() {
    run(async {
        let scene = Scene::new(&[Does::Fail(Failure::NoSocket), Does::Fail(Failure::NoSocket)]);
        for _ in 0..10 {
            assert_eq!(scene.ask().await, (Err(Failure::NoSocket), 0));
        }
        assert_eq!(scene.asked().len(), 20);
        assert!(scene.upstreams.is_up(0) && scene.upstreams.is_up(1));
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
fn a_lost_probe_does_not_keep_a_question_from_a_server_that_is_back() {
    run(async {
        let scene = Scene::new(&[Does::Answer(1), Does::Answer(1)]);
        for _ in 0..50 {
            scene.ask().await.0.unwrap();
        }
        (0..3).for_each(|_| scene.upstreams.failed(0, Failure::Timeout, ms(0), scene.now_ms()));
        assert!(scene.upstreams.claim(0), "a probe that is lost");
        scene.sets(1, Does::Silence);
        let (result, took) = scene.ask().await;
        assert!(result == Ok(0) && took <= 450, "{result:?} after {took} ms");
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
