//! Sockets and batches for programs that ask, or that only echo: the load generator, its authority
//! and the bare echo. No worker uses this.
//!
//! Blocking or polled, never through a runtime, so that what they cost is what the kernel costs.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Socket, Type};

pub use crate::sys::client::{BATCH_MAX, Datagrams, Readable, confine, thread_cpu_ns};

/// A non-blocking socket on any free local port, connected to `server`.
pub fn connect(server: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
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
    use std::time::Duration;

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
        let mut readable = Readable::new(&sockets);
        let mut lens = Vec::new();
        while lens.len() < 4 {
            assert_eq!(readable.wait(Duration::from_secs(5)).expect("polled"), 1);
            assert!(readable.contains(0));
            answers.receive(&sockets[0]).expect("received");
            lens.extend(answers.iter().map(<[u8]>::len));
        }
        assert_eq!(lens, [3, 4, 5, 6]);
        assert_eq!(answers.receive(&sockets[0]).expect("nothing is no error"), 0);
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
    fn the_cpu_of_this_thread_moves() {
        let before = thread_cpu_ns();
        let mut spins = 0u64;
        while thread_cpu_ns() < before + 1_000_000 {
            spins += 1;
        }
        assert!(spins > 0);
    }
}
