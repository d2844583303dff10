//! What there is to write: each inode once, in tree order, with all that does not depend on where its data goes.

use std::collections::BTreeMap;

use super::WriteError;
use crate::filesystem::erofs::format::{self, DataLayout, Inode, encode_device};
use crate::filesystem::erofs::xattr::SharedXattrs;
use crate::tree::{Kind, NodeId, Tree};

/// One inode to be written.
#[derive(Debug)]
pub struct Item {
    /// Its node.
    pub id: NodeId,
    /// For a directory: position of its parent among the items; the root's is the root.
    pub parent: usize,
    /// The inode without size, layout and union (but for devices).
    pub inode: Inode,
}

/// All inodes.
#[derive(Debug)]
pub struct Survey<'a> {
    /// In the order in which a walk meets them; the root is the first.
    pub items: Vec<Item>,
    /// Position among the items by the node's index.
    pub position: Vec<usize>,
    /// Attributes of several files.
    pub shared: SharedXattrs<'a>,
    /// Time of all compact inodes: the most common one.
    pub epoch: (i64, u32),
}

impl<'a> Survey<'a> {
    /// Surveys `tree`.
    pub fn new(tree: &'a Tree) -> Result<Self, WriteError> {
        let links = tree.link_counts();
        let mut position = vec![usize::MAX; tree.capacity()];
        let mut items = Vec::new();
        let mut parents: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for (path, id) in tree.walk() {
            if position[id.index()] != usize::MAX {
                continue;
            }
            position[id.index()] = items.len();
            let parent = match tree.entries(id) {
                None => 0,
                Some(_) => {
                    let parent = crate::tree::split(&path).and_then(|(parent, _)| {
                        let parent = parent.strip_suffix(b"/").unwrap_or(parent);
                        parents.get(parent).copied()
                    });
                    parents.insert(path.clone(), items.len());
                    parent.unwrap_or(0)
                }
            };
            let inode = inode(tree, id, &path, links[id.index()], items.len())?;
            items.push(Item { id, parent, inode });
        }
        let mut survey = Self {
            shared: SharedXattrs::collect(items.iter().map(|item| &tree.node(item.id).metadata.xattrs)),
            epoch: most_common_time(&items),
            items,
            position,
        };
        survey.choose_sizes(tree)?;
        Ok(survey)
    }

    /// Decides which inodes are compact and how large their attributes are.
    fn choose_sizes(&mut self, tree: &Tree) -> Result<(), WriteError> {
        for item in &mut self.items {
            let xattrs = &tree.node(item.id).metadata.xattrs;
            let encoded = self
                .shared
                .encode(xattrs, 0)
                .map_err(|source| WriteError::Xattr { path: path_of(tree, item.id), source })?;
            item.inode.xattr_count =
                format::xattr_count(encoded.len()).ok_or_else(|| WriteError::Xattrs(path_of(tree, item.id)))?;
            item.inode.extended = !item.inode.fits_compact(self.epoch);
        }
        Ok(())
    }
}

/// The first name of a node, for messages.
pub fn path_of(tree: &Tree, id: NodeId) -> Vec<u8> {
    tree.walk().find(|(_, other)| *other == id).map(|(path, _)| path).unwrap_or_default()
}

fn inode(tree: &Tree, id: NodeId, path: &[u8], nlink: u32, number: usize) -> Result<Inode, WriteError> {
    let node = tree.node(id);
    let (size, union) = match &node.kind {
        Kind::File(content) => (content.size(), 0),
        Kind::Symlink(target) if target.is_empty() || target.len() > 4095 => {
            return Err(WriteError::Symlink(path.to_vec()));
        }
        Kind::Symlink(target) => (target.len() as u64, 0),
        Kind::CharacterDevice(device) | Kind::BlockDevice(device) => {
            let union = encode_device(device.major, device.minor).ok_or_else(|| WriteError::Device(path.to_vec()))?;
            (0, union)
        }
        Kind::Directory(_) | Kind::Fifo | Kind::Socket => (0, 0),
    };
    let metadata = &node.metadata;
    Ok(Inode {
        extended: true,
        layout: DataLayout::FlatPlain,
        xattr_count: 0,
        mode: node.kind.format_bits() | metadata.mode & 0o7777,
        size,
        union,
        number: number as u32 + 1,
        uid: metadata.uid,
        gid: metadata.gid,
        mtime: metadata.mtime.seconds,
        nanoseconds: metadata.mtime.nanoseconds,
        nlink,
    })
}

/// The time that most inodes have; the earliest of several.
fn most_common_time(items: &[Item]) -> (i64, u32) {
    let mut counts: BTreeMap<(i64, u32), usize> = BTreeMap::new();
    for item in items {
        *counts.entry((item.inode.mtime, item.inode.nanoseconds)).or_default() += 1;
    }
    let most = counts.values().copied().max().unwrap_or(0);
    counts.into_iter().find(|(_, count)| *count == most).map_or((0, 0), |(time, _)| time)
}
