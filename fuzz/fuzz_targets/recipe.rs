//! A chain of recipes, laid over each other; what comes of it is applied to a small tree.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("recipe", data));
