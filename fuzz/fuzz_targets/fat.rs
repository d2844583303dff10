//! FAT32 volumes: the input is laid over the front of a volume of the smallest size.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("fat", data));
