//! The bare echo over AF_XDP: the least that a server on this backend can do.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::batch::Batch;
use super::queue::Queue;
use super::{Attachment, Request, XdpError, open};
use crate::client::Poll;

/// How long one wait is; then it waits again.
const WAIT: Duration = Duration::from_secs(60);

/// One queue without a runtime: what comes goes back, in the frame that it came in. For
/// measurements.
pub struct Echo {
    queue: Queue,
    socket: OwnedFd,
    poll: Poll,
    batch: Batch,
    len: usize,
    /// The filter is off when this is gone.
    _attachment: Attachment,
}

impl Echo {
    /// Attaches to the first queue of the request's first interface.
    pub fn open(request: &Request) -> Result<Self, XdpError> {
        let queues = Some(vec![0]);
        let (attachment, shares) = open(&Request { queues, workers: 1, ..request.clone() })?;
        let queue = shares.into_iter().flat_map(|share| share.queues).next();
        let queue = queue.ok_or_else(|| XdpError::Nothing { there: String::new() })?;
        let socket = queue.socket().try_clone_to_owned();
        Ok(Self {
            socket: socket.map_err(XdpError::at(super::Step::Tune, "", None))?,
            queue,
            poll: Poll::default(),
            batch: Batch::new(request.batch),
            len: request.batch,
            _attachment: attachment,
        })
    }

    /// Waits until something comes, and sends it back, each reply `pad` bytes longer than what
    /// came. Returns how many datagrams that were.
    pub fn turn(&mut self, pad: usize) -> io::Result<usize> {
        let Self { queue, socket, poll, batch, len, .. } = self;
        while queue.receive(*len, batch).is_none() {
            poll.wait([(Some(&*socket), false)], WAIT)?;
        }
        while let Some(packet) = queue.next(batch) {
            let len = packet.len + pad;
            packet.reply(len);
        }
        Ok(queue.send(batch).accepted)
    }
}
