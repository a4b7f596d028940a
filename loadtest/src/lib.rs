//! The load generator, and an authority that answers anything.
//!
//! [`Queries`] holds the packets, built before the first is sent. [`run`] keeps a window of them
//! outstanding over some sockets (a closed loop) and returns a [`Report`]. An [`Authority`] answers
//! whatever a resolver under test asks upstream.

mod authority;
mod generator;
mod lane;
mod load;
mod queries;
mod report;

pub use authority::Authority;
pub use lane::MAX_WINDOW_PER_SOCKET;
pub use load::{Limit, Load, LoadError, run};
pub use queries::{MAX_QUERIES, Queries, QueriesError};
pub use report::Report;
