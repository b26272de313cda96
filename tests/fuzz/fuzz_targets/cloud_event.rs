//! See `src/cloud_event.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| muster_fuzz::cloud_event::run(bytes));
