//! From a path to a [`Subject`]: a directory of a build, a disk image, or a manifest.

use std::path::Path;

use rayon::prelude::*;

use super::{Package, Source, Subject};
use crate::digest::Digest;
use crate::manifest::{self, FILE_NAME, Manifest};
use crate::tree::Content;
use crate::verify::{Failure, Parts, Problem, dpkg_packages, locate, read_manifest};

/// Longest first bytes of a file that tell what it is.
const MANIFEST_START: &[u8] = b"{";

/// Reads what `path` holds. With an image there, the facts come from its bytes; a manifest beside it that does not
/// describe these bytes is a failure.
pub fn read(path: &Path) -> Result<Subject, Failure> {
    let label = path.display().to_string();
    if is_manifest(path) {
        return Ok(Subject::from_manifest(&label, read_manifest(path)?));
    }
    let located = locate(path)?;
    let manifest = located.manifest.as_deref().map(read_manifest).transpose()?;
    let raw = located.raw(manifest.as_ref())?;
    match manifest {
        // A directory from which the disk was taken away still says what it was.
        Some(manifest) if !raw.exists() => Ok(Subject::from_manifest(&label, manifest)),
        manifest => image(label, &Parts::read(&raw)?, manifest, &located.directory),
    }
}

/// A manifest is a text, a disk begins with a boot record.
fn is_manifest(path: &Path) -> bool {
    let mut start = [0; 1];
    let read = std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
    path.is_file() && read.is_ok() && start == *MANIFEST_START
}

fn image(label: String, parts: &Parts, manifest: Option<Manifest>, directory: &Path) -> Result<Subject, Failure> {
    let (name, version) = parts.name_and_version()?;
    let superblock = parts.verity_superblock()?;
    let tree = parts.root_tree()?;
    let files = manifest::files(&tree).map_err(|error| parts.failure(parts.root.start, Problem::File(error)))?;
    let installed = dpkg_packages(&tree).map_err(|problem| parts.failure(parts.root.start, problem))?;
    if let Some(said) = &manifest {
        check(said, parts, &files, directory)?;
    }
    let packages = match (&manifest, installed) {
        (Some(manifest), _) => Some(manifest.packages.iter().cloned().map(Package::from).collect()),
        (None, Some(installed)) => Some(installed.into_iter().map(package).collect()),
        (None, None) => None,
    };
    let digests = digests(parts)?;
    let (partitions, sections) = digests.split_at(parts.table.entries.len());
    let initrd = parts.uki.pe.section(".initrd").map(|section| parts.uki.pe.content(section));
    Ok(Subject {
        label,
        source: if manifest.is_some() { Source::ImageAndManifest } else { Source::Image },
        name,
        version,
        architecture: parts.architecture,
        disk_size: parts.disk.size(),
        disk_uuid: parts.table.disk_uuid,
        verity: manifest::Verity {
            root_hash: parts.root_hash,
            salt: superblock.salt.iter().map(|byte| format!("{byte:02x}")).collect(),
            uuid: superblock.uuid,
            data_size: superblock.data_blocks.saturating_mul(crate::verity::BLOCK_SIZE as u64),
        },
        uki_path: crate::tree::show(&parts.uki_path),
        command_line: parts.uki.command_line.clone(),
        uname: parts.uki.uname.clone(),
        sections: parts.uki.pe.sections.iter().zip(sections).map(section).collect(),
        partitions: parts.table.entries.iter().zip(partitions).map(partition).collect(),
        packages,
        files,
        tree: Some(tree),
        initrd,
        digest: manifest.as_ref().map(Manifest::digest),
        manifest,
    })
}

/// A manifest that is another image's would explain the wrong thing. Where the files come from is what only it says.
fn check(said: &Manifest, parts: &Parts, found: &[manifest::File], directory: &Path) -> Result<(), Failure> {
    if said.verity.root_hash != parts.root_hash {
        let (found, said) = (parts.root_hash.to_string(), said.verity.root_hash.to_string());
        let problem = Problem::Field { field: "verity.root_hash".to_owned(), found, said };
        return Err(parts.failure(parts.section_offset(".cmdline"), problem));
    }
    if let Some((index, path, difference)) = manifest::compare(&said.files, found) {
        let problem = Problem::TreeFile { path, difference };
        return Err(Failure { file: directory.join(FILE_NAME), offset: said.file_offset(index), problem });
    }
    Ok(())
}

fn package(installed: crate::verify::Installed) -> Package {
    let crate::verify::Installed { name, architecture, version } = installed;
    Package { set: "system".to_owned(), name, architecture, version, sha256: None }
}

/// Of the partitions, then of the sections.
fn digests(parts: &Parts) -> Result<Vec<Digest>, Failure> {
    let mut contents: Vec<(u64, Content)> = Vec::new();
    contents.extend(parts.table.entries.iter().map(|entry| (entry.range().start, parts.window(&entry.range()))));
    let section =
        |section: &crate::boot::pe::Section| (parts.uki_offset(section.range().start), parts.uki.pe.content(section));
    contents.extend(parts.uki.pe.sections.iter().map(section));
    let digest = |(offset, content): &(u64, Content)| {
        content.digest().map_err(|source| parts.failure(*offset, Problem::Read(source)))
    };
    contents.par_iter().with_max_len(1).map(digest).collect()
}

fn section((section, sha256): (&crate::boot::pe::Section, &Digest)) -> manifest::Section {
    let range = section.range();
    manifest::Section {
        name: section.name.clone(),
        offset: range.start,
        size: range.end - range.start,
        sha256: *sha256,
    }
}

fn partition((entry, sha256): (&crate::disk::Entry, &Digest)) -> manifest::Partition {
    let range = entry.range();
    manifest::Partition {
        label: entry.label.clone(),
        type_uuid: entry.type_uuid,
        uuid: entry.uuid,
        attributes: manifest::attributes_to_text(entry.attributes),
        offset: range.start,
        size: range.end - range.start,
        sha256: *sha256,
    }
}
