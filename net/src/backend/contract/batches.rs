//! What is taken in, dropped, answered and refused, datagram by datagram.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use super::*;

pub(super) fn out_of_bounds_options_are_refused<B: Subject>() {
    for batch in [0, MAX_BATCH + 1] {
        assert!(matches!(Rig::<B>::try_new(&["127.0.0.1:0"], batch), Err(OpenError::Batch { .. })));
    }
    assert!(matches!(Rig::<B>::try_new(&[], 1), Err(OpenError::Listeners { count: 0 })));
    assert!(matches!(Rig::<B>::try_new(&["192.0.2.1:0"], 1), Err(OpenError::NotAvailable { .. })));
}

pub(super) fn a_flooded_listener_does_not_starve_another<B: Subject>() {
    let mut rig = Rig::<B>::new(&["127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"], 4);
    let client = client("127.0.0.1:0");
    for _ in 0..40 {
        client.send_to(b"flood", rig.addresses[1]).unwrap();
    }
    rig.turn(|_, len| len);
    client.send_to(b"quiet", rig.addresses[0]).unwrap();
    client.send_to(b"quiet", rig.addresses[2]).unwrap();
    // The runtime must see the two sockets: it looks when a task yields.
    B::block_on(&rig.runtime, async { tokio::time::sleep(Duration::from_millis(1)).await });
    let turns: Vec<u16> =
        (0..B::TURNS_UNTIL_SERVED).map(|_| rig.turn(|_, len| len)[0].listener).collect();
    assert!(turns.contains(&0) && turns.contains(&2), "listeners served: {turns:?}");
}

pub(super) fn datagrams_from_port_zero_are_dropped_and_counted<B: Subject>() {
    let mut rig = Rig::<B>::new(&["127.0.0.1:0"], 4);
    let client = client("127.0.0.1:0");
    let nowhere = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let mut sent = 0;
    for at in 0..20 {
        if at % 3 == 0 {
            if forge(nowhere, v4(rig.addresses[0]), b"forged").is_none() {
                return;
            }
        } else {
            client.send_to(&[at], rig.addresses[0]).unwrap();
            sent += 1;
        }
    }
    rig.echo(20);
    assert_eq!((rig.received.packets, rig.received.dropped), (sent, 20 - sent));
    assert_eq!(rig.sent, Sent { accepted: sent, refused: 0 });
    let expected = multiset((0..20).filter(|at| at % 3 != 0).map(|at| vec![at]));
    assert_eq!(multiset((0..sent).map(|_| take(&client).0)), expected);
}

pub(super) fn a_refused_reply_does_not_stop_the_batch<B: Subject>() {
    let mut rig = Rig::<B>::new(&["127.0.0.1:0"], 16);
    let client = client("127.0.0.1:0");
    // Replies to the broadcast address are forbidden without SO_BROADCAST (EACCES), if such a
    // datagram is taken in at all.
    let broadcast = SocketAddrV4::new(Ipv4Addr::BROADCAST, 5353);
    for at in 0..15 {
        if at % 4 == 0 {
            if forge(broadcast, v4(rig.addresses[0]), b"forged").is_none() {
                return;
            }
        } else {
            client.send_to(&[at], rig.addresses[0]).unwrap();
        }
    }
    rig.echo(15);
    assert_eq!((rig.sent.accepted, rig.sent.refused + rig.received.dropped), (11, 4));
    let expected = multiset((0..15).filter(|at| at % 4 != 0).map(|at| vec![at]));
    assert_eq!(multiset((0..11).map(|_| take(&client).0)), expected);
}

pub(super) fn a_refused_deferred_answer_does_not_stop_the_others<B: Subject>() {
    let mut rig = Rig::<B>::new(&["127.0.0.1:0"], 8);
    let client = client("127.0.0.1:0");
    let good = Route::new(client.local_addr().unwrap(), None, 0, 0);
    let unreachable = ["255.255.255.255:53", "127.0.0.1:0", "[2001:db8::1]:53"];
    for bad in unreachable {
        assert!(rig.backend.send_to(&good, b"before"));
        assert!(rig.backend.send_to(&Route::new(bad.parse().unwrap(), None, 0, 0), b"lost"));
    }
    assert!(rig.backend.send_to(&good, b"after"));
    rig.send();
    assert_eq!(rig.sent, Sent { accepted: 4, refused: 3 });
    let expected = [&b"before"[..], b"before", b"before", b"after"].map(<[u8]>::to_vec);
    assert_eq!(multiset([(); 4].map(|()| take(&client).0)), multiset(expected));
}

pub(super) fn oversize_datagrams_are_dropped_and_counted<B: Subject>() {
    let mut rig = Rig::<B>::new(&["0.0.0.0:0"], 8);
    let client = client("127.0.0.1:0");
    let asked = SocketAddr::from((Ipv4Addr::LOCALHOST, rig.addresses[0].port()));
    for len in [SLOT_LEN, SLOT_LEN + 1, 3, 9000, SLOT_LEN - 1] {
        client.send_to(&vec![len as u8; len], asked).unwrap();
    }
    rig.echo(5);
    assert_eq!((rig.received.packets, rig.received.oversize), (3, 2));
    let expected = [SLOT_LEN, 3, SLOT_LEN - 1].map(|len| vec![len as u8; len]);
    assert_eq!(multiset([(); 3].map(|()| take(&client).0)), multiset(expected));
    assert_silent(&client);
}

pub(super) fn the_longest_datagrams_are_dropped_and_counted<B: Subject>() {
    // 64 KiB less the headers: the most that UDP over IPv4 carries.
    const LONGEST: usize = 65_507;
    let mut rig = Rig::<B>::new(&["127.0.0.1:0"], 4);
    let client = client("127.0.0.1:0");
    for len in [LONGEST, 5, LONGEST, LONGEST, 6, 7] {
        client.send_to(&vec![len as u8; len], rig.addresses[0]).unwrap();
    }
    rig.echo(6);
    assert_eq!((rig.received.packets, rig.received.oversize), (3, 3));
    let expected = [5, 6, 7].map(|len| vec![len as u8; len]);
    assert_eq!(multiset([(); 3].map(|()| take(&client).0)), multiset(expected));
}

pub(super) fn more_datagrams_than_slots_wait_in_the_socket<B: Subject>() {
    for batch in [1, 5, 40] {
        let mut rig = Rig::<B>::new(&["127.0.0.1:0", "127.0.0.1:0"], batch);
        let client = client("127.0.0.1:0");
        // Small ones: the client's own receive buffer must hold all echoes.
        for at in 0..150u8 {
            client.send_to(&[at], rig.addresses[usize::from(at % 2)]).unwrap();
        }
        // Half of the batches are answered later, when their slots are long used again.
        let mut later = Vec::new();
        let mut turn = 0;
        while rig.received.packets < 150 {
            turn += 1;
            let mut bytes = Vec::new();
            let routes = rig.turn(|buf, len| {
                bytes.push(buf[0]);
                if turn % 2 == 0 { len } else { 0 }
            });
            if turn % 2 == 1 {
                later.extend(routes.into_iter().zip(bytes));
            }
        }
        for (route, byte) in later {
            assert!(rig.backend.send_to(&route, &[byte]));
        }
        rig.send();
        assert_eq!(rig.sent, Sent { accepted: 150, refused: 0 });
        let answers = multiset((0..150).map(|_| take(&client).0));
        assert_eq!(answers, multiset((0..150).map(|at| vec![at])));
    }
}

pub(super) fn a_closed_port_does_not_disturb_the_listener<B: Subject>() {
    let mut rig = Rig::<B>::new(&["127.0.0.1:0", "0.0.0.0:0"], 4);
    let port = rig.addresses[1].port();
    for asked in [rig.addresses[0], SocketAddr::from((Ipv4Addr::LOCALHOST, port))] {
        for _ in 0..20 {
            let gone = client("127.0.0.1:0");
            gone.send_to(b"gone", asked).unwrap();
            drop(gone);
            // The reply is answered by an ICMP message: port unreachable.
            rig.turn(|_, len| len);
        }
        let client = client("127.0.0.1:0");
        client.send_to(b"here", asked).unwrap();
        rig.turn(|_, len| len);
        assert_eq!(take(&client), (b"here".to_vec(), asked));
    }
    assert_eq!((rig.received.packets, rig.received.errors), (42, 0));
}

pub(super) fn empty_datagrams_are_handed_on<B: Subject>() {
    let mut rig = Rig::<B>::new(&["127.0.0.1:0"], 8);
    let client = client("127.0.0.1:0");
    // Among others too, as they may end what the backend asked the kernel for.
    for len in [0, 3, 0, 0, 1] {
        client.send_to(&[7; 3][..len], rig.addresses[0]).unwrap();
    }
    let mut lens = Vec::new();
    while rig.received.packets < 5 {
        rig.turn(|buf, len| {
            lens.push(len);
            buf[..2].copy_from_slice(b"ok");
            2
        });
    }
    assert_eq!(lens, [0, 3, 0, 0, 1]);
    assert!((0..5).all(|_| take(&client).0 == b"ok"));
}

pub(super) fn only_what_is_replied_to_is_answered<B: Subject>() {
    let mut rig = Rig::<B>::new(&["127.0.0.1:0"], 16);
    let client = client("127.0.0.1:0");
    // Twice, so that the slots which changed places are used again.
    for _ in 0..2 {
        for at in 0..16u8 {
            client.send_to(&[at; 9], rig.addresses[0]).unwrap();
        }
        rig.turn(|buf, len| if buf[0] % 3 == 1 { len } else { 0 });
        assert_eq!([(); 5].map(|()| take(&client).0), [1, 4, 7, 10, 13].map(|at| vec![at; 9]));
        assert_silent(&client);
    }
    assert_eq!(rig.sent, Sent { accepted: 10, refused: 0 });
}

pub(super) fn an_unsent_batch_is_forgotten<B: Subject>() {
    let mut rig = Rig::<B>::new(&["127.0.0.1:0"], 2);
    let client = client("127.0.0.1:0");
    for at in 0..4 {
        client.send_to(&[at], rig.addresses[0]).unwrap();
    }
    rig.receive();
    while let Some(packet) = rig.backend.next() {
        packet.reply(1);
    }
    rig.turn(|_, len| len);
    assert_eq!([take(&client).0, take(&client).0], [vec![2], vec![3]]);
    assert_silent(&client);
    assert!(rig.backend.next().is_none());
    assert_eq!(rig.backend.send(), Sent::default());
}

pub(super) fn deferred_answers_beyond_the_spare_slots_leave_at_once<B: Subject>() {
    let mut rig = Rig::<B>::new(&["127.0.0.1:0", "127.0.0.1:0"], 4);
    let client = client("127.0.0.1:0");
    for at in 0..11u8 {
        let route = Route::new(client.local_addr().unwrap(), None, 0, u16::from(at % 2));
        assert!(rig.backend.send_to(&route, &[at]));
    }
    rig.send();
    assert_eq!(rig.sent, Sent { accepted: 11, refused: 0 });
    let answers: Vec<_> = (0..11).map(|_| take(&client)).collect();
    for (answer, from) in &answers {
        assert_eq!(*from, rig.addresses[usize::from(answer[0] % 2)]);
    }
    assert_eq!(
        multiset(answers.into_iter().map(|(answer, _)| answer)),
        multiset((0..11).map(|at| vec![at]))
    );
}

pub(super) fn impossible_deferred_answers_are_not_taken<B: Subject>() {
    let mut rig = Rig::<B>::new(&["127.0.0.1:0"], 4);
    let peer = "127.0.0.1:9".parse().unwrap();
    let route = Route::new(peer, None, 0, 0);
    assert!(!rig.backend.send_to(&route, b""));
    assert!(!rig.backend.send_to(&route, &[0; SLOT_LEN + 1]));
    assert!(!rig.backend.send_to(&Route::new(peer, None, 0, 1), b"x"));
    assert_eq!(rig.backend.send(), Sent::default());
}
