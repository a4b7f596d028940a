//! Frames as they are, sent and seen at the far end (packet(7)).

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Instant;

use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, bind, socket};
use socket2::Socket;

use crate::build::Frame;
use crate::rig::{FAR_MAC, NEAR_MAC, Rig, V4, V6};
use crate::support::PATIENCE;

/// A socket for all frames of `eth0` at the far end.
pub(crate) struct Wire(Socket);

impl Wire {
    pub(crate) fn open(rig: &Rig) -> Self {
        let namespace = format!("/proc/{}/ns/net", rig.far.pid());
        // A socket stays where the thread was that made it.
        let open = || {
            setns(File::open(namespace).expect("the far end"), CloneFlags::CLONE_NEWNET)
                .expect("root may enter");
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            );
            let socket = socket.expect("root may see all frames");
            let address = getifaddrs().expect("the interfaces").find_map(|one| {
                let link = *one.address?.as_link_addr()?;
                (one.interface_name == "eth0").then_some(link)
            });
            bind(socket.as_raw_fd(), &address.expect("there is eth0")).expect("its frames");
            Self(socket.into())
        };
        let wire = std::thread::scope(|scope| scope.spawn(open).join()).expect("a socket");
        wire.0.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
        wire
    }

    /// Sends a frame as it is.
    pub(crate) fn send(&self, frame: &[u8]) {
        assert_eq!(self.0.send(frame).expect("the link takes frames"), frame.len());
    }

    /// Waits for a frame that fits.
    pub(crate) fn wait_for(&self, what: &str, fits: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let (deadline, mut frame) = (Instant::now() + PATIENCE, vec![0; 1 << 16]);
        while Instant::now() < deadline {
            let Ok(len) = (&self.0).read(&mut frame) else { break };
            if frame[6..12] == NEAR_MAC && fits(&frame[..len]) {
                return frame[..len].to_vec();
            }
        }
        panic!("no frame came: {what}");
    }

    /// Waits for the DNS answer to this query, over UDP and without options.
    pub(crate) fn wait_for_answer(&self, what: &str, query: &Frame) -> Vec<u8> {
        let (ports, id) = ([query.to.port(), query.from.port()], query.payload[..2].to_vec());
        let ports = ports.map(u16::to_be_bytes).concat();
        let udp = if query.from.is_ipv4() { 34 } else { 54 };
        self.wait_for(what, |frame| {
            frame.get(udp..udp + 4) == Some(&ports) && frame.get(udp + 8..udp + 10) == Some(&id)
        })
    }
}

/// A query over IPv4 from a port of the far end.
pub(crate) fn v4(port: u16) -> Frame {
    between("10.78.0.2", port, V4)
}

/// A query over IPv6.
pub(crate) fn v6(port: u16) -> Frame {
    between("fd78::2", port, V6)
}

fn between(from: &str, port: u16, to: &str) -> Frame {
    let address = |ip: &str, port| SocketAddr::new(ip.parse().expect("an address"), port);
    Frame {
        to_mac: NEAR_MAC,
        from_mac: FAR_MAC,
        ..Frame::between(address(from, port), address(to, 53))
    }
}
