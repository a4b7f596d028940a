//! DNS bytes, and nothing else: no I/O, no clock, no allocation on the way of a query.
//!
//! The files in the order a packet meets them: [`query`] reads the facts of a client's query in one
//! pass, [`key`] turns its question into what the cache is asked for, [`template`] holds an answer in
//! the form that is stored and renders it behind the client's own question, [`edns`] finishes the
//! reply with a fresh OPT record. On the way of a miss, [`message`] writes the question to an
//! upstream and [`response`] looks at what came back.
//!
//! Input cannot panic: indexing, `unwrap` and their like are denied outside tests, one cursor type
//! reads, and compression pointers are followed strictly backwards.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable
    )
)]

mod cursor;
pub mod edns;
#[doc(hidden)]
pub mod fuzz;
pub mod key;
pub mod message;
pub mod name;
pub mod query;
mod rdata;
pub mod response;
pub mod rr;
pub mod template;
