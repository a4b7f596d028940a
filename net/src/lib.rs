//! Datagrams and file descriptors: I/O backends, sockets, pinning, clocks and buffer pools; knows
//! no DNS.
//!
//! Read [`backend`] first: the one trait through which a worker receives and answers client
//! datagrams. Every libc call of the workspace is in the private module `sys`, behind safe
//! wrappers.

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!(
    "swiftlet-net needs a 64-bit Linux: the message headers of recvmmsg(2) are laid out for it"
);

pub mod backend;
mod cgroup;
pub mod client;
pub mod clock;
pub mod cores;
pub mod limits;
pub mod memory;
pub mod network;
pub mod owner;
pub mod pool;
pub mod route;
pub mod socket;
mod sys;

pub use backend::{Backend, Options, Packet, Received, Sent};
pub use clock::{Clock, Now};
pub use pool::PooledBuf;
pub use route::Route;
pub use socket::{Listener, OpenError};
pub use sys::watch_set;
