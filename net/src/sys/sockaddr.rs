//! Socket addresses as the kernel lays them out, read and written as plain bytes: `sockaddr_in` and
//! `sockaddr_in6`.
//!
//! ```text
//!            0        2      4           8              24        28
//! AF_INET    | family | port | address   | (zero)                      16 bytes
//! AF_INET6   | family | port | flow info | address      | scope id |   28 bytes
//! ```
//! Family and scope id are in the machine's byte order, port and address in the network's.

use std::net::{IpAddr, SocketAddr};

use crate::route::Route;

/// Bytes of the larger of the two structures.
pub(crate) const NAME_LEN: usize = size_of::<libc::sockaddr_in6>();
/// Bytes of the smaller one.
pub(crate) const NAME_LEN_V4: usize = size_of::<libc::sockaddr_in>();

/// Room for either structure.
pub(crate) type Name = [u8; NAME_LEN];

/// The port, which stands at the same place in both.
pub(crate) fn port(name: &Name) -> u16 {
    u16::from_be_bytes([name[2], name[3]])
}

/// The route back to a sender. The kernel only gives these two families on our sockets; what isn't
/// IPv6 is read as IPv4.
pub(crate) fn decode(name: &Name, listener: u16) -> Route {
    let family = u16::from_ne_bytes([name[0], name[1]]);
    if i32::from(family) == libc::AF_INET6 {
        let scope = u32::from_ne_bytes(field(name, 24));
        Route::v6(field(name, 8), scope, port(name), listener)
    } else {
        Route::v4(field(name, 4), port(name), listener)
    }
}

/// Writes a route's peer and returns the length of the structure.
pub(crate) fn encode(route: &Route, name: &mut Name) -> usize {
    name.fill(0);
    name[2..4].copy_from_slice(&route.port().to_be_bytes());
    match route.peer() {
        SocketAddr::V4(peer) => {
            name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            name[4..8].copy_from_slice(&peer.ip().octets());
            NAME_LEN_V4
        }
        SocketAddr::V6(peer) => {
            name[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            name[8..24].copy_from_slice(&peer.ip().octets());
            name[24..28].copy_from_slice(&route.scope().to_ne_bytes());
            NAME_LEN
        }
    }
}

/// Whether an address means something on one link only, so that an answer from it must name the
/// interface.
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address {
        // RFC 3927 addresses are routed like any other by Linux.
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn field<const N: usize>(name: &Name, at: usize) -> [u8; N] {
    std::array::from_fn(|i| name[at + i])
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_offsets_are_the_kernels() {
        assert_eq!(offset_of!(libc::sockaddr_in, sin_port), 2);
        assert_eq!(offset_of!(libc::sockaddr_in, sin_addr), 4);
        assert_eq!(offset_of!(libc::sockaddr_in6, sin6_port), 2);
        assert_eq!(offset_of!(libc::sockaddr_in6, sin6_addr), 8);
        assert_eq!(offset_of!(libc::sockaddr_in6, sin6_scope_id), 24);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ip: IpAddr, port: u16, scope: u32, listener: u16) {
            let mut peer = SocketAddr::new(ip, port);
            if let SocketAddr::V6(peer) = &mut peer {
                peer.set_scope_id(scope);
            }
            let route = Route::new(peer, None, 0, listener);
            let mut name = [0xAA; NAME_LEN];
            let len = encode(&route, &mut name);
            prop_assert_eq!(len, socket2::SockAddr::from(peer).len() as usize);
            prop_assert_eq!(decode(&name, listener), route);
        }
    }
}
