//! Reads newc archives into a tree, as the kernel would unpack them.
//!
//! Several archives may stand behind each other, with zeros between them (an initrd may be put together so); a later
//! member replaces an earlier one of its name. Contents stay where they are: the tree refers to the archive's bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::format::{HEADER_SIZE, Header, NAME_SIZE_MAX, TRAILER, padding};
use crate::tree::{Content, DeviceNumber, Kind, Metadata, Node, ReadAt, Timestamp, Tree, TreeError};

/// Why bytes are no archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No header where one must be.
    #[error("offset {offset}: no cpio header (newc) here")]
    Header {
        /// In bytes from the start.
        offset: usize,
    },
    /// The archive ends within a member, or before its trailer.
    #[error("offset {offset}: the cpio archive ends here, within {within}")]
    Truncated {
        /// In bytes from the start.
        offset: usize,
        /// What is incomplete.
        within: &'static str,
    },
    /// A name that is empty, too long or not ended by NUL.
    #[error("offset {offset}: a member without a proper name")]
    Name {
        /// Of the member's header, in bytes from the start.
        offset: usize,
    },
    /// A mode that says no type of file.
    #[error("offset {offset}: a member with mode {mode:o}, which no file has")]
    Mode {
        /// Of the member's header, in bytes from the start.
        offset: usize,
        /// `st_mode` as found.
        mode: u32,
    },
    /// The member has no place in the tree.
    #[error("offset {offset}: a member that cannot be unpacked")]
    Tree {
        /// Of the member's header, in bytes from the start.
        offset: usize,
        /// Why.
        #[source]
        source: TreeError,
    },
}

/// The tree that the kernel would unpack from `archive`.
pub fn read(archive: Arc<Vec<u8>>) -> Result<Tree, ReadError> {
    let mut reader = Reader { source: archive.clone(), archive: &archive, position: 0, inodes: BTreeMap::new() };
    let mut tree = Tree::default();
    loop {
        match reader.member()? {
            Some(member) => reader.unpack(member, &mut tree)?,
            None => {
                reader.inodes.clear();
                reader.skip_zeros();
                if reader.position == archive.len() {
                    return Ok(tree);
                }
            }
        }
    }
}

struct Member {
    offset: usize,
    header: Header,
    name: Vec<u8>,
    data: usize,
}

struct Reader<'a> {
    archive: &'a [u8],
    source: Arc<dyn ReadAt>,
    position: usize,
    /// First name of each inode number with several members.
    inodes: BTreeMap<u32, Vec<u8>>,
}

impl Reader<'_> {
    /// The next member; `None` for the trailer.
    fn member(&mut self) -> Result<Option<Member>, ReadError> {
        let offset = self.position;
        let header = self.take(HEADER_SIZE, "a header")?;
        let header = header.try_into().ok().and_then(Header::from_bytes).ok_or(ReadError::Header { offset })?;
        let size = header.name_size as usize;
        if size > NAME_SIZE_MAX {
            return Err(ReadError::Name { offset });
        }
        let Some((0, name)) = self.take(size, "a name")?.split_last() else {
            return Err(ReadError::Name { offset });
        };
        let name = name.to_vec();
        self.pad()?;
        let data = self.position;
        self.take(header.file_size as usize, "a member's data")?;
        if name == TRAILER {
            return Ok(None);
        }
        self.pad()?;
        Ok(Some(Member { offset, header, name, data }))
    }

    fn unpack(&mut self, member: Member, tree: &mut Tree) -> Result<(), ReadError> {
        let Member { offset, header, name, data } = member;
        let refuse = |source| ReadError::Tree { offset, source };
        let kind = self.kind(offset, &header, data)?;
        let metadata = Metadata {
            mode: (header.mode & 0o7777) as u16,
            uid: header.uid,
            gid: header.gid,
            mtime: Timestamp::from_seconds(header.mtime.into()),
            xattrs: BTreeMap::new(),
        };
        let node = Node { metadata, kind };
        if let Kind::Directory(_) = node.kind {
            let id = tree.make_directories(&name, &node.metadata).map_err(refuse)?;
            tree.node_mut(id).metadata = node.metadata;
            return Ok(());
        }
        if header.links < 2 {
            tree.replace(&name, node).map_err(refuse)?;
            return Ok(());
        }
        let Some(first) = self.inodes.get(&header.inode).and_then(|first| tree.lookup(first).map(|id| (first, id)))
        else {
            tree.replace(&name, node).map_err(refuse)?;
            self.inodes.insert(header.inode, name);
            return Ok(());
        };
        let (first, id) = first;
        if first != &name {
            if tree.lookup(&name).is_some_and(|old| tree.entries(old).is_none()) {
                tree.remove(&name).map_err(refuse)?;
            }
            tree.link(first, &name).map_err(refuse)?;
        }
        if header.file_size > 0 {
            *tree.node_mut(id) = node;
        }
        Ok(())
    }

    fn kind(&self, offset: usize, header: &Header, data: usize) -> Result<Kind, ReadError> {
        let device = DeviceNumber { major: header.device_major, minor: header.device_minor };
        Ok(match header.mode & 0o170_000 {
            0o010_000 => Kind::Fifo,
            0o020_000 => Kind::CharacterDevice(device),
            0o040_000 => Kind::directory(),
            0o060_000 => Kind::BlockDevice(device),
            0o100_000 => Kind::File(Content::new(header.file_size.into(), self.source.clone(), data as u64)),
            0o120_000 => Kind::Symlink(self.archive[data..data + header.file_size as usize].to_vec()),
            0o140_000 => Kind::Socket,
            _ => return Err(ReadError::Mode { offset, mode: header.mode }),
        })
    }

    fn take(&mut self, count: usize, within: &'static str) -> Result<&[u8], ReadError> {
        let end = self.position.checked_add(count).filter(|end| *end <= self.archive.len());
        let end = end.ok_or(ReadError::Truncated { offset: self.archive.len(), within })?;
        let bytes = &self.archive[self.position..end];
        self.position = end;
        Ok(bytes)
    }

    fn pad(&mut self) -> Result<(), ReadError> {
        self.take(padding(self.position as u64), "padding").map(|_| ())
    }

    fn skip_zeros(&mut self) {
        let rest = &self.archive[self.position..];
        self.position += rest.iter().position(|byte| *byte != 0).unwrap_or(rest.len());
    }
}

#[cfg(test)]
mod tests {
    use super::super::write;
    use super::*;

    fn sample() -> Tree {
        let mut tree = Tree::default();
        let file =
            |text: &str| Node { metadata: Metadata::with_mode(0o640), kind: Kind::File(Content::from_bytes(text)) };
        tree.make_directories(b"usr/bin", &Metadata::with_mode(0o755)).unwrap();
        tree.insert(b"usr/bin/tool", file("twelve bytes")).unwrap();
        tree.link(b"usr/bin/tool", b"usr/again").unwrap();
        tree.insert(b"usr/empty", file("")).unwrap();
        let link = Node { metadata: Metadata::with_mode(0o777), kind: Kind::Symlink(b"usr/bin".to_vec()) };
        tree.insert(b"bin", link).unwrap();
        let console = Kind::CharacterDevice(DeviceNumber { major: 5, minor: 1 });
        tree.make_directories(b"dev", &Metadata::with_mode(0o755)).unwrap();
        tree.insert(b"dev/console", Node { metadata: Metadata::with_mode(0o600), kind: console }).unwrap();
        tree
    }

    fn dump(tree: &Tree) -> Vec<String> {
        tree.walk()
            .map(|(path, id)| {
                let node = tree.node(id);
                let what = match &node.kind {
                    Kind::File(content) => format!("{:?}", String::from_utf8(content.to_vec().unwrap()).unwrap()),
                    Kind::Symlink(target) => format!("-> {}", String::from_utf8_lossy(target)),
                    Kind::CharacterDevice(device) => format!("{device:?}"),
                    kind => kind.word().to_owned(),
                };
                format!("{} {:o} {} #{}", String::from_utf8_lossy(&path), node.metadata.mode, what, id.index() > 0)
            })
            .collect()
    }

    fn archive(tree: &Tree) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(tree, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn reads_what_was_written() {
        let tree = sample();
        let back = read(Arc::new(archive(&tree))).unwrap();
        assert_eq!(dump(&back), dump(&tree));
        assert_eq!(back.lookup(b"usr/again"), back.lookup(b"usr/bin/tool"));
        assert_eq!(archive(&back), archive(&tree));
    }

    #[test]
    fn a_later_archive_replaces_files_of_an_earlier_one() {
        let mut bytes = archive(&sample());
        bytes.extend([0; 512]);
        let mut second = Tree::default();
        let node = Node { metadata: Metadata::with_mode(0o600), kind: Kind::File(Content::from_bytes("new")) };
        second.insert(b"bin", node).unwrap();
        bytes.extend(archive(&second));
        let tree = read(Arc::new(bytes)).unwrap();
        let Kind::File(content) = &tree.node(tree.lookup(b"bin").unwrap()).kind else { panic!("not a file") };
        assert_eq!(content.to_vec().unwrap(), b"new");
        assert!(tree.lookup(b"usr/bin/tool").is_some());
    }

    #[test]
    fn refuses_an_archive_without_its_end() {
        let bytes = archive(&sample());
        for length in (0..bytes.len()).step_by(7) {
            let error = read(Arc::new(bytes[..length].to_vec())).unwrap_err();
            assert!(matches!(error, ReadError::Truncated { .. }), "{length}: {error:?}");
        }
    }

    #[test]
    fn refuses_attributes_that_the_format_cannot_hold() {
        let mut tree = sample();
        let id = tree.lookup(b"usr/empty").unwrap();
        tree.node_mut(id).metadata.xattrs.insert(b"user.x".to_vec(), b"1".to_vec());
        let error = write(&tree, &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "/usr/empty: cpio cannot hold extended attributes");
    }

    #[test]
    fn mutated_archives_never_panic() {
        let bytes = archive(&sample());
        // Every byte set to values that matter in a header: digits, NUL, letters that are no digits, high bits.
        for offset in 0..bytes.len() {
            for value in [0, b'0', b'7', b'f', b'/', b'.', 0xff] {
                let mut mutated = bytes.clone();
                mutated[offset] = value;
                if let Ok(tree) = read(Arc::new(mutated)) {
                    for (_, id) in tree.walk() {
                        if let Kind::File(content) = &tree.node(id).kind {
                            content.to_vec().unwrap();
                        }
                    }
                }
            }
        }
    }
}
