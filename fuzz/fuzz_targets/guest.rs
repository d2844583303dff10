//! What a guest's agent and QEMU say.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("guest", data));
