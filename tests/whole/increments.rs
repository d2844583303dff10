//! Only the work that a change needs, and the same bits as from nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use adamant::digest::Digest;
use serde_json::Value;

use crate::support::packages::Package;
use crate::support::workshop::{Archived, Ended, Workshop, noise};

/// Builds, and tells which stages were found done.
#[track_caller]
fn build(workshop: &Workshop) -> BTreeMap<String, bool> {
    let built = Ended::of(&mut workshop.build_with(&["--json"]));
    built.expect(0, &[]);
    let built: Value = serde_json::from_str(&built.stdout).unwrap();
    let stage = |stage: &Value| (stage["name"].as_str().unwrap().to_owned(), stage["cached"].as_bool().unwrap());
    built["stages"].as_array().unwrap().iter().map(stage).collect()
}

/// What comes out when the same recipe is built with an empty store.
#[track_caller]
fn from_nothing(workshop: &Workshop) -> BTreeMap<String, Digest> {
    let store = workshop.path("other-store");
    let out = workshop.path("other-out");
    let mut command = workshop.adamant(&["build", "--mirror", &workshop.server.url(), "--store"]);
    command.arg(&store).arg("--out").arg(&out).arg(workshop.recipe());
    Ended::of(&mut command).expect(0, &[]);
    let image = crate::support::workshop::image_in(&out).unwrap();
    fs::remove_dir_all(store).unwrap();
    fs::remove_dir_all(out).unwrap();
    image
}

/// The files that hold compressed data, the largest last.
fn compressed(workshop: &Workshop) -> Vec<PathBuf> {
    let results = fs::read_dir(workshop.path("store/stages/compress")).unwrap();
    let mut files: Vec<PathBuf> = results.map(|entry| entry.unwrap().path().join("content/segments")).collect();
    files.sort_by_key(|file| fs::metadata(file).unwrap().len());
    files
}

/// A package with files of every kind that is compressed: small, large, and one of several segments.
fn library() -> Package {
    let text = |count: u32| (0..count).map(|line| format!("line {} of it\n", line % 9973 * 7919 % 9973)).collect::<String>();
    let mut package = Package::new("library", "").file("usr/share/library/huge", 0o644, text(600_000));
    for number in 0..40 {
        package = package.file(&format!("usr/share/library/small-{number}"), 0o644, text(500 + number * 41));
        package = package.file(&format!("usr/share/library/large-{number}"), 0o644, text(9_000 + number));
    }
    package.file("usr/share/library/noise", 0o644, &noise(900_000)[300_000..])
}

fn workshop() -> Option<Workshop> {
    let archived = Archived::with(&[library(), Package::new("extra", "").file("usr/bin/extra", 0o755, "extra\n")])?;
    let workshop = Workshop::of(&archived);
    workshop.edit("\"greeter\"]", "\"greeter\", \"library\"]");
    Some(workshop)
}

#[test]
fn a_changed_file_runs_no_script_and_compresses_nothing_else() {
    let Some(workshop) = workshop() else { return };
    assert!(build(&workshop).values().all(|cached| !cached));
    assert_eq!(workshop.image(), Some(from_nothing(&workshop)));
    let before: Vec<PathBuf> = compressed(&workshop);
    let size = |file: &PathBuf| fs::metadata(file).unwrap().len();
    let base = size(&before[before.len() - 1]);
    workshop.write("issue", "another welcome\n");
    let stages = build(&workshop);
    for stage in ["unpack", "configure", "initrd", "compress"] {
        assert_eq!(stages.get(stage), Some(&true), "{stage}");
    }
    assert_eq!(workshop.image(), Some(from_nothing(&workshop)));
    let new: Vec<PathBuf> = compressed(&workshop).into_iter().filter(|file| !before.contains(file)).collect();
    let [new] = new.as_slice() else { panic!("{new:?} is what the image added") };
    assert!(size(new) < base / 4, "{} bytes were compressed again, of {base}", size(new));
    // And back: that image is there still.
    workshop.write("issue", "welcome\n");
    assert_eq!(build(&workshop), BTreeMap::from([("image".to_owned(), true)]));
}

#[test]
fn damaged_compressed_data_is_named_compressed_again_and_never_used() {
    let Some(workshop) = workshop() else { return };
    build(&workshop);
    let damage = || {
        let file = compressed(&workshop).pop().unwrap();
        let mut bytes = fs::read(&file).unwrap();
        for at in (0..bytes.len() - 20_000).step_by(1000) {
            bytes[at] ^= 1;
        }
        fs::write(&file, bytes).unwrap();
        file
    };
    let damaged = damage();
    workshop.write("issue", "another welcome\n");
    build(&workshop);
    assert_eq!(workshop.image(), Some(from_nothing(&workshop)));
    assert!(!damaged.exists());
    let store = workshop.path("store");
    let verify = || {
        let ended =
            Ended::of(&mut workshop.adamant(&["store", "verify", "--json", "--store", store.to_str().unwrap()]));
        (ended.code, serde_json::from_str::<Value>(&ended.stdout).unwrap()["damaged_results"].clone())
    };
    assert_eq!(verify(), (Some(0), Value::Array(Vec::new())));
    damage();
    let (code, results) = verify();
    assert_eq!((code, results.as_array().unwrap().len(), &results[0]["stage"]), (Some(5), 1, &"compress".into()));
    // Cut short, it is no less damaged; without any, nothing is lacking.
    for file in compressed(&workshop) {
        fs::File::options().write(true).open(&file).unwrap().set_len(100).unwrap();
    }
    workshop.write("issue", "a third welcome\n");
    build(&workshop);
    assert_eq!(workshop.image(), Some(from_nothing(&workshop)));
    fs::remove_dir_all(store.join("stages/compress")).unwrap();
    workshop.write("issue", "a fourth welcome\n");
    build(&workshop);
    assert_eq!(workshop.image(), Some(from_nothing(&workshop)));
}

#[test]
fn an_added_package_unpacks_no_other_and_gives_the_bits_of_a_build_from_nothing() {
    let Some(workshop) = workshop() else { return };
    build(&workshop);
    let unpacked = || fs::read_dir(workshop.path("store/stages/unpack")).unwrap().count();
    let made = || {
        let seals = fs::read_dir(workshop.path("store/stages/unpack")).unwrap();
        let times =
            seals.map(|entry| fs::metadata(entry.unwrap().path().join("content/data")).unwrap().modified().unwrap());
        times.collect::<std::collections::BTreeSet<_>>()
    };
    let (count, times) = (unpacked(), made());
    workshop.edit("\"library\"]", "\"library\", \"extra\"]");
    fs::remove_file(workshop.path("recipe/tiny.lock")).unwrap();
    build(&workshop);
    assert_eq!(unpacked(), count + 1);
    assert!(made().is_superset(&times), "a package was unpacked again");
    assert_eq!(workshop.image(), Some(from_nothing(&workshop)));
    // What the packages of before have was compressed for the image before.
    let compressed = compressed(&workshop);
    let sizes: Vec<u64> = compressed.iter().map(|file| fs::metadata(file).unwrap().len()).collect();
    let (largest, others) = sizes.split_last().unwrap();
    assert!(others.iter().all(|size| size < &(largest / 4)), "{sizes:?}");
}

#[test]
fn a_damaged_file_of_a_package_gets_into_no_image() {
    let Some(workshop) = workshop() else { return };
    build(&workshop);
    fs::remove_dir_all(workshop.path("store/stages/compress")).unwrap();
    let mut largest: Vec<PathBuf> = fs::read_dir(workshop.path("store/stages/unpack"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("content/data"))
        .collect();
    largest.sort_by_key(|file| fs::metadata(file).unwrap().len());
    let file = largest.pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(20).rposition(|window| window.starts_with(b"line 7919 of it\n")).unwrap();
    bytes[at] = b'L';
    fs::write(&file, bytes).unwrap();
    workshop.write("issue", "another welcome\n");
    let ended = Ended::of(&mut workshop.build());
    ended.expect(4, &["usr/share/library/", "its bytes are no longer those", "adamant store verify"]);
    let store = workshop.path("store");
    Ended::of(&mut workshop.adamant(&["store", "verify", "--store", store.to_str().unwrap()])).expect(5, &[]);
    build(&workshop);
    assert_eq!(workshop.image(), Some(from_nothing(&workshop)));
}
