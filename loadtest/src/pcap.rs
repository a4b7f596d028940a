//! The DNS queries in a classic pcap file: UDP datagrams to port 53.
//!
//! Every length is checked against what the file holds; a packet that isn't a whole IP datagram is
//! passed over, as are fragments, answers and TCP. Who asks is told how many those are. A file that ends within a packet is an error, for it was cut.

/// Length of the file's header and of each record's.
const FILE_HEADER_LEN: usize = 24;
const RECORD_HEADER_LEN: usize = 16;

/// The longest record, as libpcap has it (MAXIMUM_SNAPLEN).
const RECORD_MAX: usize = 262_144;

const PORT: u16 = 53;

/// For each packet the payload, if it is a datagram to port 53 that may be a query, or nothing.
pub(crate) fn queries(
    file: &[u8],
) -> Result<impl Iterator<Item = Result<Option<&[u8]>, String>>, String> {
    let header = file.get(..FILE_HEADER_LEN).ok_or("too short for a pcap file")?;
    let number = |bytes: &[u8], is_big: bool| {
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if is_big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    };
    let is_big = match number(header, false) {
        // Time stamps in µs or ns, which don't matter here.
        0xa1b2_c3d4 | 0xa1b2_3c4d => false,
        0xd4c3_b2a1 | 0x4d3c_b2a1 => true,
        0x0a0d_0d0a => {
            return Err("this is pcapng: `editcap -F pcap` makes a pcap file of it".to_owned());
        }
        _ => return Err("not a pcap file: its first bytes are another's".to_owned()),
    };
    let link = Link::from_number(number(&header[20..], is_big) & 0xffff)?;
    let mut at = FILE_HEADER_LEN;
    let next = move || -> Option<Result<Option<&[u8]>, String>> {
        if at >= file.len() {
            return None;
        }
        let record = file.get(at..at + RECORD_HEADER_LEN).and_then(|header| {
            let len = number(&header[8..], is_big) as usize;
            let start = at + RECORD_HEADER_LEN;
            file.get(start..start + len.min(RECORD_MAX + 1)).filter(|_| len <= RECORD_MAX)
        });
        let Some(record) = record else {
            let place = std::mem::replace(&mut at, file.len());
            return Some(Err(format!("the packet at byte {place} is cut or damaged")));
        };
        at += RECORD_HEADER_LEN + record.len();
        Some(Ok(link.ip(record).and_then(query)))
    };
    Ok(std::iter::from_fn(next))
}

/// What stands before the IP header.
#[derive(Clone, Copy)]
enum Link {
    Ethernet,
    Raw,
    Null,
    LinuxCooked,
    LinuxCooked2,
}

impl Link {
    fn from_number(number: u32) -> Result<Self, String> {
        match number {
            0 | 108 => Ok(Self::Null),
            1 => Ok(Self::Ethernet),
            12 | 14 | 101 | 228 | 229 => Ok(Self::Raw),
            113 => Ok(Self::LinuxCooked),
            276 => Ok(Self::LinuxCooked2),
            _ => Err(format!("packets of link type {number} are not understood")),
        }
    }

    fn ip(self, frame: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Raw => Some(frame),
            Self::Null => frame.get(4..),
            Self::LinuxCooked => frame.get(16..),
            Self::LinuxCooked2 => frame.get(20..),
            Self::Ethernet => {
                let mut at = 12;
                // Tags of 802.1Q and 802.1ad.
                while matches!(frame.get(at..at + 2)?, [0x81, 0x00] | [0x88, 0xa8]) {
                    at += 4;
                }
                matches!(frame.get(at..at + 2)?, [0x08, 0x00] | [0x86, 0xdd])
                    .then(|| frame.get(at + 2..))?
            }
        }
    }
}

/// The payload of the UDP datagram to port 53 in this IP packet, if it is a query.
fn query(packet: &[u8]) -> Option<&[u8]> {
    const UDP: u8 = 17;
    let udp = match packet.first()? >> 4 {
        4 => {
            let header_len = usize::from(packet[0] & 15) * 4;
            // More fragments, or not the first.
            let fragment = u16::from_be_bytes(*packet.get(6..)?.first_chunk()?) & 0x3fff;
            let is_whole = *packet.get(9)? == UDP && fragment == 0 && header_len >= 20;
            is_whole.then(|| packet.get(header_len..))??
        }
        // Extension headers are not for queries.
        6 => (*packet.get(6)? == UDP).then(|| packet.get(40..))??,
        _ => return None,
    };
    let &[_, _, port_high, port_low, len_high, len_low, ..] = udp else {
        return None;
    };
    let len = usize::from(u16::from_be_bytes([len_high, len_low]));
    let message = udp.get(8..len)?;
    let is_query = message.get(2)? & 0x80 == 0;
    (is_query && u16::from_be_bytes([port_high, port_low]) == PORT).then_some(message)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file of this link type with these frames.
    pub(crate) fn file(link: u32, frames: &[Vec<u8>]) -> Vec<u8> {
        let mut file = 0xa1b2_c3d4u32.to_le_bytes().to_vec();
        file.extend_from_slice(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0]);
        file.extend_from_slice(&link.to_le_bytes());
        for frame in frames {
            let len = (frame.len() as u32).to_le_bytes();
            file.extend_from_slice(&[0; 8]);
            file.extend_from_slice(&len);
            file.extend_from_slice(&len);
            file.extend_from_slice(frame);
        }
        file
    }

    pub(crate) fn ipv4(port: u16, message: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17];
        packet.resize(20, 0);
        udp(&mut packet, port, message);
        packet
    }

    fn ipv6(port: u16, message: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, 17, 64];
        packet.resize(40, 0);
        udp(&mut packet, port, message);
        packet
    }

    fn udp(packet: &mut Vec<u8>, port: u16, message: &[u8]) {
        packet.extend_from_slice(&[4, 0]);
        packet.extend_from_slice(&port.to_be_bytes());
        packet.extend_from_slice(&(8 + message.len() as u16).to_be_bytes());
        packet.extend_from_slice(&[0, 0]);
        packet.extend_from_slice(message);
    }

    fn read(file: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let packets = queries(file)?.filter_map(Result::transpose);
        packets.map(|packet| packet.map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn queries_are_found_behind_every_link_header() {
        let message = b"\x01\x02\x01\x00rest".to_vec();
        let ethernet = |kind: &[u8], packet: Vec<u8>| [&[0; 12], kind, &packet].concat();
        let frames = [
            (101, ipv4(53, &message)),
            (101, ipv6(53, &message)),
            (0, [&[2, 0, 0, 0], ipv4(53, &message).as_slice()].concat()),
            (113, [&[0; 16], ipv4(53, &message).as_slice()].concat()),
            (276, [&[0; 20], ipv6(53, &message).as_slice()].concat()),
            (1, ethernet(&[8, 0], ipv4(53, &message))),
            (1, ethernet(&[0x81, 0, 0, 5, 0x86, 0xdd], ipv6(53, &message))),
        ];
        for (link, frame) in frames {
            assert_eq!(read(&file(link, &[frame])), Ok(vec![message.clone()]), "{link}");
        }
    }

    #[test]
    fn what_is_no_query_is_passed_over() {
        let answer = b"\x01\x02\x81\x00rest";
        let query = b"\x01\x02\x01\x00rest";
        let mut fragment = ipv4(53, query);
        fragment[7] = 1;
        let mut tcp = ipv4(53, query);
        tcp[9] = 6;
        let frames = [ipv4(53, answer), ipv4(54, query), fragment, tcp, vec![], vec![0x45]];
        assert_eq!(read(&file(101, &frames)), Ok(vec![]));
    }

    #[test]
    fn other_files_are_named() {
        let mut cut = file(101, &[ipv4(53, b"\x01\x02\x01\x00rest")]);
        cut.pop();
        assert!(read(&cut).expect_err("cut").contains("at byte 24"));
        assert!(read(&file(147, &[])).expect_err("link").contains("147"));
        let pcapng = [&[0x0a, 0x0d, 0x0d, 0x0a][..], &[0; 40]].concat();
        assert!(read(&pcapng).expect_err("pcapng").contains("editcap"));
        assert!(read(b"short").is_err());
        assert!(read(&[7; 64]).is_err());
    }

    proptest! {
        #[test]
        fn no_input_panics(
            link in prop::sample::select(vec![0u32, 1, 101, 113, 276]),
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..5),
            cut in 0usize..200,
        ) {
            let mut bytes = file(link, &frames);
            bytes.truncate(bytes.len().saturating_sub(cut));
            let _ = read(&bytes);
        }
    }
}
