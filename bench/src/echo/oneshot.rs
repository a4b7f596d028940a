//! The echo over io_uring's single operations, through `tokio-uring`: as many tasks as a batch holds,
//! and each of them receives a datagram and sends it back. It shows what a backend of such operations
//! would cost at least.

use std::convert::Infallible;
use std::net::UdpSocket as StdSocket;
use std::rc::Rc;

use anyhow::Context;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::UdpSocket;

use super::{BATCH, SLOT_LEN};

/// Entries of the submission queue: a receive or a send of each task, and room to spare.
const ENTRIES: u32 = 4 * BATCH as u32;

/// Echoes what comes to `socket` until the process is ended.
pub(super) fn serve(socket: StdSocket, pad: usize) -> anyhow::Result<Infallible> {
    // A task that waits inside the ring must not spin on EAGAIN.
    socket.set_nonblocking(false)?;
    let mut builder = tokio_uring::builder();
    builder.entries(ENTRIES);
    let runtime = tokio_uring::Runtime::new(&builder).context("cannot open an io_uring")?;
    runtime.block_on(async move {
        let socket = Rc::new(UdpSocket::from_std(socket));
        let tasks: Vec<_> =
            (0..BATCH).map(|_| tokio_uring::spawn(echo(Rc::clone(&socket), pad))).collect();
        for task in tasks {
            task.await.context("a task of the echo panicked")??;
        }
        anyhow::bail!("the echo ended")
    })
}

/// One task: a datagram at a time.
async fn echo(socket: Rc<UdpSocket>, pad: usize) -> anyhow::Result<Infallible> {
    let mut buffer = vec![0; SLOT_LEN];
    loop {
        let (received, slot) = socket.recv_from(buffer).await;
        let (len, peer) = received.context("cannot receive")?;
        // A datagram that the kernel refuses is skipped.
        let (_, slice) = socket.send_to(slot.slice(..(len + pad).min(SLOT_LEN)), peer).await;
        buffer = slice.into_inner();
    }
}
