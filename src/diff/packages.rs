//! Packages: added, removed, other versions, with what their changelogs say of the versions between.

use std::collections::BTreeMap;
use std::io::Read;

use serde::Serialize;

use super::changelog::{self, Entry};
use super::{NotCompared, Package, Source, Subject};
use crate::apt::changelog::cves;
use crate::apt::version;
use crate::tree::{Kind, Tree};

/// Longest changelog that is read, uncompressed: the kernel's has 3 MB.
const CHANGELOG_MAX: u64 = 32 << 20;

/// A package that is another one afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackageChange {
    /// In the first subject.
    pub before: Package,
    /// In the second subject.
    pub after: Package,
    /// `upgrade`, `downgrade`, or `rebuild`: another file of the same version.
    pub direction: &'static str,
    /// What the package's changelog, if it is in the image, says of the versions after the older and up to the newer
    /// one, the newest first.
    pub changelog: Vec<Entry>,
    /// The vulnerabilities that these entries name.
    pub cves: Vec<String>,
}

/// How two lists of packages differ; each list by set, the system's first, and name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PackagesDifference {
    /// Only in the second.
    pub added: Vec<Package>,
    /// Only in the first.
    pub removed: Vec<Package>,
    /// In both, and not the same.
    pub changed: Vec<PackageChange>,
}

impl PackagesDifference {
    /// Set and name of every package that differs.
    pub(super) fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        let changed = self.changed.iter().map(|change| &change.after);
        changed.chain(&self.added).chain(&self.removed).map(|package| (&*package.set, &*package.name))
    }

    /// Whether the lists are equal.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

pub(super) fn compare(before: &Subject, after: &Subject, not_compared: &mut Vec<NotCompared>) -> PackagesDifference {
    let refuse = |what: &str, why: String| NotCompared { what: what.to_owned(), why };
    let (Some(old), Some(new)) = (&before.packages, &after.packages) else {
        not_compared.push(refuse("packages", "an image has no package database and no manifest".to_owned()));
        return PackagesDifference::default();
    };
    // A database in an image has the packages of the system only.
    let bare = [before, after].into_iter().find(|subject| subject.source == Source::Image);
    let known = |package: &&Package| bare.is_none() || package.set == "system";
    if let Some(bare) = bare {
        let why = format!("only a manifest says them, and there is none beside {}", bare.label);
        not_compared.push(refuse("packages of the initrd, digests of packages", why));
    }
    let mut difference = compare_lists(old.iter().filter(known), new.iter().filter(known));
    let mut unread = Vec::new();
    for change in difference.changed.iter_mut().filter(|change| change.before.set == "system") {
        // The newer one's changelog has both versions.
        let (older, newer, subject, other) = match change.direction {
            "upgrade" => (&change.before, &change.after, after, before),
            "downgrade" => (&change.after, &change.before, before, after),
            _ => continue,
        };
        match &subject.tree {
            None => unread.push(subject.label.as_str()),
            Some(tree) => {
                let text = read_changelog(tree, &newer.name).unwrap_or_default();
                let earlier = other.tree.as_ref().and_then(|tree| read_changelog(tree, &older.name));
                let found = changelog::entries_between(&text, earlier.as_deref(), &older.version, &newer.version);
                let lines = found.iter().flat_map(|entry| &entry.changes).map(String::as_str);
                change.cves = cves(&lines.collect::<Vec<_>>().join("\n")).into_iter().collect();
                change.changelog = found;
            }
        }
    }
    unread.dedup();
    if !unread.is_empty() {
        let why = format!("they are in the image, and of {} there is only the manifest", unread.join(" and "));
        not_compared.push(refuse("changelogs of packages", why));
    }
    difference
}

fn compare_lists<'p>(
    before: impl Iterator<Item = &'p Package>,
    after: impl Iterator<Item = &'p Package>,
) -> PackagesDifference {
    let mut difference = PackagesDifference::default();
    let mut old: BTreeMap<(&str, &str, &str), &Package> =
        before.map(|package| ((&*package.set, &*package.name, &*package.architecture), package)).collect();
    let mut pairs = Vec::new();
    let mut added = Vec::new();
    for package in after {
        match old.remove(&(&*package.set, &*package.name, &*package.architecture)) {
            Some(before) => pairs.push((before, package)),
            None => added.push(package),
        }
    }
    for package in added {
        // `all` became `amd64`, or the other way round: still the same package.
        let other = old.range((&*package.set, &*package.name, "")..).next().map(|(key, _)| *key);
        let other = other.filter(|(set, name, _)| (*set, *name) == (&*package.set, &*package.name));
        match other.and_then(|key| old.remove(&key)) {
            Some(before) => pairs.push((before, package)),
            None => difference.added.push(package.clone()),
        }
    }
    difference.removed = old.into_values().cloned().collect();
    difference.changed = pairs.into_iter().filter_map(|(before, after)| change(before, after)).collect();
    difference.added.sort_by(order);
    difference.removed.sort_by(order);
    difference.changed.sort_by(|a, b| order(&a.after, &b.after));
    difference
}

/// What runs comes before what boots it.
fn order(one: &Package, other: &Package) -> std::cmp::Ordering {
    (one.set != "system", one).cmp(&(other.set != "system", other))
}

fn change(before: &Package, after: &Package) -> Option<PackageChange> {
    let rebuilt = matches!((before.sha256, after.sha256), (Some(before), Some(after)) if before != after);
    let direction = match version::compare(&before.version, &after.version) {
        std::cmp::Ordering::Less => "upgrade",
        std::cmp::Ordering::Greater => "downgrade",
        std::cmp::Ordering::Equal if rebuilt || before.version != after.version => "rebuild",
        std::cmp::Ordering::Equal if before.architecture != after.architecture => "rebuild",
        std::cmp::Ordering::Equal => return None,
    };
    Some(PackageChange {
        before: before.clone(),
        after: after.clone(),
        direction,
        changelog: Vec::new(),
        cves: Vec::new(),
    })
}

/// Debian Policy 12.7: packages with Debian revisions have `changelog.Debian.gz`, native ones `changelog.gz`.
fn read_changelog(tree: &Tree, package: &str) -> Option<String> {
    let paths = ["changelog.Debian.gz", "changelog.gz"].map(|name| format!("usr/share/doc/{package}/{name}"));
    let node = paths.iter().find_map(|path| tree.resolve(path.as_bytes()).ok())?.1;
    let Kind::File(content) = &tree.node(node).kind else { return None };
    let mut text = Vec::new();
    flate2::read::MultiGzDecoder::new(content.reader()).take(CHANGELOG_MAX).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}
