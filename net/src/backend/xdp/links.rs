//! What the kernel says of links and addresses (rtnetlink(7)), in the network namespace of the calling
//! thread.
//!
//! A request for all of them brings messages, several in a datagram, the last of which says so:
//!
//! ```text
//!   0          4       6        8          16                    16 + family's length
//!   | length   | type  | flags  | .. ..    | a fixed structure   | attributes: length, type, bytes
//! ```
//! Lengths are rounded up to four bytes. What is cut short is left out.

use std::io::{self, ErrorKind, Read};
use std::net::IpAddr;

use libc::{
    ARPHRD_ETHER, ARPHRD_LOOPBACK, ETH_P_8021Q, IFA_ADDRESS, IFA_LOCAL, IFF_LOOPBACK, IFF_UP,
    IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINK, IFLA_LINK_NETNSID,
    IFLA_LINKINFO, IFLA_MASTER, IFLA_MTU, IFLA_XDP, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE,
    NLMSG_ERROR, RTM_GETADDR, RTM_GETLINK,
};
use socket2::{Domain, Protocol, Socket, Type};

/// Of the links' attributes that libc doesn't name (linux/if_link.h).
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VLAN_PROTOCOL: u16 = 5;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;

/// The upper bits of an attribute's type say how it is written.
const TYPE_MASK: u16 = 0x3fff;

/// Bytes of a message's header, and of `struct ifinfomsg` and `struct ifaddrmsg` behind it.
const HEADER_LEN: usize = 16;
const LINK_LEN: usize = 16;
const ADDRESS_LEN: usize = 8;

/// The kernel fills datagrams of up to 32 KiB.
const BUFFER_LEN: usize = 64 * 1024;

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// `None` if it has no frames with Ethernet's header.
    pub(super) mac: Option<[u8; 6]>,
    pub(super) mtu: u32,
    pub(super) up: bool,
    pub(super) loopback: bool,
    /// The kind of device that software makes of others or of nothing, as `ip` names it; empty for hardware.
    pub(super) kind: String,
    /// The index of the device that it is a part of.
    pub(super) master: Option<u32>,
    pub(super) vlan: Option<Vlan>,
    /// Where an XDP program runs (IFLA_XDP_ATTACHED), and its id, 0 if there are several.
    pub(super) program: Option<(u8, u32)>,
}

impl Link {
    /// Whether it is a device for addresses alone, without a wire.
    pub(super) fn is_dummy(&self) -> bool {
        self.kind == "dummy"
    }
}

/// What makes a link a VLAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vlan {
    /// The index of the device below; `None` if that is in another network namespace.
    pub(super) lower: Option<u32>,
    pub(super) id: u16,
    /// Of 802.1Q, not 802.1ad.
    pub(super) customer: bool,
}

/// All links, in the order of their indices.
pub(super) fn links() -> io::Result<Vec<Link>> {
    let mut links = Vec::new();
    dump(RTM_GETLINK, LINK_LEN, |body| links.extend(link(body)))?;
    links.sort_unstable_by_key(|link: &Link| link.index);
    Ok(links)
}

/// All addresses, each with the index of its link.
pub(super) fn addresses() -> io::Result<Vec<(u32, IpAddr)>> {
    let mut addresses = Vec::new();
    dump(RTM_GETADDR, ADDRESS_LEN, |body| addresses.extend(address(body)))?;
    Ok(addresses)
}

/// Asks for all objects of a kind, and hands on what is behind the header of each message.
fn dump(kind: u16, request_len: usize, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let (domain, protocol) = (Domain::from(libc::AF_NETLINK), Protocol::from(libc::NETLINK_ROUTE));
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    let len = HEADER_LEN + request_len;
    let mut request = vec![0; len];
    request[..4].copy_from_slice(&(len as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&((NLM_F_REQUEST | NLM_F_DUMP) as u16).to_ne_bytes());
    socket.send(&request)?;
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        let received = match socket.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            received => received?,
        };
        let mut rest = &buffer[..received];
        while let Some((kind, message, next)) = message(rest) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let error = message.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                    return Err(io::Error::from_raw_os_error(-error));
                }
                _ => each(message),
            }
            rest = next;
        }
    }
}

/// The type and the body of the first message, and what comes behind it.
fn message(bytes: &[u8]) -> Option<(i32, &[u8], &[u8])> {
    let len = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(HEADER_LEN..len)?;
    Some((kind.into(), body, bytes.get(len.next_multiple_of(4)..).unwrap_or_default()))
}

fn link(body: &[u8]) -> Option<Link> {
    let device_type = u16::from_ne_bytes(*body.get(2..)?.first_chunk()?);
    let flags = number(body.get(8..)?)? as i32;
    let mut link = Link {
        index: number(body.get(4..)?)?,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags & IFF_UP != 0,
        loopback: flags & IFF_LOOPBACK != 0,
        kind: String::new(),
        master: None,
        vlan: None,
        program: None,
    };
    let (mut lower, mut elsewhere) = (None, false);
    for (kind, value) in attributes(body.get(LINK_LEN..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = number(value)?,
            IFLA_LINK => lower = number(value),
            IFLA_MASTER => link.master = number(value),
            IFLA_LINK_NETNSID => elsewhere = true,
            IFLA_ADDRESS if matches!(device_type, ARPHRD_ETHER | ARPHRD_LOOPBACK) => {
                link.mac = value.try_into().ok();
            }
            IFLA_LINKINFO => {
                link.kind = attribute(value, IFLA_INFO_KIND).map(text).unwrap_or_default();
                link.vlan = vlan(value);
            }
            IFLA_XDP => link.program = program(value),
            _ => {}
        }
    }
    if let Some(vlan) = &mut link.vlan {
        vlan.lower = lower.filter(|_| !elsewhere);
    }
    Some(link)
}

fn vlan(info: &[u8]) -> Option<Vlan> {
    let kind = attribute(info, IFLA_INFO_KIND)?;
    let data = attribute(info, IFLA_INFO_DATA).filter(|_| text(kind) == "vlan")?;
    let id = u16::from_ne_bytes(*attribute(data, IFLA_VLAN_ID)?.first_chunk()?);
    let protocol = attribute(data, IFLA_VLAN_PROTOCOL)?.first_chunk()?;
    let customer = i32::from(u16::from_be_bytes(*protocol)) == ETH_P_8021Q;
    Some(Vlan { lower: None, id, customer })
}

fn program(xdp: &[u8]) -> Option<(u8, u32)> {
    let mode = *attribute(xdp, IFLA_XDP_ATTACHED)?.first()?;
    let id = attribute(xdp, IFLA_XDP_PROG_ID).and_then(number).unwrap_or_default();
    (mode != 0).then_some((mode, id))
}

fn address(body: &[u8]) -> Option<(u32, IpAddr)> {
    let index = number(body.get(4..)?)?;
    let attributes = body.get(ADDRESS_LEN..)?;
    // With a peer, IFA_ADDRESS is the peer's.
    let ours = attribute(attributes, IFA_LOCAL).or_else(|| attribute(attributes, IFA_ADDRESS))?;
    let address = match ours.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(ours).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(ours).ok()?),
    };
    Some((index, address))
}

/// The first attribute of a type.
fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// Attributes, one behind the other.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & TYPE_MASK;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|number| u32::from_ne_bytes(*number))
}

/// Up to the zero at its end.
fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Xdp;
    use crate::backend::contract::runs_here;
    use crate::backend::xdp::rig::isolated;

    fn attribute_of(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// What is behind the header of a message of a VLAN, with this protocol.
    fn vlan_of(protocol: u16) -> Vec<u8> {
        let data = [
            attribute_of(IFLA_VLAN_PROTOCOL, &protocol.to_be_bytes()),
            attribute_of(IFLA_VLAN_ID, &7u16.to_ne_bytes()),
        ];
        let info = [
            attribute_of(IFLA_INFO_KIND, b"vlan\0"),
            attribute_of(IFLA_INFO_DATA | 0x8000, &data.concat()),
        ];
        let xdp = [
            attribute_of(IFLA_XDP_ATTACHED, &[2]),
            attribute_of(IFLA_XDP_PROG_ID, &99u32.to_ne_bytes()),
        ];
        let mut body = vec![0, 0];
        body.extend(ARPHRD_ETHER.to_ne_bytes());
        body.extend(12u32.to_ne_bytes());
        body.extend((IFF_UP as u32).to_ne_bytes());
        body.extend([0; 4]);
        body.extend(attribute_of(IFLA_IFNAME, b"eth0.7\0"));
        body.extend(attribute_of(IFLA_LINK, &2u32.to_ne_bytes()));
        body.extend(attribute_of(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 9]));
        body.extend(attribute_of(IFLA_MTU, &1400u32.to_ne_bytes()));
        body.extend(attribute_of(IFLA_MASTER, &5u32.to_ne_bytes()));
        body.extend(attribute_of(IFLA_LINKINFO, &info.concat()));
        body.extend(attribute_of(IFLA_XDP, &xdp.concat()));
        body
    }

    #[test]
    fn a_vlan_is_read_with_what_it_is_on() {
        let expected = Link {
            index: 12,
            name: "eth0.7".into(),
            mac: Some([2, 0, 0, 0, 0, 9]),
            mtu: 1400,
            up: true,
            loopback: false,
            kind: "vlan".into(),
            master: Some(5),
            vlan: Some(Vlan { lower: Some(2), id: 7, customer: true }),
            program: Some((2, 99)),
        };
        assert_eq!(link(&vlan_of(0x8100)), Some(expected.clone()));
        let service = Vlan { lower: Some(2), id: 7, customer: false };
        assert_eq!(link(&vlan_of(0x88a8)).unwrap().vlan, Some(service));
        let elsewhere = [vlan_of(0x8100), attribute_of(IFLA_LINK_NETNSID, &[0; 4])].concat();
        assert_eq!(link(&elsewhere).unwrap().vlan.unwrap().lower, None);
    }

    #[test]
    fn what_is_cut_short_is_left_out() {
        let whole = vlan_of(0x8100);
        for len in 0..whole.len() {
            let cut = link(&whole[..len]);
            assert_eq!(cut.is_some(), len >= LINK_LEN);
            let _ = (address(&whole[..len]), message(&whole[..len]));
        }
        let mut datagram = 20u32.to_ne_bytes().to_vec();
        datagram.extend([0; 16]);
        assert!(message(&datagram).is_some() && message(&datagram[..19]).is_none());
    }

    #[test]
    fn loopback_has_its_address() {
        if !runs_here::<Xdp>() {
            return;
        }
        isolated(|| {
            let lo = links().unwrap().into_iter().find(|link| link.loopback).unwrap();
            assert_eq!((lo.name.as_str(), lo.mac), ("lo", Some([0; 6])));
            assert!(lo.up && lo.mtu > 0 && lo.program.is_none() && lo.vlan.is_none());
            assert!(addresses().unwrap().contains(&(lo.index, [127, 0, 0, 1].into())));
        });
    }
}
