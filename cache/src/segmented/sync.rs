//! What loom must see of the cache: the slots of the table, the locks of the shards, and when an
//! entry's memory is written, read and freed. In a usual build all of this is the standard
//! library's, and [`Witness`] nothing.

#[cfg(not(loom))]
pub(super) use std::{
    alloc::{alloc, dealloc},
    sync::atomic::AtomicPtr,
    sync::{Mutex, MutexGuard},
};

#[cfg(loom)]
pub(super) use loom::{
    alloc::{alloc, dealloc},
    sync::atomic::AtomicPtr,
    sync::{Mutex, MutexGuard},
};

/// Stands for the bytes of an entry that are not atomic.
#[cfg(not(loom))]
pub(super) struct Witness;

#[cfg(not(loom))]
impl Witness {
    pub(super) fn new() -> Self {
        Self
    }

    /// They are read.
    #[inline]
    pub(super) fn read(&self) {}

    /// They are written or freed.
    #[inline]
    pub(super) fn write(&self) {}
}

/// Stands for the bytes of an entry that are not atomic: loom ends with an error when they may be
/// read by one thread while another writes or frees them.
#[cfg(loom)]
pub(super) struct Witness(loom::cell::UnsafeCell<()>);

#[cfg(loom)]
impl Witness {
    pub(super) fn new() -> Self {
        Self(loom::cell::UnsafeCell::new(()))
    }

    pub(super) fn read(&self) {
        self.0.with(|_| ());
    }

    pub(super) fn write(&self) {
        self.0.with_mut(|_| ());
    }
}
