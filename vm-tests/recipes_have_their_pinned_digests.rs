//! The images of `recipes/`, built from their committed locks, are those of `recipes/DIGESTS`: whoever changes a byte of
//! them changes that file in the same commit.

use std::fs;
use std::path::Path;

use adamant::digest::Digest;

use crate::support;

#[test]
fn recipes_have_their_pinned_digests() {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let pinned = fs::read_to_string(recipes.join("DIGESTS")).unwrap();
    let mut found = String::new();
    let mut names: Vec<String> = fs::read_dir(&recipes)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".toml").map(str::to_owned))
        .collect();
    names.sort();
    for name in names {
        let Some(built) = support::built(&name) else { return };
        let lock = fs::read(recipes.join(format!("{name}.lock"))).unwrap();
        let digest = if built.manifest.lock_sha256 == Digest::of(&lock) {
            built.manifest.digest().to_string()
        } else {
            // Nobody can build the pinned image any more without a snapshot of the archive.
            eprintln!("{name}: the archive has dropped a package that {name}.lock names; its digest is not compared");
            let line = pinned.lines().find(|line| line.ends_with(&format!("  {name}")));
            line.and_then(|line| line.split(' ').next()).unwrap_or("no digest").to_owned()
        };
        found.push_str(&format!("{digest}  {name}\n"));
    }
    assert_eq!(found, pinned, "the left side is what recipes/DIGESTS must say, if the change is meant");
}
