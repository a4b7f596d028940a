use std::collections::HashSet;
use std::net::SocketAddr;

use tokio::task::{LocalSet, yield_now};

use super::*;
use crate::telemetry::Board;
use crate::upstream::fake::{self, Question as Asked, answer, in_lower_case, refusal};
use crate::upstream::habits::Sign;

const PATIENCE: Duration = Duration::from_secs(10);

const FORM: Form = Form { edns: Some(1232), may_fall_back: true, random_case: true };

/// Enough letters that a name is never all in lower case by chance.
const NAME: &str =
    "a-name-with-a-great-many-letters-in-it.of-which-some-are-in-upper-case.example.";

struct Fixture {
    udp: Rc<Udp>,
    budget: Rc<Budget>,
    board: Board,
    servers: Servers,
}

impl Fixture {
    fn new(server: SocketAddr, slots: usize) -> Self {
        let (board, budget) = (Board::new(1), Budget::new(100));
        let servers = Servers::new(&[server]);
        let udp = Udp::new(servers.clone(), slots, Rc::clone(&budget), board.tally(0));
        Self { udp, budget, board, servers }
    }

    /// Asks in a task of its own.
    fn ask(&self, name: &str) -> tokio::task::JoinHandle<Result<Answered, Failure>> {
        let (udp, asked) = (Rc::clone(&self.udp), Asked::new(name));
        tokio::task::spawn_local(async move { udp.exchange(0, &asked.key(), FORM).await })
    }

    fn waiting(&self) -> usize {
        self.udp.table.borrow().questions.len()
    }

    async fn until(&self, what: impl Fn() -> bool) {
        let reached = async {
            while !what() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, reached).await.expect("it happens in time");
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it ends in time")
}

fn is_whole(end: &Result<Answered, Failure>) -> bool {
    matches!(end, Ok(Answered::Whole(_)))
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

#[test]
fn many_questions_at_once_each_get_their_own_answer() {
    run(async {
        let (server, address) = fake::udp().await;
        let fixture = Fixture::new(address, 16);
        let tasks: Vec<_> =
            (0..200).map(|number| fixture.ask(&format!("n{number}.example."))).collect();
        let mut queries = Vec::new();
        for _ in &tasks {
            queries.push(within(fake::query(&server)).await);
        }
        let pairs: HashSet<_> = queries.iter().map(|(query, from)| (from, &query[..2])).collect();
        assert_eq!(pairs.len(), 200, "the IDs on one port are distinct");
        for (query, from) in queries.iter().rev() {
            server.send_to(&answer(query), from).await.unwrap();
        }
        for (number, task) in tasks.into_iter().enumerate() {
            let Ok(Answered::Whole(reply)) = within(task).await.unwrap() else {
                panic!("{number}")
            };
            let name = format!("n{number}");
            assert!(reply.message()[13..].to_ascii_lowercase().starts_with(name.as_bytes()));
            assert!(!reply.over_tcp && reply.took < PATIENCE);
        }
        assert_eq!(fixture.waiting(), 0);
        assert_eq!(fixture.board.sum(Counter::UpstreamWrongReplies), 0);
    });
}

#[test]
fn a_question_that_is_given_up_leaves_nothing_and_its_reply_is_late() {
    run(async {
        let (server, address) = fake::udp().await;
        let fixture = Fixture::new(address, 4);
        let given_up: Vec<_> =
            (0..40).map(|number| fixture.ask(&format!("n{number}.example."))).collect();
        let mut queries = Vec::new();
        for _ in &given_up {
            queries.push(within(fake::query(&server)).await);
        }
        given_up.iter().for_each(tokio::task::JoinHandle::abort);
        fixture.until(|| fixture.waiting() == 0).await;
        for (query, from) in &queries {
            server.send_to(&answer(query), from).await.unwrap();
        }
        let late = || fixture.board.sum(Counter::UpstreamLateReplies);
        // Those that came to a retired port, closed by then, are not even seen.
        fixture.until(|| late() > 0).await;
        assert_eq!(fixture.board.sum(Counter::UpstreamWrongReplies), 0);
        let after = fixture.ask("after.example.");
        let (query, from) = within(fake::query(&server)).await;
        server.send_to(&answer(&query), from).await.unwrap();
        assert!(is_whole(&within(after).await.unwrap()));
    });
}

#[test]
fn a_closed_port_fails_the_question_at_once() {
    run(async {
        let (server, address) = fake::udp().await;
        drop(server);
        let fixture = Fixture::new(address, 4);
        for _ in 0..3 {
            let end = within(fixture.ask(NAME)).await.unwrap();
            assert!(matches!(end, Err(Failure::Network)), "{end:?}");
        }
        assert_eq!(fixture.waiting(), 0);
    });
}

#[test]
fn replies_that_do_not_fit_are_counted_and_waited_past() {
    run(async {
        let (server, address) = fake::udp().await;
        let fixture = Fixture::new(address, 1);
        let task = fixture.ask(NAME);
        let (query, from) = within(fake::query(&server)).await;
        let wrong = |at: usize| {
            let mut wrong = answer(&query);
            wrong[at] ^= 1;
            wrong
        };
        // The ID, QR, the opcode, the name, the type, the class.
        let end = query.len() - 11;
        let mut lies = vec![wrong(1), query.clone(), wrong(14), wrong(end - 3), wrong(end - 1)];
        lies.push(query[..11].to_vec());
        for lie in &lies {
            server.send_to(lie, from).await.unwrap();
        }
        server.send_to(&answer(&query), from).await.unwrap();
        assert!(is_whole(&within(task).await.unwrap()));
        assert_eq!(fixture.board.sum(Counter::UpstreamWrongReplies), lies.len() as u64);
    });
}

#[test]
fn too_many_wrong_replies_are_suspicious() {
    run(async {
        let (server, address) = fake::udp().await;
        let fixture = Fixture::new(address, 1);
        let task = fixture.ask(NAME);
        let (query, from) = within(fake::query(&server)).await;
        for offset in 1..=MAX_WRONG_REPLIES {
            let mut guess = answer(&query);
            guess[1] = guess[1].wrapping_add(offset);
            assert!(!task.is_finished());
            server.send_to(&guess, from).await.unwrap();
            let seen = || fixture.board.sum(Counter::UpstreamWrongReplies) == u64::from(offset);
            fixture.until(seen).await;
            yield_now().await;
        }
        assert!(matches!(within(task).await.unwrap(), Ok(Answered::Suspicious)));
    });
}

#[test]
fn the_letter_case_must_be_kept_once_it_was() {
    run(async {
        let (server, address) = fake::udp().await;
        let fixture = Fixture::new(address, 4);
        let exchange = async |reply: fn(Vec<u8>) -> Vec<u8>| {
            let task = fixture.ask(NAME);
            let (query, from) = within(fake::query(&server)).await;
            assert_ne!(query, in_lower_case(query.clone()));
            server.send_to(&reply(answer(&query)), from).await.unwrap();
            (task, query, from)
        };
        let (task, ..) = exchange(in_lower_case).await;
        assert!(is_whole(&within(task).await.unwrap()), "not known to keep it");
        assert!(!fixture.servers.habits(0).keeps_case());
        let (task, ..) = exchange(|reply| reply).await;
        assert!(is_whole(&within(task).await.unwrap()));
        assert!(fixture.servers.habits(0).keeps_case());

        let (task, query, from) = exchange(in_lower_case).await;
        fixture.until(|| fixture.board.sum(Counter::UpstreamWrongReplies) == 1).await;
        server.send_to(&answer(&query), from).await.unwrap();
        assert!(is_whole(&within(task).await.unwrap()), "the right one is waited for");
        let (task, ..) = exchange(in_lower_case).await;
        let end = within(task).await.unwrap();
        assert!(matches!(end, Ok(Answered::Suspicious)), "TCP has to tell: {end:?}");
        assert_eq!(fixture.waiting(), 0);
    });
}

#[test]
fn a_refusal_without_an_opt_record_may_be_for_ours() {
    run(async {
        let (server, address) = fake::udp().await;
        let fixture = Fixture::new(address, 4);
        for (rcode, bare, fits) in
            [(1, false, true), (4, true, true), (2, false, false), (5, true, false)]
        {
            let task = fixture.ask(NAME);
            let (query, from) = within(fake::query(&server)).await;
            let mut reply = refusal(&query, rcode);
            if bare {
                reply.truncate(12);
                (reply[5], reply[11]) = (0, 0);
            }
            server.send_to(&reply, from).await.unwrap();
            let end = within(task).await.unwrap();
            let sign = Sign::Port(from.port());
            match end.unwrap() {
                Answered::NotUnderstood(code, at) => {
                    assert_eq!((fits, code.0, at), (true, rcode.into(), sign));
                }
                Answered::Refused(code) => assert_eq!((fits, bare, code.0), (false, true, 5)),
                Answered::Whole(_) => assert_eq!((fits, bare), (false, false)),
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn ports_are_closed_when_nothing_was_asked_for_a_while() {
    run(async {
        let (server, address) = fake::udp().await;
        let fixture = Fixture::new(address, 64);
        for _ in 0..20 {
            let task = fixture.ask(NAME);
            let (query, from) = within(fake::query(&server)).await;
            server.send_to(&answer(&query), from).await.unwrap();
            within(task).await.unwrap().unwrap();
        }
        assert!(fixture.budget.open() > 10);
        tokio::time::pause();
        tokio::time::advance(crate::upstream::ports::MAX_AGE + SWEEP).await;
        tokio::time::resume();
        fixture.until(|| fixture.budget.open() == 0 && !fixture.udp.sweeping.get()).await;
    });
}
