//! Mirrors that lie, are stale, incomplete or gone.

use std::fs;

use adamant::digest::Digest;

use crate::support::archive::{Archive, Deb, NOW, Suite};
use crate::support::http::{Fault, Server};
use crate::support::packages::architecture;
use crate::support::workshop::{Ended, Workshop, pool};

#[test]
fn downloads_that_are_not_what_the_lock_says_are_refused() {
    let Some(workshop) = Workshop::new() else { return };
    Ended::of(&mut workshop.verb("lock", &[])).expect(0, &[]);
    let lock = fs::read_to_string(workshop.path("recipe/tiny.lock")).unwrap();
    // One bit, at the beginning and deep within; bytes too few and too many.
    for (name, fault, what) in [
        ("listener", Fault::Flip(0), "SHA-256"),
        ("greeter", Fault::Flip(700), "SHA-256"),
        ("dpkg", Fault::Flip(1_000_000), "SHA-256"),
        ("listener", Fault::Append(1), "bytes instead of"),
    ] {
        workshop.server.always(&pool(name), fault);
        let ended = Ended::of(&mut workshop.build());
        workshop.assert_failed(&ended, 5, &[&pool(name), what, "try another mirror"]);
        workshop.server.heal();
        fs::remove_dir_all(workshop.path("store")).unwrap();
    }
    assert_eq!(fs::read_to_string(workshop.path("recipe/tiny.lock")).unwrap(), lock);
    workshop.server.always(&pool("dpkg"), Fault::Flip(1_000_000));
    let ended = Ended::of(&mut workshop.build());
    workshop.assert_failed(&ended, 5, &[&pool("dpkg")]);
    workshop.server.heal();
    workshop.assert_builds_the_same();
}

#[test]
fn a_truncated_download_goes_on_where_it_ended_and_never_counts_as_whole() {
    let Some(workshop) = Workshop::new() else { return };
    // Breaks twice, then comes.
    workshop.server.fault(&pool("listener"), Fault::Truncate(100_000), 2);
    workshop.assert_builds_the_same();
    let answered = workshop.server.answered();
    let ranges: Vec<_> = answered.iter().filter(|one| one.path == pool("listener")).map(|one| one.range).collect();
    assert_eq!(ranges, [None, Some(100_000), Some(200_000)]);
    // Always ends without a byte more.
    let Some(workshop) = Workshop::new() else { return };
    workshop.server.fault(&pool("listener"), Fault::Truncate(100_000), 1);
    workshop.server.always(&pool("listener"), Fault::Truncate(0));
    let ended = Ended::of(&mut workshop.build());
    workshop.assert_failed(&ended, 6, &[&pool("listener"), "run the command again to go on"]);
    workshop.server.heal();
    workshop.assert_builds_the_same();
}

#[test]
fn a_package_that_is_gone_from_the_mirror_is_named_with_what_to_do() {
    let Some(workshop) = Workshop::new() else { return };
    for name in ["greeter", "listener"] {
        workshop.server.always(&pool(name), Fault::Status(404));
    }
    let ended = Ended::of(&mut workshop.build());
    workshop.assert_failed(&ended, 6, &[&pool("greeter"), &pool("listener"), "adamant lock", "snapshot"]);
    workshop.server.heal();
    workshop.assert_builds_the_same();
}

#[test]
fn a_lock_that_was_edited_by_hand_stops_the_build() {
    let Some(workshop) = Workshop::new() else { return };
    Ended::of(&mut workshop.verb("lock", &[])).expect(0, &[]);
    let lock = fs::read_to_string(workshop.path("recipe/tiny.lock")).unwrap();
    // A package that the archive does not have at all.
    workshop.write("tiny.lock", &lock.replace("greeter", "phantom"));
    let ended = Ended::of(&mut workshop.build());
    workshop.assert_failed(&ended, 6, &["phantom_1", "not on the mirror", "adamant lock"]);
    // One that is there under another name.
    let line = lock.lines().find(|line| line.contains("greeter")).unwrap();
    workshop.write("tiny.lock", &lock.replace(line, &line.replacen("greeter", "phantom", 1)));
    let ended = Ended::of(&mut workshop.build());
    workshop.assert_failed(&ended, 5, &["phantom 1", "greeter 1", "adamant lock"]);
    // No lock any more.
    workshop.write("tiny.lock", &lock[..lock.len() - 40]);
    let ended = Ended::of(&mut workshop.build());
    workshop.assert_failed(&ended, 3, &["tiny.lock", "adamant lock"]);
    workshop.write("tiny.lock", &lock);
    workshop.assert_builds_the_same();
}

/// What `lock` says to an archive that `change` has made bad; `build` says the same, and a good one is used after.
#[track_caller]
fn refused(workshop: &Workshop, change: impl FnOnce(&mut Archive), code: i32, parts: &[&str]) {
    let mut archive = Archive::new();
    let suite = Suite::new("trixie");
    archive.suite(Suite { architectures: vec![architecture().to_owned()], compressions: vec![".xz"], ..suite });
    archive.add("trixie", "main", Deb::new("greeter", "1"));
    archive.publish();
    change(&mut archive);
    let server = Server::serve(archive.root());
    for verb in ["lock", "build"] {
        let ended = Ended::of(workshop.verb(verb, &["--mirror", &server.url()]).current_dir(workshop.path("")));
        workshop.assert_failed(&ended, code, parts);
        assert!(!workshop.path("recipe/tiny.lock").exists());
    }
}

#[test]
fn an_archive_that_cannot_be_believed_is_refused() {
    let Some(workshop) = Workshop::new() else { return };
    let in_release = "dists/trixie/InRelease";
    let edit = |archive: &Archive, old: &str, new: &str| {
        let text = fs::read_to_string(archive.path(in_release)).unwrap();
        assert!(text.contains(old));
        fs::write(archive.path(in_release), text.replacen(old, new, 1)).unwrap();
    };
    refused(&workshop, |archive| edit(archive, "Label: Test", "Label: Best"), 5, &[in_release, "bad signature"]);
    refused(
        &workshop,
        |archive| {
            archive.key = crate::support::archive::Key::new(7);
            archive.publish();
        },
        5,
        &[in_release, "the key is not trusted for this repository", "`key`"],
    );
    refused(
        &workshop,
        |archive| {
            let suite = Suite { valid_until: Some(NOW + 60), ..Suite::new("trixie") };
            archive.suite(Suite { architectures: vec![architecture().to_owned()], ..suite });
            archive.publish();
        },
        5,
        &[in_release, "expired on", "try another mirror"],
    );
    refused(&workshop, |archive| fs::remove_file(archive.path(in_release)).unwrap(), 6, &[in_release, "no such file"]);
    refused(
        &workshop,
        |archive| fs::write(archive.path(in_release), "<html>").unwrap(),
        5,
        &[in_release, "login page"],
    );
    workshop.assert_builds_the_same();
}

#[test]
fn an_index_that_its_release_file_does_not_list_is_refused() {
    let Some(workshop) = Workshop::new() else { return };
    let index = format!("dists/trixie/main/binary-{}/Packages.xz", architecture());
    let replace = |archive: &Archive, change: fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(archive.path(&index)).unwrap();
        let by_hash = format!("dists/trixie/main/binary-{}/by-hash/SHA256/{}", architecture(), Digest::of(&bytes));
        change(&mut bytes);
        for path in [index.clone(), by_hash] {
            fs::write(archive.path(&path), &bytes).unwrap();
        }
    };
    let name = format!("binary-{}", architecture());
    refused(
        &workshop,
        |archive| replace(archive, |bytes| bytes[20] ^= 1),
        5,
        &[&name, "SHA-256", "try another mirror"],
    );
    refused(&workshop, |archive| replace(archive, |bytes| bytes.push(0)), 5, &[&name, "try another mirror"]);
    workshop.assert_builds_the_same();
}

#[test]
fn debian_itself_is_not_impersonated_by_an_archive_with_another_key() {
    let Some(workshop) = Workshop::new() else { return };
    workshop.edit("key = \"archive.asc\"\n", "");
    let ended = Ended::of(&mut workshop.build());
    workshop.assert_failed(&ended, 5, &["dists/trixie/InRelease", "the key is not trusted for this repository"]);
    workshop.edit("pockets = []\n", "pockets = []\nkey = \"issue\"\n");
    let ended = Ended::of(&mut workshop.build());
    workshop.assert_failed(&ended, 3, &["issue", "gpg --export"]);
}

#[test]
fn a_mirror_that_cannot_be_reached_is_a_remote_failure() {
    let Some(workshop) = Workshop::new() else { return };
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("http://127.0.0.1:{port}/");
    let ended = Ended::of(&mut workshop.build_with(&["--mirror", &address]));
    workshop.assert_failed(
        &ended,
        6,
        &[&address, "another mirror with --mirror", "connection failed", "Connection refused"],
    );
    workshop.assert_builds_the_same();
}

#[test]
fn offline_nothing_is_fetched() {
    let Some(workshop) = Workshop::new() else { return };
    let ended = Ended::of(&mut workshop.build_with(&["--offline"]));
    workshop.assert_failed(&ended, 4, &["dists/trixie/InRelease", "--offline", "once without --offline"]);
    Ended::of(&mut workshop.verb("lock", &[])).expect(0, &[]);
    let ended = Ended::of(&mut workshop.build_with(&["--offline"]));
    workshop.assert_failed(&ended, 4, &["base-files 1", "and 8 more", "once without --offline"]);
    assert!(workshop.server.answered().iter().all(|one| !one.path.starts_with("pool/")));
    workshop.assert_builds_the_same();
}

#[test]
fn a_machine_without_a_mirror_is_told_how_to_name_one() {
    let Some(workshop) = Workshop::new() else { return };
    workshop.edit("[units]", "[[repository]]\nname = \"own\"\nsuite = \"s\"\nkey = \"archive.asc\"\n[units]");
    let ended = Ended::of(&mut workshop.build());
    workshop.assert_failed(&ended, 4, &["--mirror own=URL", "ADAMANT_MIRROR"]);
}

#[test]
fn a_package_that_no_archive_has_is_a_mistake_in_the_recipe() {
    let Some(workshop) = Workshop::new() else { return };
    workshop.edit("\"greeter\"", "\"greter\"");
    let ended = Ended::of(&mut workshop.build());
    workshop.assert_failed(&ended, 3, &["greter"]);
    workshop.edit("\"greter\"", "\"greeter\"");
    workshop.assert_builds_the_same();
}
