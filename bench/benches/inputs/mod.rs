//! What the benchmarks work on: names, queries, answers, and a cache and a service that know them.
//!
//! Everything is the same in each run, also where it looks random: instruction counts are compared
//! with those of another day.

pub(crate) mod answers;
pub(crate) mod names;
pub(crate) mod queries;
pub(crate) mod served;
pub(crate) mod stored;

/// Makes the `number`th of a kind: a name or a packet.
pub(crate) type Make = fn(u64) -> Vec<u8>;

/// The `number`th of a sequence without visible pattern: the finalizer of SplitMix64.
pub(crate) fn scattered(number: u64) -> u64 {
    let number = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
