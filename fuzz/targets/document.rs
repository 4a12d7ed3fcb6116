//! See `cofferdam_fuzz::document`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cofferdam_fuzz::document::run(data));
