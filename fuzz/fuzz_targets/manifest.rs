//! Manifests, lists of digests, and paths as text.
#![no_main]

use adamant::manifest::{Manifest, parse_checksums, path_from_text, path_to_text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = parse_checksums(data);
    if let Ok(manifest) = Manifest::parse(data) {
        assert_eq!(manifest.to_json().as_bytes(), data);
    }
    assert_eq!(path_from_text(&path_to_text(data)).as_deref(), Ok(data));
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = path_from_text(text);
    }
});
