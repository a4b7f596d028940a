//! How many instructions each step on the way of a packet takes, counted by callgrind.
//!
//! `make bench-check` runs all of it and compares with `bench/baseline.json`. A count is the same in
//! each run and on each x86-64 processor, because
//!
//! - inputs and hash seeds are fixed, nothing is drawn, and there is one thread;
//! - no name that goes through the run-time choice of an arm has the 64 bytes from which on it looks
//!   for AVX2; arms are called by themselves, and what has "avx2" in its name is only compared where
//!   there is AVX2;
//! - glibc is told to take the same `memcpy` and `memcmp` everywhere (see [`WITHOUT`]).
//!
//! What is prepared and what is dropped afterwards is not counted: a benchmark takes its state by
//! value and gives it back.
#![allow(missing_docs, unused_qualifications, reason = "gungraun's macros write such code")]

mod cache;
#[path = "../inputs/mod.rs"]
mod inputs;
mod names;
mod packets;
mod serve;

use gungraun::prelude::*;
use gungraun::{Callgrind, main};

use self::cache::stores;
use self::names::arms;
use self::packets::steps;
use self::serve::service;

/// Of what glibc looks for, everything that not every x86-64 processor has: SSE2 is left.
const WITHOUT: &str =
    "-AVX2,-AVX,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM,-SSSE3,-Fast_Unaligned_Copy,-SSE4_1,-SSE4_2";

/// Only instructions: simulated caches cost time and depend on the machine's.
fn config() -> LibraryBenchmarkConfig {
    let mut config = LibraryBenchmarkConfig::default();
    config
        .env("GLIBC_TUNABLES", format!("glibc.cpu.hwcaps={WITHOUT}"))
        .tool(Callgrind::with_args(["--cache-sim=no"]));
    config
}

main!(config = config(), library_benchmark_groups = [steps, arms, stores, service]);
