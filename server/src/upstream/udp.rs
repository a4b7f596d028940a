//! One question over UDP, from a socket of its own.
//!
//! The socket is bound to a random port of the full range and connected, so the kernel passes on only
//! what comes from the address and port that were asked; ID and question are checked here (RFC 5452).
//! A datagram that fails the check is counted and waited past, for the true answer may still come.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use swiftlet_net::pool::PooledBuf;
use swiftlet_net::socket::open_upstream;
use swiftlet_parser::key::Key;
use swiftlet_parser::message::write_query;
use swiftlet_parser::response::{Response, bare_error};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::{Failure, Reply, Upstreams};
use crate::telemetry::Counter;

/// Source ports: all that need no privilege.
pub(super) const PORTS: RangeInclusive<u16> = 1024..=65535;

/// Ports drawn before giving up, when each is taken.
const MAX_PORT_DRAWS: usize = 16;

/// Wrong replies to one question after which it is asked over TCP, where nobody can guess along.
const MAX_WRONG_REPLIES: usize = 8;

/// The longest reply: what the largest UDP size asks for.
const MAX_REPLY_LEN: usize = 4096;

/// The longest query: header, question, OPT.
pub(super) const MAX_QUERY_LEN: usize = 12 + 255 + 4 + 11;

/// What came back.
pub(super) enum Answered {
    /// The whole answer.
    Whole(Reply),
    /// An answer with TC set.
    Truncated,
    /// Too many replies that did not fit.
    Suspicious,
}

/// Sends the question and waits for its answer; the caller bounds the time.
pub(super) async fn exchange(
    upstreams: &Upstreams,
    server: SocketAddr,
    key: &Key<'_>,
) -> Result<Answered, Failure> {
    let id = upstreams.random_id();
    let mut query = [0; MAX_QUERY_LEN];
    let len = write_query(&mut query, id, key, upstreams.udp_size).ok_or(Failure::Malformed)?;
    let socket = open(upstreams, server)?;
    socket.send(&query[..len]).await.map_err(|_| Failure::Network)?;

    for _ in 0..MAX_WRONG_REPLIES {
        let (buffer, len) = receive(&socket).await.map_err(|_| Failure::Network)?;
        // Some servers refuse without repeating the question (RFC 8906); that may end this try.
        if let Some((said_id, rcode)) = bare_error(&buffer[..len])
            && said_id == id
        {
            return Err(Failure::Rcode(rcode));
        }
        match Response::parse(&buffer[..len]) {
            Ok(response) if response.id() == id && response.is_answer_to(key) => {
                let truncated = response.flags().tc();
                return Ok(match truncated {
                    true => Answered::Truncated,
                    false => Answered::Whole(Reply { buffer, len }),
                });
            }
            _ => upstreams.tally.inc(Counter::UpstreamWrongReplies),
        }
    }
    Ok(Answered::Suspicious)
}

/// The next datagram. While none is there, no buffer is held.
async fn receive(socket: &UdpSocket) -> std::io::Result<(PooledBuf, usize)> {
    loop {
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
        if ready.is_error() {
            if let Some(error) = socket.take_error()? {
                return Err(error);
            }
            // It was fetched already: the socket is no longer ready for that.
            let _ = socket.try_io(Interest::ERROR, || Err::<(), _>(ErrorKind::WouldBlock.into()));
        }
        let mut buffer = PooledBuf::new(MAX_REPLY_LEN);
        match socket.try_recv(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            received => return received.map(|len| (buffer, len)),
        }
    }
}

fn open(upstreams: &Upstreams, server: SocketAddr) -> Result<UdpSocket, Failure> {
    for _ in 0..MAX_PORT_DRAWS {
        match open_upstream(server, upstreams.random_port()) {
            Ok(socket) => return UdpSocket::from_std(socket).map_err(|_| Failure::NoSocket),
            Err(error) => match error.kind() {
                // Another socket has this port, or the system keeps it for somebody.
                ErrorKind::AddrInUse | ErrorKind::PermissionDenied => {}
                ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => {
                    return Err(Failure::Network);
                }
                _ => return Err(Failure::NoSocket),
            },
        }
    }
    Err(Failure::NoSocket)
}
