//! What the server says of itself: counters, and the HTTP endpoint that shows them.

pub mod counters;
pub mod http;
mod metrics;
mod query;
pub mod sightings;
#[cfg(feature = "af-xdp")]
mod xdp;

pub use counters::{Board, Counter, Counters, Tally};
