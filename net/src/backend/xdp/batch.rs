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

    /// Takes in what arrived. Frames that are no good are counted and free again.
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
                Ok((datagram, datagram.route(bytes, to.listener, to.wildcard, to.interface)))
            });
            match found {
                Ok((datagram, route)) => {
                    self.packets.push(Pending { segment, datagram, route, reply: 0 });
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

    /// Lends the packets one after the other. A reply's packet is at most `mtu` bytes long.
    pub(super) fn next<'b>(&'b mut self, umem: &'b mut Umem, mtu: usize) -> Option<Packet<'b>> {
        let pending = self.packets.get_mut(self.lent)?;
        self.lent += 1;
        let Pending { segment, datagram, route, reply } = pending;
        let bytes = umem.bytes_mut(&mut segment.frame).get_mut(segment.start.into()..)?;
        let payload = datagram.payload();
        let room = datagram.room(mtu, bytes.len());
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
