//! EROFS images, with the super block's checksum and without.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("erofs", data));
