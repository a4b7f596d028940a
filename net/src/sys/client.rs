//! Batches of datagrams through recvmmsg(2) and sendmmsg(2) on plain sockets, ppoll(2), the CPU time
//! of a thread, and the confinement of a child to a core.
#![expect(unsafe_code, reason = "the message headers hold raw pointers, and the calls take them")]

use std::io;
use std::mem;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use libc::{c_int, c_uint, iovec, mmsghdr, sockaddr_storage, socklen_t};

use super::region::Region;

/// The most datagrams in one [`Datagrams`]: the kernel's own bound for one call (UIO_MAXIOV).
pub const BATCH_MAX: usize = 1024;

/// A batch of datagrams with buffers and message headers that are built once.
///
/// It is filled by a receive call or by [`Datagrams::push`], and sent as it stands. On an
/// *addressed* batch the kernel notes where each datagram came from, and sending goes back there; a
/// *connected* one carries no addresses.
///
/// Invariant: the header of each slot points to the slot's own iovec and name (or none), and the
/// iovec to the slot's own `slot_len` bytes; `iov_len` is at most that.
pub struct Datagrams {
    headers: Vec<mmsghdr>,
    iovecs: Region<iovec>,
    /// Empty on a connected batch.
    names: Region<sockaddr_storage>,
    buffers: Region<u8>,
    slot_len: usize,
    /// How many slots, from the first on, hold a datagram.
    filled: usize,
}

// SAFETY: all its pointers lead into memory that the batch alone owns.
unsafe impl Send for Datagrams {}

impl Datagrams {
    /// For a connected socket: `slots` (1 to [`BATCH_MAX`]) datagrams of at most `slot_len` bytes.
    #[must_use]
    pub fn connected(slots: usize, slot_len: usize) -> Self {
        Self::new(slots, slot_len, false)
    }

    /// For a socket that serves many peers.
    #[must_use]
    pub fn addressed(slots: usize, slot_len: usize) -> Self {
        Self::new(slots, slot_len, true)
    }

    fn new(slots: usize, slot_len: usize, addressed: bool) -> Self {
        assert!((1..=BATCH_MAX).contains(&slots), "a batch has 1 to {BATCH_MAX} slots");
        assert!(slot_len > 0, "a slot has room for a byte");
        // SAFETY: a plain C structure for which zeroes are valid.
        let header: mmsghdr = unsafe { mem::zeroed() };
        let mut batch = Self {
            headers: vec![header; slots],
            iovecs: Region::new(slots),
            names: Region::new(if addressed { slots } else { 0 }),
            buffers: Region::new(slots * slot_len),
            slot_len,
            filled: 0,
        };
        for (slot, iov) in batch.iovecs.values_mut().iter_mut().enumerate() {
            iov.iov_base = batch.buffers.at(slot * slot_len).as_ptr().cast();
        }
        for (slot, header) in batch.headers.iter_mut().enumerate() {
            header.msg_hdr.msg_iov = batch.iovecs.at(slot).as_ptr();
            header.msg_hdr.msg_iovlen = 1;
            if addressed {
                header.msg_hdr.msg_name = batch.names.at(slot).as_ptr().cast();
            }
        }
        batch
    }

    /// Datagrams in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Whether no further one fits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.filled == self.headers.len()
    }

    /// Empties the batch.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Appends a datagram: `fill` writes it into the slot it is given and returns its length.
    /// False, and `fill` isn't called, when the batch is full.
    pub fn push(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> bool {
        if self.is_full() {
            return false;
        }
        let at = self.filled * self.slot_len;
        let len = fill(&mut self.buffers.values_mut()[at..at + self.slot_len]);
        self.iovecs.values_mut()[self.filled].iov_len = len.min(self.slot_len);
        self.filled += 1;
        true
    }

    /// The datagrams, in their order. One that was longer than its slot is cut.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let slots = self.buffers.values().chunks_exact(self.slot_len);
        slots.zip(&self.iovecs.values()[..self.filled]).map(|(slot, iov)| &slot[..iov.iov_len])
    }

    /// Lets `rewrite` turn each datagram into another one in its slot: it gets the slot and the
    /// length of what is there and returns the new length, or `None` to take it out of the batch.
    pub fn rewrite(&mut self, mut rewrite: impl FnMut(&mut [u8], usize) -> Option<usize>) {
        let (buffers, iovecs) = (self.buffers.values_mut(), self.iovecs.values_mut());
        let names = self.names.values_mut();
        let mut kept = 0;
        for slot in 0..self.filled {
            let at = slot * self.slot_len;
            let len = iovecs[slot].iov_len;
            let Some(new_len) = rewrite(&mut buffers[at..at + self.slot_len], len) else {
                continue;
            };
            let new_len = new_len.min(self.slot_len);
            if kept != slot {
                buffers.copy_within(at..at + new_len, kept * self.slot_len);
                if !names.is_empty() {
                    names[kept] = names[slot];
                    self.headers[kept].msg_hdr.msg_namelen = self.headers[slot].msg_hdr.msg_namelen;
                }
            }
            iovecs[kept].iov_len = new_len;
            kept += 1;
        }
        self.filled = kept;
    }

    /// A copy of the datagram at `slot` of an addressed batch, to be sent later.
    #[must_use]
    pub fn parcel(&self, slot: usize) -> Parcel {
        assert!(slot < self.filled, "slot {slot} holds no datagram");
        let at = slot * self.slot_len;
        let len = self.iovecs.values()[slot].iov_len;
        Parcel {
            name: self.names.values()[slot],
            name_len: self.headers[slot].msg_hdr.msg_namelen,
            bytes: self.buffers.values()[at..at + len].into(),
        }
    }

    /// Appends what was taken out of an addressed batch to this one, which is addressed too. False
    /// when the batch is full.
    pub fn push_parcel(&mut self, parcel: &Parcel) -> bool {
        let slot = self.filled;
        let pushed = self.push(|buf| {
            let len = parcel.bytes.len().min(buf.len());
            buf[..len].copy_from_slice(&parcel.bytes[..len]);
            len
        });
        if pushed {
            self.names.values_mut()[slot] = parcel.name;
            self.headers[slot].msg_hdr.msg_namelen = parcel.name_len;
        }
        pushed
    }

    /// Makes each datagram `bytes` longer, by what happens to be in its slot, as far as that goes.
    pub fn pad(&mut self, bytes: usize) {
        for iov in &mut self.iovecs.values_mut()[..self.filled] {
            iov.iov_len = (iov.iov_len + bytes).min(self.slot_len);
        }
    }

    /// Replaces the batch by what the socket holds, without waiting; 0 if that is nothing.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        match self.recvmmsg(socket, libc::MSG_DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    /// Waits for one datagram and takes what else is there (MSG_WAITFORONE). The socket's own read
    /// time-out holds, as an error of the kind `WouldBlock`.
    pub fn receive_waiting(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.recvmmsg(socket, libc::MSG_WAITFORONE)
    }

    fn recvmmsg(&mut self, socket: &UdpSocket, flags: c_int) -> io::Result<usize> {
        self.filled = 0;
        for iov in self.iovecs.values_mut() {
            iov.iov_len = self.slot_len;
        }
        if !self.names.values().is_empty() {
            for header in &mut self.headers {
                header.msg_hdr.msg_namelen = size_of::<sockaddr_storage>() as socklen_t;
            }
        }
        // SAFETY: pointer and length describe the headers, each of which leads to memory of its own
        // that is as long as it says (the type's invariant) and not borrowed now.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as c_uint,
                flags as _,
                std::ptr::null_mut(),
            )
        };
        self.filled = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        let iovecs = self.iovecs.values_mut();
        for (iov, header) in iovecs.iter_mut().zip(&self.headers[..self.filled]) {
            iov.iov_len = (header.msg_len as usize).min(self.slot_len);
        }
        Ok(self.filled)
    }

    /// Sends the batch from datagram `first` on, in one call, and returns how many the kernel
    /// accepted. An error is about `first`; what follows has not been tried then.
    pub fn send(&mut self, socket: &UdpSocket, first: usize) -> io::Result<usize> {
        let Some(headers) = self.headers[..self.filled].get_mut(first..).filter(|h| !h.is_empty())
        else {
            return Ok(0);
        };
        // SAFETY: pointer and length describe a part of the headers; as in `recvmmsg`.
        let sent = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), headers.len() as c_uint, 0)
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Which of some sockets have something to read, or room to write (ppoll(2)).
#[derive(Default)]
pub struct Poll {
    fds: Vec<libc::pollfd>,
}

impl Poll {
    /// Waits until one of these sockets is readable or holds an error, or is writable if it comes
    /// with true, for at most `timeout`; returns how many are. They are known by their index
    /// afterwards. A `None` is never ready. A signal counts as the end of the time.
    pub fn wait<'s, S: AsFd + 's>(
        &mut self,
        sockets: impl IntoIterator<Item = (Option<&'s S>, bool)>,
        timeout: Duration,
    ) -> io::Result<usize> {
        self.fds.clear();
        self.fds.extend(sockets.into_iter().map(|(socket, writing)| libc::pollfd {
            // The kernel passes over negative ones.
            fd: socket.map_or(-1, |socket| socket.as_fd().as_raw_fd()),
            events: if writing { libc::POLLIN | libc::POLLOUT } else { libc::POLLIN },
            revents: 0,
        }));
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos() as _,
        };
        let (fds, count) = (self.fds.as_mut_ptr(), self.fds.len() as libc::nfds_t);
        // SAFETY: pointer and length describe the vector; the time is valid for reads; no signal
        // mask is given.
        let ready = unsafe { libc::ppoll(fds, count, &raw const timeout, std::ptr::null()) };
        if let Ok(ready) = usize::try_from(ready) {
            return Ok(ready);
        }
        let error = io::Error::last_os_error();
        self.fds.iter_mut().for_each(|fd| fd.revents = 0);
        if error.kind() == io::ErrorKind::Interrupted { Ok(0) } else { Err(error) }
    }

    /// Whether the last wait found something to read, or an error, at this index.
    #[must_use]
    pub fn is_readable(&self, index: usize) -> bool {
        self.fds.get(index).is_some_and(|fd| fd.revents & !libc::POLLOUT != 0)
    }

    /// Whether the last wait found this one ready for anything.
    #[must_use]
    pub fn is_ready(&self, index: usize) -> bool {
        self.fds.get(index).is_some_and(|fd| fd.revents != 0)
    }
}

/// A datagram taken out of an addressed batch, with the peer that it goes to.
pub struct Parcel {
    name: sockaddr_storage,
    name_len: socklen_t,
    bytes: Box<[u8]>,
}

impl Parcel {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Lets the calling thread be woken when it asked to be (PR_SET_TIMERSLACK), not up to 50 µs later.
pub fn sharpen_timers() {
    // SAFETY: this option takes one integer and touches no memory. It cannot fail.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}

/// CPU time that the calling thread has used, in ns, system calls and the softirqs that ran on top
/// of it included (unless the kernel accounts interrupts apart, CONFIG_IRQ_TIME_ACCOUNTING).
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes. The call cannot fail: every thread has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

/// Makes the command start on this core alone, and be killed when the calling thread ends.
pub fn confine(command: &mut Command, core: usize) {
    // SAFETY: a CPU set is an array of integers, for which zeroes are valid.
    let mut cores: libc::cpu_set_t = unsafe { mem::zeroed() };
    assert!(core < 8 * size_of_val(&cores), "core {core} is beyond a CPU set");
    // SAFETY: the core was checked to lie within the set.
    unsafe { libc::CPU_SET(core, &mut cores) };
    let confine = move || {
        // SAFETY: the pointer and the length describe `cores`; 0 is the calling process.
        let result = unsafe { libc::sched_setaffinity(0, size_of_val(&cores), &raw const cores) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: this option takes one integer and touches no memory.
        let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec it makes two system calls on its own copy of the set and
    // neither allocates nor takes a lock.
    unsafe { command.pre_exec(confine) };
}
