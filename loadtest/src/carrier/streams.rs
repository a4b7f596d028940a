//! TCP: pipelined queries on connections that are renewed after a number of queries, or when the
//! server closes them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use swiftlet_net::client::{Poll, connect_stream};

use super::{BATCH, Carrier, Flushed, Received};
use crate::queries::MAX_QUERY_LEN;

/// Bytes that wait to be written, above which a connection takes no further query.
const BACKLOG_MAX: usize = 1 << 16;

/// The longest frame: its length and a message.
const FRAME_MAX: usize = 2 + u16::MAX as usize;

/// Time to make a connection in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Time between two tries to renew a connection.
const RETRY_WAIT: Duration = Duration::from_millis(100);

/// TCP connections to one server.
pub(crate) struct TcpConnections {
    server: SocketAddr,
    per_connection: u64,
    connections: Vec<Connection>,
    poll: Poll,
}

struct Connection {
    source: Option<IpAddr>,
    stream: Option<TcpStream>,
    /// Queries sent on it.
    used: u64,
    /// Queries pushed since the last flush.
    pushed: usize,
    outbox: Vec<u8>,
    /// Read, and not yet a whole frame.
    inbox: Vec<u8>,
    retry_at: Instant,
    /// Tries to renew it that failed, not told yet.
    refusals: u64,
}

impl TcpConnections {
    /// One connection from each of these sources, made now. Each is renewed after `per_connection`
    /// queries.
    pub(crate) fn open(
        server: SocketAddr,
        sources: &[Option<IpAddr>],
        per_connection: u64,
    ) -> io::Result<Self> {
        let connect = |&source: &Option<IpAddr>| {
            let stream = connect_stream(source, server, CONNECT_TIMEOUT)?;
            Ok(Connection {
                source,
                stream: Some(stream),
                used: 0,
                pushed: 0,
                outbox: Vec::new(),
                inbox: Vec::with_capacity(FRAME_MAX),
                retry_at: Instant::now(),
                refusals: 0,
            })
        };
        let connections = sources.iter().map(connect).collect::<io::Result<_>>()?;
        Ok(Self { server, per_connection, connections, poll: Poll::default() })
    }
}

impl Connection {
    fn close(&mut self) {
        self.stream = None;
        self.outbox.clear();
        self.inbox.clear();
    }

    fn renew(&mut self, server: SocketAddr) {
        if Instant::now() < self.retry_at {
            return;
        }
        match connect_stream(self.source, server, CONNECT_TIMEOUT) {
            Ok(stream) => (self.stream, self.used) = (Some(stream), 0),
            Err(_) => {
                self.refusals += 1;
                self.retry_at = Instant::now() + RETRY_WAIT;
            }
        }
    }

    /// Writes what the kernel takes. An error closes the connection, which the next read tells.
    fn write(&mut self) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        let mut written = 0;
        while written < self.outbox.len() {
            match stream.write(&self.outbox[written..]) {
                Ok(0) => break,
                Ok(len) => written += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.outbox.drain(..written);
    }

    /// Reads once. False at the connection's end.
    fn read(&mut self) -> bool {
        let Some(stream) = &mut self.stream else {
            return false;
        };
        let start = self.inbox.len();
        self.inbox.resize(start + FRAME_MAX, 0);
        let read = stream.read(&mut self.inbox[start..]);
        self.inbox.truncate(start + read.as_ref().map_or(0, |&len| len));
        match read {
            Ok(len) => len > 0,
            Err(error) => {
                matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
            }
        }
    }

    fn take_frames(&mut self, each: &mut dyn FnMut(&[u8])) {
        let mut at = 0;
        while let Some(&prefix) = self.inbox[at..].first_chunk() {
            let end = at + 2 + usize::from(u16::from_be_bytes(prefix));
            let Some(message) = self.inbox.get(at + 2..end) else {
                break;
            };
            each(message);
            at = end;
        }
        self.inbox.drain(..at);
    }
}

impl Carrier for TcpConnections {
    fn channels(&self) -> usize {
        self.connections.len()
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let watched = self
            .connections
            .iter()
            .map(|connection| (connection.stream.as_ref(), !connection.outbox.is_empty()));
        self.poll.wait(watched, timeout).map(drop)
    }

    fn is_ready(&self, channel: usize) -> bool {
        self.poll.is_ready(channel)
    }

    fn receive(&mut self, channel: usize, each: &mut dyn FnMut(&[u8])) -> io::Result<Received> {
        let connection = &mut self.connections[channel];
        connection.write();
        if !self.poll.is_readable(channel) {
            return Ok(Received::Replies);
        }
        let is_open = connection.read();
        connection.take_frames(each);
        if is_open {
            return Ok(Received::Replies);
        }
        connection.close();
        Ok(Received::Closed)
    }

    fn room(&mut self, channel: usize, outstanding: usize) -> usize {
        let connection = &mut self.connections[channel];
        if connection.used >= self.per_connection && outstanding == 0 && connection.pushed == 0 {
            connection.close();
            connection.retry_at = Instant::now();
        }
        if connection.stream.is_none() {
            connection.renew(self.server);
        }
        if connection.stream.is_none() || connection.outbox.len() > BACKLOG_MAX {
            return 0;
        }
        let left = self.per_connection - connection.used.min(self.per_connection);
        (BATCH - connection.pushed).min(usize::try_from(left).unwrap_or(usize::MAX))
    }

    fn push(&mut self, channel: usize, fill: impl FnOnce(&mut [u8]) -> usize) {
        let connection = &mut self.connections[channel];
        let start = connection.outbox.len();
        connection.outbox.resize(start + 2 + MAX_QUERY_LEN, 0);
        let len = fill(&mut connection.outbox[start + 2..]);
        connection.outbox.truncate(start + 2 + len);
        connection.outbox[start..start + 2].copy_from_slice(&(len as u16).to_be_bytes());
        connection.pushed += 1;
        connection.used += 1;
    }

    fn flush(&mut self, channel: usize, _unsent: &mut dyn FnMut(u16)) -> io::Result<Flushed> {
        let connection = &mut self.connections[channel];
        connection.write();
        // What the kernel doesn't take now is written before what comes later.
        let sent = std::mem::take(&mut connection.pushed);
        Ok(Flushed { sent, refusals: std::mem::take(&mut connection.refusals) })
    }
}
