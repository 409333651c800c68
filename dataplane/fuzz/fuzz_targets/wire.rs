//! Every reader of the wire format: see `novacron_fuzz::wire`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| novacron_fuzz::wire::run(input));
