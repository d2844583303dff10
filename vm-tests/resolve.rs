//! The sets that adamant locks from Debian's real archive are those that the host's apt installs on an empty system.
//!
//! Both read the same indexes at the same time from the host's mirror. Every set is compared with and without
//! recommended packages, name and version of each package, with the essential packages beside what is asked for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use adamant::apt::{LockRequest, SetRequest, distribution, lock};
use adamant::store::Store;
use adamant::store::fetch::{Fetcher, Options};
use adamant::store::mirror::{Host, Mirrors};
use rayon::prelude::*;

use crate::host_apt::HostApt;

/// Servers, desktops, tool chains; the last ones need packages to be dropped again or an init system to be exchanged.
const SETS: &[&[&str]] = &[
    &[],
    &["systemd", "udev", "dbus", "linux-image-amd64", "systemd-resolved", "openssh-server", "ca-certificates"],
    &["nginx"],
    &["php-fpm", "nginx"],
    &["postgresql"],
    &["mariadb-server"],
    &["docker.io"],
    &["cloud-init"],
    &["postfix", "dovecot-imapd", "spamassassin"],
    &["qemu-system-x86", "ovmf", "swtpm"],
    &["python3-full"],
    &["build-essential"],
    &["default-jdk"],
    &["texlive-latex-base"],
    &["gnome-core"],
    &["kde-plasma-desktop"],
    &["task-xfce-desktop"],
    &["live-task-gnome"],
    &["sysvinit-core", "xfce4"],
];

fn resolves_as_apt(suite: &str) {
    let Some((apt, essential)) = host_apt(suite) else { return };
    let mut request = LockRequest {
        architecture: "amd64".to_owned(),
        repositories: distribution::debian(suite, &["updates", "security"].map(str::to_owned), &["main".to_owned()])
            .unwrap(),
        sets: Vec::new(),
    };
    let cases: Vec<(&[&str], bool)> = SETS.iter().flat_map(|&set| [(set, false), (set, true)]).collect();
    for (at, (packages, recommends)) in cases.iter().enumerate() {
        let mut set = SetRequest::new(&at.to_string());
        set.packages = packages.iter().map(|package| package.parse().unwrap()).collect();
        (set.essential, set.recommends) = (true, *recommends);
        request.sets.push(set);
    }
    let directory = tempfile::tempdir().unwrap();
    let fetcher = Fetcher::new(Store::open(directory.path()).unwrap(), mirrors(), Options::default());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let locked = lock(&request, &fetcher, now).unwrap();
    let differing: Vec<String> = cases
        .par_iter()
        .enumerate()
        .filter_map(|(at, (packages, recommends))| {
            let ours: BTreeSet<String> = locked.sets[&at.to_string()]
                .iter()
                .map(|package| format!("{} {}", package.name, package.version))
                .collect();
            let asked = packages.iter().map(|&package| package.to_owned());
            let theirs = installed_by(&apt, essential.iter().cloned().chain(asked).collect(), *recommends);
            let only = |one: &BTreeSet<String>, other: &BTreeSet<String>| {
                one.difference(other).cloned().collect::<Vec<_>>().join(", ")
            };
            (ours != theirs).then(|| {
                let (mine, apts) = (only(&ours, &theirs), only(&theirs, &ours));
                format!("{packages:?}, recommends {recommends}: only adamant: {mine}; only apt: {apts}")
            })
        })
        .collect();
    assert!(differing.is_empty(), "{suite}:\n{}", differing.join("\n"));
}

#[test]
fn trixie_sets_are_those_of_apt() {
    resolves_as_apt("trixie");
}

#[test]
fn bookworm_sets_are_those_of_apt() {
    resolves_as_apt("bookworm");
}

fn mirrors() -> Mirrors {
    let variable = |name: &str| std::env::var(name).ok();
    Mirrors::discover(&Host {
        arguments: Vec::new(),
        mirror_variable: variable("ADAMANT_MIRROR"),
        snapshot_variable: None,
        config_files: Vec::new(),
        apt_directory: Some(PathBuf::from("/etc/apt")),
    })
    .unwrap()
}

/// The host's apt, with the suite and its pockets; and the essential packages that these have.
fn host_apt(suite: &str) -> Option<(HostApt, Vec<String>)> {
    let apt = HostApt::new()?;
    let mirrors = mirrors();
    let address = |repository: &str| mirrors.mirror(repository).unwrap().url.as_str().trim_end_matches('/').to_owned();
    let keys = ["archive", "security", "release"].map(|key| {
        let path = format!("src/apt/keys/debian-{suite}-{key}.asc");
        Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string()
    });
    let sources = [
        ("debian", suite.to_owned()),
        ("debian", format!("{suite}-updates")),
        ("debian-security", format!("{suite}-security")),
    ]
    .map(|(repository, suite)| format!("deb [signed-by={}] {} {suite} main\n", keys.join(","), address(repository)));
    apt.update(&sources.concat());
    let essential = essential(&apt);
    Some((apt, essential))
}

/// From the indexes that apt itself fetched.
fn essential(apt: &HostApt) -> Vec<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(apt.path("state/lists")).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().ends_with("_Packages") {
            let text = fs::read_to_string(path).unwrap();
            let essential = text.split("\n\n").filter(|paragraph| paragraph.contains("\nEssential: yes"));
            let name = |one: &str| Some(one.trim_start().strip_prefix("Package: ")?.lines().next()?.to_owned());
            names.extend(essential.filter_map(name));
        }
    }
    names.into_iter().collect()
}

fn installed_by(apt: &HostApt, names: Vec<String>, recommends: bool) -> BTreeSet<String> {
    let output = apt.simulate(names, recommends);
    assert!(output.status.success(), "{output:?}");
    let name_and_version = |line: &str| {
        let mut words = line.strip_prefix("Inst ")?.split(' ');
        Some(format!("{} {}", words.next()?, words.next()?.trim_start_matches('(')))
    };
    String::from_utf8_lossy(&output.stdout).lines().filter_map(name_and_version).collect()
}
