//! Changelogs of packages: every entry is a part of the text, and a run of entries starts with the newest.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adamant_fuzz::run("changelog", data));
