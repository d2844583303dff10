//! Whether an image is what it says it is, from its bytes alone.
//!
//! Flows in: a directory that a build wrote, or a disk image. Flows out: [`Verified`], or the first thing that is
//! wrong ([`Failure`]) with the file and the byte where it is. Nothing that the builder says is believed, no writer is
//! used: only readers.
//!
//! In this order, so that what is named is the cause and not a consequence:
//!
//! 1. `manifest.json` is canonical (directory only)
//! 2. partition table and its copy; zeros between the partitions; exactly ESP, root and root-verity of one architecture
//! 3. ESP: a FAT32 volume that holds the UKI where firmware looks for it, and nothing else, not even in free space
//! 4. UKI: sections do not overlap, nothing between them; a command line with one root hash and nothing that leads
//!    elsewhere; its os-release names the image that the labels name; its kernel is the one it says
//! 5. root hash ↔ partition UUIDs; hash tree and every block of data against the root hash; zeros behind
//! 6. root: an EROFS that can be read whole
//! 7. all that was found against the manifest, every file and package; digests of sections, partitions, disk
//! 8. the UKI beside the image, `SHA256SUMS`
//!
//! **What it cannot know**: a `.raw` alone is checked against itself. Its root hash stands in the UKI, so whoever changes
//! both, and the hash tree, makes another image that is as consistent. That the image is the one that was built
//! follows from the manifest, whose digest ([`Verified::digest`]) has to come from somewhere else.
//!
//! Memory: a chunk per thread, the hash tree (1/127 of the data), the file tree without contents, the manifest.

mod against;
mod beside;
mod failure;
mod parts;

pub use beside::file_name;
pub(crate) use beside::read_manifest;
pub use failure::{Failure, Problem};
pub(crate) use parts::{Parts, locate};

use std::path::{Path, PathBuf};

use crate::architecture::Architecture;
use crate::digest::Digest;
use crate::manifest;
use crate::tree::Tree;
use crate::verity::RootHash;

/// An image that is what it says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The disk image.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it runs on.
    pub architecture: Architecture,
    /// What its kernel checks the root file system against.
    pub root_hash: RootHash,
    /// Names in the root file system.
    pub files: usize,
    /// Packages that the package database in the root file system has; `None` if it has no such database.
    pub packages: Option<usize>,
    /// The image digest, if there was a manifest to check.
    pub digest: Option<Digest>,
}

/// Verifies the image at `path`: a directory as `build` writes it, or a disk image alone.
pub fn image(path: &Path) -> Result<Verified, Failure> {
    let located = locate(path)?;
    let manifest = located.manifest.as_deref().map(read_manifest).transpose()?;
    let raw = located.raw(manifest.as_ref())?;
    let parts = Parts::read(&raw)?;
    parts.check()?;
    parts.check_ties()?;
    let verity = parts.check_verity()?;
    let root = parts.root_tree()?;
    let size = parts.root.end - parts.root.start;
    check_contents(&root, size).map_err(|problem| parts.failure(parts.root.start, problem))?;
    let packages = dpkg_packages(&root).map_err(|problem| parts.failure(parts.root.start, problem))?;
    let files = manifest::files(&root).map_err(|error| parts.failure(parts.root.start, error.into()))?;
    let (count, installed) = (files.len(), packages.as_ref().map(Vec::len));
    if let Some(manifest) = &manifest {
        against::Found { parts: &parts, verity: &verity, tree: &root, files, packages }
            .compare(manifest, &located.directory)?;
        beside::check(manifest, &parts, &located.directory)?;
    }
    let (name, version) = parts.name_and_version()?;
    Ok(Verified {
        name,
        version,
        architecture: parts.architecture,
        root_hash: parts.root_hash,
        files: count,
        packages: installed,
        digest: manifest.map(|manifest| manifest.digest()),
        path: raw,
    })
}

/// Bytes of files that are read whatever the size of the root file system: more than any machine image has.
const CONTENTS_ROOM: u64 = 64 << 30;
/// Bytes of files for each byte of the root file system beyond that: zeros compress to less than a thousandth.
const CONTENTS_PER_BYTE: u64 = 1024;

/// Every byte of every file is hashed, holes too, and a hole of exabytes takes no room: an image must not keep its
/// reader busy forever.
fn check_contents(tree: &Tree, size: u64) -> Result<(), Problem> {
    let mut seen = vec![false; tree.capacity()];
    let mut bytes: u64 = 0;
    for (_, id) in tree.walk() {
        if let crate::tree::Kind::File(content) = &tree.node(id).kind
            && !std::mem::replace(&mut seen[id.index()], true)
        {
            bytes = bytes.saturating_add(content.size());
        }
    }
    let limit = CONTENTS_ROOM.max(size.saturating_mul(CONTENTS_PER_BYTE));
    if bytes > limit { Err(Problem::Contents { bytes }) } else { Ok(()) }
}

/// Where dpkg keeps what is installed.
const DPKG_STATUS: &[u8] = b"var/lib/dpkg/status";
/// Longest package database that is read: desktops have 5 MB.
const DPKG_STATUS_MAX: u64 = 256 * 1024 * 1024;

/// A package by dpkg's database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Installed {
    pub name: String,
    pub architecture: String,
    pub version: String,
}

/// Every installed package by dpkg's database in the tree, by name; `None` without a database.
pub(crate) fn dpkg_packages(tree: &Tree) -> Result<Option<Vec<Installed>>, Problem> {
    let Some(id) = tree.lookup(DPKG_STATUS) else { return Ok(None) };
    let crate::tree::Kind::File(content) = &tree.node(id).kind else { return Ok(None) };
    let refuse = |source| Problem::File(manifest::FileError { path: DPKG_STATUS.to_vec(), source });
    if content.size() > DPKG_STATUS_MAX {
        return Err(refuse(std::io::ErrorKind::FileTooLarge.into()));
    }
    let text = content.to_vec().map_err(refuse)?;
    let text = String::from_utf8_lossy(&text);
    let mut packages = Vec::new();
    for paragraph in text.split("\n\n") {
        let field = |name: &str| {
            let mut lines = paragraph.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.map_or(String::new(), |value| value.trim().to_owned())
        };
        if field("Status").ends_with(" installed") {
            packages.push(Installed {
                name: field("Package"),
                architecture: field("Architecture"),
                version: field("Version"),
            });
        }
    }
    packages.sort();
    Ok(Some(packages))
}
