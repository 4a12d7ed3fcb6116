//! See `cofferdam_fuzz::plugin`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cofferdam_fuzz::plugin::run(data));
