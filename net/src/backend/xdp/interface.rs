//! Which interfaces carry the listen addresses, and what their filters are to take.
//!
//! - An interface carries its addresses; loopback all of 127.0.0.0/8. A wildcard listener asks for all
//!   addresses of its family that the interface has now.
//! - Frames of a VLAN come by the device below it, with a tag: there the filter goes, and the
//!   VLAN's addresses are targets with its id.
//! - Unless interfaces are named, those are taken that are up, have Ethernet's frames and carry a
//!   listen address, but not loopback: it has no driver to run a filter, and all local traffic would
//!   pay. A wildcard listener takes only those with an address that is more than link-local (not each
//!   end of each container's veth).
//! - A device made of others, such as a bond, is none of these, nor is a VLAN on one: its driver runs the
//!   filter where the others' frames come, and the kernel drops a frame that comes by one device and is
//!   given to a socket of another, uncounted. The frames of a bridge come by the bridge itself.
//! - An interface that is named must be up and serve something. It brings its VLANs, and takes the
//!   addresses of loopback and dummy devices as well: those are routed to this host by a wire.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::error::{Step, XdpError};
use super::filter::{MAX_TARGETS, Target};
use super::links::{self, Link};
use crate::socket::is_wildcard;
use crate::sys::{bpf, channels};

/// A network interface that frames come by.
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
    /// Queues that both receive and send; 1 where the driver doesn't say.
    pub queues: u32,
    /// In the order of the kernel.
    pub addresses: Vec<IpAddr>,
    /// Whether it is a loopback device.
    pub loopback: bool,
}

impl Interface {
    /// Whether it is a loopback device whose IPv4 drops what it sent itself: nobody looked up a route for
    /// answers from AF_XDP, so they are checked like those of strangers (fib_validate_source of Linux).
    pub(super) fn drops_its_own(&self) -> io::Result<bool> {
        let is_off = |setting: &str| {
            for device in ["all", &self.name] {
                let path = format!("/proc/sys/net/ipv4/conf/{device}/{setting}");
                if fs::read_to_string(path)?.trim() != "0" {
                    return Ok(false);
                }
            }
            Ok::<_, io::Error>(true)
        };
        Ok(self.loopback && (is_off("accept_local")? || is_off("route_localnet")?))
    }
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

/// The interfaces to attach to, in the order of their indices, each with the targets of its filter,
/// at most [`MAX_TARGETS`]: see the module. `names` may be empty.
pub fn plan(
    listeners: &[SocketAddr],
    names: &[String],
) -> Result<Vec<(Interface, Vec<Target>)>, XdpError> {
    let host = Host::look().map_err(XdpError::at(Step::ListInterfaces, "", None))?;
    let taken = host.take(listeners, names)?;
    let with_interface = |(index, targets): (u32, BTreeSet<Target>)| {
        let interface = host.interface(index)?;
        if targets.len() > MAX_TARGETS {
            let (interface, count) = (interface.name, targets.len());
            return Err(XdpError::Targets { interface, count, max: MAX_TARGETS });
        }
        Ok((interface, targets.into_iter().collect()))
    };
    taken.into_iter().map(with_interface).collect()
}

/// The program on an interface.
pub fn attached(index: u32) -> io::Result<Option<Attached>> {
    let link = links::links()?.into_iter().find(|link| link.index == index);
    Ok(link.and_then(|link| link.program).map(|(mode, id)| Attached {
        id,
        mode: match mode {
            1 => AttachMode::Native,
            2 => AttachMode::Generic,
            3 => AttachMode::Offloaded,
            _ => AttachMode::Multiple,
        },
        name: bpf::program_name(id),
    }))
}

/// The links and addresses of this network namespace.
struct Host {
    links: Vec<Link>,
    addresses: Vec<(u32, IpAddr)>,
}

impl Host {
    fn look() -> io::Result<Self> {
        Ok(Self { links: links::links()?, addresses: links::addresses()? })
    }

    /// By the index of the interface to attach to, what is to be served there.
    fn take(
        &self,
        listeners: &[SocketAddr],
        names: &[String],
    ) -> Result<BTreeMap<u32, BTreeSet<Target>>, XdpError> {
        let mut found = Vec::new();
        for name in names {
            found.extend(self.named(name, listeners)?);
        }
        if names.is_empty() {
            found.extend(self.links.iter().map(|link| (link, self.unnamed(link, listeners))));
        }
        let mut taken = BTreeMap::<u32, BTreeSet<Target>>::new();
        for (link, targets) in found {
            if let (Ok(wire), false) = (self.wire(link), targets.is_empty()) {
                taken.entry(wire.index).or_default().extend(targets);
            }
        }
        if taken.is_empty() {
            Err(XdpError::Nothing { there: self.to_string() })
        } else {
            Ok(taken)
        }
    }

    /// The links that a name stands for, and what they serve.
    fn named<'h>(
        &'h self,
        name: &str,
        listeners: &[SocketAddr],
    ) -> Result<Vec<(&'h Link, Vec<Target>)>, XdpError> {
        let Some(link) = self.links.iter().find(|link| link.name == name) else {
            return Err(XdpError::NoInterface { name: name.into(), there: self.to_string() });
        };
        let unsuitable = |why| XdpError::Unsuitable { name: name.into(), why };
        let wire = self.wire(link).map_err(unsuitable)?;
        if let Some(down) = [link, wire].into_iter().find(|link| !link.up) {
            return Err(XdpError::Down { name: down.name.clone() });
        }
        let stands_for = |other: &&Link| {
            let on_it = self.wire(other).is_ok_and(|wire| wire.index == link.index);
            other.index == link.index || on_it && other.up
        };
        let links = self.links.iter().filter(stands_for);
        let serving: Vec<_> = links
            .map(|link| (link, self.targets(link, listeners, self.routed_to(link))))
            .filter(|(_, targets)| !targets.is_empty())
            .collect();
        if serving.is_empty() {
            let (name, there) = (name.into(), list(self.of(link)));
            return Err(XdpError::NoAddress { name, there });
        }
        Ok(serving)
    }

    /// What a link serves that nobody named; nothing if it isn't to be taken.
    fn unnamed(&self, link: &Link, listeners: &[SocketAddr]) -> Vec<Target> {
        let comes = link.up
            && !link.is_dummy()
            && !link.loopback
            && self.wire(link).is_ok_and(|wire| wire.up);
        let is_wide = self.of(link).any(is_wide);
        let asked: Vec<_> = listeners
            .iter()
            .copied()
            .filter(|listener| comes && (is_wide || !is_wildcard(listener)))
            .collect();
        self.targets(link, &asked, Vec::new())
    }

    /// What listeners ask for of the addresses of a link, and of others that reach it.
    fn targets(
        &self,
        link: &Link,
        listeners: &[SocketAddr],
        mut addresses: Vec<(u32, IpAddr)>,
    ) -> Vec<Target> {
        addresses.extend(self.of(link).map(|address| (link.index, address)));
        if link.loopback {
            let local = listeners.iter().map(SocketAddr::ip);
            addresses.extend(local.filter(is_ipv4_loopback).map(|address| (link.index, address)));
        }
        let vlan = link.vlan.as_ref().map(|vlan| vlan.id);
        let mut targets = Vec::new();
        for listener in listeners {
            let asked = addresses.iter().filter(|&&(at, address)| is_asked(listener, at, address));
            targets.extend(asked.map(|&(interface, address)| {
                let port = listener.port();
                Target { vlan, address, port, interface, mtu: link.mtu }
            }));
        }
        targets
    }

    /// The device that a link's frames come by, or why none come that a filter could take.
    fn wire<'h>(&'h self, link: &'h Link) -> Result<&'h Link, &'static str> {
        let wire = match &link.vlan {
            None => link,
            Some(vlan) if !vlan.customer => return Err("is a VLAN of 802.1ad"),
            Some(vlan) => {
                let lower = self.links.iter().find(|link| Some(link.index) == vlan.lower);
                lower.ok_or("is a VLAN on a device of another network namespace")?
            }
        };
        match wire {
            Link { vlan: Some(_), .. } => Err("is a VLAN inside of another one"),
            Link { mac: None, .. } => Err("has no Ethernet frames"),
            _ if self.is_made_of_others(wire) => Err(match link.vlan {
                None => "is made of other interfaces, and frames come by those",
                Some(_) => "is a VLAN on one made of other interfaces, and frames come by those",
            }),
            _ => Ok(wire),
        }
    }

    /// Whether a link's frames come by other devices, now or once it has some.
    fn is_made_of_others(&self, link: &Link) -> bool {
        let has_parts = || self.links.iter().any(|part| part.master == Some(link.index));
        matches!(&*link.kind, "bond" | "team") || link.kind != "bridge" && has_parts()
    }

    /// The addresses of a link.
    fn of(&self, link: &Link) -> impl Iterator<Item = IpAddr> {
        let index = link.index;
        self.addresses.iter().filter(move |&&(at, _)| at == index).map(|&(_, address)| address)
    }

    /// Addresses of devices without a wire: who asks there comes by another link's.
    fn routed_to(&self, link: &Link) -> Vec<(u32, IpAddr)> {
        let without_wire = |index: u32| {
            self.links.iter().any(|link| link.index == index && (link.loopback || link.is_dummy()))
        };
        let routed = |&&(at, address): &&(u32, IpAddr)| without_wire(at) && is_wide(address);
        let has_wire = link.vlan.is_none() && !without_wire(link.index);
        self.addresses.iter().filter(routed).filter(|_| has_wire).copied().collect()
    }

    fn interface(&self, index: u32) -> Result<Interface, XdpError> {
        let link = self.links.iter().find(|link| link.index == index);
        let link = link.unwrap_or_else(|| unreachable!("an index of these links"));
        let name = link.name.clone();
        let queues =
            channels::queues(&name).map_err(XdpError::at(Step::ListInterfaces, &name, None))?;
        Ok(Interface {
            name,
            index,
            mac: link.mac.unwrap_or_default(),
            mtu: link.mtu,
            queues,
            addresses: self.of(link).collect(),
            loopback: link.loopback,
        })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, link) in self.links.iter().enumerate() {
            let (gap, down) = (if at > 0 { ", " } else { "" }, if link.up { "" } else { ", down" });
            write!(f, "{gap}{} ({}{down})", link.name, list(self.of(link)))?;
        }
        Ok(())
    }
}

/// Whether a listener asks for an address of the link with this index, whatever the port.
pub(super) fn is_asked(listener: &SocketAddr, index: u32, address: IpAddr) -> bool {
    let on_link = match listener {
        SocketAddr::V6(listener) => listener.scope_id() == 0 || listener.scope_id() == index,
        SocketAddr::V4(_) => true,
    };
    if is_wildcard(listener) {
        listener.is_ipv4() == address.is_ipv4()
    } else {
        on_link && listener.ip() == address
    }
}

/// Whether an address means something beyond its link.
fn is_wide(address: IpAddr) -> bool {
    let is_local = match address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local(),
    };
    !is_local
}

fn is_ipv4_loopback(address: &IpAddr) -> bool {
    address.is_ipv4() && address.is_loopback()
}

/// As an operator reads it.
fn list(addresses: impl Iterator<Item = IpAddr>) -> String {
    let addresses: Vec<_> = addresses.map(|address| address.to_string()).collect();
    if addresses.is_empty() { "no address".into() } else { addresses.join(", ") }
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

#[cfg(test)]
mod tests;
