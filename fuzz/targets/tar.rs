//! See `cofferdam_fuzz::tar`.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|data: &[u8]| cofferdam_fuzz::tar::run(data));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    cofferdam_fuzz::mutate::mutate(data, size, max_size, seed, fuzzer_mutate)
});
