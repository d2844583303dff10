//! The first thing that is wrong with an image.

use std::io;
use std::path::PathBuf;

use crate::boot::command_line::CommandLineError;
use crate::boot::pe::PeError;
use crate::boot::uki::UkiError;
use crate::digest::Digest;
use crate::disk;
use crate::filesystem::{erofs, fat};
use crate::identifier::Uuid;
use crate::manifest::{ChecksumsError, FileError, ParseError};
use crate::verity;

/// What is wrong, and where.
#[derive(Debug, thiserror::Error)]
#[error("{}, byte {offset}", .file.display())]
pub struct Failure {
    /// The file that is wrong: the disk image, the manifest, or another file beside them.
    pub file: PathBuf,
    /// Where it is wrong, in bytes from its start.
    pub offset: u64,
    /// What is wrong.
    #[source]
    pub problem: Problem,
}

/// What can be wrong with an image. Offsets within are from the start of what the message names; the one of
/// [`Failure`] is from the start of the file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A file cannot be read.
    #[error("the file cannot be read")]
    Read(#[source] io::Error),
    /// A directory without an image.
    #[error("there is no image here: a directory has {} and a .raw, or give a .raw itself", crate::manifest::FILE_NAME)]
    NoImage,
    /// The manifest is none.
    #[error("the manifest cannot be read")]
    Manifest(#[source] ParseError),
    /// A file name in the manifest.
    #[error("the manifest names the file {found:?} where it should name {expected:?}")]
    FileName {
        /// By name, version and architecture.
        expected: String,
        /// In the manifest.
        found: String,
    },
    /// The partition table.
    #[error("the partition table is wrong")]
    Table(#[source] disk::ReadError),
    /// Other partitions than an image has.
    #[error("the partitions are not an EFI system partition, a root and its verity partition, in this order")]
    Partitions,
    /// Bytes where there should be none.
    #[error("a byte outside all partitions is not zero")]
    Outside,
    /// The EFI system partition.
    #[error("the EFI system partition is wrong")]
    Esp(#[source] fat::ReadError),
    /// Too few or too many files on it.
    #[error("the EFI system partition should hold {expected} and nothing else, but there is {found}")]
    EspFiles {
        /// The one file.
        expected: String,
        /// Another file, or that there is none.
        found: String,
    },
    /// The UKI.
    #[error("the unified kernel image is wrong")]
    Uki(#[source] UkiError),
    /// The UKI's file format.
    #[error("the unified kernel image has bytes that do not belong there")]
    Executable(#[source] PeError),
    /// The kernel command line.
    #[error("the kernel command line does not boot a verified root")]
    CommandLine(#[source] CommandLineError),
    /// Two places that should say the same.
    #[error("{what} is {found:?}, but {other} says {expected:?}")]
    Tie {
        /// What was looked at.
        what: &'static str,
        /// What it says.
        found: String,
        /// What it was compared with.
        other: &'static str,
        /// What that says.
        expected: String,
    },
    /// A partition UUID that is not the half of the root hash.
    #[error("the UUID of the {partition} partition is {found}, by the root hash on the command line it is {expected}")]
    PartitionUuid {
        /// Which.
        partition: &'static str,
        /// In the table.
        found: Uuid,
        /// By the root hash.
        expected: Uuid,
    },
    /// dm-verity.
    #[error("the root file system is not the one of the root hash")]
    Verity(#[source] verity::Failure),
    /// The root file system.
    #[error("the root file system cannot be read")]
    Erofs(#[source] erofs::ReadError),
    /// More than anybody would wait for.
    #[error("the root file system claims {bytes} bytes of files, out of all proportion to its own size")]
    Contents {
        /// Of all files together.
        bytes: u64,
    },
    /// A file of it.
    #[error("the root file system has a file that cannot be read")]
    File(#[from] FileError),
    /// A field of the manifest.
    #[error("{field} is {found} in the image, but {said} in the manifest")]
    Field {
        /// Which field.
        field: String,
        /// In the image.
        found: String,
        /// In the manifest.
        said: String,
    },
    /// The lock in the manifest.
    #[error("the manifest has a lock, but not where all of its packages come from")]
    Lock,
    /// A file of the tree.
    #[error("{path} {difference}")]
    TreeFile {
        /// Which.
        path: String,
        /// How it differs from the manifest.
        difference: &'static str,
    },
    /// A package.
    #[error("the package {package} {difference}")]
    Package {
        /// Name, architecture and version.
        package: String,
        /// How the package database differs from the manifest.
        difference: &'static str,
    },
    /// A file that is younger than the image.
    #[error("{path} was changed after the image's epoch")]
    Younger {
        /// Which.
        path: String,
    },
    /// Bytes with another digest than the manifest has.
    #[error("{what} has the SHA-256 {found}, in the manifest it is {said}")]
    Digest {
        /// What was hashed.
        what: Box<str>,
        /// Of the bytes.
        found: Digest,
        /// In the manifest.
        said: Digest,
    },
    /// The UKI beside the image and the one on it.
    #[error("the unified kernel image beside the disk image differs from the one on it")]
    UkiCopy,
    /// The list of digests is none.
    #[error("the list of digests cannot be read")]
    Checksums(#[source] ChecksumsError),
    /// It has other files.
    #[error("the list of digests should have the files {expected:?} and has {found:?}")]
    ChecksumFiles {
        /// What it should have.
        expected: Vec<String>,
        /// What it has.
        found: Vec<String>,
    },
    /// A digest in it.
    #[error("{file} has the SHA-256 {found}, the list of digests says {said}")]
    Checksum {
        /// Which file.
        file: Box<str>,
        /// Of its bytes.
        found: Digest,
        /// In the list.
        said: Digest,
    },
}
