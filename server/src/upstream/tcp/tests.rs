use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::timeout;

use super::*;
use crate::telemetry::Board;
use crate::upstream::fake::{self, Question, answer, framed_query, write_framed};

const PATIENCE: Duration = Duration::from_secs(10);

const FORM: Form = Form { edns: Some(1232), may_fall_back: true, random_case: true };

struct Fixture {
    tcp: Rc<Connections>,
    udp: Rc<Udp>,
    budget: Rc<Budget>,
    board: Board,
}

impl Fixture {
    fn new(server: SocketAddr) -> Self {
        let (board, budget) = (Board::new(1), Budget::new(100));
        let servers = Servers::new(&[server]);
        let udp = Udp::new(servers.clone(), 4, Rc::clone(&budget), board.tally(0));
        let tcp = Rc::new(Connections::new(servers, Rc::clone(&budget), board.tally(0)));
        Self { tcp, udp, budget, board }
    }

    fn ask(&self, name: &str) -> JoinHandle<Result<Answered, Failure>> {
        let (tcp, udp, question) =
            (Rc::clone(&self.tcp), Rc::clone(&self.udp), Question::new(name));
        tokio::task::spawn_local(async move { tcp.exchange(0, &question.key(), FORM, &udp).await })
    }

    async fn until(&self, what: impl Fn() -> bool) {
        let reached = async {
            while !what() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, reached).await.expect("it happens in time");
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it ends in time")
}

async fn accept(listener: &TcpListener) -> TcpStream {
    within(listener.accept()).await.expect("a connection").0
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

#[test]
fn questions_are_pipelined_and_answered_in_any_order() {
    run(async {
        let (listener, address) = fake::tcp().await;
        let fixture = Fixture::new(address);
        let tasks: Vec<_> =
            (0..10).map(|number| fixture.ask(&format!("n{number}.example."))).collect();
        let mut stream = accept(&listener).await;
        let mut queries = Vec::new();
        for _ in &tasks {
            queries.push(within(framed_query(&mut stream)).await.unwrap());
        }
        for query in queries.iter().rev() {
            write_framed(&mut stream, &answer(query)).await;
        }
        for (number, task) in tasks.into_iter().enumerate() {
            let Ok(Answered::Whole(reply)) = within(task).await.unwrap() else {
                panic!("{number}")
            };
            let name = format!("n{number}");
            assert!(reply.message()[13..].to_ascii_lowercase().starts_with(name.as_bytes()));
            assert!(reply.over_tcp);
        }
        assert_eq!(fixture.board.sum(Counter::UpstreamConnections), 1);
    });
}

#[test]
fn a_full_connection_gets_another_beside_it_up_to_four() {
    run(async {
        let (listener, address) = fake::tcp().await;
        let fixture = Fixture::new(address);
        let all = MAX_PIPELINED * MAX_CONNECTIONS;
        let tasks: Vec<_> = (0..all).map(|at| fixture.ask(&format!("n{at}.example."))).collect();
        let mut streams = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            streams.push(accept(&listener).await);
        }
        let over = within(fixture.ask("over.example.")).await.unwrap();
        assert!(matches!(over, Err(Failure::Stream)), "{over:?}");
        for stream in &mut streams {
            for _ in 0..MAX_PIPELINED {
                let query = within(framed_query(stream)).await.unwrap();
                write_framed(stream, &answer(&query)).await;
            }
        }
        for task in tasks {
            assert!(matches!(within(task).await.unwrap(), Ok(Answered::Whole(_))));
        }
    });
}

#[test]
fn a_question_that_a_good_connection_was_closed_on_is_asked_once_more() {
    run(async {
        let (listener, address) = fake::tcp().await;
        let fixture = Fixture::new(address);
        for closed_before in [false, true] {
            let task = fixture.ask("first.example.");
            let mut stream = accept(&listener).await;
            let query = within(framed_query(&mut stream)).await.unwrap();
            write_framed(&mut stream, &answer(&query)).await;
            assert!(matches!(within(task).await.unwrap(), Ok(Answered::Whole(_))));

            let task = if closed_before {
                drop(stream);
                fixture.ask("second.example.")
            } else {
                let task = fixture.ask("second.example.");
                within(framed_query(&mut stream)).await.unwrap();
                drop(stream);
                task
            };
            let mut stream = accept(&listener).await;
            let query = within(framed_query(&mut stream)).await.unwrap();
            write_framed(&mut stream, &answer(&query)).await;
            assert!(matches!(within(task).await.unwrap(), Ok(Answered::Whole(_))));
            drop(stream);
            fixture.until(|| fixture.budget.open() == 0).await;
        }
    });
}

#[test]
fn a_connection_that_never_was_good_fails_its_questions() {
    run(async {
        let (listener, address) = fake::tcp().await;
        let fixture = Fixture::new(address);
        let task = fixture.ask("closed.example.");
        let mut stream = accept(&listener).await;
        within(framed_query(&mut stream)).await.unwrap();
        drop(stream);
        assert!(matches!(within(task).await.unwrap(), Err(Failure::Stream)));

        drop(listener);
        let refused = within(fixture.ask("refused.example.")).await.unwrap();
        assert!(matches!(refused, Err(Failure::Stream)), "{refused:?}");
        assert_eq!(fixture.board.sum(Counter::UpstreamConnections), 2);
        fixture.until(|| fixture.budget.open() == 0).await;
    });
}

#[test]
fn garbage_ends_the_connection_and_another_question_ends_its_own() {
    run(async {
        let (listener, address) = fake::tcp().await;
        let fixture = Fixture::new(address);
        let task = fixture.ask("www.example.");
        let mut stream = accept(&listener).await;
        let query = within(framed_query(&mut stream)).await.unwrap();
        let mut other = answer(&query);
        other[14] ^= 1;
        write_framed(&mut stream, &other).await;
        assert!(matches!(within(task).await.unwrap(), Err(Failure::WrongReplies)));
        assert_eq!(fixture.board.sum(Counter::UpstreamWrongReplies), 1);

        for garbage in [&[][..], &[0xff; 100]] {
            let task = fixture.ask("www.example.");
            within(framed_query(&mut stream)).await.unwrap();
            write_framed(&mut stream, garbage).await;
            assert!(matches!(within(task).await.unwrap(), Err(Failure::Malformed)));
            fixture.until(|| fixture.budget.open() == 0).await;
            let task = fixture.ask("again.example.");
            stream = accept(&listener).await;
            let query = within(framed_query(&mut stream)).await.unwrap();
            write_framed(&mut stream, &answer(&query)).await;
            assert!(matches!(within(task).await.unwrap(), Ok(Answered::Whole(_))));
        }
    });
}

#[test]
fn a_question_given_up_on_a_silent_connection_ends_it() {
    run(async {
        let (listener, address) = fake::tcp().await;
        let fixture = Fixture::new(address);
        let task = fixture.ask("www.example.");
        let mut stream = accept(&listener).await;
        within(framed_query(&mut stream)).await.unwrap();
        task.abort();
        assert!(within(framed_query(&mut stream)).await.is_none(), "it is closed");
        fixture.until(|| fixture.budget.open() == 0).await;
    });
}

#[test]
fn an_answer_to_a_question_given_up_is_late_and_the_connection_goes_on() {
    run(async {
        let (listener, address) = fake::tcp().await;
        let fixture = Fixture::new(address);
        let given_up = fixture.ask("slow.example.");
        let task = fixture.ask("www.example.");
        let mut stream = accept(&listener).await;
        let slow = within(framed_query(&mut stream)).await.unwrap();
        let query = within(framed_query(&mut stream)).await.unwrap();
        write_framed(&mut stream, &answer(&query)).await;
        within(task).await.unwrap().unwrap();
        given_up.abort();
        assert!(within(given_up).await.is_err());
        write_framed(&mut stream, &answer(&slow)).await;
        fixture.until(|| fixture.board.sum(Counter::UpstreamLateReplies) == 1).await;
        let task = fixture.ask("www.example.");
        let query = within(framed_query(&mut stream)).await.unwrap();
        write_framed(&mut stream, &answer(&query)).await;
        within(task).await.unwrap().unwrap();
        assert_eq!(fixture.board.sum(Counter::UpstreamConnections), 1);
    });
}

#[test]
fn a_connection_without_questions_is_closed_after_a_while() {
    run(async {
        let (listener, address) = fake::tcp().await;
        let fixture = Fixture::new(address);
        let task = fixture.ask("www.example.");
        let mut stream = accept(&listener).await;
        let query = within(framed_query(&mut stream)).await.unwrap();
        write_framed(&mut stream, &answer(&query)).await;
        within(task).await.unwrap().unwrap();
        assert_eq!(fixture.budget.open(), 1);
        tokio::time::pause();
        tokio::time::advance(MAX_IDLE).await;
        tokio::time::resume();
        assert!(within(framed_query(&mut stream)).await.is_none());
        fixture.until(|| fixture.budget.open() == 0).await;
    });
}

#[test]
fn a_change_of_the_network_ends_what_was_connected_before() {
    run(async {
        let (listener, address) = fake::tcp().await;
        let fixture = Fixture::new(address);
        let slow = fixture.ask("slow.example.");
        let mut before = accept(&listener).await;
        let query = within(framed_query(&mut before)).await.unwrap();
        fixture.tcp.servers.habits(0).renew();
        let task = fixture.ask("www.example.");
        let mut after = accept(&listener).await;
        let query_after = within(framed_query(&mut after)).await.unwrap();
        write_framed(&mut after, &answer(&query_after)).await;
        assert!(matches!(within(task).await.unwrap(), Ok(Answered::Whole(_))));
        write_framed(&mut before, &answer(&query)).await;
        assert!(matches!(within(slow).await.unwrap(), Ok(Answered::Whole(_))), "it may finish");
        assert!(within(framed_query(&mut before)).await.is_none(), "and is closed then");
        assert_eq!(fixture.budget.open(), 1);
    });
}
