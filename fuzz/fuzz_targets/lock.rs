//! Locks: one that is read is canonical when it is written, and nothing in it leads out of an archive.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("lock", data));
