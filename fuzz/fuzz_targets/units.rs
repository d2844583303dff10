//! A unit file that a recipe enables, disables or masks, with drop-ins and aliases.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("units", data));
