//! Directories, and the walk over them that makes the tree.

use std::collections::HashMap;
use std::sync::Arc;

use super::inode::{self, Budget, Located};
use super::map::{self, Place};
use super::{Fault, Image, ReadError, content, corrupt};
use crate::filesystem::erofs::format::{self, DIRENT, DataLayout, SuperBlock, decode_device, u16_at, u64_at};
use crate::tree::{Content, DeviceNumber, Kind, Metadata, Node, NodeId, Timestamp, Tree};

/// Nested directories: each takes at least two bytes of a path, and Linux has none of more than 4096 bytes.
const DEPTH_MAX: usize = 2048;

/// One entry of a directory that is being read.
struct Entry {
    name: Vec<u8>,
    nid: u64,
    file_type: u8,
    /// Byte of the image where the entry stands.
    offset: u64,
}

/// A directory whose entries are to be read.
struct Pending {
    id: NodeId,
    nid: u64,
    parent: u64,
    located: Located,
    depth: usize,
    /// Bytes of its path.
    path: u64,
}

struct Walk<'a> {
    image: &'a Arc<Image>,
    super_block: &'a SuperBlock,
    budget: Budget,
    packed: Option<Content>,
    tree: Tree,
    /// Node, link count field and its offset by node number.
    seen: HashMap<u64, (NodeId, u32, u64)>,
    pending: Vec<Pending>,
}

/// The whole tree of an image.
pub(super) fn tree(image: &Arc<Image>, super_block: &SuperBlock) -> Result<Tree, ReadError> {
    let mut budget = Budget::new(image);
    let packed = packed(image, super_block, &mut budget)?;
    let root_at = format::SUPER_OFFSET + 14;
    let nid = u64::from(super_block.root_nid);
    let located = inode::read(image, super_block, nid, root_at)?;
    if located.inode.mode & 0o170_000 != 0o040_000 {
        return corrupt(located.offset + 4, Fault::InodeType(located.inode.mode & 0o170_000));
    }
    let metadata = metadata(image, super_block, &located, &mut budget)?;
    let mut walk = Walk {
        image,
        super_block,
        budget,
        packed,
        tree: Tree::new(metadata),
        seen: HashMap::from([(nid, links(NodeId::ROOT, &located))]),
        pending: vec![Pending { id: NodeId::ROOT, nid, parent: nid, located, depth: 0, path: 0 }],
    };
    while let Some(directory) = walk.pending.pop() {
        walk.read_directory(&directory)?;
    }
    walk.check_links()?;
    Ok(walk.tree)
}

fn packed(image: &Arc<Image>, super_block: &SuperBlock, budget: &mut Budget) -> Result<Option<Content>, ReadError> {
    if super_block.incompat & format::INCOMPAT_FRAGMENTS == 0 || super_block.packed_nid == 0 {
        return Ok(None);
    }
    let located = inode::read(image, super_block, super_block.packed_nid, format::SUPER_OFFSET + 96)?;
    let runs = map::runs(image, super_block, &located, budget)?;
    if runs.iter().any(|run| matches!(run.place, Place::Fragment(_))) {
        return corrupt(located.offset, Fault::Fragment);
    }
    Ok(Some(content::content(image, located.inode.size, runs, None)))
}

/// What is kept of an inode that was seen: its node, its link count, and where that stands.
fn links(id: NodeId, located: &Located) -> (NodeId, u32, u64) {
    (id, located.inode.nlink, located.offset + if located.inode.extended { 44 } else { 6 })
}

fn metadata(
    image: &Image,
    super_block: &SuperBlock,
    located: &Located,
    budget: &mut Budget,
) -> Result<Metadata, ReadError> {
    let inode = &located.inode;
    Ok(Metadata {
        mode: inode.mode & 0o7777,
        uid: inode.uid,
        gid: inode.gid,
        mtime: Timestamp { seconds: inode.mtime, nanoseconds: inode.nanoseconds },
        xattrs: inode::xattrs(image, super_block, located, budget)?,
    })
}

impl Walk<'_> {
    fn read_directory(&mut self, directory: &Pending) -> Result<(), ReadError> {
        let entries = self.entries(directory)?;
        let mut dots = 0;
        let mut previous: Option<&[u8]> = None;
        for entry in &entries {
            if previous.is_some_and(|previous| previous >= entry.name.as_slice()) {
                return corrupt(entry.offset, Fault::Order);
            }
            previous = Some(&entry.name);
            let expected = match entry.name.as_slice() {
                b"." => directory.nid,
                b".." => directory.parent,
                _ => {
                    self.add(directory, entry)?;
                    continue;
                }
            };
            if entry.nid != expected {
                return corrupt(entry.offset, Fault::Dots);
            }
            dots += 1;
        }
        if dots != 2 {
            return corrupt(directory.located.offset, Fault::Dots);
        }
        Ok(())
    }

    fn entries(&mut self, directory: &Pending) -> Result<Vec<Entry>, ReadError> {
        let located = &directory.located;
        let size = located.inode.size;
        self.budget.take(size, located.offset + 8)?;
        let runs = match located.inode.layout {
            DataLayout::FlatPlain | DataLayout::FlatInline => {
                map::runs(self.image, self.super_block, located, &mut self.budget)?
            }
            _ => return corrupt(located.offset, Fault::Layout),
        };
        let mut entries = Vec::new();
        for run in runs.iter() {
            let Place::Raw(offset) = run.place else {
                return corrupt(located.union_offset(), Fault::Layout);
            };
            let bytes = self.image.bytes(offset, run.length, located.union_offset(), "a directory")?;
            let block = self.image.block() as usize;
            for (number, bytes) in bytes.chunks(block).enumerate() {
                parse_block(bytes, offset + (number * block) as u64, &mut entries)?;
            }
        }
        Ok(entries)
    }

    fn add(&mut self, directory: &Pending, entry: &Entry) -> Result<(), ReadError> {
        let refuse = |_| ReadError::Corrupt { offset: entry.offset, fault: Fault::Name };
        let path = directory.path + 1 + entry.name.len() as u64;
        self.budget.take_path(path, entry.offset)?;
        if let Some((id, ..)) = self.seen.get(&entry.nid) {
            let known = self.tree.node(*id);
            if self.tree.entries(*id).is_some() {
                return corrupt(entry.offset, Fault::DirectoryLink);
            }
            if format::file_type(known.kind.format_bits()) != entry.file_type {
                return corrupt(entry.offset + 10, Fault::EntryType);
            }
            return self.tree.link_in(directory.id, &entry.name, *id).map_err(refuse);
        }
        let located = inode::read(self.image, self.super_block, entry.nid, entry.offset)?;
        if format::file_type(located.inode.mode) != entry.file_type {
            return corrupt(entry.offset + 10, Fault::EntryType);
        }
        let metadata = metadata(self.image, self.super_block, &located, &mut self.budget)?;
        let node = Node { metadata, kind: self.kind(&located)? };
        let is_directory = matches!(node.kind, Kind::Directory(_));
        let id = self.tree.insert_in(directory.id, &entry.name, node).map_err(refuse)?;
        self.seen.insert(entry.nid, links(id, &located));
        if is_directory {
            let depth = directory.depth + 1;
            if depth > DEPTH_MAX {
                return corrupt(entry.offset, Fault::Depth);
            }
            self.pending.push(Pending { id, nid: entry.nid, parent: directory.nid, located, depth, path });
        }
        Ok(())
    }

    fn kind(&mut self, located: &Located) -> Result<Kind, ReadError> {
        let inode = &located.inode;
        let device = || {
            let (major, minor) = decode_device(inode.union);
            DeviceNumber { major, minor }
        };
        Ok(match inode.mode >> 12 {
            0o01 => Kind::Fifo,
            0o02 => Kind::CharacterDevice(device()),
            0o04 => Kind::directory(),
            0o06 => Kind::BlockDevice(device()),
            0o10 => Kind::File(self.file(located)?),
            0o12 => Kind::Symlink(self.symlink(located)?),
            0o14 => Kind::Socket,
            _ => return corrupt(located.offset + 4, Fault::InodeType(inode.mode & 0o170_000)),
        })
    }

    fn file(&mut self, located: &Located) -> Result<Content, ReadError> {
        let runs = map::runs(self.image, self.super_block, located, &mut self.budget)?;
        let packed_size = self.packed.as_ref().map_or(0, Content::size);
        for run in runs.iter() {
            if let Place::Fragment(offset) = run.place
                && offset.checked_add(run.length).is_none_or(|end| end > packed_size)
            {
                return corrupt(located.end().next_multiple_of(8), Fault::Fragment);
            }
        }
        Ok(content::content(self.image, located.inode.size, runs, self.packed.as_ref()))
    }

    fn symlink(&mut self, located: &Located) -> Result<Vec<u8>, ReadError> {
        let size = located.inode.size;
        let wrong = || corrupt(located.offset + 8, Fault::Symlink(size));
        if !(1..=4095).contains(&size) {
            return wrong();
        }
        let content = self.file(located)?;
        let target = content.to_vec().map_err(|source| ReadError::Io { offset: located.offset, source })?;
        if target.contains(&0) { wrong() } else { Ok(target) }
    }

    /// Every inode's link count is the number of its names.
    fn check_links(&self) -> Result<(), ReadError> {
        let counts = self.tree.link_counts();
        let mut seen: Vec<_> = self.seen.values().collect();
        seen.sort_unstable_by_key(|(_, _, offset)| *offset);
        for (id, found, offset) in seen {
            let names = counts[id.index()];
            if names != *found {
                return corrupt(*offset, Fault::Links { found: *found, names });
            }
        }
        Ok(())
    }
}

/// Adds the entries of one directory block, which stands at `offset`.
fn parse_block(bytes: &[u8], offset: u64, entries: &mut Vec<Entry>) -> Result<(), ReadError> {
    let name_offset = |number: usize| usize::from(u16_at(bytes, number * DIRENT + 8));
    if bytes.len() < DIRENT {
        return corrupt(offset, Fault::Directory);
    }
    let names_start = name_offset(0);
    let count = names_start / DIRENT;
    if names_start % DIRENT != 0 || count == 0 || names_start > bytes.len() {
        return corrupt(offset + 8, Fault::Directory);
    }
    for number in 0..count {
        let at = number * DIRENT;
        let end = if number + 1 < count { name_offset(number + 1) } else { bytes.len() };
        let name = bytes.get(name_offset(number)..end).unwrap_or(&[]);
        // The last name of a block that is not the last is followed by zeros.
        let name = match name.iter().position(|byte| *byte == 0) {
            Some(length) if number + 1 == count => &name[..length],
            _ => name,
        };
        let entry_offset = offset + at as u64;
        if name.is_empty() {
            return corrupt(entry_offset + 8, Fault::Directory);
        }
        entries.push(Entry {
            name: name.to_vec(),
            nid: u64_at(bytes, at),
            file_type: bytes[at + 10],
            offset: entry_offset,
        });
    }
    Ok(())
}
