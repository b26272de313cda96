//! See `src/status.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| muster_fuzz::status::run(bytes));
