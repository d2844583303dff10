//! The configured tree, read back inside the user namespace.
//!
//! A file that still has the bytes its package shipped keeps them in the package's data file; what scripts made or
//! changed is copied into one pack that belongs to the invoking user. Whatever was last changed while the sandbox
//! ran gets the epoch as its time, so that the host's clock leaves no trace.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fstatat};

use super::place::{Placed, Stamp, stamp_of};
use super::wire::{AttributeRow, ChangeRow, Failure, KindRow, NodeRow};
use crate::digest::Hasher;
use crate::rootfs::deb::{Entry, EntryKind, UnpackedPackage};
use crate::rootfs::disk::Root;

/// Zeros of at least this length at a multiple of it are holes: decided by the bytes, for how a host's file system
/// keeps them is chance.
const HOLE: usize = 4096;

/// Reads the tree back.
pub(super) struct Scanner<'a> {
    packages: &'a [UnpackedPackage],
    placed: HashMap<u64, Placed>,
    /// Anything changed at this time or later was changed by the sandbox.
    started: (i64, i64),
    epoch: i64,
    pack: BufWriter<File>,
    pack_length: u64,
    first_names: HashMap<u64, Vec<u8>>,
    rows: Vec<NodeRow>,
    changes: Vec<ChangeRow>,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(
        packages: &'a [UnpackedPackage],
        placed: Vec<Placed>,
        started: (i64, i64),
        epoch: i64,
        pack: &Path,
    ) -> io::Result<Self> {
        let pack = BufWriter::with_capacity(1 << 18, File::create_new(pack)?);
        let placed = placed.into_iter().map(|placed| (placed.inode, placed)).collect();
        let (first_names, rows, changes) = (HashMap::new(), Vec::new(), Vec::new());
        Ok(Self { packages, placed, started, epoch, pack, pack_length: 0, first_names, rows, changes })
    }

    /// All rows, parents before children, names in byte order; and what was changed after it was unpacked.
    pub(super) fn scan(mut self, root: &Root) -> Result<(Vec<NodeRow>, Vec<ChangeRow>), Failure> {
        let fail = |path: &[u8]| Failure::system(format!("read back {}", crate::tree::show(path)));
        let top = root.directory(b"").map_err(fail(b""))?;
        let status = nix::sys::stat::fstat(&top).map_err(io::Error::from).map_err(fail(b""))?;
        let row = self.row(&top, b".", Vec::new(), &status).map_err(fail(b""))?;
        self.rows.push(row);
        self.directory(top, Vec::new())?;
        self.pack.flush().map_err(Failure::system("write the pack of changed files"))?;
        Ok((self.rows, self.changes))
    }

    fn directory(&mut self, directory: OwnedFd, path: Vec<u8>) -> Result<(), Failure> {
        let fail = |path: &[u8]| Failure::system(format!("read back {}", crate::tree::show(path)));
        for name in names(&directory).map_err(fail(&path))? {
            let mut child = path.clone();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend_from_slice(&name);
            let status = fstatat(&directory, name.as_slice(), AtFlags::AT_SYMLINK_NOFOLLOW);
            let status = status.map_err(io::Error::from).map_err(fail(&child))?;
            let row = self.row(&directory, &name, child.clone(), &status).map_err(fail(&child))?;
            self.rows.push(row);
            if status.st_mode & libc::S_IFMT == libc::S_IFDIR {
                let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let below = openat(&directory, name.as_slice(), flags, Mode::empty());
                self.directory(below.map_err(io::Error::from).map_err(fail(&child))?, child)?;
            }
        }
        Ok(())
    }

    fn row(&mut self, directory: &OwnedFd, name: &[u8], path: Vec<u8>, status: &FileStat) -> io::Result<NodeRow> {
        let format = status.st_mode & libc::S_IFMT;
        let placed = self.placed.get(&status.st_ino).copied();
        // An inode number may have been given to another file since; a placeholder is empty and still as it was made.
        let placeholder = placed.filter(|placed| !placed.exact && placed.stamp.mtime == Stamp::of(status).mtime);
        let shadow: Option<&Entry> = placeholder.map(|placed| &self.packages[placed.package].entries()[placed.entry]);
        let mut xattrs = xattrs(directory, name)?;
        let (mut uid, mut gid) = (status.st_uid, status.st_gid);
        if let Some(entry) = shadow {
            (uid, gid) = (entry.metadata.uid, entry.metadata.gid);
            xattrs =
                entry.metadata.xattrs.iter().map(|(name, value)| AttributeRow(name.clone(), value.clone())).collect();
        }
        let kind = if format != libc::S_IFDIR && status.st_nlink > 1 && self.first_names.contains_key(&status.st_ino) {
            KindRow::Link(self.first_names[&status.st_ino].clone())
        } else {
            if format != libc::S_IFDIR && status.st_nlink > 1 {
                self.first_names.insert(status.st_ino, path.clone());
            }
            match shadow.map(|entry| &entry.kind) {
                Some(EntryKind::CharacterDevice(major, minor)) => KindRow::CharacterDevice(*major, *minor),
                Some(EntryKind::BlockDevice(major, minor)) => KindRow::BlockDevice(*major, *minor),
                _ => self.kind(directory, name, status, placed)?,
            }
        };
        let ctime = (status.st_ctime, status.st_ctime_nsec);
        if placed.is_none_or(|placed| placed.stamp.ctime != ctime) {
            self.changes.push(ChangeRow { path: path.clone(), time: ctime });
        }
        let mtime = (status.st_mtime, status.st_mtime_nsec);
        let as_shipped = placed.is_some_and(|placed| placed.stamp.mtime == mtime);
        let mtime = if mtime >= self.started && !as_shipped { (self.epoch, 0) } else { (mtime.0, mtime.1 as u32) };
        Ok(NodeRow { path, kind, mode: (status.st_mode & 0o7777) as u16, uid, gid, mtime, xattrs })
    }

    fn kind(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        status: &FileStat,
        placed: Option<Placed>,
    ) -> io::Result<KindRow> {
        let numbers = (libc::major(status.st_rdev), libc::minor(status.st_rdev));
        Ok(match status.st_mode & libc::S_IFMT {
            libc::S_IFDIR => KindRow::Directory,
            libc::S_IFLNK => KindRow::Symlink(std::os::unix::ffi::OsStringExt::into_vec(readlinkat(directory, name)?)),
            libc::S_IFREG => self.file(directory, name, status, placed)?,
            libc::S_IFCHR => KindRow::CharacterDevice(numbers.0, numbers.1),
            libc::S_IFBLK => KindRow::BlockDevice(numbers.0, numbers.1),
            libc::S_IFIFO => KindRow::Fifo,
            _ => KindRow::Socket,
        })
    }

    fn file(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        status: &FileStat,
        placed: Option<Placed>,
    ) -> io::Result<KindRow> {
        let shipped = placed.filter(|placed| placed.stamp.size == status.st_size);
        if let Some(Placed { package, entry, stamp, .. }) = shipped
            && stamp == Stamp::of(status)
        {
            return Ok(KindRow::Shipped { package, entry });
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NOATIME;
        let mut file: File = openat(directory, name, flags, Mode::empty())?.into();
        if let Some(Placed { package, entry, .. }) = shipped {
            // Renamed, linked or given another owner, perhaps written: the bytes decide.
            let node = self.packages[package].node(&self.packages[package].entries()[entry]);
            if let crate::tree::Kind::File(content) = node.kind
                && content.digest()? == crate::digest::Digest::of_reader(&mut file)?.0
            {
                return Ok(KindRow::Shipped { package, entry });
            }
            file = openat(directory, name, flags, Mode::empty())?.into();
        }
        let before = stamp_of(&file)?;
        let row = self.pack(&mut file, status.st_size as u64)?;
        // Everything that ran in the sandbox has ended; should a file change all the same, better no tree at all.
        if stamp_of(&file)? != before {
            return Err(io::Error::other("it changed while it was read"));
        }
        Ok(row)
    }

    /// Copies the file behind the pack, holes and all, so that a range of the pack is its contents.
    fn pack(&mut self, file: &mut File, size: u64) -> io::Result<KindRow> {
        let offset = self.pack_length;
        let mut hasher = Hasher::new();
        let mut data: Vec<(u64, u64)> = Vec::new();
        let mut position = 0;
        let mut block = [0; HOLE];
        loop {
            let count = read_block(file, &mut block)?;
            if count == 0 {
                break;
            }
            hasher.update(&block[..count]);
            self.pack.write_all(&block[..count])?;
            let end = position + count as u64;
            if count < HOLE || block.iter().any(|byte| *byte != 0) {
                match data.last_mut() {
                    Some((_, last)) if *last == position => *last = end,
                    _ => data.push((position, end)),
                }
            }
            position = end;
        }
        if position != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.pack_length += size;
        let dense = size == 0 || data == [(0, size)];
        Ok(KindRow::Packed { offset, size, digest: hasher.digest(), extents: (!dense).then_some(data) })
    }
}

/// Fills the block unless the file ends.
fn read_block(file: &mut File, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match file.read(&mut block[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

fn names(directory: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::from_fd(directory.try_clone()?)?.iter() {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn xattrs(directory: &OwnedFd, name: &[u8]) -> io::Result<Vec<AttributeRow>> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let path = CString::new(path)?;
    let names = match crate::sys::list_xattrs(&path) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut names: Vec<&[u8]> = names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    let attribute =
        |name: &&[u8]| Ok(AttributeRow(name.to_vec(), crate::sys::get_xattr(&path, &CString::new(*name)?)?));
    names.iter().map(attribute).collect()
}
