//! Where a datagram came from and how its answer finds the way back.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// The way back to a client: its address, the address it asked, the interface and the listener.
///
/// 48 bytes and `Copy`, so that a query that must wait keeps its route and gives its buffer back.
/// Addresses stand as raw bytes in network order; [`peer`](Self::peer) and [`local`](Self::local)
/// convert when somebody asks.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    /// An IPv4 address fills the first four bytes, the rest is zero.
    peer: [u8; 16],
    /// Zero unless `has_local`.
    local: [u8; 16],
    /// `sin6_scope_id`: the interface a link-local peer lives on.
    scope: u32,
    interface: u32,
    port: u16,
    /// Which of [`Options::listeners`](crate::backend::Options) received it, by index.
    pub listener: u16,
    v6: bool,
    has_local: bool,
}

impl Route {
    /// A route to `peer` through the listener at that index.
    ///
    /// `local` is the address the answer must come from; backends set it only on wildcard binds,
    /// where the kernel would otherwise choose. It is ignored if its family isn't the peer's.
    /// `interface` is the index of the interface that the query came in by, 0 when unknown; an
    /// answer is held to it only when `local` is link-local.
    pub fn new(peer: SocketAddr, local: Option<IpAddr>, interface: u32, listener: u16) -> Self {
        let route = match peer {
            SocketAddr::V4(peer) => Self::v4(peer.ip().octets(), peer.port(), listener),
            SocketAddr::V6(peer) => {
                Self::v6(peer.ip().octets(), peer.scope_id(), peer.port(), listener)
            }
        };
        match local {
            Some(IpAddr::V4(address)) if !route.v6 => {
                route.with_local_v4(address.octets(), interface)
            }
            Some(IpAddr::V6(address)) if route.v6 => {
                route.with_local_v6(address.octets(), interface)
            }
            _ => Self { interface, ..route },
        }
    }

    pub(crate) fn v4(address: [u8; 4], port: u16, listener: u16) -> Self {
        let (scope, interface, local) = (0, 0, [0; 16]);
        Self {
            peer: widen(address),
            local,
            scope,
            interface,
            port,
            listener,
            v6: false,
            has_local: false,
        }
    }

    pub(crate) fn v6(peer: [u8; 16], scope: u32, port: u16, listener: u16) -> Self {
        Self {
            peer,
            local: [0; 16],
            scope,
            interface: 0,
            port,
            listener,
            v6: true,
            has_local: false,
        }
    }

    pub(crate) fn with_local_v4(self, address: [u8; 4], interface: u32) -> Self {
        Self { local: widen(address), interface, has_local: true, ..self }
    }

    pub(crate) fn with_local_v6(self, local: [u8; 16], interface: u32) -> Self {
        Self { local, interface, has_local: true, ..self }
    }

    /// The client's address and port, with the scope id of a link-local one.
    pub fn peer(&self) -> SocketAddr {
        if self.v6 {
            SocketAddrV6::new(Ipv6Addr::from(self.peer), self.port, 0, self.scope).into()
        } else {
            SocketAddrV4::new(Ipv4Addr::from(first_four(self.peer)), self.port).into()
        }
    }

    /// The client's address without the port: what access lists and rate limits look at.
    pub fn peer_ip(&self) -> IpAddr {
        self.ip(self.peer)
    }

    /// The address that was asked; `None` unless the listener is bound to a wildcard.
    pub fn local(&self) -> Option<IpAddr> {
        self.has_local.then(|| self.ip(self.local))
    }

    /// The index of the interface the query came in by; 0 when unknown.
    pub fn interface(&self) -> u32 {
        self.interface
    }

    /// The client's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn scope(&self) -> u32 {
        self.scope
    }

    fn ip(&self, bytes: [u8; 16]) -> IpAddr {
        if self.v6 {
            Ipv6Addr::from(bytes).into()
        } else {
            Ipv4Addr::from(first_four(bytes)).into()
        }
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("peer", &self.peer())
            .field("local", &self.local())
            .field("interface", &self.interface)
            .field("listener", &self.listener)
            .finish()
    }
}

/// An IPv4 address in the room of an IPv6 one.
pub(crate) fn widen([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

fn first_four([a, b, c, d, ..]: [u8; 16]) -> [u8; 4] {
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_stays_small_enough_to_keep_with_every_waiting_query() {
        assert_eq!(size_of::<Route>(), 48);
    }

    #[test]
    fn addresses_survive_the_compact_form() {
        let peer: SocketAddr = "192.0.2.7:5300".parse().unwrap();
        let route = Route::new(peer, Some("198.51.100.1".parse().unwrap()), 3, 9);
        assert_eq!((route.peer(), route.peer_ip(), route.port()), (peer, peer.ip(), 5300));
        assert_eq!(route.local(), Some("198.51.100.1".parse().unwrap()));
        assert_eq!((route.interface(), route.listener), (3, 9));

        let peer = SocketAddr::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), 53, 0, 4));
        let route = Route::new(peer, None, 4, 0);
        assert_eq!((route.peer(), route.local()), (peer, None));
    }

    #[test]
    fn a_local_address_of_the_other_family_is_ignored() {
        let route = Route::new("192.0.2.7:1".parse().unwrap(), Some("::1".parse().unwrap()), 2, 0);
        assert_eq!(route.local(), None);
    }
}
