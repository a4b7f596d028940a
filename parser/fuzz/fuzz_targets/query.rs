#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| swiftlet_parser::fuzz::query(data));
