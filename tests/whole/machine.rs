//! Machines that lack what a build needs.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::support::host_user::HostUser;
use crate::support::oracle::{root, skip};
use crate::support::workshop::{Ended, Workshop, pool};

#[test]
fn without_user_namespaces_the_setting_is_named() {
    let Some(workshop) = Workshop::new() else { return };
    let build = workshop.build();
    // The limit belongs to a user namespace: lowered in one of its own it harms nobody else.
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c"]);
    command.arg("echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" \"$@\"");
    command.arg(build.get_program()).args(build.get_args()).current_dir(workshop.path(""));
    let ended = Ended::of(&mut command);
    workshop.assert_failed(&ended, 4, &["user namespaces", "as root, run: sysctl -w user.max_user_namespaces="]);
    assert!(!ended.stderr.contains("No space left"), "{}", ended.stderr);
    workshop.assert_builds_the_same();
}

#[test]
fn without_subordinate_ids_the_command_is_named() {
    if !root() {
        return;
    }
    let Some(workshop) = Workshop::new() else { return };
    let user = HostUser::new("none");
    if !user.has_subordinate_ids() {
        return skip("useradd gives no subordinate ids");
    }
    user.give(workshop.directory.path());
    let mut without_program = workshop.build();
    without_program.uid(user.uid).gid(user.gid).env("PATH", "/nowhere");
    let ended = Ended::of(&mut without_program);
    workshop.assert_failed(&ended, 4, &["newuidmap is not installed", "apt install uidmap"]);
    user.take_subordinate_ids();
    let ended = Ended::of(workshop.build().uid(user.uid).gid(user.gid));
    let command = format!("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}", user.name);
    workshop.assert_failed(&ended, 4, &["has 0 subordinate uids in /etc/subuid", &command]);
    workshop.assert_builds_the_same();
}

#[test]
fn a_disk_that_changed_a_package_is_noticed() {
    let Some(workshop) = Workshop::new() else { return };
    Ended::of(&mut workshop.build()).expect(0, &[]);
    for (count, offset) in [(1, 300), (2, 700_000)] {
        fs::remove_dir_all(workshop.path("out")).unwrap();
        fs::remove_dir_all(workshop.path("store/stages")).unwrap();
        let (object, mut bytes) = largest_object(&workshop);
        bytes[offset] ^= 1;
        fs::remove_file(&object).unwrap();
        fs::write(&object, &bytes).unwrap();
        let ended = Ended::of(&mut workshop.build_with(&["--offline"]));
        workshop.assert_failed(&ended, 5, &["is corrupt", "quarantine", "run the command again"]);
        let ended = Ended::of(&mut workshop.build_with(&["--offline"]));
        workshop.assert_failed(&ended, 4, &["once without --offline"]);
        workshop.assert_builds_the_same();
        assert_eq!(workshop.server.count(&pool("dpkg")), 1 + count);
    }
}

#[test]
fn a_result_in_the_store_that_was_damaged_is_named() {
    let Some(workshop) = Workshop::new() else { return };
    Ended::of(&mut workshop.build()).expect(0, &[]);
    for (stage, file, bytes) in [
        ("unpack", "data", Some(100)),
        ("unpack", "data", None),
        ("configure", "sandbox/result.json", Some(100)),
        ("configure", "sandbox/result.json", None),
        ("initrd", "initrd.cpio.zst", None),
        ("image", "files/manifest.json", Some(100)),
        ("image", "files/manifest.json", None),
        ("image", "facts.json", Some(100)),
    ] {
        fs::remove_dir_all(workshop.path("out")).unwrap();
        if stage != "image" {
            // Else nothing else is looked at.
            fs::remove_dir_all(workshop.path("store/stages/image")).unwrap();
        }
        let place = fs::read_dir(workshop.path("store/stages").join(stage)).unwrap().next().unwrap().unwrap().path();
        let file = place.join("content").join(file);
        match bytes {
            Some(bytes) => fs::File::options().write(true).open(&file).unwrap().set_len(bytes).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let ended = Ended::of(&mut workshop.build());
        let command = format!("{} in the store was damaged since it was made: remove it", place.display());
        workshop.assert_failed(&ended, 4, &[&command]);
        fs::remove_dir_all(place).unwrap();
        workshop.assert_builds_the_same();
    }
}

/// The object with the most bytes: dpkg's package.
fn largest_object(workshop: &Workshop) -> (PathBuf, Vec<u8>) {
    let folders = fs::read_dir(workshop.path("store/objects/sha256")).unwrap();
    let objects = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    let objects = objects.map(|object| object.unwrap().path()).map(|path| (path.clone(), fs::read(path).unwrap()));
    objects.max_by_key(|(_, bytes)| bytes.len()).unwrap()
}

#[test]
fn places_that_cannot_be_written_are_named() {
    let Some(workshop) = Workshop::new() else { return };
    let out = workshop.path("recipe/issue/out");
    let ended = Ended::of(workshop.verb("build", &["--out"]).arg(&out));
    workshop.assert_failed(&ended, 4, &["cannot create", "recipe/issue/out", "Not a directory"]);
    let ended = Ended::of(workshop.verb("build", &["--out"]).arg(workshop.path("recipe")));
    // Nothing was fetched for it.
    assert_eq!(workshop.server.answered(), []);
    workshop.assert_failed(&ended, 4, &["was not written by adamant", "--out"]);
    assert!(workshop.path("recipe/issue").is_file());
    let ended = Ended::of(workshop.build().args(["--store", "/proc/none"]));
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    let mut command = workshop.adamant(&["build", "--store", "/proc/none", "--offline"]);
    let ended = Ended::of(command.arg(workshop.recipe()));
    workshop.assert_failed(&ended, 4, &["/proc/none", "--store"]);
}
