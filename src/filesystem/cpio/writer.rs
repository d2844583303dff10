//! Writes a tree as a newc archive. The layout is drawn in [`format`](super::format).

use std::io::{self, Read, Write};

use super::format::{Header, NAME_SIZE_MAX, TRAILER, padding};
use crate::tree::{Kind, Node, Tree, show};

/// Why a tree could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The format has a field too small for it.
    #[error("{path}: cpio cannot hold {what}", path = show(.path))]
    TooLarge {
        /// The file.
        path: Vec<u8>,
        /// What does not fit.
        what: &'static str,
    },
    /// The format has no place for extended attributes; leaving them out must be the caller's decision.
    #[error("{path}: cpio cannot hold extended attributes", path = show(.0))]
    Attributes(Vec<u8>),
    /// A file's bytes could not be read.
    #[error("cannot read {path}", path = show(.path))]
    Read {
        /// The file.
        path: Vec<u8>,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive could not be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

/// Writes every node of `tree` but its root directory, then the trailer.
///
/// The root is left out: the kernel has one already, whose mode an archive of an initrd must not change.
pub fn write(tree: &Tree, out: &mut dyn Write) -> Result<(), WriteError> {
    let mut left = tree.link_counts();
    let mut inodes = vec![0_u32; tree.capacity()];
    let mut counter = 0;
    let mut out = Counting { out, written: 0 };
    let links = left.clone();
    for (path, id) in tree.walk().filter(|(path, _)| !path.is_empty()) {
        let inode = &mut inodes[id.index()];
        if *inode == 0 {
            counter += 1;
            *inode = counter;
        }
        let left = &mut left[id.index()];
        *left = left.saturating_sub(1);
        let node = tree.node(id);
        let last = *left == 0 || matches!(node.kind, Kind::Directory(_));
        let header = header(&path, node, *inode, links[id.index()], last)?;
        out.member(header, &path, node, last)?;
    }
    let header = Header { links: 1, name_size: TRAILER.len() as u32 + 1, ..Header::default() };
    out.name(header, TRAILER)
}

fn header(path: &[u8], node: &Node, inode: u32, links: u32, with_data: bool) -> Result<Header, WriteError> {
    let too_large = |what| WriteError::TooLarge { path: path.to_vec(), what };
    let metadata = &node.metadata;
    if !metadata.xattrs.is_empty() {
        return Err(WriteError::Attributes(path.to_vec()));
    }
    if path.len() + 1 > NAME_SIZE_MAX {
        return Err(too_large("a path of 4096 bytes or more"));
    }
    let mut header = Header {
        inode,
        mode: u32::from(node.kind.format_bits()) | u32::from(metadata.mode),
        uid: metadata.uid,
        gid: metadata.gid,
        links,
        mtime: u32::try_from(metadata.mtime.seconds).map_err(|_| too_large("a time outside 1970 to 2106"))?,
        name_size: path.len() as u32 + 1,
        ..Header::default()
    };
    let size = match &node.kind {
        Kind::File(content) if with_data => content.size(),
        Kind::Symlink(target) => target.len() as u64,
        Kind::CharacterDevice(device) | Kind::BlockDevice(device) => {
            (header.device_major, header.device_minor) = (device.major, device.minor);
            0
        }
        _ => 0,
    };
    header.file_size = u32::try_from(size).map_err(|_| too_large("a file of 4 GiB or more"))?;
    Ok(header)
}

/// An output that knows how far it is, for the padding.
struct Counting<'a> {
    out: &'a mut dyn Write,
    written: u64,
}

impl Counting<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes).map_err(WriteError::Write)
    }

    fn pad(&mut self) -> Result<(), WriteError> {
        self.bytes(&[0; 3][..padding(self.written)])
    }

    fn name(&mut self, header: Header, name: &[u8]) -> Result<(), WriteError> {
        self.bytes(&header.to_bytes())?;
        self.bytes(name)?;
        self.bytes(&[0])?;
        self.pad()
    }

    fn member(&mut self, header: Header, path: &[u8], node: &Node, with_data: bool) -> Result<(), WriteError> {
        self.name(header, path)?;
        match &node.kind {
            Kind::File(content) if with_data => {
                let mut reader = content.reader();
                let mut buffer = vec![0; 128 * 1024];
                loop {
                    let count =
                        reader.read(&mut buffer).map_err(|source| WriteError::Read { path: path.to_vec(), source })?;
                    if count == 0 {
                        break;
                    }
                    self.bytes(&buffer[..count])?;
                }
            }
            Kind::Symlink(target) => self.bytes(target)?,
            _ => {}
        }
        self.pad()
    }
}
