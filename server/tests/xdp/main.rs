//! The server over AF_XDP, end to end: over a veth pair of the test's own, with real clients at its other
//! end, in network namespaces of which nothing is left.

#![cfg(feature = "af-xdp")]

#[path = "../../../net/tests/frames/build.rs"]
mod build;
#[path = "../support/mod.rs"]
mod support;

mod capture;
mod frames;
mod lifecycle;
mod load;
mod queries;
mod refusals;
mod rig;
mod wire;
