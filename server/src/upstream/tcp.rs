//! One question over a TCP connection of its own (RFC 7766): for answers that UDP could not carry.

use std::net::SocketAddr;

use swiftlet_net::pool::PooledBuf;
use swiftlet_parser::key::Key;
use swiftlet_parser::message::write_query;
use swiftlet_parser::response::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::udp::MAX_QUERY_LEN;
use super::{Failure, Reply, Upstreams};
use crate::telemetry::Counter;

/// The length field before each message (RFC 1035 §4.2.2).
const LENGTH_LEN: usize = 2;

/// Connects, sends the question and reads one answer; the caller bounds the time.
pub(super) async fn exchange(
    upstreams: &Upstreams,
    server: SocketAddr,
    key: &Key<'_>,
) -> Result<Reply, Failure> {
    let id = upstreams.random_id();
    let mut frame = [0; LENGTH_LEN + MAX_QUERY_LEN];
    let (length, query) = frame.split_at_mut(LENGTH_LEN);
    let len = write_query(query, id, key, upstreams.udp_size).ok_or(Failure::Malformed)?;
    length.copy_from_slice(&(len as u16).to_be_bytes());

    let (buffer, len) = match round_trip(server, &frame[..LENGTH_LEN + len]).await {
        Ok(answer) => answer,
        Err(error) if is_exhausted(&error) => return Err(Failure::NoSocket),
        Err(_) => return Err(Failure::Network),
    };
    match Response::parse(&buffer[..len]) {
        Ok(response) if response.id() == id && response.is_answer_to(key) => {
            Ok(Reply { buffer, len })
        }
        Ok(_) => {
            upstreams.tally.inc(Counter::UpstreamWrongReplies);
            Err(Failure::Malformed)
        }
        Err(_) => Err(Failure::Malformed),
    }
}

async fn round_trip(server: SocketAddr, frame: &[u8]) -> std::io::Result<(PooledBuf, usize)> {
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    stream.write_all(frame).await?;
    let len = usize::from(stream.read_u16().await?);
    let mut buffer = PooledBuf::new(len);
    stream.read_exact(&mut buffer[..len]).await?;
    Ok((buffer, len))
}

/// Whether this process, and not the network, is what could not open a connection.
fn is_exhausted(error: &std::io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}
