//! Frames written piece by piece, one byte after the other, without the code under test or any other
//! encoder: many are made wrong afterwards.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::net::{IpAddr, SocketAddr};

/// Bytes of the Ethernet header and of a tag.
pub(crate) const ETHERNET: usize = 14;
pub(crate) const TAG: usize = 4;

/// One UDP datagram, and the frame that carries it.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// The MACs: whom it is for, and who sends it.
    pub(crate) to_mac: [u8; 6],
    pub(crate) from_mac: [u8; 6],
    /// What stands in the 802.1Q tag, if there is one: priority and number.
    pub(crate) tag: Option<u16>,
    pub(crate) from: SocketAddr,
    /// Of the same family.
    pub(crate) to: SocketAddr,
    /// Bytes of IPv4 options, to be a multiple of four.
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// A query over IPv4 from 192.0.2.7 port 5300 to 192.0.2.1 port 53, of 29 bytes.
    pub(crate) fn v4() -> Self {
        Self::between("192.0.2.7:5300".parse().unwrap(), "192.0.2.1:53".parse().unwrap())
    }

    /// The same over IPv6 from 2001:db8::7 to 2001:db8::1.
    pub(crate) fn v6() -> Self {
        Self::between("[2001:db8::7]:5300".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap())
    }

    /// A query between two addresses of one family.
    pub(crate) fn between(from: SocketAddr, to: SocketAddr) -> Self {
        Self {
            to_mac: [2, 0, 0, 0, 0, 1],
            from_mac: [2, 0, 0, 0, 0, 7],
            tag: None,
            from,
            to,
            options: Vec::new(),
            payload: query("www.example"),
        }
    }

    /// With an 802.1Q tag: three bits of priority, one of eligibility, twelve of number.
    pub(crate) fn tagged(self, tag: u16) -> Self {
        Self { tag: Some(tag), ..self }
    }

    /// From elsewhere.
    pub(crate) fn source(mut self, source: &str) -> Self {
        let ip: IpAddr = source.parse().unwrap();
        self.from = SocketAddr::new(ip, self.from.port());
        self
    }

    /// With another payload.
    pub(crate) fn payload(self, payload: &[u8]) -> Self {
        Self { payload: payload.to_vec(), ..self }
    }

    /// Where the IP header starts.
    pub(crate) fn packet(&self) -> usize {
        ETHERNET + if self.tag.is_some() { TAG } else { 0 }
    }

    /// Where the UDP header starts.
    pub(crate) fn udp(&self) -> usize {
        self.packet() + self.options.len() + if self.from.is_ipv4() { 20 } else { 40 }
    }

    /// The frame, with right lengths and checksums, and without padding.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.to_mac, self.from_mac].concat();
        if let Some(tag) = self.tag {
            push(&mut bytes, &[0x8100, tag]);
        }
        let udp_len = (8 + self.payload.len()) as u16;
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let header_len = 20 + self.options.len();
                push(&mut bytes, &[0x0800, 0x4000 + (header_len as u16 / 4 * 0x100)]);
                // An identity, DF, a TTL that is not ours, and no checksum yet.
                push(&mut bytes, &[header_len as u16 + udp_len, 0x1d1d, 0x4000, 0x3711, 0]);
                bytes.extend(from.octets());
                bytes.extend(to.octets());
                bytes.extend(&self.options);
                set_v4_checksum(&mut bytes, self.packet());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                // A traffic class and a flow label, which the reply has no use for.
                push(&mut bytes, &[0x86dd, 0x6ab4, 0x5678, udp_len, 0x1137]);
                bytes.extend(from.octets());
                bytes.extend(to.octets());
            }
            mixed => panic!("two families: {mixed:?}"),
        }
        push(&mut bytes, &[self.from.port(), self.to.port(), udp_len, 0]);
        bytes.extend(&self.payload);
        let checksum = match !self.sum(&bytes) {
            0 => 0xffff,
            checksum => checksum,
        };
        set(&mut bytes, self.udp() + 6, checksum);
        bytes
    }

    /// The frame as a sender on the same host hands it over, who leaves the rest of the UDP checksum
    /// to the device (CHECKSUM_PARTIAL).
    pub(crate) fn with_partial_checksum(&self) -> Vec<u8> {
        let mut bytes = self.bytes();
        set(&mut bytes, self.udp() + 6, sum(&self.pseudo_header()));
        bytes
    }

    /// The sum over the pseudo-header and the datagram at the end of these bytes.
    fn sum(&self, bytes: &[u8]) -> u16 {
        sum(&[&self.pseudo_header(), &bytes[self.udp()..]].concat())
    }

    fn pseudo_header(&self) -> Vec<u8> {
        let mut header = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
            (IpAddr::V6(from), IpAddr::V6(to)) => [from.octets(), to.octets()].concat(),
            mixed => panic!("two families: {mixed:?}"),
        };
        push(&mut header, &[17, 8 + self.payload.len() as u16]);
        header
    }
}

/// A query for the A record of a name, without EDNS.
pub(crate) fn query(name: &str) -> Vec<u8> {
    let mut query = Vec::new();
    push(&mut query, &[0x1234, 0x0100, 1, 0, 0, 0]);
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.push(0);
    push(&mut query, &[1, 1]);
    query
}

/// Writes one word over what is there.
pub(crate) fn set(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

/// Makes the checksum of the IPv4 header at this place right.
pub(crate) fn set_v4_checksum(bytes: &mut [u8], at: usize) {
    let end = at + usize::from(bytes[at] & 15) * 4;
    set(bytes, at + 10, 0);
    let checksum = !sum(&bytes[at..end]);
    set(bytes, at + 10, checksum);
}

/// The Internet checksum's sum, as RFC 1071 words it.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let mut total = 0u32;
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

fn push(bytes: &mut Vec<u8>, words: &[u16]) {
    bytes.extend(words.iter().flat_map(|word| word.to_be_bytes()));
}
