//! A root file system as a value.
//!
//! Everything upstream makes a [`Tree`] (unpacked packages, the sandbox, a recipe's files, a reader of an image),
//! everything downstream takes one (file system writers, the initrd, the manifest). It is complete: type, mode,
//! owner, time, extended attributes, hard links, devices, holes. It is ordered: two equal trees walk alike.
//!
//! ```text
//! Tree ── nodes: Vec<Node>             node 0 is the root directory
//!          Node ── Metadata            mode, uid, gid, mtime, xattrs
//!               └─ Kind                Directory(name -> NodeId) | File(Content) | Symlink(target) | ...
//! ```
//!
//! Invariants: directories form a tree (a directory has one name); other nodes may have several names (hard
//! links); names are non-empty, at most 255 bytes, hold no `/` nor NUL and are not `.` or `..`. Paths are bytes
//! ([`TreePath`] is only an alias of `[u8]`), relative to the root; a leading `/` is accepted and ignored.
//! Nodes that lost their last name stay in the arena but no walk reaches them.

mod content;
pub mod dump;
mod scan;
mod segments;

pub use content::{Content, ContentReader, FileAt, ReadAt, first_nonzero};
pub use scan::{ScanError, scan};
pub use segments::Segments;

use std::collections::BTreeMap;

/// A path inside an image: bytes, relative to its root.
pub type TreePath = [u8];

/// `NAME_MAX` of Linux.
pub const NAME_MAX: usize = 255;

/// The name of a node within its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// The root directory of every tree.
    pub const ROOT: Self = Self(0);

    /// Position in the arena: `0..tree.capacity()`, for tables beside the tree.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Seconds and nanoseconds since 1970-01-01 00:00 UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Whole seconds, negative before 1970.
    pub seconds: i64,
    /// `0..1_000_000_000`.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// A whole second.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self { seconds, nanoseconds: 0 }
    }
}

/// What every node has besides its kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The lower twelve bits of `st_mode`: permissions, setuid, setgid, sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of the content.
    pub mtime: Timestamp,
    /// Full names (`security.capability`) to raw values, as `getxattr(2)` gives them.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Metadata {
    /// Owned by root, epoch time, no attributes.
    pub fn with_mode(mode: u16) -> Self {
        Self { mode, ..Self::default() }
    }
}

/// Major and minor number of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber {
    /// 12 bits.
    pub major: u32,
    /// 20 bits.
    pub minor: u32,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Names to nodes, in byte order.
    Directory(BTreeMap<Vec<u8>, NodeId>),
    /// A regular file.
    File(Content),
    /// The target, as `readlink(2)` gives it: 1 to 4095 bytes.
    Symlink(Vec<u8>),
    /// A character device.
    CharacterDevice(DeviceNumber),
    /// A block device.
    BlockDevice(DeviceNumber),
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
}

impl Kind {
    /// An empty directory.
    pub fn directory() -> Self {
        Self::Directory(BTreeMap::new())
    }

    /// The `S_IFMT` bits of `st_mode`.
    pub fn format_bits(&self) -> u16 {
        match self {
            Self::Fifo => 0o010000,
            Self::CharacterDevice(_) => 0o020000,
            Self::Directory(_) => 0o040000,
            Self::BlockDevice(_) => 0o060000,
            Self::File(_) => 0o100000,
            Self::Symlink(_) => 0o120000,
            Self::Socket => 0o140000,
        }
    }

    /// The word for it in messages and manifests.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Fifo => "fifo",
            Self::CharacterDevice(_) => "character device",
            Self::Directory(_) => "directory",
            Self::BlockDevice(_) => "block device",
            Self::File(_) => "file",
            Self::Symlink(_) => "symlink",
            Self::Socket => "socket",
        }
    }
}

/// One inode.
#[derive(Debug, Clone)]
pub struct Node {
    /// Mode, owner, time, attributes.
    pub metadata: Metadata,
    /// Type and what belongs to it.
    pub kind: Kind,
}

/// Why a tree could not be changed or read as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A component of the path does not exist.
    #[error("{path}: no such file or directory in the tree", path = show(.0))]
    NotFound(Vec<u8>),
    /// A component that should be a directory is something else.
    #[error("{path}: not a directory", path = show(.0))]
    NotADirectory(Vec<u8>),
    /// The name is taken.
    #[error("{path}: exists already", path = show(.0))]
    Exists(Vec<u8>),
    /// A name that no file system can hold, or `.` or `..`.
    #[error("{path}: not a valid path: components are 1 to 255 bytes, without NUL, not `.` or `..`", path = show(.0))]
    BadPath(Vec<u8>),
    /// A directory would get a second name.
    #[error("{path}: a directory cannot have a hard link", path = show(.0))]
    LinkToDirectory(Vec<u8>),
    /// Following symlinks did not end.
    #[error("{path}: too many levels of symbolic links", path = show(.0))]
    SymlinkLoop(Vec<u8>),
}

/// A path for people: `/` in front, and whatever is not printable UTF-8 escaped as in `\xff`.
pub fn show(path: &TreePath) -> String {
    let mut text = String::from(if path.starts_with(b"/") { "" } else { "/" });
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// A root file system.
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: Vec<Node>,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new(Metadata::with_mode(0o755))
    }
}

/// Symlinks followed before [`TreeError::SymlinkLoop`], as in Linux (`MAXSYMLINKS`).
const SYMLINKS_MAX: usize = 40;

impl Tree {
    /// A tree that is only a root directory.
    pub fn new(root: Metadata) -> Self {
        let root = Node { metadata: root, kind: Kind::directory() };
        Self { nodes: vec![root] }
    }

    /// Upper bound of [`NodeId::index`].
    pub fn capacity(&self) -> usize {
        self.nodes.len()
    }

    /// The node of that name.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// The node of that name, to change it. Its kind must stay a directory if it is one, else become none.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// The entries of a directory; `None` if it is none.
    pub fn entries(&self, id: NodeId) -> Option<&BTreeMap<Vec<u8>, NodeId>> {
        match &self.node(id).kind {
            Kind::Directory(entries) => Some(entries),
            _ => None,
        }
    }

    /// The node at `path`, without following any symlink.
    pub fn lookup(&self, path: &TreePath) -> Option<NodeId> {
        let mut id = NodeId::ROOT;
        for name in components(path) {
            id = *self.entries(id)?.get(name)?;
        }
        Some(id)
    }

    /// The node at `path`, symlinks followed as `chroot(2)` into the tree would, the last one too. The path that
    /// comes back has no symlink in it.
    pub fn resolve(&self, path: &TreePath) -> Result<(Vec<u8>, NodeId), TreeError> {
        self.resolve_with(path, true)
    }

    /// As [`Tree::resolve`], but a symlink at the end of the path is not followed.
    pub fn resolve_parent(&self, path: &TreePath) -> Result<(Vec<u8>, NodeId), TreeError> {
        self.resolve_with(path, false)
    }

    fn resolve_with(&self, path: &TreePath, follow_last: bool) -> Result<(Vec<u8>, NodeId), TreeError> {
        let mut pending: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
        let mut trail: Vec<(Vec<u8>, NodeId)> = Vec::new();
        let mut followed = 0;
        while let Some(name) = pending.pop() {
            if name == b".." {
                trail.pop();
                continue;
            }
            if name == b"." {
                continue;
            }
            let here = trail.last().map_or(NodeId::ROOT, |(_, id)| *id);
            let entries = self.entries(here).ok_or_else(|| TreeError::NotADirectory(path.to_vec()))?;
            let id = *entries.get(&name).ok_or_else(|| TreeError::NotFound(path.to_vec()))?;
            match &self.node(id).kind {
                Kind::Symlink(target) if follow_last || !pending.is_empty() => {
                    followed += 1;
                    if followed > SYMLINKS_MAX {
                        return Err(TreeError::SymlinkLoop(path.to_vec()));
                    }
                    if target.starts_with(b"/") {
                        trail.clear();
                    }
                    pending.extend(components(target).rev().map(<[u8]>::to_vec));
                }
                _ => trail.push((name, id)),
            }
        }
        let id = trail.last().map_or(NodeId::ROOT, |(_, id)| *id);
        let names: Vec<&[u8]> = trail.iter().map(|(name, _)| name.as_slice()).collect();
        Ok((names.join(&b'/'), id))
    }

    /// Adds `node` at `path`, whose parent must be a directory (symlinks not followed) without that name.
    pub fn insert(&mut self, path: &TreePath, node: Node) -> Result<NodeId, TreeError> {
        let (parent, name) = self.vacancy(path)?;
        let id = self.add(node);
        self.attach(parent, name, id);
        Ok(id)
    }

    /// Adds `node` to the directory `parent` under `name`. As [`Tree::insert`], for those who know the parent.
    pub fn insert_in(&mut self, parent: NodeId, name: &[u8], node: Node) -> Result<NodeId, TreeError> {
        self.check_vacancy(parent, name, name)?;
        let id = self.add(node);
        self.attach(parent, name.to_vec(), id);
        Ok(id)
    }

    /// Gives `existing`, which is no directory, a further name in the directory `parent`.
    pub fn link_in(&mut self, parent: NodeId, name: &[u8], existing: NodeId) -> Result<(), TreeError> {
        if self.entries(existing).is_some() {
            return Err(TreeError::LinkToDirectory(name.to_vec()));
        }
        self.check_vacancy(parent, name, name)?;
        self.attach(parent, name.to_vec(), existing);
        Ok(())
    }

    /// Adds `node` at `path`, in place of a file of that name if there is one. A directory is never replaced.
    pub fn replace(&mut self, path: &TreePath, node: Node) -> Result<NodeId, TreeError> {
        if let Some(old) = self.lookup(path) {
            if self.entries(old).is_some() {
                return Err(TreeError::Exists(path.to_vec()));
            }
            self.remove(path)?;
        }
        self.insert(path, node)
    }

    /// Makes the directories of `path` that are missing, each with `metadata`; symlinks not followed.
    pub fn make_directories(&mut self, path: &TreePath, metadata: &Metadata) -> Result<NodeId, TreeError> {
        let mut here = NodeId::ROOT;
        for name in components(path) {
            check_name(name, path)?;
            let entries = self.entries(here).ok_or_else(|| TreeError::NotADirectory(path.to_vec()))?;
            here = match entries.get(name) {
                Some(id) => *id,
                None => {
                    let id = self.add(Node { metadata: metadata.clone(), kind: Kind::directory() });
                    self.attach(here, name.to_vec(), id);
                    id
                }
            };
        }
        match self.entries(here) {
            Some(_) => Ok(here),
            None => Err(TreeError::NotADirectory(path.to_vec())),
        }
    }

    /// Gives the node at `existing` a further name.
    pub fn link(&mut self, existing: &TreePath, path: &TreePath) -> Result<(), TreeError> {
        let id = self.lookup(existing).ok_or_else(|| TreeError::NotFound(existing.to_vec()))?;
        if self.entries(id).is_some() {
            return Err(TreeError::LinkToDirectory(existing.to_vec()));
        }
        let (parent, name) = self.vacancy(path)?;
        self.attach(parent, name, id);
        Ok(())
    }

    /// Takes away the name at `path`, with everything below it. The root stays.
    pub fn remove(&mut self, path: &TreePath) -> Result<NodeId, TreeError> {
        let (parent, name) = split(path).ok_or_else(|| TreeError::BadPath(path.to_vec()))?;
        let parent = self.lookup(parent).ok_or_else(|| TreeError::NotFound(path.to_vec()))?;
        match &mut self.nodes[parent.index()].kind {
            Kind::Directory(entries) => entries.remove(name).ok_or_else(|| TreeError::NotFound(path.to_vec())),
            _ => Err(TreeError::NotADirectory(path.to_vec())),
        }
    }

    /// Every name in the tree with its node: parents before children, names in byte order, the root first with an
    /// empty path. A node with several names comes several times.
    pub fn walk(&self) -> Walk<'_> {
        Walk { tree: self, stack: vec![(Vec::new(), NodeId::ROOT)] }
    }

    /// `st_nlink` of every node by its index: names for files, 2 + subdirectories for directories; 0 if no walk
    /// reaches it.
    pub fn link_counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.nodes.len()];
        for (_, id) in self.walk() {
            counts[id.index()] += 1;
            if let Some(entries) = self.entries(id) {
                let is_directory = |id: &&NodeId| self.entries(**id).is_some();
                counts[id.index()] = 2 + entries.values().filter(is_directory).count() as u32;
            }
        }
        counts
    }

    fn add(&mut self, node: Node) -> NodeId {
        let id = NodeId(u32::try_from(self.nodes.len()).expect("fewer than 2^32 nodes: each takes more than a byte"));
        self.nodes.push(node);
        id
    }

    fn attach(&mut self, parent: NodeId, name: Vec<u8>, id: NodeId) {
        if let Kind::Directory(entries) = &mut self.nodes[parent.index()].kind {
            entries.insert(name, id);
        }
    }

    fn vacancy(&self, path: &TreePath) -> Result<(NodeId, Vec<u8>), TreeError> {
        let (parent, name) = split(path).ok_or_else(|| TreeError::BadPath(path.to_vec()))?;
        let id = self.lookup(parent).ok_or_else(|| TreeError::NotFound(parent.to_vec()))?;
        if self.entries(id).is_none() {
            return Err(TreeError::NotADirectory(parent.to_vec()));
        }
        self.check_vacancy(id, name, path)?;
        Ok((id, name.to_vec()))
    }

    /// Whether the directory `parent` can take `name`; `path` is for the error.
    fn check_vacancy(&self, parent: NodeId, name: &[u8], path: &TreePath) -> Result<(), TreeError> {
        check_name(name, path)?;
        match self.entries(parent) {
            None => Err(TreeError::NotADirectory(path.to_vec())),
            Some(entries) if entries.contains_key(name) => Err(TreeError::Exists(path.to_vec())),
            Some(_) => Ok(()),
        }
    }
}

/// The non-empty components of a path; `.` and `..` are not interpreted.
pub fn components(path: &TreePath) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

/// Parent and last component of a path; `None` for the root.
pub fn split(path: &TreePath) -> Option<(&TreePath, &[u8])> {
    let end = path.iter().rposition(|byte| *byte != b'/')? + 1;
    let path = &path[..end];
    let start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    Some((&path[..start], &path[start..]))
}

fn check_name(name: &[u8], path: &TreePath) -> Result<(), TreeError> {
    let forbidden = |byte: &u8| *byte == 0 || *byte == b'/';
    let bad = name.is_empty() || name == b"." || name == b".." || name.len() > NAME_MAX || name.iter().any(forbidden);
    if bad {
        return Err(TreeError::BadPath(path.to_vec()));
    }
    Ok(())
}

/// See [`Tree::walk`].
pub struct Walk<'a> {
    tree: &'a Tree,
    stack: Vec<(Vec<u8>, NodeId)>,
}

impl Iterator for Walk<'_> {
    type Item = (Vec<u8>, NodeId);

    fn next(&mut self) -> Option<Self::Item> {
        let (path, id) = self.stack.pop()?;
        if let Some(entries) = self.tree.entries(id) {
            for (name, child) in entries.iter().rev() {
                let mut below = Vec::with_capacity(path.len() + 1 + name.len());
                below.extend_from_slice(&path);
                if !path.is_empty() {
                    below.push(b'/');
                }
                below.extend_from_slice(name);
                self.stack.push((below, *child));
            }
        }
        Some((path, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Node {
        Node { metadata: Metadata::with_mode(0o644), kind: Kind::File(Content::from_bytes(text)) }
    }

    fn symlink(target: &str) -> Node {
        Node { metadata: Metadata::with_mode(0o777), kind: Kind::Symlink(target.into()) }
    }

    #[test]
    fn walks_parents_first_and_names_in_byte_order() {
        let mut tree = Tree::default();
        tree.make_directories(b"b/c", &Metadata::with_mode(0o755)).unwrap();
        tree.insert(b"a", file("")).unwrap();
        tree.insert(b"b/B", file("")).unwrap();
        tree.link(b"a", b"b/c/link").unwrap();
        let paths: Vec<_> = tree.walk().map(|(path, _)| String::from_utf8(path).unwrap()).collect();
        assert_eq!(paths, ["", "a", "b", "b/B", "b/c", "b/c/link"]);
        let counts = tree.link_counts();
        assert_eq!(counts[tree.lookup(b"/a").unwrap().index()], 2);
        assert_eq!(counts[NodeId::ROOT.index()], 3);
    }

    #[test]
    fn resolves_symlinks_within_the_root() {
        let mut tree = Tree::default();
        tree.make_directories(b"usr/bin", &Metadata::with_mode(0o755)).unwrap();
        tree.insert(b"bin", symlink("usr/bin")).unwrap();
        tree.insert(b"usr/bin/sh", symlink("/../../bin/dash")).unwrap();
        tree.insert(b"usr/bin/dash", file("")).unwrap();
        tree.insert(b"loop", symlink("loop")).unwrap();
        assert_eq!(tree.resolve(b"/bin/sh").unwrap().0, b"usr/bin/dash");
        assert_eq!(tree.resolve_parent(b"/bin/sh").unwrap().0, b"usr/bin/sh");
        assert_eq!(tree.resolve(b"loop"), Err(TreeError::SymlinkLoop(b"loop".to_vec())));
        assert_eq!(tree.resolve(b"nope"), Err(TreeError::NotFound(b"nope".to_vec())));
    }

    #[test]
    fn refuses_names_that_no_file_system_holds() {
        let mut tree = Tree::default();
        for path in [&b".."[..], b"a\0b", b"/", &[b'n'; 256]] {
            assert_eq!(tree.insert(path, file("")), Err(TreeError::BadPath(path.to_vec())));
        }
        assert!(tree.insert(&[b'n'; 255], file("")).is_ok());
    }

    #[test]
    fn a_known_parent_takes_names_as_a_path_does() {
        let mut tree = Tree::default();
        let id = tree.insert_in(NodeId::ROOT, b"f", file("1")).unwrap();
        tree.link_in(NodeId::ROOT, b"g", id).unwrap();
        assert_eq!(tree.lookup(b"g"), Some(id));
        assert_eq!(tree.insert_in(NodeId::ROOT, b"g", file("2")), Err(TreeError::Exists(b"g".to_vec())));
        assert_eq!(tree.insert_in(NodeId::ROOT, b"a/b", file("2")), Err(TreeError::BadPath(b"a/b".to_vec())));
        assert_eq!(tree.insert_in(id, b"a", file("2")), Err(TreeError::NotADirectory(b"a".to_vec())));
        assert_eq!(tree.link_in(NodeId::ROOT, b"r", NodeId::ROOT), Err(TreeError::LinkToDirectory(b"r".to_vec())));
    }

    #[test]
    fn a_name_is_taken_once_and_directories_have_one_name() {
        let mut tree = Tree::default();
        tree.make_directories(b"d", &Metadata::with_mode(0o755)).unwrap();
        tree.insert(b"f", file("1")).unwrap();
        assert_eq!(tree.insert(b"f", file("2")), Err(TreeError::Exists(b"f".to_vec())));
        assert!(tree.replace(b"f", file("2")).is_ok());
        assert_eq!(tree.replace(b"d", file("2")), Err(TreeError::Exists(b"d".to_vec())));
        assert_eq!(tree.link(b"d", b"e"), Err(TreeError::LinkToDirectory(b"d".to_vec())));
    }

    #[test]
    fn shows_paths_that_are_not_text() {
        assert_eq!(show(b"a/\xff\n\\"), "/a/\\xff\\n\\\\");
    }
}
