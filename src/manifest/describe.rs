//! The manifest of an image that was just made.

use std::collections::BTreeMap;
use std::io;

use rayon::prelude::*;

use super::{Disk, File, FileError, Manifest, Package, Partition, SCHEMA, Section, Step, Tool, Uki, Verity};
use super::{attributes_to_text, file_stem, files, inputs, owners, path_from_text};
use crate::architecture::Architecture;
use crate::boot::uki::{self, UkiError};
use crate::digest::Digest;
use crate::identifier::Uuid;
use crate::lock::Lock;
use crate::recipe::{Check, RecipeRecord, State};
use crate::tree::{Content, Tree};
use crate::verity::RootHash;

/// What a manifest is made from.
#[derive(Debug)]
pub struct Subject<'a> {
    /// Name of the image.
    pub name: &'a str,
    /// Version of the image.
    pub version: &'a str,
    /// What it runs on.
    pub architecture: Architecture,
    /// No file is younger than this.
    pub epoch: i64,
    /// SHA-256 of the recipe.
    pub recipe_sha256: Digest,
    /// SHA-256 of the lock.
    pub lock_sha256: Digest,
    /// The recipe, field by field; empty where it is not known.
    pub recipe: RecipeRecord,
    /// The lock, where it is known.
    pub lock: Option<&'a Lock>,
    /// Which step of the build last wrote the paths (without a leading slash) that are not as a package ships them.
    pub written: &'a BTreeMap<Vec<u8>, Step>,
    /// What a running machine keeps.
    pub state: State,
    /// What is to be checked in a running machine.
    pub checks: &'a [Check],
    /// The disk.
    pub disk: &'a crate::disk::Disk,
    /// The UKI on it.
    pub uki: &'a Content,
    /// What the hash partition was made with.
    pub root_hash: RootHash,
    /// See `root_hash`.
    pub salt: [u8; 32],
    /// See `root_hash`.
    pub verity_uuid: Uuid,
    /// Size of the root file system in bytes.
    pub data_size: u64,
    /// The packages that went in.
    pub packages: Vec<Package>,
    /// The root file system.
    pub tree: &'a Tree,
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// A file of the tree.
    #[error("cannot describe the files of the image")]
    File(#[from] FileError),
    /// The UKI.
    #[error("cannot describe the unified kernel image")]
    Uki(#[from] UkiError),
    /// The parts of the disk.
    #[error("cannot read {what} to describe it")]
    Read {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Manifest {
    /// Describes `subject`; hashes what has no known digest, on all cores.
    pub fn describe(subject: &Subject) -> Result<Self, DescribeError> {
        let uki = uki::Uki::read(subject.uki.clone())?;
        let mut contents = vec![("the disk".to_owned(), subject.disk.content.clone())];
        contents.push(("the unified kernel image".into(), subject.uki.clone()));
        contents.extend(subject.disk.partitions.iter().map(|p| (p.entry.label.clone(), p.content.clone())));
        contents.extend(uki.pe.sections.iter().map(|section| (section.name.clone(), uki.pe.content(section))));
        let hash = |(what, content): &(String, Content)| {
            content.digest().map_err(|source| DescribeError::Read { what: what.clone(), source })
        };
        let (files, digests) = rayon::join(
            || files(subject.tree),
            || contents.par_iter().with_max_len(1).map(hash).collect::<Result<Vec<_>, _>>(),
        );
        let digests = digests?;
        let (partitions, sections) = digests[2..].split_at(subject.disk.partitions.len());
        let stem = file_stem(subject.name, subject.version, subject.architecture);
        let mut packages = subject.packages.clone();
        packages.sort();
        let mut files = files?;
        if subject.lock.is_some() {
            add_origins(&mut files, subject, &packages)?;
        }
        let (lock, indexes) = subject.lock.map(inputs::record).unzip();
        Ok(Self {
            schema: SCHEMA,
            name: subject.name.to_owned(),
            version: subject.version.to_owned(),
            architecture: subject.architecture,
            epoch: subject.epoch,
            tool: Tool { name: env!("CARGO_PKG_NAME").to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
            recipe_sha256: subject.recipe_sha256,
            lock_sha256: subject.lock_sha256,
            recipe: subject.recipe.clone(),
            lock,
            indexes: indexes.unwrap_or_default(),
            state: subject.state,
            checks: subject.checks.to_vec(),
            disk: Disk {
                file: format!("{stem}.raw"),
                size: subject.disk.content.size(),
                sha256: digests[0],
                uuid: subject.disk.table.disk_uuid,
                sector_size: 512,
            },
            verity: Verity {
                root_hash: subject.root_hash,
                salt: subject.salt.iter().map(|byte| format!("{byte:02x}")).collect(),
                uuid: subject.verity_uuid,
                data_size: subject.data_size,
            },
            uki: Uki {
                file: format!("{stem}.efi"),
                path: format!("/{}", subject.architecture.efi_boot_path()),
                size: subject.uki.size(),
                sha256: digests[1],
                command_line: uki.command_line.clone(),
                uname: uki.uname.clone(),
                sections: uki.pe.sections.iter().zip(sections).map(section).collect(),
            },
            partitions: subject.disk.partitions.iter().zip(partitions).map(partition).collect(),
            packages,
            files,
        })
    }
}

/// Says of each file whose it is and what wrote it.
fn add_origins(files: &mut [File], subject: &Subject, packages: &[Package]) -> Result<(), FileError> {
    let owners = owners(subject.tree, packages)?;
    for file in files {
        // It was made from bytes just now.
        let Ok(path) = path_from_text(file.path.trim_start_matches('/')) else { continue };
        file.package = owners.get(&path).copied();
        file.by = subject.written.get(&path).copied();
    }
    Ok(())
}

fn section((section, sha256): (&crate::boot::pe::Section, &Digest)) -> Section {
    let range = section.range();
    Section { name: section.name.clone(), offset: range.start, size: range.end - range.start, sha256: *sha256 }
}

fn partition((partition, sha256): (&crate::disk::Partition, &Digest)) -> Partition {
    let entry = &partition.entry;
    let range = entry.range();
    Partition {
        label: entry.label.clone(),
        type_uuid: entry.type_uuid,
        uuid: entry.uuid,
        attributes: attributes_to_text(entry.attributes),
        offset: range.start,
        size: range.end - range.start,
        sha256: *sha256,
    }
}
