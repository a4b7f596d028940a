//! This server and the bare echo side by side: server CPU per answer, as a ratio.
//!
//! [`hit`] is the measuring, the files beside it its parts: [`echo`] is what the server is compared
//! to, [`process`] starts both, [`accounting`] reads what they used, [`interval`] judges the ratios
//! and [`report`] shows them. [`generator`] measures
//! the load generator itself.

pub mod accounting;
pub mod echo;
pub mod generator;
pub mod hit;
pub mod interval;
pub mod process;
pub mod report;
