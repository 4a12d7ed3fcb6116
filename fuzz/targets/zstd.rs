//! See `cofferdam_fuzz::zstd`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cofferdam_fuzz::zstd::run(data));
