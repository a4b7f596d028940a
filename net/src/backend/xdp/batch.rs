//! The frames of one batch, from their arrival to the reply; apart from rings and devices, so that
//! tests and fuzzers drive it as a queue does.
//!
//! Invariant: each frame that comes in with an arrival goes out exactly once, to the free ones or
//! with a reply.

use super::frame::{self, Datagram, Local, Reject};
use crate::backend::{Packet, Received};
use crate::route::Route;
use crate::sys::umem::{Frame, Umem};
use crate::sys::xsk::Segment;

/// A batch; empty between [`finish`](Self::finish) and [`take`](Self::take).
pub(super) struct Batch {
    packets: Vec<Pending>,
    /// How many of them were handed on.
    lent: usize,
}

/// A datagram that was not yet replied to.
struct Pending {
    segment: Segment,
    datagram: Datagram,
    route: Route,
    /// Bytes of the longest packet that goes back.
    mtu: u32,
    /// Length of the reply's payload; 0 for none.
    reply: usize,
}

impl Batch {
    /// Room for so many datagrams.
    pub(super) fn new(len: usize) -> Self {
        Self { packets: Vec::with_capacity(len), lent: 0 }
    }

    /// Frames that it holds.
    pub(super) fn held(&self) -> usize {
        self.packets.len()
    }

    /// Takes in what arrived. Frames that are no good are counted and free again, and so are those that
    /// are longer than a reply may be.
    pub(super) fn take(
        &mut self,
        arrivals: &mut Vec<Segment>,
        umem: &Umem,
        destinations: &mut Destinations,
        free: &mut Vec<Frame>,
    ) -> Received {
        let mut report = Received::default();
        for segment in arrivals.drain(..) {
            let bytes = part(umem.bytes(&segment.frame), &segment);
            let found = frame::parse(bytes).and_then(|datagram| {
                // The filter sends nothing else.
                let to = destinations.find(datagram.local(bytes)).ok_or(Reject::Malformed)?;
                let route = datagram.route(bytes, to.listener, to.wildcard, to.interface);
                Ok((datagram, route, to.mtu))
            });
            let capacity = umem.frame_len().saturating_sub(segment.start.into());
            match found {
                Ok((datagram, _, mtu))
                    if datagram.payload().len() > datagram.room(mtu as usize, capacity) =>
                {
                    report.oversize += 1;
                }
                Ok((datagram, route, mtu)) => {
                    self.packets.push(Pending { segment, datagram, route, mtu, reply: 0 });
                    report.packets += 1;
                    continue;
                }
                Err(Reject::Malformed) => report.malformed += 1,
                Err(Reject::Corrupt) => report.corrupt += 1,
                Err(Reject::Unanswerable) => report.dropped += 1,
            }
            free.push(segment.frame);
        }
        report
    }

    /// Lends the packets one after the other.
    pub(super) fn next<'b>(&'b mut self, umem: &'b mut Umem) -> Option<Packet<'b>> {
        let pending = self.packets.get_mut(self.lent)?;
        self.lent += 1;
        let Pending { segment, datagram, route, mtu, reply } = pending;
        let bytes = umem.bytes_mut(&mut segment.frame).get_mut(segment.start.into()..)?;
        let payload = datagram.payload();
        let room = datagram.room(*mtu as usize, bytes.len());
        let buf = bytes.get_mut(payload.start..payload.start + room)?;
        Some(Packet::new(buf, payload.len(), *route, reply))
    }

    /// The datagram that [`next`](Self::next) will lend after `at` others.
    pub(super) fn peek<'b>(&'b self, at: usize, umem: &'b Umem) -> Option<&'b [u8]> {
        let Pending { segment, datagram, .. } = self.packets.get(self.lent + at)?;
        part(umem.bytes(&segment.frame), segment).get(datagram.payload())
    }

    /// Ends the batch without any reply.
    pub(super) fn forget(&mut self, free: &mut Vec<Frame>) {
        self.lent = 0;
        free.extend(self.packets.drain(..).map(|pending| pending.segment.frame));
    }

    /// Ends the batch: what was replied to goes to `replies`, finished, all other frames to the free
    /// ones. `id` gives identifications for packets that may be cut into fragments on their way.
    pub(super) fn finish(
        &mut self,
        umem: &mut Umem,
        free: &mut Vec<Frame>,
        replies: &mut Vec<Segment>,
        mut id: impl FnMut() -> u16,
    ) {
        self.lent = 0;
        for Pending { mut segment, datagram, reply, .. } in self.packets.drain(..) {
            if reply == 0 {
                free.push(segment.frame);
                continue;
            }
            let bytes = &mut umem.bytes_mut(&mut segment.frame)[segment.start.into()..];
            segment.len = datagram.finish(bytes, reply, id()) as u16;
            replies.push(segment);
        }
    }
}

/// The part of a frame that arrived.
fn part<'b>(bytes: &'b [u8], segment: &Segment) -> &'b [u8] {
    let start = usize::from(segment.start);
    bytes.get(start..start + usize::from(segment.len)).unwrap_or_default()
}

/// The addresses whose queries come to one interface, and where each belongs.
pub(super) struct Destinations {
    all: Box<[(Local, Destination)]>,
    /// The one found last: mostly it is the next one's too.
    last: usize,
}

/// Where queries to one address belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// The listener, by index.
    pub(super) listener: u16,
    /// The listener is bound to a wildcard.
    pub(super) wildcard: bool,
    /// The interface that has the address; for a tagged frame not the one it came by.
    pub(super) interface: u32,
    /// Bytes of the longest packet that goes back, without its Ethernet header.
    pub(super) mtu: u32,
}

impl Destinations {
    /// Of two with one address, the first counts.
    pub(super) fn new(all: impl IntoIterator<Item = (Local, Destination)>) -> Self {
        Self { all: all.into_iter().collect(), last: 0 }
    }

    fn find(&mut self, local: Local) -> Option<Destination> {
        match self.all.get(self.last) {
            Some((last, destination)) if *last == local => Some(*destination),
            _ => {
                self.last = self.all.iter().position(|(other, _)| *other == local)?;
                Some(self.all[self.last].1)
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::backend::xdp::checksum::{fold, sum};

    const HEADERS: usize = 42;

    /// A query over IPv4 from 192.0.2.1:1234 to 192.0.2.2:53, without a UDP checksum.
    pub(in crate::backend::xdp) fn query(payload: &[u8]) -> Vec<u8> {
        let [udp, ip] = [8, 28].map(|headers| ((headers + payload.len()) as u16).to_be_bytes());
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        frame.extend([0x45, 0, ip[0], ip[1], 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        set_checksum(&mut frame[14..34]);
        frame.extend([0x04, 0xd2, 0, 53, udp[0], udp[1], 0, 0]);
        frame.extend(payload);
        frame
    }

    /// Makes the checksum of an IPv4 header right.
    pub(in crate::backend::xdp) fn set_checksum(header: &mut [u8]) {
        header[10..12].fill(0);
        let checksum = !fold(sum(header));
        header[10..12].copy_from_slice(&checksum.to_ne_bytes());
    }

    struct Rig {
        umem: Umem,
        free: Vec<Frame>,
        batch: Batch,
        destinations: Destinations,
        count: usize,
    }

    impl Rig {
        fn new(count: u32) -> Self {
            let (umem, free) = Umem::new(2048, count).unwrap();
            let local = Local::new(None, "192.0.2.2".parse().unwrap(), 53);
            let destination = Destination { listener: 3, wildcard: true, interface: 7, mtu: 1500 };
            let destinations = Destinations::new([(local, destination)]);
            Self { umem, free, batch: Batch::new(4), destinations, count: count as usize }
        }

        fn take(&mut self, frames: &[Vec<u8>]) -> Received {
            let arrive = |bytes: &Vec<u8>| {
                let mut frame = self.free.pop().expect("a free frame");
                self.umem.bytes_mut(&mut frame)[256..256 + bytes.len()].copy_from_slice(bytes);
                Segment { frame, start: 256, len: bytes.len() as u16 }
            };
            let mut arrivals = frames.iter().map(arrive).collect();
            let Self { batch, umem, destinations, free, .. } = self;
            let received = batch.take(&mut arrivals, umem, destinations, free);
            assert_eq!(self.free.len() + self.batch.held(), self.count);
            received
        }

        /// The replies, whose frames are free again.
        fn finish(&mut self) -> Vec<Vec<u8>> {
            let mut replies = Vec::new();
            self.batch.finish(&mut self.umem, &mut self.free, &mut replies, || 7);
            assert_eq!((self.free.len() + replies.len(), self.batch.held()), (self.count, 0));
            let bytes = replies
                .iter()
                .map(|segment| part(self.umem.bytes(&segment.frame), segment).to_vec());
            let bytes = bytes.collect();
            self.free.extend(replies.into_iter().map(|segment| segment.frame));
            bytes
        }
    }

    #[test]
    fn replies_go_back_in_the_frame_of_their_query() {
        let mut rig = Rig::new(4);
        let received = rig.take(&[query(b"one"), query(b""), query(b"three")]);
        assert_eq!(received, Received { packets: 3, ..Received::default() });
        assert_eq!(rig.batch.peek(2, &rig.umem), Some(&b"three"[..]));
        let packet = rig.batch.next(&mut rig.umem).unwrap();
        assert_eq!((packet.len, packet.buf.len()), (3, 1500 - 28));
        assert_eq!(packet.route.peer(), "192.0.2.1:1234".parse().unwrap());
        assert_eq!(packet.route.local(), Some("192.0.2.2".parse().unwrap()));
        assert_eq!((packet.route.listener, packet.route.interface()), (3, 7));
        packet.buf[..4].copy_from_slice(b"eins");
        packet.reply(4);
        // Without a reply, and never handed on.
        assert_eq!(rig.batch.next(&mut rig.umem).unwrap().len, 0);
        assert_eq!(rig.batch.peek(0, &rig.umem), Some(&b"three"[..]));

        let [reply] = &rig.finish()[..] else { panic!("one reply") };
        assert_eq!(reply[HEADERS..], *b"eins");
        assert_eq!(reply[26..34], [192, 0, 2, 2, 192, 0, 2, 1]);
        assert!(rig.batch.next(&mut rig.umem).is_none());
    }

    #[test]
    fn frames_that_are_no_good_are_counted_and_free_again() {
        let mut rig = Rig::new(8);
        let spoiled = |at: usize, value| {
            let mut frame = query(b"x");
            frame[at] = value;
            frame
        };
        let other_port = spoiled(37, 54);
        let too_long = query(&[7; 1473]);
        let frames = [
            too_long,
            vec![],
            spoiled(12, 9),
            spoiled(22, 65),
            spoiled(39, 200),
            other_port,
            query(b"ok"),
        ];
        let received = rig.take(&frames);
        let expected =
            Received { packets: 1, oversize: 1, malformed: 4, corrupt: 1, ..Received::default() };
        assert_eq!(received, expected);
        assert_eq!(rig.batch.next(&mut rig.umem).unwrap().len, 2);
        rig.batch.forget(&mut rig.free);
        assert_eq!(rig.free.len(), 8);
    }
}
