//! The file that an unpacked package is kept in.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("deb_index", data));
