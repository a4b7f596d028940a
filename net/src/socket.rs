//! The sockets: client listeners, upstream sockets, and what the kernel granted and dropped.
//!
//! Everything here runs at start or on the miss path. Each error names the address, what the kernel
//! said and what an operator can do about it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, Socket, Type};

use crate::backend::MAX_BATCH;
use crate::owner::{Owner, owner};
use crate::sys::sockopt;

/// One address that clients ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Address and port; `0.0.0.0` and `::` stand for every address of their family, each without
    /// the other family.
    pub address: SocketAddr,
}

/// Why a listener or a backend could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// EADDRINUSE.
    #[error(
        "address {address} is already in use by {}; stop it or listen on another address",
        .owner.as_ref().map_or_else(
            || "another resolver, or a second instance of this one (as root the message says which)".into(),
            ToString::to_string,
        )
    )]
    InUse {
        /// The address asked for.
        address: SocketAddr,
        /// Who holds it, where that could be found out.
        owner: Option<Owner>,
    },
    /// EACCES or EPERM.
    #[error(
        "no permission to listen on {address}: ports below net.ipv4.ip_unprivileged_port_start (1024) need root or \
         CAP_NET_BIND_SERVICE; grant it or listen on a higher port"
    )]
    NotPermitted {
        /// The address asked for.
        address: SocketAddr,
    },
    /// EADDRNOTAVAIL or ENODEV.
    #[error(
        "address {address} belongs to no interface of this host; add it, listen on a wildcard address, or set \
         net.ipv4.ip_nonlocal_bind (net.ipv6.ip_nonlocal_bind) if it comes later"
    )]
    NotAvailable {
        /// The address asked for.
        address: SocketAddr,
    },
    /// EAFNOSUPPORT.
    #[error(
        "cannot listen on {address}: this kernel runs without its address family; leave the address out"
    )]
    NoFamily {
        /// The address asked for.
        address: SocketAddr,
    },
    /// EMFILE or ENFILE.
    #[error(
        "no file descriptor left to listen on {address} (limit of this process: {limit}); raise the limit on open \
         files (ulimit -n, LimitNOFILE=) or run fewer workers"
    )]
    NoDescriptor {
        /// The address asked for.
        address: SocketAddr,
        /// The soft limit on open files.
        limit: u64,
    },
    /// Any other refusal of a step of opening a socket.
    #[error(
        "cannot {step} on {address}: {source}; this kernel may be too old or a seccomp profile may forbid it"
    )]
    Refused {
        /// The address asked for.
        address: SocketAddr,
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refuses io_uring.
    #[cfg(feature = "io-uring")]
    #[error("io_uring cannot be used: {0}")]
    IoUring(#[from] crate::backend::uring::Unavailable),
    /// AF_XDP cannot be used.
    #[cfg(feature = "af-xdp")]
    #[error("AF_XDP cannot be used: {0}")]
    Xdp(#[from] crate::backend::xdp::XdpError),
    /// No listener or too many of them.
    #[error("{count} listeners given; a worker serves 1 to {max}", max = u16::MAX)]
    Listeners {
        /// How many were given.
        count: usize,
    },
    /// A batch size out of bounds.
    #[error("a batch of {batch} datagrams is out of bounds; choose 1 to {MAX_BATCH}")]
    Batch {
        /// The size asked for.
        batch: usize,
    },
}

impl OpenError {
    pub(crate) fn at(address: SocketAddr, step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.raw_os_error() {
            Some(libc::EADDRINUSE) => Self::InUse { address, owner: owner(address) },
            Some(libc::EACCES | libc::EPERM) => Self::NotPermitted { address },
            Some(libc::EADDRNOTAVAIL | libc::ENODEV) => Self::NotAvailable { address },
            Some(libc::EAFNOSUPPORT) => Self::NoFamily { address },
            Some(libc::EMFILE | libc::ENFILE) => Self::NoDescriptor {
                address,
                limit: crate::limits::open_files().map_or(0, |files| files.soft),
            },
            _ => Self::Refused { address, step, source },
        }
    }
}

/// Socket buffers as the kernel granted them, in bytes of payload and bookkeeping (half of what it
/// reports, which is doubled for its own overhead).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Receive buffer.
    pub recv: usize,
    /// Send buffer.
    pub send: usize,
}

/// Binds each address once for UDP and TCP without SO_REUSEPORT and lets it go again.
///
/// With that option alone a second instance would bind silently and take half of the queries; this
/// finds it first.
pub fn probe(addresses: &[SocketAddr]) -> Result<(), OpenError> {
    for &address in addresses {
        let socket = new_socket(address, Type::DGRAM, Protocol::UDP)?;
        socket.bind(&address.into()).map_err(OpenError::at(address, "bind a UDP socket"))?;
        let socket = new_socket(address, Type::STREAM, Protocol::TCP)?;
        // Only listening sockets are in the way, not what is left of a predecessor's connections.
        socket
            .set_reuse_address(true)
            .map_err(OpenError::at(address, "reuse the address (SO_REUSEADDR)"))?;
        socket.bind(&address.into()).map_err(OpenError::at(address, "bind a TCP socket"))?;
    }
    Ok(())
}

/// Opens a UDP socket for clients: non-blocking, shared by SO_REUSEPORT, one family only, never
/// lowering its packet size on a (forgeable) path-MTU message, and asking for each datagram's
/// destination if bound to a wildcard.
///
/// Buffer sizes are in bytes; SO_RCVBUFFORCE (beyond net.core.rmem_max, needs CAP_NET_ADMIN) is
/// tried first. The kernel may grant less: compare with the returned sizes.
pub fn open_listener(
    address: SocketAddr,
    recv_buffer: Option<usize>,
    send_buffer: Option<usize>,
) -> Result<(Socket, Granted), OpenError> {
    let socket = new_socket(address, Type::DGRAM, Protocol::UDP)?;
    socket.set_reuse_port(true).map_err(OpenError::at(address, "share the port (SO_REUSEPORT)"))?;
    ignore_path_mtu(&socket, address)
        .map_err(OpenError::at(address, "turn path-MTU discovery off"))?;
    if is_wildcard(&address) {
        ask_for_destination(&socket, address)
            .map_err(OpenError::at(address, "ask for destinations (PKTINFO)"))?;
    }
    let granted = size_buffers(&socket, recv_buffer, send_buffer)
        .map_err(OpenError::at(address, "size buffers"))?;
    socket.bind(&address.into()).map_err(OpenError::at(address, "bind a UDP socket"))?;
    Ok((socket, granted))
}

/// Opens a TCP socket for clients: non-blocking, shared by SO_REUSEPORT, one family only, with up
/// to `backlog` connections waiting to be accepted.
pub fn open_stream_listener(address: SocketAddr, backlog: u16) -> Result<TcpListener, OpenError> {
    let socket = new_socket(address, Type::STREAM, Protocol::TCP)?;
    // Connections of a predecessor in TIME_WAIT must not hold the port after a restart.
    socket
        .set_reuse_address(true)
        .map_err(OpenError::at(address, "reuse the address (SO_REUSEADDR)"))?;
    socket.set_reuse_port(true).map_err(OpenError::at(address, "share the port (SO_REUSEPORT)"))?;
    socket.bind(&address.into()).map_err(OpenError::at(address, "bind a TCP socket"))?;
    socket.listen(backlog.into()).map_err(OpenError::at(address, "accept connections"))?;
    Ok(socket.into())
}

/// Opens a non-blocking UDP socket for one upstream query, bound to `local_port` and connected to
/// `remote`, so that the kernel drops whatever comes from elsewhere.
///
/// The port comes from the caller's random generator; EADDRINUSE means: draw another one.
pub fn open_upstream(remote: SocketAddr, local_port: u16) -> io::Result<UdpSocket> {
    let socket =
        Socket::new(Domain::for_address(remote), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    ignore_path_mtu(&socket, remote)?;
    let local = match remote {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, local_port)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, local_port)),
    };
    socket.bind(&local.into())?;
    socket.connect(&remote.into())?;
    Ok(socket.into())
}

/// Has the kernel look into the device's queue, for at most so many microseconds, when a receive finds the
/// socket empty (SO_BUSY_POLL). More than net.core.busy_read needs CAP_NET_ADMIN. Loopback and veth have
/// no such queue.
pub fn busy_poll(socket: &Socket, us: u32) -> io::Result<()> {
    let us = i32::try_from(us).unwrap_or(i32::MAX);
    sockopt::set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_BUSY_POLL, us)
}

/// Datagrams the kernel has dropped at this socket since it was opened, mostly because its receive
/// buffer was full (SO_MEMINFO). Wraps at 2^32. `None` on a kernel older than 4.12.
pub fn drops(socket: impl AsFd) -> Option<u32> {
    sockopt::drops(socket.as_fd()).ok()
}

/// Where a socket of [`open_listener`] is bound to.
pub(crate) fn bound_address(socket: &Socket) -> Result<SocketAddr, OpenError> {
    let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let address = socket
        .local_addr()
        .and_then(|address| address.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into()));
    address.map_err(OpenError::at(unknown, "ask for the address"))
}

/// Whether an address stands for all addresses of its family.
pub(crate) fn is_wildcard(address: &SocketAddr) -> bool {
    address.ip().is_unspecified()
}

fn new_socket(address: SocketAddr, kind: Type, protocol: Protocol) -> Result<Socket, OpenError> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), Some(protocol))
        .map_err(OpenError::at(address, "open a socket"))?;
    if address.is_ipv6() {
        socket.set_only_v6(true).map_err(OpenError::at(address, "keep to IPv6 (IPV6_V6ONLY)"))?;
    }
    Ok(socket)
}

/// Answers leave in fragments of the interface's MTU at worst: an ICMP message cannot shrink them
/// further (the fragmentation attack on caches) nor make sends fail (IP_PMTUDISC_OMIT, Linux 3.15).
fn ignore_path_mtu(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv4() {
        sockopt::set(
            socket.as_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_OMIT,
        )
    } else {
        sockopt::set(
            socket.as_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_OMIT,
        )
    }
}

fn ask_for_destination(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv4() {
        sockopt::set(socket.as_fd(), libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    } else {
        sockopt::set(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    }
}

fn size_buffers(socket: &Socket, recv: Option<usize>, send: Option<usize>) -> io::Result<Granted> {
    let bytes = |wanted: usize| libc::c_int::try_from(wanted).unwrap_or(libc::c_int::MAX);
    if let Some(wanted) = recv
        && sockopt::set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes(wanted))
            .is_err()
    {
        sockopt::set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, bytes(wanted))?;
    }
    if let Some(wanted) = send
        && sockopt::set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes(wanted))
            .is_err()
    {
        sockopt::set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, bytes(wanted))?;
    }
    Ok(Granted { recv: socket.recv_buffer_size()? / 2, send: socket.send_buffer_size()? / 2 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::contract::on_free_port;

    const LOOPBACK: &str = "127.0.0.1:0";

    fn open(address: &str) -> (Socket, SocketAddr) {
        let (socket, _) = open_listener(address.parse().unwrap(), None, None).unwrap();
        let bound = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, bound)
    }

    #[test]
    fn workers_share_a_port_but_a_second_instance_is_found() {
        let (_held, bound) = open(LOOPBACK);
        let (_shared, _) = open_listener(bound, None, None).unwrap();
        let error = probe(&[bound]).unwrap_err();
        assert!(matches!(error, OpenError::InUse { address, .. } if address == bound), "{error}");
        assert!(error.to_string().contains(&bound.to_string()));
    }

    #[test]
    fn probing_leaves_the_address_free() {
        let bound = on_free_port(LOOPBACK);
        let wildcard = SocketAddr::from((Ipv4Addr::UNSPECIFIED, bound.port()));
        // A wildcard and one address of the same port are legal together, hence one after the
        // other.
        probe(&[bound, wildcard]).unwrap();
        probe(&[bound, wildcard]).unwrap();
    }

    #[test]
    fn a_foreign_address_is_named_in_the_error() {
        let error = probe(&["192.0.2.1:0".parse().unwrap()]).unwrap_err();
        assert!(matches!(error, OpenError::NotAvailable { .. }), "{error}");
    }

    #[test]
    fn both_wildcards_share_a_port() {
        let (_four, bound) = open("0.0.0.0:0");
        open_listener(SocketAddr::from((Ipv6Addr::UNSPECIFIED, bound.port())), None, None).unwrap();
    }

    #[test]
    fn granted_buffers_are_reported_as_asked() {
        let (_, granted) =
            open_listener(LOOPBACK.parse().unwrap(), Some(100_000), Some(90_000)).unwrap();
        assert_eq!(granted, Granted { recv: 100_000, send: 90_000 });
    }

    #[test]
    fn an_upstream_socket_hears_its_remote_only() {
        let remote = UdpSocket::bind(LOOPBACK).unwrap();
        let stranger = UdpSocket::bind(LOOPBACK).unwrap();
        let upstream = open_upstream(remote.local_addr().unwrap(), 0).unwrap();
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, upstream.local_addr().unwrap().port()));
        stranger.send_to(b"forged", local).unwrap();
        remote.send_to(b"true", local).unwrap();
        let mut buf = [0; 16];
        // Loopback delivers inside the send, so both would be here.
        assert_eq!(upstream.recv(&mut buf).unwrap(), 4);
        assert_eq!(upstream.recv(&mut buf).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let taken =
            open_upstream(remote.local_addr().unwrap(), upstream.local_addr().unwrap().port());
        assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_full_receive_buffer_shows_in_the_drops() {
        let (socket, _) = open_listener(LOOPBACK.parse().unwrap(), Some(1), None).unwrap();
        let bound = socket.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(drops(&socket), Some(0));
        let client = UdpSocket::bind(LOOPBACK).unwrap();
        for _ in 0..100 {
            client.send_to(&[0; 1000], bound).unwrap();
        }
        assert!(drops(&socket).unwrap() > 0);
    }

    #[test]
    fn stream_listeners_share_a_port() {
        let first = open_stream_listener(LOOPBACK.parse().unwrap(), 16).unwrap();
        open_stream_listener(first.local_addr().unwrap(), 16).unwrap();
    }
}
