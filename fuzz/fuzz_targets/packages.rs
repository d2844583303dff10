//! Package indexes, and the resolution of what they say.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("packages", data));
