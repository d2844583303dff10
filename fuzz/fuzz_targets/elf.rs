//! Programs and libraries: what they need is looked for beside them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("elf", data));
