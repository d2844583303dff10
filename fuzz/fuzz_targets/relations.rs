//! Relationship fields and versions: one of each on a line.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("relations", data));
