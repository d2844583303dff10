//! Names in the root file system: added, removed, changed and in what.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Field, changed};
use crate::manifest::File;

/// A name that stands for something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Where it is.
    pub path: String,
    /// In what: `type`, `mode`, `uid`, `gid`, `size`, `sha256`, `target`, `device`, `hard_link_to`, `mtime`,
    /// `xattr NAME`.
    pub changes: Vec<Field>,
}

/// How two lists of files differ; each list in the order of paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FilesDifference {
    /// Only in the second.
    pub added: Vec<File>,
    /// Only in the first.
    pub removed: Vec<File>,
    /// In both, and not the same.
    pub changed: Vec<FileChange>,
    /// In both, and the same but for the time of the last change: that is the epoch for all that a build makes.
    pub retimed: Vec<String>,
}

impl FilesDifference {
    /// Whether the lists are equal.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty() && self.retimed.is_empty()
    }

    /// Every path that differs, and whether it does so in its time only.
    pub(super) fn paths(&self) -> impl Iterator<Item = (&str, bool)> {
        let whole = self.added.iter().chain(&self.removed).map(|file| file.path.as_str());
        let whole = whole.chain(self.changed.iter().map(|change| change.path.as_str()));
        whole.map(|path| (path, false)).chain(self.retimed.iter().map(|path| (path.as_str(), true)))
    }
}

/// Compares two lists of files.
pub(super) fn compare(before: &[File], after: &[File]) -> FilesDifference {
    let mut old: BTreeMap<&str, &File> = by_path(before);
    let mut difference = FilesDifference::default();
    for (path, after) in by_path(after) {
        let Some(before) = old.remove(path) else {
            difference.added.push(after.clone());
            continue;
        };
        let changes = changes(before, after);
        match changes.iter().all(|change| change.name == "mtime") {
            _ if changes.is_empty() => {}
            true => difference.retimed.push(path.to_owned()),
            false => difference.changed.push(FileChange { path: path.to_owned(), changes }),
        }
    }
    difference.removed = old.into_values().cloned().collect();
    difference
}

fn by_path(files: &[File]) -> BTreeMap<&str, &File> {
    files.iter().map(|file| (file.path.as_str(), file)).collect()
}

/// In what two files of one name differ.
pub(super) fn changes(before: &File, after: &File) -> Vec<Field> {
    let time = |file: &File| match file.mtime_nanoseconds {
        0 => file.mtime.to_string(),
        nanoseconds => format!("{}.{nanoseconds:09}", file.mtime),
    };
    let pair = |name, value: &dyn Fn(&File) -> Option<String>| (name, value(before), value(after));
    let mut changes = changed([
        pair("type", &|file| Some(file.kind.clone())),
        pair("mode", &|file| Some(file.mode.clone())),
        pair("uid", &|file| Some(file.uid.to_string())),
        pair("gid", &|file| Some(file.gid.to_string())),
        pair("size", &|file| file.size.map(|size| size.to_string())),
        pair("sha256", &|file| file.sha256.map(|digest| digest.to_string())),
        pair("target", &|file| file.target.clone()),
        pair("device", &|file| file.device.clone()),
        pair("hard_link_to", &|file| file.hard_link_to.clone()),
    ]);
    let names: std::collections::BTreeSet<&String> = before.xattrs.keys().chain(after.xattrs.keys()).collect();
    for name in names {
        let (before, after) = (before.xattrs.get(name).cloned(), after.xattrs.get(name).cloned());
        if before != after {
            changes.push(Field { name: format!("xattr {name}"), before, after });
        }
    }
    changes.extend(changed([("mtime", Some(time(before)), Some(time(after)))]));
    changes
}
