//! Readers of what comes from package archives.

use std::fs;
use std::path::Path;

use adamant::apt::control::Paragraph;
use adamant::apt::packages::{PackagesIndex, RELATION_FIELDS};
use adamant::apt::release::Release;
use adamant::apt::universe::{Origin, SourceIndex};
use adamant::apt::{self, Keyring, SetRequest, openpgp, relation, version};
use adamant::rootfs::{deb as package, overlay};
use adamant::tree::Kind;

use super::repair;

/// When all this happens: 2025-06-01T00:00:00Z.
const NOW: u64 = 1_748_736_000;
/// The key that the seeds are signed with.
const KEY: &[u8] = include_bytes!("../archive.asc");

/// OpenPGP keys, and what they may sign.
pub fn openpgp_keys(data: &[u8]) {
    let Ok(keyring) = Keyring::parse(data) else { return };
    let signed = include_bytes!("../InRelease");
    let _ = openpgp::verify_cleartext(signed, &keyring, NOW);
}

/// Signed release files.
pub fn in_release(data: &[u8]) {
    let keyring = Keyring::parse(KEY).expect("the test key is one");
    if let Ok(signed) = openpgp::verify_cleartext(data, &keyring, NOW) {
        release(signed.text.as_bytes());
    }
}

/// Release files behind their signature.
pub fn release(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(release) = Release::parse(text) {
        let _ = release.check_dates(NOW);
        let _ = release.is_called("trixie");
        assert!(release.files.keys().all(|path| !path.split('/').any(|part| part == "..")));
    }
}

/// Control paragraphs.
pub fn control(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Paragraph::parse(text);
    for paragraph in Paragraph::parse_all(text).into_iter().flatten() {
        for field in paragraph.fields() {
            assert_eq!(paragraph.get(field.name), Some(field.value));
        }
    }
}

/// Package indexes, and the resolution of what they say.
pub fn packages(data: &[u8]) {
    let Ok(packages) = PackagesIndex::parse(data.to_vec()) else { return };
    let mut set = SetRequest::new("system");
    for record in packages.records().iter().take(3) {
        set.packages.extend(packages.name(record).parse());
        for field in RELATION_FIELDS {
            let _ = relation::parse(packages.relation(record, field)).count();
        }
    }
    let (mut recommending, mut essential) = (set.clone(), set.clone());
    (recommending.name, recommending.recommends) = ("recommending".to_owned(), true);
    (essential.name, essential.essential) = ("essential".to_owned(), true);
    let origin = Origin {
        repository: "hostile".to_owned(),
        suite: "trixie".to_owned(),
        aliases: Vec::new(),
        component: "main".to_owned(),
        priority: 500,
    };
    let resolved = apt::resolve_sets(&[SourceIndex { origin, packages }], "amd64", &[set, recommending, essential]);
    if let Err(error) = resolved {
        let _ = error.to_string();
        let _ = std::error::Error::source(&error).map(ToString::to_string);
    }
}

/// Relationship fields and versions: one of each on a line.
pub fn relations(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut versions = Vec::new();
    for line in text.lines() {
        for alternative in relation::parse(line).flatten() {
            versions.extend(alternative.constraint.map(|(_, version)| version));
            let _ = alternative.to_string();
        }
        versions.push(line);
    }
    for pair in versions.windows(2) {
        let _ = version::is_valid(pair[0]);
        let (there, back) = (version::compare(pair[0], pair[1]), version::compare(pair[1], pair[0]));
        assert_eq!(there, back.reverse(), "{pair:?}");
        assert!(version::compare(pair[0], pair[0]).is_eq());
    }
}

/// A directory in memory where there is one.
fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::tempdir_in(parent).expect("a directory")
}

fn unpack(bytes: &[u8]) {
    let directory = directory();
    let (file, data) = (directory.path().join("package.deb"), directory.path().join("data"));
    fs::write(&file, bytes).expect("a file");
    let Ok(unpacked) = package::unpack(&file, &data) else { return };
    let again = package::reopen(&data).expect("what was unpacked opens again");
    assert_eq!(again.entries(), unpacked.entries());
    let _ = (unpacked.conffiles(), unpacked.field("Depends"));
    for entry in unpacked.entries() {
        let _ = unpacked.node(entry);
    }
    if let Ok(tree) = overlay(&[unpacked]) {
        for (_, id) in tree.walk() {
            if let Kind::File(content) = &tree.node(id).kind {
                let known = content.known_digest().expect("contents of packages have digests");
                assert_eq!(adamant::digest::Digest::of(&content.to_vec().expect("it was unpacked")), known);
            }
        }
    }
}

/// Packages as they are fetched.
pub fn deb(data: &[u8]) {
    unpack(data);
}

/// The control archive of a package that is in order.
fn control_tar() -> Vec<u8> {
    let text = b"Package: hostile\nVersion: 1\nArchitecture: all\n";
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, "control", &text[..]).expect("memory does not fail");
    archive.into_inner().expect("memory does not fail")
}

/// The archives in a package, their headers' checksums put right: once as the control archive, once as the data.
pub fn deb_tar(data: &[u8]) {
    let mut archive = data.to_vec();
    repair::tar(&mut archive);
    for archive in [data, &archive] {
        let _ = package::read_entries(&mut tar::Archive::new(archive));
    }
    let control = control_tar();
    for [control, data] in [[&control, &archive], [&archive, &vec![0; 1024]]] {
        let mut deb = b"!<arch>\n".to_vec();
        for (name, body) in [("debian-binary", &b"2.0\n"[..]), ("control.tar", control), ("data.tar", data)] {
            deb.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, body.len()).bytes());
            deb.extend(body);
            deb.extend(std::iter::repeat_n(b'\n', body.len() % 2));
        }
        unpack(&deb);
    }
}

/// The file that an unpacked package is kept in.
pub fn deb_index(data: &[u8]) {
    let directory = directory();
    let path = directory.path().join("data");
    for trailer in [Some(data.len() as u64), None] {
        let mut bytes = data.to_vec();
        if let Some(length) = trailer {
            bytes.extend(length.to_le_bytes());
            bytes.extend(b"adamant package\n");
        }
        fs::write(&path, bytes).expect("a file");
        if let Ok(package) = package::reopen(&path) {
            for entry in package.entries() {
                let _ = package.content(entry).map(|content| content.to_vec());
            }
        }
    }
}
