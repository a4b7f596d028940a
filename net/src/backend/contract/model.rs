//! Random turns against the model, and more datagrams than any batch holds.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;

/// One turn of the property test: datagrams for a listener, each with whether it is replied to, and
/// deferred answers, by listener, before and after the packets are served.
type Turn = (usize, Vec<bool>, Vec<usize>, Vec<usize>);

pub(super) fn replies_and_deferred_answers_match_the_model<B: Subject>() {
    let listener = 0..3usize;
    let deferred = || prop::collection::vec(listener.clone(), 0..9);
    let turn =
        (listener.clone(), prop::collection::vec(any::<bool>(), 1..6), deferred(), deferred());
    let turns = prop::collection::vec(turn, 1..8);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..Default::default()
    });
    runner.run(&turns, |turns| check_turns::<B>(&turns)).unwrap();
}

fn check_turns<B: Subject>(turns: &[Turn]) -> Result<(), TestCaseError> {
    let mut rig = Rig::<B>::new(&["127.0.0.1:0", "0.0.0.0:0", "127.0.0.1:0"], 5);
    let client = client("127.0.0.1:0");
    let addresses: Vec<_> = rig
        .addresses
        .iter()
        .map(|address| SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())))
        .collect();
    let mut expected: Vec<(Vec<u8>, SocketAddr)> = Vec::new();
    let mut serial = 0u16;
    let mut stamp = || {
        serial += 1;
        serial.to_be_bytes().repeat(usize::from(serial) % 50 + 1)
    };
    for (asked, replied, before, after) in turns {
        for _ in replied {
            client.send_to(&stamp(), addresses[*asked]).unwrap();
        }
        let mut defer = |rig: &mut Rig<B>, listener: usize, expected: &mut Vec<_>| {
            let local = (listener == 1).then_some(IpAddr::from(Ipv4Addr::LOCALHOST));
            let route = Route::new(client.local_addr().unwrap(), local, 1, listener as u16);
            let answer = stamp();
            assert!(rig.backend.send_to(&route, &answer));
            expected.push((answer, addresses[listener]));
        };
        let received = rig.receive();
        prop_assert_eq!(received.packets, replied.len());
        before.iter().for_each(|&listener| defer(&mut rig, listener, &mut expected));
        for reply in replied {
            let packet = rig.backend.next().unwrap();
            if *reply {
                expected.push((packet.buf[..packet.len].to_vec(), addresses[*asked]));
                let len = packet.len;
                packet.reply(len);
            }
        }
        after.iter().for_each(|&listener| defer(&mut rig, listener, &mut expected));
        rig.send();
        prop_assert_eq!(rig.sent, Sent { accepted: expected.len(), refused: 0 });
    }
    let mut answers: Vec<_> = expected.iter().map(|_| take(&client)).collect();
    answers.sort();
    expected.sort();
    prop_assert_eq!(answers, expected);
    Ok(())
}

pub(super) fn nothing_is_lost_under_a_flood<B: Subject>() {
    const SENDERS: usize = 6;
    const EACH: u32 = 3_000;
    const WINDOW: u32 = 8;
    let mut rig = Rig::<B>::new(&["127.0.0.1:0", "127.0.0.1:0"], 16);
    let addresses = rig.addresses.clone();
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let server = addresses[sender % 2];
            // Each keeps a window of questions open, so that no receive buffer overflows, and must
            // see every echo once.
            scope.spawn(move || {
                let client = client("127.0.0.1:0");
                let mut seen = vec![false; EACH as usize];
                for at in 0..EACH + WINDOW {
                    if at < EACH {
                        client.send_to(&at.to_be_bytes(), server).unwrap();
                    }
                    if at >= WINDOW {
                        let (echo, from) = take(&client);
                        let echo = u32::from_be_bytes(echo.try_into().unwrap());
                        assert!(
                            from == server && !std::mem::replace(&mut seen[echo as usize], true)
                        );
                    }
                }
            });
        }
        rig.echo(SENDERS * EACH as usize);
    });
    assert_eq!(rig.sent, Sent { accepted: SENDERS * EACH as usize, refused: 0 });
}
