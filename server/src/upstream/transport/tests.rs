use std::cell::Cell;
use std::time::Duration;

use swiftlet_net::clock::{Manual, Now};
use swiftlet_parser::response::Response;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::*;
use crate::telemetry::Board;
use crate::upstream::fake::{
    self, Question, answer, framed_query, has_opt, in_lower_case, refusal,
};

const PATIENCE: Duration = Duration::from_secs(10);

const NAME: &str =
    "a-name-with-a-great-many-letters-in-it.of-which-some-are-in-upper-case.example.";

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// A transport to a server that answers over UDP, or over UDP and TCP, what a closure makes of each query.
struct Fixture {
    transport: Transport,
    clock: Manual,
    board: Board,
    asked: Rc<Cell<(usize, usize)>>,
}

type Say = fn(&[u8]) -> Vec<u8>;

impl Fixture {
    async fn new(over_udp: Say, over_tcp: Option<Say>) -> Self {
        let (socket, listener) = loop {
            let (listener, address) = fake::tcp().await;
            if let Ok(socket) = UdpSocket::bind(address).await {
                break (socket, listener);
            }
        };
        let servers = Servers::new(&[socket.local_addr().unwrap()]);
        let (board, clock) = (Board::new(1), Manual::new(Now { boot_ms: 1000, wall_s: 1 }));
        let means = Means { workers: 64, ..Means::default() };
        let transport =
            Transport::new(servers, means, 1232, Clock::Manual(clock.clone()), board.tally(0));
        let asked = Rc::new(Cell::new((0, 0)));
        tokio::task::spawn_local(serve_udp(socket, over_udp, Rc::clone(&asked)));
        if let Some(over_tcp) = over_tcp {
            tokio::task::spawn_local(serve_tcp(listener, over_tcp, Rc::clone(&asked)));
        }
        Self { transport, clock, board, asked }
    }

    /// Asks, and returns the code of the answer and how many questions that took over UDP and TCP.
    async fn ask(&self, dnssec_ok: bool) -> (Result<Rcode, Failure>, (usize, usize)) {
        self.asked.set((0, 0));
        let question = Question::with(NAME, dnssec_ok);
        let key = question.key();
        let asking = self.transport.ask(0, &key);
        let end = timeout(PATIENCE, asking).await.expect("it ends in time");
        let code = |reply: Reply| Response::parse(reply.message()).unwrap().rcode();
        (end.map(code), self.asked.get())
    }
}

async fn serve_udp(socket: UdpSocket, say: Say, asked: Rc<Cell<(usize, usize)>>) {
    loop {
        let (query, from) = fake::query(&socket).await;
        let (over_udp, over_tcp) = asked.get();
        asked.set((over_udp + 1, over_tcp));
        socket.send_to(&say(&query), from).await.unwrap();
    }
}

async fn serve_tcp(listener: TcpListener, say: Say, asked: Rc<Cell<(usize, usize)>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        while let Some(query) = framed_query(&mut stream).await {
            let (over_udp, over_tcp) = asked.get();
            asked.set((over_udp, over_tcp + 1));
            fake::write_framed(&mut stream, &say(&query)).await;
        }
    }
}

/// Refuses EDNS with FORMERR.
fn without_edns(query: &[u8]) -> Vec<u8> {
    if has_opt(query) { refusal(query, 1) } else { answer(query) }
}

fn truncated(query: &[u8]) -> Vec<u8> {
    let mut answer = answer(query);
    answer[2] |= 2;
    answer
}

const GOOD: Result<Rcode, Failure> = Ok(Rcode::NOERROR);

#[test]
fn a_server_without_edns_is_asked_without_after_two_questions_and_for_a_while() {
    run(async {
        let fixture = Fixture::new(without_edns, None).await;
        let mut doubts = 0;
        // A question that takes the port of the one before is no second sign.
        while fixture.ask(false).await != (GOOD, (1, 0)) {
            doubts += 1;
            assert!(doubts < 10, "never known");
        }
        assert!(doubts >= 2, "one sign may be forged");
        assert_eq!(fixture.ask(true).await, (Ok(Rcode::FORMERR), (1, 0)), "DO needs EDNS");
        fixture.clock.advance_ms(15 * 60 * 1000);
        assert_eq!(fixture.ask(false).await, (GOOD, (2, 0)), "tried again");
        assert_eq!(fixture.board.sum(Counter::UpstreamEdnsFallbacks), doubts + 1);
    });
}

#[test]
fn one_sign_over_tcp_is_enough() {
    run(async {
        let fixture = Fixture::new(truncated, Some(without_edns)).await;
        assert_eq!(fixture.ask(false).await, (GOOD, (2, 2)));
        assert_eq!(fixture.ask(false).await, (GOOD, (1, 1)));
    });
}

#[test]
fn a_server_that_refuses_either_way_is_not_taken_for_one_without_edns() {
    run(async {
        let fixture = Fixture::new(|query| refusal(query, 1), None).await;
        for _ in 0..4 {
            assert_eq!(fixture.ask(false).await, (Ok(Rcode::FORMERR), (2, 0)));
        }
    });
}

#[test]
fn a_refusal_with_an_opt_record_is_for_the_question() {
    run(async {
        let say = |query: &[u8]| {
            let mut refusal = answer(query);
            refusal[3] |= 1;
            refusal
        };
        let fixture = Fixture::new(say, None).await;
        assert_eq!(fixture.ask(false).await, (Ok(Rcode::FORMERR), (1, 0)));
    });
}

#[test]
fn a_server_that_changes_the_case_over_tcp_too_does_not_keep_it() {
    run(async {
        let fixture = Fixture::new(
            |query| in_lower_case(answer(query)),
            Some(|query| in_lower_case(answer(query))),
        )
        .await;
        fixture.transport.servers.habits(0).note_case(true);
        assert_eq!(fixture.ask(false).await, (GOOD, (1, 1)), "it seemed to keep it");
        assert_eq!(fixture.ask(false).await, (GOOD, (1, 0)), "it does not");
    });
}

#[test]
fn a_server_whose_tcp_is_closed_fails_truncated_answers_at_once() {
    run(async {
        let (socket, address) = fake::udp().await;
        drop(socket);
        let socket = UdpSocket::bind(address).await.unwrap();
        let (board, servers) = (Board::new(1), Servers::new(&[address]));
        let means = Means::default();
        let transport = Transport::new(servers, means, 1232, Clock::default(), board.tally(0));
        tokio::task::spawn_local(serve_udp(socket, truncated, Rc::default()));
        let question = Question::new(NAME);
        let end = timeout(PATIENCE, transport.ask(0, &question.key())).await.unwrap();
        assert!(matches!(end, Err(Failure::Stream)), "{end:?}");
    });
}

#[test]
fn the_case_is_not_random_when_it_is_switched_off() {
    run(async {
        let (server, address) = fake::udp().await;
        let (board, servers) = (Board::new(1), Servers::new(&[address]));
        let means = Means { random_case: false, ..Means::default() };
        let transport = Transport::new(servers, means, 1232, Clock::default(), board.tally(0));
        let question = Question::new(NAME);
        let key = question.key();
        let asking = transport.ask(0, &key);
        let answering = async {
            let (query, from) = fake::query(&server).await;
            assert_eq!(query, in_lower_case(query.clone()));
            let mut shouted = answer(&query);
            shouted[12..].make_ascii_uppercase();
            server.send_to(&shouted, from).await.unwrap();
        };
        let both = async { tokio::join!(asking, answering) };
        let (end, ()) = timeout(PATIENCE, both).await.unwrap();
        assert!(end.is_ok());
    });
}

/// The future of a question is moved and kept for each one in flight.
#[test]
fn a_question_takes_little_room() {
    run(async {
        let (board, servers) = (Board::new(1), Servers::new(&["127.0.0.1:9".parse().unwrap()]));
        let means = Means::default();
        let transport = Transport::new(servers, means, 1232, Clock::default(), board.tally(0));
        let question = Question::new(NAME);
        let key = question.key();
        let size = size_of_val(&transport.ask(0, &key));
        assert!(size <= 512, "{size} bytes");
    });
}
