//! Entries of packages on the sandbox's disk, with owner, mode, time and attributes exactly as shipped.
//!
//! What a user namespace cannot make (devices, owners outside its range, attributes of other namespaces) becomes an
//! empty placeholder; the scan puts the entry back in its place ([`Placed::exact`]).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, fstatat, mkdirat, mknodat};
use nix::unistd::{Gid, Uid, fchown, fchownat, symlinkat};
use rayon::prelude::*;

use crate::rootfs::deb::{Entry, EntryKind, UnpackedPackage};
use crate::rootfs::disk::{Root, create, is_directory, link, remove_file, set_mode, set_time, write_content};
use crate::rootfs::overlay::Placement;
use crate::tree::{Metadata, split};

/// The identity of a file's bytes on disk: any write, and much else, changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub size: i64,
    pub mtime: (i64, i64),
    pub ctime: (i64, i64),
}

impl Stamp {
    pub(super) fn of(status: &FileStat) -> Self {
        Self {
            size: status.st_size,
            mtime: (status.st_mtime, status.st_mtime_nsec),
            ctime: (status.st_ctime, status.st_ctime_nsec),
        }
    }
}

/// A file that was written from a package.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub inode: u64,
    pub stamp: Stamp,
    pub package: usize,
    pub entry: usize,
    /// False for a placeholder: the entry itself says what it is.
    pub exact: bool,
}

/// Owners and modes that the local administrator, or a script, has set aside for a path (`dpkg-statoverride`), and
/// the names of users and groups in the tree.
#[derive(Debug, Default)]
pub(super) struct Ownership {
    users: HashMap<Vec<u8>, u32>,
    groups: HashMap<Vec<u8>, u32>,
    overrides: BTreeMap<Vec<u8>, (u32, u32, u16)>,
}

impl Ownership {
    /// Reads `/etc/passwd`, `/etc/group` and `/var/lib/dpkg/statoverride` of the tree.
    pub(super) fn read(root: &Root) -> io::Result<Self> {
        let names = |path: &[u8]| -> io::Result<HashMap<Vec<u8>, u32>> {
            let text = root.read(path)?;
            let number = |line: &[u8]| {
                let mut fields = line.split(|byte| *byte == b':');
                let name = fields.next()?.to_vec();
                Some((name, std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?))
            };
            Ok(text.split(|byte| *byte == b'\n').filter_map(number).collect())
        };
        let mut ownership =
            Self { users: names(b"etc/passwd")?, groups: names(b"etc/group")?, overrides: BTreeMap::new() };
        let text = root.read(b"var/lib/dpkg/statoverride")?;
        for line in text.split(|byte| *byte == b'\n') {
            let mut words = line.splitn(4, |byte| *byte == b' ');
            let mut next = || words.next().unwrap_or_default();
            let (user, group, mode, path) = (next(), next(), next(), next());
            let id = |names: &HashMap<Vec<u8>, u32>, word: &[u8]| match word.strip_prefix(b"#") {
                Some(number) => std::str::from_utf8(number).ok()?.parse().ok(),
                None => names.get(word).copied(),
            };
            let mode = std::str::from_utf8(mode).ok().and_then(|mode| u16::from_str_radix(mode, 8).ok());
            if let (Some(uid), Some(gid), Some(mode), Some(path)) =
                (id(&ownership.users, user), id(&ownership.groups, group), mode, path.strip_prefix(b"/"))
            {
                ownership.overrides.insert(path.to_vec(), (uid, gid, mode));
            }
        }
        Ok(ownership)
    }

    /// Owner, group and mode of an entry: an override, else the archive's names where the tree knows them, as dpkg
    /// does, else its numbers.
    fn of(&self, entry: &Entry) -> (u32, u32, u16) {
        if let Some(set_aside) = self.overrides.get(&entry.path) {
            return *set_aside;
        }
        let Metadata { uid, gid, mode, .. } = entry.metadata;
        let (user, group) = (self.users.get(&entry.user), self.groups.get(&entry.group));
        (user.copied().unwrap_or(uid), group.copied().unwrap_or(gid), mode)
    }
}

/// The largest id of the sandbox: see `idmap`.
const ID_MAX: u32 = 65_535;

/// Where and why a file could not be made.
#[derive(Debug)]
pub(super) struct PlaceError {
    pub path: Vec<u8>,
    pub source: io::Error,
}

/// Makes entries on disk.
pub(super) struct Placer<'a> {
    pub root: &'a Root,
    pub packages: &'a [UnpackedPackage],
    pub ownership: Ownership,
}

impl Placer<'_> {
    /// Makes `placements`, parents before children, on all cores. Conffiles get the name under which dpkg keeps them
    /// until it configures their package.
    pub(super) fn place(&self, placements: &[Placement]) -> Result<Vec<Placed>, PlaceError> {
        let conffiles: HashMap<usize, HashSet<&[u8]>> = self.conffiles(placements);
        let is_conffile = |item: &Placement| {
            let path = self.entry(item).path.as_slice();
            conffiles.get(&item.package).is_some_and(|paths| paths.contains(path))
        };
        let target = |item: &Placement| match is_conffile(item) {
            true => [&item.path, b".dpkg-new".as_slice()].concat(),
            false => item.path.clone(),
        };
        let mut placed = Vec::new();
        let mut files = Vec::new();
        let mut links = Vec::new();
        for item in placements {
            match (&self.entry(item).kind, &item.link_to) {
                (EntryKind::Directory, _) => placed.extend(self.directory(item).map_err(at(&item.path))?),
                (_, Some(first)) => links.push((first, item)),
                _ => files.push((target(item), item)),
            }
        }
        // Neighbours share their directory, so it is opened once for them.
        let same_directory = |a: &(Vec<u8>, &Placement), b: &(Vec<u8>, &Placement)| parent(&a.0) == parent(&b.0);
        let groups: Vec<_> = files.chunk_by(same_directory).collect();
        let made = groups.into_par_iter().map_init(Vec::new, |buffer, group| {
            let directory = self.root.directory_or_make(parent(&group[0].0)).map_err(at(&group[0].0))?;
            let file =
                |(path, item): &(Vec<u8>, &Placement)| self.file(&directory, path, item, buffer).map_err(at(path));
            group.iter().map(file).collect::<Result<Vec<_>, _>>()
        });
        let made: Vec<Vec<Option<Placed>>> = made.collect::<Result<_, _>>()?;
        for (first, item) in links {
            let first_item = placements.iter().find(|other| other.path == *first && other.package == item.package);
            let first = first_item.map_or_else(|| first.clone(), &target);
            let path = target(item);
            let make = || {
                let (parent, name) = split(&path).ok_or(io::ErrorKind::InvalidInput)?;
                remove_file(&self.root.directory_or_make(parent)?, name)?;
                link(self.root, &first, &path)
            };
            make().map_err(at(&path))?;
        }
        placed.extend(made.into_iter().flatten().flatten());
        Ok(placed)
    }

    fn entry(&self, item: &Placement) -> &Entry {
        &self.packages[item.package].entries()[item.entry]
    }

    fn conffiles(&self, placements: &[Placement]) -> HashMap<usize, HashSet<&[u8]>> {
        let mut conffiles = HashMap::new();
        for item in placements {
            let paths = || self.packages[item.package].conffiles().into_iter().map(str::as_bytes).collect();
            conffiles.entry(item.package).or_insert_with(paths);
        }
        conffiles
    }

    /// As dpkg does, the time is set when the directory is made: what is put into it later moves it to now.
    fn directory(&self, item: &Placement) -> io::Result<Option<Placed>> {
        let entry = self.entry(item);
        let (uid, gid, mode) = self.ownership.of(entry);
        let Some((parent, name)) = split(&item.path) else {
            let root = self.root.directory(b"")?;
            fchown(&root, Some(Uid::from_raw(uid.min(ID_MAX))), Some(Gid::from_raw(gid.min(ID_MAX))))?;
            set_mode(&root, mode)?;
            return Ok(None);
        };
        let parent = self.root.directory_or_make(parent)?;
        match mkdirat(&parent, name, Mode::from_bits_truncate(0o700)) {
            // A script was first. dpkg leaves a directory, or a symlink to one, as it is.
            Err(nix::errno::Errno::EEXIST) => return self.root.directory(&item.path).map(|_| None),
            made => made?,
        }
        let directory = self.root.directory(&item.path)?;
        fchown(&directory, Some(Uid::from_raw(uid.min(ID_MAX))), Some(Gid::from_raw(gid.min(ID_MAX))))?;
        set_mode(&directory, mode)?;
        set_xattrs(&directory, entry)?;
        set_time(&parent, name, entry.metadata.mtime)?;
        let status = fstat(&directory)?;
        let (inode, stamp) = (status.st_ino, Stamp::of(&status));
        Ok(Some(Placed { inode, stamp, package: item.package, entry: item.entry, exact: true }))
    }

    fn file(
        &self,
        directory: &OwnedFd,
        path: &[u8],
        item: &Placement,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Option<Placed>> {
        let (_, name) = split(path).ok_or(io::ErrorKind::InvalidInput)?;
        let entry = self.entry(item);
        if is_directory(directory, name) {
            // dpkg leaves a directory that a script made where the package has a symlink.
            let is_symlink = matches!(entry.kind, EntryKind::Symlink(_));
            return if is_symlink { Ok(None) } else { Err(io::ErrorKind::IsADirectory.into()) };
        }
        remove_file(directory, name)?;
        let exact = self.make(directory, name, item, buffer)?;
        set_time(directory, name, entry.metadata.mtime)?;
        let status = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let stamp = Stamp::of(&status);
        Ok(Some(Placed { inode: status.st_ino, stamp, package: item.package, entry: item.entry, exact }))
    }

    /// Whether what was made is all that the entry says.
    fn make(&self, directory: &OwnedFd, name: &[u8], item: &Placement, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let (entry, package) = (self.entry(item), &self.packages[item.package]);
        let (uid, gid, mode) = self.ownership.of(entry);
        let within = uid <= ID_MAX && gid <= ID_MAX;
        let (uid, gid) = (Some(Uid::from_raw(uid.min(ID_MAX))), Some(Gid::from_raw(gid.min(ID_MAX))));
        let own = || fchownat(directory, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW);
        match &entry.kind {
            EntryKind::Symlink(target) => {
                symlinkat(target.as_slice(), directory, name)?;
                own()?;
                Ok(within)
            }
            EntryKind::Fifo => {
                mknodat(directory, name, SFlag::S_IFIFO, Mode::from_bits_truncate(0o600), 0)?;
                own()?;
                let mode = Mode::from_bits_truncate(u32::from(mode));
                fchmodat(directory, name, mode, FchmodatFlags::FollowSymlink)?;
                Ok(within)
            }
            _ => {
                // A hard link comes here if another package took over the file that it names.
                let content = match &entry.kind {
                    EntryKind::HardLink(first) => package.entry(first).and_then(|first| package.content(first)),
                    _ => package.content(entry),
                };
                let mut file = create(directory, name)?;
                if let Some(content) = &content {
                    write_content(&mut file, content, buffer)?;
                }
                fchown(&file, uid, gid)?;
                set_mode(&file, mode)?;
                Ok(set_xattrs(&file, entry)? && within && content.is_some())
            }
        }
    }
}

/// Whether all attributes of the entry could be set.
fn set_xattrs(file: &impl AsFd, entry: &Entry) -> io::Result<bool> {
    if entry.metadata.xattrs.is_empty() {
        return Ok(true);
    }
    let file: File = file.as_fd().try_clone_to_owned()?.into();
    let mut all = true;
    for (name, value) in &entry.metadata.xattrs {
        let name = std::ffi::CString::new(name.as_slice())?;
        match crate::sys::set_file_xattr(&file, &name, value) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(error),
            Err(_) => all = false,
        }
    }
    Ok(all)
}

fn parent(path: &[u8]) -> &[u8] {
    split(path).map_or(&[], |(parent, _)| parent)
}

fn at(path: &[u8]) -> impl FnOnce(io::Error) -> PlaceError {
    let path = path.to_vec();
    move |source| PlaceError { path, source }
}

/// The stamp of an open file.
pub(super) fn stamp_of(file: &File) -> io::Result<Stamp> {
    Ok(Stamp::of(&fstat(file)?))
}
