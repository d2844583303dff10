//! A directory of the host as a [`Tree`]: hard links by inode, holes by `SEEK_DATA`, attributes as they are.
//!
//! Contents stay on disk ([`FileAt`]); the directory must not change while the tree is in use. Modes, owners and
//! attributes are what this process sees, so a scan of another user's ids belongs inside that user namespace.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Whence, lseek};

use super::{Content, DeviceNumber, FileAt, Kind, Metadata, Node, NodeId, Timestamp, Tree, TreeError};

/// Why a directory could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The host's file system refused.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name or type that no tree holds.
    #[error("cannot take {} into the tree", .path.display())]
    Tree {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TreeError,
    },
}

/// Reads the directory `root` and everything below it, without crossing into other file systems' mounts being
/// noticed: what is mounted there is part of the tree.
pub fn scan(root: &Path) -> Result<Tree, ScanError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| ScanError::Read { path, source }
    };
    let status = fs::metadata(root).map_err(read(root))?;
    let mut tree = Tree::new(metadata(root, &status).map_err(read(root))?);
    let mut links: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let mut stack = vec![Vec::new()];
    while let Some(directory) = stack.pop() {
        let host = root.join(OsStr::from_bytes(&directory));
        let mut names: Vec<_> = fs::read_dir(&host)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name().into_vec())).collect())
            .map_err(read(&host))?;
        names.sort();
        for name in names {
            let host = host.join(OsStr::from_bytes(&name));
            let mut path = directory.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            let status = fs::symlink_metadata(&host).map_err(read(&host))?;
            let refuse = |source| ScanError::Tree { path: host.clone(), source };
            let inode = (status.dev(), status.ino());
            if !status.is_dir() && status.nlink() > 1 {
                if let Some(first) = links.get(&inode) {
                    tree.link(first, &path).map_err(refuse)?;
                    continue;
                }
                links.insert(inode, path.clone());
            }
            let node = node(&host, &status).map_err(read(&host))?;
            tree.insert(&path, node).map_err(refuse)?;
            if status.is_dir() {
                stack.push(path);
            }
        }
    }
    debug_assert!(tree.entries(NodeId::ROOT).is_some());
    Ok(tree)
}

fn node(path: &Path, status: &fs::Metadata) -> io::Result<Node> {
    let device = || DeviceNumber { major: libc::major(status.rdev()), minor: libc::minor(status.rdev()) };
    let kind = match status.mode() & libc::S_IFMT {
        libc::S_IFDIR => Kind::directory(),
        libc::S_IFREG => Kind::File(content(path, status)?),
        libc::S_IFLNK => Kind::Symlink(fs::read_link(path)?.into_os_string().into_vec()),
        libc::S_IFCHR => Kind::CharacterDevice(device()),
        libc::S_IFBLK => Kind::BlockDevice(device()),
        libc::S_IFIFO => Kind::Fifo,
        _ => Kind::Socket,
    };
    Ok(Node { metadata: metadata(path, status)?, kind })
}

fn metadata(path: &Path, status: &fs::Metadata) -> io::Result<Metadata> {
    Ok(Metadata {
        mode: (status.mode() & 0o7777) as u16,
        uid: status.uid(),
        gid: status.gid(),
        mtime: Timestamp { seconds: status.mtime(), nanoseconds: status.mtime_nsec() as u32 },
        xattrs: xattrs(path)?,
    })
}

fn content(path: &Path, status: &fs::Metadata) -> io::Result<Content> {
    let content = Content::new(status.size(), Arc::new(FileAt(path.to_owned())), 0);
    // st_blocks counts units of 512 bytes; a file with all its blocks has no hole worth asking for.
    if status.blocks() * 512 >= status.size() {
        return Ok(content);
    }
    Ok(content.with_extents(data_ranges(&File::open(path)?, status.size())?))
}

fn data_ranges(file: &File, size: u64) -> io::Result<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    let mut position = 0;
    while position < size {
        let start = match lseek(file, position as i64, Whence::SeekData) {
            Ok(start) => start as u64,
            Err(Errno::ENXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = (lseek(file, start as i64, Whence::SeekHole)? as u64).min(size);
        ranges.push(start..end);
        position = end;
    }
    Ok(ranges)
}

/// All extended attributes of `path` itself, a symlink not followed.
fn xattrs(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let names = match crate::sys::list_xattrs(&path) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => return Ok(BTreeMap::new()),
        names => names?,
    };
    let mut attributes = BTreeMap::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let value = crate::sys::get_xattr(&path, &CString::new(name)?)?;
        attributes.insert(name.to_vec(), value);
    }
    Ok(attributes)
}
