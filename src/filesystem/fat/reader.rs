//! Reads a FAT32 volume, strictly: what a careful formatter would not have written is refused, with its place.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::format::{
    BACKUP_SECTOR, BootSector, CLUSTER_MASK, CLUSTERS_MAX, CLUSTERS_MIN, DIRECTORY_MAX, END_OF_CHAIN_MIN, ENTRY,
    Geometry, INFO_SECTOR, LONG_NAME_UNITS, PATH_MAX, SECTOR, attribute, folded, info_sector, short_name_checksum,
    timestamp,
};
use crate::tree::{Content, Kind, Metadata, Node, ReadAt, Segments, Timestamp, Tree, TreeError, TreePath, show};

/// Largest FAT that is read: 2^24 clusters, 64 GiB of 4 KiB clusters. It is held in memory.
const TABLE_MAX: u64 = 64 * 1024 * 1024;

/// Why a volume could not be read. Offsets are bytes from its start.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source failed.
    #[error("cannot read the FAT volume at byte {offset}")]
    Read {
        /// Where.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A field of the boot sector or of FSInfo.
    #[error("{field} of the FAT volume (byte {offset}) is wrong")]
    Field {
        /// Which field.
        field: &'static str,
        /// Where it stands.
        offset: u64,
    },
    /// A directory entry.
    #[error("{}: {problem} (directory entry at byte {offset} of the FAT volume)", show(.path))]
    Entry {
        /// The file or directory.
        path: Vec<u8>,
        /// What is wrong with it.
        problem: &'static str,
        /// Where its entry stands.
        offset: u64,
    },
    /// A chain of clusters.
    #[error("{}: {problem} (FAT entry at byte {offset} of the FAT volume)", show(.path))]
    Chain {
        /// The file or directory.
        path: Vec<u8>,
        /// What is wrong with it.
        problem: &'static str,
        /// Where the entry of the FAT stands.
        offset: u64,
    },
    /// Something that no file refers to, and that is not zero.
    #[error("byte {offset} of the FAT volume belongs to nothing and is not zero")]
    Stray {
        /// Where.
        offset: u64,
    },
}

impl ReadError {
    /// Where in the volume.
    pub fn offset(&self) -> u64 {
        match self {
            Self::Read { offset, .. } | Self::Field { offset, .. } | Self::Entry { offset, .. } => *offset,
            Self::Chain { offset, .. } | Self::Stray { offset } => *offset,
        }
    }
}

/// A volume that was read.
#[derive(Debug)]
pub struct Volume {
    /// Directories (mode 0755) and files (0644), owned by root, with the time of their last change.
    pub tree: Tree,
    /// The volume's serial number.
    pub volume_id: u32,
    /// The label, without the spaces behind it.
    pub label: String,
    /// Size in bytes.
    pub size: u64,
    /// Bytes of a cluster.
    pub cluster_size: u64,
    /// Bytes in clusters that no file has.
    pub free: u64,
    source: Content,
    boot: BootSector,
    table: Vec<u8>,
    /// Bytes of the volume in use by directories and files, ascending.
    used: Vec<Range<u64>>,
    /// Where the files are.
    places: BTreeMap<Vec<u8>, Vec<Range<u64>>>,
}

impl Volume {
    /// Reads the volume that `source` begins with: every directory, no file.
    pub fn open(source: Content) -> Result<Self, ReadError> {
        let boot = boot_sector(&source)?;
        let geometry = &boot.geometry;
        let offset = geometry.fat_offset(0);
        let table = read(&source, offset, ((geometry.clusters() + 2) * 4) as usize)?;
        let mut walker = Walker {
            source: &source,
            geometry,
            table: &table,
            owned: vec![false; geometry.clusters() as usize + 2],
            used: Vec::new(),
            places: BTreeMap::new(),
            tree: Tree::default(),
            label: None,
            paths: 0,
        };
        walker.walk()?;
        let Walker { owned, mut used, places, tree, label, .. } = walker;
        used.sort_by_key(|range| range.start);
        let taken = owned.iter().filter(|owned| **owned).count() as u64;
        let label = label.unwrap_or(boot.label);
        Ok(Self {
            tree,
            volume_id: boot.volume_id,
            label: String::from_utf8_lossy(&label).trim_end().to_owned(),
            size: geometry.size(),
            cluster_size: geometry.cluster_size(),
            free: (geometry.clusters() - taken) * geometry.cluster_size(),
            used,
            places,
            boot,
            table,
            source,
        })
    }

    /// Where byte `offset` of a file stands in the volume.
    pub fn place(&self, path: &TreePath, offset: u64) -> Option<u64> {
        let mut left = offset;
        for run in self.places.get(path)? {
            let length = run.end - run.start;
            if left < length {
                return Some(run.start + left);
            }
            left -= length;
        }
        None
    }

    /// Checks what the files do not show: the copies agree, free space is free and everything that belongs to nothing
    /// is zero, up to the end of the source.
    pub fn check(&self) -> Result<(), ReadError> {
        let geometry = &self.boot.geometry;
        let encoded = self.boot.encode();
        for (sector, field) in [(0, "the boot sector"), (BACKUP_SECTOR, "the copy of the boot sector")] {
            self.equal(u64::from(sector) * SECTOR, &encoded, field)?;
        }
        let used_clusters = geometry.clusters() - self.free / self.cluster_size;
        let info = info_sector((geometry.clusters() - used_clusters) as u32, 2 + used_clusters as u32);
        for (copy, field) in [(0, "FSInfo"), (BACKUP_SECTOR, "the copy of FSInfo")] {
            self.equal(u64::from(copy + INFO_SECTOR) * SECTOR, &info, field)?;
        }
        self.zero(2 * SECTOR..u64::from(BACKUP_SECTOR) * SECTOR)?;
        self.zero(u64::from(BACKUP_SECTOR + 2) * SECTOR..geometry.fat_offset(0))?;
        self.check_table()?;
        for number in 0..geometry.fats {
            let start = geometry.fat_offset(number);
            self.equal(start, &self.table, "the FAT")?;
            self.zero(start + self.table.len() as u64..start + u64::from(geometry.fat_sectors) * SECTOR)?;
        }
        let mut position = geometry.data_offset();
        for range in &self.used {
            self.zero(position..range.start)?;
            position = range.end;
        }
        self.zero(position..self.source.size())
    }

    /// The first two entries have their meaning, and entries of clusters without an owner are zero.
    fn check_table(&self) -> Result<(), ReadError> {
        let geometry = &self.boot.geometry;
        for (index, expected) in [(0, 0x0fff_fff8), (1, 0x0fff_ffff)] {
            if entry(&self.table, index) != expected {
                let offset = geometry.fat_offset(0) + u64::from(index) * 4;
                return Err(ReadError::Field { field: "a reserved entry of the FAT", offset });
            }
        }
        let mut owned = vec![false; geometry.clusters() as usize + 2];
        for range in &self.used {
            let first = (range.start - geometry.data_offset()) / self.cluster_size + 2;
            let count = (range.end - range.start).div_ceil(self.cluster_size);
            owned[first as usize..(first + count) as usize].fill(true);
        }
        let stray = (2..owned.len()).find(|index| !owned[*index] && raw_entry(&self.table, *index as u32) != 0);
        let high = (2..owned.len()).find(|index| raw_entry(&self.table, *index as u32) & !CLUSTER_MASK != 0);
        match stray.into_iter().chain(high).min() {
            None => Ok(()),
            Some(index) => Err(ReadError::Stray { offset: geometry.fat_offset(0) + index as u64 * 4 }),
        }
    }

    fn equal(&self, offset: u64, expected: &[u8], field: &'static str) -> Result<(), ReadError> {
        let found = read(&self.source, offset, expected.len())?;
        match found.iter().zip(expected).position(|(a, b)| a != b) {
            None => Ok(()),
            Some(position) => Err(ReadError::Field { field, offset: offset + position as u64 }),
        }
    }

    fn zero(&self, range: Range<u64>) -> Result<(), ReadError> {
        match crate::tree::first_nonzero(&self.source, range.clone()) {
            Ok(None) => Ok(()),
            Ok(Some(offset)) => Err(ReadError::Stray { offset }),
            Err(source) => Err(ReadError::Read { offset: range.start, source }),
        }
    }
}

fn read(source: &Content, offset: u64, size: usize) -> Result<Vec<u8>, ReadError> {
    let error = |source| ReadError::Read { offset, source };
    if offset.checked_add(size as u64).is_none_or(|end| end > source.size()) {
        return Err(error(io::ErrorKind::UnexpectedEof.into()));
    }
    let mut bytes = vec![0; size];
    source.read_exact_at(&mut bytes, offset).map_err(error)?;
    Ok(bytes)
}

fn le16(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

fn le32(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[offset + i]))
}

/// The entry of the FAT as it stands; out of range reads as 0, a free cluster.
fn raw_entry(table: &[u8], cluster: u32) -> u32 {
    let start = cluster as usize * 4;
    table.get(start..start + 4).map_or(0, |bytes| le32(bytes, 0))
}

fn entry(table: &[u8], cluster: u32) -> u32 {
    raw_entry(table, cluster) & CLUSTER_MASK
}

fn boot_sector(source: &Content) -> Result<BootSector, ReadError> {
    let sector = read(source, 0, SECTOR as usize)?;
    let check = |good: bool, field, offset| if good { Ok(()) } else { Err(ReadError::Field { field, offset }) };
    check(sector[510..] == [0x55, 0xaa], "the signature", 510)?;
    check(matches!(sector[0], 0xeb | 0xe9), "the jump instruction", 0)?;
    check(le16(&sector, 11) == SECTOR as u16, "bytes per sector (512)", 11)?;
    check(sector[13].is_power_of_two(), "sectors per cluster", 13)?;
    check(le16(&sector, 14) > BACKUP_SECTOR + INFO_SECTOR, "reserved sectors", 14)?;
    check(matches!(sector[16], 1 | 2), "number of FATs", 16)?;
    for (offset, field) in [(17, "root entries"), (19, "total sectors (16 bits)"), (22, "FAT size (16 bits)")] {
        check(le16(&sector, offset) == 0, field, offset as u64)?;
    }
    check(le16(&sector, 40) == 0 && le16(&sector, 42) == 0, "flags and version", 40)?;
    check(le16(&sector, 48) == INFO_SECTOR, "sector of FSInfo", 48)?;
    check(le16(&sector, 50) == BACKUP_SECTOR, "sector of the copy of the boot sector", 50)?;
    let geometry = Geometry {
        sectors: le32(&sector, 32),
        cluster_sectors: sector[13],
        reserved_sectors: le16(&sector, 14),
        fats: sector[16],
        fat_sectors: le32(&sector, 36),
        root: le32(&sector, 44),
    };
    check(geometry.size() <= source.size(), "total sectors", 32)?;
    check((CLUSTERS_MIN..=CLUSTERS_MAX).contains(&geometry.clusters()), "number of clusters", 32)?;
    let table = (geometry.clusters() + 2) * 4;
    check(table <= u64::from(geometry.fat_sectors) * SECTOR && table <= TABLE_MAX, "size of the FAT", 36)?;
    let clusters = 2..geometry.clusters() + 2;
    check(clusters.contains(&u64::from(geometry.root)), "cluster of the root directory", 44)?;
    Ok(BootSector {
        geometry,
        hidden_sectors: le32(&sector, 28),
        volume_id: le32(&sector, 67),
        label: std::array::from_fn(|i| sector[71 + i]),
    })
}

struct Walker<'a> {
    source: &'a Content,
    geometry: &'a Geometry,
    table: &'a [u8],
    owned: Vec<bool>,
    used: Vec<Range<u64>>,
    places: BTreeMap<Vec<u8>, Vec<Range<u64>>>,
    tree: Tree,
    label: Option<[u8; 11]>,
    /// Bytes of all paths so far. An entry takes 32 bytes of the volume, its path may take 4096.
    paths: u64,
}

/// A directory that waits to be read.
struct Pending {
    path: Vec<u8>,
    cluster: u32,
    /// First cluster of the directory above, 0 for the root.
    parent: u32,
}

/// What a directory entry says, names put together.
struct Record {
    path: Vec<u8>,
    attributes: u8,
    cluster: u32,
    size: u32,
    mtime: Timestamp,
    offset: u64,
}

impl Walker<'_> {
    fn walk(&mut self) -> Result<(), ReadError> {
        let mut pending = vec![Pending { path: Vec::new(), cluster: self.geometry.root, parent: 0 }];
        while let Some(directory) = pending.pop() {
            let runs = self.chain(&directory.path, directory.cluster, None)?;
            for record in self.records(&directory, &runs)? {
                let metadata = |mode| Metadata { mtime: record.mtime, ..Metadata::with_mode(mode) };
                let refuse = |problem| ReadError::Entry { path: record.path.clone(), problem, offset: record.offset };
                let node = if record.attributes & attribute::DIRECTORY != 0 {
                    let above = if directory.path.is_empty() { 0 } else { directory.cluster };
                    pending.push(Pending { path: record.path.clone(), cluster: record.cluster, parent: above });
                    Node { metadata: metadata(0o755), kind: Kind::directory() }
                } else {
                    let runs = self.chain(&record.path, record.cluster, Some(record.size))?;
                    let content = self.content(&runs, u64::from(record.size));
                    self.places.insert(record.path.clone(), runs);
                    Node { metadata: metadata(0o644), kind: Kind::File(content) }
                };
                self.tree.insert(&record.path, node).map_err(|error| match error {
                    TreeError::Exists(_) => refuse("the name stands twice in its directory"),
                    _ => refuse("not a valid name"),
                })?;
            }
        }
        Ok(())
    }

    /// The clusters from `first` on as ranges of the volume's bytes, each marked as owned. A file has its size, a
    /// directory none: it ends where its chain does.
    fn chain(&mut self, path: &[u8], first: u32, size: Option<u32>) -> Result<Vec<Range<u64>>, ReadError> {
        let cluster_size = self.geometry.cluster_size();
        let limit = size.map_or(DIRECTORY_MAX, u64::from).div_ceil(cluster_size);
        let mut runs: Vec<Range<u64>> = Vec::new();
        if size == Some(0) && first == 0 {
            return Ok(runs);
        }
        let (mut cluster, mut count, mut from) = (first, 0, 0);
        loop {
            let refuse = |problem| {
                let offset = self.geometry.fat_offset(0) + u64::from(from) * 4;
                Err(ReadError::Chain { path: path.to_vec(), problem, offset })
            };
            match self.owned.get_mut(cluster as usize) {
                None => return refuse("its chain of clusters leads out of the volume"),
                Some(_) if cluster < 2 => return refuse("its chain of clusters is broken"),
                Some(true) => return refuse("its chain of clusters runs into one in use"),
                Some(owned) => *owned = true,
            }
            count += 1;
            if count > limit {
                return refuse("its chain of clusters is longer than its size");
            }
            let start = self.geometry.cluster_offset(cluster);
            match runs.last_mut() {
                Some(run) if run.end == start => run.end += cluster_size,
                _ => runs.push(start..start + cluster_size),
            }
            from = cluster;
            cluster = entry(self.table, cluster);
            if cluster >= END_OF_CHAIN_MIN {
                break;
            }
        }
        if size.is_some() && count < limit {
            let offset = self.geometry.fat_offset(0) + u64::from(from) * 4;
            let problem = "its chain of clusters is shorter than its size";
            return Err(ReadError::Chain { path: path.to_vec(), problem, offset });
        }
        self.mark(&runs, size);
        Ok(runs)
    }

    /// Notes the bytes in use. A directory's clusters are used whole: its reader checks what lies behind the end.
    fn mark(&mut self, runs: &[Range<u64>], size: Option<u32>) {
        let mut left = size.map_or(u64::MAX, u64::from);
        for run in runs {
            let length = (run.end - run.start).min(left);
            self.used.push(run.start..run.start + length);
            left -= length;
        }
    }

    fn content(&self, runs: &[Range<u64>], size: u64) -> Content {
        let source: Arc<dyn ReadAt> = Arc::new(self.source.clone());
        match runs {
            [] => Content::from_bytes([]),
            [run] => Content::new(size, source, run.start),
            runs => {
                let mut segments = Segments::new(size);
                let mut position = 0;
                for run in runs {
                    let length = (run.end - run.start).min(size - position);
                    // Runs are pushed one behind the other and cut at the size: they fit.
                    let _ = segments.push(position, Content::new(length, source.clone(), run.start));
                    position += length;
                }
                segments.into_content()
            }
        }
    }

    /// The entries of a directory without `.`, `..` and the label.
    fn records(&mut self, directory: &Pending, runs: &[Range<u64>]) -> Result<Vec<Record>, ReadError> {
        let mut names = BTreeSet::new();
        let mut records = Vec::new();
        let mut long_name = LongName::default();
        let mut position = 0;
        let mut ended = false;
        for run in runs {
            let bytes = read(self.source, run.start, (run.end - run.start) as usize)?;
            for (index, raw) in bytes.chunks_exact(ENTRY).enumerate() {
                let offset = run.start + (index * ENTRY) as u64;
                let refuse = |problem| Err(ReadError::Entry { path: directory.path.clone(), problem, offset });
                if ended || raw[0] == 0 {
                    ended = true;
                    match raw.iter().position(|byte| *byte != 0) {
                        None => continue,
                        Some(byte) => return Err(ReadError::Stray { offset: offset + byte as u64 }),
                    }
                }
                position += 1;
                if raw[11] & 0x3f == attribute::LONG_NAME {
                    if !long_name.add(raw) {
                        return refuse("a piece of a long name stands out of order");
                    }
                    continue;
                }
                let Some(name) = std::mem::take(&mut long_name).finish(raw) else {
                    return refuse("its name cannot be read");
                };
                if raw[11] & attribute::VOLUME_LABEL != 0 {
                    if !directory.path.is_empty() || self.label.is_some() {
                        return refuse("a second volume label");
                    }
                    self.label = Some(std::array::from_fn(|i| raw[i]));
                    continue;
                }
                let record = record(raw, &directory.path, &name, offset);
                if !directory.path.is_empty() && position <= 2 {
                    let (dot, cluster) =
                        if position == 1 { (".", directory.cluster) } else { ("..", directory.parent) };
                    if name != dot || record.attributes != attribute::DIRECTORY || record.cluster != cluster {
                        return refuse("a directory does not begin with `.` and `..`");
                    }
                    continue;
                }
                if record.path.len() > PATH_MAX {
                    return refuse("a path in it is longer than 4096 bytes");
                }
                self.paths += record.path.len() as u64;
                if self.paths > self.geometry.size() {
                    return refuse("the paths of all files take more room than the volume has");
                }
                if !names.insert(folded(&name)) {
                    return refuse("the name stands twice in its directory");
                }
                records.push(record);
            }
        }
        let offset = runs.first().map_or(0, |run| run.start);
        if !long_name.pieces.is_empty() || (!directory.path.is_empty() && position < 2) {
            return Err(ReadError::Entry { path: directory.path.clone(), problem: "the directory is cut off", offset });
        }
        Ok(records)
    }
}

fn record(raw: &[u8], directory: &[u8], name: &str, offset: u64) -> Record {
    let path = if directory.is_empty() { name.into() } else { [directory, b"/", name.as_bytes()].concat() };
    Record {
        path,
        attributes: raw[11],
        cluster: u32::from(le16(raw, 20)) << 16 | u32::from(le16(raw, 26)),
        size: le32(raw, 28),
        mtime: timestamp(le16(raw, 24), le16(raw, 22)),
        offset,
    }
}

/// A long name on its way: pieces come last piece first, numbered down to 1.
#[derive(Default)]
struct LongName {
    pieces: Vec<[u16; 13]>,
    next: u8,
    checksum: u8,
}

impl LongName {
    fn add(&mut self, raw: &[u8]) -> bool {
        let first = raw[0] & 0x40 != 0;
        let number = raw[0] & 0x1f;
        let units = LONG_NAME_UNITS.map(|offset| le16(raw, offset));
        let fits = if first { self.pieces.is_empty() } else { number == self.next && raw[13] == self.checksum };
        if !fits || !(1..=20).contains(&number) || raw[0] & 0xa0 != 0 || raw[12] != 0 || le16(raw, 26) != 0 {
            return false;
        }
        self.checksum = raw[13];
        self.next = number - 1;
        self.pieces.push(units);
        true
    }

    /// The name of the entry `raw` that follows the pieces; `None` if they are not its own.
    fn finish(self, raw: &[u8]) -> Option<String> {
        let short: [u8; 11] = std::array::from_fn(|i| raw[i]);
        if self.pieces.is_empty() {
            return short_text(&short, raw[12]);
        }
        if self.next != 0 || short_name_checksum(&short) != self.checksum || !short.is_ascii() {
            return None;
        }
        let units: Vec<u16> = self.pieces.into_iter().rev().flatten().collect();
        let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
        let padding = units.get(end + 1..).unwrap_or(&[]);
        if units.len() - end > 13 || padding.iter().any(|unit| *unit != 0xffff) {
            return None;
        }
        String::from_utf16(&units[..end]).ok()
    }
}

/// A short name as text. Two bits say that base or extension are in lower case.
fn short_text(short: &[u8; 11], case: u8) -> Option<String> {
    let part = |bytes: &[u8], lower: bool| {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii())?.trim_end();
        Some(if lower { text.to_ascii_lowercase() } else { text.to_owned() })
    };
    let base = part(&short[..8], case & 0x08 != 0)?;
    let extension = part(&short[8..], case & 0x10 != 0)?;
    let name = if extension.is_empty() { base } else { format!("{base}.{extension}") };
    let printable = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    printable.then_some(name)
}
