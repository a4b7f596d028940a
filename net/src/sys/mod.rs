//! Every system call of the workspace that the standard library doesn't wrap, each behind a safe
//! surface.
//!
//! `cmsg` and `sockaddr` read and write the kernel's structures as plain bytes and need no unsafe
//! code.

#[cfg(feature = "af-xdp")]
pub(crate) mod bpf;
#[cfg(feature = "af-xdp")]
pub(crate) mod channels;
pub(crate) mod client;
pub(crate) mod cmsg;
pub(crate) mod mmsg;
pub(crate) mod netlink;
pub(crate) mod region;
pub(crate) mod resource;
#[cfg(feature = "af-xdp")]
mod ring;
pub(crate) mod segments;
pub(crate) mod sockaddr;
pub(crate) mod sockopt;
pub(crate) mod time;
#[cfg(feature = "af-xdp")]
pub(crate) mod umem;
#[cfg(feature = "io-uring")]
pub(crate) mod uring;
pub mod watch_set;
pub(crate) mod watched;
#[cfg(feature = "af-xdp")]
pub(crate) mod xsk;
