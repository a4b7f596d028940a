//! The one control message that wildcard sockets need: which address was asked (IP_PKTINFO,
//! IPV6_PKTINFO).
//!
//! ```text
//!            0          8       12     16         20                  28       32        36
//! IP_PKTINFO   | cmsg_len | level | type | ifindex  | spec_dst | addr |
//! IPV6_PKTINFO | cmsg_len | level | type | address (16 bytes)                  | ifindex |
//! ```
//! The message that came with a query is turned in place into the one that sends its reply: the
//! address asked becomes the source, and the interface is left to routing unless the address is
//! link-local.

use std::net::{IpAddr, Ipv6Addr};

use crate::route::Route;
use crate::sys::sockaddr::is_link_local;

/// Room for one control message of either family, with its padding: a cache line.
pub(crate) const CONTROL_LEN: usize = 64;

/// An area for control messages; aligned like `cmsghdr`.
#[repr(C, align(64))]
pub(crate) struct Control(pub(crate) [u8; CONTROL_LEN]);

const HEADER: usize = size_of::<libc::cmsghdr>();
const V4_LEN: usize = HEADER + size_of::<libc::in_pktinfo>();
const V6_LEN: usize = HEADER + size_of::<libc::in6_pktinfo>();

const V4_IFINDEX: usize = HEADER;
const V4_SPEC_DST: usize = HEADER + 4;
const V6_ADDRESS: usize = HEADER;
const V6_IFINDEX: usize = HEADER + 16;

/// Adds the address asked and the interface to a route, and prepares the message for the reply.
/// `len` is what the kernel wrote. The route stays as it is, and the message too, if there is no
/// such message.
pub(crate) fn turn_round(control: &mut Control, len: usize, route: Route) -> Route {
    let bytes = &mut control.0;
    // A socket asks for one kind of message, so it stands first.
    let kind = (i32::from_ne_bytes(field(bytes, 8)), i32::from_ne_bytes(field(bytes, 12)));
    if kind == (libc::IPPROTO_IP, libc::IP_PKTINFO) && len >= V4_LEN {
        let interface = u32::from_ne_bytes(field(bytes, V4_IFINDEX));
        bytes[V4_IFINDEX..V4_SPEC_DST].fill(0);
        route.with_local_v4(field(bytes, V4_SPEC_DST), interface)
    } else if kind == (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) && len >= V6_LEN {
        let interface = u32::from_ne_bytes(field(bytes, V6_IFINDEX));
        let address = Ipv6Addr::from(field::<16>(bytes, V6_ADDRESS));
        if address.is_multicast() {
            // No answer can come from a group; the kernel chooses an address of that interface.
            bytes[V6_ADDRESS..V6_IFINDEX].fill(0);
            return route;
        }
        if !address.is_unicast_link_local() {
            bytes[V6_IFINDEX..V6_LEN].fill(0);
        }
        route.with_local_v6(address.octets(), interface)
    } else {
        route
    }
}

/// Writes the message that sends an answer from `route.local()` and returns the length for
/// `msg_controllen`; 0 without such an address.
pub(crate) fn encode(route: &Route, control: &mut Control) -> usize {
    let Some(local) = route.local() else { return 0 };
    let interface = if is_link_local(local) { route.interface() } else { 0 };
    let bytes = &mut control.0;
    bytes.fill(0);
    match local {
        IpAddr::V4(address) => {
            put_header(bytes, V4_LEN, libc::IPPROTO_IP, libc::IP_PKTINFO);
            bytes[V4_SPEC_DST..V4_SPEC_DST + 4].copy_from_slice(&address.octets());
            V4_LEN.next_multiple_of(align_of::<libc::cmsghdr>())
        }
        IpAddr::V6(address) => {
            put_header(bytes, V6_LEN, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO);
            bytes[V6_ADDRESS..V6_IFINDEX].copy_from_slice(&address.octets());
            bytes[V6_IFINDEX..V6_LEN].copy_from_slice(&interface.to_ne_bytes());
            V6_LEN.next_multiple_of(align_of::<libc::cmsghdr>())
        }
    }
}

fn put_header(bytes: &mut [u8; CONTROL_LEN], len: usize, level: i32, kind: i32) {
    bytes[..8].copy_from_slice(&len.to_ne_bytes());
    bytes[8..12].copy_from_slice(&level.to_ne_bytes());
    bytes[12..16].copy_from_slice(&kind.to_ne_bytes());
}

fn field<const N: usize>(bytes: &[u8; CONTROL_LEN], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    fn written(route: &Route) -> (Control, usize) {
        let mut control = Control([0xAA; CONTROL_LEN]);
        let len = encode(route, &mut control);
        (control, len)
    }

    #[test]
    fn the_offsets_are_the_kernels() {
        assert_eq!(
            (offset_of!(libc::cmsghdr, cmsg_level), offset_of!(libc::cmsghdr, cmsg_type)),
            (8, 12)
        );
        assert_eq!(
            (HEADER, V4_SPEC_DST),
            (16, HEADER + offset_of!(libc::in_pktinfo, ipi_spec_dst))
        );
        assert_eq!(V6_IFINDEX, HEADER + offset_of!(libc::in6_pktinfo, ipi6_ifindex));
    }

    #[test]
    fn the_reply_to_a_v4_query_leaves_from_the_address_asked_by_any_interface() {
        let asked =
            Route::new("192.0.2.1:9".parse().unwrap(), Some("198.51.100.1".parse().unwrap()), 7, 0);
        let (mut control, len) = written(&asked);
        control.0[V4_IFINDEX] = 7;
        let peer = Route::new(asked.peer(), None, 0, 0);
        assert_eq!(turn_round(&mut control, len, peer), asked);
        assert_eq!(control.0, written(&asked).0.0);
    }

    #[test]
    fn only_link_local_answers_are_held_to_their_interface() {
        let peer = Route::new("[fe80::2%7]:9".parse().unwrap(), None, 0, 0);
        for (local, kept) in [("fe80::1", 7u32), ("2001:db8::1", 0)] {
            let asked = Route::new(peer.peer(), Some(local.parse().unwrap()), 7, 0);
            let (mut control, len) = written(&asked);
            control.0[V6_IFINDEX..V6_LEN].copy_from_slice(&7u32.to_ne_bytes());
            assert_eq!(turn_round(&mut control, len, peer), asked);
            assert_eq!(u32::from_ne_bytes(field(&control.0, V6_IFINDEX)), kept);
        }
    }

    #[test]
    fn no_answer_comes_from_a_multicast_group() {
        let peer = Route::new("[fe80::2%7]:9".parse().unwrap(), None, 0, 0);
        let group = Route::new(peer.peer(), Some("ff02::1".parse().unwrap()), 7, 0);
        let (mut control, len) = written(&group);
        assert_eq!(turn_round(&mut control, len, peer).local(), None);
        assert_eq!(field::<16>(&control.0, V6_ADDRESS), [0; 16]);
    }

    #[test]
    fn without_a_message_the_route_stays_as_it_is() {
        let peer = Route::new("192.0.2.1:9".parse().unwrap(), None, 0, 0);
        let (mut control, _) =
            written(&Route::new(peer.peer(), Some("192.0.2.9".parse().unwrap()), 1, 0));
        assert_eq!(turn_round(&mut control, 0, peer), peer);
        assert_eq!(turn_round(&mut Control([0xFF; CONTROL_LEN]), CONTROL_LEN, peer), peer);
    }
}
