//! Memory that the kernel reaches through pointers which outlive any one call.
#![expect(unsafe_code, reason = "memory that is seen only through raw pointers")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::slice;

/// Plain data.
///
/// # Safety
/// Every byte pattern that the kernel may leave, zeroes first of all, must be a value of the type,
/// and it must not need to be dropped.
pub(crate) unsafe trait Plain {}

// SAFETY: an integer.
unsafe impl Plain for u8 {}

// SAFETY: a C structure of a pointer, which nobody here follows, and an integer.
unsafe impl Plain for libc::iovec {}

// SAFETY: a C structure of integers.
unsafe impl Plain for libc::sockaddr_storage {}

/// Zeroed memory for `count` values of `T`, owned by raw pointer, so that the kernel's pointers
/// stay valid whatever is borrowed in between: a borrow is made anew from that pointer each time
/// and has ended when the kernel is called, for the call borrows the owner mutably. Memory owned as
/// a `Vec` or `Box` would not do, as each mutable borrow of it is a claim to be its only pointer.
pub(crate) struct Region<T: Plain> {
    first: NonNull<T>,
    count: usize,
}

impl<T: Plain> Region<T> {
    pub(crate) fn new(count: usize) -> Self {
        let layout = Self::layout(count);
        if layout.size() == 0 {
            return Self { first: NonNull::dangling(), count: 0 };
        }
        // SAFETY: the size of the layout isn't zero.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(first) = NonNull::new(memory.cast()) else { handle_alloc_error(layout) };
        Self { first, count }
    }

    /// The pointer to one value, which also leads to those behind it.
    pub(crate) fn at(&self, at: usize) -> NonNull<T> {
        assert!(at < self.count, "no value {at} among {}", self.count);
        // SAFETY: `at` is within the allocation.
        unsafe { self.first.add(at) }
    }

    /// The values, for as long as the kernel isn't called.
    pub(crate) fn values(&self) -> &[T] {
        // SAFETY: the pointer starts `count` values (dangling for none), plain data and zeroed at
        // first; they live as long as `self` and are written only through `&mut self`, or by the
        // kernel in a call of whoever has that.
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }

    /// The values, for as long as the kernel isn't called.
    pub(crate) fn values_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `values`, and nothing else is borrowed.
        unsafe { slice::from_raw_parts_mut(self.first.as_ptr(), self.count) }
    }

    fn layout(count: usize) -> Layout {
        // Messages are counted in thousands at most, and so are the bytes of each.
        Layout::array::<T>(count)
            .unwrap_or_else(|_| unreachable!("a region larger than the address space"))
    }
}

impl<T: Plain> Drop for Region<T> {
    fn drop(&mut self) {
        if self.count > 0 {
            // SAFETY: allocated in `new` with this layout, and freed once.
            unsafe { dealloc(self.first.as_ptr().cast(), Self::layout(self.count)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_outlive_borrows() {
        let mut region = Region::<u8>::new(4);
        let third = region.at(2);
        region.values_mut().copy_from_slice(&[1, 2, 3, 4]);
        // SAFETY: it points into the region, which is borrowed by nobody now.
        unsafe { third.write(7) };
        assert_eq!(region.values(), [1, 2, 7, 4]);
        assert!(Region::<u8>::new(0).values_mut().is_empty());
    }
}
