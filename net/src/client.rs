//! Sockets and batches for programs that ask, or that only echo: the load generator, its authority
//! and the bare echo. No worker uses this.
//!
//! Blocking or polled, never through a runtime, so that what they cost is what the kernel costs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

pub use crate::sys::client::{
    BATCH_MAX, Datagrams, Parcel, Poll, confine, sharpen_timers, thread_cpu_ns,
};
pub use crate::sys::resource::children_cpu;
pub use crate::sys::segments::Segments;

/// Receive buffer to ask for; the kernel grants `net.core.rmem_max` at most.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A non-blocking socket on any free local port, connected to `server`.
pub fn connect(server: SocketAddr) -> io::Result<UdpSocket> {
    connect_from(None, server)
}

/// As [`connect`], from this address.
pub fn connect_from(source: Option<IpAddr>, server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(server), Type::DGRAM, None)?;
    // Replies to a whole window may come at once, as after a pause of the server.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    let source = source.unwrap_or_else(|| unspecified(server));
    socket.bind(&SocketAddr::new(source, 0).into())?;
    let socket = UdpSocket::from(socket);
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A non-blocking TCP connection to `server`, made within this time, without Nagle's delay.
pub fn connect_stream(
    source: Option<IpAddr>,
    server: SocketAddr,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect_timeout(&server.into(), timeout)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn unspecified(server: SocketAddr) -> IpAddr {
    match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A blocking socket that listens alone on `address`. Its receive buffer is `receive_buffer` bytes,
/// or as close to it as `net.core.rmem_max` lets it come.
pub fn listen(address: SocketAddr, receive_buffer: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_recv_buffer_size(receive_buffer)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

    #[test]
    fn a_batch_goes_out_and_comes_back_through_an_echo() {
        let echo = listen(LOOPBACK.into(), 1 << 16).expect("a loopback socket");
        let sockets = [connect(echo.local_addr().expect("bound")).expect("a loopback socket")];
        let mut ask = Datagrams::connected(4, 64);
        for byte in 1..=4 {
            assert!(ask.push(|slot| {
                slot[..usize::from(byte)].fill(byte);
                usize::from(byte)
            }));
        }
        assert!(!ask.push(|_| 1), "the batch is full");
        assert_eq!(ask.send(&sockets[0], 0).expect("sent"), 4);

        let mut echoed = Datagrams::addressed(8, 64);
        let mut count = 0;
        while count < 4 {
            let received = echoed.receive_waiting(&echo).expect("received");
            echoed.pad(2);
            assert_eq!(echoed.send(&echo, 0).expect("sent"), received);
            count += received;
        }

        let mut answers = Datagrams::connected(8, 64);
        let mut poll = Poll::default();
        let mut lens = Vec::new();
        while lens.len() < 4 {
            let watched = sockets.iter().map(|socket| (Some(socket), false));
            assert_eq!(poll.wait(watched, Duration::from_secs(5)).expect("polled"), 1);
            assert!(poll.is_readable(0));
            answers.receive(&sockets[0]).expect("received");
            lens.extend(answers.iter().map(<[u8]>::len));
        }
        assert_eq!(lens, [3, 4, 5, 6]);
        assert_eq!(answers.receive(&sockets[0]).expect("nothing is no error"), 0);
    }

    #[test]
    fn a_parcel_finds_its_peer_later() {
        let server = listen(LOOPBACK.into(), 1 << 16).expect("a loopback socket");
        let peers = [0, 1]
            .map(|_| connect(server.local_addr().expect("bound")).expect("a loopback socket"));
        let (mut batch, mut parcels) = (Datagrams::addressed(4, 64), Vec::new());
        for (peer, byte) in peers.iter().zip([1, 2]) {
            peer.send(&[byte; 9]).expect("sent");
            assert_eq!(batch.receive_waiting(&server).expect("received"), 1);
            parcels.push(batch.parcel(0));
        }
        let mut outbox = Datagrams::addressed(4, 64);
        assert!(parcels.iter().rev().all(|parcel| outbox.push_parcel(parcel)));
        assert_eq!(outbox.send(&server, 0).expect("sent"), 2);
        for (peer, byte) in peers.iter().zip([1, 2]) {
            let mut buf = [0; 64];
            peer.set_nonblocking(false).expect("set");
            assert_eq!(peer.recv(&mut buf).expect("received"), 9);
            assert_eq!(buf[..9], [byte; 9]);
        }
    }

    #[test]
    fn a_datagram_longer_than_its_slot_is_cut() {
        let to = listen(LOOPBACK.into(), 1 << 16).expect("a loopback socket");
        let from = connect(to.local_addr().expect("bound")).expect("a loopback socket");
        from.send(&[7; 100]).expect("sent");
        let mut batch = Datagrams::addressed(2, 64);
        assert_eq!(batch.receive_waiting(&to).expect("received"), 1);
        assert_eq!(batch.iter().collect::<Vec<_>>(), [&[7; 64]]);
    }

    #[test]
    fn a_child_that_has_ended_is_accounted() {
        let before = children_cpu();
        let spin = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
        assert!(std::process::Command::new("sh").args(["-c", spin]).status().unwrap().success());
        assert!(children_cpu() > before);
    }

    #[test]
    fn the_cpu_of_this_thread_moves() {
        let before = thread_cpu_ns();
        let mut spins = 0u64;
        while thread_cpu_ns() < before + 1_000_000 {
            spins += 1;
        }
        assert!(spins > 0);
    }
}
