//! The manifest: what an image is said to be, file by file. `manifest.json` beside the image.
//!
//! Flows in: what the build knows (recipe, lock, packages) and what it made (tree, partitions, UKI). Flows out:
//! [`Manifest`], its canonical text ([`Manifest::to_json`]) and the digest of that text, which is the **image digest**:
//! since the manifest holds the SHA-256 of the whole disk, one digest stands for everything.
//!
//! ```text
//! {
//!   "schema": 1,
//!   "name": "minimal",
//!   ...                              one line per field of `Manifest`, in its order
//!   "packages": [
//!     {"set":"system","name":"adduser",...},          one line per package
//!     ...
//!   ],
//!   "files": [
//!     {"path":"/","type":"directory",...},            one line per name in the tree
//!     ...
//!   ]
//! }
//! ```
//!
//! The text is JSON, and of all texts that say the same only this one is accepted: line by line, so that two manifests
//! compare well; no white space within a line; keys in the order of the types below; what does not apply is left out.
//! A change of meaning or a field taken away raises `schema`; a reader refuses numbers and fields that it does not
//! know. [`schema`] gives a JSON Schema.
//!
//! **Paths** start with `/`. JSON strings are Unicode, paths are bytes: a byte that is not part of valid UTF-8 stands as
//! `\xHH` (two lower-case hexadecimal digits) and a backslash as `\\`; in JSON text both get one more backslash in front.
//! Symlink targets and names of extended attributes are written alike.
//!
//! Nothing here is trusted by [`crate::verify`]: it computes a manifest from the image's bytes and compares.

mod checksums;
mod describe;
mod files;
mod inputs;
mod owners;
mod text;

pub use checksums::{ChecksumsError, checksums, parse_checksums};
pub use describe::{DescribeError, Subject};
pub use files::{File, FileError, Step, compare, files};
pub use inputs::{LockRecord, Place, locked_packages};
pub use owners::owners;
pub use text::{PathError, path_from_text, path_to_text};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::architecture::Architecture;
use crate::digest::Digest;
use crate::identifier::Uuid;
use crate::lock::LockedIndex;
use crate::recipe::{Check, RecipeRecord, State};
use crate::verity::RootHash;

/// The version of the format that this adamant reads and writes.
pub const SCHEMA: u32 = 1;
/// Its name beside the image.
pub const FILE_NAME: &str = "manifest.json";
/// The list of digests beside the image, as `sha256sum` writes and checks it.
pub const CHECKSUMS_FILE_NAME: &str = "SHA256SUMS";

/// All that is said of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format: 1.
    pub schema: u32,
    /// Name of the image, from its recipe; IMAGE_ID in os-release.
    pub name: String,
    /// Version of the image; IMAGE_VERSION in os-release.
    pub version: String,
    /// Debian's name of the processor architecture.
    #[schemars(with = "String")]
    pub architecture: Architecture,
    /// No file is younger than this: seconds since 1970-01-01 00:00 UTC.
    pub epoch: i64,
    /// What made the image.
    pub tool: Tool,
    /// SHA-256 of the recipe: of its text, with everything it extends and every file that it takes in.
    #[schemars(with = "String")]
    pub recipe_sha256: Digest,
    /// SHA-256 of the lock's text.
    #[schemars(with = "String")]
    pub lock_sha256: Digest,
    /// What the recipe says, field by field. The digest of these is `recipe_sha256`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipe: RecipeRecord,
    /// What the lock says besides packages and indexes. The digest of all of it is `lock_sha256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<LockRecord>,
    /// What the packages were chosen from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<LockedIndex>,
    /// What a running machine keeps over a reboot.
    pub state: State,
    /// What `adamant boot --test` finds out in a running machine.
    pub checks: Vec<Check>,
    /// The disk as a whole.
    pub disk: Disk,
    /// dm-verity of the root partition.
    pub verity: Verity,
    /// The unified kernel image.
    pub uki: Uki,
    /// The partitions, in the order of the disk.
    pub partitions: Vec<Partition>,
    /// The packages, by set, name and architecture.
    pub packages: Vec<Package>,
    /// Every name in the root file system: parents before children, names in the order of their bytes.
    pub files: Vec<File>,
}

/// What made an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// `adamant`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// A disk image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Name of the file beside the manifest.
    pub file: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of all bytes, holes as zeros.
    #[schemars(with = "String")]
    pub sha256: Digest,
    /// UUID of the partition table.
    #[schemars(with = "String")]
    pub uuid: Uuid,
    /// Bytes of a sector: 512.
    pub sector_size: u32,
}

/// dm-verity of a partition. Algorithm is sha256, blocks have 4096 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verity {
    /// The digest that stands for the whole file system.
    #[schemars(with = "String")]
    pub root_hash: RootHash,
    /// Hashed in front of every block, in hexadecimal digits.
    pub salt: String,
    /// UUID in the superblock.
    #[schemars(with = "String")]
    pub uuid: Uuid,
    /// Bytes of the root partition that are covered.
    pub data_size: u64,
}

/// A unified kernel image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Uki {
    /// Name of the file beside the manifest.
    pub file: String,
    /// Where the same file is on the EFI system partition.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the file.
    #[schemars(with = "String")]
    pub sha256: Digest,
    /// The kernel command line.
    pub command_line: String,
    /// The kernel's release, as `uname -r` says it.
    pub uname: String,
    /// Its sections, the stub's own among them, in the order of the file.
    pub sections: Vec<Section>,
}

/// A section of a unified kernel image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Where it stands in the file, in bytes.
    pub offset: u64,
    /// Size in bytes, without padding.
    pub size: u64,
    /// SHA-256 of these bytes.
    #[schemars(with = "String")]
    pub sha256: Digest,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// Its label.
    pub label: String,
    /// Its type, by the Discoverable Partitions Specification.
    #[serde(rename = "type")]
    #[schemars(with = "String")]
    pub type_uuid: Uuid,
    /// Its own UUID.
    #[schemars(with = "String")]
    pub uuid: Uuid,
    /// Attribute bits of the table's entry, `0x` and hexadecimal digits.
    pub attributes: String,
    /// Where it starts on the disk, in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of all its bytes.
    #[schemars(with = "String")]
    pub sha256: Digest,
}

/// A package that went into the image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// `system` for the root file system, `initrd` for the initrd.
    pub set: String,
    /// Its name.
    pub name: String,
    /// Debian's architecture, `all` included.
    pub architecture: String,
    /// Debian's version.
    pub version: String,
    /// SHA-256 of the .deb.
    #[schemars(with = "String")]
    pub sha256: Digest,
    /// Where the .deb was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Place>,
}

/// Why a text is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Not JSON, or with other fields.
    #[error("not a manifest")]
    Json {
        /// Where, in bytes from the start of the text.
        offset: u64,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Another version of the format.
    #[error("a manifest of schema {found}; this adamant reads schema {SCHEMA}")]
    Schema {
        /// The version found.
        found: u32,
    },
    /// The text says the same as a canonical one, but is another.
    #[error("not in canonical form at byte {offset}")]
    NotCanonical {
        /// The first byte that differs.
        offset: u64,
    },
}

impl ParseError {
    /// Where in the text.
    pub fn offset(&self) -> u64 {
        match self {
            Self::Json { offset, .. } | Self::NotCanonical { offset } => *offset,
            Self::Schema { .. } => 0,
        }
    }
}

/// What the files beside an image are called, in front of `.raw` and `.efi`: `<name>_<version>_<architecture>`.
pub fn file_stem(name: &str, version: &str, architecture: Architecture) -> String {
    format!("{name}_{version}_{architecture}")
}

/// Attribute bits of a partition as manifests have them.
pub fn attributes_to_text(bits: u64) -> String {
    format!("{bits:#018x}")
}

/// The JSON Schema of manifests.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Manifest).to_value()
}

impl Manifest {
    /// The canonical text.
    pub fn to_json(&self) -> String {
        text::canonical(self)
    }

    /// Reads a canonical text.
    pub fn parse(text: &[u8]) -> Result<Self, ParseError> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let json = |source: serde_json::Error| ParseError::Json { offset: text::offset(text, &source), source };
        // First the version alone: a later one may have fields that are unknown here.
        let Version { schema: found } = serde_json::from_slice(text).map_err(json)?;
        if found != SCHEMA {
            return Err(ParseError::Schema { found });
        }
        let manifest: Self = serde_json::from_slice(text).map_err(json)?;
        let canonical = manifest.to_json().into_bytes();
        if canonical != text {
            let same = canonical.iter().zip(text).take_while(|(a, b)| a == b).count();
            return Err(ParseError::NotCanonical { offset: same as u64 });
        }
        Ok(manifest)
    }

    /// Where the line of the file of that number starts in the canonical text, in bytes.
    pub fn file_offset(&self, index: usize) -> u64 {
        let text = self.to_json();
        let start = text.find("\n  \"files\": [\n").map_or(0, |line| line + "\n  \"files\": [\n".len());
        let lines = text[start..].split_inclusive('\n').take(index);
        (start + lines.map(str::len).sum::<usize>()) as u64
    }

    /// The image digest: SHA-256 of the canonical text.
    pub fn digest(&self) -> Digest {
        Digest::of(self.to_json().as_bytes())
    }
}

#[cfg(test)]
pub(crate) use tests::sample;
#[cfg(test)]
mod tests;
