//! The index at the end of a package's data file: everything about the package but the contents of its files.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{ControlFile, DebError, Entry, EntryKind, UnpackedPackage, latin1};
use crate::tree::{FileAt, Metadata, Timestamp};

const MAGIC: &[u8; 16] = b"adamant package\n";
const TRAILER_LEN: u64 = 24;

#[derive(Serialize, Deserialize)]
struct Index {
    name: String,
    version: String,
    architecture: String,
    control: String,
    control_files: Vec<FileRow>,
    entries: Vec<EntryRow>,
}

#[derive(Serialize, Deserialize)]
struct FileRow {
    name: String,
    mode: u16,
    mtime: i64,
    #[serde(with = "latin1")]
    bytes: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct EntryRow {
    #[serde(with = "latin1")]
    path: Vec<u8>,
    kind: EntryKind,
    /// Mode, uid, gid, seconds, nanoseconds.
    metadata: (u16, u32, u32, i64, u32),
    #[serde(with = "latin1")]
    user: Vec<u8>,
    #[serde(with = "latin1")]
    group: Vec<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<Attribute>,
}

#[derive(Serialize, Deserialize)]
struct Attribute(#[serde(with = "latin1")] Vec<u8>, #[serde(with = "latin1")] Vec<u8>);

/// Writes the index behind the contents.
pub(super) fn append(package: &UnpackedPackage) -> io::Result<()> {
    let index = Index {
        name: package.name.clone(),
        version: package.version.clone(),
        architecture: package.architecture.clone(),
        control: package.control.clone(),
        control_files: package.control_files.iter().map(file_row).collect(),
        entries: package.entries.iter().map(entry_row).collect(),
    };
    let mut bytes = serde_json::to_vec(&index)?;
    let length = bytes.len() as u64;
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(MAGIC);
    OpenOptions::new().append(true).open(package.data_path())?.write_all(&bytes)
}

/// The package whose contents [`super::unpack`] wrote to `data_path`, without decompressing anything.
pub fn reopen(data_path: &Path) -> Result<UnpackedPackage, DebError> {
    let index = read(data_path).map_err(|source| DebError::Index { path: data_path.to_owned(), source })?;
    Ok(UnpackedPackage {
        name: index.name,
        version: index.version,
        architecture: index.architecture,
        control: index.control,
        control_files: index.control_files.into_iter().map(control_file).collect(),
        entries: index.entries.into_iter().map(entry).collect(),
        data: FileAt(data_path.to_owned()),
    })
}

fn read(path: &Path) -> io::Result<Index> {
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let file = File::open(path)?;
    let end = file.metadata()?.len().checked_sub(TRAILER_LEN).ok_or_else(damaged)?;
    let mut trailer = [0; TRAILER_LEN as usize];
    file.read_exact_at(&mut trailer, end)?;
    let (length, magic) = trailer.split_at(8);
    let length = u64::from_le_bytes(length.try_into().map_err(|_| damaged())?);
    let start = end.checked_sub(length).ok_or_else(damaged)?;
    if magic != MAGIC {
        return Err(damaged());
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, start)?;
    let index: Index = serde_json::from_slice(&bytes)?;
    let within = |entry: &EntryRow| match entry.kind {
        EntryKind::File { offset, size, .. } => offset.checked_add(size).is_some_and(|file_end| file_end <= start),
        _ => true,
    };
    if index.entries.iter().all(within) { Ok(index) } else { Err(damaged()) }
}

fn file_row(file: &ControlFile) -> FileRow {
    FileRow { name: file.name.clone(), mode: file.mode, mtime: file.mtime, bytes: file.bytes.clone() }
}

fn control_file(row: FileRow) -> ControlFile {
    ControlFile { name: row.name, mode: row.mode, mtime: row.mtime, bytes: row.bytes }
}

fn entry_row(entry: &Entry) -> EntryRow {
    let Metadata { mode, uid, gid, mtime, xattrs } = &entry.metadata;
    EntryRow {
        path: entry.path.clone(),
        kind: entry.kind.clone(),
        metadata: (*mode, *uid, *gid, mtime.seconds, mtime.nanoseconds),
        user: entry.user.clone(),
        group: entry.group.clone(),
        xattrs: xattrs.iter().map(|(name, value)| Attribute(name.clone(), value.clone())).collect(),
    }
}

fn entry(row: EntryRow) -> Entry {
    let (mode, uid, gid, seconds, nanoseconds) = row.metadata;
    let xattrs = row.xattrs.into_iter().map(|Attribute(name, value)| (name, value)).collect();
    let metadata = Metadata { mode, uid, gid, mtime: Timestamp { seconds, nanoseconds }, xattrs };
    Entry { path: row.path, kind: row.kind, metadata, user: row.user, group: row.group }
}
