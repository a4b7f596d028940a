//! What shows only in time: sleep and waking, a runtime shared with others, the end under load, and
//! a soak.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread;
use std::time::Instant;

use super::*;

/// How long ending a backend may take, whatever comes in.
const END: Duration = Duration::from_secs(2);

/// Questions that one client of the soak has open, few enough for every buffer.
const WINDOW: usize = 16;

pub(super) fn no_wake_up_is_lost<B: Subject>() {
    const ROUNDS: u32 = 20_000;
    let mut rig = Rig::<B>::new(&["127.0.0.1:0", "127.0.0.1:0"], 4);
    let addresses = rig.addresses.clone();
    thread::scope(|scope| {
        scope.spawn(move || {
            let client = client("127.0.0.1:0");
            // One at a time, so that the backend goes to sleep whenever the next one comes; at once
            // or a little later, to either of the listeners.
            for round in 0..ROUNDS {
                for _ in 0..round % 64 * 8 {
                    std::hint::spin_loop();
                }
                let server = addresses[(round / 3) as usize % 2];
                client.send_to(&round.to_be_bytes(), server).unwrap();
                assert_eq!(take(&client), (round.to_be_bytes().to_vec(), server));
            }
        });
        rig.echo(ROUNDS as usize);
    });
}

pub(super) fn a_yielding_worker_lets_the_runtime_run<B: Subject>() {
    let mut rig = Rig::<B>::new(&["127.0.0.1:0"], 4);
    let (client, server) = (client("127.0.0.1:0"), rig.addresses[0]);
    let backend = &mut rig.backend;
    let worker = async {
        let other = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = other.local_addr().unwrap();
        let other = tokio::spawn(async move { other.recv(&mut [0; 16]).await.unwrap() });
        let timer = tokio::spawn(tokio::time::sleep(Duration::from_millis(20)));
        let (begun, mut asked, mut echoed) = (Instant::now(), false, 0);
        // It never waits, as under a load that leaves something to do in each turn.
        while !(other.is_finished() && echoed == 1) {
            assert!(begun.elapsed() < PATIENCE, "{timer:?}, {other:?}, {echoed} echoes");
            if timer.is_finished() && !std::mem::replace(&mut asked, true) {
                client.send_to(b"x", address).unwrap();
                client.send_to(b"x", server).unwrap();
            }
            backend.receive();
            while let Some(packet) = backend.next() {
                packet.reply(1);
            }
            echoed += backend.send().accepted;
            tokio::task::yield_now().await;
        }
    };
    B::block_on(&rig.runtime, worker);
}

pub(super) fn dropping_under_a_flood_ends_and_frees_the_address<B: Subject>() {
    for round in 0..5 {
        let mut rig = Rig::<B>::new(&["127.0.0.1:0", "0.0.0.0:0"], 16);
        let stop = AtomicBool::new(false);
        let addresses = rig.addresses.clone();
        thread::scope(|scope| {
            for &address in &addresses {
                let stop = &stop;
                let server = SocketAddr::from(([127, 0, 0, 1], address.port()));
                scope.spawn(move || {
                    let client = client("127.0.0.1:0");
                    while !stop.load(Ordering::Relaxed) {
                        // Refused (ICMP) once nobody listens.
                        let _ = client.send_to(b"flood", server);
                    }
                });
            }
            let _stops = AtEnd(|| stop.store(true, Ordering::Relaxed));
            rig.echo(1_000 * round);
            // With a batch in hand, or not.
            if round % 2 == 0 {
                rig.receive();
                rig.backend.next().expect("a packet").reply(3);
            }
            let begun = Instant::now();
            drop(rig);
            let took = begun.elapsed();
            assert!(took < END, "{took:?}");
        });
        probe(&addresses).expect("the sockets are closed");
    }
}

pub(super) fn a_short_soak_loses_nothing<B: Subject>() {
    soak_for::<B>(Duration::from_secs(2));
}

pub(super) fn soak<B: Subject>() {
    let seconds = std::env::var("SWIFTLET_SOAK_SECONDS").map_or(60, |text| text.parse().unwrap());
    soak_for::<B>(Duration::from_secs(seconds));
}

/// Clients that keep a window open at full speed, to a plain and a wildcard listener; every seventh
/// datagram is answered late. Each must be answered, and counted, once.
fn soak_for<B: Subject>(time: Duration) {
    let mut rig = Rig::<B>::new(&["127.0.0.1:0", "0.0.0.0:0"], DEFAULT_BATCH);
    let servers = [0, 1].map(|at| SocketAddr::from(([127, 0, 0, 1], rig.addresses[at].port())));
    let (asked, clients) = (AtomicUsize::new(0), AtomicUsize::new(4));
    thread::scope(|scope| {
        for at in 0..4 {
            let (asked, clients, server) = (&asked, &clients, servers[at % 2]);
            scope.spawn(move || {
                let _leaves = AtEnd(|| _ = clients.fetch_sub(1, Ordering::Relaxed));
                ask_for(time, server, asked);
            });
        }
        let mut late: Vec<(Route, Vec<u8>)> = Vec::new();
        while clients.load(Ordering::Relaxed) > 0 {
            for (route, answer) in late.drain(..) {
                assert!(rig.backend.send_to(&route, &answer));
            }
            rig.send();
            soak_turn(&mut rig, &mut late);
            assert_eq!(rig.backend.outstanding(), 0);
        }
    });
    let asked = asked.into_inner();
    assert_eq!((rig.received.packets, rig.sent), (asked, Sent { accepted: asked, refused: 0 }));
    eprintln!("{asked} datagrams in {time:?}");
}

/// Called when it is dropped, after a panic too: who waits for a thread must not do so for ever.
struct AtEnd<F: FnMut()>(F);

impl<F: FnMut()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// One batch if one comes within a little while.
fn soak_turn<B: Subject>(rig: &mut Rig<B>, late: &mut Vec<(Route, Vec<u8>)>) {
    let ready = async {
        let ready = poll_fn(|cx| rig.backend.poll_ready(cx));
        tokio::time::timeout(Duration::from_millis(5), ready).await
    };
    if B::block_on(&rig.runtime, ready).is_err() {
        return;
    }
    let received = rig.backend.receive();
    assert_eq!((received.dropped, received.oversize, received.errors), (0, 0, 0));
    rig.received.packets += received.packets;
    while let Some(packet) = rig.backend.next() {
        let len = packet.len;
        if packet.buf[0] % 7 == 0 {
            late.push((packet.route, packet.buf[..len].to_vec()));
        } else {
            packet.reply(len);
        }
    }
    rig.send();
}

fn ask_for(time: Duration, server: SocketAddr, asked: &AtomicUsize) {
    let client = client("127.0.0.1:0");
    let begun = Instant::now();
    let (mut next, mut open, mut count) = (0u32, BTreeMap::new(), 0);
    while begun.elapsed() < time || !open.is_empty() {
        while open.len() < WINDOW && begun.elapsed() < time {
            next += 1;
            // As many bytes as the first of them says, which differs from one to the next.
            let mut question = vec![next as u8; usize::from(next as u8).max(5)];
            question[1..5].copy_from_slice(&next.to_be_bytes());
            client.send_to(&question, server).unwrap();
            open.insert(next, question);
            count += 1;
        }
        let (answer, from) = take(&client);
        let serial = u32::from_be_bytes(answer[1..5].try_into().unwrap());
        assert_eq!((open.remove(&serial), from), (Some(answer), server));
    }
    asked.fetch_add(count, Ordering::Relaxed);
}
