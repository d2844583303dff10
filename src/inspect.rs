//! What is in an image, for a person to look at: values only, rendering belongs to `cli`.
//!
//! Flows in: the path of a directory that a build wrote, or of a disk image. Flows out: an [`Inspection`], read from
//! the image's bytes; the manifest adds only what the image itself does not say. Nothing is verified here, see
//! [`crate::verify`]; what cannot be read is a [`Failure`] with its place.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::architecture::Architecture;
use crate::digest::Digest;
use crate::disk::{self, attribute};
use crate::identifier::Uuid;
use crate::manifest::path_to_text;
use crate::tree::{Kind, NodeId, Tree};
use crate::verify::{Failure, Installed, Parts, dpkg_packages, locate, read_manifest};
use crate::verity::RootHash;

/// Version of the JSON form of [`Inspection`].
pub const SCHEMA: u32 = 1;
/// How many directories are listed.
const DIRECTORIES: usize = 20;

/// What is in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// Version of this form: 1.
    pub schema: u32,
    /// The disk image.
    pub image: PathBuf,
    /// IMAGE_ID of its os-release.
    pub name: String,
    /// IMAGE_VERSION of its os-release.
    pub version: String,
    /// What it runs on.
    pub architecture: Architecture,
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes that the file takes: it has holes.
    pub allocated: u64,
    /// UUID of the partition table.
    pub disk_uuid: Uuid,
    /// In the order of the disk.
    pub partitions: Vec<Partition>,
    /// The unified kernel image.
    pub uki: Uki,
    /// dm-verity of the root file system.
    pub verity: Verity,
    /// The root file system.
    pub root: Root,
    /// The directories with the most bytes below them, largest first.
    pub directories: Vec<Directory>,
    /// What dpkg's database in the image has.
    pub packages: Vec<Package>,
    /// What only the manifest knows.
    pub manifest: Option<Manifest>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// Its label.
    pub label: String,
    /// `esp`, `root` or `root-verity`.
    pub role: &'static str,
    /// Its type.
    #[serde(rename = "type")]
    pub type_uuid: Uuid,
    /// Its own UUID.
    pub uuid: Uuid,
    /// Whether its attributes say read-only.
    pub read_only: bool,
    /// Where it starts, in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// Bytes of it that are in use.
    pub used: u64,
}

/// A unified kernel image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Uki {
    /// Where it is on the EFI system partition.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// The kernel command line.
    pub command_line: String,
    /// Release of the kernel.
    pub uname: String,
    /// The os-release file in it.
    pub os_release: String,
    /// Its revocation lines.
    pub sbat: String,
    /// In the order of the file.
    pub sections: Vec<Section>,
}

/// A section of a unified kernel image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Where it stands in the file, in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
}

/// dm-verity of the root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verity {
    /// From the command line.
    pub root_hash: RootHash,
    /// From the superblock, in hexadecimal digits.
    pub salt: String,
    /// From the superblock.
    pub uuid: Uuid,
    /// Bytes that are covered.
    pub data_size: u64,
}

/// A root file system in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Root {
    /// `erofs`.
    pub file_system: &'static str,
    /// Regular files, each counted once.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// Devices, fifos, sockets.
    pub others: u64,
    /// Bytes of all files, uncompressed.
    pub bytes: u64,
}

/// A directory and what is below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Directory {
    /// Where it is.
    pub path: String,
    /// Bytes of the files below it, uncompressed; a file with several names counts where the first is.
    pub bytes: u64,
    /// How many files that are.
    pub files: u64,
}

/// A package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub architecture: String,
    /// Its version.
    pub version: String,
}

/// What only the manifest knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// The image digest.
    pub digest: Digest,
    /// SHA-256 of the recipe.
    pub recipe_sha256: Digest,
    /// SHA-256 of the lock.
    pub lock_sha256: Digest,
    /// What made the image: name and version.
    pub tool: String,
    /// No file is younger: seconds since 1970-01-01 00:00 UTC.
    pub epoch: i64,
    /// Packages of the initrd.
    pub initrd_packages: Vec<Package>,
}

/// Looks at the image at `path`.
pub fn image(path: &Path) -> Result<Inspection, Failure> {
    let located = locate(path)?;
    let manifest = located.manifest.as_deref().map(read_manifest).transpose()?;
    let raw = located.raw(manifest.as_ref())?;
    let parts = Parts::read(&raw)?;
    let (name, version) = parts.name_and_version()?;
    let verity = parts.verity_superblock()?;
    let tree = parts.root_tree()?;
    let packages = dpkg_packages(&tree).map_err(|problem| parts.failure(parts.root.start, problem))?;
    let package = |p: Installed| Package { name: p.name, architecture: p.architecture, version: p.version };
    let (root, directories) = weigh(&tree);
    let data_size = verity.data_blocks.saturating_mul(crate::verity::BLOCK_SIZE as u64);
    Ok(Inspection {
        schema: SCHEMA,
        name,
        version,
        architecture: parts.architecture,
        size: parts.disk.size(),
        allocated: allocated(&raw),
        disk_uuid: parts.table.disk_uuid,
        partitions: partitions(&parts, &verity),
        uki: uki(&parts),
        verity: Verity {
            root_hash: parts.root_hash,
            salt: verity.salt.iter().map(|byte| format!("{byte:02x}")).collect(),
            uuid: verity.uuid,
            data_size,
        },
        root,
        directories,
        packages: packages.into_iter().flatten().map(package).collect(),
        manifest: manifest.as_ref().map(from_manifest),
        image: raw,
    })
}

fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    // st_blocks counts units of 512 bytes.
    std::fs::metadata(path).map_or(0, |status| status.blocks() * 512)
}

fn from_manifest(manifest: &crate::manifest::Manifest) -> Manifest {
    let initrd = manifest.packages.iter().filter(|package| package.set == "initrd");
    let package = |package: &crate::manifest::Package| Package {
        name: package.name.clone(),
        architecture: package.architecture.clone(),
        version: package.version.clone(),
    };
    Manifest {
        digest: manifest.digest(),
        recipe_sha256: manifest.recipe_sha256,
        lock_sha256: manifest.lock_sha256,
        tool: format!("{} {}", manifest.tool.name, manifest.tool.version),
        epoch: manifest.epoch,
        initrd_packages: initrd.map(package).collect(),
    }
}

fn partitions(parts: &Parts, superblock: &crate::verity::Superblock) -> Vec<Partition> {
    let data = superblock.data_blocks.saturating_mul(crate::verity::BLOCK_SIZE as u64);
    let hashes = crate::verity::Shape::new(superblock.data_blocks).size();
    let used = [parts.volume.size - parts.volume.free, data, hashes];
    let roles = ["esp", "root", "root-verity"];
    let one = |((entry, role), used): ((&disk::Entry, &'static str), u64)| {
        let range = entry.range();
        Partition {
            label: entry.label.clone(),
            role,
            type_uuid: entry.type_uuid,
            uuid: entry.uuid,
            read_only: entry.attributes & attribute::READ_ONLY != 0,
            offset: range.start,
            size: range.end - range.start,
            used,
        }
    };
    parts.table.entries.iter().zip(roles).zip(used).map(one).collect()
}

fn uki(parts: &Parts) -> Uki {
    let section = |section: &crate::boot::pe::Section| {
        let range = section.range();
        Section { name: section.name.clone(), offset: range.start, size: range.end - range.start }
    };
    Uki {
        path: crate::tree::show(&parts.uki_path),
        size: parts.uki_content.size(),
        command_line: parts.uki.command_line.clone(),
        uname: parts.uki.uname.clone(),
        os_release: parts.uki.os_release.clone(),
        sbat: parts.uki.sbat.clone(),
        sections: parts.uki.pe.sections.iter().map(section).collect(),
    }
}

/// A directory of a walk, what lies in it, and which of the walk's directories holds it.
struct Weight {
    path: Vec<u8>,
    bytes: u64,
    files: u64,
    above: usize,
}

/// Counts what is in a tree, and finds its heaviest directories.
fn weigh(tree: &Tree) -> (Root, Vec<Directory>) {
    let mut root = Root { file_system: "erofs", files: 0, directories: 0, symlinks: 0, others: 0, bytes: 0 };
    let mut seen = vec![false; tree.capacity()];
    let mut weights: Vec<Weight> = Vec::new();
    // The directories that the walk is in, the innermost last.
    let mut open: Vec<usize> = Vec::new();
    for (path, id) in tree.walk() {
        let above = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        while open.len() > 1 && open.last().is_some_and(|last| weights[*last].path.len() != above) {
            open.pop();
        }
        let last = open.last().copied().unwrap_or(0);
        if std::mem::replace(&mut seen[NodeId::index(id)], true) {
            continue;
        }
        match &tree.node(id).kind {
            Kind::Directory(_) => {
                root.directories += 1;
                open.push(weights.len());
                weights.push(Weight { path, bytes: 0, files: 0, above: last });
            }
            Kind::Symlink(_) => root.symlinks += 1,
            Kind::File(content) => {
                root.files += 1;
                root.bytes = root.bytes.saturating_add(content.size());
                weights[last].bytes = weights[last].bytes.saturating_add(content.size());
                weights[last].files += 1;
            }
            _ => root.others += 1,
        }
    }
    // Directories stand behind those that hold them.
    for index in (1..weights.len()).rev() {
        let (bytes, files, above) = (weights[index].bytes, weights[index].files, weights[index].above);
        weights[above].bytes = weights[above].bytes.saturating_add(bytes);
        weights[above].files += files;
    }
    let mut directories: Vec<_> = weights
        .into_iter()
        .filter(|weight| weight.files > 0)
        .map(|Weight { path, bytes, files, .. }| Directory { path: format!("/{}", path_to_text(&path)), bytes, files })
        .collect();
    directories.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
    directories.truncate(DIRECTORIES);
    (root, directories)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Metadata, Node};

    #[test]
    fn directories_are_weighed_with_all_below_and_links_once() {
        let mut tree = Tree::default();
        tree.make_directories(b"a/b", &Metadata::with_mode(0o755)).unwrap();
        tree.make_directories(b"c", &Metadata::with_mode(0o755)).unwrap();
        let file =
            |size| Node { metadata: Metadata::with_mode(0o644), kind: Kind::File(Content::from_bytes(vec![0; size])) };
        tree.insert(b"a/b/large", file(100)).unwrap();
        tree.insert(b"a/small", file(1)).unwrap();
        tree.insert(b"c/x", file(10)).unwrap();
        tree.link(b"a/b/large", b"c/link").unwrap();
        let (root, directories) = weigh(&tree);
        assert_eq!((root.files, root.directories, root.bytes), (3, 4, 111));
        let list: Vec<_> = directories.iter().map(|d| (d.path.as_str(), d.bytes, d.files)).collect();
        assert_eq!(list, [("/", 111, 3), ("/a", 101, 2), ("/a/b", 100, 1), ("/c", 10, 1)]);
    }

    #[test]
    fn sizes_that_no_disk_has_are_added_up_all_the_same() {
        let huge = Content::new(i64::MAX as u64, std::sync::Arc::new(Vec::new()), 0);
        let mut tree = Tree::default();
        for name in [b"a", b"b", b"c"] {
            let node = Node { metadata: Metadata::with_mode(0o644), kind: Kind::File(huge.clone()) };
            tree.insert(name, node).unwrap();
        }
        let (root, directories) = weigh(&tree);
        assert_eq!((root.bytes, directories[0].bytes), (u64::MAX, u64::MAX));
    }
}
