//! dm-verity: the first half of the input is the hash partition, the second the data.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("verity", data));
