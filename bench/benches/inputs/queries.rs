//! Queries as they come from clients, and packets that only look like queries.

use swiftlet_parser::rr::{Class, Type};

use super::{names, scattered};

/// Flags of a query with nothing but RD.
const RD: u16 = 0x0100;

/// The `number`th query for an A record, with RD and without EDNS.
pub(crate) fn plain(number: u64) -> Vec<u8> {
    query(number, &names::usual(number), RD, 0)
}

/// As [`plain`], with the OPT record that resolver libraries send: 1232 bytes, no options.
pub(crate) fn edns(number: u64) -> Vec<u8> {
    with_opt(query(number, &names::usual(number), RD, 1), &[])
}

/// As [`edns`], with the cookie that dig sends (RFC 7873).
pub(crate) fn cookie(number: u64) -> Vec<u8> {
    let cookie = scattered(number).to_be_bytes();
    with_opt(query(number, &names::usual(number), RD, 1), &[&[0, 10, 0, 8][..], &cookie].concat())
}

/// As [`plain`], with names of 127 to 255 bytes in labels of one byte: as many as there can be.
pub(crate) fn long(number: u64) -> Vec<u8> {
    let labels = 63 + scattered(number) % 65;
    let mut wire: Vec<u8> =
        (0..labels).flat_map(|at| [1, b'a' + (scattered(number ^ at) % 26) as u8]).collect();
    wire.push(0);
    query(number, &wire, RD, 0)
}

/// What is sent to do harm or by mistake: refused by the parser at ten different places.
pub(crate) fn hostile(number: u64) -> Vec<u8> {
    let name = names::usual(number);
    let mut packet = edns(number);
    match scattered(number) % 10 {
        // Cut inside of the header, the name and the OPT record.
        0 => packet.truncate(11),
        1 => packet.truncate(12 + name.len() / 2),
        2 => packet.truncate(packet.len() - 3),
        // A response; a NOTIFY.
        3 => packet[2] |= 0x80,
        4 => packet[2] |= 4 << 3,
        // Two questions; a compression pointer to itself; a label of 64 bytes.
        5 => packet[5] = 2,
        6 => packet[12..14].copy_from_slice(&[0xc0, 12]),
        7 => packet[12] = 64,
        // More additional records than there are; bytes behind the last one.
        8 => packet[11] = 16,
        _ => packet.push(0),
    }
    packet
}

/// A query for the version of the server: answered before the cache is asked.
pub(crate) fn chaos(number: u64) -> Vec<u8> {
    let mut packet = query(number, b"\x07version\x04bind\0", RD, 0);
    let class_at = packet.len() - 2;
    packet[class_at..].copy_from_slice(&3u16.to_be_bytes());
    packet[class_at - 2..class_at].copy_from_slice(&Type::TXT.0.to_be_bytes());
    packet
}

fn query(number: u64, qname: &[u8], flags: u16, additional: u16) -> Vec<u8> {
    let words = [scattered(number) as u16, flags, 1, 0, 0, additional];
    let mut packet: Vec<u8> = words.into_iter().flat_map(u16::to_be_bytes).collect();
    packet.extend(qname);
    packet.extend(Type::A.0.to_be_bytes());
    packet.extend(Class::IN.0.to_be_bytes());
    packet
}

fn with_opt(mut packet: Vec<u8>, options: &[u8]) -> Vec<u8> {
    packet.push(0);
    packet.extend(Type::OPT.0.to_be_bytes());
    packet.extend(1232u16.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend((options.len() as u16).to_be_bytes());
    packet.extend(options);
    packet
}
