//! See `src/log.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| muster_fuzz::log::run(bytes));
