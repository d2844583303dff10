//! An image taken apart: partition table, EFI system partition, UKI, root hash; and the checks of these.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::beside::file_name;
use super::failure::{Failure, Problem};
use crate::architecture::{Architecture, ROWS};
use crate::boot::uki::Uki;
use crate::boot::{command_line, os_release, uki};
use crate::disk::{ESP, Entry, Table};
use crate::filesystem::{erofs, fat};
use crate::manifest::{FILE_NAME, Manifest};
use crate::tree::{Content, Kind, ReadAt, Tree, first_nonzero, show};
use crate::verity::{self, RootHash};

/// Where the entries of the partition table start, and how far apart they are; for naming places in them.
const ENTRIES_OFFSET: u64 = 1024;
const ENTRY_SIZE: u64 = 128;
/// Where an entry has its UUID and its label.
const ENTRY_UUID: u64 = 16;
const ENTRY_LABEL: u64 = 56;

/// What lies where.
pub(crate) struct Located {
    /// The directory around the image.
    pub directory: PathBuf,
    /// The disk image, if one was given.
    image: PathBuf,
    /// The manifest, if a directory was given.
    pub manifest: Option<PathBuf>,
}

impl Located {
    /// The disk image, which the manifest names if there is one.
    pub fn raw(&self, manifest: Option<&Manifest>) -> Result<PathBuf, Failure> {
        match manifest {
            Some(manifest) => Ok(self.directory.join(file_name(manifest)?)),
            None => Ok(self.image.clone()),
        }
    }
}

/// Finds out what `path` is.
pub(crate) fn locate(path: &Path) -> Result<Located, Failure> {
    if !path.is_dir() {
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        return Ok(Located { directory, image: path.to_owned(), manifest: None });
    }
    let manifest = path.join(FILE_NAME);
    if !manifest.is_file() {
        return Err(Failure { file: path.to_owned(), offset: 0, problem: Problem::NoImage });
    }
    Ok(Located { directory: path.to_owned(), image: PathBuf::new(), manifest: Some(manifest) })
}

/// The parts of a disk image.
pub(crate) struct Parts {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub disk: Content,
    pub table: Table,
    pub architecture: Architecture,
    /// Where the partitions lie on the disk.
    pub esp: Range<u64>,
    pub root: Range<u64>,
    pub verity: Range<u64>,
    pub volume: fat::Volume,
    /// The UKI's path on the EFI system partition, and its bytes.
    pub uki_path: Vec<u8>,
    pub uki_content: Content,
    pub uki: Uki,
    pub root_hash: RootHash,
}

impl Parts {
    /// Reads the image as far as it takes to know what is where.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let failure = |offset, problem| Failure { file: path.to_owned(), offset, problem };
        let read = |source| failure(0, Problem::Read(source));
        let file = File::open(path).map_err(read)?;
        let size = file.metadata().map_err(read)?.len();
        let disk = Content::new(size, Arc::new(file), 0);
        let table = Table::read(&disk).map_err(|error| failure(error.offset(), Problem::Table(error)))?;
        let (architecture, [esp, root, verity]) =
            partitions(&table).ok_or_else(|| failure(ENTRIES_OFFSET, Problem::Partitions))?;
        let volume = fat::Volume::open(window(&disk, &esp))
            .map_err(|error| failure(esp.start + error.offset(), Problem::Esp(error)))?;
        let uki_path = architecture.efi_boot_path().into_bytes();
        let uki_content = match volume.tree.lookup(&uki_path).map(|id| &volume.tree.node(id).kind) {
            Some(Kind::File(content)) => content.clone(),
            _ => {
                let (expected, found) = (show(&uki_path), "no such file".to_owned());
                return Err(failure(esp.start, Problem::EspFiles { expected, found }));
            }
        };
        let start = |offset| esp.start + volume.place(&uki_path, offset).unwrap_or(0);
        let uki =
            Uki::read(uki_content.clone()).map_err(|error| failure(start(error.offset()), Problem::Uki(error)))?;
        let command_line_offset = uki.pe.section(".cmdline").map_or(0, |section| section.range().start);
        let root_hash = command_line::root_hash(&uki.command_line)
            .map_err(|error| failure(start(command_line_offset), Problem::CommandLine(error)))?;
        let path = path.to_owned();
        Ok(Self { path, disk, table, architecture, esp, root, verity, volume, uki_path, uki_content, uki, root_hash })
    }

    /// A failure at that byte of the disk image.
    pub fn failure(&self, offset: u64, problem: Problem) -> Failure {
        Failure { file: self.path.clone(), offset, problem }
    }

    /// Where byte `offset` of the UKI stands on the disk.
    pub fn uki_offset(&self, offset: u64) -> u64 {
        self.esp.start + self.volume.place(&self.uki_path, offset).unwrap_or(0)
    }

    /// Where a section of the UKI stands on the disk.
    pub fn section_offset(&self, name: &str) -> u64 {
        self.uki_offset(self.uki.pe.section(name).map_or(0, |section| section.range().start))
    }

    /// Nothing is hidden: neither between the partitions, nor on the EFI system partition, nor in the UKI.
    pub fn check(&self) -> Result<(), Failure> {
        self.check_gaps()?;
        self.volume.check().map_err(|error| self.failure(self.esp.start + error.offset(), Problem::Esp(error)))?;
        self.check_esp_files()?;
        let check = self.uki.pe.check();
        check.map_err(|error| self.failure(self.uki_offset(error.offset()), Problem::Executable(error)))
    }

    /// Zeros from the table's end to the copy's start, but for the partitions.
    fn check_gaps(&self) -> Result<(), Failure> {
        let ranges = self.table.entries.iter().map(Entry::range);
        let copy = std::iter::once(self.table.copy_range());
        let mut position = self.table.front_range().end;
        for range in ranges.chain(copy) {
            match first_nonzero(&self.disk, position..range.start) {
                Ok(None) => position = range.end,
                Ok(Some(offset)) => return Err(self.failure(offset, Problem::Outside)),
                Err(source) => return Err(self.failure(position, Problem::Read(source))),
            }
        }
        Ok(())
    }

    /// The UKI and the directories above it are all there is.
    fn check_esp_files(&self) -> Result<(), Failure> {
        for (path, id) in self.volume.tree.walk() {
            let is_directory = self.volume.tree.entries(id).is_some();
            let above = is_directory && (path.is_empty() || self.uki_path.starts_with(&[&path[..], b"/"].concat()));
            if !above && path != self.uki_path {
                let offset = self.esp.start + self.volume.place(&path, 0).unwrap_or(0);
                let (expected, found) = (show(&self.uki_path), show(&path));
                return Err(self.failure(offset, Problem::EspFiles { expected, found }));
            }
        }
        Ok(())
    }

    /// Root hash ↔ partition UUIDs, labels ↔ os-release, kernel ↔ what the UKI says of it.
    pub fn check_ties(&self) -> Result<(), Failure> {
        let halves =
            [(1, "root", self.root_hash.data_partition()), (2, "root-verity", self.root_hash.hash_partition())];
        for (index, partition, expected) in halves {
            let found = self.table.entries[index].uuid;
            if found != expected {
                let offset = ENTRIES_OFFSET + index as u64 * ENTRY_SIZE + ENTRY_UUID;
                return Err(self.failure(offset, Problem::PartitionUuid { partition, found, expected }));
            }
        }
        let machine = self.architecture.row().pe_machine;
        if self.uki.pe.machine != machine {
            let (found, expected) = (format!("{:#06x}", self.uki.pe.machine), format!("{machine:#06x}"));
            let what = "the machine of the unified kernel image";
            let problem = Problem::Tie { what, found, other: "the type of the root partition", expected };
            return Err(self.failure(self.uki_offset(0), problem));
        }
        let (name, version) = self.name_and_version()?;
        let expected = format!("{name}_{version}");
        for (index, expected) in [(1, expected.clone()), (2, format!("{expected}_verity"))] {
            let found = self.table.entries[index].label.clone();
            if found != expected {
                let offset = ENTRIES_OFFSET + index as u64 * ENTRY_SIZE + ENTRY_LABEL;
                let other = "the os-release of the unified kernel image";
                return Err(self.failure(offset, Problem::Tie { what: "a partition label", found, other, expected }));
            }
        }
        let kernel = self.uki.pe.section(".linux").map(|section| self.uki.pe.content(section));
        match kernel.and_then(|kernel| uki::kernel_release(&kernel)) {
            Some(expected) if expected != self.uki.uname => {
                let (found, other) = (self.uki.uname.clone(), "the kernel itself");
                let problem = Problem::Tie { what: "the release of the kernel", found, other, expected };
                Err(self.failure(self.section_offset(".uname"), problem))
            }
            _ => Ok(()),
        }
    }

    /// What the image calls itself.
    pub fn name_and_version(&self) -> Result<(String, String), Failure> {
        let get = |key| {
            os_release::get(&self.uki.os_release, key).ok_or_else(|| {
                let other = "the os-release of the unified kernel image";
                let problem = Problem::Tie { what: key, found: String::new(), other, expected: "its value".into() };
                self.failure(self.section_offset(".osrel"), problem)
            })
        };
        Ok((get("IMAGE_ID")?, get("IMAGE_VERSION")?))
    }

    /// Every block of the hash tree and of the root file system.
    pub fn check_verity(&self) -> Result<verity::Verified, Failure> {
        let (data, hash) = (window(&self.disk, &self.root), window(&self.disk, &self.verity));
        verity::verify(&data, data.size(), &hash, hash.size(), &self.root_hash).map_err(|error| {
            let (in_data, offset) = error.place();
            let start = if in_data { self.root.start } else { self.verity.start };
            self.failure(start + offset, Problem::Verity(error))
        })
    }

    /// The superblock of the hash partition.
    pub fn verity_superblock(&self) -> Result<verity::Superblock, Failure> {
        let hash = window(&self.disk, &self.verity);
        verity::superblock(&hash, hash.size())
            .map_err(|error| self.failure(self.verity.start + error.place().1, Problem::Verity(error)))
    }

    /// The tree in the root file system.
    pub fn root_tree(&self) -> Result<Tree, Failure> {
        let root = window(&self.disk, &self.root);
        let size = root.size();
        let source: Arc<dyn ReadAt> = Arc::new(root);
        let read = erofs::Reader::open(source, size).and_then(|reader| reader.tree());
        read.map_err(|error| self.failure(self.root.start + erofs_offset(&error), Problem::Erofs(error)))
    }

    /// The bytes of a range of the disk.
    pub fn window(&self, range: &Range<u64>) -> Content {
        window(&self.disk, range)
    }
}

/// Where the file system is wrong, in bytes from its start.
fn erofs_offset(error: &erofs::ReadError) -> u64 {
    use erofs::ReadError::{Checksum, Corrupt, Io, Magic, Unsupported};
    match error {
        Io { offset, .. } | Magic { offset, .. } | Checksum { offset, .. } => *offset,
        Unsupported { offset, .. } | Corrupt { offset, .. } => *offset,
    }
}

fn window(disk: &Content, range: &Range<u64>) -> Content {
    Content::new(range.end - range.start, Arc::new(disk.clone()), range.start)
}

/// The architecture of the partitions, and where they lie, if they are those of an image.
fn partitions(table: &Table) -> Option<(Architecture, [Range<u64>; 3])> {
    let [esp, root, verity] = table.entries.as_slice() else { return None };
    let row = ROWS.iter().find(|row| row.root == root.type_uuid)?;
    let fits = esp.type_uuid == ESP && verity.type_uuid == row.root_verity;
    fits.then(|| (row.architecture, [esp.range(), root.range(), verity.range()]))
}
