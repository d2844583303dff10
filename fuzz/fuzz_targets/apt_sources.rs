//! apt's sources in both formats.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("apt_sources", data));
