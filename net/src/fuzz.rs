//! What every fuzz target calls: each function takes any bytes and asserts what must hold for them.
//!
//! They are ordinary functions so that the same assertions run three ways: under libFuzzer
//! (`net/fuzz`), over the committed corpus in a plain test, and over mutations of it
//! (`net/tests/fuzz_entry_points.rs`). Nothing of the program calls them; a panic here is a finding.

use std::net::IpAddr;

use crate::backend::xdp::frame::{Datagram, HEADERS_MAX, Local, Reject, parse};

/// Bytes of the memory that a frame of the fuzzer stands in, and of the packets that its interface
/// carries.
const CHUNK: usize = 2048;
const MTU: usize = 1500;

/// Reads a frame as it is, and with its checksums made right: no fuzzer guesses those. A query is
/// answered with payloads of several lengths.
///
/// # Panics
/// If a query is not within its frame, or a reply is not one to its peer.
pub fn frame(data: &[u8]) {
    read(data);
    let mut corrected = data.to_vec();
    correct(&mut corrected);
    read(&corrected);
}

fn read(data: &[u8]) {
    let Ok(datagram) = parse(data) else {
        return;
    };
    let payload = datagram.payload();
    assert!(payload.start <= HEADERS_MAX && payload.end <= data.len());
    for len in 0..payload.end {
        assert_eq!(parse(&data[..len]), Err(Reject::Malformed), "cut at {len}");
    }
    let mut chunk = data.to_vec();
    chunk.resize(CHUNK.max(data.len()), 0xa5);
    let room = datagram.room(MTU, chunk.len());
    assert!(payload.start + room <= chunk.len());
    for len in [0, 1, payload.len(), room] {
        if len <= room {
            answer(&datagram, data, &mut chunk.clone(), len);
        }
    }
    let untouched = chunk.clone();
    assert_eq!(datagram.finish(&mut chunk, untouched.len() - payload.start + 1, 7), 0);
    assert_eq!(chunk, untouched, "a reply without room leaves the frame as it is");
}

/// Answers with so many bytes of what is in the chunk, and reads the reply as its peer does.
fn answer(datagram: &Datagram, query: &[u8], chunk: &mut [u8], len: usize) {
    let start = datagram.payload().start;
    let before = chunk.to_vec();
    let end = datagram.finish(chunk, len, 0x4711);
    assert_eq!(end, start + len);
    assert_eq!(chunk[start..], before[start..], "only headers are written");
    let reply = &chunk[..end];
    assert_eq!([&reply[6..12], &reply[..6]].concat(), query[..12], "MACs have changed places");

    let route = datagram.route(query, 0, true, 0);
    let asked = route.local().expect("the address of a wildcard's query");
    let reply = match parse(reply) {
        Ok(reply) => reply,
        Err(reject) => {
            // What came to a group, or from the MAC of one, was none of the filter's.
            let nowhere = !is_unicast(asked) || query[0] & 1 == 1 || asks_port_0(datagram, query);
            assert!(reject == Reject::Unanswerable && nowhere, "{reject:?}: {route:?}");
            return;
        }
    };
    assert_eq!(reply.payload(), start..end);
    let back = reply.route(chunk, 0, true, 0);
    assert_eq!((back.peer_ip(), back.local()), (asked, Some(route.peer_ip())));
    let vlan = (start - 8 - headers(asked) > 14)
        .then(|| u16::from_be_bytes([query[14], query[15]]) & 0x0fff);
    assert_eq!(datagram.local(query), Local::new(vlan, asked, back.port()));
    assert_eq!(reply.local(chunk), Local::new(vlan, route.peer_ip(), route.port()));
}

/// Bytes of the IP header in front of a datagram to this address.
fn headers(address: IpAddr) -> usize {
    if address.is_ipv4() { 20 } else { 40 }
}

fn asks_port_0(datagram: &Datagram, query: &[u8]) -> bool {
    let port = datagram.payload().start - 6;
    query[port..port + 2] == [0, 0]
}

/// Whether one host may have this address on a wire.
fn is_unicast(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(address) => address.is_broadcast(),
        IpAddr::V6(address) => address.to_ipv4_mapped().is_some(),
    };
    !(special || address.is_unspecified() || address.is_multicast() || address.is_loopback())
}

/// Makes the checksums of a frame right as far as it can be read as one: that of an IPv4 header, and
/// that of UDP over either family where the lengths allow it.
fn correct(frame: &mut [u8]) {
    let packet = if frame.get(12..14) == Some(&[0x81, 0]) { 18 } else { 14 };
    let (addresses, udp) = match frame.get(packet).map(|first| first >> 4) {
        Some(4) => (packet + 12, packet + 20),
        Some(6) => (packet + 8, packet + 40),
        _ => return,
    };
    if frame.len() < udp + 8 {
        return;
    }
    if udp == packet + 20 {
        set(frame, packet + 10, 0);
        let checksum = !sum(&frame[packet..udp]);
        set(frame, packet + 10, checksum);
    }
    let len = u16::from_be_bytes([frame[udp + 4], frame[udp + 5]]);
    let end = udp + usize::from(len);
    if len < 8 || end > frame.len() {
        return;
    }
    set(frame, udp + 6, 0);
    let mut covered = [&[0, 17], &frame[udp + 4..udp + 6]].concat();
    covered.extend(&frame[addresses..end]);
    set(frame, udp + 6, !sum(&covered));
}

fn set(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

/// The Internet checksum's sum, as RFC 1071 words it.
fn sum(bytes: &[u8]) -> u16 {
    let mut total = 0u32;
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}
