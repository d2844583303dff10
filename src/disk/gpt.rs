//! The GUID partition table: its bytes from a [`Table`], and a strict reader back.
//!
//! Reader and writer agree on one form: 512-byte sectors, 128 entries of 128 bytes right behind the header, the copy at
//! the very end. A table of another form is refused.

use std::io;
use std::ops::Range;

use crate::identifier::Uuid;
use crate::tree::Content;

/// Bytes of a sector.
pub(super) const SECTOR: u64 = 512;
const ENTRIES: usize = 128;
const ENTRY_SIZE: usize = 128;
const HEADER_SIZE: usize = 92;
const ENTRIES_SIZE: usize = ENTRIES * ENTRY_SIZE;
const ENTRIES_SECTORS: u64 = ENTRIES_SIZE as u64 / SECTOR;
/// Protective MBR, header, entries.
pub(super) const FRONT_SECTORS: u64 = 2 + ENTRIES_SECTORS;
/// Entries, header.
pub(super) const BACK_SECTORS: u64 = 1 + ENTRIES_SECTORS;
/// UTF-16 units of a label.
pub(super) const LABEL_UNITS: usize = 36;

/// Attribute bits of partitions (Discoverable Partitions Specification).
pub mod attribute {
    /// The partition is mounted read-only.
    pub const READ_ONLY: u64 = 1 << 60;
    /// The file system is grown to the partition's size.
    pub const GROW_FILE_SYSTEM: u64 = 1 << 59;
    /// The partition is not mounted automatically.
    pub const NO_AUTO: u64 = 1 << 63;
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is for.
    pub type_uuid: Uuid,
    /// Which one it is.
    pub uuid: Uuid,
    /// First and last sector, both part of it.
    pub first_sector: u64,
    /// See `first_sector`.
    pub last_sector: u64,
    /// See [`attribute`].
    pub attributes: u64,
    /// At most 36 UTF-16 units.
    pub label: String,
}

impl Entry {
    /// Where it lies, in bytes from the start of the disk.
    pub fn range(&self) -> Range<u64> {
        self.first_sector * SECTOR..(self.last_sector + 1) * SECTOR
    }
}

/// A partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Identifies the disk.
    pub disk_uuid: Uuid,
    /// Sectors of the disk.
    pub sectors: u64,
    /// In the order of the table, which is here that of the disk.
    pub entries: Vec<Entry>,
}

/// A table that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// No room for the table itself.
    #[error("a disk of {0} sectors has no room for a partition table")]
    Sectors(u64),
    /// Too many partitions.
    #[error("a partition table has at most {ENTRIES} partitions, not {0}")]
    Entries(usize),
    /// A label that does not fit.
    #[error("the partition label {0:?} is longer than {LABEL_UNITS} UTF-16 units")]
    Label(String),
    /// Partitions overlap each other, the table or the disk's end.
    #[error("partition {label:?} (sectors {first} to {last}) does not lie behind the one before and within the disk")]
    Place {
        /// Its label.
        label: String,
        /// First sector.
        first: u64,
        /// Last sector.
        last: u64,
    },
}

/// Why a partition table could not be read. Offsets are bytes from the start of the disk.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source failed or is too short.
    #[error("cannot read the partition table at byte {offset}")]
    Read {
        /// Where.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A field with a wrong value.
    #[error("{field} of the {structure} (byte {offset}) is wrong")]
    Field {
        /// Protective MBR, header, entries, or the copies of these.
        structure: &'static str,
        /// Which field.
        field: &'static str,
        /// Where it stands.
        offset: u64,
    },
    /// A partition that overlaps, lies outside, or is described wrongly.
    #[error("partition {number} (entry at byte {offset}): {problem}")]
    Entry {
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        problem: &'static str,
        /// Where the entry stands.
        offset: u64,
    },
}

impl ReadError {
    /// Where on the disk.
    pub fn offset(&self) -> u64 {
        match self {
            Self::Read { offset, .. } | Self::Field { offset, .. } | Self::Entry { offset, .. } => *offset,
        }
    }
}

impl Table {
    /// Where the table stands, in bytes.
    pub fn front_range(&self) -> Range<u64> {
        0..FRONT_SECTORS * SECTOR
    }

    /// Where its copy stands, in bytes.
    pub fn copy_range(&self) -> Range<u64> {
        (self.sectors - BACK_SECTORS) * SECTOR..self.sectors * SECTOR
    }

    /// Sectors that partitions may have.
    fn usable(&self) -> Range<u64> {
        FRONT_SECTORS..self.sectors.saturating_sub(BACK_SECTORS)
    }

    /// The bytes at the front of the disk and those at its end.
    pub fn encode(&self) -> Result<(Vec<u8>, Vec<u8>), TableError> {
        if self.entries.len() > ENTRIES {
            return Err(TableError::Entries(self.entries.len()));
        }
        let mut free = self.usable();
        if free.is_empty() {
            return Err(TableError::Sectors(self.sectors));
        }
        let mut entries = Vec::with_capacity(ENTRIES_SIZE);
        for entry in &self.entries {
            let (first, last) = (entry.first_sector, entry.last_sector);
            if first < free.start || last < first || last >= free.end {
                return Err(TableError::Place { label: entry.label.clone(), first, last });
            }
            free.start = last + 1;
            entries.extend_from_slice(&encode_entry(entry)?);
        }
        entries.resize(ENTRIES_SIZE, 0);
        let last = self.sectors - 1;
        let mut front = protective_mbr(self.sectors);
        front.extend(self.header(1, last, 2, &entries));
        front.extend_from_slice(&entries);
        let copy = self.header(last, 1, self.sectors - BACK_SECTORS, &entries);
        entries.extend(copy);
        Ok((front, entries))
    }

    fn header(&self, own: u64, other: u64, entries_sector: u64, entries: &[u8]) -> Vec<u8> {
        let usable = self.usable();
        let mut header = vec![0; SECTOR as usize];
        let mut put = |offset: usize, bytes: &[u8]| header[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(0, b"EFI PART");
        put(8, &0x0001_0000u32.to_le_bytes());
        put(12, &(HEADER_SIZE as u32).to_le_bytes());
        put(24, &own.to_le_bytes());
        put(32, &other.to_le_bytes());
        put(40, &usable.start.to_le_bytes());
        put(48, &(usable.end - 1).to_le_bytes());
        put(56, &self.disk_uuid.to_guid_bytes());
        put(72, &entries_sector.to_le_bytes());
        put(80, &(ENTRIES as u32).to_le_bytes());
        put(84, &(ENTRY_SIZE as u32).to_le_bytes());
        put(88, &crc32fast::hash(entries).to_le_bytes());
        let checksum = crc32fast::hash(&header[..HEADER_SIZE]);
        header[16..20].copy_from_slice(&checksum.to_le_bytes());
        header
    }

    /// Reads the table of `disk` and checks it together with its copy at the end.
    pub fn read(disk: &Content) -> Result<Self, ReadError> {
        let sectors = disk.size() / SECTOR;
        let short = io::Error::from(io::ErrorKind::UnexpectedEof);
        if sectors < FRONT_SECTORS + BACK_SECTORS || !disk.size().is_multiple_of(SECTOR) {
            return Err(ReadError::Read { offset: disk.size(), source: short });
        }
        let front = read(disk, 0, FRONT_SECTORS)?;
        let back_offset = (sectors - BACK_SECTORS) * SECTOR;
        let back = read(disk, back_offset, BACK_SECTORS)?;
        let mbr = protective_mbr(sectors);
        let (header, entries) = (&front[SECTOR as usize..2 * SECTOR as usize], &front[2 * SECTOR as usize..]);
        compare("protective MBR", "a field", 0, &front[..SECTOR as usize], &mbr)?;
        let disk_uuid = Uuid::from_guid_bytes(std::array::from_fn(|i| header[56 + i]));
        let mut table = Self { disk_uuid, sectors, entries: Vec::new() };
        check_header("GPT header", SECTOR, header, &table.header(1, sectors - 1, 2, entries))?;
        table.entries = decode_entries(entries, table.usable())?;
        let (copy_of_entries, copy_of_header) = back.split_at(ENTRIES_SIZE);
        compare("copy of the GPT entries", "a field", back_offset, copy_of_entries, entries)?;
        let expected = table.header(sectors - 1, 1, sectors - BACK_SECTORS, entries);
        let offset = (sectors - 1) * SECTOR;
        check_header("copy of the GPT header", offset, copy_of_header, &expected)?;
        Ok(table)
    }
}

/// Says to tools that know only the old table that the disk is taken.
fn protective_mbr(sectors: u64) -> Vec<u8> {
    let mut mbr = vec![0; SECTOR as usize];
    let size = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    // Not active; starts at cylinder 0, head 0, sector 2; type 0xee; ends "too far for this notation".
    mbr[446..454].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
    mbr[454..458].copy_from_slice(&1u32.to_le_bytes());
    mbr[458..462].copy_from_slice(&size.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    mbr
}

fn encode_entry(entry: &Entry) -> Result<[u8; ENTRY_SIZE], TableError> {
    let units: Vec<u16> = entry.label.encode_utf16().collect();
    if units.len() > LABEL_UNITS || units.contains(&0) {
        return Err(TableError::Label(entry.label.clone()));
    }
    let mut bytes = [0; ENTRY_SIZE];
    bytes[0..16].copy_from_slice(&entry.type_uuid.to_guid_bytes());
    bytes[16..32].copy_from_slice(&entry.uuid.to_guid_bytes());
    bytes[32..40].copy_from_slice(&entry.first_sector.to_le_bytes());
    bytes[40..48].copy_from_slice(&entry.last_sector.to_le_bytes());
    bytes[48..56].copy_from_slice(&entry.attributes.to_le_bytes());
    for (index, unit) in units.iter().enumerate() {
        bytes[56 + index * 2..58 + index * 2].copy_from_slice(&unit.to_le_bytes());
    }
    Ok(bytes)
}

/// The partitions, which must stand in the order of the disk without gaps between the entries.
fn decode_entries(bytes: &[u8], mut free: Range<u64>) -> Result<Vec<Entry>, ReadError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut ended = false;
    for (index, raw) in bytes.chunks_exact(ENTRY_SIZE).enumerate() {
        let offset = 2 * SECTOR + (index * ENTRY_SIZE) as u64;
        let refuse = |problem| Err(ReadError::Entry { number: index + 1, problem, offset });
        if raw.iter().all(|byte| *byte == 0) {
            ended = true;
            continue;
        }
        let le64 = |offset: usize| u64::from_le_bytes(std::array::from_fn(|i| raw[offset + i]));
        let uuid = |offset: usize| Uuid::from_guid_bytes(std::array::from_fn(|i| raw[offset + i]));
        let units: Vec<u16> = raw[56..].chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
        let length = units.iter().position(|unit| *unit == 0).unwrap_or(LABEL_UNITS);
        let Ok(label) = String::from_utf16(&units[..length]) else {
            return refuse("its label is not UTF-16");
        };
        let (first_sector, last_sector) = (le64(32), le64(40));
        let entry =
            Entry { type_uuid: uuid(0), uuid: uuid(16), first_sector, last_sector, attributes: le64(48), label };
        if ended || entry.type_uuid == Uuid::NIL {
            return refuse("it follows an empty entry or has no type");
        }
        if first_sector < free.start || last_sector < first_sector || last_sector >= free.end {
            return refuse("it overlaps another one, the partition table or the end of the disk");
        }
        if units[length..].iter().any(|unit| *unit != 0) {
            return refuse("bytes behind the end of its label are not zero");
        }
        if entries.iter().any(|other| other.uuid == entry.uuid) {
            return refuse("another partition has the same UUID");
        }
        free.start = last_sector + 1;
        entries.push(entry);
    }
    Ok(entries)
}

fn read(disk: &Content, offset: u64, sectors: u64) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![0; (sectors * SECTOR) as usize];
    disk.read_exact_at(&mut bytes, offset).map_err(|source| ReadError::Read { offset, source })?;
    Ok(bytes)
}

fn compare(
    structure: &'static str,
    field: &'static str,
    offset: u64,
    found: &[u8],
    expected: &[u8],
) -> Result<(), ReadError> {
    match found.iter().zip(expected).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(position) => Err(ReadError::Field { structure, field, offset: offset + position as u64 }),
    }
}

/// Names the first field that is not as expected; the checksums are looked at last, they are wrong whenever
/// something else is.
fn check_header(structure: &'static str, offset: u64, found: &[u8], expected: &[u8]) -> Result<(), ReadError> {
    const FIELDS: [(&str, Range<usize>); 15] = [
        ("signature", 0..8),
        ("revision", 8..12),
        ("header size", 12..16),
        ("reserved field", 20..24),
        ("own sector", 24..32),
        ("sector of the other header", 32..40),
        ("first usable sector", 40..48),
        ("last usable sector", 48..56),
        ("disk UUID", 56..72),
        ("sector of the entries", 72..80),
        ("number of entries", 80..84),
        ("size of an entry", 84..88),
        ("padding", HEADER_SIZE..SECTOR as usize),
        ("checksum of the entries", 88..92),
        ("checksum", 16..20),
    ];
    FIELDS.iter().try_for_each(|(field, range)| {
        compare(structure, field, offset + range.start as u64, &found[range.clone()], &expected[range.clone()])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let entry = |number: u128, first_sector, last_sector| Entry {
            type_uuid: Uuid::from_u128(0x1000 + number),
            uuid: Uuid::from_u128(number),
            first_sector,
            last_sector,
            attributes: attribute::READ_ONLY,
            label: format!("part {number}"),
        };
        let entries = vec![entry(1, 2048, 4095), entry(2, 4096, 4096), entry(3, 6144, 8158)];
        Table { disk_uuid: Uuid::from_u128(9), sectors: 8192, entries }
    }

    fn bytes(table: &Table) -> Vec<u8> {
        let (front, back) = table.encode().unwrap();
        let mut disk = vec![0; (table.sectors * SECTOR) as usize];
        disk[..front.len()].copy_from_slice(&front);
        let start = disk.len() - back.len();
        disk[start..].copy_from_slice(&back);
        disk
    }

    #[test]
    fn a_table_reads_back() {
        let table = sample();
        assert_eq!(Table::read(&Content::from_bytes(bytes(&table))).unwrap(), table);
    }

    #[test]
    fn names_a_flipped_byte_anywhere_in_both_tables() {
        let good = bytes(&sample());
        let end = good.len();
        for place in (0..34 * 512).step_by(7).chain((end - 33 * 512..end).step_by(7)) {
            let mut disk = good.clone();
            disk[place] ^= 1;
            let error = Table::read(&Content::from_bytes(disk)).unwrap_err();
            // A flip in the entries is seen by their checksum, in the header's field at 88.
            let entries = (1024..34 * 512).contains(&place);
            // The disk UUID may be anything: only the header's checksum, at 16, knows it.
            let uuid = (512 + 56..512 + 72).contains(&place);
            let expected = if entries {
                512 + 88
            } else if uuid {
                512 + 16
            } else {
                place as u64
            };
            let distance = error.offset().abs_diff(expected);
            assert!(distance < 16, "byte {place}: {error}");
        }
    }

    #[test]
    fn refuses_to_write_overlaps_and_long_labels() {
        for (index, first, last) in [(0, 33, 40), (0, 3000, 2999), (1, 4095, 5000), (2, 6144, 8159)] {
            let mut table = sample();
            (table.entries[index].first_sector, table.entries[index].last_sector) = (first, last);
            let label = table.entries[index].label.clone();
            assert_eq!(table.encode(), Err(TableError::Place { label, first, last }));
        }
        for sectors in [0, 1, 67] {
            let table = Table { sectors, ..sample() };
            assert_eq!(table.encode(), Err(TableError::Sectors(sectors)));
        }
        let mut table = sample();
        table.entries[0].label = "x".repeat(37);
        assert_eq!(table.encode(), Err(TableError::Label("x".repeat(37))));
    }

    #[test]
    fn refuses_hostile_entries_under_a_good_checksum() {
        let with = |change: &dyn Fn(&mut [u8])| {
            let mut disk = bytes(&sample());
            change(&mut disk[1024..34 * 512]);
            let entries = disk[1024..34 * 512].to_vec();
            disk[600..604].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
            disk[528..532].fill(0);
            let checksum = crc32fast::hash(&disk[512..604]);
            disk[528..532].copy_from_slice(&checksum.to_le_bytes());
            Table::read(&Content::from_bytes(disk)).unwrap_err()
        };
        let last_sector = with(&|entries| entries[40..48].fill(0xff));
        assert!(matches!(last_sector, ReadError::Entry { number: 1, offset: 1024, .. }), "{last_sector}");
        let overlap = with(&|entries| entries[128 + 32..128 + 40].copy_from_slice(&4000u64.to_le_bytes()));
        assert!(matches!(overlap, ReadError::Entry { number: 2, .. }), "{overlap}");
        let hidden = with(&|entries| entries[127] = 1);
        assert!(matches!(hidden, ReadError::Entry { number: 1, .. }), "{hidden}");
        let twin = with(&|entries| entries.copy_within(16..32, 128 + 16));
        assert!(matches!(twin, ReadError::Entry { number: 2, .. }), "{twin}");
        let gap = with(&|entries| entries.copy_within(256..384, 512));
        assert!(matches!(gap, ReadError::Entry { number: 5, .. }), "{gap}");
    }

    #[test]
    fn a_file_too_short_for_a_table_is_refused() {
        for size in [0, 511, 512 * 66, 512 * 67 + 1] {
            assert!(matches!(Table::read(&Content::from_bytes(vec![0; size])), Err(ReadError::Read { .. })));
        }
    }
}
