//! File systems that fill up at every moment of a build.

use std::path::PathBuf;

use nix::mount::MsFlags;

use crate::support::mounts::{in_own_mounts, little_memory, tmpfs};
use crate::support::oracle::root;
use crate::support::workshop::{Ended, Workshop};

/// Builds again and again while the file system at `place` grows by `step` until it does not fail; gives how often
/// that was.
fn build_while_growing(workshop: &Workshop, place: &str, first: u64, step: u64) -> usize {
    let place: PathBuf = workshop.path(place);
    std::fs::create_dir_all(&place).unwrap();
    tmpfs(&place, first, MsFlags::empty());
    let mut size = first;
    for failures in 0..200 {
        let ended = Ended::of(&mut workshop.build());
        if ended.code == Some(0) {
            return failures;
        }
        // Opening the store to look at it needs a little room, too.
        tmpfs(&place, size + 64, MsFlags::MS_REMOUNT);
        workshop.assert_failed(&ended, 4, &["No space left on device", "free some room"]);
        size += step;
        tmpfs(&place, size, MsFlags::MS_REMOUNT);
    }
    panic!("never succeeds");
}

#[test]
fn a_store_that_is_full_fails_at_every_moment_and_goes_on_from_there() {
    if !root() {
        return;
    }
    let Some(workshop) = Workshop::new() else { return };
    workshop.archived.reference();
    let failures = in_own_mounts(|| {
        let failures = build_while_growing(&workshop, "store", 16, 900);
        assert_eq!(workshop.image().as_ref(), Some(workshop.archived.reference()));
        workshop.assert_store_is_good();
        failures
    });
    assert!(failures > 15, "{failures}");
}

#[test]
fn a_store_that_is_full_of_the_sandboxs_tree_goes_on_from_there_too() {
    if !root() {
        return;
    }
    let Some(workshop) = Workshop::new() else { return };
    workshop.archived.reference();
    let failures = in_own_mounts(|| {
        little_memory();
        let failures = build_while_growing(&workshop, "store", 17_000, 700);
        assert_eq!(workshop.image().as_ref(), Some(workshop.archived.reference()));
        workshop.assert_store_is_good();
        failures
    });
    assert!(failures > 5, "{failures}");
}

#[test]
fn an_output_that_does_not_fit_is_not_there() {
    if !root() {
        return;
    }
    let Some(workshop) = Workshop::new() else { return };
    workshop.archived.reference();
    let failures = in_own_mounts(|| {
        let failures = build_while_growing(&workshop, "out", 16, 600);
        assert_eq!(workshop.image().as_ref(), Some(workshop.archived.reference()));
        failures
    });
    assert!(failures > 5, "{failures}");
}

#[test]
fn a_recipes_folder_that_is_full_gets_no_lock() {
    if !root() {
        return;
    }
    let Some(workshop) = Workshop::new() else { return };
    in_own_mounts(|| {
        let place = workshop.path("recipe");
        let files: Vec<_> = std::fs::read_dir(&place)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap()))
            .collect();
        tmpfs(&place, 1024, MsFlags::empty());
        for (name, bytes) in &files {
            std::fs::write(place.join(name), bytes).unwrap();
        }
        let pages = 4 * files.len() as u64;
        tmpfs(&place, pages, MsFlags::MS_REMOUNT);
        let ended = Ended::of(&mut workshop.build());
        workshop.assert_failed(&ended, 4, &["cannot write the lock", "No space left on device", "free some room"]);
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), files.len());
        tmpfs(&place, 1024, MsFlags::MS_REMOUNT);
        workshop.assert_builds_the_same();
    });
}
