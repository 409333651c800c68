//! Two sessions and a network that a script drives: see `novacron_fuzz::session`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| novacron_fuzz::session::run(input));
