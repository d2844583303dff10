//! Short texts with an inverse: digests, UUIDs, architectures, requests for packages.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("identifiers", data));
