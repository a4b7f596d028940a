//! How queries get to the server and replies back: over UDP or TCP, behind one small interface.
//!
//! A carrier has channels, sockets or connections, known by their index. Queries are pushed for one
//! channel at a time and then flushed; what a flush could not send is handed back.

mod datagrams;
mod streams;

use std::io;
use std::time::Duration;

pub(crate) use datagrams::UdpSockets;
pub(crate) use streams::TcpConnections;

/// Datagrams per system call, and the most queries that are pushed before a flush.
pub(crate) const BATCH: usize = 64;

/// What a read found, beside replies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Received {
    /// Nothing else.
    Replies,
    /// An ICMP error: nobody listens.
    Refused,
    /// The connection's end, whatever is outstanding on it.
    Closed,
}

/// What became of the queries that were pushed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flushed {
    /// How many, from the first on, the kernel took.
    pub(crate) sent: usize,
    /// ICMP errors and failed connections.
    pub(crate) refusals: u64,
}

/// The channels of one thread.
pub(crate) trait Carrier: Send {
    /// How many there are.
    fn channels(&self) -> usize;

    /// Waits until a channel is ready, for at most this time.
    fn wait(&mut self, timeout: Duration) -> io::Result<()>;

    /// Whether the last wait found something to do on this channel.
    fn is_ready(&self, channel: usize) -> bool;

    /// Reads what is there and shows it reply by reply.
    fn receive(&mut self, channel: usize, each: &mut dyn FnMut(&[u8])) -> io::Result<Received>;

    /// How many queries may be pushed for this channel, on which so many are outstanding.
    fn room(&mut self, channel: usize, outstanding: usize) -> usize;

    /// Adds a query, which `fill` writes into a buffer of [`MAX_QUERY_LEN`] bytes. There is room.
    ///
    /// [`MAX_QUERY_LEN`]: crate::queries::MAX_QUERY_LEN
    fn push(&mut self, channel: usize, fill: impl FnOnce(&mut [u8]) -> usize);

    /// Replies that the kernel dropped because they were not read in time.
    fn overruns(&self) -> u64 {
        0
    }

    /// Sends what was pushed, and hands back the IDs of what could not be sent.
    fn flush(&mut self, channel: usize, unsent: &mut dyn FnMut(u16)) -> io::Result<Flushed>;
}
