//! The bare echo: the least that a server can do, and so the yardstick.
//!
//! Over UDP: one thread, one socket, blocking recvmmsg (MSG_WAITFORONE) of up to [`BATCH`] datagrams and
//! sendmmsg of the same, headers built once. Nothing is read or changed: the datagram goes back as
//! it came, QR and all, with as many bytes. Answers of a DNS server are longer than its queries by
//! their records (16 bytes for one address), which the kernel copies once more; a padded echo sends
//! that many bytes more and so takes this part out of the comparison.
//!
//! Others show what io_uring and AF_XDP cost at least ([`Over`]): one on the ring of our own backend, one
//! of `tokio-uring`'s single operations, and one on a queue of our backend for AF_XDP.
//!
//! A second thread does the like over TCP ([`stream`]); it sleeps while nobody connects.

#[cfg(feature = "io-uring")]
mod oneshot;
mod stream;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;
use swiftlet_net::client::{Datagrams, listen};
use swiftlet_net::cores;

/// Datagrams per system call; what the server's own batches hold by default.
pub const BATCH: usize = 64;

/// Room for a datagram; what is longer comes back cut.
const SLOT_LEN: usize = 4096;

/// Asked for as receive buffer, so that a window of 512 queries fits with ease.
const RECEIVE_BUFFER: usize = 4 << 20;

/// What an echo receives and sends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Over {
    /// recvmmsg(2) and sendmmsg(2): the yardstick.
    Recvmmsg,
    /// io_uring, by the ring of our backend.
    IoUring,
    /// io_uring, one operation for each datagram and direction, through `tokio-uring`.
    TokioUring,
    /// AF_XDP, by the queue of our backend, on the interface that has the address.
    AfXdp,
}

impl Over {
    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Recvmmsg => "recvmmsg",
            Self::IoUring => "io-uring",
            Self::TokioUring => "tokio-uring",
            Self::AfXdp => "af-xdp",
        }
    }
}

/// Echoes on `address`, over UDP and TCP, until the process is ended, on one core if it is given.
/// Each reply over UDP is `pad` bytes longer than what came.
pub fn serve(
    address: SocketAddr,
    core: Option<usize>,
    pad: usize,
    over: Over,
) -> anyhow::Result<Infallible> {
    if let Some(core) = core {
        anyhow::ensure!(cores::pin(core), "cannot pin to core {core}");
    }
    let socket =
        listen(address, RECEIVE_BUFFER).with_context(|| format!("cannot listen on {address}"))?;
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot listen on {address} over TCP"))?;
    // It inherits the core.
    thread::Builder::new().name("echo-tcp".to_owned()).spawn(move || {
        let Err(error) = stream::serve(&listener);
        eprintln!("the echo over TCP ends: {error:#}");
    })?;
    match over {
        Over::Recvmmsg => recvmmsg(&socket, pad),
        #[cfg(feature = "io-uring")]
        Over::IoUring => {
            let echo = swiftlet_net::backend::uring::Echo::new(socket, BATCH);
            let mut echo = echo.context("cannot open an io_uring")?;
            loop {
                echo.turn(pad).context("cannot wait")?;
            }
        }
        #[cfg(feature = "io-uring")]
        Over::TokioUring => oneshot::serve(socket, pad),
        #[cfg(feature = "af-xdp")]
        Over::AfXdp => xdp(socket, address, pad),
        #[cfg(not(feature = "af-xdp"))]
        Over::AfXdp => {
            anyhow::bail!("this program was built without AF_XDP: build it with --features af-xdp")
        }
        #[cfg(not(feature = "io-uring"))]
        Over::IoUring | Over::TokioUring => anyhow::bail!(
            "this program was built without io_uring: build it with --features io-uring"
        ),
    }
}

/// What does not arrive by the first queue of the address's interface goes to the socket as ever.
#[cfg(feature = "af-xdp")]
fn xdp(socket: UdpSocket, address: SocketAddr, pad: usize) -> anyhow::Result<Infallible> {
    use swiftlet_net::backend::xdp::{Echo, Mode, Request};

    let request = Request {
        listeners: vec![address],
        interfaces: Vec::new(),
        queues: None,
        mode: Mode::Auto,
        workers: 1,
        batch: BATCH,
        busy_poll_us: 0,
    };
    let mut echo = Echo::open(&request)?;
    thread::Builder::new().name("echo-socket".to_owned()).spawn(move || {
        let Err(error) = recvmmsg(&socket, pad);
        eprintln!("the echo over the socket ends: {error:#}");
    })?;
    loop {
        echo.turn(pad).context("cannot wait")?;
    }
}

fn recvmmsg(socket: &UdpSocket, pad: usize) -> anyhow::Result<Infallible> {
    let mut batch = Datagrams::addressed(BATCH, SLOT_LEN);
    loop {
        match batch.receive_waiting(socket) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("cannot receive"),
        }
        if pad > 0 {
            batch.pad(pad);
        }
        let mut sent = 0;
        while sent < batch.len() {
            // A datagram that the kernel refuses is skipped.
            sent += batch.send(socket, sent).unwrap_or(0).max(1);
        }
    }
}
