//! The sets that adamant locks from Debian's real archive are those that the host's apt installs on an empty system.
//!
//! Both read the same indexes at the same time from the host's mirror. Every set is compared with and without
//! recommended packages, name and version of each package, with the essential packages beside what is asked for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use adamant::apt::{LockRequest, SetRequest, distribution, lock};
use adamant::store::Store;
use adamant::store::fetch::{Fetcher, Options};
use adamant::store::mirror::{Host, Mirrors};
use rayon::prelude::*;

use crate::oracle;

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
    let Some(apt) = Apt::new(suite) else { return };
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
            let theirs = apt.install(packages, *recommends);
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

/// The host's apt, with sources and a state of its own: nothing is installed.
struct Apt {
    directory: tempfile::TempDir,
    essential: Vec<String>,
}

impl Apt {
    fn new(suite: &str) -> Option<Self> {
        oracle::oracle("apt-get")?;
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        for path in ["etc", "state/lists/partial", "cache/archives/partial", "log"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::write(at("status"), "").unwrap();
        let mirrors = mirrors();
        let address =
            |repository: &str| mirrors.mirror(repository).unwrap().url.as_str().trim_end_matches('/').to_owned();
        let keys = ["archive", "security", "release"].map(|key| {
            let path = format!("src/apt/keys/debian-{suite}-{key}.asc");
            Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string()
        });
        let sources = [
            ("debian", suite.to_owned()),
            ("debian", format!("{suite}-updates")),
            ("debian-security", format!("{suite}-security")),
        ]
        .map(|(repository, suite)| {
            format!("deb [signed-by={}] {} {suite} main\n", keys.join(","), address(repository))
        });
        fs::write(at("etc/sources.list"), sources.concat()).unwrap();
        let root = directory.path().display();
        let configuration = format!(
            "Dir \"{root}\"; Dir::Etc \"{root}/etc\"; Dir::Etc::sourceparts \"-\"; Dir::Etc::parts \"-\";\n\
             Dir::State \"{root}/state\"; Dir::State::status \"{root}/status\"; Dir::Cache \"{root}/cache\";\n\
             Dir::Log \"{root}/log\"; APT::Architecture \"amd64\"; APT::Architectures {{ \"amd64\"; }};\n\
             APT::Sandbox::User \"\"; Acquire::Languages \"none\";\n"
        );
        fs::write(at("apt.conf"), configuration).unwrap();
        let mut apt = Self { directory, essential: Vec::new() };
        oracle::run(apt.command().arg("update"));
        apt.essential = apt.read_essential();
        Some(apt)
    }

    fn command(&self) -> Command {
        let mut command = oracle::oracle("apt-get").unwrap();
        command.env("APT_CONFIG", self.directory.path().join("apt.conf"));
        command
    }

    /// From the indexes that apt itself fetched.
    fn read_essential(&self) -> Vec<String> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(self.directory.path().join("state/lists")).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().ends_with("_Packages") {
                let text = fs::read_to_string(path).unwrap();
                let essential = text.split("\n\n").filter(|paragraph| paragraph.contains("\nEssential: yes"));
                names.extend(
                    essential
                        .filter_map(|one| one.trim_start().strip_prefix("Package: ")?.lines().next())
                        .map(str::to_owned),
                );
            }
        }
        names.into_iter().collect()
    }

    fn install(&self, packages: &[&str], recommends: bool) -> BTreeSet<String> {
        let mut names: Vec<String> = self.essential.clone();
        names.extend(packages.iter().map(|&package| package.to_owned()));
        names.sort();
        let mut command = self.command();
        command.args(["-s", "-y", "-o", &format!("APT::Install-Recommends={recommends}"), "install"]).args(names);
        let installed = oracle::run(&mut command);
        let name_and_version = |line: &str| {
            let mut words = line.strip_prefix("Inst ")?.split(' ');
            Some(format!("{} {}", words.next()?, words.next()?.trim_start_matches('(')))
        };
        installed.lines().filter_map(name_and_version).collect()
    }
}
