//! Which interfaces carry the listen addresses, and what their filters are to take.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::error::XdpError;
use super::filter::Target;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index in this network namespace.
    pub index: u32,
    /// All zero for loopback.
    pub mac: [u8; 6],
    /// Bytes of the longest IP packet.
    pub mtu: u32,
    /// Receive queues; 1 where the driver doesn't say.
    pub queues: u32,
    /// In the order of the kernel.
    pub addresses: Vec<IpAddr>,
    /// For a VLAN: the device below and the id.
    pub vlan: Option<(String, u16)>,
    /// Set up by the operator, with or without a carrier.
    pub up: bool,
    /// Whether it is a loopback device.
    pub loopback: bool,
}

/// An XDP program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The kernel's number of it; 0 where there are several.
    pub id: u32,
    /// Where it runs.
    pub mode: AttachMode,
    /// Its name, where that could be found out.
    pub name: Option<String>,
}

/// Where an XDP program runs (IFLA_XDP_ATTACHED).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// Behind the driver.
    Generic,
    /// In the device.
    Offloaded,
    /// More than one of these.
    Multiple,
}

/// The interfaces to attach to, each with the targets of its filter: see the module.
pub fn plan(
    _listeners: &[SocketAddr],
    _names: &[String],
) -> Result<Vec<(Interface, Vec<Target>)>, XdpError> {
    Err(XdpError::Nothing { there: String::new() })
}

/// The program on an interface.
pub fn attached(_index: u32) -> io::Result<Option<Attached>> {
    Ok(None)
}

impl AttachMode {
    /// What `ip link set dev .. xdp` has after it to mean this one.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Native => "drv",
            Self::Generic => "generic",
            Self::Offloaded => "offload",
            Self::Multiple => "",
        }
    }
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            AttachMode::Native => "native",
            AttachMode::Generic => "generic",
            AttachMode::Offloaded => "offloaded",
            AttachMode::Multiple => return f.write_str("several, native and generic"),
        };
        match &self.name {
            Some(name) => write!(f, "{name}, id {}, {mode}", self.id),
            None => write!(f, "id {}, {mode}", self.id),
        }
    }
}
