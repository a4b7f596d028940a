//! The server `swiftlet`: a DNS resolver whose answers to known names cost little more than echoing the
//! packet.
//!
//! Read [`worker`] first, the loop of one core, then [`pipeline`], the way of a packet. `ARCHITECTURE.md`
//! is the map.

pub mod backend;
pub mod cache;
pub mod clients;
pub mod config;
mod control;
pub mod desk;
pub mod edns;
pub mod features;
pub mod filters;
pub mod flush;
pub mod health;
pub mod lifecycle;
pub mod mailbox;
pub mod pipeline;
pub mod policy;
pub mod resolver;
pub mod startup;
pub mod stream;
pub mod telemetry;
pub mod upstream;
pub mod worker;
