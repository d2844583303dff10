//! Repairing what marking left broken, as apt's problem resolver does it (`pkgProblemResolver::ResolveInternal`): the
//! packages are gone through from the most to the least important, and of two that exclude each other, the less
//! important one is left out.
//!
//! On an empty system there is nothing to keep or to upgrade, so only that part of it is here. Among packages of the
//! same score the order is that of their names: apt's own is that of an unstable sort over a hash table.

use super::super::packages::{Priority, RelationField};
use super::super::universe::{Dependency, PackageId, VersionId};
use super::mark::Manner;
use super::state::{State, View, groups, is_critical, is_negative};

/// apt gives up after as many rounds.
const MAX_ROUNDS: usize = 20;

struct Repair<'s, 'u, 'a> {
    state: &'s mut State<'u, 'a>,
    scores: Vec<i32>,
    /// Asked for by name, as opposed to protected in the course of marking.
    requested: Vec<bool>,
    /// Tried already as a way out.
    tried: Vec<bool>,
    round: usize,
}

/// What came of looking at one broken group.
enum Outcome {
    /// On to the next group.
    Next,
    /// The package was left out or changed: look at it again in the next round.
    Done,
}

impl<'u, 'a> State<'u, 'a> {
    /// Leaves packages out until nothing is broken, or nothing changes any more.
    pub fn repair(&mut self, requested: &[PackageId]) {
        let count = self.choices.len();
        let mut repair = Repair {
            scores: Vec::new(),
            requested: vec![false; count],
            tried: vec![false; count],
            round: 0,
            state: self,
        };
        requested.iter().for_each(|package| repair.requested[package.0 as usize] = true);
        repair.run();
    }
}

impl<'u> Repair<'_, 'u, '_> {
    fn run(&mut self) {
        let marked = |repair: &Self, package: PackageId| repair.state.choice(package).marked;
        let before: Vec<bool> = self.state.universe.packages().map(|package| marked(self, package)).collect();
        self.score();
        let mut order: Vec<PackageId> = self.state.universe.packages().collect();
        order.sort_by(|&a, &b| {
            let by_name = || self.state.universe.name(a).cmp(self.state.universe.name(b));
            self.score_of(b).cmp(&self.score_of(a)).then_with(by_name)
        });
        let mut changed = true;
        while changed && self.round < MAX_ROUNDS {
            changed = false;
            for &package in &order {
                if self.state.is_broken(package) {
                    changed |= self.investigate(package);
                }
            }
            self.round += 1;
        }
        for package in self.state.universe.packages() {
            if marked(self, package) && !before[package.0 as usize] {
                self.state.choice_mut(package).automatic = true;
            }
        }
    }

    fn score_of(&self, package: PackageId) -> i32 {
        self.scores[package.0 as usize]
    }

    /// One broken package. Whether anything changed.
    fn investigate(&mut self, package: PackageId) -> bool {
        let Some(version) = self.state.choice(package).install else { return false };
        let mut killed: Vec<PackageId> = Vec::new();
        let mut changed = false;
        for group in groups(self.state.universe.dependencies(version)) {
            if !is_critical(group[0].field) || self.state.holds(package, group) {
                continue;
            }
            if let Outcome::Done = self.solve(package, group, &mut killed, &mut changed) {
                break;
            }
        }
        if self.state.choice(package).install.is_none() {
            return changed;
        }
        for other in killed {
            let removed = self.state.unmark(other);
            let (own, others) = (self.score_of(package), &mut self.scores[other.0 as usize]);
            if (!removed || self.round > 1) && own > *others {
                *others = own;
                changed = true;
            }
            changed |= removed;
        }
        changed
    }

    fn solve(
        &mut self,
        package: PackageId,
        group: &'u [Dependency<'_>],
        killed: &mut Vec<PackageId>,
        changed: &mut bool,
    ) -> Outcome {
        let alternatives = group.len() > 1;
        let killed_before = killed.len();
        let mut may_keep_out = false;
        for dependency in group {
            let targets = self.all_targets(package, dependency);
            let negative = is_negative(dependency.field);
            if targets.is_empty() {
                if alternatives || negative || self.state.choice(package).protected {
                    continue;
                }
                *changed = true;
                self.state.unmark(package);
                return Outcome::Done;
            }
            let mut done = false;
            for target in targets {
                let other = self.state.universe.version(target).package;
                if negative && self.state.choice(other).install != Some(target) {
                    continue;
                }
                if negative && self.score_of(package) > self.score_of(other) {
                    if !self.state.choice(other).protected {
                        killed.push(other);
                    }
                    continue;
                }
                if self.state.choice(package).protected {
                    if self.try_install(other, 0) {
                        let own = self.score_of(package);
                        let others = &mut self.scores[other.0 as usize];
                        *others = own.min(*others);
                        break;
                    }
                    continue;
                }
                let was_marked = self.state.choice(package).marked;
                self.state.unmark(package);
                may_keep_out = true;
                // Another alternative may still do: the end of the group decides.
                if alternatives && was_marked {
                    self.state.mark(package, Manner { follow: false, asked_for: false, depth: 0 });
                }
                (*changed, done) = (true, true);
                break;
            }
            if !alternatives && done {
                return Outcome::Done;
            }
            if alternatives && self.state.holds(package, group) {
                return Outcome::Next;
            }
        }
        if alternatives && killed.len() == killed_before && (may_keep_out || !self.state.choice(package).protected) {
            self.state.unmark(package);
            *changed = true;
        }
        Outcome::Next
    }

    /// Every version, candidate or not, that satisfies the dependency or is hit by the conflict.
    fn all_targets(&self, owner: PackageId, dependency: &Dependency<'_>) -> Vec<VersionId> {
        let universe = self.state.universe;
        let target = universe.package(dependency.target);
        let negative = is_negative(dependency.field);
        let own = target.versions.iter().copied().filter(|&version| {
            !(negative && dependency.target == owner) && universe.is_satisfied_by(dependency, version)
        });
        let provided = target.providers.iter().rev().filter(|provider| {
            !(negative && universe.version(provider.version).package == owner)
                && universe.is_satisfied_by_provider(dependency, provider)
        });
        own.chain(provided.map(|provider| provider.version)).collect()
    }

    /// Installs a package that would help, if what it needs can be installed in the same way.
    fn try_install(&mut self, package: PackageId, depth: usize) -> bool {
        let at = package.0 as usize;
        if self.tried[at] || self.state.choices[at].candidate.is_none() || self.requested[at] {
            return false;
        }
        self.tried[at] = true;
        if !self.state.mark(package, Manner { follow: false, asked_for: false, depth }) {
            return false;
        }
        let Some(version) = self.state.choice(package).install else { return false };
        for group in groups(self.state.universe.dependencies(version)) {
            if is_critical(group[0].field) && !self.install_one_of(package, group, depth + 1) {
                self.state.unmark(package);
                return false;
            }
        }
        true
    }

    fn install_one_of(&mut self, package: PackageId, group: &'u [Dependency<'_>], depth: usize) -> bool {
        // Looking at the whole group again is worth it only if something happened: groups may be long.
        let mut happened = true;
        for dependency in group {
            if happened && self.state.holds(package, group) {
                return true;
            }
            happened = false;
            let universe = self.state.universe;
            let known = universe.package(dependency.target);
            let virtual_only = known.versions.is_empty();
            let provider = known.providers.last().filter(|_| virtual_only);
            let target = provider.map_or(dependency.target, |provider| universe.version(provider.version).package);
            if self.state.choice(target).protected {
                continue;
            }
            // Conflicts are left to the next round, which is better at them.
            if is_negative(dependency.field) {
                return true;
            }
            if self.state.has_target(package, dependency, View::Believed) {
                happened = true;
                if self.try_install(target, depth) {
                    return true;
                }
            }
        }
        self.state.holds(package, group)
    }

    /// How much would break without each package.
    fn score(&mut self) {
        let universe = self.state.universe;
        self.scores = vec![0; self.state.choices.len()];
        let installed: Vec<(PackageId, VersionId)> =
            universe.packages().filter_map(|package| Some((package, self.state.choice(package).install?))).collect();
        for &(package, version) in &installed {
            let known = universe.package(package);
            self.scores[package.0 as usize] += if known.essential || known.important { 100 } else { 0 };
            self.scores[package.0 as usize] += match universe.priority(version) {
                Priority::Required => 3,
                Priority::Important => 2,
                Priority::Standard => 1,
                Priority::Optional => -1,
                Priority::Extra => -2,
            };
            for dependency in universe.dependencies(version) {
                self.score_dependency(package, dependency);
            }
        }
        let direct = self.scores.clone();
        for &(package, version) in &installed {
            let inherited = direct[package.0 as usize];
            for dependency in universe.dependencies(version) {
                let target = dependency.target.0 as usize;
                if inherited > 0 && weight(dependency.field) > 0 && self.state.choices[target].install.is_some() {
                    self.scores[target] += inherited;
                }
            }
        }
        for package in universe.packages() {
            let transferred = (self.score_of(package) - direct[package.0 as usize]).abs();
            for provider in self.installed_providers(package, |_| true).into_iter().filter(|_| transferred != 0) {
                self.scores[provider.0 as usize] += transferred;
            }
        }
        for package in universe.packages() {
            let known = universe.package(package);
            self.scores[package.0 as usize] += if self.requested[package.0 as usize] { 10_000 } else { 0 };
            self.scores[package.0 as usize] += if known.essential || known.important { 5_000 } else { 0 };
        }
    }

    fn score_dependency(&mut self, owner: PackageId, dependency: &Dependency<'_>) {
        let (universe, weight) = (self.state.universe, weight(dependency.field));
        let ignored = |package: PackageId| is_negative(dependency.field) && package == owner;
        if weight == 0 {
            return;
        }
        if !ignored(dependency.target) {
            let install = self.state.choice(dependency.target).install;
            if dependency.constraint.is_some() && !install.is_some_and(|one| universe.is_satisfied_by(dependency, one))
            {
                return;
            }
            self.scores[dependency.target.0 as usize] += weight;
        }
        let satisfying = self
            .installed_providers(dependency.target, |provider| universe.is_satisfied_by_provider(dependency, provider));
        for provider in satisfying.into_iter().filter(|&provider| !ignored(provider)) {
            self.scores[provider.0 as usize] += weight;
        }
    }

    fn installed_providers(
        &self,
        package: PackageId,
        wanted: impl Fn(&super::super::universe::Provider<'_>) -> bool,
    ) -> Vec<PackageId> {
        let universe = self.state.universe;
        let mut owners: Vec<PackageId> = universe
            .package(package)
            .providers
            .iter()
            .filter(|provider| wanted(provider))
            .filter(|one| self.state.choice(universe.version(one.version).package).install == Some(one.version))
            .map(|one| universe.version(one.version).package)
            .collect();
        owners.sort();
        owners.dedup();
        owners
    }
}

/// What a relation adds to the score of the package that it names.
fn weight(field: RelationField) -> i32 {
    match field {
        RelationField::PreDepends | RelationField::Depends | RelationField::Recommends => 1,
        RelationField::Conflicts | RelationField::Breaks => -1,
        _ => 0,
    }
}
