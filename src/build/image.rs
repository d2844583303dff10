//! From a finished tree to a disk: file system, hash tree, kernel image, partitions.
//!
//! ```text
//! tree ── EROFS ──> root.erofs ── dm-verity ──> root.verity, root hash
//!                                                      │
//! stub, kernel, initrd, os-release, command line <─────┘── UKI ──> ESP ──> disk
//! ```
//!
//! In: [`Parts`] and an empty directory for the two partitions' bytes. Out: an [`Image`], whose disk and UKI are read
//! from there when they are written. Every identifier comes from the seed, which comes from the image's name and version.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Plan;
use super::stages::Stages;
use crate::architecture::Architecture;
use crate::boot::{command_line, uki};
use crate::disk;
use crate::filesystem::erofs::{self, SegmentCache};
use crate::identifier::Seed;
use crate::tree::{Content, Timestamp, Tree, TreeError};
use crate::verity::{self, RootHash};

/// What an image is made of.
pub struct Parts<'a> {
    /// IMAGE_ID.
    pub name: &'a str,
    /// IMAGE_VERSION.
    pub version: &'a str,
    /// What it runs on.
    pub architecture: Architecture,
    /// The root file system.
    pub tree: &'a Tree,
    /// systemd's EFI stub.
    pub stub: Content,
    /// The kernel.
    pub kernel: Content,
    /// Its release, as `uname -r` says it.
    pub uname: &'a str,
    /// The packed initrd.
    pub initrd: Content,
    /// The text of the image's os-release.
    pub os_release: String,
    /// Kernel arguments besides the root hash.
    pub arguments: &'a [String],
    /// The time of everything that has one.
    pub epoch: i64,
    /// How the root file system is written: see [`options`].
    pub root: erofs::Options,
}

/// An image, ready to be written.
pub struct Image {
    /// The disk.
    pub disk: disk::Disk,
    /// The part of the disk that its file has already.
    pub root_range: Range<u64>,
    /// The unified kernel image, as it stands in the ESP too.
    pub uki: Content,
    /// What the kernel verifies the root file system by.
    pub root_hash: RootHash,
    /// Bytes of the root file system.
    pub data_size: u64,
    /// Salt of the hash tree.
    pub salt: [u8; 32],
    /// The kernel command line.
    pub command_line: String,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The root file system.
    #[error("cannot write the root file system")]
    Erofs(#[from] erofs::WriteError),
    /// The hash tree.
    #[error("cannot write the dm-verity hash tree")]
    Verity(#[from] verity::FormatError),
    /// An argument.
    #[error("cannot make the kernel command line")]
    CommandLine(#[from] command_line::CommandLineError),
    /// The kernel image.
    #[error("cannot make the unified kernel image")]
    Uki(#[from] uki::UkiError),
    /// The EFI system partition.
    #[error("cannot make the EFI system partition")]
    Esp(#[from] TreeError),
    /// The partitions.
    #[error(transparent)]
    Layout(#[from] disk::LayoutError),
    /// The host's file system refused.
    #[error("cannot write {}", .path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The identifiers of the image `name` of that version.
pub fn seed(name: &str, version: &str, architecture: Architecture) -> Seed {
    Seed::new(&["adamant image", name, version, architecture.row().name])
}

/// How the root file system of `plan` is written, for the kernel `uname`.
pub fn options(plan: &Plan<'_>, uname: &str) -> erofs::Options {
    let recipe = plan.recipe;
    let seed = seed(&recipe.name.value, &recipe.version.value, recipe.architecture);
    erofs::Options {
        uuid: *seed.uuid(b"root file-system-uuid").as_bytes(),
        label: b"root".to_vec(),
        build_time: plan.epoch,
        workers: plan.workers,
        compression: compression(uname),
        ..erofs::Options::default()
    }
}

/// Makes the image. Its root file system is written where it is to lie in the disk, which becomes the file `raw`; the
/// hash tree is kept in `workspace`; `segments` has what was compressed before.
pub fn assemble(
    parts: &Parts<'_>,
    segments: &dyn SegmentCache,
    raw: &Path,
    workspace: &Path,
    stages: &Stages<'_>,
) -> Result<Image, ImageError> {
    let seed = seed(parts.name, parts.version, parts.architecture);
    // One root hash is as long as another.
    let offset = disk::root_offset(&boot(parts, &RootHash::from_bytes([0; 32]))?.esp)?;
    let root =
        stages.run("root file system", || Ok::<_, ImageError>((write_root(parts, segments, raw, offset)?, false)))?;
    let salt = seed.bytes(b"verity-salt");
    let (root_hash, hashes) =
        stages.run("verity", || Ok::<_, ImageError>((write_hashes(&root, salt, &seed, workspace)?, false)))?;
    let data_size = root.size();
    let Boot { command_line, uki, esp } = boot(parts, &root_hash)?;
    let disk = disk::Disk::new(&disk::Image {
        name: parts.name,
        version: parts.version,
        architecture: parts.architecture,
        seed: &seed,
        esp,
        root,
        verity: hashes,
        root_hash,
    })?;
    let root_range = offset..offset + data_size;
    if !disk.partitions.iter().any(|partition| partition.entry.range() == root_range) {
        let source = io::Error::other("the root file system is not where it was to lie");
        return Err(ImageError::Write { path: raw.to_owned(), source });
    }
    Ok(Image { disk, root_range, uki, root_hash, data_size, salt, command_line })
}

/// What starts an image.
struct Boot {
    command_line: String,
    uki: Content,
    esp: disk::Esp,
}

fn boot(parts: &Parts<'_>, root_hash: &RootHash) -> Result<Boot, ImageError> {
    let command_line = command_line::compose(root_hash, parts.arguments)?;
    let uki = uki::build(&uki::Parts {
        stub: parts.stub.clone(),
        kernel: parts.kernel.clone(),
        initrd: parts.initrd.clone(),
        command_line: command_line.clone(),
        os_release: parts.os_release.clone(),
        uname: parts.uname.to_owned(),
    })?;
    let esp = disk::Esp::direct(parts.architecture, uki.clone(), Timestamp::from_seconds(parts.epoch))?;
    Ok(Boot { command_line, uki, esp })
}

fn write_root(parts: &Parts<'_>, segments: &dyn SegmentCache, raw: &Path, offset: u64) -> Result<Content, ImageError> {
    let write = |source| ImageError::Write { path: raw.to_owned(), source };
    let mut file = create(raw).map_err(write)?;
    file.seek(SeekFrom::Start(offset)).map_err(write)?;
    erofs::write_with(parts.tree, &parts.root, segments, &mut file)?;
    content(file, offset, write)
}

/// The first release of Linux whose EROFS reads Zstandard.
const ZSTD_SINCE: (u32, u32) = (6, 10);

/// What the kernel `release` can read: Zstandard, or LZ4 if it is older, as Debian 12's.
fn compression(release: &str) -> erofs::Compression {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < ZSTD_SINCE => erofs::Compression::Lz4 { level: LZ4_LEVEL },
        _ => erofs::Options::default().compression,
    }
}

/// LZ4's own default of its thorough variant.
const LZ4_LEVEL: i32 = 9;

fn write_hashes(
    root: &Content,
    salt: [u8; 32],
    seed: &Seed,
    workspace: &Path,
) -> Result<(RootHash, Content), ImageError> {
    let path = workspace.join("root.verity");
    let write = |source| ImageError::Write { path: path.clone(), source };
    let mut file = create(&path).map_err(write)?;
    let hash = verity::format(root, root.size(), salt, seed.uuid(b"verity-uuid"), &mut file)?;
    Ok((hash, content(file, 0, write)?))
}

fn create(path: &Path) -> io::Result<BufWriter<File>> {
    // A megabyte: the writers' pieces are smaller, and the kernel is asked seldom.
    Ok(BufWriter::with_capacity(1 << 20, File::options().read(true).write(true).create_new(true).open(path)?))
}

/// What was written from `offset` on, to be read again.
fn content(
    mut file: BufWriter<File>,
    offset: u64,
    error: impl Fn(io::Error) -> ImageError,
) -> Result<Content, ImageError> {
    file.flush().map_err(&error)?;
    let file = file.into_inner().map_err(|broken| error(broken.into_error()))?;
    let size = file.metadata().map_err(&error)?.len().saturating_sub(offset);
    Ok(Content::new(size, Arc::new(file), offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_gets_what_it_can_read() {
        for old in ["6.1.0-41-cloud-amd64", "5.10.0", "6.9.12"] {
            assert_eq!(compression(old), erofs::Compression::Lz4 { level: LZ4_LEVEL }, "{old}");
        }
        for new in ["6.10.0", "6.12.57+deb13-cloud-amd64", "7.0.0-rc1", "custom"] {
            assert_eq!(compression(new), erofs::Options::default().compression, "{new}");
        }
    }
}
