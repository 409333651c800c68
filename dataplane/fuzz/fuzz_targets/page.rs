//! The page codec, both directions: see `novacron_fuzz::page`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| novacron_fuzz::page::run(input));
