//! OpenPGP keys, and what they may sign.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("openpgp_keys", data));
