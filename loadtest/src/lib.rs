//! The load generator, and an authority that answers anything.
//!
//! [`Queries`] holds the packets, built before the first is sent. [`run`] keeps a window of them
//! outstanding over some sockets (a closed loop) and returns a [`Report`]; [`run_with`] sends them
//! on schedule (an open loop), or over TCP. An [`Authority`] answers whatever a resolver under test
//! asks upstream.

mod authority;
mod carrier;
mod comparison;
mod content;
mod generator;
pub mod html;
mod lane;
mod load;
mod order;
mod outcome;
mod pcap;
mod process;
mod queries;
mod random;
mod report;
mod search;
pub mod values;

pub use authority::{Authority, Behaviour, CHAIN_MAX, Delay, TEXT_MAX, Zone};
pub use comparison::comparison;
pub use content::Content;
pub use lane::MAX_WINDOW_PER_SOCKET;
pub use load::{Limit, Load, LoadError, Options, Transport, run, run_with};
pub use outcome::{Checked, Outcome, Run, Server, Step};
pub use process::Usage;
pub use queries::{Builder, MAX_QUERIES, Queries, QueriesError, Shape};
pub use report::{Report, Second, Verdict};
pub use search::highest as highest_rate;
