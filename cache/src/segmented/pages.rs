//! What pages an allocation is made of: the system's usual ones, or huge ones, of which the processor
//! needs fewer translations to reach the same memory.

#![expect(unsafe_code, reason = "madvise(2) takes an address")]

use std::alloc::Layout;
use std::ptr::NonNull;

/// Bytes of a huge page: those of x86-64, and of AArch64 with usual pages of 4 KiB.
const HUGE_LEN: usize = 2 << 20;

/// The pages of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    /// As the system likes.
    Usual,
    /// Huge ones for all of it that is at least one page, as far as the system has them.
    Huge,
}

impl Pages {
    /// The layout of an allocation that is to have such pages.
    pub(super) fn layout(self, layout: Layout) -> Layout {
        match self {
            Self::Huge if layout.size() >= HUGE_LEN => {
                layout.align_to(HUGE_LEN).expect("less than the address space")
            }
            _ => layout,
        }
    }

    /// Asks for such pages for an allocation of that layout, before it is used: memory that has
    /// pages keeps them for long.
    pub(super) fn ask(self, first: NonNull<u8>, layout: Layout) {
        // Whole pages alone, for what is behind the allocation is not ours.
        let len = layout.size() / HUGE_LEN * HUGE_LEN;
        if self == Self::Usual || len == 0 {
            return;
        }
        let advice = rustix::mm::Advice::LinuxHugepage;
        // SAFETY: these bytes are in the allocation, and the advice changes none of them.
        let asked = unsafe { rustix::mm::madvise(first.as_ptr().cast(), len, advice) };
        // A kernel without huge pages has usual ones, and the cache is as good as without asking.
        let _ = asked;
    }
}
