//! What boots an image: kernel, command line, initrd, sections of the kernel image, partitions.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use serde::Serialize;

use super::files::{self, FilesDifference};
use super::{Field, NotCompared, Subject, changed};
use crate::filesystem::cpio;
use crate::manifest;
use crate::tree::Content;

/// Longest initrd that is unpacked: the largest of distributions have 300 MB.
const INITRD_MAX: u64 = 1 << 30;
/// Longest command line that is compared word by word: the kernel's limit is 4096 bytes on the largest architecture.
const WORDS_MAX: usize = 4096;

/// A word of the command line that is another one afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WordChange {
    /// `None`: it was added.
    pub before: Option<String>,
    /// `None`: it was removed.
    pub after: Option<String>,
}

/// A kernel command line that is another one afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommandLine {
    /// All of it, in the first subject.
    pub before: String,
    /// All of it, in the second subject.
    pub after: String,
    /// Word by word; empty if only the spaces between them differ.
    pub words: Vec<WordChange>,
}

/// A section or a partition that was added, removed or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartChange {
    /// Its name or role.
    pub part: String,
    /// All fields if it was added or removed; those that differ if it was changed.
    pub changes: Vec<Field>,
}

/// All in which two images boot differently.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BootDifference {
    /// The kernel's release.
    pub kernel: Option<Field>,
    /// The kernel command line.
    pub command_line: Option<CommandLine>,
    /// Sections of the unified kernel image, in the order of the file.
    pub sections: Vec<PartChange>,
    /// Files of the initrd; `None` if it is the same, or could not be read.
    pub initrd: Option<FilesDifference>,
    /// Partitions, in the order of the disk.
    pub partitions: Vec<PartChange>,
}

impl BootDifference {
    /// Whether both boot the same.
    pub fn is_empty(&self) -> bool {
        self.kernel.is_none()
            && self.command_line.is_none()
            && self.sections.is_empty()
            && self.initrd.is_none()
            && self.partitions.is_empty()
    }
}

pub(super) fn compare(before: &Subject, after: &Subject, not_compared: &mut Vec<NotCompared>) -> BootDifference {
    let kernel = changed([("kernel", Some(before.uname.clone()), Some(after.uname.clone()))]).pop();
    let command_line = (before.command_line != after.command_line).then(|| CommandLine {
        before: before.command_line.clone(),
        after: after.command_line.clone(),
        words: words(&before.command_line, &after.command_line),
    });
    let sections = compare_parts(&before.sections.iter().map(section).collect::<Vec<_>>(), &{
        after.sections.iter().map(section).collect::<Vec<_>>()
    });
    let partitions = compare_parts(&before.partitions.iter().map(partition).collect::<Vec<_>>(), &{
        after.partitions.iter().map(partition).collect::<Vec<_>>()
    });
    let digest = |subject: &Subject| subject.sections.iter().find(|s| s.name == ".initrd").map(|s| s.sha256);
    let initrd = if digest(before) == digest(after) {
        None
    } else {
        match initrd(before, after) {
            Ok(difference) => Some(difference),
            Err(why) => {
                not_compared.push(NotCompared { what: "files of the initrd".to_owned(), why });
                None
            }
        }
    };
    BootDifference { kernel, command_line, sections, initrd, partitions }
}

type Part<'n> = (&'n str, Vec<(&'static str, String)>);

fn section(section: &manifest::Section) -> Part<'_> {
    let fields = vec![("size", section.size.to_string()), ("sha256", section.sha256.to_string())];
    (&section.name, fields)
}

/// By its role, for the labels hold the version.
fn partition(partition: &manifest::Partition) -> Part<'_> {
    let rows = crate::architecture::ROWS;
    let role = match partition.type_uuid {
        uuid if uuid == crate::disk::ESP => "esp",
        uuid if rows.iter().any(|row| row.root == uuid) => "root",
        uuid if rows.iter().any(|row| row.root_verity == uuid) => "root-verity",
        _ => partition.label.as_str(),
    };
    let fields = vec![
        ("label", partition.label.clone()),
        ("type", partition.type_uuid.to_string()),
        ("uuid", partition.uuid.to_string()),
        ("attributes", partition.attributes.clone()),
        ("offset", partition.offset.to_string()),
        ("size", partition.size.to_string()),
        ("sha256", partition.sha256.to_string()),
    ];
    (role, fields)
}

/// In the order of `after`, what was removed last. Parts of one name are told apart by how many came before.
fn compare_parts(before: &[Part<'_>], after: &[Part<'_>]) -> Vec<PartChange> {
    let mut old: BTreeMap<_, _> = numbered(before).into_iter().collect();
    let mut found = Vec::new();
    for (key, new) in numbered(after) {
        let old = old.remove(&key);
        found.extend(part_change(key.0, old, Some(new)));
    }
    found.extend(old.into_iter().filter_map(|((name, _), old)| part_change(name, Some(old), None)));
    found
}

type Fields = [(&'static str, String)];
type Numbered<'p> = ((&'p str, usize), &'p Fields);

fn numbered<'p>(parts: &'p [Part<'p>]) -> Vec<Numbered<'p>> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let number = |(name, fields): &'p Part<'p>| {
        let count = seen.entry(name).or_default();
        *count += 1;
        ((*name, *count), fields.as_slice())
    };
    parts.iter().map(number).collect()
}

/// All parts have the same fields in the same order.
fn part_change(name: &str, old: Option<&Fields>, new: Option<&Fields>) -> Option<PartChange> {
    let value = |part: Option<&Fields>, index: usize| part.map(|part| part[index].1.clone());
    let fields = old.or(new)?.iter().enumerate();
    let changes = changed(fields.map(|(index, (field, _))| (*field, value(old, index), value(new, index))));
    (!changes.is_empty()).then(|| PartChange { part: name.to_owned(), changes })
}

/// The words in which two command lines differ: what a longest common subsequence leaves, a removed and an added word
/// with the same key being one that changed.
fn words(before: &str, after: &str) -> Vec<WordChange> {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.split_whitespace().collect(), after.split_whitespace().collect());
    if old.len() > WORDS_MAX || new.len() > WORDS_MAX {
        return vec![WordChange { before: Some(before.to_owned()), after: Some(after.to_owned()) }];
    }
    let (removed, mut added) = uncommon(&old, &new);
    let key = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
    let mut changes = Vec::new();
    for word in removed {
        let same_key = added.iter().position(|other| key(other) == key(word));
        let after = same_key.map(|index| added.remove(index).to_owned());
        changes.push(WordChange { before: Some(word.to_owned()), after });
    }
    changes.extend(added.into_iter().map(|word| WordChange { before: None, after: Some(word.to_owned()) }));
    changes
}

fn uncommon<'w>(old: &[&'w str], new: &[&'w str]) -> (Vec<&'w str>, Vec<&'w str>) {
    let width = new.len() + 1;
    // lengths[i * width + j]: of the longest common subsequence of old[i..] and new[j..].
    let mut lengths = vec![0u16; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            lengths[i * width + j] = match old[i] == new[j] {
                true => lengths[(i + 1) * width + j + 1] + 1,
                false => lengths[(i + 1) * width + j].max(lengths[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let (mut removed, mut added) = (Vec::new(), Vec::new());
    while i < old.len() && j < new.len() {
        if old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if lengths[(i + 1) * width + j] >= lengths[i * width + j + 1] {
            removed.push(old[i]);
            i += 1;
        } else {
            added.push(new[j]);
            j += 1;
        }
    }
    removed.extend(&old[i..]);
    added.extend(&new[j..]);
    (removed, added)
}

fn initrd(before: &Subject, after: &Subject) -> Result<FilesDifference, String> {
    let mut lists = Vec::new();
    for subject in [before, after] {
        let content = subject.initrd.as_ref();
        let content = content.ok_or_else(|| format!("of {} there is only the manifest", subject.label))?;
        lists.push(initrd_files(content).map_err(|why| format!("that of {} cannot be read: {why}", subject.label))?);
    }
    Ok(files::compare(&lists[0], &lists[1]))
}

fn initrd_files(content: &Content) -> Result<Vec<manifest::File>, String> {
    let refuse = |error: &dyn std::fmt::Display| error.to_string();
    let mut bytes = Vec::new();
    let mut magic = [0; 4];
    content.read_exact_at(&mut magic, 0).map_err(|error| refuse(&error))?;
    // RFC 8878 section 3.1.1
    let read = if magic == [0x28, 0xb5, 0x2f, 0xfd] {
        let decoder = zstd::stream::read::Decoder::new(content.reader()).map_err(|error| refuse(&error))?;
        decoder.take(INITRD_MAX + 1).read_to_end(&mut bytes)
    } else {
        content.reader().take(INITRD_MAX + 1).read_to_end(&mut bytes)
    };
    read.map_err(|error| refuse(&error))?;
    if bytes.len() as u64 > INITRD_MAX {
        return Err(format!("it has more than {INITRD_MAX} bytes"));
    }
    let tree = cpio::read(Arc::new(bytes)).map_err(|error| refuse(&error))?;
    manifest::files(&tree).map_err(|error| refuse(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_moved_changed_or_went_are_told_apart() {
        let change = |before: Option<&str>, after: Option<&str>| WordChange {
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        };
        assert_eq!(words("a b=1 c", "a  b=2 c d"), [change(Some("b=1"), Some("b=2")), change(None, Some("d"))]);
        assert_eq!(words("console=a console=b", "console=b"), [change(Some("console=a"), None)]);
        // The order counts: the last console is the one.
        assert_eq!(words("x y", "y x"), [change(Some("x"), Some("x"))]);
        assert_eq!(words("", "quiet"), [change(None, Some("quiet"))]);
        assert_eq!(words("a  b", "a b"), []);
        let long = "w ".repeat(WORDS_MAX + 1);
        assert_eq!(words(&long, "a").len(), 1);
    }

    #[test]
    fn parts_are_paired_by_name_and_number() {
        let part = |size: &str| vec![("size", size.to_owned())];
        let before = [(".a", part("1")), (".a", part("2")), (".gone", part("3"))];
        let after = [(".a", part("1")), (".new", part("4")), (".a", part("5"))];
        let found = compare_parts(&before, &after);
        let list: Vec<_> = found
            .iter()
            .map(|part| (part.part.as_str(), part.changes[0].before.as_deref(), part.changes[0].after.as_deref()))
            .collect();
        assert_eq!(list, [(".new", None, Some("4")), (".a", Some("2"), Some("5")), (".gone", Some("3"), None)]);
    }

    #[test]
    fn an_initrd_that_is_none_is_refused() {
        for bytes in [&b""[..], b"abc", b"\x28\xb5\x2f\xfd broken", b"no archive at all"] {
            assert!(initrd_files(&Content::from_bytes(bytes)).is_err());
        }
    }
}
