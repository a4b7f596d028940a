//! The load generator, and an authority that answers anything.

fn main() {}
