//! What every backend must do, run for each implementation by [`contract_suite`], against a naive
//! model: the multiset of datagrams that clients sent and the replies they must see.
//!
//! Loopback delivers a datagram inside the send, so after `client.send` it is at the backend's
//! socket; nothing sleeps.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::socket::probe;

/// Makes one test of each function of this module for an implementation.
macro_rules! contract_suite {
    ($backend:ty: $($test:ident)*) => {
        $(#[test] fn $test() { super::$test::<$backend>(); })*
    };
    ($backend:ty) => {
        contract_suite! { $backend:
            out_of_bounds_options_are_refused
            echoes_over_v4
            echoes_over_v6
            wildcard_v4_answers_from_the_address_asked
            wildcard_v6_answers_from_the_address_asked
            link_local_clients_are_answered_on_their_link
            deferred_answers_leave_from_the_address_asked
            a_flooded_listener_does_not_starve_another
            datagrams_from_port_zero_are_dropped_and_counted
            a_refused_reply_does_not_stop_the_batch
            a_refused_deferred_answer_does_not_stop_the_others
            oversize_datagrams_are_dropped_and_counted
            empty_datagrams_are_handed_on
            only_what_is_replied_to_is_answered
            an_unsent_batch_is_forgotten
            deferred_answers_beyond_the_spare_slots_leave_at_once
            impossible_deferred_answers_are_not_taken
            replies_and_deferred_answers_match_the_model
            nothing_is_lost_under_a_flood
        }
    };
}

mod epoll {
    contract_suite!(crate::backend::Epoll);
}

/// A backend whose sockets can be found.
trait Subject: Backend {
    fn addresses(&self) -> Vec<SocketAddr>;
}

impl Subject for Epoll {
    fn addresses(&self) -> Vec<SocketAddr> {
        self.local_addresses().collect::<io::Result<_>>().unwrap()
    }
}

/// How long a condition may take before the test fails; never waited for otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// A backend in its runtime, and what it reported.
struct Rig<B> {
    backend: B,
    runtime: Runtime,
    addresses: Vec<SocketAddr>,
    received: Received,
    sent: Sent,
}

impl<B: Subject> Rig<B> {
    fn new(listeners: &[&str], batch: usize) -> Self {
        Self::try_new(listeners, batch).unwrap()
    }

    fn try_new(listeners: &[&str], batch: usize) -> Result<Self, OpenError> {
        let listeners =
            listeners.iter().map(|address| Listener { address: on_free_port(address) }).collect();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let options = Options { listeners, batch, ..Options::default() };
        let backend = runtime.block_on(async { B::open(&options) })?;
        let addresses = backend.addresses();
        Ok(Self {
            backend,
            runtime,
            addresses,
            received: Received::default(),
            sent: Sent::default(),
        })
    }

    /// Waits for a batch that isn't empty.
    fn receive(&mut self) -> Received {
        let mut received = Received::default();
        while received == Received::default() {
            let ready = async {
                tokio::time::timeout(PATIENCE, poll_fn(|cx| self.backend.poll_ready(cx))).await
            };
            self.runtime.block_on(ready).expect("readiness within the time").unwrap();
            received = self.backend.receive();
        }
        self.received.packets += received.packets;
        self.received.dropped += received.dropped;
        self.received.oversize += received.oversize;
        received
    }

    /// Waits for a batch and lets `serve` say how long each reply is. Returns the routes.
    fn turn(&mut self, mut serve: impl FnMut(&mut [u8], usize) -> usize) -> Vec<Route> {
        let received = self.receive();
        let mut routes = Vec::new();
        while let Some(packet) = self.backend.next() {
            assert_eq!(packet.buf.len(), SLOT_LEN);
            routes.push(packet.route);
            let len = serve(packet.buf, packet.len);
            packet.reply(len);
        }
        assert_eq!(routes.len(), received.packets);
        self.send();
        routes
    }

    fn send(&mut self) {
        let sent = self.backend.send();
        self.sent += sent;
    }

    /// Echoes until so many datagrams came, good or not.
    fn echo(&mut self, total: usize) -> Vec<Route> {
        let mut routes = Vec::new();
        while self.received.packets + self.received.dropped + self.received.oversize < total {
            routes.extend(self.turn(|_, len| len));
        }
        routes
    }
}

/// The address with a port that nobody holds in place of 0. Left to itself the kernel may give
/// sockets that allow sharing (SO_REUSEPORT) the port of another test's listener. These ports lie
/// below those of clients.
fn on_free_port(address: &str) -> SocketAddr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let mut address: SocketAddr = address.parse().unwrap();
    for _ in 0..1000 {
        let at = std::process::id()
            .wrapping_mul(997)
            .wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        address.set_port(12_000 + (at % 20_000) as u16);
        match probe(&[address]) {
            Err(OpenError::InUse { .. }) => {}
            _ => return address,
        }
    }
    panic!("no free port for {address}")
}

fn client(address: &str) -> UdpSocket {
    let client = UdpSocket::bind(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

fn take(client: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buf = [0; 2 * SLOT_LEN];
    let (len, from) = client.recv_from(&mut buf).expect("an answer within the time");
    (buf[..len].to_vec(), from)
}

/// Whatever the client didn't take: with everything sent on loopback, it is there or will never
/// come.
fn assert_silent(client: &UdpSocket) {
    client.set_nonblocking(true).unwrap();
    assert_eq!(client.recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock);
    client.set_nonblocking(false).unwrap();
}

type Multiset = BTreeMap<Vec<u8>, usize>;

fn multiset(datagrams: impl IntoIterator<Item = Vec<u8>>) -> Multiset {
    datagrams.into_iter().fold(Multiset::new(), |mut set, datagram| {
        *set.entry(datagram).or_default() += 1;
        set
    })
}

/// A UDP datagram to `to` (port `to.port()`) as if from `from`. None, with a message, without the
/// right to forge.
fn forge(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Option<()> {
    let socket = match Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            eprintln!("skipped: forging datagrams needs CAP_NET_RAW");
            return None;
        }
        socket => socket.unwrap(),
    };
    socket.set_header_included_v4(true).unwrap();
    let udp_len = 8 + payload.len() as u16;
    // The kernel fills in total length, identification and header checksum; UDP's may be 0.
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    for field in [from.port(), to.port(), udp_len, 0] {
        packet.extend(field.to_be_bytes());
    }
    packet.extend(payload);
    socket.send_to(&packet, &SocketAddr::V4(to).into()).unwrap();
    Some(())
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => panic!("{address} isn't IPv4"),
    }
}

fn out_of_bounds_options_are_refused<B: Subject>() {
    for batch in [0, MAX_BATCH + 1] {
        assert!(matches!(Rig::<B>::try_new(&["127.0.0.1:0"], batch), Err(OpenError::Batch { .. })));
    }
    assert!(matches!(Rig::<B>::try_new(&[], 1), Err(OpenError::Listeners { count: 0 })));
    assert!(matches!(Rig::<B>::try_new(&["192.0.2.1:0"], 1), Err(OpenError::NotAvailable { .. })));
}

fn echoes<B: Subject>(address: &str) {
    for batch in [1, 7, 64] {
        let mut rig = Rig::<B>::new(&[address], batch);
        let client = client(address);
        let sent = (0..100usize).map(|i| vec![i as u8; (i * 41) % 1500 + 1]);
        for datagram in sent.clone() {
            client.send_to(&datagram, rig.addresses[0]).unwrap();
        }
        let routes = rig.echo(100);
        let local = client.local_addr().unwrap();
        assert!(
            routes
                .iter()
                .all(|route| (route.peer(), route.local(), route.listener) == (local, None, 0))
        );
        assert_eq!(multiset((0..100).map(|_| take(&client).0)), multiset(sent));
        assert_eq!(rig.sent, Sent { accepted: 100, refused: 0 });
    }
}

fn echoes_over_v4<B: Subject>() {
    echoes::<B>("127.0.0.1:0");
}

fn echoes_over_v6<B: Subject>() {
    if UdpSocket::bind("[::1]:0").is_err() {
        return eprintln!("skipped: no IPv6 on this host");
    }
    echoes::<B>("[::1]:0");
}

fn wildcard_v4_answers_from_the_address_asked<B: Subject>() {
    let mut rig = Rig::<B>::new(&["0.0.0.0:0"], 8);
    let client = client("127.0.0.1:0");
    for last in 1..=3 {
        let asked = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), rig.addresses[0].port()));
        client.send_to(b"who?", asked).unwrap();
        let routes = rig.turn(|_, len| len);
        assert_eq!(routes[0].local(), Some(asked.ip()));
        assert!(routes[0].interface() > 0);
        assert_eq!(take(&client), (b"who?".to_vec(), asked));
    }
}

fn wildcard_v6_answers_from_the_address_asked<B: Subject>() {
    let client = match UdpSocket::bind("[::1]:0") {
        Ok(_) => client("[::1]:0"),
        Err(_) => return eprintln!("skipped: no IPv6 on this host"),
    };
    // A listener with and one without control messages share the same headers.
    let mut rig = Rig::<B>::new(&["[::]:0", "127.0.0.1:0"], 8);
    let asked = SocketAddr::from((Ipv6Addr::LOCALHOST, rig.addresses[0].port()));
    for _ in 0..3 {
        client.send_to(b"who?", asked).unwrap();
        let routes = rig.turn(|_, len| len);
        assert_eq!((routes[0].local(), routes[0].listener), (Some(asked.ip()), 0));
        assert_eq!(take(&client), (b"who?".to_vec(), asked));
        let other = self::client("127.0.0.1:0");
        other.send_to(b"and v4?", rig.addresses[1]).unwrap();
        let routes = rig.turn(|_, len| len);
        assert_eq!((routes[0].local(), routes[0].listener), (None, 1));
        assert_eq!(take(&other), (b"and v4?".to_vec(), rig.addresses[1]));
    }
}

fn link_local_clients_are_answered_on_their_link<B: Subject>() {
    let Some(own) = link_local() else {
        return eprintln!("skipped: no interface with a link-local address");
    };
    let client = client(&SocketAddr::from(own).to_string());
    let mut rig = Rig::<B>::new(&["[::]:0"], 8);
    let asked =
        SocketAddr::V6(SocketAddrV6::new(*own.ip(), rig.addresses[0].port(), 0, own.scope_id()));
    client.send_to(b"who?", asked).unwrap();
    let route = rig.turn(|_, len| len)[0];
    assert_eq!((route.peer(), route.local()), (client.local_addr().unwrap(), Some(asked.ip())));
    assert_eq!(take(&client), (b"who?".to_vec(), asked));
    assert!(rig.backend.send_to(&route, b"late"));
    rig.send();
    assert_eq!(take(&client), (b"late".to_vec(), asked));
}

/// A link-local address of this host with its scope, from /proc/net/if_inet6, that can be bound.
fn link_local() -> Option<SocketAddrV6> {
    let text = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    text.lines().find_map(|line| {
        let (address, rest) = line.split_once(' ')?;
        let address = Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
        let scope = u32::from_str_radix(rest.split(' ').next()?, 16).ok()?;
        let own = SocketAddrV6::new(address, 0, 0, scope);
        (address.is_unicast_link_local() && UdpSocket::bind(own).is_ok()).then_some(own)
    })
}

fn deferred_answers_leave_from_the_address_asked<B: Subject>() {
    let mut rig = Rig::<B>::new(&["0.0.0.0:0"], 8);
    let client = client("127.0.0.1:0");
    let asked = [2, 3]
        .map(|last| SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), rig.addresses[0].port())));
    for asked in asked {
        client.send_to(b"q", asked).unwrap();
    }
    let routes = rig.turn(|_, _| 0);
    for route in routes.iter().rev() {
        assert!(rig.backend.send_to(route, b"late"));
    }
    rig.send();
    let mut from = [take(&client).1, take(&client).1];
    from.sort();
    assert_eq!(from, asked);
}

fn a_flooded_listener_does_not_starve_another<B: Subject>() {
    let mut rig = Rig::<B>::new(&["127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"], 4);
    let client = client("127.0.0.1:0");
    for _ in 0..40 {
        client.send_to(b"flood", rig.addresses[1]).unwrap();
    }
    rig.turn(|_, len| len);
    client.send_to(b"quiet", rig.addresses[0]).unwrap();
    client.send_to(b"quiet", rig.addresses[2]).unwrap();
    // The runtime must see the two sockets: it looks when a task yields.
    rig.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
    let turns: Vec<u16> = (0..4).map(|_| rig.turn(|_, len| len)[0].listener).collect();
    assert!(turns.contains(&0) && turns.contains(&2), "listeners served: {turns:?}");
}

fn datagrams_from_port_zero_are_dropped_and_counted<B: Subject>() {
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

fn a_refused_reply_does_not_stop_the_batch<B: Subject>() {
    let mut rig = Rig::<B>::new(&["127.0.0.1:0"], 16);
    let client = client("127.0.0.1:0");
    // Replies to the broadcast address are forbidden without SO_BROADCAST (EACCES).
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
    assert_eq!(rig.sent, Sent { accepted: 11, refused: 4 });
    let expected = multiset((0..15).filter(|at| at % 4 != 0).map(|at| vec![at]));
    assert_eq!(multiset((0..11).map(|_| take(&client).0)), expected);
}

fn a_refused_deferred_answer_does_not_stop_the_others<B: Subject>() {
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

fn oversize_datagrams_are_dropped_and_counted<B: Subject>() {
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

fn empty_datagrams_are_handed_on<B: Subject>() {
    let mut rig = Rig::<B>::new(&["127.0.0.1:0"], 8);
    let client = client("127.0.0.1:0");
    client.send_to(b"", rig.addresses[0]).unwrap();
    let mut lens = Vec::new();
    rig.turn(|buf, len| {
        lens.push(len);
        buf[..2].copy_from_slice(b"ok");
        2
    });
    assert_eq!((lens, take(&client).0), (vec![0], b"ok".to_vec()));
}

fn only_what_is_replied_to_is_answered<B: Subject>() {
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

fn an_unsent_batch_is_forgotten<B: Subject>() {
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

fn deferred_answers_beyond_the_spare_slots_leave_at_once<B: Subject>() {
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

fn impossible_deferred_answers_are_not_taken<B: Subject>() {
    let mut rig = Rig::<B>::new(&["127.0.0.1:0"], 4);
    let peer = "127.0.0.1:9".parse().unwrap();
    let route = Route::new(peer, None, 0, 0);
    assert!(!rig.backend.send_to(&route, b""));
    assert!(!rig.backend.send_to(&route, &[0; SLOT_LEN + 1]));
    assert!(!rig.backend.send_to(&Route::new(peer, None, 0, 1), b"x"));
    assert_eq!(rig.backend.send(), Sent::default());
}

/// One turn of the property test: datagrams for a listener, each with whether it is replied to, and
/// deferred answers, by listener, before and after the packets are served.
type Turn = (usize, Vec<bool>, Vec<usize>, Vec<usize>);

fn replies_and_deferred_answers_match_the_model<B: Subject>() {
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

fn nothing_is_lost_under_a_flood<B: Subject>() {
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
