//! What the server says of itself: counters, and the HTTP endpoint that shows them.

pub mod counters;
pub mod http;
mod metrics;
mod query;
pub mod sightings;

pub use counters::{Board, Counter, Counters, Tally};
