//! Manifests: only the canonical text of one is one. Paths as they have them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("manifest", data));
