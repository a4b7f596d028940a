//! The memory of an AF_XDP socket (UMEM): frames that belong to the kernel or to us, never to both.
#![expect(unsafe_code, reason = "mmap(2), and memory that the kernel writes")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{NonNull, null_mut};
use std::slice;

/// A frame that is ours: whoever holds it may read and write it. It is made by [`Umem::new`] and by
/// the rings when the kernel gives a frame back, and neither copied nor made otherwise; dropping one
/// loses the frame.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
#[must_use = "a frame that is dropped is lost"]
pub(crate) struct Frame(u32);

impl Frame {
    /// The frame is with us again: the kernel has said so in a ring.
    pub(super) fn returned(number: u32) -> Self {
        Self(number)
    }
}

/// Memory for frames of equal length, aligned to pages, apart from any socket.
pub(crate) struct Umem {
    area: Mapping,
    frame_len: usize,
    count: u32,
}

impl Umem {
    /// Zeroed memory for `count` frames of `frame_len` bytes each, all of them ours.
    pub(crate) fn new(frame_len: usize, count: u32) -> io::Result<(Self, Vec<Frame>)> {
        let area = Mapping::anonymous(frame_len * count as usize)?;
        Ok((Self { area, frame_len, count }, (0..count).map(Frame).collect()))
    }

    /// Bytes of a frame.
    pub(crate) fn frame_len(&self) -> usize {
        self.frame_len
    }

    /// All of it.
    pub(super) fn area(&self) -> &Mapping {
        &self.area
    }

    /// The frame at this address of a ring, if there is one, and the offset within it.
    pub(super) fn locate(&self, address: u64) -> Option<(u32, usize)> {
        let (number, offset) = (address / self.frame_len as u64, address as usize % self.frame_len);
        (number < self.count.into()).then_some((number as u32, offset))
    }

    /// Where a frame begins, as rings say it.
    pub(super) fn address(&self, frame: &Frame) -> u64 {
        u64::from(frame.0) * self.frame_len as u64
    }

    /// What is in a frame.
    pub(crate) fn bytes(&self, frame: &Frame) -> &[u8] {
        let first = self.first(frame);
        // SAFETY: the frame lies within the mapping, which lives as long as `self`; it is ours, so
        // the kernel leaves it alone (whoever has several memories keeps their frames apart), and who
        // writes to it borrows `self` mutably.
        unsafe { slice::from_raw_parts(first.as_ptr(), self.frame_len) }
    }

    /// What is in a frame.
    pub(crate) fn bytes_mut(&mut self, frame: &mut Frame) -> &mut [u8] {
        let first = self.first(frame);
        // SAFETY: as in `bytes`, and nothing else of the memory is borrowed.
        unsafe { slice::from_raw_parts_mut(first.as_ptr(), self.frame_len) }
    }

    fn first(&self, frame: &Frame) -> NonNull<u8> {
        assert!(frame.0 < self.count, "a frame of another memory");
        // SAFETY: within the mapping, by the assertion.
        unsafe { self.area.first.add(frame.0 as usize * self.frame_len) }
    }
}

/// Pages of memory, unmapped when dropped.
pub(super) struct Mapping {
    first: NonNull<u8>,
    len: usize,
}

// SAFETY: the pages belong to this value and to no thread.
unsafe impl Send for Mapping {}

impl Mapping {
    fn anonymous(len: usize) -> io::Result<Self> {
        Self::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    /// Memory that a socket shares: `offset` says which.
    pub(super) fn shared(socket: BorrowedFd<'_>, len: usize, offset: i64) -> io::Result<Self> {
        Self::map(len, libc::MAP_SHARED | libc::MAP_POPULATE, socket.as_raw_fd(), offset)
    }

    fn map(len: usize, flags: i32, file: i32, offset: i64) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let memory = unsafe { libc::mmap(null_mut(), len, protection, flags, file, offset) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let first = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { first, len })
    }

    pub(super) fn first(&self) -> NonNull<u8> {
        self.first
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length, and unmapped once.
        unsafe { libc::munmap(self.first.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_apart_and_found_by_their_address() {
        let (mut umem, mut frames) = Umem::new(2048, 3).unwrap();
        for frame in &mut frames {
            let number = frame.0 as u8 + 1;
            umem.bytes_mut(frame).fill(number);
        }
        for (at, frame) in frames.iter().enumerate() {
            assert!(umem.bytes(frame).iter().all(|&byte| usize::from(byte) == at + 1));
            assert_eq!(umem.locate(umem.address(frame) + 256), Some((at as u32, 256)));
        }
        assert_eq!(umem.locate(3 * 2048), None);
    }
}
