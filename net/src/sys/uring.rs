//! A ring of io_uring over a few sockets: what is asked is put into its queue, and one
//! io_uring_enter(2) does all of it and brings what came of it.
//!
//! ```text
//!   slot:  0          16        64        128                          128 + SLOT_LEN
//!          | recvmsg  | name    | control | the datagram, then the reply |
//!            lengths    of the    of wildcard
//!            and flags  peer      listeners
//! ```
//! - A *shot* is a multishot RECVMSG with MSG_DONTWAIT: the kernel takes datagrams into provided
//!   slots, one after the other, until the socket is empty, the slots are used up or [`SHOT_MAX`]
//!   have come. It does so at once, and never stands in the socket's wait queue.
//! - A *send* has MSG_DONTWAIT as well, and says something only when it failed.
//!
//! So nothing is in flight when [`Ring::enter`] has returned, and the kernel touches the slots only
//! during that call, which has `&mut self`.
#![expect(unsafe_code, reason = "memory that the kernel reaches through the entries of the rings")]

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{BufRingEntry, CancelBuilder, Fixed};
use io_uring::{cqueue, opcode};
use libc::{iovec, msghdr};

use super::cmsg::{self, CONTROL_LEN, Control};
use super::mmsg::Verdict;
use super::region::{Plain, Region};
use super::sockaddr::{self, NAME_LEN, Name};
use crate::backend::SLOT_LEN;
use crate::route::Route;

/// Datagrams that one shot takes at most: MULTISHOT_MAX_RETRY and the first (io_uring/net.c, Linux
/// 6.8; before that only the buffers end it).
pub(crate) const SHOT_MAX: usize = 33;

/// How often one enter is tried again when the kernel has no memory for requests; the thread yields
/// in between.
const ENTER_TRIES: usize = 10_000;

/// The ring's only group of provided buffers.
const GROUP: u16 = 0;

/// A ring over some sockets, and its slots.
///
/// Invariant: every address in a queued entry, a provided buffer or a message leads into the regions
/// below, whose memory outlives the ring. A slot is free, provided, or its taker's; who has it may
/// send it and gives it back after the next enter.
pub(crate) struct Ring {
    // Dropped before the memory it knows of.
    io: io_uring::IoUring,
    /// Which sockets ask for control messages.
    wildcard: Box<[bool]>,
    slots: Region<Slot>,
    /// One for each slot if some socket asks for control messages, else none.
    messages: Region<Message>,
    /// What shots say about the room before the datagram: without control messages, and with.
    rooms: Region<Message>,
    /// The ring of provided slots, and how often one was provided (wrapping).
    provided: Region<Page>,
    provided_tail: u16,
    /// Slots in the kernel's hands, at most `batch`, a power of two or less than the next one.
    waiting: usize,
    batch: usize,
    /// Slots in nobody's hands.
    free: Vec<u16>,
    /// Shots that have not ended.
    shots: usize,
}

/// What came of what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completion {
    /// Of a shot: a datagram in a slot, or why it ended (0 for an empty datagram, which ends it
    /// too), or both.
    Shot { slot: Option<u16>, ended: Option<i32> },
    /// A send failed: its tag and errno.
    Refused { tag: u32, error: i32 },
}

#[repr(C, align(64))]
struct Slot {
    /// As `io_uring_recvmsg_out`.
    name_len: u32,
    control_len: u32,
    payload_len: u32,
    flags: u32,
    name: Name,
    spare: [u8; 20],
    control: Control,
    bytes: [u8; SLOT_LEN],
}

const NAME_AT: usize = std::mem::offset_of!(Slot, name);
const CONTROL_AT: usize = std::mem::offset_of!(Slot, control);
const BYTES_AT: usize = std::mem::offset_of!(Slot, bytes);

const _: () = assert!(NAME_AT == 16 && CONTROL_AT == 64 && BYTES_AT == 64 + CONTROL_LEN);
const _: () = assert!(
    !size_of::<Slot>().is_multiple_of(4096),
    "slots whole pages apart would all begin in the same cache set"
);

// SAFETY: integers and bytes.
unsafe impl Plain for Slot {}

/// A header for SENDMSG, and its iovec.
#[repr(C)]
struct Message {
    header: msghdr,
    iov: iovec,
}

const IOV_AT: usize = std::mem::offset_of!(Message, iov);

// SAFETY: C structures of pointers, which nobody here follows, and integers.
unsafe impl Plain for Message {}

/// The ring of provided buffers must begin a page, the largest of which have 64 KiB (AArch64).
#[repr(C, align(65536))]
struct Page([u8; 65536]);

// SAFETY: bytes.
unsafe impl Plain for Page {}

/// Marks what was said about a send.
const SEND: u64 = 1 << 32;

impl Ring {
    /// Opens a ring over these sockets, to which it holds on by itself, and of which those bound to
    /// a wildcard are marked. It has two batches of slots to receive into, and behind them `spare`
    /// slots, which are its taker's from the start. Must be used by the thread that opened it.
    pub(crate) fn open(
        sockets: &[RawFd],
        wildcard: Box<[bool]>,
        batch: usize,
        spare: usize,
    ) -> io::Result<Self> {
        let slots = 2 * batch + spare;
        // A batch of replies, what is spare, and the shots for a batch.
        let queue = (batch + spare + batch.div_ceil(SHOT_MAX)).next_power_of_two() as u32;
        let io = io_uring::IoUring::builder()
            // One thread, and nothing done behind its back: fewer locks in the kernel.
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_no_sqarray()
            .setup_submit_all()
            // One for each entry, and one for each datagram of a batch.
            .setup_cqsize(4 * queue)
            .build(queue)?;
        let provided = batch.next_power_of_two();
        let pages = (provided * size_of::<BufRingEntry>()).div_ceil(size_of::<Page>());
        let needs_messages = wildcard.contains(&true);
        let mut ring = Self {
            io,
            wildcard,
            slots: Region::new(slots),
            messages: Region::new(if needs_messages { slots } else { 0 }),
            rooms: Region::new(2),
            provided: Region::new(pages),
            provided_tail: 0,
            waiting: 0,
            batch,
            free: (0..2 * batch as u16).rev().collect(),
            shots: 0,
        };
        ring.lay_out();
        let submitter = ring.io.submitter();
        submitter.register_files(sockets)?;
        let first = ring.provided.at(0).as_ptr() as u64;
        // SAFETY: the memory is page-aligned, holds so many entries, zeroed, and is freed after the
        // ring.
        unsafe { submitter.register_buf_ring_with_flags(first, provided as u16, GROUP, 0)? };
        // If entering is forbidden it is known now.
        submitter.submit()?;
        Ok(ring)
    }

    /// Ties messages to slots, once.
    fn lay_out(&mut self) {
        let rooms = self.rooms.values_mut();
        rooms[0].header.msg_namelen = (BYTES_AT - NAME_AT) as _;
        rooms[1].header.msg_namelen = (CONTROL_AT - NAME_AT) as _;
        rooms[1].header.msg_controllen = CONTROL_LEN as _;
        for at in 0..self.messages.values().len() {
            let slot = self.slots.at(at).as_ptr();
            let iov = self.messages.at(at).as_ptr().wrapping_byte_add(IOV_AT).cast();
            let message = &mut self.messages.values_mut()[at];
            message.header.msg_name = slot.wrapping_byte_add(NAME_AT).cast();
            message.header.msg_control = slot.wrapping_byte_add(CONTROL_AT).cast();
            message.header.msg_iov = iov;
            message.header.msg_iovlen = 1;
            message.iov.iov_base = slot.wrapping_byte_add(BYTES_AT).cast();
        }
    }

    /// Gives a slot back.
    pub(crate) fn release(&mut self, slot: u16) {
        self.free.push(slot);
    }

    /// Whether nothing is in flight, as it must be after each enter.
    pub(crate) fn is_settled(&self) -> bool {
        self.shots == 0
    }

    /// Slots to receive into that are their taker's.
    pub(crate) fn taken(&self) -> usize {
        2 * self.batch - self.free.len() - self.waiting
    }

    /// Puts slots into the kernel's hands, up to a batch: what it takes at once is one.
    fn provide(&mut self) {
        let first = self.provided.at(0).as_ptr().cast::<BufRingEntry>();
        let mask = self.batch.next_power_of_two() - 1;
        while self.waiting < self.batch
            && let Some(slot) = self.free.pop()
        {
            let at = usize::from(self.provided_tail) & mask;
            // SAFETY: `at` is below the number of entries that the region was made for.
            let entry = unsafe { first.add(at) };
            // SAFETY: it is aligned for more than an entry needs, and zeroed at first, which is a
            // value of it; nothing else refers to it now.
            let entry = unsafe { &mut *entry };
            entry.set_addr(self.slots.at(slot.into()).as_ptr() as u64);
            entry.set_len((BYTES_AT + SLOT_LEN) as u32);
            entry.set_bid(slot);
            self.provided_tail = self.provided_tail.wrapping_add(1);
            self.waiting += 1;
        }
        // SAFETY: the first entry, initialized.
        let tail = unsafe { BufRingEntry::tail(first) };
        // SAFETY: it is aligned and within the region, and nothing else refers to it now.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.provided_tail, Ordering::Release);
    }

    /// Asks for what a socket holds now: a batch at most, with all other shots before the enter.
    pub(crate) fn push_shot(&mut self, listener: u16) {
        self.provide();
        let room = self.rooms.at(usize::from(self.wildcard[usize::from(listener)])).as_ptr();
        let shot = opcode::RecvMsgMulti::new(Fixed(listener.into()), room.cast(), GROUP)
            .flags(libc::MSG_DONTWAIT as u32);
        self.shots += 1;
        self.push(&shot.build());
    }

    /// Sends the first `len` bytes of a slot, at most [`SLOT_LEN`], to where its datagram came from
    /// or its answer is to go. The slot must stay as it is until the next enter.
    pub(crate) fn push_send(&mut self, listener: u16, at: u16, len: usize, tag: u32) {
        let socket = Fixed(listener.into());
        let len = len.min(SLOT_LEN);
        let slot = &self.slots.values()[usize::from(at)];
        let name_len = slot.name_len.min(NAME_LEN as u32);
        let control_len = (slot.control_len as usize).min(CONTROL_LEN);
        let send = if control_len == 0 {
            let slot = self.slots.at(at.into()).as_ptr();
            opcode::Send::new(socket, slot.wrapping_byte_add(BYTES_AT).cast(), len as u32)
                .flags(libc::MSG_DONTWAIT)
                .dest_addr(slot.wrapping_byte_add(NAME_AT).cast())
                .dest_addr_len(name_len)
                .build()
        } else {
            let message = &mut self.messages.values_mut()[usize::from(at)];
            message.header.msg_namelen = name_len as _;
            message.header.msg_controllen = control_len as _;
            message.iov.iov_len = len;
            opcode::SendMsg::new(socket, self.messages.at(at.into()).as_ptr().cast())
                .flags(libc::MSG_DONTWAIT as u32)
                .build()
        };
        self.push(&send.flags(Flags::SKIP_SUCCESS).user_data(SEND | u64::from(tag)));
    }

    fn push(&mut self, entry: &Entry) {
        // SAFETY: what the entry leads to lives as long as the ring (the type's invariant), and
        // stays as it is until the enter that takes it.
        let pushed = unsafe { self.io.submission().push(entry) };
        pushed.expect("room for all that goes into one enter");
    }

    /// Does what is queued.
    ///
    /// # Panics
    /// If the kernel goes on refusing, which it does only to another thread than the one that opened
    /// the ring, or without memory.
    pub(crate) fn enter(&mut self) {
        let (submitter, mut queue, _) = self.io.split();
        let mut refusal = None;
        for _ in 0..ENTER_TRIES {
            queue.sync();
            let count = queue.len();
            if count == 0 {
                return;
            }
            // SAFETY: the queue holds so many entries of `push`, and no argument is passed.
            match unsafe { submitter.enter::<libc::sigset_t>(count as u32, 0, 0, None) } {
                Ok(_) => {}
                Err(error) => {
                    refusal = Some(error);
                    thread::yield_now();
                }
            }
        }
        panic!("io_uring_enter takes no more requests: {refusal:?}");
    }

    /// The next completion that is there.
    pub(crate) fn completion(&mut self) -> Option<Completion> {
        let entry = self.io.completion().next()?;
        let (tag, result) = (entry.user_data() as u32, entry.result());
        if entry.user_data() & SEND != 0 {
            return Some(Completion::Refused { tag, error: -result });
        }
        let ended = !cqueue::more(entry.flags());
        self.shots -= usize::from(ended);
        let ended = ended.then_some(-result.min(0));
        let mut slot = cqueue::buffer_select(entry.flags());
        self.waiting -= usize::from(slot.is_some());
        if result < 0
            && let Some(unused) = slot.take()
        {
            // Older kernels take a slot before they see that the socket is empty.
            self.release(unused);
        }
        Some(Completion::Shot { slot, ended })
    }

    /// Judges a received datagram by what the kernel wrote before it.
    #[inline]
    pub(crate) fn verdict(&self, at: u16) -> Verdict {
        let slot = &self.slots.values()[usize::from(at)];
        Verdict::of(slot.name_len as usize, &slot.name, slot.flags as libc::c_int)
    }

    /// Lends a received datagram: its room, its length, and the route back. What came with it is
    /// prepared for the reply.
    #[inline]
    pub(crate) fn lend(&mut self, at: u16, listener: u16) -> (&mut [u8], usize, Route) {
        let slot = &mut self.slots.values_mut()[usize::from(at)];
        let len = slot.len();
        let mut route = sockaddr::decode(&slot.name, listener);
        if slot.control_len > 0 {
            route = cmsg::turn_round(&mut slot.control, slot.control_len as usize, route);
        }
        (&mut slot.bytes, len, route)
    }

    /// The bytes of a received datagram.
    #[inline]
    pub(crate) fn datagram(&self, at: u16) -> &[u8] {
        let slot = &self.slots.values()[usize::from(at)];
        &slot.bytes[..slot.len()]
    }

    /// Fills a slot with an answer, at most [`SLOT_LEN`] bytes of it, and its way.
    pub(crate) fn fill(&mut self, at: u16, route: &Route, answer: &[u8]) {
        let wildcard = self.wildcard[usize::from(route.listener)];
        let slot = &mut self.slots.values_mut()[usize::from(at)];
        let len = answer.len().min(SLOT_LEN);
        slot.bytes[..len].copy_from_slice(&answer[..len]);
        slot.name_len = sockaddr::encode(route, &mut slot.name) as u32;
        slot.control_len = if wildcard { cmsg::encode(route, &mut slot.control) as u32 } else { 0 };
    }
}

impl Slot {
    #[inline]
    fn len(&self) -> usize {
        (self.payload_len as usize).min(SLOT_LEN)
    }
}

impl Drop for Ring {
    /// Lets go of the sockets now, where the kernel would when it comes to it: their addresses are
    /// free as soon as they are closed.
    fn drop(&mut self) {
        if self.shots > 0 {
            // Only after a panic, between a push and its enter. No slot may be written from now on.
            let _ = self.io.submitter().register_sync_cancel(None, CancelBuilder::any());
        }
        let _ = self.io.submitter().unregister_buf_ring(GROUP);
        let _ = self.io.submitter().unregister_files();
    }
}
