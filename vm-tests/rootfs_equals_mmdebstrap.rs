//! The configured tree against one that mmdebstrap makes of the same packages: what differs is what the docs of
//! `rootfs::normalise` name, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;

use adamant::rootfs::deb::{EntryKind, UnpackedPackage, read_entries, unpack};
use adamant::rootfs::{Action, RULES, Rule, Settings, Storage, configure, normalise, remove_workspace};
use adamant::store::mirror::{Host, Mirrors};
use adamant::tree::{Kind, Node, Tree, show};
use rayon::prelude::*;

use crate::oracle::{oracle, run, skip};

const EPOCH: i64 = 1_760_000_000;
const ADAMANT: &str = env!("CARGO_BIN_EXE_adamant");
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A server with file capabilities, access control lists, diversions, overrides, users, alternatives, triggers.
const PACKAGES: &str = "systemd,systemd-sysv,systemd-boot,systemd-resolved,udev,dbus,linux-image-cloud-amd64,openssh-server,\
                        ca-certificates,iputils-ping,python3,man-db,sudo,nftables";

/// Where mmdebstrap leaves something that adamant does not make, or the other way round. `/**` is everything below.
const DIFFERENCES: [&str; 12] = [
    "dev/**",
    "etc/fstab",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/.resolv.conf.systemd-resolved.bak",
    "etc/apt/**",
    "var/lib/apt/**",
    "var/cache/apt/**",
    "var/log/apt/**",
    "run/**",
    "boot/initrd.img-*",
    "initrd.img*",
];

/// What must be equal: everything but directories' times.
type Description = (String, BTreeMap<Vec<u8>, Vec<u8>>);

#[test]
fn a_configured_tree_is_what_mmdebstrap_makes_but_for_the_named_differences() {
    let Some(mut mmdebstrap) = oracle("mmdebstrap") else { return };
    if !Path::new(KEYRING).exists() {
        return skip("debian-archive-keyring is not installed");
    }
    let directory = tempfile::tempdir().unwrap();
    let (debs, tar) = (directory.path().join("debs"), directory.path().join("theirs.tar"));
    fs::create_dir(&debs).unwrap();
    let keep = format!("--customize-hook=copy-out /var/cache/apt/archives {}", debs.display());
    mmdebstrap.env("SOURCE_DATE_EPOCH", EPOCH.to_string()).args(["--variant=essential", "--skip=essential/unlink"]);
    mmdebstrap.arg(format!("--include={PACKAGES}")).arg(format!("--keyring={KEYRING}")).arg(keep);
    mmdebstrap.arg("trixie").arg(&tar).args(sources());
    run(&mut mmdebstrap);

    let theirs = describe_archive(&tar);
    let ours = describe_tree(&our_tree(directory.path(), &debs.join("archives")));
    let paths: BTreeSet<&Vec<u8>> = ours.keys().chain(theirs.keys()).collect();
    let differs = |path: &&&Vec<u8>| ours.get(**path) != theirs.get(**path) && !is_named(path);
    let differences: Vec<String> = paths
        .iter()
        .filter(differs)
        .map(|path| format!("{}: ours {:?}, theirs {:?}", show(path), ours.get(*path), theirs.get(*path)))
        .collect();
    assert!(ours.len() > 5000, "{} names", ours.len());
    let shown = differences[..differences.len().min(20)].join("\n");
    assert!(differences.is_empty(), "{} differences:\n{shown}", differences.len());
}

/// Lines of `sources.list` for the mirrors of this host.
fn sources() -> Vec<String> {
    let mirror_variable = std::env::var("ADAMANT_MIRROR").ok();
    let host = Host { mirror_variable, apt_directory: Some("/etc/apt".into()), ..Host::default() };
    let mirrors = Mirrors::discover(&host).unwrap();
    let url = |name: &str| mirrors.mirror(name).expect("this host has Debian sources").url.to_string();
    let (debian, security) = (url("debian"), url("debian-security"));
    vec![
        format!("deb {debian} trixie main"),
        format!("deb {debian} trixie-updates main"),
        format!("deb {security} trixie-security main"),
    ]
}

fn our_tree(directory: &Path, debs: &Path) -> Tree {
    let mut paths: Vec<_> = fs::read_dir(debs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    paths.sort();
    let packages: Vec<UnpackedPackage> = paths
        .par_iter()
        .map(|path| unpack(path, &directory.join(path.file_name().unwrap()).with_extension("data")).unwrap())
        .collect();
    let workspace = directory.join("workspace");
    fs::create_dir(&workspace).unwrap();
    let settings = Settings {
        workspace: &workspace,
        program: Some(Path::new(ADAMANT)),
        epoch: EPOCH,
        files: Vec::new(),
        debconf: Vec::new(),
        storage: Storage::Automatic,
        progress: &|_| {},
    };
    let tree = configure(&packages, &settings);
    if tree.is_err() {
        remove_workspace(&workspace, Some(Path::new(ADAMANT))).unwrap();
    }
    let mut tree = tree.unwrap_or_else(|error| panic!("{error}"));
    normalise(&mut tree, EPOCH).unwrap();
    tree
}

fn describe_tree(tree: &Tree) -> BTreeMap<Vec<u8>, Description> {
    let mut first_names = BTreeMap::new();
    let mut all = BTreeMap::new();
    for (path, id) in tree.walk() {
        let Node { metadata, kind } = tree.node(id);
        let first = first_names.entry(id.index()).or_insert_with(|| path.clone()).clone();
        let what = match kind {
            Kind::Directory(_) => "directory".to_owned(),
            _ if first != path => format!("link to {}", show(&first)),
            Kind::File(content) => file_text(&path, &content.to_vec().unwrap(), metadata.mtime.seconds),
            Kind::Symlink(target) => format!("symlink {}", show(target)),
            other => format!("{other:?}"),
        };
        let text = description(&what, metadata);
        all.insert(path, (text, metadata.xattrs.clone()));
    }
    all
}

fn describe_archive(path: &Path) -> BTreeMap<Vec<u8>, Description> {
    let mut all: BTreeMap<Vec<u8>, Description> = BTreeMap::new();
    let bytes = fs::read(path).unwrap();
    // Of the names of one file the tree's first is the first in byte order, the archive's the first that tar met.
    let entries = read_entries(&mut tar::Archive::new(File::open(path).unwrap())).unwrap();
    let mut groups: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for entry in &entries {
        if let EntryKind::HardLink(target) = &entry.kind {
            let group = groups.entry(target.clone()).or_default();
            group.extend([target.clone(), entry.path.clone()]);
        }
    }
    let first_of: BTreeMap<&Vec<u8>, &Vec<u8>> =
        groups.values().flat_map(|group| group.iter().map(|name| (name, group.first().unwrap()))).collect();
    let content = |entry: &adamant::rootfs::deb::Entry| match entry.kind {
        EntryKind::File { offset, size, .. } => bytes[offset as usize..][..size as usize].to_vec(),
        _ => Vec::new(),
    };
    for entry in &entries {
        let what = match &entry.kind {
            _ if first_of.get(&entry.path).is_some_and(|first| **first != entry.path) => {
                format!("link to {}", show(first_of[&entry.path]))
            }
            EntryKind::HardLink(target) => {
                let first = entries.iter().find(|entry| entry.path == *target).unwrap();
                file_text(&entry.path, &content(first), entry.metadata.mtime.seconds)
            }
            EntryKind::File { .. } => file_text(&entry.path, &content(entry), entry.metadata.mtime.seconds),
            EntryKind::Directory => "directory".to_owned(),
            EntryKind::Symlink(target) => format!("symlink {}", show(target)),
            other => format!("{other:?}"),
        };
        let text = description(&what, &entry.metadata);
        all.insert(entry.path.clone(), (text, entry.metadata.xattrs.clone()));
    }
    all
}

fn file_text(path: &[u8], bytes: &[u8], time: i64) -> String {
    let mut bytes = bytes.to_vec();
    if path == b"var/lib/dpkg/triggers/File" {
        // The order is that of unpacking, and a named difference.
        let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        lines.sort_unstable();
        bytes = lines.join(&b'\n');
    }
    format!("file of {} bytes, {}, changed at {time}", bytes.len(), adamant::digest::Digest::of(&bytes))
}

fn description(what: &str, metadata: &adamant::tree::Metadata) -> String {
    // The mode of a symlink means nothing and depends on the file system.
    let mode = if what.starts_with("symlink") { 0o777 } else { metadata.mode };
    format!("{mode:o} {}:{} {what}", metadata.uid, metadata.gid)
}

/// Whether the difference at `path` is one of those that the docs name.
fn is_named(path: &[u8]) -> bool {
    let text = String::from_utf8_lossy(path);
    let named = |pattern: &&str| match (pattern.strip_suffix("/**"), pattern.strip_suffix('*')) {
        (Some(directory), _) => {
            text.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        (_, Some(start)) => text.starts_with(start),
        _ => text == **pattern,
    };
    // What is rewritten has the epoch's date, which mmdebstrap was given too.
    let taken = |rule: &&Rule| !matches!(rule.action, Action::Rewrite(_));
    DIFFERENCES.iter().any(named) || RULES.iter().filter(taken).any(|rule| rule.matches(path))
}

/// The test must be able to fail.
#[test]
fn a_difference_that_nobody_named_counts() {
    assert!(!is_named(b"usr/bin/ls") && !is_named(b"etc/passwd") && !is_named(b"etc/aptitude"));
    assert!(is_named(b"etc/apt/sources.list") && is_named(b"dev/null") && is_named(b"var/lib/dpkg/status-old"));
}
