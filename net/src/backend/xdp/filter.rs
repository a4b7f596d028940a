//! The filter.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use super::FilterCounts;
use super::error::{Step, XdpError};
use super::interface::Interface;
use crate::sys::bpf;

/// The most targets of one filter.
pub const MAX_TARGETS: usize = 256;

/// What a frame must be addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The id of its 802.1Q tag; `None` for frames without a tag.
    pub vlan: Option<u16>,
    /// Destination address.
    pub address: IpAddr,
    /// Destination port.
    pub port: u16,
    /// Index of the interface that has the address: for a VLAN not the one that the filter is on.
    pub interface: u32,
}

/// A filter, loaded.
#[derive(Debug)]
pub struct Filter {
    program: bpf::Program,
    sockets: bpf::SocketMap,
    counters: bpf::Counters<3>,
}

/// A filter on an interface; dropped, it is off.
#[derive(Debug)]
pub struct Link {
    _link: bpf::Link,
}

impl Filter {
    /// Loads the program for frames to this MAC address and these targets, of at most `max_frame`
    /// bytes (beginning with the MAC addresses), that come by queues below `queues`.
    pub fn load(
        _mac: [u8; 6],
        _targets: &[Target],
        _queues: u32,
        _max_frame: u32,
    ) -> Result<Self, XdpError> {
        Err(XdpError::NoFamily)
    }

    /// Gives the frames of a queue to an AF_XDP socket, which must have its rings.
    pub fn serve(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), XdpError> {
        self.sockets.set(queue, socket).map_err(XdpError::at(Step::Serve, "", queue))
    }

    /// Attaches it in the driver, or behind it. A program that is there is left alone and named.
    pub fn attach(&self, interface: &Interface, generic: bool) -> Result<Link, XdpError> {
        let step = Step::Attach { generic, mtu: interface.mtu };
        let link = self.program.attach_xdp(interface.index, generic);
        Ok(Link { _link: link.map_err(XdpError::at(step, &interface.name, None))? })
    }

    /// What it did since it was loaded.
    #[must_use]
    pub fn counts(&self) -> FilterCounts {
        let [redirected, unserved, passed] = self.counters.read().unwrap_or_default();
        FilterCounts { redirected, unserved, passed }
    }
}
