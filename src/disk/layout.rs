//! Which partitions an image has, where they lie and what they are called.

use crate::architecture::Architecture;
use crate::filesystem::fat;
use crate::identifier::{Seed, Uuid};
use crate::tree::{Content, Kind, Metadata, Node, Segments, Timestamp, Tree, TreeError};
use crate::verity::RootHash;

use super::gpt::{BACK_SECTORS, Entry, FRONT_SECTORS, SECTOR, Table, TableError, attribute};

/// Type of EFI system partitions (UEFI 2.10, table 5-7).
pub const ESP: Uuid = Uuid::from_u128(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b);

/// Partitions start at multiples of this, and disks end at one: every storage's block size divides it, and some clouds
/// take nothing else.
const ALIGNMENT: u64 = 1024 * 1024;

/// The EFI system partition of an image.
#[derive(Debug, Clone)]
pub struct Esp {
    /// Its directories and files.
    pub tree: Tree,
    /// Bytes to leave free for what the machine writes later, beyond the smallest volume that holds the files.
    pub spare: u64,
}

impl Esp {
    /// The UKI where firmware starts it without being told; nothing else.
    pub fn direct(architecture: Architecture, uki: Content, mtime: Timestamp) -> Result<Self, TreeError> {
        let path = architecture.efi_boot_path().into_bytes();
        let metadata = |mode| Metadata { mtime, ..Metadata::with_mode(mode) };
        let mut tree = Tree::new(metadata(0o755));
        tree.make_directories(crate::tree::split(&path).map_or(b"", |(parent, _)| parent), &metadata(0o755))?;
        tree.insert(&path, Node { metadata: metadata(0o644), kind: Kind::File(uki) })?;
        Ok(Self { tree, spare: 0 })
    }
}

/// Everything that a disk is made of.
#[derive(Debug, Clone)]
pub struct Image<'a> {
    /// Name of the image.
    pub name: &'a str,
    /// Version of the image.
    pub version: &'a str,
    /// What it runs on.
    pub architecture: Architecture,
    /// From which the identifiers come that the root hash does not give.
    pub seed: &'a Seed,
    /// The EFI system partition.
    pub esp: Esp,
    /// The root file system, whole blocks of 4096 bytes.
    pub root: Content,
    /// Its dm-verity hash partition.
    pub verity: Content,
    /// What the hash partition was made with.
    pub root_hash: RootHash,
}

/// Why there is no such disk.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The EFI system partition.
    #[error("cannot lay out the EFI system partition")]
    Esp(#[from] fat::WriteError),
    /// The partition table.
    #[error("cannot lay out the partition table")]
    Table(#[from] TableError),
    /// A size that is not whole blocks.
    #[error("the {label} partition has {size} bytes, which is not a positive multiple of 4096")]
    Size {
        /// Which partition.
        label: String,
        /// Its size in bytes.
        size: u64,
    },
    /// The label would be cut off, and a machine could not tell versions apart.
    #[error(
        "name and version together are too long: {label:?} has {length} characters, a partition label at most 36; \
         shorten the name of the image"
    )]
    Label {
        /// The longest label.
        label: String,
        /// Its length in UTF-16 units.
        length: usize,
    },
}

/// A partition and its bytes.
#[derive(Debug, Clone)]
pub struct Partition {
    /// Its entry in the table.
    pub entry: Entry,
    /// All its bytes.
    pub content: Content,
}

/// A whole disk.
#[derive(Debug, Clone)]
pub struct Disk {
    /// The partition table.
    pub table: Table,
    /// ESP, root, root-verity, in this order.
    pub partitions: Vec<Partition>,
    /// All bytes of the disk.
    pub content: Content,
}

/// The size in bytes of the EFI system partition.
pub fn esp_size(esp: &Esp) -> Result<u64, fat::WriteError> {
    Ok((fat::minimum_size(&esp.tree)? + esp.spare).next_multiple_of(ALIGNMENT))
}

/// Where the root file system of a disk with this EFI system partition starts, in bytes: only the sizes of the files in
/// it count.
pub fn root_offset(esp: &Esp) -> Result<u64, LayoutError> {
    Ok((ALIGNMENT + esp_size(esp)?).next_multiple_of(ALIGNMENT))
}

impl Disk {
    /// Lays out the disk of `image`. Its bytes are read only when [`Disk::content`] is.
    pub fn new(image: &Image) -> Result<Self, LayoutError> {
        let row = image.architecture.row();
        let label = format!("{}_{}", image.name, image.version);
        let verity_label = format!("{label}_verity");
        let length = verity_label.encode_utf16().count();
        if length > super::gpt::LABEL_UNITS {
            return Err(LayoutError::Label { label: verity_label, length });
        }
        let mut builder = Builder { next: ALIGNMENT, partitions: Vec::new() };
        let options = fat::Options {
            size: esp_size(&image.esp)?,
            volume_id: u32::from_le_bytes(std::array::from_fn(|i| image.seed.bytes(b"esp-volume-id")[i])),
            label: "ESP".into(),
            hidden_sectors: (ALIGNMENT / SECTOR) as u32,
        };
        let esp = fat::write(&image.esp.tree, &options)?;
        builder.add("esp".into(), ESP, image.seed.uuid(ESP.as_bytes()), 0, esp)?;
        let (data, hash) = (image.root_hash.data_partition(), image.root_hash.hash_partition());
        builder.add(label, row.root, data, attribute::READ_ONLY, image.root.clone())?;
        builder.add(verity_label, row.root_verity, hash, attribute::READ_ONLY, image.verity.clone())?;
        builder.finish(image.seed.uuid(b"disk-uuid"))
    }
}

struct Builder {
    /// Where the next partition starts, in bytes.
    next: u64,
    partitions: Vec<Partition>,
}

impl Builder {
    fn add(
        &mut self,
        label: String,
        type_uuid: Uuid,
        uuid: Uuid,
        attributes: u64,
        content: Content,
    ) -> Result<(), LayoutError> {
        let size = content.size();
        if size == 0 || !size.is_multiple_of(4096) {
            return Err(LayoutError::Size { label, size });
        }
        let (first_sector, last_sector) = (self.next / SECTOR, (self.next + size) / SECTOR - 1);
        let entry = Entry { type_uuid, uuid, first_sector, last_sector, attributes, label };
        self.next = (self.next + size).next_multiple_of(ALIGNMENT);
        self.partitions.push(Partition { entry, content });
        Ok(())
    }

    fn finish(self, disk_uuid: Uuid) -> Result<Disk, LayoutError> {
        let end = self.partitions.last().map_or(FRONT_SECTORS, |partition| partition.entry.last_sector + 1);
        let size = ((end + BACK_SECTORS) * SECTOR).next_multiple_of(ALIGNMENT);
        let entries = self.partitions.iter().map(|partition| partition.entry.clone()).collect();
        let table = Table { disk_uuid, sectors: size / SECTOR, entries };
        let (front, back) = table.encode()?;
        let mut segments = Segments::new(size);
        let back_offset = size - back.len() as u64;
        let pieces = std::iter::once((0, Content::from_bytes(front)))
            .chain(self.partitions.iter().map(|p| (p.entry.range().start, p.content.clone())))
            .chain(std::iter::once((back_offset, Content::from_bytes(back))));
        for (offset, content) in pieces {
            segments.push(offset, content).expect("the table was encoded, so nothing overlaps");
        }
        Ok(Disk { table, partitions: self.partitions, content: segments.into_content() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(seed: &Seed) -> Image<'_> {
        Image {
            name: "minimal",
            version: "1",
            architecture: Architecture::Amd64,
            seed,
            esp: Esp::direct(Architecture::Amd64, Content::from_bytes("uki"), Timestamp::from_seconds(0)).unwrap(),
            root: Content::from_bytes(vec![1; 3 << 20 | 4096]),
            verity: Content::from_bytes(vec![2; 8192]),
            root_hash: RootHash::from_bytes(std::array::from_fn(|i| i as u8)),
        }
    }

    #[test]
    fn partitions_are_discoverable_and_start_at_whole_mebibytes() {
        let seed = Seed::new(&["minimal"]);
        let disk = Disk::new(&image(&seed)).unwrap();
        let table = Table::read(&disk.content).unwrap();
        assert_eq!(table, disk.table);
        assert_eq!(disk.content.size(), 39 << 20);
        let ranges: Vec<_> = table.entries.iter().map(Entry::range).collect();
        assert_eq!(ranges, [1 << 20..34 << 20, 34 << 20..37 << 20 | 4096, 38 << 20..38 << 20 | 8192]);
        assert_eq!(root_offset(&image(&seed).esp).unwrap(), 34 << 20);
        let labels: Vec<_> = table.entries.iter().map(|entry| entry.label.as_str()).collect();
        assert_eq!(labels, ["esp", "minimal_1", "minimal_1_verity"]);
        assert_eq!(table.entries[1].uuid.to_string(), "00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(table.entries[2].uuid.to_string(), "10111213-1415-1617-1819-1a1b1c1d1e1f");
        assert_eq!(table.entries[2].type_uuid.to_string(), "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5");
        assert_eq!(table.entries[1].attributes, 1 << 60);
    }

    #[test]
    fn the_same_image_gives_the_same_bytes_and_another_seed_others() {
        let (seed, other) = (Seed::new(&["minimal"]), Seed::new(&["other"]));
        let digest = |seed| Disk::new(&image(seed)).unwrap().content.digest().unwrap();
        assert_eq!(digest(&seed), digest(&seed));
        assert_ne!(digest(&seed), digest(&other));
    }

    #[test]
    fn a_label_that_would_be_cut_off_is_refused() {
        let seed = Seed::new(&["minimal"]);
        let fits = Image { name: "a-name-of-twenty-seven-bytes", ..image(&seed) };
        assert!(matches!(Disk::new(&fits), Err(LayoutError::Label { length: 37, .. })));
        let fits = Image { name: "a-name-of-twenty-six-bytes.", ..image(&seed) };
        assert!(Disk::new(&fits).is_ok());
    }

    #[test]
    fn a_root_that_is_not_whole_blocks_is_refused() {
        let seed = Seed::new(&["minimal"]);
        let image = Image { root: Content::from_bytes(vec![1; 4097]), ..image(&seed) };
        assert!(matches!(Disk::new(&image), Err(LayoutError::Size { size: 4097, .. })));
    }
}
