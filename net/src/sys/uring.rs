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
//!   buffers, one after the other, until the socket is empty, the buffers are used up or
//!   [`SHOT_MAX`] have come. It does so at once and stays in no wait queue of the socket.
//! - A *watch* is a POLL that completes once.
//! - A *send* has MSG_DONTWAIT as well, and says something only when it failed.
//!
//! So the kernel touches the slots only during [`Ring::enter`], which has `&mut self`. What outlives
//! a call is watches and pauses, which know no memory of ours.
#![expect(unsafe_code, reason = "memory that the kernel reaches through the entries of the rings")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{BufRingEntry, CancelBuilder, Fixed, Timespec};
use io_uring::{EnterFlags, cqueue, opcode};
use libc::{iovec, msghdr};
use socket2::Socket;

use super::cmsg::{self, CONTROL_LEN, Control};
use super::mmsg::Verdict;
use super::region::{Plain, Region};
use super::sockaddr::{self, NAME_LEN, Name};
use crate::backend::SLOT_LEN;
use crate::route::Route;

/// Datagrams that one shot takes at most: MULTISHOT_MAX_RETRY and the first (io_uring/net.c, Linux
/// 6.8; before that only the buffers end it).
pub(crate) const SHOT_MAX: usize = 33;

/// How long a pause is.
static PAUSE: Timespec = Timespec::new().sec(1);

/// How often one enter is tried again when the kernel has no memory for requests; the thread yields
/// in between.
const ENTER_TRIES: usize = 10_000;

/// Enters after which a ring that is dropped no longer waits for what it cancelled.
const LAST_ENTERS: usize = 100;

/// The ring's only group of provided buffers.
const GROUP: u16 = 0;

/// A ring, its sockets and its slots.
///
/// Invariant: every address in a queued entry, a provided buffer or a message leads into the regions
/// below, whose memory outlives the ring. A slot is free, provided, or its taker's; who has it may
/// send it and gives it back after the next enter.
pub(crate) struct Ring {
    // Dropped before the memory it knows of.
    io: io_uring::IoUring,
    sockets: Box<[Socket]>,
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
    /// Shots, watches and pauses that have not ended.
    in_flight: usize,
}

/// What came of what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completion {
    /// Of a shot: a datagram in a slot, or why it ended (0 for an empty datagram, which ends it
    /// too), or both.
    Shot { listener: u16, slot: Option<u16>, ended: Option<i32> },
    /// A watch or a pause is over.
    Watched { listener: u16 },
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
#[derive(Clone, Copy)]
struct Message {
    header: msghdr,
    iov: iovec,
}

// SAFETY: C structures of pointers, which nobody here follows, and integers.
unsafe impl Plain for Message {}

/// The ring of provided buffers must begin a page.
#[repr(C, align(4096))]
struct Page([u8; 4096]);

// SAFETY: bytes.
unsafe impl Plain for Page {}

const WATCH: u64 = 1 << 32;
const SEND: u64 = 2 << 32;

impl Ring {
    /// Opens a ring over these sockets, of which those bound to a wildcard are marked. It has two
    /// batches of slots to receive into, and behind them `spare` slots, which are its taker's from
    /// the start. Must be used by the thread that opened it.
    pub(crate) fn open(
        sockets: Box<[Socket]>,
        wildcard: Box<[bool]>,
        batch: usize,
        spare: usize,
    ) -> io::Result<Self> {
        let slots = 2 * batch + spare;
        // Sends of a batch and of what is spare, and some for what listeners need.
        let queue = (batch + spare + 64).next_power_of_two() as u32;
        let completions = 2 * queue + 2 * sockets.len() as u32;
        let io = io_uring::IoUring::builder()
            // Work of the kernel's is done when we enter and at no other time.
            .setup_defer_taskrun()
            .setup_single_issuer()
            .setup_taskrun_flag()
            .setup_no_sqarray()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(completions.next_power_of_two())
            .build(queue)?;
        let provided = batch.next_power_of_two();
        let pages = (provided * size_of::<BufRingEntry>()).div_ceil(size_of::<Page>());
        let needs_messages = wildcard.contains(&true);
        let mut ring = Self {
            io,
            sockets,
            wildcard,
            slots: Region::new(slots),
            messages: Region::new(if needs_messages { slots } else { 0 }),
            rooms: Region::new(2),
            provided: Region::new(pages),
            provided_tail: 0,
            waiting: 0,
            batch,
            free: (0..2 * batch as u16).rev().collect(),
            in_flight: 0,
        };
        ring.lay_out();
        let files: Vec<RawFd> = ring.sockets.iter().map(AsRawFd::as_raw_fd).collect();
        let submitter = ring.io.submitter();
        submitter.register_files(&files)?;
        let first = ring.provided.at(0).as_ptr() as u64;
        // SAFETY: the memory is page-aligned, holds so many entries, zeroed, and is freed after the
        // ring.
        unsafe { submitter.register_buf_ring_with_flags(first, provided as u16, GROUP, 0)? };
        Ok(ring)
    }

    /// Ties messages to slots, once.
    fn lay_out(&mut self) {
        let rooms = self.rooms.values_mut();
        rooms[0].header.msg_namelen = (BYTES_AT - NAME_AT) as _;
        rooms[1].header.msg_namelen = (CONTROL_AT - NAME_AT) as _;
        rooms[1].header.msg_controllen = CONTROL_LEN as _;
        for at in 0..self.messages.values().len() {
            let (slot, message) = (self.slots.at(at).as_ptr(), self.messages.at(at).as_ptr());
            // SAFETY: `slot` is valid; only an address is computed.
            let name = unsafe { &raw mut (*slot).name };
            // SAFETY: as above.
            let control = unsafe { &raw mut (*slot).control };
            // SAFETY: as above.
            let bytes = unsafe { &raw mut (*slot).bytes };
            // SAFETY: as above.
            let iov = unsafe { &raw mut (*message).iov };
            let message = &mut self.messages.values_mut()[at];
            message.header.msg_name = name.cast();
            message.header.msg_control = control.cast();
            message.header.msg_iov = iov;
            message.header.msg_iovlen = 1;
            message.iov.iov_base = bytes.cast();
        }
    }

    pub(crate) fn sockets(&self) -> &[Socket] {
        &self.sockets
    }

    /// Lets the kernel ring this eventfd when something happens while [`signals`](Self::signals) are
    /// on, as they are at first.
    pub(crate) fn set_bell(&self, eventfd: BorrowedFd<'_>) -> io::Result<()> {
        self.io.submitter().register_eventfd(eventfd.as_raw_fd())
    }

    /// Turns signals on or off. What happened before they were turned on isn't signalled: it shows
    /// in the next enter.
    pub(crate) fn signals(&mut self, on: bool) {
        let completions = self.io.completion();
        if on {
            completions.enable_eventfd();
        } else {
            completions.disable_eventfd();
        }
    }

    /// Whether an enter would bring something, as far as it is known without one.
    pub(crate) fn has_work(&mut self) -> bool {
        let queue = self.io.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Gives a slot back.
    pub(crate) fn release(&mut self, slot: u16) {
        self.free.push(slot);
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
        self.in_flight += 1;
        self.push(&shot.build().user_data(listener.into()));
    }

    /// Asks to be told when a socket has something, which may be now.
    pub(crate) fn push_watch(&mut self, listener: u16) {
        let watch = opcode::PollAdd::new(Fixed(listener.into()), libc::POLLIN as u32);
        self.in_flight += 1;
        self.push(&watch.build().user_data(WATCH | u64::from(listener)));
    }

    /// As if a watch completed a second from now.
    pub(crate) fn push_pause(&mut self, listener: u16) {
        let pause = opcode::Timeout::new(&raw const PAUSE);
        self.in_flight += 1;
        self.push(&pause.build().user_data(WATCH | u64::from(listener)));
    }

    /// Sends the first `len` bytes of a slot, at most [`SLOT_LEN`], to where its datagram came from
    /// or its answer is to go. The slot must stay as it is until the next enter.
    pub(crate) fn push_send(&mut self, listener: u16, at: u16, len: usize, tag: u32) {
        let socket = Fixed(listener.into());
        let slot = &mut self.slots.values_mut()[usize::from(at)];
        let name_len = slot.name_len.min(NAME_LEN as u32);
        let len = len.min(SLOT_LEN);
        let send = if slot.control_len == 0 {
            let name = (&raw const slot.name).cast();
            opcode::Send::new(socket, slot.bytes.as_ptr(), len as u32)
                .flags(libc::MSG_DONTWAIT)
                .dest_addr(name)
                .dest_addr_len(name_len)
                .build()
        } else {
            let control_len = slot.control_len.min(CONTROL_LEN as u32);
            let message = &mut self.messages.values_mut()[usize::from(at)];
            message.header.msg_namelen = name_len as _;
            message.header.msg_controllen = control_len as _;
            message.iov.iov_len = len;
            opcode::SendMsg::new(socket, &raw const message.header)
                .flags(libc::MSG_DONTWAIT as u32)
                .build()
        };
        self.push(&send.flags(Flags::SKIP_SUCCESS).user_data(SEND | u64::from(tag)));
    }

    fn push(&mut self, entry: &Entry) {
        // SAFETY: what the entry leads to lives as long as the ring (the type's invariant), and the
        // kernel is done with the slots when the enter that takes it has returned.
        while unsafe { self.io.submission().push(entry) }.is_err() {
            self.enter(false);
        }
    }

    /// Does what is queued and gathers completions, of which it waits for one if that is asked.
    ///
    /// # Panics
    /// If the kernel goes on refusing, which it does only to another thread than the one that opened
    /// the ring, or without memory.
    pub(crate) fn enter(&mut self, wait: bool) {
        self.try_enter(wait).expect("io_uring_enter takes requests");
    }

    fn try_enter(&mut self, wait: bool) -> io::Result<()> {
        let (submitter, mut queue, _) = self.io.split();
        let mut refusal = None;
        for _ in 0..ENTER_TRIES {
            queue.sync();
            let (count, flags) = (queue.len(), EnterFlags::GETEVENTS.bits());
            // SAFETY: the queue holds so many entries of `push`, and no argument is passed.
            let entered = unsafe {
                submitter.enter::<libc::sigset_t>(count as u32, wait.into(), flags, None)
            };
            match entered {
                Ok(taken) if taken == count => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    refusal = Some(error);
                    thread::yield_now();
                }
            }
        }
        Err(refusal.unwrap_or_else(|| io::ErrorKind::Interrupted.into()))
    }

    /// The next completion that is there.
    pub(crate) fn completion(&mut self) -> Option<Completion> {
        let entry = self.io.completion().next()?;
        let (tag, result) = (entry.user_data() as u32, entry.result());
        let listener = tag as u16;
        Some(match entry.user_data() & !u64::from(u32::MAX) {
            SEND => Completion::Refused { tag, error: -result },
            WATCH => {
                self.in_flight -= 1;
                Completion::Watched { listener }
            }
            _ => {
                let ended = !cqueue::more(entry.flags());
                self.in_flight -= usize::from(ended);
                let ended = ended.then_some(-result.min(0));
                let slot = cqueue::buffer_select(entry.flags());
                self.waiting -= usize::from(slot.is_some());
                Completion::Shot { listener, slot, ended }
            }
        })
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
    /// Ends what is in flight, so that the sockets are closed when this returns and not when the
    /// kernel comes to it.
    fn drop(&mut self) {
        let mut entered = self.try_enter(false);
        let _ = self.io.submitter().register_sync_cancel(None, CancelBuilder::any());
        for _ in 0..LAST_ENTERS {
            while self.completion().is_some() {}
            if self.in_flight == 0 || entered.is_err() {
                break;
            }
            entered = self.try_enter(false);
        }
        let _ = self.io.submitter().unregister_buf_ring(GROUP);
        let _ = self.io.submitter().unregister_files();
    }
}
