//! The archives in a package, their headers' checksums put right: once as the control archive, once as the data.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("deb_tar", data));
