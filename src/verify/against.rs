//! What was found in an image, against what its manifest says.

use std::path::Path;

use rayon::prelude::*;

use super::Installed;
use super::beside::first_difference;
use super::failure::{Failure, Problem};
use super::parts::Parts;
use crate::digest::Digest;
use crate::manifest::{self, FILE_NAME, Manifest};
use crate::tree::{Content, Tree};
use crate::verity;

/// What an image turned out to hold.
pub(super) struct Found<'a> {
    pub parts: &'a Parts,
    pub verity: &'a verity::Verified,
    /// The root file system.
    pub tree: &'a Tree,
    /// Every name in it.
    pub files: Vec<manifest::File>,
    /// Every package by the database in the root file system.
    pub packages: Option<Vec<Installed>>,
}

/// Bytes whose digest the manifest has.
struct Hashed {
    what: String,
    offset: u64,
    content: Content,
    said: Digest,
    /// Whether a copy of the bytes is beside the image.
    of_uki: bool,
}

impl Found<'_> {
    /// Compares field by field, then file by file, then the digests.
    pub fn compare(&self, said: &Manifest, directory: &Path) -> Result<(), Failure> {
        self.compare_fields(said)?;
        self.compare_files(said, directory)?;
        self.compare_packages(said)?;
        self.compare_inputs(said, directory)?;
        self.compare_digests(said, directory)
    }

    fn compare_fields(&self, said: &Manifest) -> Result<(), Failure> {
        let parts = self.parts;
        let (name, version) = parts.name_and_version()?;
        let superblock = &self.verity.superblock;
        let salt: String = superblock.salt.iter().map(|byte| format!("{byte:02x}")).collect();
        let (osrel, cmdline) = (parts.section_offset(".osrel"), parts.section_offset(".cmdline"));
        let uki_path = crate::tree::show(&parts.uki_path);
        let mut fields = vec![
            ("name".to_owned(), name, said.name.clone(), osrel),
            ("version".into(), version, said.version.clone(), osrel),
            ("architecture".into(), parts.architecture.to_string(), said.architecture.to_string(), 1024),
            ("disk.size".into(), parts.disk.size().to_string(), said.disk.size.to_string(), 0),
            ("disk.uuid".into(), parts.table.disk_uuid.to_string(), said.disk.uuid.to_string(), 512 + 56),
            ("disk.sector_size".into(), "512".into(), said.disk.sector_size.to_string(), 512),
            ("verity.root_hash".into(), parts.root_hash.to_string(), said.verity.root_hash.to_string(), cmdline),
            ("verity.salt".into(), salt, said.verity.salt.clone(), parts.verity.start + 88),
            ("verity.uuid".into(), superblock.uuid.to_string(), said.verity.uuid.to_string(), parts.verity.start + 16),
            (
                "verity.data_size".into(),
                self.verity.data_size.to_string(),
                said.verity.data_size.to_string(),
                parts.verity.start + 72,
            ),
            ("uki.path".into(), uki_path, said.uki.path.clone(), parts.uki_offset(0)),
            ("uki.size".into(), parts.uki_content.size().to_string(), said.uki.size.to_string(), parts.uki_offset(0)),
            ("uki.command_line".into(), parts.uki.command_line.clone(), said.uki.command_line.clone(), cmdline),
            ("uki.uname".into(), parts.uki.uname.clone(), said.uki.uname.clone(), parts.section_offset(".uname")),
        ];
        let sections = said.uki.sections.iter().map(|section| (&section.name, section.offset, section.size));
        let found = parts.uki.pe.sections.iter().map(|section| {
            let range = section.range();
            (&section.name, range.start, range.end - range.start)
        });
        let debug = |list: Vec<_>| format!("{list:?}");
        let (said_sections, found_sections) = (debug(sections.collect()), debug(found.collect()));
        fields.push(("uki.sections".into(), found_sections, said_sections, parts.uki_offset(0)));
        fields.push(("partitions".into(), self.partitions(), said_partitions(said), 1024));
        for (field, found, said, offset) in fields {
            if found != said {
                return Err(parts.failure(offset, Problem::Field { field, found, said }));
            }
        }
        Ok(())
    }

    fn partitions(&self) -> String {
        let one = |entry: &crate::disk::Entry| {
            let range = entry.range();
            let size = range.end - range.start;
            partition_text(
                &entry.label,
                entry.type_uuid,
                entry.uuid,
                &manifest::attributes_to_text(entry.attributes),
                range.start,
                size,
            )
        };
        self.parts.table.entries.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn compare_files(&self, said: &Manifest, directory: &Path) -> Result<(), Failure> {
        let manifest = directory.join(FILE_NAME);
        let failure = |index: usize, problem| {
            let offset = said.file_offset(index);
            Failure { file: manifest.clone(), offset, problem }
        };
        if let Some((index, path, difference)) = manifest::compare(&said.files, &self.files) {
            return Err(failure(index, Problem::TreeFile { path, difference }));
        }
        let younger = |file: &manifest::File| (file.mtime, file.mtime_nanoseconds) > (said.epoch, 0);
        match said.files.iter().position(younger) {
            None => Ok(()),
            Some(index) => Err(failure(index, Problem::Younger { path: said.files[index].path.clone() })),
        }
    }

    /// The packages of the set `system` against dpkg's database; without a database nothing can be said.
    fn compare_packages(&self, said: &Manifest) -> Result<(), Failure> {
        let Some(found) = &self.packages else { return Ok(()) };
        let system = said.packages.iter().filter(|package| package.set == "system");
        let installed = |package: &manifest::Package| Installed {
            name: package.name.clone(),
            architecture: package.architecture.clone(),
            version: package.version.clone(),
        };
        let mut said: Vec<_> = system.map(installed).collect();
        said.sort();
        let text = |package: &Installed| format!("{}:{} {}", package.name, package.architecture, package.version);
        let missing = said.iter().find(|package| found.binary_search(package).is_err());
        let more = found.iter().find(|package| said.binary_search(package).is_err());
        let problem = match (missing, more) {
            (Some(package), _) => {
                Problem::Package { package: text(package), difference: "is not installed in the image" }
            }
            (None, Some(package)) => Problem::Package {
                package: text(package),
                difference: "is installed in the image, but not in the manifest",
            },
            (None, None) => return Ok(()),
        };
        Err(self.parts.failure(self.parts.root.start, problem))
    }

    /// The recipe's fields and the lock have the digests that stand beside them; each file belongs to the package that
    /// dpkg's database in the image says. Which step wrote a file, only the builder knows.
    fn compare_inputs(&self, said: &Manifest, directory: &Path) -> Result<(), Failure> {
        let manifest = |offset, problem| Failure { file: directory.join(FILE_NAME), offset, problem };
        let digest = |what: &str, found: Digest, said: Digest| match found == said {
            true => Ok(()),
            false => Err(manifest(0, Problem::Digest { what: what.into(), found, said })),
        };
        if !said.recipe.is_empty() {
            digest("the recipe in the manifest", crate::recipe::record_digest(&said.recipe), said.recipe_sha256)?;
        }
        if said.lock.is_none() {
            return Ok(());
        }
        let lock = said.locked().ok_or_else(|| manifest(0, Problem::Lock))?;
        digest("the lock in the manifest", Digest::of(lock.to_text().as_bytes()), said.lock_sha256)?;
        let refuse = |error: manifest::FileError| self.parts.failure(self.parts.root.start, error.into());
        let owners = manifest::owners(self.tree, &said.packages).map_err(refuse)?;
        for (index, file) in said.files.iter().enumerate() {
            let path = manifest::path_from_text(file.path.trim_start_matches('/')).unwrap_or_default();
            if owners.get(&path).copied() != file.package {
                let problem = Problem::TreeFile { path: file.path.clone(), difference: "belongs to another package" };
                return Err(manifest(said.file_offset(index), problem));
            }
        }
        Ok(())
    }

    /// Sections, UKI, partitions, disk: all hashed at the same time, the first that is wrong is named.
    fn compare_digests(&self, said: &Manifest, directory: &Path) -> Result<(), Failure> {
        let parts = self.parts;
        let mut hashed: Vec<Hashed> = Vec::new();
        for (section, said) in parts.uki.pe.sections.iter().zip(&said.uki.sections) {
            hashed.push(Hashed {
                what: format!("section {} of the unified kernel image", section.name),
                offset: parts.uki_offset(section.range().start),
                content: parts.uki.pe.content(section),
                said: said.sha256,
                of_uki: true,
            });
        }
        let (content, offset) = (parts.uki_content.clone(), parts.uki_offset(0));
        let what = "the unified kernel image on the EFI system partition".to_owned();
        hashed.push(Hashed { what, offset, content, said: said.uki.sha256, of_uki: true });
        for (entry, said) in parts.table.entries.iter().zip(&said.partitions) {
            let (range, what) = (entry.range(), format!("the partition {:?}", entry.label));
            let (offset, content) = (range.start, parts.window(&range));
            hashed.push(Hashed { what, offset, content, said: said.sha256, of_uki: false });
        }
        let (what, content) = ("the disk image".to_owned(), parts.disk.clone());
        hashed.push(Hashed { what, offset: 0, content, said: said.disk.sha256, of_uki: false });
        let digests: Vec<_> = hashed.par_iter().with_max_len(1).map(|hashed| hashed.content.digest()).collect();
        for (hashed, found) in hashed.into_iter().zip(digests) {
            let found = found.map_err(|source| parts.failure(hashed.offset, Problem::Read(source)))?;
            if found != hashed.said {
                let sharper = hashed.of_uki.then(|| self.first_wrong_byte_of_uki(said, directory)).flatten();
                let offset = sharper.unwrap_or(hashed.offset);
                return Err(
                    parts.failure(offset, Problem::Digest { what: hashed.what.into(), found, said: hashed.said })
                );
            }
        }
        Ok(())
    }

    /// If the UKI beside the image is the one of the manifest: the first byte in which the one on the image differs.
    fn first_wrong_byte_of_uki(&self, said: &Manifest, directory: &Path) -> Option<u64> {
        let file = std::fs::File::open(directory.join(&said.uki.file)).ok()?;
        let size = file.metadata().ok()?.len();
        let copy = Content::new(size, std::sync::Arc::new(file), 0);
        if copy.digest().ok()? != said.uki.sha256 {
            return None;
        }
        let offset = first_difference(&copy, &self.parts.uki_content).ok()??;
        Some(self.parts.uki_offset(offset))
    }
}

fn said_partitions(said: &Manifest) -> String {
    let one = |p: &manifest::Partition| partition_text(&p.label, p.type_uuid, p.uuid, &p.attributes, p.offset, p.size);
    said.partitions.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn partition_text(
    label: &str,
    type_uuid: crate::identifier::Uuid,
    uuid: crate::identifier::Uuid,
    attributes: &str,
    offset: u64,
    size: u64,
) -> String {
    format!("{label} (type {type_uuid}, UUID {uuid}, attributes {attributes}, {size} bytes at {offset})")
}
