//! The whole way of a packet that needs no upstream, for one batch.

use std::hint::black_box;
use std::net::IpAddr;

use gungraun::prelude::*;

use crate::inputs::served::{BATCH, CLIENT, Packets, STRANGER, Served};
use crate::inputs::{Make, queries};

/// Names that the cache knows: more than are asked for, but soon stored.
const NAMES: u64 = 1024;

/// A service and a batch for it.
struct Ready {
    served: Served,
    packets: Packets,
    client: IpAddr,
}

fn ready(query: Make, client: IpAddr) -> Ready {
    let made: Vec<Vec<u8>> = (0..BATCH as u64).map(query).collect();
    let mut packets = Packets::new();
    packets.fill(made.iter().map(Vec::as_slice));
    Ready { served: Served::new(NAMES), packets, client }
}

#[library_benchmark(setup = ready)]
#[bench::hit(queries::plain, CLIENT)]
#[bench::hit_edns(queries::edns, CLIENT)]
#[bench::hit_cookie(queries::cookie, CLIENT)]
#[bench::local_answer(queries::chaos, CLIENT)]
#[bench::refused(queries::plain, STRANGER)]
#[bench::hostile(queries::hostile, CLIENT)]
fn batch(mut ready: Ready) -> Ready {
    black_box(ready.served.serve(black_box(&mut ready.packets), ready.client));
    ready
}

library_benchmark_group!(name = service, benchmarks = [batch]);
