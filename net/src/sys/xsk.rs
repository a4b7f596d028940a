//! AF_XDP sockets: four rings shared with the kernel, each with one producer and one consumer
//! (Documentation/networking/af_xdp.rst of Linux).
//!
//! ```text
//!   fill        free frames      ours -> kernel   the kernel writes what arrives into them
//!   rx          arrivals         kernel -> ours   frame, offset, length
//!   tx          replies          ours -> kernel   they leave at the next `kick`
//!   completion  sent frames      kernel -> ours   free again
//! ```
#![expect(unsafe_code, reason = "socket calls and options that take raw pointers")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{null, null_mut};
use std::sync::atomic::{Ordering, fence};

use libc::{c_int, c_void, socklen_t};

use super::ring::Ring;
use super::umem::{Frame, Umem};

/// An arrival or a reply: which part of a frame it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) frame: Frame,
    /// Bytes before it in the frame.
    pub(crate) start: u16,
    /// Its length in bytes.
    pub(crate) len: u16,
}

/// How a socket gets at the device's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copying {
    /// Not at all (XDP_ZEROCOPY).
    Never,
    /// Each is copied (XDP_COPY).
    Always,
    /// As the driver can.
    AsNeeded,
}

/// What became of a [`Xsk::kick`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kick {
    /// The kernel has looked at all replies.
    Done,
    /// It has not: its budget for one call is used up, or memory or room is short for a while.
    Again,
    /// The device refused one, which is lost; others may be left.
    Refused,
    /// The interface is down.
    Down,
    /// It is gone, and the socket with it is of no use any more.
    Gone,
}

/// What a step of opening failed at, with what the kernel said.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) step: Step,
    pub(crate) source: io::Error,
}

/// The steps of opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// socket(2).
    Socket,
    /// Pinning the memory (XDP_UMEM_REG).
    Memory,
    /// Making and mapping the rings.
    Rings,
}

/// One socket with its rings. It is bound to one queue of one interface by [`bind`](Self::bind).
pub(crate) struct Xsk {
    fill: Ring<u64>,
    rx: Ring<libc::xdp_desc>,
    tx: Ring<libc::xdp_desc>,
    completion: Ring<u64>,
    umem: Umem,
    /// The kernel copies each reply while it is told of it, so that its word is about one of them; and
    /// no driver looks at the rings.
    copies: bool,
    // After the memory that it knows of, for fields are dropped in order.
    socket: OwnedFd,
}

impl Xsk {
    /// Makes a socket over this memory with rings of `ring_len` entries, a power of two.
    pub(crate) fn open(umem: Umem, ring_len: u32) -> Result<Self, Failed> {
        let at = |step| move |source| Failed { step, source };
        let socket = new_socket().map_err(at(Step::Socket))?;
        register(socket.as_fd(), &umem).map_err(at(Step::Memory))?;
        for ring in [
            libc::XDP_UMEM_FILL_RING,
            libc::XDP_UMEM_COMPLETION_RING,
            libc::XDP_RX_RING,
            libc::XDP_TX_RING,
        ] {
            set(socket.as_fd(), ring, &ring_len).map_err(at(Step::Rings))?;
        }
        let rings = || {
            // SAFETY: a structure of integers, for which zeroes are values.
            let zeroes = unsafe { std::mem::zeroed() };
            let offsets: libc::xdp_mmap_offsets =
                get(socket.as_fd(), libc::XDP_MMAP_OFFSETS, zeroes)?;
            let file = socket.as_fd();
            Ok((
                Ring::map(file, ring_len, libc::XDP_UMEM_PGOFF_FILL_RING as i64, &offsets.fr)?,
                Ring::map(file, ring_len, libc::XDP_PGOFF_RX_RING, &offsets.rx)?,
                Ring::map(file, ring_len, libc::XDP_PGOFF_TX_RING, &offsets.tx)?,
                Ring::map(
                    file,
                    ring_len,
                    libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64,
                    &offsets.cr,
                )?,
            ))
        };
        let (fill, rx, tx, completion) = rings().map_err(at(Step::Rings))?;
        Ok(Self { fill, rx, tx, completion, umem, copies: true, socket })
    }

    /// Binds the socket to a queue; frames may arrive from then on, if the filter sends any.
    pub(crate) fn bind(&mut self, interface: u32, queue: u32, copying: Copying) -> io::Result<()> {
        let copying = match copying {
            Copying::Never => libc::XDP_ZEROCOPY,
            Copying::Always => libc::XDP_COPY,
            Copying::AsNeeded => 0,
        };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: copying | libc::XDP_USE_NEED_WAKEUP,
            sxdp_ifindex: interface,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        // SAFETY: the pointer and the length describe `address`, which outlives the call.
        let result = unsafe {
            libc::bind(
                self.socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as socklen_t,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        self.copies = !self.is_zero_copy();
        Ok(())
    }

    /// Whether frames come without a copy.
    pub(crate) fn is_zero_copy(&self) -> bool {
        let options = get(self.socket.as_fd(), libc::XDP_OPTIONS, libc::xdp_options { flags: 0 });
        options.is_ok_and(|options| options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    pub(crate) fn umem(&self) -> &Umem {
        &self.umem
    }

    pub(crate) fn umem_mut(&mut self) -> &mut Umem {
        &mut self.umem
    }

    /// Gives the kernel as many of these frames to write into as its ring has room for. Returns how
    /// many.
    pub(crate) fn fill(&mut self, free: &mut Vec<Frame>) -> usize {
        let count = self.fill.room(free.len()).min(free.len());
        for frame in free.drain(free.len() - count..) {
            self.fill.push(self.umem.address(&frame));
        }
        self.fill.publish();
        self.order();
        count
    }

    /// Whether the driver has stopped looking at the fill ring, so that a `poke` must tell it.
    pub(crate) fn fill_needs_wake_up(&self) -> bool {
        self.fill.needs_wake_up()
    }

    /// Whether `receive` would take any.
    pub(crate) fn has_arrivals(&mut self) -> bool {
        self.rx.ready() > 0
    }

    /// Takes at most `max` arrivals.
    pub(crate) fn receive(&mut self, max: usize, arrivals: &mut Vec<Segment>) {
        for _ in 0..self.rx.ready().min(max) {
            let desc = self.rx.pop();
            // An address out of bounds would be the kernel's defect.
            let Some((number, start)) = self.umem.locate(desc.addr) else { continue };
            let len = (desc.len as usize).min(self.umem.frame_len() - start);
            let frame = Frame::returned(number);
            arrivals.push(Segment { frame, start: start as u16, len: len as u16 });
        }
        self.rx.release();
    }

    /// Puts a reply into the ring; it leaves with the next [`kick`](Self::kick). Gives the frame
    /// back if the ring is full.
    pub(crate) fn transmit(&mut self, segment: Segment) -> Result<(), Frame> {
        if self.tx.room(1) == 0 {
            return Err(segment.frame);
        }
        let addr = self.umem.address(&segment.frame) + u64::from(segment.start);
        self.tx.push(libc::xdp_desc { addr, len: segment.len.into(), options: 0 });
        Ok(())
    }

    /// Makes the replies in the ring visible, and has the kernel send them if it must be told.
    pub(crate) fn kick(&mut self) -> Kick {
        self.tx.publish();
        self.order();
        if !self.tx.needs_wake_up() {
            return Kick::Done;
        }
        // SAFETY: there is no buffer and no address.
        let result = unsafe {
            libc::sendto(self.socket.as_raw_fd(), null(), 0, libc::MSG_DONTWAIT, null(), 0)
        };
        if result >= 0 {
            return Kick::Done;
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::EBUSY) if self.copies => Kick::Refused,
            Some(libc::ENETDOWN) => Kick::Down,
            Some(libc::ENXIO) if self.copies => Kick::Gone,
            // Drivers say so too while they set up their queues anew.
            Some(libc::ENXIO) => Kick::Down,
            _ => Kick::Again,
        }
    }

    /// A full barrier, where a driver may look at the rings at this very time.
    fn order(&self) {
        if !self.copies {
            fence(Ordering::SeqCst);
        }
    }

    /// Replies that the kernel has not taken yet.
    pub(crate) fn unsent(&mut self) -> usize {
        self.tx.left()
    }

    /// Has the driver look at its rings: for what it asked to be woken for, or to poll the device.
    pub(crate) fn poke(&self) {
        // SAFETY: there is no buffer and no address.
        let _ = unsafe {
            libc::recvfrom(
                self.socket.as_raw_fd(),
                null_mut(),
                0,
                libc::MSG_DONTWAIT,
                null_mut(),
                null_mut(),
            )
        };
    }

    /// Takes the frames that have been sent. Returns how many.
    pub(crate) fn complete(&mut self, free: &mut Vec<Frame>) -> usize {
        let count = self.completion.ready();
        for _ in 0..count {
            let address = self.completion.pop();
            free.extend(self.umem.locate(address).map(|(number, _)| Frame::returned(number)));
        }
        self.completion.release();
        count
    }
}

impl AsFd for Xsk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What the kernel counted at a socket (XDP_STATISTICS).
pub(crate) fn statistics(socket: BorrowedFd<'_>) -> io::Result<libc::xdp_statistics> {
    // SAFETY: a structure of integers, for which zeroes are values.
    let zeroes = unsafe { std::mem::zeroed() };
    get(socket, libc::XDP_STATISTICS, zeroes)
}

fn new_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn register(socket: BorrowedFd<'_>, umem: &Umem) -> io::Result<()> {
    let area = umem.area();
    let registration = libc::xdp_umem_reg {
        addr: area.first().as_ptr() as u64,
        len: area.len() as u64,
        chunk_size: umem.frame_len() as u32,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set(socket, libc::XDP_UMEM_REG, &registration)
}

fn set<T>(socket: BorrowedFd<'_>, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            name,
            (&raw const *value).cast(),
            size_of::<T>() as socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asks for an option; an older kernel writes a shorter one over the start of `value`. Only for
/// structures of integers.
fn get<T: Copy>(socket: BorrowedFd<'_>, name: c_int, mut value: T) -> io::Result<T> {
    let mut len = size_of::<T>() as socklen_t;
    let into: *mut c_void = (&raw mut value).cast();
    // SAFETY: the pointer and the length describe `value`; the kernel writes at most `len` bytes,
    // and any bytes are integers.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_XDP, name, into, &raw mut len) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}
