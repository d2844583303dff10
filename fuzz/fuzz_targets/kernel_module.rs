//! Kernel modules, plain and compressed, that name each other.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("kernel_module", data));
