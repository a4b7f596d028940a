//! What a question to an upstream costs beside its system calls: nothing is allocated for it.

mod support;

use std::net::UdpSocket;
use std::time::Duration;

use support::allocations::{Counting, count};
use swiftlet::telemetry::{Board, Counter};
use swiftlet::upstream::{Means, Servers, Upstreams};
use swiftlet_net::clock::Clock;
use swiftlet_parser::key::{KeyBuf, Seed, Variant};
use swiftlet_parser::name::Name;
use swiftlet_parser::rr::{Class, Type};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PATIENCE: Duration = Duration::from_secs(10);

/// A server that repeats each question with QR set.
fn echo() -> std::net::SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut packet) {
            packet[2] |= 0x80;
            let _ = socket.send_to(&packet[..len], from);
        }
    });
    address
}

#[test]
fn questions_over_udp_allocate_nothing() {
    const QUESTIONS: u64 = 2000;
    let (board, servers) = (Board::new(1), Servers::new(&[echo()]));
    // Few slots, so that ports are opened and retired all the time.
    let means = Means { workers: 64, ..Means::default() };
    let upstreams =
        Upstreams::new(servers, PATIENCE, 1232, Clock::default(), board.tally(0)).with_means(means);
    let name = Name::from_text("www.example.").unwrap();
    let (mut keys, variant) = (KeyBuf::default(), Variant::new(false, false, 0));
    let key = keys.build(&Seed::new(1), name.as_wire(), Type::A, Class::IN, variant);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let ask = async |count| {
            for _ in 0..count {
                let reply = upstreams.ask(0, &key, PATIENCE).await.expect("an answer");
                assert!(!reply.over_tcp && reply.took < PATIENCE);
            }
        };
        ask(500).await;
        let (before, ports) = (count(), board.sum(Counter::UpstreamPorts));
        ask(QUESTIONS).await;
        let allocated = count() - before;
        assert!(board.sum(Counter::UpstreamPorts) - ports >= QUESTIONS / 20, "ports are retired");
        assert_eq!(allocated, 0, "in {QUESTIONS} questions");
    });
}
