//! See `cofferdam_fuzz::name`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cofferdam_fuzz::name::run(data));
