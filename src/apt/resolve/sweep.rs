//! Leaving out again what nobody needs: a package that failed may have pulled in others before it did.
//!
//! As in apt, everything that an installed package depends on, recommends or suggests counts as needed, recommended
//! packages even where they are not followed: `pkgDepCache::MarkRequired`, `DoAutomaticRemove`.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::super::packages::RelationField;
use super::super::universe::{Dependency, PackageId, VersionId};
use super::super::version;
use super::mark::Manner;
use super::state::{State, is_negative};

impl State<'_, '_> {
    /// Unmarks what nothing that was asked for leads to.
    pub fn sweep(&mut self) {
        let needed = self.needed();
        let packages: Vec<PackageId> = self.universe.packages().collect();
        let mut removed: Vec<PackageId> = Vec::new();
        for &package in &packages {
            let choice = self.choice(package);
            let kept = choice.protected || self.is_root(package);
            if choice.marked && !needed[package.0 as usize] && !kept && self.unmark(package) {
                removed.push(package);
            }
        }
        // Something protected but not needed may still want one of them.
        if removed.is_empty() || !packages.iter().any(|&package| self.is_broken_or_lacks_recommended(package)) {
            return;
        }
        while let Some(at) = removed.iter().position(|&package| self.is_wanted_by_marked(package)) {
            let package = removed.remove(at);
            self.mark(package, Manner { follow: false, asked_for: false, depth: 0 });
        }
    }

    /// Whether the package is there for its own sake.
    fn is_root(&self, package: PackageId) -> bool {
        let known = self.universe.package(package);
        !self.choice(package).automatic || known.essential || known.important
    }

    fn needed(&self) -> Vec<bool> {
        let mut walk = Walk { needed: vec![false; self.choices.len()], explored: vec![false; self.choices.len()] };
        let mut stack: Vec<VersionId> = Vec::new();
        for package in self.universe.packages() {
            let choice = self.choice(package);
            stack.extend(choice.install.filter(|_| choice.marked && self.is_root(package)));
        }
        while let Some(version) = stack.pop() {
            let package = self.universe.version(version).package;
            if std::mem::replace(&mut walk.needed[package.0 as usize], true) {
                continue;
            }
            for dependency in self.universe.dependencies(version) {
                if !is_negative(dependency.field) && !walk.explored[dependency.target.0 as usize] {
                    self.follow(dependency, &mut walk, &mut stack);
                }
            }
        }
        walk.needed
    }

    /// Pushes what satisfies the dependency; of several versions from one source only those of its newest.
    fn follow(&self, dependency: &Dependency<'_>, walk: &mut Walk, stack: &mut Vec<VersionId>) {
        let universe = self.universe;
        let marked =
            |package| Some(self.choice(package)).filter(|choice| choice.marked).and_then(|choice| choice.install);
        let mut by_source: BTreeMap<&str, Vec<VersionId>> = BTreeMap::new();
        let mut unsatisfied = false;
        if let Some(version) = marked(dependency.target) {
            if universe.is_satisfied_by(dependency, version) {
                by_source.entry(self.source(version).0).or_default().push(version);
            } else {
                unsatisfied = true;
            }
        }
        for provider in &universe.package(dependency.target).providers {
            if marked(universe.version(provider.version).package) == Some(provider.version) {
                if universe.is_satisfied_by_provider(dependency, provider) {
                    by_source.entry(self.source(provider.version).0).or_default().push(provider.version);
                } else {
                    unsatisfied = true;
                }
            }
        }
        walk.explored[dependency.target.0 as usize] |= !unsatisfied;
        for versions in by_source.values() {
            let newest = versions.iter().map(|&one| self.source(one).1).max_by(|a, b| version::compare(a, b));
            let is_newest = |one: &&VersionId| {
                newest.is_none_or(|newest| version::compare(self.source(**one).1, newest) == Ordering::Equal)
            };
            stack.extend(versions.iter().filter(is_newest));
        }
    }

    /// Name and version of the source package.
    fn source(&self, version: VersionId) -> (&str, &str) {
        let own = self.universe.version(version);
        let source = self.universe.index(version).source(own.record);
        let (name, rest) = source.split_once(' ').unwrap_or((source, ""));
        let source_version = rest.trim().trim_start_matches('(').trim_end_matches(')').trim();
        (
            if name.is_empty() { self.universe.name(own.package) } else { name },
            if source_version.is_empty() { own.text } else { source_version },
        )
    }

    /// Whether anything marked names the package, or something that it provides, in a relation that matters.
    fn is_wanted_by_marked(&self, package: PackageId) -> bool {
        let Some(candidate) = self.choice(package).candidate else { return false };
        let stands_for = |dependency: &Dependency<'_>| {
            let providers = &self.universe.package(dependency.target).providers;
            dependency.target == package || providers.iter().any(|provider| provider.version == candidate)
        };
        self.universe.packages().filter_map(|other| self.choice(other).install).any(|version| {
            self.universe.dependencies(version).iter().any(|dependency| {
                !is_negative(dependency.field)
                    && dependency.field != RelationField::Suggests
                    && self.is_important(dependency.field)
                    && stands_for(dependency)
            })
        })
    }
}

struct Walk {
    needed: Vec<bool>,
    explored: Vec<bool>,
}
