//! UDP: recvmmsg(2) and sendmmsg(2) on connected sockets, queries of one length in one message.

use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use swiftlet_net::client::{Datagrams, Poll, Segments};
use swiftlet_net::socket::drops;

use super::{BATCH, Carrier, Flushed, Received};

/// Room for a reply. What is longer is cut, which matters to none of the checks but that of content.
/// Not a power of two: the beginnings of all slots would share a few sets of the L1 cache.
const REPLY_LEN: usize = 4096 + 64;

/// Connected UDP sockets.
pub(crate) struct UdpSockets {
    sockets: Vec<UdpSocket>,
    outbox: Segments,
    inbox: Datagrams,
    poll: Poll,
}

impl UdpSockets {
    /// For queries of at most this length. If `is_apart`, each is a message to the kernel of its own.
    pub(crate) fn new(sockets: Vec<UdpSocket>, query_len: usize, is_apart: bool) -> Self {
        Self {
            sockets,
            outbox: Segments::new(BATCH, query_len, is_apart),
            inbox: Datagrams::connected(BATCH, REPLY_LEN),
            poll: Poll::default(),
        }
    }
}

impl Carrier for UdpSockets {
    fn channels(&self) -> usize {
        self.sockets.len()
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let watched = self.sockets.iter().map(|socket| (Some(socket), false));
        self.poll.wait(watched, timeout).map(drop)
    }

    fn is_ready(&self, channel: usize) -> bool {
        self.poll.is_ready(channel)
    }

    fn receive(&mut self, channel: usize, each: &mut dyn FnMut(&[u8])) -> io::Result<Received> {
        match self.inbox.receive(&self.sockets[channel]) {
            Ok(_) => {
                self.inbox.iter().for_each(each);
                Ok(Received::Replies)
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Received::Refused),
            Err(error) => Err(error),
        }
    }

    fn room(&mut self, _channel: usize, _outstanding: usize) -> usize {
        BATCH - self.outbox.len()
    }

    fn push(&mut self, _channel: usize, fill: impl FnOnce(&mut [u8]) -> usize) {
        self.outbox.push(fill);
    }

    fn overruns(&self) -> u64 {
        self.sockets.iter().filter_map(drops).map(u64::from).sum()
    }

    /// An ICMP error that has come in since the last call is reported in place of sending, so that
    /// one is tried again once.
    fn flush(&mut self, channel: usize, unsent: &mut dyn FnMut(u16)) -> io::Result<Flushed> {
        let mut flushed = Flushed::default();
        while flushed.sent < self.outbox.len() && flushed.refusals < 2 {
            match self.outbox.send(&self.sockets[channel]) {
                Ok(accepted) => flushed.sent += accepted,
                Err(error) => match error.kind() {
                    io::ErrorKind::ConnectionRefused => flushed.refusals += 1,
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => break,
                    _ => return Err(error),
                },
            }
        }
        for packet in self.outbox.unsent() {
            unsent(u16::from_be_bytes([packet[0], packet[1]]));
        }
        self.outbox.clear();
        Ok(flushed)
    }
}
