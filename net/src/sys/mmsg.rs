//! Prebuilt messages for recvmmsg(2) and sendmmsg(2).
//!
//! A message is a header, a side (its iovec and the peer's address), a slot (the bytes) and, for
//! wildcard sockets, a control area. They are tied together once, at creation; afterwards a header
//! only changes its place among the others, so that replies can be moved next to each other without
//! touching what they point to. A position is therefore a place in the order, not a piece of
//! memory.
//!
//! Cost per datagram in user space: one line of header, one of side, the lines of the bytes
//! themselves, and one of control on wildcard sockets. A move swaps two header lines.
#![expect(
    unsafe_code,
    reason = "recvmmsg(2), sendmmsg(2), and memory that the kernel reaches through their headers"
)]

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{NonNull, null_mut};
use std::slice;

use libc::{c_uint, iovec, mmsghdr};

use super::cmsg::{self, CONTROL_LEN, Control};
use super::region::{Plain, Region};
use super::sockaddr::{self, NAME_LEN, NAME_LEN_V4, Name};
use crate::backend::SLOT_LEN;
use crate::route::Route;

/// A set of messages whose order is free and whose memory is fixed.
///
/// Invariant: every header points to one side, slot and control area of the regions below, and no
/// two headers to the same; `iov_len` is at most [`SLOT_LEN`], `msg_namelen` at most [`NAME_LEN`],
/// `msg_controllen` at most the area.
pub(crate) struct Messages {
    headers: Box<[Header]>,
    /// What a header is reset to: 0 if no socket asks for control messages.
    control_len: usize,
    // Only reached through the headers; kept to be freed.
    _sides: Region<Side>,
    _slots: Region<Slot>,
    _controls: Region<Control>,
}

/// A message header filling exactly one cache line, so that neither kernel nor user touches two for
/// one datagram.
#[repr(C, align(64))]
struct Header(mmsghdr);

const _: () = assert!(
    size_of::<Header>() == size_of::<mmsghdr>(),
    "the kernel steps through an array of mmsghdr"
);

#[repr(C, align(64))]
struct Side {
    iov: iovec,
    name: Name,
}

// SAFETY: an iovec, whose pointer is set before it is followed and never by the kernel, and bytes.
unsafe impl Plain for Side {}

/// The bytes of a datagram, and one line more: slots exactly one page apart would all begin in the
/// same cache set.
#[repr(C, align(64))]
struct Slot {
    bytes: [u8; SLOT_LEN],
    spread: [u8; 64],
}

// SAFETY: bytes.
unsafe impl Plain for Slot {}

// SAFETY: bytes.
unsafe impl Plain for Control {}

/// What the kernel says about one received datagram before its bytes are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It can be handed on.
    Good,
    /// It came from port 0 or from nowhere: no answer can reach it.
    Unanswerable,
    /// It was longer than its slot.
    Oversize,
}

impl Verdict {
    /// Judges by the length of the sender's name, the name, and the flags of the message.
    #[inline]
    pub(crate) fn of(name_len: usize, name: &Name, flags: libc::c_int) -> Self {
        if name_len < NAME_LEN_V4 || sockaddr::port(name) == 0 {
            Self::Unanswerable
        } else if flags & libc::MSG_TRUNC != 0 {
            Self::Oversize
        } else {
            Self::Good
        }
    }
}

impl Messages {
    /// Builds `count` messages, ready to receive; with control areas if some socket will use them.
    pub(crate) fn new(count: usize, control: bool) -> Self {
        let sides = Region::<Side>::new(count);
        let slots = Region::<Slot>::new(count);
        let controls = Region::<Control>::new(if control { count } else { 0 });
        let headers = (0..count).map(|at| {
            let control = if control { controls.at(at).as_ptr().cast() } else { null_mut() };
            header(sides.at(at), slots.at(at), control)
        });
        let control_len = if control { CONTROL_LEN } else { 0 };
        let mut messages = Self {
            headers: headers.collect(),
            control_len,
            _sides: sides,
            _slots: slots,
            _controls: controls,
        };
        messages.reset(0..count);
        messages
    }

    /// Makes messages ready to receive into again.
    pub(crate) fn reset(&mut self, range: Range<usize>) {
        for at in range {
            let control_len = self.control_len;
            let header = &mut self.headers[at].0.msg_hdr;
            header.msg_namelen = NAME_LEN as _;
            header.msg_controllen = control_len as _;
            self.side(at).iov.iov_len = SLOT_LEN;
        }
    }

    /// Receives into the first messages, which must be reset, as many datagrams as there are, at
    /// most `max`.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, max: usize) -> io::Result<usize> {
        let headers = &mut self.headers[..max];
        let (first, count) = (headers.as_mut_ptr().cast::<mmsghdr>(), headers.len() as c_uint);
        // SAFETY: `first` starts `count` headers (`Header` is laid out as mmsghdr), each pointing
        // to memory of its own that lives as long as `self`, is not borrowed now, and is as long as
        // the header says (the type's invariant).
        let received = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), first, count, libc::MSG_DONTWAIT as _, null_mut())
        };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// Sends the messages of a range in their order until the kernel takes no more, and returns how
    /// many it took. An error concerns the first of them.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        range: Range<usize>,
    ) -> io::Result<usize> {
        let headers = &mut self.headers[range];
        let (first, count) = (headers.as_mut_ptr().cast::<mmsghdr>(), headers.len() as c_uint);
        // SAFETY: as in `receive`; the kernel reads what the headers point to and writes `msg_len`.
        let sent =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), first, count, libc::MSG_DONTWAIT as _) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Judges a received message by what the kernel wrote into header and address.
    pub(crate) fn verdict(&mut self, at: usize) -> Verdict {
        let header = &self.headers[at].0.msg_hdr;
        let (name_len, flags) = (header.msg_namelen as usize, header.msg_flags);
        Verdict::of(name_len, &self.side(at).name, flags)
    }

    /// Lends a received message: its whole slot, the datagram's length, and the route back. What
    /// came with it is prepared for the reply, which needs only [`set_len`](Self::set_len).
    pub(crate) fn lend(&mut self, at: usize, listener: u16) -> (&mut [u8], usize, Route) {
        let mut route = sockaddr::decode(&self.side(at).name, listener);
        let len = self.datagram_len(at);
        let control_len: usize = self.headers[at].0.msg_hdr.msg_controllen as _;
        // On a socket that doesn't ask for control messages the kernel leaves 0 here.
        if control_len > 0
            && let Some(control) = self.control(at)
        {
            route = cmsg::turn_round(control, control_len, route);
        }
        (self.slot(at), len, route)
    }

    /// The bytes of a received message.
    #[inline]
    pub(crate) fn datagram(&mut self, at: usize) -> &[u8] {
        let len = self.datagram_len(at);
        &self.slot(at)[..len]
    }

    #[inline]
    fn datagram_len(&self, at: usize) -> usize {
        (self.headers[at].0.msg_len as usize).min(SLOT_LEN)
    }

    /// Sets how many bytes of a slot are sent; at most [`SLOT_LEN`].
    pub(crate) fn set_len(&mut self, at: usize, len: usize) {
        self.side(at).iov.iov_len = len.min(SLOT_LEN);
    }

    /// Fills a message with an answer, at most [`SLOT_LEN`] bytes of it, and its way.
    pub(crate) fn fill(&mut self, at: usize, route: &Route, answer: &[u8]) {
        let len = answer.len().min(SLOT_LEN);
        self.slot(at)[..len].copy_from_slice(&answer[..len]);
        let side = self.side(at);
        side.iov.iov_len = len;
        let name_len = sockaddr::encode(route, &mut side.name);
        let control_len = self.control(at).map_or(0, |control| cmsg::encode(route, control));
        let header = &mut self.headers[at].0.msg_hdr;
        header.msg_namelen = name_len as _;
        header.msg_controllen = control_len as _;
    }

    /// Lets two messages change places.
    pub(crate) fn swap(&mut self, a: usize, b: usize) {
        self.headers.swap(a, b);
    }

    fn side(&mut self, at: usize) -> &mut Side {
        let side = self.headers[at].0.msg_hdr.msg_iov.cast::<Side>();
        // SAFETY: the pointer was made from a whole `Side` that begins with its iovec; it lives as
        // long as `self`, which is borrowed mutably, and no other header leads to it.
        unsafe { &mut *side }
    }

    fn slot(&mut self, at: usize) -> &mut [u8] {
        let bytes = self.side(at).iov.iov_base.cast::<u8>();
        // SAFETY: the pointer was made from a whole `Slot`, zeroed at first and SLOT_LEN bytes
        // long; as for `side`.
        unsafe { slice::from_raw_parts_mut(bytes, SLOT_LEN) }
    }

    fn control(&mut self, at: usize) -> Option<&mut Control> {
        let control = self.headers[at].0.msg_hdr.msg_control.cast::<Control>();
        // SAFETY: the pointer is null or was made from a whole `Control`, zeroed at first; as for
        // `side`.
        unsafe { control.as_mut() }
    }
}

/// Ties a message together.
fn header(side: NonNull<Side>, slot: NonNull<Slot>, control: *mut libc::c_void) -> Header {
    let iov = iovec { iov_base: slot.as_ptr().cast(), iov_len: SLOT_LEN };
    // SAFETY: `side` is valid for writes, and nothing else refers to it yet.
    unsafe { side.write(Side { iov, name: [0; NAME_LEN] }) };
    // SAFETY: null pointers and zeros are values of every field of this C structure.
    let mut header: mmsghdr = unsafe { std::mem::zeroed() };
    // Derived from the pointer to the whole side, so that the way back from a header is allowed to
    // see the name too.
    let side = side.as_ptr();
    // SAFETY: `side` is valid; only an address is computed.
    let name = unsafe { &raw mut (*side).name };
    header.msg_hdr.msg_name = name.cast();
    header.msg_hdr.msg_iov = side.cast();
    header.msg_hdr.msg_iovlen = 1;
    header.msg_hdr.msg_control = control;
    Header(header)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    fn route(socket: &UdpSocket) -> Route {
        Route::new(socket.local_addr().unwrap(), None, 0, 0)
    }

    #[test]
    fn a_message_takes_one_line_each_for_header_and_side() {
        assert_eq!(
            (size_of::<Header>(), size_of::<Side>(), size_of::<Slot>()),
            (64, 64, SLOT_LEN + 64)
        );
    }

    #[test]
    fn moved_messages_keep_their_bytes_and_peers() {
        let [a, b] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let mut messages = Messages::new(3, false);
        messages.fill(0, &route(&a), b"for a");
        messages.fill(2, &route(&b), b"for b");
        messages.swap(0, 2);
        messages.swap(1, 2);
        assert_eq!(messages.send(a.as_fd(), 0..2).unwrap(), 2);
        let mut buf = [0; 16];
        for (socket, expected) in [(&a, b"for a"), (&b, b"for b")] {
            let len = socket.recv(&mut buf).unwrap();
            assert_eq!(&buf[..len], expected);
        }
    }

    #[test]
    fn a_used_message_receives_full_datagrams_again() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut messages = Messages::new(1, true);
        messages.fill(0, &route(&socket), b"x");
        messages.send(socket.as_fd(), 0..1).unwrap();
        messages.reset(0..1);
        assert_eq!(messages.receive(socket.as_fd(), 1).unwrap(), 1);
        assert_eq!(messages.lend(0, 0).1, 1);
        socket.send_to(&[7; SLOT_LEN], socket.local_addr().unwrap()).unwrap();
        messages.reset(0..1);
        assert_eq!(messages.receive(socket.as_fd(), 1).unwrap(), 1);
        assert_eq!(messages.verdict(0), Verdict::Good);
        let (buf, len, from) = messages.lend(0, 0);
        assert_eq!((&buf[..len], from), (&[7; SLOT_LEN][..], route(&socket)));
        assert_eq!(
            messages.receive(socket.as_fd(), 1).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }
}
