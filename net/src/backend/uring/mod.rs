//! Datagrams over io_uring(7).

mod echo;

pub use echo::Echo;
