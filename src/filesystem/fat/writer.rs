//! Lays out a tree as a FAT32 volume.

use std::collections::{BTreeMap, BTreeSet};

use super::format::{
    BACKUP_SECTOR, BootSector, CLUSTERS_MAX, CLUSTERS_MIN, DIRECTORY_MAX, END_OF_CHAIN, ENTRY, Geometry, INFO_SECTOR,
    LONG_NAME_UNITS, SECTOR, attribute, dos_time, folded, info_sector, is_long_name, short_name, short_name_checksum,
};
use crate::tree::{Content, Kind, NodeId, Segments, Timestamp, Tree, show};

/// Clusters kept above the fewest that make a FAT32: some drivers compare with other limits (Microsoft's paper
/// advises to stay 16 away).
const CLUSTERS_MARGIN: u64 = 16;
/// Sectors before the first FAT, as every formatter has them for FAT32.
const RESERVED_SECTORS: u64 = 32;
/// Clusters start at a multiple of this: a page of the machines that read it, and of flash.
const DATA_ALIGNMENT_SECTORS: u64 = 8;
const FATS: u8 = 2;
const MEBIBYTE: u64 = 1024 * 1024;

/// How a volume is written besides its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Size of the volume in bytes, a multiple of 512. See [`minimum_size`].
    pub size: u64,
    /// Identifies the volume; `/dev/disk/by-uuid` shows it.
    pub volume_id: u32,
    /// Up to 11 characters of those that short names have, or spaces.
    pub label: String,
    /// Sectors of the disk in front of the volume.
    pub hidden_sectors: u32,
}

/// Why a tree does not fit in a volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// FAT has directories and files only.
    #[error("{}: a FAT volume cannot hold a {kind}", show(.path))]
    Kind {
        /// Which.
        path: Vec<u8>,
        /// What it is.
        kind: &'static str,
    },
    /// The name is not UTF-8, or has a character that FAT forbids.
    #[error("{}: not a name that a FAT volume can hold", show(.0))]
    Name(Vec<u8>),
    /// Two names of a directory differ in case only.
    #[error("{}: another name in this directory differs in case only, which FAT does not tell apart", show(.0))]
    Duplicate(Vec<u8>),
    /// 4 GiB and more.
    #[error("{}: {size} bytes, but a file on a FAT volume has less than 4 GiB", show(.path))]
    FileSize {
        /// Which.
        path: Vec<u8>,
        /// Its size in bytes.
        size: u64,
    },
    /// More entries than a directory holds.
    #[error("{}: too many names for one FAT directory", show(.0))]
    DirectorySize(Vec<u8>),
    /// The label is too long or has other characters.
    #[error("{0:?} is no FAT volume label: up to 11 of A-Z, 0-9, space and $%'-_@~`!(){{}}^#&")]
    Label(String),
    /// Too small for FAT32, too large, or not whole sectors.
    #[error("a FAT32 volume cannot have {0} bytes: at least 33 MiB, less than 2 TiB, in whole sectors of 512")]
    VolumeSize(u64),
    /// The files do not fit.
    #[error("the files need {needed} clusters of {cluster_size} bytes, the FAT volume has {available}")]
    Full {
        /// Clusters that the tree takes.
        needed: u64,
        /// Clusters of the volume.
        available: u64,
        /// Bytes of a cluster.
        cluster_size: u64,
    },
}

/// The smallest size in bytes, in whole MiB, of a volume that holds `tree`.
pub fn minimum_size(tree: &Tree) -> Result<u64, WriteError> {
    let plan = Plan::new(tree)?;
    let mut size = 33 * MEBIBYTE;
    loop {
        let geometry = geometry(size)?;
        if plan.clusters(geometry.cluster_size()) <= geometry.clusters() {
            return Ok(size);
        }
        let missing = plan.clusters(geometry.cluster_size()) - geometry.clusters();
        size += (missing * geometry.cluster_size()).next_multiple_of(MEBIBYTE);
    }
}

/// The volume that holds `tree`; the files' bytes are read when the volume is.
pub fn write(tree: &Tree, options: &Options) -> Result<Content, WriteError> {
    let label = label(&options.label)?;
    let mut geometry = geometry(options.size)?;
    let plan = Plan::new(tree)?;
    let (needed, cluster_size) = (plan.clusters(geometry.cluster_size()), geometry.cluster_size());
    if needed > geometry.clusters() {
        return Err(WriteError::Full { needed, available: geometry.clusters(), cluster_size });
    }
    geometry.root = 2;
    let boot = BootSector {
        geometry: geometry.clone(),
        hidden_sectors: options.hidden_sectors,
        volume_id: options.volume_id,
        label,
    };
    let mut segments = Segments::new(options.size);
    let mut push = |offset, content| segments.push(offset, content).expect("the plan was compared with the size");
    let used = needed as u32;
    let info = info_sector((geometry.clusters() - needed) as u32, 2 + used);
    for copy in [0, BACKUP_SECTOR] {
        push(u64::from(copy) * SECTOR, Content::from_bytes(boot.encode()));
        push(u64::from(copy + INFO_SECTOR) * SECTOR, Content::from_bytes(info));
    }
    let clusters = plan.allocate(cluster_size);
    let table = plan.table(&clusters, cluster_size);
    for number in 0..FATS {
        push(geometry.fat_offset(number), Content::from_bytes(table.clone()));
    }
    for (index, cluster) in clusters.iter().enumerate() {
        push(geometry.cluster_offset(*cluster), plan.content(index, &clusters, &label));
    }
    Ok(segments.into_content())
}

fn label(text: &str) -> Result<[u8; 11], WriteError> {
    let allowed = |byte: u8| byte == b' ' || short_name(&char::from(byte).to_string()).is_some();
    if text.is_empty() || text.len() > 11 || text.starts_with(' ') || !text.bytes().all(allowed) {
        return Err(WriteError::Label(text.to_owned()));
    }
    let mut label = [b' '; 11];
    label[..text.len()].copy_from_slice(text.as_bytes());
    Ok(label)
}

/// The layout of a volume of `size` bytes: the largest clusters, up to a page, of which there are enough for FAT32.
fn geometry(size: u64) -> Result<Geometry, WriteError> {
    let refuse = || WriteError::VolumeSize(size);
    let sectors = u32::try_from(size / SECTOR).map_err(|_| refuse())?;
    if !size.is_multiple_of(SECTOR) {
        return Err(refuse());
    }
    [8u8, 4, 2, 1].into_iter().find_map(|cluster_sectors| with_clusters(sectors, cluster_sectors)).ok_or_else(refuse)
}

fn with_clusters(sectors: u32, cluster_sectors: u8) -> Option<Geometry> {
    // An upper bound, because the FATs take some of the sectors; a FAT slightly too large is allowed.
    let bound = (u64::from(sectors).checked_sub(RESERVED_SECTORS)?) / u64::from(cluster_sectors);
    let per_sector = SECTOR / 4 * u64::from(cluster_sectors) + u64::from(FATS);
    let fat_sectors = ((bound + 2) * u64::from(cluster_sectors)).div_ceil(per_sector);
    let data = (RESERVED_SECTORS + u64::from(FATS) * fat_sectors).next_multiple_of(DATA_ALIGNMENT_SECTORS);
    let geometry = Geometry {
        sectors,
        cluster_sectors,
        reserved_sectors: (data - u64::from(FATS) * fat_sectors) as u16,
        fats: FATS,
        fat_sectors: fat_sectors as u32,
        root: 2,
    };
    let enough = CLUSTERS_MIN + CLUSTERS_MARGIN..=CLUSTERS_MAX.min(fat_sectors * (SECTOR / 4) - 2);
    enough.contains(&geometry.clusters()).then_some(geometry)
}

/// What goes into the clusters: directories first, in the order of the tree, then files.
struct Plan<'a> {
    tree: &'a Tree,
    items: Vec<Item<'a>>,
}

struct Item<'a> {
    size: u64,
    mtime: Timestamp,
    body: Body<'a>,
}

enum Body<'a> {
    Directory { parent: Option<usize>, entries: Vec<Entry<'a>> },
    File(&'a Content),
}

struct Entry<'a> {
    name: &'a str,
    short: [u8; 11],
    item: usize,
}

impl<'a> Plan<'a> {
    fn new(tree: &'a Tree) -> Result<Self, WriteError> {
        let mut plan = Self { tree, items: Vec::new() };
        plan.collect(true)?;
        plan.collect(false)?;
        plan.link()?;
        Ok(plan)
    }

    /// Adds the directories, or the files, of the tree.
    fn collect(&mut self, directories: bool) -> Result<(), WriteError> {
        for (path, id) in self.tree.walk() {
            let node = self.tree.node(id);
            let (size, body) = match &node.kind {
                Kind::Directory(_) if directories => (0, Body::Directory { parent: None, entries: Vec::new() }),
                Kind::File(content) if !directories => (content.size(), Body::File(content)),
                Kind::Directory(_) | Kind::File(_) => continue,
                other => return Err(WriteError::Kind { path, kind: other.word() }),
            };
            if size > u64::from(u32::MAX) {
                return Err(WriteError::FileSize { path, size });
            }
            self.items.push(Item { size, mtime: node.metadata.mtime, body });
        }
        Ok(())
    }

    /// Fills the directories. A file with two names was added twice: FAT has no hard links.
    fn link(&mut self) -> Result<(), WriteError> {
        let is_directory = |id: NodeId| self.tree.entries(id).is_some();
        let walk = || self.tree.walk().map(|(path, id)| (path, id, is_directory(id)));
        let directories = walk().filter(|(.., directory)| *directory).count();
        let (mut next_directory, mut next_file) = (0..directories, directories..);
        let mut numbers = BTreeMap::new();
        for (path, _, directory) in walk() {
            let number = if directory { next_directory.next() } else { next_file.next() };
            numbers.insert(path, number.expect("both were counted in the same walk"));
        }
        for (path, id, _) in self.tree.walk().map(|(path, id)| (path, id, ())) {
            let Some(names) = self.tree.entries(id) else { continue };
            let below = |name: &[u8]| if path.is_empty() { name.to_vec() } else { [&path[..], b"/", name].concat() };
            let mut entries = named(names.keys().map(Vec::as_slice), &below)?;
            let number = numbers[&path];
            for entry in &mut entries {
                entry.item = numbers[&below(entry.name.as_bytes())];
                if let Body::Directory { parent, .. } = &mut self.items[entry.item].body {
                    *parent = Some(number);
                }
            }
            let own = if path.is_empty() { 1 } else { 2 };
            let size = (own + entries.iter().map(Entry::count).sum::<usize>()) * ENTRY;
            if size as u64 > DIRECTORY_MAX {
                return Err(WriteError::DirectorySize(path));
            }
            let item = &mut self.items[number];
            item.size = size as u64;
            if let Body::Directory { entries: place, .. } = &mut item.body {
                *place = entries;
            }
        }
        Ok(())
    }

    /// Clusters that everything takes.
    fn clusters(&self, cluster_size: u64) -> u64 {
        self.items.iter().map(|item| item.size.div_ceil(cluster_size)).sum()
    }

    /// The first cluster of each item; 2, without meaning, for empty files.
    fn allocate(&self, cluster_size: u64) -> Vec<u32> {
        let mut next = 2;
        let step = |item: &Item| {
            let first = next;
            next += item.size.div_ceil(cluster_size) as u32;
            first
        };
        self.items.iter().map(step).collect()
    }

    /// The bytes of a FAT up to its last cluster in use.
    fn table(&self, clusters: &[u32], cluster_size: u64) -> Vec<u8> {
        // Entry 0 repeats the media descriptor, entry 1 says "unmounted cleanly, no errors".
        let mut table = vec![0x0fff_fff8, END_OF_CHAIN];
        for (item, first) in self.items.iter().zip(clusters) {
            let count = item.size.div_ceil(cluster_size) as u32;
            table.extend(first + 1..first + count);
            table.extend((count > 0).then_some(END_OF_CHAIN));
        }
        table.into_iter().flat_map(u32::to_le_bytes).collect()
    }

    fn content(&self, index: usize, clusters: &[u32], label: &[u8; 11]) -> Content {
        match &self.items[index].body {
            Body::File(content) => (*content).clone(),
            Body::Directory { parent, entries } => {
                let mut bytes = Vec::with_capacity(self.items[index].size as usize);
                let mut record = |name: &[u8; 11], attributes: u8, cluster: u32, item: usize, size: u64| {
                    bytes.extend_from_slice(&self.record(name, attributes, cluster, item, size));
                };
                match parent {
                    None => record(label, attribute::VOLUME_LABEL, 0, index, 0),
                    Some(parent) => {
                        // The root is cluster 0 here, by the specification.
                        let above = if *parent == 0 { 0 } else { clusters[*parent] };
                        record(b".          ", attribute::DIRECTORY, clusters[index], index, 0);
                        record(b"..         ", attribute::DIRECTORY, above, *parent, 0);
                    }
                }
                for entry in entries {
                    bytes.extend(entry.long_name());
                    let item = &self.items[entry.item];
                    let (attributes, size) = match item.body {
                        Body::Directory { .. } => (attribute::DIRECTORY, 0),
                        Body::File(_) => (attribute::ARCHIVE, item.size),
                    };
                    let cluster = if item.size == 0 { 0 } else { clusters[entry.item] };
                    bytes.extend_from_slice(&self.record(&entry.short, attributes, cluster, entry.item, size));
                }
                Content::from_bytes(bytes)
            }
        }
    }

    /// A directory entry.
    fn record(&self, name: &[u8; 11], attributes: u8, cluster: u32, item: usize, size: u64) -> [u8; ENTRY] {
        let (date, time) = dos_time(self.items[item].mtime);
        let mut record = [0; ENTRY];
        record[..11].copy_from_slice(name);
        record[11] = attributes;
        record[14..16].copy_from_slice(&time.to_le_bytes());
        record[16..18].copy_from_slice(&date.to_le_bytes());
        record[18..20].copy_from_slice(&date.to_le_bytes());
        record[20..22].copy_from_slice(&cluster.to_le_bytes()[2..]);
        record[22..24].copy_from_slice(&time.to_le_bytes());
        record[24..26].copy_from_slice(&date.to_le_bytes());
        record[26..28].copy_from_slice(&cluster.to_le_bytes()[..2]);
        record[28..].copy_from_slice(&(size as u32).to_le_bytes());
        record
    }
}

impl Entry<'_> {
    /// Whether the short name is the name.
    fn is_short(&self) -> bool {
        short_name(self.name).is_some()
    }

    /// Directory entries that it takes.
    fn count(&self) -> usize {
        1 + if self.is_short() { 0 } else { self.name.encode_utf16().count().div_ceil(LONG_NAME_UNITS.len()) }
    }

    /// The pieces of the long name, last piece first, as they stand in front of the entry.
    fn long_name(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.is_short() {
            return bytes;
        }
        let units: Vec<u16> = self.name.encode_utf16().collect();
        let pieces = units.chunks(LONG_NAME_UNITS.len());
        let last = pieces.len();
        for (index, piece) in pieces.enumerate().rev() {
            let mut record = [0; ENTRY];
            let number = index as u8 + 1;
            record[0] = if index + 1 == last { number | 0x40 } else { number };
            record[11] = attribute::LONG_NAME;
            record[13] = short_name_checksum(&self.short);
            // One NUL behind the name, then 0xffff, unless the name fills the piece.
            let padded = piece.iter().copied().chain([0]).chain(std::iter::repeat(0xffff));
            for (offset, unit) in LONG_NAME_UNITS.into_iter().zip(padded) {
                record[offset..offset + 2].copy_from_slice(&unit.to_le_bytes());
            }
            bytes.extend_from_slice(&record);
        }
        bytes
    }
}

/// Gives each name of a directory its short name, unique among them.
fn named<'a>(
    names: impl Iterator<Item = &'a [u8]> + Clone,
    path: &dyn Fn(&[u8]) -> Vec<u8>,
) -> Result<Vec<Entry<'a>>, WriteError> {
    let text = |name: &'a [u8]| std::str::from_utf8(name).ok().filter(|name| is_long_name(name));
    let mut folded_names = BTreeSet::new();
    for name in names.clone() {
        let name = text(name).ok_or_else(|| WriteError::Name(path(name)))?;
        if !folded_names.insert(folded(name)) {
            return Err(WriteError::Duplicate(path(name.as_bytes())));
        }
    }
    let mut taken: BTreeSet<[u8; 11]> = names.clone().filter_map(text).filter_map(short_name).collect();
    let entry = |name: &'a str| {
        let short = short_name(name).unwrap_or_else(|| {
            let short = (1..).map(|number| numbered(name, number)).find(|short| !taken.contains(short));
            short.expect("a directory has fewer names than there are numbers")
        });
        taken.insert(short);
        Entry { name, short, item: 0 }
    };
    Ok(names.filter_map(text).map(entry).collect())
}

/// A short name for a long one: what is left of it in upper case, `~`, a number, and the extension.
fn numbered(name: &str, number: u32) -> [u8; 11] {
    let clean = |text: &str| -> Vec<u8> {
        let keep = text.chars().filter(|c| *c != ' ' && *c != '.');
        let upper = keep.map(|c| c.to_ascii_uppercase());
        upper.map(|c| if short_name(&c.to_string()).is_some() { c as u8 } else { b'_' }).collect()
    };
    let (base, extension) = match name.rfind('.') {
        Some(dot) if dot > 0 => (&name[..dot], &name[dot + 1..]),
        _ => (name, ""),
    };
    let (base, extension, tail) = (clean(base), clean(extension), format!("~{number}"));
    let keep = base.len().min(8 - tail.len().min(8));
    let mut short = [b' '; 11];
    short[..keep].copy_from_slice(&base[..keep]);
    short[keep..keep + tail.len()].copy_from_slice(tail.as_bytes());
    let keep = extension.len().min(3);
    short[8..8 + keep].copy_from_slice(&extension[..keep]);
    short
}
