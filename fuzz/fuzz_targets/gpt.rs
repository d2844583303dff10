//! Partition tables, with their checksums as they are and put right.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("gpt", data));
