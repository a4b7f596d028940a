//! Datagrams to one peer that go through the kernel's stack together (UDP_SEGMENT, Linux 4.18).
//!
//! Those of one length become one message, which the kernel cuts up again where it must: at the
//! network card, or on loopback at the receiver's socket, which gets each by itself. So most of what
//! sending costs is paid once per message. The batch is sorted by length for that; the order among
//! equals stays.
#![expect(unsafe_code, reason = "the message headers hold raw pointers, and the call takes them")]

use std::io;
use std::mem::{self, offset_of};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use libc::{c_uint, iovec, mmsghdr};

use super::region::{Plain, Region};

/// The most datagrams in one message (UDP_MAX_SEGMENTS, 128 from Linux 6.9 on).
const SEGMENTS_MAX: usize = 64;

/// The most bytes in one message, below what the longest datagram over IPv4 holds.
const MESSAGE_MAX: usize = 65_000;

/// The control message with the length of each datagram.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    segment_len: u16,
}

// SAFETY: a C structure of integers, and one.
unsafe impl Plain for Control {}

/// A batch for a connected socket: filled, sent, and emptied.
///
/// Invariant: the iovecs lead to the batch's own slots and hold at most `slot_len` bytes for each
/// slot that they cover; headers lead to a part of the iovecs and to a control message or to none.
pub struct Segments {
    headers: Vec<mmsghdr>,
    iovecs: Region<iovec>,
    controls: Region<Control>,
    buffers: Region<u8>,
    slot_len: usize,
    /// The length of each datagram and its slot; sorted by length when planned.
    order: Vec<(usize, usize)>,
    /// How many of the order each header sends.
    counts: Vec<usize>,
    /// Headers that were sent, and what they hold.
    sent: (usize, usize),
    is_planned: bool,
    is_apart: bool,
}

// SAFETY: all its pointers lead into memory that the batch alone owns.
unsafe impl Send for Segments {}

impl Segments {
    /// For `slots` datagrams (at most [`BATCH_MAX`](super::client::BATCH_MAX)) of at most `slot_len`
    /// bytes. If `is_apart`, each is a message of its own.
    #[must_use]
    pub fn new(slots: usize, slot_len: usize, is_apart: bool) -> Self {
        assert!((1..=super::client::BATCH_MAX).contains(&slots), "no batch of {slots}");
        assert!((1..=MESSAGE_MAX).contains(&slot_len), "no datagrams of {slot_len} bytes");
        // SAFETY: a plain C structure for which zeroes are valid.
        let header: mmsghdr = unsafe { mem::zeroed() };
        Self {
            headers: vec![header; slots],
            iovecs: Region::new(slots),
            controls: Region::new(slots),
            buffers: Region::new(slots * slot_len),
            slot_len,
            order: Vec::with_capacity(slots),
            counts: Vec::with_capacity(slots),
            sent: (0, 0),
            is_planned: false,
            is_apart,
        }
    }

    /// Datagrams in the batch, sent or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Empties the batch.
    pub fn clear(&mut self) {
        self.order.clear();
        self.sent = (0, 0);
        self.is_planned = false;
    }

    /// Appends a datagram: `fill` writes it into the slot it is given and returns its length. False,
    /// and `fill` isn't called, when the batch is full or has been sent in part.
    pub fn push(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> bool {
        let slot = self.order.len();
        if slot == self.headers.len() || self.is_planned {
            return false;
        }
        let at = slot * self.slot_len;
        let len = fill(&mut self.buffers.values_mut()[at..at + self.slot_len]);
        self.order.push((len.min(self.slot_len), slot));
        true
    }

    /// The datagrams that have not been sent.
    pub fn unsent(&self) -> impl Iterator<Item = &[u8]> {
        let buffers = self.buffers.values();
        self.order[self.sent.1..].iter().map(|&(len, slot)| &buffers[slot * self.slot_len..][..len])
    }

    /// Sends what has not been sent, in one call, and returns how many datagrams the kernel took.
    /// An error is about the first of them. Where the system or the route does not cut up messages,
    /// each datagram is sent by itself from then on.
    pub fn send(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        match self.sendmmsg(socket) {
            Err(error) if self.is_together() && is_about_segments(&error) => {
                self.is_apart = true;
                self.is_planned = false;
                self.sendmmsg(socket)
            }
            other => other,
        }
    }

    /// Whether the next message holds more than one datagram.
    fn is_together(&self) -> bool {
        self.counts.get(self.sent.0).is_some_and(|&count| count > 1)
    }

    fn sendmmsg(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        if !self.is_planned {
            self.plan();
        }
        let Some(headers) =
            self.headers[..self.counts.len()].get_mut(self.sent.0..).filter(|h| !h.is_empty())
        else {
            return Ok(0);
        };
        // SAFETY: pointer and length describe a part of the headers, each of which leads to iovecs
        // and a control message of the batch's own (the type's invariant), not borrowed now.
        let accepted = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), headers.len() as c_uint, 0)
        };
        let accepted = usize::try_from(accepted).map_err(|_| io::Error::last_os_error())?;
        let first = self.sent.0;
        let datagrams = self.counts[first..first + accepted].iter().sum();
        self.sent.0 += accepted;
        self.sent.1 += datagrams;
        Ok(datagrams)
    }

    /// Makes messages of what has not been sent.
    fn plan(&mut self) {
        self.counts.clear();
        self.sent.0 = 0;
        let left = &mut self.order[self.sent.1..];
        if !self.is_apart && !left.is_sorted_by_key(|&(len, _)| len) {
            left.sort_by_key(|&(len, _)| len);
        }
        let mut filled = 0;
        let mut rest = &*left;
        while let Some(&(len, _)) = rest.first() {
            let most = match self.is_apart {
                true => 1,
                false => SEGMENTS_MAX.min(MESSAGE_MAX / len.max(1)),
            };
            let count = rest.iter().take(most).take_while(|&&(other, _)| other == len).count();
            let (message, after) = rest.split_at(count);
            let first_iovec = filled;
            let mut expected = None;
            for &(_, slot) in message {
                // Slots that are filled to the end are one piece of memory with the next.
                if expected == Some(slot) && len == self.slot_len {
                    self.iovecs.values_mut()[filled - 1].iov_len += len;
                } else {
                    let base = self.buffers.at(slot * self.slot_len).as_ptr().cast();
                    self.iovecs.values_mut()[filled] = iovec { iov_base: base, iov_len: len };
                    filled += 1;
                }
                expected = Some(slot + 1);
            }
            let number = self.counts.len();
            let header = &mut self.headers[number].msg_hdr;
            header.msg_iov = self.iovecs.at(first_iovec).as_ptr();
            header.msg_iovlen = (filled - first_iovec) as _;
            (header.msg_control, header.msg_controllen) = (std::ptr::null_mut(), 0);
            if count > 1 {
                let control = &mut self.controls.values_mut()[number];
                control.header.cmsg_len = (offset_of!(Control, segment_len) + 2) as _;
                control.header.cmsg_level = libc::SOL_UDP;
                control.header.cmsg_type = libc::UDP_SEGMENT;
                control.segment_len = len as u16;
                header.msg_control = self.controls.at(number).as_ptr().cast();
                header.msg_controllen = size_of::<Control>() as _;
            }
            self.counts.push(count);
            rest = after;
        }
        self.is_planned = true;
    }
}

/// What udp_send_skb (net/ipv4/udp.c) says of a message it can't cut up: the device lacks checksums,
/// the pieces don't fit the path, or the kernel doesn't know the option.
fn is_about_segments(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{connect, listen};

    /// Sends datagrams of these lengths, each filled with its number, and returns what arrives.
    fn through(lens: &[usize], slot_len: usize, is_apart: bool) -> Vec<Vec<u8>> {
        let server = listen(([127, 0, 0, 1], 0).into(), 1 << 20).expect("a loopback socket");
        let client = connect(server.local_addr().expect("bound")).expect("a loopback socket");
        let mut batch = Segments::new(lens.len(), slot_len, is_apart);
        for (number, &len) in lens.iter().enumerate() {
            assert!(batch.push(|slot| {
                slot[..len].fill(number as u8);
                len
            }));
        }
        assert!(!batch.push(|_| 1), "the batch is full");
        let mut sent = 0;
        while sent < lens.len() {
            assert_eq!(batch.unsent().count(), lens.len() - sent);
            sent += batch.send(&client).expect("sent");
        }
        assert_eq!((batch.unsent().count(), batch.send(&client).expect("nothing left")), (0, 0));
        batch.clear();
        assert!(batch.is_empty() && batch.push(|_| 1));
        let mut buf = vec![0; 2 * slot_len];
        let mut receive = || {
            let len = server.recv(&mut buf).expect("received");
            buf[..len].to_vec()
        };
        (0..lens.len()).map(|_| receive()).collect()
    }

    #[test]
    fn each_datagram_arrives_by_itself() {
        let mixed: Vec<usize> = (0..64).map(|number| 20 + number % 5).collect();
        for (lens, slot_len) in [(mixed, 30), (vec![24; 64], 24), (vec![7; 200], 7), (vec![9], 9)] {
            for is_apart in [false, true] {
                let mut arrived = through(&lens, slot_len, is_apart);
                if is_apart {
                    assert!(arrived.iter().map(Vec::len).eq(lens.iter().copied()), "in order");
                }
                arrived.sort_by_key(|datagram| datagram[0]);
                for (number, datagram) in arrived.iter().enumerate() {
                    assert_eq!(datagram, &vec![number as u8; lens[number]]);
                }
            }
        }
    }

    #[test]
    fn long_ones_share_fewer_messages() {
        let arrived = through(&[1400; 100], 1400, false);
        assert!(arrived.iter().zip(0..).all(|(datagram, number)| datagram[..] == [number; 1400]));
    }
}
