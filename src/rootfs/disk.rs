//! A tree on the host's disk: one file at a time, never outside a root directory.
//!
//! [`Root`] opens directories with `openat2(RESOLVE_IN_ROOT)`: symlinks in the tree, absolute ones too, resolve within
//! it, whoever put them there. [`materialise`] writes a whole [`Tree`] for programs of the host to run from.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};
use rayon::prelude::*;

use crate::tree::{Content, Kind, NodeId, Timestamp, Tree, TreePath, show, split};

/// Why a tree could not be written to disk.
#[derive(Debug, thiserror::Error)]
pub enum MaterialiseError {
    /// The directory cannot be made or opened.
    #[error("cannot use {} as the root of a tree", .path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be made.
    #[error("cannot write {} below {}", show(.path), .root.display())]
    Write {
        /// The directory.
        root: PathBuf,
        /// Path within the tree.
        path: Vec<u8>,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A directory of the host that is the root of a tree.
pub(super) struct Root(OwnedFd);

impl Root {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(File::open(path)?.into()))
    }

    /// The directory at `path`, symlinks resolved within the root.
    pub(super) fn directory(&self, path: &TreePath) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let how = OpenHow::new()
            .flags(OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        Ok(openat2(&self.0, path, how)?)
    }

    /// The file at `path` for reading, symlinks resolved within the root.
    pub(super) fn file(&self, path: &TreePath) -> io::Result<File> {
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        Ok(openat2(&self.0, path, how)?.into())
    }

    /// All bytes of the file at `path`; none if there is no such file.
    pub(super) fn read(&self, path: &TreePath) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.file(path) {
            Ok(mut file) => io::Read::read_to_end(&mut file, &mut bytes).map(|_| bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(bytes),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file at `path` with `bytes`; directories that are missing are made.
    pub(super) fn write(&self, path: &TreePath, bytes: &[u8], mode: u16) -> io::Result<()> {
        let (parent, name) = split(path).ok_or(io::ErrorKind::InvalidInput)?;
        self.make_directories(parent)?;
        let directory = self.directory(parent)?;
        remove_file(&directory, name)?;
        let mut file = create(&directory, name)?;
        file.write_all(bytes)?;
        set_mode(&file, mode)
    }

    /// Adds `bytes` at the end of the file at `path`, which is made if it is missing.
    pub(super) fn append(&self, path: &TreePath, bytes: &[u8]) -> io::Result<()> {
        let old = self.read(path)?;
        self.write(path, &[&old, bytes].concat(), 0o644)
    }

    /// Makes a symlink at the top.
    pub(super) fn symlink(&self, name: &str, target: &str) -> io::Result<()> {
        Ok(symlinkat(target, &self.0, name)?)
    }

    /// Makes the directories of `path` that are missing, with mode 755.
    pub(super) fn make_directories(&self, path: &TreePath) -> io::Result<()> {
        match self.directory(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other.map(drop),
        }
        let (parent, name) = split(path).ok_or(io::ErrorKind::NotFound)?;
        self.make_directories(parent)?;
        let directory = self.directory(parent)?;
        match mkdirat(&directory, name, Mode::from_bits_truncate(0o755)) {
            // Another thread needed it, too.
            Err(nix::errno::Errno::EEXIST) => return self.directory(path).map(drop),
            made => made?,
        }
        fchmodat(&directory, name, Mode::from_bits_truncate(0o755), FchmodatFlags::FollowSymlink)?;
        Ok(())
    }

    /// The directory at `path`, made with mode 755 where no package ships it.
    pub(super) fn directory_or_make(&self, path: &TreePath) -> io::Result<OwnedFd> {
        match self.directory(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_directories(path)?;
                self.directory(path)
            }
            other => other,
        }
    }
}

/// A new file in `directory`, writable by its owner only.
pub(super) fn create(directory: &OwnedFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(directory, name, flags, Mode::from_bits_truncate(0o600))?.into())
}

/// Takes the name away if a file has it.
pub(super) fn remove_file(directory: &OwnedFd, name: &[u8]) -> io::Result<()> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Err(nix::errno::Errno::ENOENT) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Copies the data of `content`; its holes stay holes.
pub(super) fn write_content(file: &mut File, content: &Content, buffer: &mut Vec<u8>) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    // Most files are small; a large buffer would be cleared for nothing.
    let wanted = content.size().min(1 << 18) as usize;
    if buffer.len() < wanted {
        buffer.resize(wanted, 0);
    }
    file.set_len(content.size())?;
    for extent in content.extents() {
        let mut position = extent.start;
        while position < extent.end {
            let count = (extent.end - position).min(buffer.len() as u64) as usize;
            content.read_exact_at(&mut buffer[..count], position)?;
            file.write_all_at(&buffer[..count], position)?;
            position += count as u64;
        }
    }
    Ok(())
}

/// Sets the permission bits whatever the umask is.
pub(super) fn set_mode(file: impl AsFd, mode: u16) -> io::Result<()> {
    Ok(nix::sys::stat::fchmod(file, Mode::from_bits_truncate(u32::from(mode)))?)
}

/// Sets the time of the last change of a file, a symlink not followed.
pub(super) fn set_time(directory: &OwnedFd, name: &[u8], time: Timestamp) -> io::Result<()> {
    let time = TimeSpec::new(time.seconds, i64::from(time.nanoseconds));
    Ok(utimensat(directory, name, &time, &time, UtimensatFlags::NoFollowSymlink)?)
}

/// Whether `name` in `directory` is a directory itself.
pub(super) fn is_directory(directory: &OwnedFd, name: &[u8]) -> bool {
    fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .is_ok_and(|status| SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

/// Writes `tree` into the new directory `directory`, as an ordinary user can: everything belongs to the caller,
/// set-id bits are dropped, directories can be entered and removed by their owner, devices and sockets are left out,
/// extended attributes too. Contents, hard links, symlinks, permissions and times of files are kept.
pub fn materialise(tree: &Tree, directory: &Path) -> Result<(), MaterialiseError> {
    let at_root = |source| MaterialiseError::Root { path: directory.to_owned(), source };
    std::fs::create_dir(directory).map_err(at_root)?;
    let root = Root::open(directory).map_err(at_root)?;
    let mut first_names: Vec<Option<Vec<u8>>> = vec![None; tree.capacity()];
    let (mut directories, mut files, mut links) = (Vec::new(), Vec::new(), Vec::new());
    for (path, id) in tree.walk().skip(1) {
        match (&tree.node(id).kind, &first_names[id.index()]) {
            (Kind::Directory(_), _) => directories.push((path, id)),
            (_, Some(first)) => links.push((first.clone(), path)),
            _ => {
                first_names[id.index()] = Some(path.clone());
                files.push((path, id));
            }
        }
    }
    let at = |path: &[u8]| {
        let (root, path) = (directory.to_owned(), path.to_vec());
        move |source| MaterialiseError::Write { root, path, source }
    };
    for (path, _) in &directories {
        root.make_directories(path).map_err(at(path))?;
    }
    let write = |buffer: &mut Vec<u8>, (path, id): &(Vec<u8>, NodeId)| {
        materialise_file(&root, tree, *id, path, buffer).map_err(at(path))
    };
    files.par_iter().map_init(Vec::new, write).collect::<Result<(), _>>()?;
    for (first, path) in &links {
        link(&root, first, path).map_err(at(path))?;
    }
    // Children first: giving a parent its time must be the last change below it.
    for (path, id) in directories.iter().rev() {
        let metadata = &tree.node(*id).metadata;
        let finish = || {
            set_mode(root.directory(path)?, metadata.mode & 0o777 | 0o700)?;
            let (parent, name) = split(path).ok_or(io::ErrorKind::InvalidInput)?;
            set_time(&root.directory(parent)?, name, metadata.mtime)
        };
        finish().map_err(at(path))?;
    }
    Ok(())
}

fn materialise_file(root: &Root, tree: &Tree, id: NodeId, path: &[u8], buffer: &mut Vec<u8>) -> io::Result<()> {
    let (parent, name) = split(path).ok_or(io::ErrorKind::InvalidInput)?;
    let directory = root.directory(parent)?;
    let node = tree.node(id);
    match &node.kind {
        Kind::File(content) => {
            let mut file = create(&directory, name)?;
            write_content(&mut file, content, buffer)?;
            set_mode(&file, node.metadata.mode & 0o777)?;
        }
        Kind::Symlink(target) => symlinkat(target.as_slice(), &directory, name)?,
        _ => return Ok(()),
    }
    set_time(&directory, name, node.metadata.mtime)
}

/// A further name for the file at `first`, if it was made.
pub(super) fn link(root: &Root, first: &[u8], path: &[u8]) -> io::Result<()> {
    let split = |path| split(path).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput));
    let ((first_parent, first_name), (parent, name)) = (split(first)?, split(path)?);
    let from = root.directory(first_parent)?;
    let directory = root.directory(parent)?;
    match linkat(&from, first_name, &directory, name, AtFlags::empty()) {
        Err(nix::errno::Errno::ENOENT) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{DeviceNumber, Metadata, Node, scan};
    use std::os::unix::fs::PermissionsExt;

    fn node(mode: u16, kind: Kind) -> Node {
        let mtime = Timestamp { seconds: 1_000_000_000, nanoseconds: 5 };
        Node { metadata: Metadata { mtime, ..Metadata::with_mode(mode) }, kind }
    }

    #[test]
    fn writes_what_an_ordinary_user_can() {
        let mut tree = Tree::default();
        let mut owned = node(0o4755, Kind::File(Content::from_bytes("su")));
        owned.metadata.uid = 70_000;
        tree.insert(b"d", node(0o555, Kind::directory())).unwrap();
        tree.insert(b"d/su", owned).unwrap();
        tree.link(b"d/su", b"d/also").unwrap();
        tree.insert(b"d/l", node(0o777, Kind::Symlink(b"/etc/passwd".to_vec()))).unwrap();
        let null = Kind::CharacterDevice(DeviceNumber { major: 1, minor: 3 });
        tree.insert(b"null", node(0o666, null)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        materialise(&tree, &root).unwrap();
        let back = scan(&root).unwrap();
        let names: Vec<_> = back.walk().map(|(path, _)| String::from_utf8(path).unwrap()).collect();
        assert_eq!(names, ["", "d", "d/also", "d/l", "d/su"]);
        assert_eq!(back.lookup(b"d/su"), back.lookup(b"d/also"));
        let metadata = &back.node(back.lookup(b"d/su").unwrap()).metadata;
        assert_eq!((metadata.mode, metadata.mtime), (0o755, Timestamp { seconds: 1_000_000_000, nanoseconds: 5 }));
        assert_eq!(std::fs::metadata(root.join("d")).unwrap().permissions().mode() & 0o7777, 0o755);
    }

    #[test]
    fn never_writes_through_a_symlink_out_of_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        let inside = directory.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../outside", inside.join("relative")).unwrap();
        let root = Root::open(&inside).unwrap();
        assert!(root.write(b"relative/x", b"", 0o644).is_err());
        assert!(root.write(b"absolute/x", b"", 0o644).is_err());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn refuses_a_directory_that_exists() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(materialise(&Tree::default(), directory.path()), Err(MaterialiseError::Root { .. })));
    }
}
