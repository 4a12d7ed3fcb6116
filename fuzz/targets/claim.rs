//! See `cofferdam_fuzz::claim`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cofferdam_fuzz::claim::run(data));
