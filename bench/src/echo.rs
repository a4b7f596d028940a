//! The bare echo: the least that a server can do, and so the yardstick.
//!
//! Over UDP: one thread, one socket, blocking recvmmsg (MSG_WAITFORONE) of up to [`BATCH`] datagrams and
//! sendmmsg of the same, headers built once. Nothing is read or changed: the datagram goes back as
//! it came, QR and all, with as many bytes. Answers of a DNS server are longer than its queries by
//! their records (16 bytes for one address), which the kernel copies once more; a padded echo sends
//! that many bytes more and so takes this part out of the comparison.
//!
//! A second thread does the like over TCP ([`stream`]); it sleeps while nobody connects.

mod stream;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread;

use anyhow::Context;
use swiftlet_net::client::{Datagrams, listen};
use swiftlet_net::cores;

/// Datagrams per system call; what the server's own batches hold by default.
pub const BATCH: usize = 64;

/// Room for a datagram; what is longer comes back cut.
const SLOT_LEN: usize = 4096;

/// Asked for as receive buffer, so that a window of 512 queries fits with ease.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Echoes on `address`, over UDP and TCP, until the process is ended, on one core if it is given.
/// Each reply over UDP is `pad` bytes longer than what came.
pub fn serve(address: SocketAddr, core: Option<usize>, pad: usize) -> anyhow::Result<Infallible> {
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
    let mut batch = Datagrams::addressed(BATCH, SLOT_LEN);
    loop {
        match batch.receive_waiting(&socket) {
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
            sent += batch.send(&socket, sent).unwrap_or(0).max(1);
        }
    }
}
