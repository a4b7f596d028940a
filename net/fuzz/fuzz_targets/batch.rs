#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| swiftlet_net::backend::xdp::fuzz::batch(data));
