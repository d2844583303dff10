//! Locks made from small signed archives: what is resolved, beside the host's apt; what is refused.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;

use adamant::apt::update::{ControlSource, Renewal, update};
use adamant::apt::{LockError, LockRequest, Repository, SetRequest, lock};
use adamant::digest::Digest;
use adamant::lock::{Lock, LockedPackage, difference};
use pgp::composed::KeyType;
use pgp::crypto::hash::HashAlgorithm;

use crate::support::archive::{
    Archive, Deb, KEY_MADE, Key, KeyOptions, NOW, PUBLISHED, SignatureOptions, Suite, date, xz,
};
use crate::support::host_apt::HostApt;
use crate::support::oracle;

mod explanations;
mod lockfile;
mod random;
mod resolution;
mod trust;

/// What is asked for, in the words of a test.
#[derive(Clone, Copy, Default)]
struct Ask<'a> {
    packages: &'a [&'a str],
    recommends: bool,
    essential: bool,
    excluded: &'a [&'a str],
    pins: &'a [&'a str],
    /// Beside `trixie`, in one repository.
    suites: &'a [&'a str],
}

fn ask<'a>(packages: &'a [&'a str]) -> Ask<'a> {
    Ask { packages, ..Ask::default() }
}

fn request(archive: &Archive, ask: Ask<'_>) -> LockRequest {
    let mut set = SetRequest::new("system");
    set.packages = ask.packages.iter().map(|package| package.parse().unwrap()).collect();
    set.pins = ask.pins.iter().map(|package| package.parse().unwrap()).collect();
    set.excluded = ask.excluded.iter().map(|&name| name.to_owned()).collect();
    (set.recommends, set.essential) = (ask.recommends, ask.essential);
    let suites: Vec<&str> = ["trixie"].iter().chain(ask.suites).copied().collect();
    LockRequest {
        architecture: "amd64".to_owned(),
        repositories: vec![archive.repository("test", &suites)],
        sets: vec![set],
    }
}

/// The set as `name=version` or, if there is none, the error with its causes.
fn resolve(archive: &Archive, ask: Ask<'_>) -> Result<Vec<String>, String> {
    let lock = lock(&request(archive, ask), archive, NOW).map_err(|error| told(&error))?;
    Ok(lock.sets["system"].iter().map(|package| format!("{}={}", package.name, package.version)).collect())
}

/// The error and its causes, as a person reads them.
fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// Asserts that we and the host's apt install exactly this.
#[track_caller]
fn installs(archive: &Archive, ask: Ask<'_>, expected: &[&str]) {
    let expected: Vec<String> = expected.iter().map(|&package| package.to_owned()).collect();
    assert_eq!(resolve(archive, ask).unwrap(), expected);
    if let Some(apt) = apt(archive, ask) {
        assert_eq!(apt.unwrap(), expected, "apt");
    }
}

/// Asserts that there is no such set for us, in these words, and none for the host's apt.
#[track_caller]
fn refuses(archive: &Archive, ask: Ask<'_>, words: &str) {
    assert_eq!(resolve(archive, ask).unwrap_err(), format!("cannot resolve the packages of system: {words}"));
    if let Some(apt) = apt(archive, ask) {
        assert!(apt.is_err(), "apt installs {apt:?}");
    }
}

/// What `apt-get install` would install on an empty system; its complaint if it would not; `None` without apt.
fn apt(archive: &Archive, ask: Ask<'_>) -> Option<Result<Vec<String>, String>> {
    Some(installed_by(&host_apt(archive, ask)?, archive, ask))
}

/// The host's apt, with the archive as its only source.
fn host_apt(archive: &Archive, ask: Ask<'_>) -> Option<HostApt> {
    let apt = HostApt::new()?;
    let key = apt.path("key.asc");
    fs::write(&key, archive.key.public()).unwrap();
    let exclusions = ask.excluded.iter().map(|name| format!("Package: {name}\nPin: release *\nPin-Priority: -1\n\n"));
    let pins = ask.pins.iter().map(|pin| match pin.split_once('=') {
        Some((name, version)) => format!("Package: {name}\nPin: version {version}\nPin-Priority: 1001\n\n"),
        None => {
            let (name, suite) = pin.split_once('/').unwrap();
            format!("Package: {name}\nPin: release n={suite}\nPin-Priority: 1001\n\n")
        }
    });
    fs::write(apt.path("etc/preferences"), exclusions.chain(pins).collect::<String>()).unwrap();
    let (key, root) = (key.display(), archive.root().display());
    let suites = ["trixie"].iter().chain(ask.suites);
    let sources: String = suites.map(|suite| format!("deb [signed-by={key}] file:{root} {suite} main\n")).collect();
    apt.update(&sources);
    Some(apt)
}

/// apt 3 asks another solver where its old one, which we follow, finds nothing, and sweeps a little differently.
fn is_version_2(apt: &HostApt) -> bool {
    oracle::run(apt.command().arg("--version")).starts_with("apt 2.")
}

/// The set as `name=version`, or apt's complaint.
fn installed_by(apt: &HostApt, archive: &Archive, ask: Ask<'_>) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = ask.packages.iter().map(|&package| package.to_owned()).collect();
    if ask.essential {
        names.extend(archive.essential());
    }
    let output = apt.simulate(names, ask.recommends);
    let said = String::from_utf8_lossy(&output.stdout);
    // The list and not the `Inst` lines: apt may find a set and then no order in which to unpack it.
    let mut lines = said.lines().skip_while(|line| !line.starts_with("The following NEW packages will be installed"));
    if lines.next().is_none() {
        return Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    }
    let installed = lines.take_while(|line| line.starts_with("   ")).filter_map(|line| {
        let (name, version) = line.trim().split_once(" (")?;
        Some(format!("{name}={}", version.trim_end_matches(')')))
    });
    Ok(installed.collect::<BTreeSet<_>>().into_iter().collect())
}

#[test]
fn errors_say_which_set_it_was() {
    let archive = Archive::of([Deb::new("web", "1")]);
    let error = lock(&request(&archive, ask(&["wob"])), &archive, NOW).unwrap_err();
    assert!(matches!(&error, LockError::Resolve { set, .. } if set == "system"), "{error}");
}

#[test]
fn the_packages_made_for_tests_are_packages_to_dpkg() {
    let deb = Deb::new("web", "1:1.0-1")
        .depends("lib")
        .file("usr/bin/web", 0o755, b"#!/bin/sh\n")
        .script("postinst", "#!/bin/sh\n");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(deb.file_name());
    fs::write(&path, deb.bytes()).unwrap();
    let Some(mut dpkg) = oracle::oracle("dpkg-deb") else { return };
    assert_eq!(oracle::run(dpkg.arg("--field").arg(&path).arg("Version")).trim(), "1:1.0-1");
    let mut dpkg = oracle::oracle("dpkg-deb").unwrap();
    assert!(oracle::run(dpkg.arg("--contents").arg(&path)).contains("-rwxr-xr-x root/root        10"));
}
