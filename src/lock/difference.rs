//! What changed between two locks.

use std::collections::BTreeMap;

use super::{Lock, LockedPackage};

/// What changed between two locks, set by set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// The sets that changed, by name.
    pub sets: BTreeMap<String, SetDifference>,
    /// The image's time, before and after, if it changed.
    pub epoch: Option<(u64, u64)>,
    /// Whether the locks answer different requests.
    pub request_changed: bool,
}

/// What changed in one set; each list in the order of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetDifference {
    /// Only in the second.
    pub added: Vec<LockedPackage>,
    /// Only in the first.
    pub removed: Vec<LockedPackage>,
    /// In both, and not the same file.
    pub changed: Vec<Change>,
}

/// A package that is another file now. Its version may even be the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// In the first lock.
    pub before: LockedPackage,
    /// In the second.
    pub after: LockedPackage,
}

impl Difference {
    /// Whether the same packages are installed.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }
}

/// What must be done to `before` to get `after`.
pub fn difference(before: &Lock, after: &Lock) -> Difference {
    let mut sets = BTreeMap::new();
    for name in before.sets.keys().chain(after.sets.keys()) {
        let of = |lock: &Lock| lock.sets.get(name).map_or(Vec::new(), Clone::clone);
        let changed = set_difference(of(before), of(after));
        if changed != SetDifference::default() {
            sets.insert(name.clone(), changed);
        }
    }
    Difference {
        sets,
        epoch: (before.epoch != after.epoch).then_some((before.epoch, after.epoch)),
        request_changed: before.request != after.request,
    }
}

fn set_difference(before: Vec<LockedPackage>, after: Vec<LockedPackage>) -> SetDifference {
    let mut old: BTreeMap<String, LockedPackage> = before.into_iter().map(|one| (one.name.clone(), one)).collect();
    let mut difference = SetDifference::default();
    for package in after {
        match old.remove(&package.name) {
            None => difference.added.push(package),
            // Where a file lies, and in which repository, is no change of the image.
            Some(other) if other.digest == package.digest && other.version == package.version => {}
            Some(other) => difference.changed.push(Change { before: other, after: package }),
        }
    }
    difference.removed = old.into_values().collect();
    difference.added.sort();
    difference
}
