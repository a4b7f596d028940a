//! This server and the bare echo side by side: server CPU per answer, as a ratio.

fn main() {}
