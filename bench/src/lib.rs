//! This server, its peers and the bare echo side by side: server CPU per answer, as a ratio.
//!
//! [`rounds`] is the measuring: pairs of rounds, one server at a time. [`hit`] puts one server beside
//! the echo; [`compare`] puts all of [`peers`] there too, for each [`workload`], with [`latency`]
//! and [`memory`]. [`ablation`] puts it beside itself with one switch turned at a time, [`backends`]
//! io_uring beside recvmmsg, [`xdp`] AF_XDP beside sockets. [`echo`] is the yardstick, [`process`] starts them all, [`accounting`] reads what
//! they used, [`interval`] judges the ratios, [`outcome`] is what comes of it and [`report`] shows it.
//! [`generator`] measures the load generator itself, [`cache`] the answer cache beside others of its
//! kind.
//!
//! Apart from that, [`instructions`] compares the instruction counts of the hot functions, which the
//! benchmark of that name makes, with the committed ones.

pub mod ablation;
pub mod accounting;
pub mod backends;
pub mod cache;
pub mod compare;
pub mod echo;
pub mod generator;
pub mod hit;
pub mod instructions;
pub mod interval;
pub mod latency;
pub mod memory;
pub mod outcome;
pub mod peers;
pub mod process;
pub mod report;
pub mod rounds;
pub mod subject;
pub mod workload;
pub mod xdp;
