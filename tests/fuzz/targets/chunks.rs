//! See `bodies::chunks`.
#![no_main]

#[allow(dead_code, reason = "each target runs one of them")]
#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::chunks(bytes));
