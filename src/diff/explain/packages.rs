//! Why a package is another one: the recipe asks for it, another package needs it, or the lock chose it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::{Causes, Chain, Effect};
use crate::apt::control::Paragraph;
use crate::apt::relation;
use crate::lock::LockedIndex;
use crate::manifest::Manifest;
use crate::tree::{Kind, Tree};

/// Fields of a recipe that decide what is locked.
const LOCK_FIELDS: [&str; 7] =
    ["architecture", "debian", "repositories", "packages", "recommends", "scripts", "initrd.packages"];
/// Longest package database that is read.
const STATUS_MAX: u64 = 256 << 20;

impl Chain<'_> {
    /// The node of a package that differs; `None` if it does not.
    pub(super) fn package(&mut self, set: &str, name: &str) -> Option<usize> {
        let key = (set.to_owned(), name.to_owned());
        if let Some(found) = self.packages.get(&key) {
            return *found;
        }
        let found = self.find_package(set, name);
        self.packages.insert(key, found);
        found
    }

    fn find_package(&mut self, set: &str, name: &str) -> Option<usize> {
        let packages = &self.difference.packages;
        let is = |package: &&super::super::Package| package.set == set && package.name == name;
        let changed = packages.changed.iter().find(|change| is(&&change.after));
        let version = |package: &super::super::Package| package.version.clone();
        let before = changed.map(|c| &c.before).or(packages.removed.iter().find(is)).map(version);
        let after = changed.map(|c| &c.after).or(packages.added.iter().find(is)).map(version);
        if before.is_none() && after.is_none() {
            return None;
        }
        let effect = Effect::Package {
            set: set.to_owned(),
            name: name.to_owned(),
            repository: self.repository(set, name, after.is_some()),
            before: before.clone(),
            after: after.clone(),
        };
        Some(self.node(effect, |chain| {
            chain.open.push((set.to_owned(), name.to_owned()));
            let causes = match (&before, &after) {
                (None, _) => chain.wanted(set, name, true),
                (_, None) => chain.wanted(set, name, false),
                _ => Causes::default(),
            };
            chain.open.pop();
            match causes.is_empty() {
                true => Causes { because: vec![chain.lock()], perhaps: Vec::new() },
                false => causes,
            }
        }))
    }

    fn repository(&self, set: &str, name: &str, after: bool) -> Option<String> {
        let (old, new) = self.records?;
        let manifest = if after { new } else { old };
        let package = manifest.packages.iter().find(|package| package.set == set && package.name == name)?;
        package.from.as_ref().map(|place| place.repository.clone())
    }

    /// Who asks for a package that is only in the second subject (`added`), or asked for one only in the first.
    fn wanted(&mut self, set: &str, name: &str, added: bool) -> Causes {
        let field = match set {
            "system" => "packages",
            "initrd-additions" => "initrd.packages",
            _ => return Causes::default(),
        };
        let because = self.recipe_nodes(|change| {
            let there = if added { &change.before } else { &change.after };
            change.field == field && change.item.as_deref() == Some(name) && there.is_none()
        });
        if !because.is_empty() || set != "system" {
            return Causes { because, perhaps: Vec::new() };
        }
        let needing = self.needs(added).dependents(name);
        let is_open = |other: &str| self.open.iter().any(|(set, open)| set == "system" && open == other);
        let needing: Vec<String> = needing.into_iter().filter(|other| !is_open(other)).collect();
        Causes::among(needing.iter().filter_map(|other| self.package("system", other)).collect())
    }

    fn needs(&mut self, after: bool) -> Rc<Needs> {
        let subject = if after { self.after } else { self.before };
        let recipe = subject.manifest.as_ref().map(|manifest| manifest.recipe.as_slice()).unwrap_or_default();
        let recommends = recipe.iter().any(|field| field.field == "recommends" && field.value == true);
        let read = || Rc::new(subject.tree.as_ref().map(|tree| Needs::read(tree, recommends)).unwrap_or_default());
        self.needs[usize::from(after)].get_or_insert_with(read).clone()
    }

    /// All packages of the system together; `None` if none differs.
    pub(super) fn installed_packages(&mut self) -> Option<usize> {
        if let Some(found) = self.installed {
            return found;
        }
        let found = self.find_installed_packages();
        self.installed = Some(found);
        found
    }

    fn find_installed_packages(&mut self) -> Option<usize> {
        let all = self.difference.packages.names();
        let names: Vec<String> = all.filter(|(set, _)| *set == "system").map(|(_, name)| name.to_owned()).collect();
        if names.is_empty() {
            return None;
        }
        // One alone needs no summary.
        if let [name] = names.as_slice() {
            return self.package("system", name);
        }
        Some(self.node(Effect::InstalledPackages, |chain| Causes {
            because: names.iter().filter_map(|name| chain.package("system", name)).collect(),
            perhaps: Vec::new(),
        }))
    }

    /// The lock, which is a function of what it was resolved from and of what was asked for.
    pub(super) fn lock(&mut self) -> usize {
        self.node(Effect::Lock, |chain| {
            let mut candidates = chain.indexes(true);
            if chain.records.is_some_and(|(old, new)| {
                old.lock.as_ref().map(|lock| lock.request) != new.lock.as_ref().map(|lock| lock.request)
            }) {
                candidates.extend(chain.recipe_nodes(|change| {
                    let is = |field: &&&str| change.field == **field || change.field.starts_with(&format!("{field}."));
                    LOCK_FIELDS.iter().any(|field| is(&field))
                }));
            }
            candidates.extend(chain.tool());
            chain.or_unknown(Causes::among(candidates), "what the locks were made from is the same")
        })
    }

    /// Indexes that differ; `content`: in what they list.
    pub(super) fn indexes(&mut self, content: bool) -> Vec<usize> {
        let Some((old, new)) = self.records else { return Vec::new() };
        let (mut old, mut found) = (by_name(old), Vec::new());
        let pairs: Vec<_> = by_name(new).into_iter().map(|(name, new)| (old.remove(&name), Some(new), name)).collect();
        let gone: Vec<_> = old.into_iter().map(|(name, old)| (Some(old), None, name)).collect();
        for (old, new, index) in pairs.into_iter().chain(gone) {
            let is_other = old.map(|old| old.digest) != new.map(|new| new.digest);
            let (before, after) = (old.map(|old| old.date), new.map(|new| new.date));
            if is_other || (before != after && !content) {
                found.push(self.leaf(Effect::Index { index, before, after, content: is_other }));
            }
        }
        found
    }

    /// Indexes whose date is the epoch of either lock, and that differ.
    pub(super) fn newest_indexes(&mut self) -> Vec<usize> {
        let Some((old, new)) = self.records else { return Vec::new() };
        let epochs = [old, new].map(|manifest| manifest.lock.as_ref().map(|lock| lock.epoch));
        let all = self.indexes(false);
        let is_newest = |index: &usize| match &self.nodes[*index].effect {
            Effect::Index { before, after, .. } => *before == epochs[0] || *after == epochs[1],
            _ => false,
        };
        all.into_iter().filter(is_newest).collect()
    }
}

fn by_name(manifest: &Manifest) -> BTreeMap<String, &LockedIndex> {
    let name = |index: &LockedIndex| {
        format!("{} {} {} {}", index.repository, index.suite, index.component, index.architecture)
    };
    manifest.indexes.iter().map(|index| (name(index), index)).collect()
}

/// Which installed packages need which names, by dpkg's database.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// By the name that is needed.
    by_name: BTreeMap<String, BTreeSet<String>>,
    /// Further names that a package goes by.
    provides: BTreeMap<String, Vec<String>>,
}

impl Needs {
    /// `recommends`: what is recommended counts as needed.
    fn read(tree: &Tree, recommends: bool) -> Self {
        let mut needs = Self::default();
        let Some(id) = tree.lookup(b"var/lib/dpkg/status") else { return needs };
        let Kind::File(content) = &tree.node(id).kind else { return needs };
        if content.size() > STATUS_MAX {
            return needs;
        }
        let text = String::from_utf8_lossy(&content.to_vec().unwrap_or_default()).into_owned();
        for paragraph in Paragraph::parse_all(&text).unwrap_or_default() {
            let Some(package) = paragraph.get("Package") else { continue };
            let fields = ["Pre-Depends", "Depends", "Recommends"];
            let counted = if recommends { &fields[..] } else { &fields[..2] };
            for needed in counted.iter().flat_map(|field| names(&paragraph, field)) {
                needs.by_name.entry(needed).or_default().insert(package.to_owned());
            }
            needs.provides.entry(package.to_owned()).or_default().extend(names(&paragraph, "Provides"));
        }
        needs
    }

    /// Packages that need `name`, or something that it provides.
    fn dependents(&self, name: &str) -> Vec<String> {
        let provided = self.provides.get(name).into_iter().flatten().map(String::as_str);
        let found = std::iter::once(name).chain(provided).filter_map(|name| self.by_name.get(name)).flatten();
        let found: BTreeSet<&String> = found.filter(|other| *other != name).collect();
        found.into_iter().cloned().collect()
    }
}

fn names(paragraph: &Paragraph<'_>, field: &str) -> Vec<String> {
    let relations = relation::parse(paragraph.get(field).unwrap_or_default()).flatten();
    relations.map(|relation| relation.name.split(':').next().unwrap_or_default().to_owned()).collect()
}
