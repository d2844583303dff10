//! The text of a tree: one that is read is canonical when it is written.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("tree_dump", data));
