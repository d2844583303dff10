//! os-release files: the image's own name and version come back.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("os_release", data));
