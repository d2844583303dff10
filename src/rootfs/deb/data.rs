//! The tar archives inside a package, read once, front to back.
//!
//! Flows in: decompressed bytes. Flows out: [`Entry`]s whose contents are ranges of those bytes. What dpkg writes is
//! GNU tar (`L` and `K` records for long names); PAX records (`x`) are read for paths, owners and
//! `SCHILY.xattr.*`, which is how other tools keep extended attributes.
//!
//! Invariants of what comes out, whoever made the package: a path is relative, its components are names (no `..`),
//! no two entries but directories share a path, no entry lies below a symlink of the same package, no symlink climbs
//! out of the root, a hard link names a regular file that came before.
//!
//! Specification: `tar(5)` of libarchive; POSIX.1-2017 pax, "ustar Interchange Format"; dpkg `lib/dpkg/tarfn.c`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use tar::EntryType;

use crate::digest::{Digest, Hasher};
use crate::tree::{DeviceNumber, Metadata, NAME_MAX, Timestamp, components};

/// Long names and PAX records above this are refused: `PATH_MAX` is 4 KiB, an attribute at most 64 KiB.
const RECORD_MAX: u64 = 1 << 20;

/// What `readlink(2)` can give: `PATH_MAX` without its NUL.
const SYMLINK_MAX: usize = 4095;
/// What `open(2)` takes: the same.
const PATH_MAX: usize = 4095;
/// Ten times what the largest package of Debian has.
const ENTRIES_MAX: usize = 1 << 20;
/// Bytes of the extended attributes of all entries. A hard link has those of its file, for 512 bytes of archive.
const XATTRS_MAX: usize = 64 << 20;

/// Why a tar archive of a package is refused.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The bytes end early, do not decompress, or a header is damaged.
    #[error("cannot read its tar archive")]
    Read(#[source] io::Error),
    /// A name that would leave the root or that no file system holds.
    #[error("{}: refused: {why}", crate::tree::show(.path))]
    Path {
        /// As it stands in the archive.
        path: Vec<u8>,
        /// The rule it breaks.
        why: &'static str,
    },
    /// A type of entry that packages do not have.
    #[error("{}: refused: tar entries of type {kind:?} do not belong in a package", crate::tree::show(.path))]
    Type {
        /// As it stands in the archive.
        path: Vec<u8>,
        /// The type flag.
        kind: char,
    },
    /// A PAX record that is damaged or says something else than the header.
    #[error("damaged extended header (pax) before entry {index}")]
    Pax {
        /// Counted from 0.
        index: usize,
    },
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file: `size` bytes at `offset` of the decompressed archive.
    File {
        /// First byte.
        offset: u64,
        /// Length in bytes.
        size: u64,
        /// SHA-256 of the bytes.
        digest: Digest,
    },
    /// A further name of the entry at that path.
    HardLink(#[serde(with = "super::latin1")] Vec<u8>),
    /// A symlink, with its target.
    Symlink(#[serde(with = "super::latin1")] Vec<u8>),
    /// A character device.
    CharacterDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

impl EntryKind {
    /// Major and minor number, if it is a device.
    pub fn device(&self) -> Option<DeviceNumber> {
        match *self {
            Self::CharacterDevice(major, minor) | Self::BlockDevice(major, minor) => {
                Some(DeviceNumber { major, minor })
            }
            _ => None,
        }
    }
}

/// One entry of a package's archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root, without `./`; empty for the root itself.
    pub path: Vec<u8>,
    /// Type and what belongs to it.
    pub kind: EntryKind,
    /// Mode, owner by number, time, attributes.
    pub metadata: Metadata,
    /// Owner by name, empty if the archive has none: dpkg prefers it where the tree knows it.
    pub user: Vec<u8>,
    /// Group by name.
    pub group: Vec<u8>,
}

/// Reads a whole archive. `reader` is left after the end-of-archive blocks; the caller drains it.
pub fn read_entries<R: Read>(archive: &mut tar::Archive<R>) -> Result<Vec<Entry>, TarError> {
    let mut collector = Collector::default();
    let mut pending = Pending::default();
    for (index, raw) in archive.entries().map_err(TarError::Read)?.raw(true).enumerate() {
        let mut raw = raw.map_err(TarError::Read)?;
        match raw.header().entry_type() {
            EntryType::GNULongName => pending.path = Some(long_name(&mut raw, index)?),
            EntryType::GNULongLink => pending.link = Some(long_name(&mut raw, index)?),
            EntryType::XHeader => pending.read_pax(&record(&mut raw, index)?).ok_or(TarError::Pax { index })?,
            EntryType::XGlobalHeader => drop(record(&mut raw, index)?),
            _ => {
                let entry = std::mem::take(&mut pending).entry(&mut raw, index)?;
                collector.add(entry)?;
            }
        }
    }
    Ok(collector.entries)
}

fn record(raw: &mut impl RawEntry, index: usize) -> Result<Vec<u8>, TarError> {
    if raw.body_size() > RECORD_MAX {
        return Err(TarError::Pax { index });
    }
    let mut bytes = Vec::new();
    raw.read_to_end(&mut bytes).map_err(TarError::Read)?;
    Ok(bytes)
}

fn long_name(raw: &mut impl RawEntry, index: usize) -> Result<Vec<u8>, TarError> {
    let mut name = record(raw, index)?;
    while name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

/// A raw tar entry, so that the reader's type does not spread.
trait RawEntry: Read {
    fn body_size(&self) -> u64;
    fn head(&self) -> &tar::Header;
    fn body_position(&self) -> u64;
}

impl<R: Read> RawEntry for tar::Entry<'_, R> {
    fn body_size(&self) -> u64 {
        self.size()
    }
    fn head(&self) -> &tar::Header {
        self.header()
    }
    fn body_position(&self) -> u64 {
        self.raw_file_position()
    }
}

/// What records in front of an entry said about it.
#[derive(Default)]
struct Pending {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<Timestamp>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Pending {
    /// `LENGTH KEYWORD=VALUE\n`, the length counting itself; values may hold any byte.
    fn read_pax(&mut self, mut records: &[u8]) -> Option<()> {
        while !records.is_empty() {
            let space = records.iter().take(20).position(|byte| *byte == b' ')?;
            let length: usize = text(&records[..space])?;
            let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(text(value)?),
                b"uid" => self.uid = Some(text(value)?),
                b"gid" => self.gid = Some(text(value)?),
                b"mtime" => self.mtime = Some(decimal_time(value)?),
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.xattrs.insert(name.to_vec(), value.to_vec());
                    }
                }
            }
            records = &records[length..];
        }
        Some(())
    }

    fn entry(self, raw: &mut impl RawEntry, index: usize) -> Result<Entry, TarError> {
        let header = raw.head();
        let shipped = self.path.unwrap_or_else(|| name_of(header));
        let number = |value: io::Result<u64>| {
            let value = value.map_err(TarError::Read)?;
            u32::try_from(value).map_err(|_| TarError::Pax { index })
        };
        let owner = |value: Option<u32>, field: io::Result<u64>| value.map_or_else(|| number(field), Ok);
        let seconds = i64::try_from(header.mtime().map_err(TarError::Read)?).map_err(|_| TarError::Pax { index })?;
        let metadata = Metadata {
            mode: (header.mode().map_err(TarError::Read)? & 0o7777) as u16,
            uid: owner(self.uid, header.uid())?,
            gid: owner(self.gid, header.gid())?,
            mtime: self.mtime.unwrap_or(Timestamp::from_seconds(seconds)),
            xattrs: self.xattrs,
        };
        if self.size.is_some_and(|size| size != raw.body_size()) {
            return Err(TarError::Pax { index });
        }
        let path = normal_path(&shipped)?;
        let link = || self.link.clone().or_else(|| link_of(header)).unwrap_or_default();
        let device = || -> io::Result<(u32, u32)> {
            Ok((header.device_major()?.unwrap_or_default(), header.device_minor()?.unwrap_or_default()))
        };
        let kind = match header.entry_type() {
            // Before POSIX, a directory was a file whose name ends with a slash.
            EntryType::Regular | EntryType::Continuous if shipped.ends_with(b"/") => EntryKind::Directory,
            EntryType::Regular | EntryType::Continuous => file(raw)?,
            EntryType::Directory => EntryKind::Directory,
            EntryType::Link => EntryKind::HardLink(normal_path(&link())?),
            EntryType::Symlink => EntryKind::Symlink(checked_target(&path, link())?),
            EntryType::Char => device().map(|(a, b)| EntryKind::CharacterDevice(a, b)).map_err(TarError::Read)?,
            EntryType::Block => device().map(|(a, b)| EntryKind::BlockDevice(a, b)).map_err(TarError::Read)?,
            EntryType::Fifo => EntryKind::Fifo,
            other => return Err(TarError::Type { path: shipped, kind: char::from(other.as_byte()) }),
        };
        let header = raw.head();
        let name = |field: Option<&[u8]>| field.unwrap_or_default().to_vec();
        Ok(Entry { path, kind, metadata, user: name(header.username_bytes()), group: name(header.groupname_bytes()) })
    }
}

fn name_of(header: &tar::Header) -> Vec<u8> {
    header.path_bytes().into_owned()
}

fn link_of(header: &tar::Header) -> Option<Vec<u8>> {
    header.link_name_bytes().map(|name| name.into_owned())
}

fn text<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// `1234567890.123456789`, as PAX writes times.
fn decimal_time(value: &[u8]) -> Option<Timestamp> {
    let (whole, fraction) = match value.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &b""[..]),
    };
    if fraction.len() > 9 || !fraction.iter().all(u8::is_ascii_digit) || whole.starts_with(b"-") {
        return None;
    }
    let padded: Vec<u8> = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9).collect();
    Some(Timestamp { seconds: text(whole)?, nanoseconds: text(&padded)? })
}

fn file(raw: &mut impl RawEntry) -> Result<EntryKind, TarError> {
    let (offset, size) = (raw.body_position(), raw.body_size());
    let mut hasher = Hasher::new();
    let mut buffer = [0; 32 * 1024];
    loop {
        match raw.read(&mut buffer).map_err(TarError::Read)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    if hasher.length() != size {
        return Err(TarError::Read(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(EntryKind::File { offset, size, digest: hasher.digest() })
}

/// The path without `./` and doubled slashes, if it stays within the root.
fn normal_path(shipped: &[u8]) -> Result<Vec<u8>, TarError> {
    let refuse = |why| TarError::Path { path: shipped.to_vec(), why };
    if shipped.starts_with(b"/") {
        return Err(refuse("an absolute path"));
    }
    let mut names = Vec::new();
    for name in components(shipped).filter(|name| *name != b".") {
        match name {
            b".." => return Err(refuse("a path with `..`")),
            name if name.len() > NAME_MAX => return Err(refuse("a name of more than 255 bytes")),
            name if name.contains(&0) => return Err(refuse("a name with a NUL byte")),
            name => names.push(name),
        }
    }
    let path = names.join(&b'/');
    if path.len() > PATH_MAX { Err(refuse("a path of more than 4095 bytes")) } else { Ok(path) }
}

/// The target of a symlink, unless it climbs above the root: no package needs that, and in a tree that was unpacked
/// into a directory such a link would lead to the host.
fn checked_target(path: &[u8], target: Vec<u8>) -> Result<Vec<u8>, TarError> {
    let refuse = |why| TarError::Path { path: path.to_vec(), why };
    if target.is_empty() || target.len() > SYMLINK_MAX || target.contains(&0) {
        return Err(refuse("a symlink whose target is not 1 to 4095 bytes without NUL"));
    }
    if target.starts_with(b"/") {
        return Ok(target);
    }
    let mut depth = components(path).count() as i64 - 1;
    for name in components(&target) {
        match name {
            b"." => {}
            b".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return Err(refuse("a symlink that leads out of the root"));
        }
    }
    Ok(target)
}

/// Holds the invariants between entries.
#[derive(Default)]
struct Collector {
    entries: Vec<Entry>,
    positions: HashMap<Vec<u8>, usize>,
    symlinks: BTreeSet<Vec<u8>>,
    /// Bytes of all extended attributes so far.
    xattrs: usize,
}

impl Collector {
    fn add(&mut self, mut entry: Entry) -> Result<(), TarError> {
        let refuse = |why| TarError::Path { path: entry.path.clone(), why };
        if self.entries.len() >= ENTRIES_MAX {
            return Err(refuse("more entries than any package has"));
        }
        if self.lies_below_symlink(&entry.path) {
            return Err(refuse("a path through a symlink of the same package"));
        }
        if entry.path.is_empty() && entry.kind != EntryKind::Directory {
            return Err(refuse("the root must be a directory"));
        }
        if let EntryKind::HardLink(target) = &entry.kind {
            let first = self.positions.get(target).map(|position| &self.entries[*position]);
            match first {
                Some(first) if matches!(first.kind, EntryKind::File { .. }) => {
                    entry.metadata = first.metadata.clone();
                }
                // A link to a link names the same file.
                Some(Entry { kind: EntryKind::HardLink(target), metadata, .. }) => {
                    entry.metadata = metadata.clone();
                    entry.kind = EntryKind::HardLink(target.clone());
                }
                _ => return Err(refuse("a hard link to what is no earlier file of the package")),
            }
        }
        if let Some(position) = self.positions.get(&entry.path) {
            let repeated = self.entries[*position].kind == EntryKind::Directory && entry.kind == EntryKind::Directory;
            return if repeated { Ok(()) } else { Err(refuse("the path appears twice")) };
        }
        self.xattrs += entry.metadata.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if self.xattrs > XATTRS_MAX {
            return Err(refuse("more extended attributes than any package has"));
        }
        if let EntryKind::Symlink(_) = entry.kind {
            self.symlinks.insert(entry.path.clone());
        }
        self.positions.insert(entry.path.clone(), self.entries.len());
        self.entries.push(entry);
        Ok(())
    }

    fn lies_below_symlink(&self, path: &[u8]) -> bool {
        !self.symlinks.is_empty()
            && path
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte == b'/')
                .any(|(i, _)| self.symlinks.contains(&path[..i]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Type, name, target of a link, body.
    type Item<'a> = (EntryType, &'a [u8], &'a [u8], &'a [u8]);

    fn header(kind: EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(7);
        header
    }

    /// Appends an entry whose name is taken as it stands: `tar` itself would not write hostile ones.
    fn push(bytes: &mut Vec<u8>, mut header: tar::Header, name: &[u8], link: &[u8], body: &[u8]) {
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name);
        gnu.linkname[..link.len()].copy_from_slice(link);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }

    fn archive(items: &[Item]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, name, link, body) in items {
            push(&mut bytes, header(*kind, body.len() as u64), name, link, body);
        }
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<Entry>, TarError> {
        read_entries(&mut tar::Archive::new(bytes))
    }

    fn refusal(items: &[Item]) -> String {
        read(&archive(items)).unwrap_err().to_string()
    }

    #[test]
    fn reads_files_links_and_long_names() {
        let long = [b"./".as_slice(), &[b'l'; 200]].concat();
        let bytes = archive(&[
            (EntryType::Directory, b"./", b"", b""),
            (EntryType::GNULongName, b"././@LongLink", b"", &[&long[..], b"\0"].concat()),
            (EntryType::Regular, b"./lll", b"", b"abc"),
            (EntryType::GNULongLink, b"././@LongLink", b"", &[&long[..], b"\0"].concat()),
            (EntryType::Link, b"./b", b"./lll", b""),
            (EntryType::Symlink, b"./s", b"../b", b""),
        ]);
        // The last one climbs out, so read without it first.
        assert!(read(&bytes).unwrap_err().to_string().contains("leads out of the root"));
        let entries = read(&bytes[..bytes.len() - 1024 - 512]).unwrap();
        assert_eq!(entries.iter().map(|e| e.path.len()).collect::<Vec<_>>(), [0, 200, 1]);
        let EntryKind::File { offset, size, digest } = entries[1].kind else { panic!("{:?}", entries[1]) };
        assert_eq!((&bytes[offset as usize..][..size as usize], digest), (&b"abc"[..], Digest::of(b"abc")));
        assert_eq!(entries[2].kind, EntryKind::HardLink(vec![b'l'; 200]));
    }

    #[test]
    fn reads_pax_records_with_attributes_of_any_bytes() {
        let record = |key: &str, value: &[u8]| {
            let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
            let length = (1..).find(|n| n.to_string().len() + body.len() == *n).unwrap();
            [length.to_string().as_bytes(), &body].concat()
        };
        let records = [
            record("path", b"./a/b"),
            record("uid", b"70000"),
            record("mtime", b"12.5"),
            record("SCHILY.xattr.security.capability", b"\x01\n=\0\x02"),
        ]
        .concat();
        let bytes = archive(&[(EntryType::XHeader, b"x", b"", &records), (EntryType::Regular, b"x", b"", b"")]);
        let entry = read(&bytes).unwrap().remove(0);
        assert_eq!((entry.path.as_slice(), entry.metadata.uid), (&b"a/b"[..], 70_000));
        assert_eq!(entry.metadata.mtime, Timestamp { seconds: 12, nanoseconds: 500_000_000 });
        assert_eq!(entry.metadata.xattrs[&b"security.capability"[..]], b"\x01\n=\0\x02");
    }

    #[test]
    fn refuses_names_that_leave_the_root() {
        let file = EntryType::Regular;
        assert!(refusal(&[(file, b"./../etc/passwd", b"", b"")]).contains("`..`"));
        assert!(refusal(&[(file, b"/etc/passwd", b"", b"")]).contains("absolute"));
        assert!(refusal(&[(EntryType::Link, b"./a", b"../b", b"")]).contains("`..`"));
        assert!(refusal(&[(EntryType::Link, b"./a", b"./b", b"")]).contains("no earlier file"));
    }

    #[test]
    fn refuses_paths_that_nobody_can_open() {
        let long = |size: usize| {
            let name = [&b"a/".repeat((size - 1) / 2)[..], &b"b".repeat(2 - size % 2)].concat();
            assert_eq!(name.len(), size);
            read(&archive(&[(EntryType::GNULongName, b"x", b"", &name), (EntryType::Regular, b"x", b"", b"")]))
        };
        assert_eq!(long(4095).unwrap()[0].path.len(), 4095);
        assert!(long(4097).unwrap_err().to_string().contains("more than 4095 bytes"));
    }

    #[test]
    fn refuses_attributes_that_hard_links_multiply() {
        let value = [b'v'; 60_000];
        let record = [b"60028 SCHILY.xattr.user.abcd=", &value[..60_028 - 30], b"\n"].concat();
        assert_eq!(record.len(), 60_028);
        let mut items: Vec<Item> =
            vec![(EntryType::XHeader, b"x", b"", &record), (EntryType::Regular, b"./first", b"", b"")];
        let names: Vec<Vec<u8>> = (0..2000).map(|number| format!("./{number}").into_bytes()).collect();
        items.extend(names.iter().map(|name| (EntryType::Link, &name[..], &b"./first"[..], &b""[..])));
        assert!(refusal(&items).contains("more extended attributes than any package has"));
        assert_eq!(read(&archive(&items[..1000])).unwrap().len(), 999);
    }

    #[test]
    fn refuses_entries_behind_a_symlink_of_the_package() {
        let why = refusal(&[(EntryType::Symlink, b"./a", b"/tmp", b""), (EntryType::Regular, b"./a/b", b"", b"x")]);
        assert!(why.contains("through a symlink"), "{why}");
    }

    #[test]
    fn refuses_symlinks_that_climb_out_and_takes_those_that_do_not() {
        assert!(refusal(&[(EntryType::Symlink, b"./a/b", b"../../c", b"")]).contains("leads out"));
        let entries = read(&archive(&[(EntryType::Symlink, b"./a/b", b"../c", b"")])).unwrap();
        assert_eq!(entries[0].kind, EntryKind::Symlink(b"../c".to_vec()));
        assert!(read(&archive(&[(EntryType::Symlink, b"./a", b"/etc/alternatives/a", b"")])).is_ok());
    }

    #[test]
    fn refuses_one_path_twice_unless_it_is_a_directory() {
        let file: Item = (EntryType::Regular, b"./a", b"", b"");
        assert!(refusal(&[file, file]).contains("twice"));
        let directory: Item = (EntryType::Directory, b"./a/", b"", b"");
        assert_eq!(read(&archive(&[directory, directory])).unwrap().len(), 1);
    }

    #[test]
    fn refuses_types_that_packages_do_not_have() {
        assert!(refusal(&[(EntryType::GNUSparse, b"./a", b"", b"")]).contains("type 'S'"));
    }

    #[test]
    fn truncated_or_damaged_archives_are_errors_and_never_panics() {
        let bytes = archive(&[
            (EntryType::Directory, b"./", b"", b""),
            (EntryType::XHeader, b"x", b"", b"12 path=./a\n"),
            (EntryType::Regular, b"./a", b"", &[7; 1000]),
            (EntryType::Symlink, b"./s", b"a", b""),
        ]);
        assert!(matches!(read(&bytes[..2600]), Err(TarError::Read(_))));
        for position in 0..bytes.len() {
            let mut mutated = bytes.clone();
            mutated[position] ^= 1 + (position % 255) as u8;
            let _ = read(&mutated);
        }
    }
}
