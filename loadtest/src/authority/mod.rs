//! A name server that answers anything, for a resolver under test to ask.
//!
//! One thread answers datagrams in batches, one accepts connections, and each connection has one of
//! its own. What they answer is in [`zone`]; what is held back first, in [`delay`].

mod delay;
mod stream;
mod zone;

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use swiftlet_net::client::{Datagrams, Poll, listen};
use swiftlet_net::cores;

use self::delay::Held;
use crate::random::Random;

pub use delay::Delay;
pub use zone::{CHAIN_MAX, TEXT_MAX, Zone};

/// Datagrams per system call.
const BATCH: usize = 64;

/// How often a thread looks whether it should end.
const STOP_WAIT: Duration = Duration::from_millis(50);

/// Tries to find a port that is free for UDP and TCP, when none is given.
const PORT_TRIES: usize = 16;

/// Receive buffer to ask for.
const RECEIVE_BUFFER: usize = 4 << 20;

/// How an authority behaves.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// What is answered.
    pub zone: Zone,
    /// How long answers are held back.
    pub delay: Delay,
    /// Share of the queries over UDP that are dropped, from 0 to 1.
    pub loss: f64,
    /// What delay and loss follow from.
    pub seed: u64,
    /// The core of the thread that answers datagrams.
    pub core: Option<usize>,
}

/// Threads that answer every query of class IN under a suffix, over UDP and TCP.
///
/// Another class is refused, and what is no query gets no reply. Dropping it ends the threads.
#[derive(Debug)]
pub struct Authority {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    behaviour: Behaviour,
    stop: AtomicBool,
    answered: AtomicU64,
}

impl Authority {
    /// Starts one that answers any name at once, on this address; with port 0, on a free port.
    pub fn start(address: SocketAddr) -> io::Result<Self> {
        Self::start_with(address, Behaviour::default())
    }

    /// As [`Authority::start`], with a behaviour.
    pub fn start_with(address: SocketAddr, behaviour: Behaviour) -> io::Result<Self> {
        let (socket, listener) = bind(address)?;
        socket.set_read_timeout(Some(STOP_WAIT))?;
        let address = socket.local_addr()?;
        let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
        let shared = Arc::new(Shared { behaviour, stop, answered });
        let mut authority = Self { address, shared: Arc::clone(&shared), threads: Vec::new() };
        let for_streams = Arc::clone(&shared);
        let udp = thread::Builder::new().name("authority".to_owned());
        let tcp = thread::Builder::new().name("authority-tcp".to_owned());
        authority.threads.push(udp.spawn(move || serve(&socket, &shared))?);
        authority.threads.push(tcp.spawn(move || stream::accept(&listener, &for_streams))?);
        Ok(authority)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replies sent so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Waits for the threads, which end by themselves only when their sockets fail.
    pub fn wait(mut self) {
        for thread in self.threads.drain(..) {
            // A panic has been reported by its hook already.
            let _ = thread.join();
        }
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic has been reported by its hook already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Both sockets, on one port.
fn bind(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        let socket = listen(address, RECEIVE_BUFFER)?;
        tries -= 1;
        match TcpListener::bind(socket.local_addr()?) {
            Ok(listener) => return Ok((socket, listener)),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

fn serve(socket: &UdpSocket, shared: &Shared) {
    let Behaviour { ref zone, delay, loss, seed, core } = shared.behaviour;
    if let Some(core) = core.filter(|&core| !cores::pin(core)) {
        eprintln!("the authority is not pinned: core {core} isn't there or isn't ours to use");
    }
    let mut random = Random::new(seed, 0);
    let mut batch = Datagrams::addressed(BATCH, zone::UDP_MAX);
    let mut outbox = Datagrams::addressed(BATCH, zone::UDP_MAX);
    let (mut held, mut poll) = (Held::default(), Poll::default());
    while !shared.is_stopped() {
        let received = match held.next_due() {
            None => batch.receive_waiting(socket),
            Some(due) => {
                let wait = due.saturating_duration_since(Instant::now()).min(STOP_WAIT);
                poll.wait([(Some(socket), false)], wait).and_then(|_| batch.receive(socket))
            }
        };
        match received {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                eprintln!("the authority ends: {error}");
                return;
            }
        }
        batch.rewrite(|buf, len| {
            let is_lost = loss > 0.0 && random.unit() < loss;
            if is_lost { None } else { zone.answer(buf, len, false) }
        });
        if delay == Delay::None {
            send(&mut batch, socket, shared);
            continue;
        }
        let now = Instant::now();
        for slot in 0..batch.len() {
            held.hold(now + delay.draw(&mut random), batch.parcel(slot));
        }
        while let Some(parcel) = held.take(Instant::now()) {
            outbox.push_parcel(&parcel);
            if outbox.is_full() {
                send(&mut outbox, socket, shared);
            }
        }
        send(&mut outbox, socket, shared);
    }
}

fn send(batch: &mut Datagrams, socket: &UdpSocket, shared: &Shared) {
    let mut sent = 0;
    while sent < batch.len() {
        // A datagram that the kernel refuses is skipped, as lost ones are.
        let accepted = batch.send(socket, sent).unwrap_or(0);
        shared.answered.fetch_add(accepted as u64, Ordering::Relaxed);
        sent += accepted.max(1);
    }
    batch.clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limit, Load, Options, Queries, Transport, run_with};

    fn report(behaviour: Behaviour, transport: Transport, window: usize) -> crate::Report {
        // Both families have their turn.
        let loopback: std::net::IpAddr = match transport {
            Transport::Udp => [127, 0, 0, 1].into(),
            Transport::Tcp { .. } => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        let authority = Authority::start_with((loopback, 0).into(), behaviour).expect("started");
        let names: Vec<String> = (0..1000).map(|number| format!("n{number}.example")).collect();
        let queries = Queries::for_names(names.iter().map(String::as_str)).expect("names");
        let load = Load {
            server: authority.address(),
            queries: &queries,
            sockets: 2,
            window,
            limit: Limit::Each,
            timeout: Duration::from_millis(500),
            threads: 1,
            cores: &[],
        };
        let options = Options { transport, ..Options::default() };
        let report = run_with(&load, &options, &mut |_| {}).expect("runs");
        assert_eq!(authority.answered(), report.answered + report.overruns);
        report
    }

    #[test]
    fn it_serves_a_load_over_both_and_ends() {
        for transport in [Transport::Udp, Transport::Tcp { per_connection: 30 }] {
            let report = report(Behaviour::default(), transport, 20);
            assert_eq!((report.rcodes[0], report.lost), (1000, 0), "{transport:?}");
            assert_eq!((report.content.malformed, report.content.empty), (0, 0));
            assert!(report.content.checked > 10);
        }
    }

    #[test]
    fn delay_and_loss_are_as_asked_for() {
        let delay = Delay::Fixed(Duration::from_millis(20));
        let behaviour = Behaviour { delay, loss: 0.1, ..Behaviour::default() };
        let report = report(behaviour, Transport::Udp, 1000);
        assert!((50..150).contains(&report.lost), "{report}");
        assert!(report.latency.min() >= 20_000_000 - 100_000, "{report}");
    }
}
