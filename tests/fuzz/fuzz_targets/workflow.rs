//! See `src/workflow.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| muster_fuzz::workflow::run(bytes));
