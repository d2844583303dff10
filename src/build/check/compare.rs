//! Two outputs of one recipe, byte for byte; where they differ, taken apart until the file is found.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::diff::{self, Difference, Field, FilesDifference, Subject};
use crate::manifest::{File, path_from_text};
use crate::tree::{Content, FileAt, Kind, Tree};

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 16;
/// Bytes that are shown of each side.
const SHOWN: u64 = 16;

/// The first bytes in which two contents differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// Of the first one, from the beginning.
    pub offset: u64,
    /// Those from there on in the first build, in hexadecimal; none where it ends there.
    pub first: String,
    /// The same in the second build.
    pub second: String,
    /// How many bytes differ, or are in the longer one only.
    pub count: u64,
}

/// A file of the output, or a partition of the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartDiscrepancy {
    /// Its name: a file name, or `esp`, `root`, `root-verity`.
    pub name: String,
    /// Where; `None`: one of the builds does not have it.
    pub bytes: Option<Bytes>,
}

/// A name in a file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileDiscrepancy {
    /// `root`, or `esp` for a file of the initrd.
    pub partition: &'static str,
    /// The path within the root file system or the initrd.
    pub path: String,
    /// In what: `mode`, `sha256`, ...; `name` if only one build has it.
    pub changes: Vec<Field>,
    /// Where its bytes differ.
    pub bytes: Option<Bytes>,
    /// Who wrote it, as far as it is known.
    pub writer: Option<String>,
}

/// In what two outputs differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Discrepancy {
    /// Files of the output folder.
    pub outputs: Vec<PartDiscrepancy>,
    /// Partitions of the disk.
    pub partitions: Vec<PartDiscrepancy>,
    /// Files of the root file system and of the initrd.
    pub files: Vec<FileDiscrepancy>,
    /// Why the files are not known, if that is so.
    pub unread: Option<String>,
}

/// Compares two output directories; `None`: there is no difference.
pub(super) fn compare(first: &Path, second: &Path) -> io::Result<Option<Discrepancy>> {
    let mut found = Discrepancy::default();
    let names: BTreeSet<_> = names(first)?.into_iter().chain(names(second)?).collect();
    for name in names {
        let bytes = match (open(&first.join(&name))?, open(&second.join(&name))?) {
            (Some(first), Some(second)) => match difference(&first, &second)? {
                None => continue,
                some => some,
            },
            _ => None,
        };
        found.outputs.push(PartDiscrepancy { name, bytes });
    }
    if found.outputs.is_empty() {
        return Ok(None);
    }
    match (diff::read(first), diff::read(second)) {
        (Ok(first), Ok(second)) => take_apart(&mut found, &first, &second)?,
        (Err(error), _) | (_, Err(error)) => found.unread = Some(error.to_string()),
    }
    Ok(Some(found))
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn open(path: &Path) -> io::Result<Option<Content>> {
    match fs::metadata(path) {
        Ok(status) => Ok(Some(Content::new(status.len(), Arc::new(FileAt(path.to_owned())), 0))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where two contents differ; `None`: nowhere.
fn difference(first: &Content, second: &Content) -> io::Result<Option<Bytes>> {
    let (mut start, mut count) = (None, first.size().abs_diff(second.size()));
    let common = first.size().min(second.size());
    let (mut one, mut other) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut position = 0;
    while position < common {
        let length = (common - position).min(CHUNK as u64) as usize;
        first.read_exact_at(&mut one[..length], position)?;
        second.read_exact_at(&mut other[..length], position)?;
        if one[..length] != other[..length] {
            let differing = || (0..length).filter(|index| one[*index] != other[*index]);
            start = start.or(differing().next().map(|index| position + index as u64));
            count += differing().count() as u64;
        }
        position += length as u64;
    }
    if count == 0 {
        return Ok(None);
    }
    let offset = start.unwrap_or(common);
    let shown = |content: &Content| -> io::Result<String> {
        let mut bytes = vec![0; content.size().saturating_sub(offset).min(SHOWN) as usize];
        content.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    };
    Ok(Some(Bytes { offset, first: shown(first)?, second: shown(second)?, count }))
}

fn take_apart(found: &mut Discrepancy, first: &Subject, second: &Subject) -> io::Result<()> {
    let difference = diff::difference(first, second);
    found.partitions = partitions(&difference, found, first, second)?;
    found.files = files("root", &difference.files, &first.files, &second.files);
    for file in &mut found.files {
        let path = path_from_text(&file.path).unwrap_or_default();
        let content = |subject: &Subject| content(subject.tree.as_ref()?, path.strip_prefix(b"/")?);
        if let (Some(one), Some(other)) = (content(first), content(second)) {
            file.bytes = self::difference(&one, &other)?;
        }
    }
    if let Some(initrd) = &difference.boot.initrd {
        found.files.extend(files("esp", initrd, &[], &[]));
    }
    Ok(())
}

fn content(tree: &Tree, path: &[u8]) -> Option<Content> {
    match &tree.node(tree.lookup(path)?).kind {
        Kind::File(content) => Some(content.clone()),
        _ => None,
    }
}

/// Those partitions that differ, with the bytes of the disk.
fn partitions(
    difference: &Difference,
    found: &Discrepancy,
    first: &Subject,
    second: &Subject,
) -> io::Result<Vec<PartDiscrepancy>> {
    let disk = |subject: &Subject| -> io::Result<Option<Content>> {
        let name = found.outputs.iter().find(|output| output.name.ends_with(".raw"));
        name.map_or(Ok(None), |name| open(&Path::new(&subject.label).join(&name.name)))
    };
    let (Some(one), Some(other)) = (disk(first)?, disk(second)?) else { return Ok(Vec::new()) };
    let mut discrepancies = Vec::new();
    let changed = |role: &str| difference.boot.partitions.iter().any(|change| change.part == role);
    // In the order of the disk, which the layout fixes.
    let roles = ["esp", "root", "root-verity"];
    for ((a, b), role) in first.partitions.iter().zip(&second.partitions).zip(roles) {
        if changed(role) {
            let window = |disk: &Content, part: &crate::manifest::Partition| {
                Content::new(part.size, Arc::new(disk.clone()), part.offset)
            };
            let bytes = self::difference(&window(&one, a), &window(&other, b))?;
            discrepancies.push(PartDiscrepancy { name: role.to_owned(), bytes });
        }
    }
    Ok(discrepancies)
}

/// The files of one file system. `first` and `second` have the times of those that differ in nothing else.
fn files(
    partition: &'static str,
    difference: &FilesDifference,
    first: &[File],
    second: &[File],
) -> Vec<FileDiscrepancy> {
    let times = |files: &[File]| -> BTreeMap<String, String> {
        files.iter().map(|file| (file.path.clone(), file.mtime.to_string())).collect()
    };
    let only = |file: &File, before: bool| {
        let kind = Some(file.kind.clone());
        let (before, after) = if before { (kind, None) } else { (None, kind) };
        (file.path.clone(), vec![Field { name: "name".to_owned(), before, after }])
    };
    let mut all: BTreeMap<String, Vec<Field>> = BTreeMap::new();
    all.extend(difference.removed.iter().map(|file| only(file, true)));
    all.extend(difference.added.iter().map(|file| only(file, false)));
    all.extend(difference.changed.iter().map(|change| (change.path.clone(), change.changes.clone())));
    if !difference.retimed.is_empty() {
        let (before, after) = (times(first), times(second));
        all.extend(difference.retimed.iter().map(|path| {
            let (before, after) = (before.get(path).cloned(), after.get(path).cloned());
            (path.clone(), vec![Field { name: "mtime".to_owned(), before, after }])
        }));
    }
    let discrepancy = |(path, changes)| FileDiscrepancy { partition, path, changes, bytes: None, writer: None };
    all.into_iter().map(discrepancy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(first: &str, second: &str) -> Option<(u64, String, String, u64)> {
        let found = difference(&Content::from_bytes(first), &Content::from_bytes(second)).unwrap()?;
        Some((found.offset, found.first, found.second, found.count))
    }

    #[test]
    fn the_first_differing_bytes_are_told() {
        assert_eq!(bytes("same", "same"), None);
        assert_eq!(bytes("ab-d", "abXY"), Some((2, "2d64".into(), "5859".into(), 2)));
        assert_eq!(bytes("ab", "abc"), Some((2, String::new(), "63".into(), 1)));
        let long = "x".repeat(CHUNK * 2);
        let other = format!("{}y{}", &long[..CHUNK + 7], &long[CHUNK + 8..]);
        let (offset, first, _, count) = bytes(&long, &other).unwrap();
        assert_eq!((offset, first.len(), count), (CHUNK as u64 + 7, 32, 1));
    }
}
