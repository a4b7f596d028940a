//! Parsing, keys, rendering and building.

use std::hint::black_box;

use gungraun::prelude::*;
use swiftlet_parser::key::{KeyBuf, Seed, Variant};
use swiftlet_parser::query::{self, Query};
use swiftlet_parser::rr::{Class, Type};
use swiftlet_parser::template::{self, Template};

use crate::inputs::answers::{self, Respond};
use crate::inputs::{Make, names, queries, stored};

/// Inputs of each benchmark.
const INPUTS: u64 = 64;

/// Age of rendered answers in s: every TTL is rewritten.
const AGE_S: u32 = 60;

/// Bytes that a reply may have.
const LIMIT: usize = 1232;

fn made(make: Make) -> Vec<Vec<u8>> {
    (0..INPUTS).map(make).collect()
}

#[library_benchmark(setup = made)]
#[bench::plain(queries::plain)]
#[bench::edns(queries::edns)]
#[bench::cookie(queries::cookie)]
#[bench::long(queries::long)]
#[bench::hostile(queries::hostile)]
fn parse(packets: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    for packet in &packets {
        black_box(query::parse(black_box(packet))).ok();
    }
    packets
}

/// What building keys needs.
struct Named {
    seed: Seed,
    keys: KeyBuf,
    names: Vec<Vec<u8>>,
}

fn named(make: Make) -> Named {
    Named { seed: stored::seed(), keys: KeyBuf::default(), names: made(make) }
}

fn short(number: u64) -> Vec<u8> {
    names::of_length(7, number)
}

fn mixed_case(number: u64) -> Vec<u8> {
    names::recased(&names::usual(number), number)
}

#[library_benchmark(setup = named)]
#[bench::short(short)]
#[bench::usual(names::usual)]
#[bench::mixed_case(mixed_case)]
fn key(mut named: Named) -> Named {
    let variant = Variant::new(false, false, 0);
    for name in &named.names {
        let key = named.keys.build(&named.seed, black_box(name), Type::A, Class::IN, variant);
        black_box((key.hash, key.bytes));
    }
    named
}

/// Queries in their buffers, and the stored answers to them.
struct Asked {
    buffers: Vec<(Vec<u8>, Query)>,
    stored: Vec<Vec<u8>>,
}

fn asked(respond: Respond) -> Asked {
    let buffer = |mut packet: Vec<u8>| {
        let query = query::parse(&packet).expect("a valid query");
        packet.resize(LIMIT, 0);
        (packet, query)
    };
    Asked {
        buffers: made(queries::plain).into_iter().map(buffer).collect(),
        stored: responses(respond).iter().map(|response| answers::template(response)).collect(),
    }
}

#[library_benchmark(setup = asked)]
#[bench::address(answers::address)]
#[bench::chain(answers::chain)]
#[bench::thirteen(answers::thirteen)]
fn render(mut asked: Asked) -> Asked {
    for ((buf, query), stored) in asked.buffers.iter_mut().zip(&asked.stored) {
        let template = Template::from_bytes(black_box(stored)).expect("a template");
        black_box(template::render(template, black_box(buf), query, AGE_S, LIMIT));
    }
    asked
}

fn responses(respond: Respond) -> Vec<Vec<u8>> {
    (0..INPUTS).map(|number| respond(&names::usual(number))).collect()
}

#[library_benchmark(setup = responses)]
#[bench::address(answers::address)]
#[bench::chain(answers::chain)]
#[bench::thirteen(answers::thirteen)]
fn parse_and_build(responses: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    for response in &responses {
        black_box(answers::template(black_box(response)));
    }
    responses
}

library_benchmark_group!(name = steps, benchmarks = [parse, key, render, parse_and_build]);
