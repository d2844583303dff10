//! Account files of a tree, as package scripts may leave them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("accounts", data));
