//! A thing that can be compared.

use serde::Serialize;

use super::Identity;
use crate::architecture::Architecture;
use crate::digest::Digest;
use crate::identifier::Uuid;
use crate::manifest::{self, Manifest};
use crate::tree::{Content, Tree};

/// Where the facts of a subject come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The bytes of a disk image that has no manifest beside it.
    Image,
    /// The bytes of a disk image; its manifest, which describes them, adds where they come from.
    ImageAndManifest,
    /// A manifest alone.
    Manifest,
}

/// A package of a subject.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Package {
    /// `system`, `initrd`, ...
    pub set: String,
    /// Its name.
    pub name: String,
    /// Debian's architecture, `all` included.
    pub architecture: String,
    /// Debian's version.
    pub version: String,
    /// SHA-256 of the .deb; a package database in an image does not know it.
    pub sha256: Option<Digest>,
}

/// An image by all that is known of it.
#[derive(Debug, Clone)]
pub struct Subject {
    /// As the user named it.
    pub label: String,
    /// Where the facts come from.
    pub source: Source,
    /// Name of the image.
    pub name: String,
    /// Version of the image.
    pub version: String,
    /// What it runs on.
    pub architecture: Architecture,
    /// Bytes of the disk.
    pub disk_size: u64,
    /// UUID of the partition table.
    pub disk_uuid: Uuid,
    /// dm-verity of the root partition.
    pub verity: manifest::Verity,
    /// Where the unified kernel image is on the EFI system partition.
    pub uki_path: String,
    /// Kernel command line.
    pub command_line: String,
    /// Release of the kernel.
    pub uname: String,
    /// Sections of the unified kernel image.
    pub sections: Vec<manifest::Section>,
    /// The partitions.
    pub partitions: Vec<manifest::Partition>,
    /// Packages; `None` if neither a manifest nor a database in the image names them.
    pub packages: Option<Vec<Package>>,
    /// Every name in the root file system.
    pub files: Vec<manifest::File>,
    /// The root file system itself, if there is an image.
    pub tree: Option<Tree>,
    /// The initrd as it stands in the unified kernel image, if there is an image.
    pub initrd: Option<Content>,
    /// What the builder said.
    pub manifest: Option<Manifest>,
    /// The image digest: that of the manifest.
    pub digest: Option<Digest>,
}

impl From<manifest::Package> for Package {
    fn from(package: manifest::Package) -> Self {
        let manifest::Package { set, name, architecture, version, sha256, .. } = package;
        Self { set, name, architecture, version, sha256: Some(sha256) }
    }
}

impl Subject {
    /// What a manifest alone says.
    pub fn from_manifest(label: &str, manifest: Manifest) -> Self {
        Self {
            label: label.to_owned(),
            source: Source::Manifest,
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            architecture: manifest.architecture,
            disk_size: manifest.disk.size,
            disk_uuid: manifest.disk.uuid,
            verity: manifest.verity.clone(),
            uki_path: manifest.uki.path.clone(),
            command_line: manifest.uki.command_line.clone(),
            uname: manifest.uki.uname.clone(),
            sections: manifest.uki.sections.clone(),
            partitions: manifest.partitions.clone(),
            packages: Some(manifest.packages.iter().cloned().map(Package::from).collect()),
            files: manifest.files.iter().map(manifest::File::bare).collect(),
            tree: None,
            initrd: None,
            digest: Some(manifest.digest()),
            manifest: Some(manifest),
        }
    }

    /// Which image it is.
    pub fn identity(&self) -> Identity {
        Identity {
            subject: self.label.clone(),
            source: self.source,
            name: self.name.clone(),
            version: self.version.clone(),
            architecture: self.architecture.to_string(),
            digest: self.digest.map(|digest| digest.to_string()),
            root_hash: self.verity.root_hash.to_string(),
        }
    }

    /// Values that stand alone, by name; the names are the same for every subject. What is not known is `None`.
    pub(super) fn values(&self) -> Vec<(&'static str, Option<String>)> {
        let said = |value: &dyn Fn(&Manifest) -> String| self.manifest.as_ref().map(value);
        let checks = |m: &Manifest| serde_json::to_string(&m.checks).unwrap_or_default();
        vec![
            ("name", Some(self.name.clone())),
            ("version", Some(self.version.clone())),
            ("architecture", Some(self.architecture.to_string())),
            ("root hash", Some(self.verity.root_hash.to_string())),
            ("epoch", said(&|m| m.epoch.to_string())),
            ("tool", said(&|m| format!("{} {}", m.tool.name, m.tool.version))),
            ("recipe", said(&|m| m.recipe_sha256.to_string())),
            ("lock", said(&|m| m.lock_sha256.to_string())),
            ("state", said(&|m| format!("{:?}", m.state).to_lowercase())),
            ("checks", said(&checks)),
            ("disk size", Some(self.disk_size.to_string())),
            ("disk UUID", Some(self.disk_uuid.to_string())),
            ("verity salt", Some(self.verity.salt.clone())),
            ("verity UUID", Some(self.verity.uuid.to_string())),
            ("verity data size", Some(self.verity.data_size.to_string())),
            ("kernel image path", Some(self.uki_path.clone())),
        ]
    }
}
