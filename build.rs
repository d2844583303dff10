//! Gives the program the digest of the source that stage results depend on, as `ADAMANT_STAGE_SOURCE`: a result in the
//! store that other source made is never taken for one of this source, with no number that somebody has to raise.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// What only looks at images, or talks: no result of a stage depends on it.
const READERS: &[&str] = &["cli", "diff", "inspect", "main.rs", "telemetry", "verify", "vm"];

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=Cargo.lock");
    let mut files = vec![root.join("Cargo.lock")];
    for entry in entries(&root.join("src")) {
        if !READERS.iter().any(|name| entry.ends_with(name)) {
            collect(entry, &mut files);
        }
    }
    let mut hasher = Sha256::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
        let bytes = fs::read(&file).unwrap_or_else(|error| panic!("cannot read {name}: {error}"));
        for part in [name.as_bytes(), &bytes] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    let digest: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    println!("cargo::rustc-env=ADAMANT_STAGE_SOURCE={digest}");
}

fn collect(path: PathBuf, files: &mut Vec<PathBuf>) {
    if path.is_dir() {
        entries(&path).into_iter().for_each(|entry| collect(entry, files));
    } else {
        files.push(path);
    }
}

/// By name, so that the digest is the same everywhere.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(directory).unwrap_or_else(|error| panic!("cannot read {}: {error}", directory.display()));
    let mut entries: Vec<PathBuf> = read.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries
}
