//! What every fuzz target calls: each function takes any bytes and asserts what must hold for them.
//!
//! They are ordinary functions so that the same assertions run three ways: under libFuzzer
//! (`net/fuzz`), over the committed corpus in a plain test, and over mutations of it
//! (`net/tests/fuzz_entry_points.rs`). Nothing of the program calls them; a panic here is a finding.

use std::net::IpAddr;

use super::batch::{Batch, Destination, Destinations};
use super::frame::{Datagram, HEADERS_MAX, Local, Reject, parse};
use crate::sys::umem::{Frame, Umem};
use crate::sys::xsk::Segment;

/// Bytes of the memory that a frame of the fuzzer stands in, and of the packets that its interface
/// carries.
const CHUNK: usize = 2048;
const MTU: usize = 1500;

/// Chunks of a [`batch`], and how many of them arrive at once at most.
const CHUNKS: usize = 8;
const ARRIVALS: usize = 5;

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
            assert!(nowhere && reject == Reject::Unanswerable, "{reject:?}: {route:?}");
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

/// Plays a queue and its worker: each step is a byte that says which, and what it takes.
///
/// # Panics
/// If a frame of the memory is lost or comes back twice, or a reply is not one.
pub fn batch(data: &[u8]) {
    let mut steps = Steps(data);
    let mut play = Play::new();
    while let Some(step) = steps.byte() {
        match step % 8 {
            0 | 1 => play.arrive(&mut steps, step % 8 == 1),
            2 => play.take(),
            3 | 4 => play.lend(steps.word().into()),
            5 => play.peek(),
            6 => play.finish(),
            _ => play.forget(),
        }
        play.check();
    }
    play.forget();
    play.check();
    assert_eq!(play.free.len() + play.arrivals.len(), CHUNKS);
}

/// What is left of the input.
struct Steps<'d>(&'d [u8]);

impl<'d> Steps<'d> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// 0 at the end.
    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte().unwrap_or(0), self.byte().unwrap_or(0)])
    }

    /// As many as are there.
    fn bytes(&mut self, len: usize) -> &'d [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

/// A queue without a device.
struct Play {
    umem: Umem,
    free: Vec<Frame>,
    arrivals: Vec<Segment>,
    destinations: Destinations,
    batch: Batch,
    /// Packets of the batch that were not handed on yet, and replies that were asked for.
    waiting: usize,
    replied: usize,
}

impl Play {
    fn new() -> Self {
        let (umem, free) = Umem::new(CHUNK, CHUNKS as u32).expect("16 KiB of memory");
        let destination =
            |listener| Destination { listener, wildcard: true, interface: 3, mtu: MTU as u32 };
        let at = |vlan, address: &str| Local::new(vlan, address.parse().expect("an address"), 53);
        let destinations = Destinations::new([
            (at(None, "192.0.2.1"), destination(0)),
            (at(None, "2001:db8::1"), destination(1)),
            (at(Some(7), "192.0.2.1"), destination(2)),
        ]);
        let (arrivals, batch) = (Vec::new(), Batch::new(ARRIVALS));
        Self { umem, free, arrivals, destinations, batch, waiting: 0, replied: 0 }
    }

    /// A frame comes in: where it starts, how many bytes too many it claims to have, and its bytes.
    fn arrive(&mut self, steps: &mut Steps<'_>, corrected: bool) {
        let (start, lie) = (steps.word(), steps.byte().unwrap_or(0));
        let len = usize::from(steps.word());
        let mut bytes = steps.bytes(len).to_vec();
        if corrected {
            correct(&mut bytes);
        }
        if self.arrivals.len() == ARRIVALS {
            return;
        }
        let Some(mut frame) = self.free.pop() else {
            return;
        };
        let room = self.umem.bytes_mut(&mut frame).get_mut(start.into()..).unwrap_or_default();
        let len = bytes.len().min(room.len());
        room[..len].copy_from_slice(&bytes[..len]);
        self.arrivals.push(Segment { frame, start, len: (len as u16).saturating_add(lie.into()) });
    }

    fn take(&mut self) {
        self.forget();
        let arrived = self.arrivals.len();
        let Self { umem, free, arrivals, destinations, batch, .. } = self;
        let received = batch.take(arrivals, umem, destinations, free);
        assert_eq!((received.taken(), self.arrivals.len()), (arrived, 0));
        assert_eq!(self.batch.held(), received.packets);
        self.waiting = received.packets;
    }

    /// Takes the next packet, and answers with so many bytes.
    fn lend(&mut self, reply: usize) {
        let packet = self.batch.next(&mut self.umem);
        assert_eq!(packet.is_some(), self.waiting > 0, "every packet is handed on once");
        let Some(packet) = packet else {
            return;
        };
        self.waiting -= 1;
        assert!(packet.buf.len() <= MTU && packet.len <= packet.buf.len());
        packet.buf.fill(0x5a);
        self.replied += usize::from(reply.min(packet.buf.len()) > 0);
        packet.reply(reply);
    }

    fn peek(&self) {
        for at in 0..=ARRIVALS {
            assert_eq!(self.batch.peek(at, &self.umem).is_some(), at < self.waiting);
        }
    }

    fn finish(&mut self) {
        let mut replies = Vec::new();
        self.batch.finish(&mut self.umem, &mut self.free, &mut replies, || 7);
        assert_eq!(replies.len(), self.replied);
        for Segment { frame, start, len } in replies {
            let start = usize::from(start);
            let reply = &self.umem.bytes(&frame)[start..start + usize::from(len)];
            match parse(reply) {
                Ok(datagram) => assert_eq!(datagram.payload().end, reply.len()),
                // Only the filter knows that no frame comes for a group of MACs.
                Err(reject) => assert!(reject == Reject::Unanswerable && reply[6] & 1 == 1),
            }
            self.free.push(frame);
        }
        (self.waiting, self.replied) = (0, 0);
    }

    fn forget(&mut self) {
        self.batch.forget(&mut self.free);
        (self.waiting, self.replied) = (0, 0);
    }

    /// No frame is lost, and none is in two places.
    fn check(&self) {
        let (free, held) = (self.free.len(), self.batch.held());
        assert_eq!(free + self.arrivals.len() + held, CHUNKS);
        let arrived = self.arrivals.iter().map(|segment| &segment.frame);
        let mut seen: Vec<&Frame> = self.free.iter().chain(arrived).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), CHUNKS - held);
    }
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
