//! One query as a whole frame: reads its headers, and turns them round for the reply in place.
//!
//! ```text
//!   0          12    14         18 (14)              38 / 58 (34 / 54)    46 / 66 (42 / 62)
//!   | dst, src | tag | type     | IPv4 20 / IPv6 40  | UDP 8              | payload, padding
//! ```
//! With one 802.1Q tag or none; IPv4 without options, IPv6 without extension headers: what the
//! filter lets through. Nothing is trusted to have passed it, and no input can panic. What a reply
//! needs stays where it is in the frame: MACs, addresses and ports change places, which leaves their
//! sums as they are.
//!
//! Cost with payloads of 36 to 110 bytes: 10 to 12 ns for [`parse`], 5 to 7 ns for
//! [`finish`](Datagram::finish), in both half for the checksum of the payload; [`Datagram::local`] 1,
//! [`Datagram::route`] 1 to 2 ns (2-core Xeon VM). The IPv4 header's checksum is computed anew: it
//! shares the addresses' sum with UDP's, which leaves four words, as many as have changed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::checksum::{fold, sum, word};
use crate::route::{Route, widen};

/// Bytes of the headers in front of a payload, at most.
pub const HEADERS_MAX: usize = ETHERNET + TAG + V6 + UDP;

/// Bytes in front of an IP packet, at most.
pub const ETHERNET_MAX: usize = ETHERNET + TAG;

/// Bytes of each header.
const ETHERNET: usize = 14;
const TAG: usize = 4;
const V4: usize = 20;
const V6: usize = 40;
const UDP: usize = 8;

/// What fits the 16 bits that an IPv4 packet has for its length.
const PAYLOAD_MAX: u16 = u16::MAX - (V4 + UDP) as u16;

/// EtherTypes, the protocol number of UDP, and what a reply has for a time to live (RFC 1700).
const TYPE_TAG: [u8; 2] = [0x81, 0x00];
const TYPE_V4: [u8; 2] = [0x08, 0x00];
const TYPE_V6: [u8; 2] = [0x86, 0xdd];
const PROTOCOL_UDP: u8 = 17;
const HOPS: u8 = 64;

/// MF and the offset: set in fragments only (RFC 791).
const FRAGMENT: u16 = 0x3fff;
/// The number of an 802.1Q tag; what is left of it is priority.
const VLAN_ID: u16 = 0x0fff;

/// Where the parts of a good query are. The bytes stay in its frame: whoever asks brings them, and
/// gets nonsense, but no panic, for those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Where the IP header starts: behind a tag, or where one would be.
    packet: u8,
    v6: bool,
    /// Bytes of the payload.
    len: u16,
}

/// Why a frame is not a query that could be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// Lengths that contradict each other, or not what the filter lets through.
    Malformed,
    /// A wrong checksum. Over IPv6 none at all is wrong too (RFC 8200 section 8.1).
    Corrupt,
    /// No answer can go where it says that it comes from: port 0, a multicast, broadcast or
    /// unspecified address, a group of MACs. The kernel drops such packets as martians, and so those
    /// from the address asked or a loopback address that did not come over loopback (there alone both
    /// MACs are 0), and those from an IPv4-mapped IPv6 address: each would pass an access list as somebody
    /// else. Of the host's other addresses this knows nothing.
    Unanswerable,
}

/// What was asked: by this a query finds its listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    /// An IPv4 address fills the first four bytes, the rest is zero.
    address: [u8; 16],
    port: u16,
    /// 0 for none: that number only gives a frame a priority.
    vlan: u16,
    v6: bool,
}

/// Reads a frame, which may have padding behind its packet.
#[inline]
pub fn parse(frame: &[u8]) -> Result<Datagram, Reject> {
    let (ethernet, packet) = frame.split_first_chunk::<ETHERNET>().ok_or(Reject::Malformed)?;
    match [ethernet[12], ethernet[13]] {
        TYPE_V4 => parse_v4(ethernet, ETHERNET, packet),
        TYPE_V6 => parse_v6(ethernet, ETHERNET, packet),
        TYPE_TAG => {
            let (tag, packet) = packet.split_first_chunk::<TAG>().ok_or(Reject::Malformed)?;
            match [tag[2], tag[3]] {
                TYPE_V4 => parse_v4(ethernet, ETHERNET + TAG, packet),
                TYPE_V6 => parse_v6(ethernet, ETHERNET + TAG, packet),
                _ => Err(Reject::Malformed),
            }
        }
        _ => Err(Reject::Malformed),
    }
}

#[inline]
fn parse_v4(ethernet: &[u8; ETHERNET], at: usize, packet: &[u8]) -> Result<Datagram, Reject> {
    let header: &[u8; V4] = packet.first_chunk().ok_or(Reject::Malformed)?;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let segment = packet.get(V4..total).ok_or(Reject::Malformed)?;
    let fragment = u16::from_be_bytes([header[6], header[7]]) & FRAGMENT;
    if header[0] != 0x45 || header[9] != PROTOCOL_UDP || fragment != 0 {
        return Err(Reject::Malformed);
    }
    if fold(sum(header)) != 0xffff {
        return Err(Reject::Corrupt);
    }
    let (source, destination) = (field(header, 12), field(header, 16));
    let (udp, len) = parse_udp(segment, sum(&header[12..]), true)?;
    let from = Ipv4Addr::from(source);
    let nowhere = from.is_unspecified() || from.is_broadcast() || from.is_multicast();
    let ours = from.is_loopback() || source == destination;
    if nowhere || !has_way_back(ethernet, udp, ours) {
        return Err(Reject::Unanswerable);
    }
    Ok(Datagram { packet: at as u8, v6: false, len })
}

#[inline]
fn parse_v6(ethernet: &[u8; ETHERNET], at: usize, packet: &[u8]) -> Result<Datagram, Reject> {
    let header: &[u8; V6] = packet.first_chunk().ok_or(Reject::Malformed)?;
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let segment = packet.get(V6..V6 + len).ok_or(Reject::Malformed)?;
    if header[0] >> 4 != 6 || header[6] != PROTOCOL_UDP {
        return Err(Reject::Malformed);
    }
    let (source, destination) = (field::<16>(header, 8), field(header, 24));
    let (udp, len) = parse_udp(segment, sum(&header[8..]), false)?;
    let from = Ipv6Addr::from(source);
    let nowhere = from.is_unspecified() || from.is_multicast() || from.to_ipv4_mapped().is_some();
    let ours = from.is_loopback() || source == destination;
    if nowhere || !has_way_back(ethernet, udp, ours) {
        return Err(Reject::Unanswerable);
    }
    Ok(Datagram { packet: at as u8, v6: true, len })
}

/// The UDP header in front of an IP packet's content, and the bytes of its payload. `addresses` is
/// their sum; `optional` whether a checksum may be left out.
#[inline]
fn parse_udp(segment: &[u8], addresses: u32, optional: bool) -> Result<(&[u8; UDP], u16), Reject> {
    let udp: &[u8; UDP] = segment.first_chunk().ok_or(Reject::Malformed)?;
    let len = u16::from_be_bytes([udp[4], udp[5]]);
    let payload_len = len.checked_sub(UDP as u16).ok_or(Reject::Malformed)?;
    let datagram = segment.get(..usize::from(len)).ok_or(Reject::Malformed)?;
    let checksum = u16::from_ne_bytes(field(udp, 6));
    if checksum == 0 {
        return if optional { Ok((udp, payload_len)) } else { Err(Reject::Corrupt) };
    }
    let pseudo = addresses + word(PROTOCOL_UDP.into()) + word(len);
    // A sender on this host leaves the sum over the datagram to its device (CHECKSUM_PARTIAL), which
    // a veth pair does not have.
    if fold(pseudo + sum(datagram)) == 0xffff || fold(pseudo) == checksum {
        Ok((udp, payload_len))
    } else {
        Err(Reject::Corrupt)
    }
}

/// Whether a reply would reach one host by its port, and a source that is our own came from there:
/// over loopback, where both MACs are 0.
#[inline]
fn has_way_back(ethernet: &[u8; ETHERNET], udp: &[u8; UDP], ours: bool) -> bool {
    let is_group = ethernet[6] & 1 == 1;
    udp[..2] != [0, 0] && !is_group && (!ours || ethernet[..12] == [0; 12])
}

impl Datagram {
    /// Where the payload is.
    #[inline]
    #[must_use]
    pub fn payload(self) -> Range<usize> {
        let start = self.udp() + UDP;
        start..start + usize::from(self.len)
    }

    /// The most bytes that a reply's payload may have: `mtu` bounds the packet, and `capacity` the
    /// frame, which lies at the start of so many bytes.
    #[inline]
    #[must_use]
    pub fn room(self, mtu: usize, capacity: usize) -> usize {
        let start = self.udp() + UDP;
        let frame = capacity.min(mtu.saturating_add(self.packet()));
        frame.saturating_sub(start).min(usize::from(PAYLOAD_MAX))
    }

    /// What was asked.
    #[inline]
    #[must_use]
    pub fn local(self, frame: &[u8]) -> Local {
        let port = u16::from_be_bytes(field(frame, self.udp() + 2));
        let address = match self.v6 {
            true => field(frame, self.packet() + 24),
            false => widen(field(frame, self.packet() + 16)),
        };
        let vlan = match self.packet() > ETHERNET {
            true => u16::from_be_bytes(field(frame, ETHERNET)) & VLAN_ID,
            false => 0,
        };
        Local { address, port, vlan, v6: self.v6 }
    }

    /// The way back for an answer that comes later, through the ordinary socket of this listener.
    /// `wildcard` says that it has no address of its own; `interface` is the index of the one that
    /// the query came in by, with a VLAN that of the VLAN.
    #[inline]
    #[must_use]
    pub fn route(self, frame: &[u8], listener: u16, wildcard: bool, interface: u32) -> Route {
        let (packet, port) = (self.packet(), u16::from_be_bytes(field(frame, self.udp())));
        if self.v6 {
            let peer = field(frame, packet + 8);
            let scoped = Ipv6Addr::from(peer).is_unicast_link_local();
            let route = Route::v6(peer, if scoped { interface } else { 0 }, port, listener);
            match wildcard {
                true => route.with_local_v6(field(frame, packet + 24), interface),
                false => route,
            }
        } else {
            let route = Route::v4(field(frame, packet + 12), port, listener);
            match wildcard {
                true => route.with_local_v4(field(frame, packet + 16), interface),
                false => route,
            }
        }
    }

    /// Writes the headers of a reply whose payload of `len` bytes stands where the query's was, and
    /// returns the length of its frame; 0, and nothing is written, if `len` is beyond
    /// [`room`](Self::room). `id` tells its fragments from those of others, should a router cut it
    /// up (IPv4): hard to foresee, or somebody may slip in parts (RFC 7739 section 1).
    ///
    /// MACs, addresses and ports change places, a tag stays. No DF, for nobody would hear of it.
    #[inline]
    #[must_use]
    pub fn finish(self, frame: &mut [u8], len: usize, id: u16) -> usize {
        let udp_len = match u16::try_from(len) {
            Ok(len) if len <= PAYLOAD_MAX => UDP as u16 + len,
            _ => return 0,
        };
        let end = self.udp() + UDP + len;
        let Some(frame) = frame.get_mut(..end) else {
            return 0;
        };
        let (ethernet, packet) = frame.split_at_mut(self.packet());
        if let Some(macs) = ethernet.first_chunk_mut::<12>() {
            macs.rotate_left(6);
        }
        match self.v6 {
            true => finish_v6(packet, udp_len),
            false => finish_v4(packet, udp_len, id),
        }
        end
    }

    fn packet(self) -> usize {
        self.packet.into()
    }

    fn udp(self) -> usize {
        self.packet() + if self.v6 { V6 } else { V4 }
    }
}

impl Local {
    /// What a query to this address and port has asked, in a frame with or without a tag.
    #[must_use]
    pub fn new(vlan: Option<u16>, address: IpAddr, port: u16) -> Self {
        let (address, v6) = match address {
            IpAddr::V4(address) => (widen(address.octets()), false),
            IpAddr::V6(address) => (address.octets(), true),
        };
        Self { address, port, vlan: vlan.unwrap_or(0) & VLAN_ID, v6 }
    }
}

/// `udp_len` and the header before it fit 16 bits.
#[inline]
fn finish_v4(packet: &mut [u8], udp_len: u16, id: u16) {
    let Some((header, segment)) = packet.split_first_chunk_mut::<V4>() else {
        return;
    };
    // Both checksums cover the addresses.
    let addresses = sum(&header[12..]);
    let length = V4 as u16 + udp_len;
    let constant = word(0x4500) + word(u16::from_be_bytes([HOPS, PROTOCOL_UDP]));
    let checksum = !fold(constant + word(length) + word(id) + addresses);
    let [source, destination] = [field::<4>(header, 12), field::<4>(header, 16)];
    let [length, id] = [length.to_be_bytes(), id.to_be_bytes()];
    header[..4].copy_from_slice(&[0x45, 0, length[0], length[1]]);
    header[4..10].copy_from_slice(&[id[0], id[1], 0, 0, HOPS, PROTOCOL_UDP]);
    header[10..12].copy_from_slice(&checksum.to_ne_bytes());
    header[12..16].copy_from_slice(&destination);
    header[16..].copy_from_slice(&source);
    finish_udp(segment, udp_len, addresses);
}

#[inline]
fn finish_v6(packet: &mut [u8], udp_len: u16) {
    let Some((header, segment)) = packet.split_first_chunk_mut::<V6>() else {
        return;
    };
    let addresses = sum(&header[8..]);
    let length = udp_len.to_be_bytes();
    header[..8].copy_from_slice(&[0x60, 0, 0, 0, length[0], length[1], PROTOCOL_UDP, HOPS]);
    header[8..].rotate_left(16);
    finish_udp(segment, udp_len, addresses);
}

/// Finishes the header before the payload; `addresses` is the sum of the IP header's.
#[inline]
fn finish_udp(segment: &mut [u8], len: u16, addresses: u32) {
    let Some((udp, payload)) = segment.split_first_chunk_mut::<UDP>() else {
        return;
    };
    let [source, destination] = [field::<2>(udp, 0), field::<2>(udp, 2)];
    let ports = sum(&udp[..4]);
    // The length is in the pseudo-header too.
    let lengths = 2 * word(len) + word(PROTOCOL_UDP.into());
    let checksum = match !fold(addresses + ports + lengths + sum(payload)) {
        // 0 would say that there is none (RFC 768).
        0 => 0xffff,
        checksum => checksum,
    };
    udp[..2].copy_from_slice(&destination);
    udp[2..4].copy_from_slice(&source);
    udp[4..6].copy_from_slice(&len.to_be_bytes());
    udp[6..].copy_from_slice(&checksum.to_ne_bytes());
}

/// The bytes at a place of a frame; zeros where it has none.
#[inline]
fn field<const LEN: usize>(bytes: &[u8], at: usize) -> [u8; LEN] {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; LEN])
}
