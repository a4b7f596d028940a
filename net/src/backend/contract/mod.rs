//! What every backend must do, run for each implementation by [`contract_suite`], against a naive
//! model: the multiset of datagrams that clients sent and the replies they must see.
//!
//! Loopback delivers a datagram inside the send, so after `client.send` it is at the backend's
//! socket; nothing sleeps.

mod addresses;
mod batches;
mod endurance;
mod model;
mod subject;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use self::addresses::*;
use self::batches::*;
use self::endurance::*;
use self::model::*;
use self::subject::Subject;
pub(super) use self::subject::runs_here;
use super::*;
use crate::socket::probe;
use crate::sys::sockopt;

/// Makes one test of each function of these modules for an implementation.
macro_rules! contract_suite {
    ($backend:ty: $($test:ident)*) => {
        $(#[test] fn $test() {
            super::run::<$backend>(super::$test::<$backend>);
        })*
        #[test]
        #[ignore = "takes SWIFTLET_SOAK_SECONDS, 60 unless told otherwise"]
        fn soak() {
            super::run::<$backend>(super::soak::<$backend>);
        }
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
            the_longest_datagrams_are_dropped_and_counted
            empty_datagrams_are_handed_on
            only_what_is_replied_to_is_answered
            an_unsent_batch_is_forgotten
            deferred_answers_beyond_the_spare_slots_leave_at_once
            impossible_deferred_answers_are_not_taken
            replies_and_deferred_answers_match_the_model
            nothing_is_lost_under_a_flood
            more_datagrams_than_slots_wait_in_the_socket
            a_closed_port_does_not_disturb_the_listener
            no_wake_up_is_lost
            a_yielding_worker_lets_the_runtime_run
            dropping_under_a_flood_ends_and_frees_the_address
            a_short_soak_loses_nothing
        }
    };
}

mod epoll {
    contract_suite!(crate::backend::Epoll);
}

#[cfg(feature = "io-uring")]
mod uring {
    contract_suite!(crate::backend::IoUring);
}

#[cfg(feature = "af-xdp")]
mod xdp {
    contract_suite!(crate::backend::Xdp);
}

/// Runs a test where its implementation can.
fn run<B: Subject>(test: fn()) {
    if runs_here::<B>() {
        B::in_its_network(test);
    }
}

/// Bytes of receive buffer to ask for. A datagram that went through an XDP program takes up to four
/// times its length.
const BUFFER: usize = 1 << 20;

/// How long a condition may take before the test fails; never waited for otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A backend in its runtime, and what it reported.
struct Rig<B: Subject> {
    backend: B,
    runtime: B::Runtime,
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
        let runtime = B::runtime();
        let options = Options { listeners, batch, recv_buffer: Some(BUFFER), ..Options::default() };
        let sockets = bind_free(&options)?;
        let address = |socket: &Socket| socket.local_addr().unwrap().as_socket().unwrap();
        let addresses = sockets.iter().map(address).collect();
        let backend = B::block_on(&runtime, async { B::open(sockets, batch) })?;
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
            B::block_on(&self.runtime, ready).expect("readiness within the time").unwrap();
            received = self.backend.receive();
        }
        self.received.packets += received.packets;
        self.received.dropped += received.dropped;
        self.received.oversize += received.oversize;
        self.received.errors += received.errors;
        received
    }

    /// Waits for a batch and lets `serve` say how long each reply is. Returns the routes.
    fn turn(&mut self, mut serve: impl FnMut(&mut [u8], usize) -> usize) -> Vec<Route> {
        let received = self.receive();
        // Who doesn't look ahead sees nothing; who does sees what is to come.
        let ahead: Vec<_> =
            (0..).map_while(|at| self.backend.peek(at).map(<[u8]>::to_vec)).collect();
        assert!(ahead.is_empty() || ahead.len() == received.packets);
        let mut routes = Vec::new();
        while let Some(packet) = self.backend.next() {
            assert!((B::REPLY_MAX..=SLOT_LEN).contains(&packet.buf.len()));
            if let Some(seen) = ahead.get(routes.len()) {
                assert_eq!(*seen, packet.buf[..packet.len]);
            }
            routes.push(packet.route);
            let len = serve(packet.buf, packet.len);
            packet.reply(len);
        }
        assert_eq!(routes.len(), received.packets);
        assert!(self.backend.peek(0).is_none());
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
        while self.received.taken() < total {
            routes.extend(self.turn(|_, len| len));
        }
        routes
    }
}

impl<B: Subject> Drop for Rig<B> {
    fn drop(&mut self) {
        if !thread::panicking() {
            assert_eq!(self.backend.outstanding(), 0, "slots were lost");
        }
    }
}

/// The address with a port that nobody holds in place of 0. Left to itself the kernel may give
/// sockets that allow sharing (SO_REUSEPORT) the port of another test's listener. These ports lie
/// below those of clients.
pub(crate) fn on_free_port(address: &str) -> SocketAddr {
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

/// Opens sockets on ports that were free. Programs that other tests start hold a copy of the probe that
/// found that until they run.
pub(crate) fn bind_free(options: &Options) -> Result<Vec<Socket>, OpenError> {
    let begun = Instant::now();
    loop {
        match options.bind() {
            Err(OpenError::InUse { .. }) if begun.elapsed() < PATIENCE => thread::yield_now(),
            bound => return Ok(bound?.into_iter().map(|(socket, _)| socket).collect()),
        }
    }
}

fn client(address: &str) -> UdpSocket {
    let client = UdpSocket::bind(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    // More than the host's default needs a privilege, as does what makes it necessary.
    let _ = sockopt::set(client.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER as i32);
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
