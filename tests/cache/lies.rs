//! Caches that lie: nothing that a listed key did not sign, or whose digest is another, enters the store.

use std::fs;
use std::path::PathBuf;

use super::{Commons, PACKAGES, build, build_without_mirror, came, said, warnings, was_there};
use crate::support::object_store::ObjectStore;
use crate::support::proxy::{Harm, Proxy};
use crate::support::workshop::{Ended, Workshop};

/// A cache in a directory that a machine has filled.
fn filled() -> Option<(Workshop, Commons)> {
    let first = Workshop::new()?;
    let commons = Commons::new(&first);
    said(&first, &Ended::of(&mut build(&first, &commons.url(), &commons.signing("ci"))));
    Some((first, commons))
}

/// A new machine with a mirror builds with the cache; what came from it.
#[track_caller]
fn builds(commons: &Commons, key: &str, warning: Option<&str>) -> (u64, u64) {
    let workshop = Workshop::new().unwrap();
    let ended = Ended::of(&mut build(&workshop, &commons.url(), &commons.listing(key)));
    let came = came(&said(&workshop, &ended));
    let warnings = warnings(&ended);
    assert_eq!(warnings.len(), usize::from(warning.is_some()), "{warnings:?}");
    for (said, wanted) in warnings.iter().zip(warning) {
        assert!(said.contains(wanted) && said.contains(&commons.url()), "{wanted:?} is not in {said}");
    }
    came
}

fn change(path: &PathBuf, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn objects(commons: &Commons) -> Vec<PathBuf> {
    commons.files().into_iter().filter(|(name, _)| name.starts_with("objects/")).map(|(_, path)| path).collect()
}

#[test]
fn objects_with_other_bytes_are_not_taken() {
    let Some((_, commons)) = filled() else { return };
    for object in objects(&commons) {
        change(&object, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
    }
    assert_eq!(builds(&commons, "ci", Some("it has another digest")), (0, 0));
    for object in objects(&commons) {
        change(&object, |bytes| bytes.truncate(bytes.len() - 1));
    }
    assert_eq!(builds(&commons, "ci", Some("it has another size")), (0, 0));
    // As much as ever fits into a frame of a few bytes.
    let bomb = zstd::encode_all(&vec![0; 256 << 20][..], 19).unwrap();
    for object in objects(&commons) {
        fs::write(object, &bomb).unwrap();
    }
    assert_eq!(builds(&commons, "ci", Some("it has another size")), (0, 0));
}

#[test]
fn a_damaged_cache_is_mended_by_the_next_who_signs() {
    let Some((first, commons)) = filled() else { return };
    for object in objects(&commons) {
        change(&object, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
    }
    let (Some(mender), Some(second)) = (Workshop::new(), Workshop::new()) else { return };
    let ended = Ended::of(&mut build(&mender, &commons.url(), &commons.signing("ci")));
    assert_eq!(came(&said(&mender, &ended)), (0, 0));
    let ended = Ended::of(&mut build_without_mirror(&second, &first, &commons.url(), &commons.listing("ci")));
    assert_eq!(came(&said(&second, &ended)), (1, 0));
}

#[test]
fn results_are_taken_from_a_listed_key_alone() {
    let Some((_, commons)) = filled() else { return };
    // Nobody looks at what another key signed: packages are checked by their digests.
    assert_eq!(builds(&commons, "other", None), (0, PACKAGES));
    // Under the name of the listed key.
    let id = |key: &str| {
        let text = fs::read_to_string(commons.path(&format!("{key}.pub"))).unwrap();
        adamant::sign::PublicKey::from_pem(&text).unwrap()[0].id().to_string()
    };
    for (name, path) in commons.files() {
        if name.starts_with("stages/") {
            fs::copy(&path, path.with_file_name(id("other"))).unwrap();
        }
    }
    assert_eq!(builds(&commons, "other", Some(&format!("signed by the key {}, which is not listed", id("ci")))).0, 0);
    // And with its name written into them.
    for (name, path) in commons.files() {
        if name.starts_with("stages/") && name.ends_with(&id("other")) {
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, text.replace(&id("ci"), &id("other"))).unwrap();
        }
    }
    assert_eq!(builds(&commons, "other", Some("signature of the key")).0, 0);
}

#[test]
fn a_result_is_not_taken_for_another_though_well_signed() {
    let Some((_, commons)) = filled() else { return };
    // Each entry of the stage under the name of the next; the one image under that of the configured tree.
    let unpacked = commons.entries("unpack");
    let texts: Vec<Vec<u8>> = unpacked.iter().map(|name| fs::read(commons.path("cache").join(name)).unwrap()).collect();
    for (index, name) in unpacked.iter().enumerate() {
        fs::write(commons.path("cache").join(name), &texts[(index + 1) % texts.len()]).unwrap();
    }
    let image = commons.path("cache").join(&commons.entries("image")[0]);
    let configured = commons.path("cache").join(&commons.entries("configure")[0]);
    fs::rename(&image, &configured).unwrap();
    let (stages, packages) = builds(&commons, "ci", Some("it is about another result: stage unpack"));
    assert_eq!((stages, packages), (3, PACKAGES)); // the initrd and compressed data
}

#[test]
fn entries_that_were_changed_or_cut_are_not_taken() {
    let Some((_, commons)) = filled() else { return };
    let entries = |commons: &Commons| -> Vec<PathBuf> {
        commons.files().into_iter().filter(|(name, _)| name.starts_with("stages/")).map(|(_, path)| path).collect()
    };
    for entry in entries(&commons) {
        change(&entry, |bytes| bytes.extend_from_slice(b"file\n"));
    }
    assert_eq!(builds(&commons, "ci", Some("it is not signed")), (0, PACKAGES));
    for entry in entries(&commons) {
        fs::write(entry, vec![b'x'; 3 << 20]).unwrap();
    }
    assert_eq!(builds(&commons, "ci", Some("it is too large")), (0, PACKAGES));
    for entry in entries(&commons) {
        fs::write(entry, b"").unwrap();
    }
    assert_eq!(builds(&commons, "ci", Some("it is not signed")), (0, PACKAGES));
}

#[test]
fn a_server_that_changes_bytes_on_the_way_is_not_believed() {
    let (Some(first), Some(second)) = (Workshop::new(), Workshop::new()) else { return };
    let Some(s3) = ObjectStore::start() else { return };
    let commons = Commons::new(&first);
    let mut command = build(&first, &s3.url(), &commons.signing("ci"));
    ObjectStore::environment(&mut command, s3.port);
    said(&first, &Ended::of(&mut command));
    for (part, what) in [("/objects/", "it has another digest"), ("/stages/", "signature of the key")] {
        let proxy = Proxy::before(s3.port);
        proxy.harm("GET", part, Harm::Flip(40));
        let mut command = build(&second, &s3.url(), &commons.listing("ci"));
        ObjectStore::environment(&mut command, proxy.port());
        let ended = Ended::of(&mut command);
        let said = said(&second, &ended);
        assert_eq!((came(&said).0, was_there(&said, "configure")), (0, Some(false)));
        let warnings = warnings(&ended);
        assert!(warnings.len() == 1 && warnings[0].contains(what), "{warnings:?}");
        fs::remove_dir_all(second.path("store")).unwrap();
    }
}
