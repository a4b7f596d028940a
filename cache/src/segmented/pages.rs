//! What pages an allocation is made of: the system's usual ones, or huge ones, of which the processor
//! needs fewer translations to reach the same memory.

#![expect(unsafe_code, reason = "madvise(2) takes an address")]

use std::alloc::Layout;
use std::ptr::NonNull;

use rustix::mm::{Advice, madvise};

/// Bytes of a huge page: those of x86-64, and of AArch64 with usual pages of 4 KiB.
const HUGE_LEN: usize = 2 << 20;

/// The pages of an allocation: huge ones asked for, or forbidden, or as the allocator and the system
/// like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pages(pub(super) Option<bool>);

impl Pages {
    /// The layout of an allocation that is to have such pages.
    pub(super) fn layout(self, layout: Layout) -> Layout {
        match self.0 {
            Some(_) if layout.size() >= HUGE_LEN => {
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
        let advice = match self.0 {
            Some(true) => Advice::LinuxHugepage,
            Some(false) => Advice::LinuxNoHugepage,
            None => return,
        };
        if len == 0 {
            return;
        }
        // SAFETY: these bytes are in the allocation, and the advice changes none of them.
        let asked = unsafe { madvise(first.as_ptr().cast(), len, advice) };
        // A kernel without huge pages has usual ones, and the cache is as good as without asking.
        let _ = asked;
    }
}
