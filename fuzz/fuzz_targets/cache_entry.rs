//! What a cache has of a stage's result: as it is, and with the signature put right.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("cache_entry", data));
