//! Marking packages for installation, as apt does it: one after the other, the first choice that works, and no way
//! back but to give up the package for which it did not work.
//!
//! The aim is the same set as `apt-get install` gives on an empty system (apt 2.6 and 3.0, `pkgDepCache::MarkInstall`
//! with its internal solver), so its rules are followed even where others would be thinkable:
//!
//! - of several alternatives, the leftmost that can be installed; of several providers, see [`prefer`] (only where an
//!   earlier set is to be kept, its packages come before all others);
//! - a package that cannot have what it must have loses its candidate, for good;
//! - what was asked for is protected, and so is the only way to it: whatever conflicts with it cannot come in later;
//! - a conflict of a package that is not protected evicts the other if that one is not protected either.

use std::cmp::Ordering;

use super::super::universe::{Dependency, PackageId, VersionId};
use super::state::{State, View, groups, is_critical, is_negative};

/// apt gives up at this depth, too. The stack of [`super::resolve`] is sized for it.
const MAX_DEPTH: usize = 3000;

/// How a package comes to be marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manner {
    /// Whether its dependencies are marked along with it.
    pub follow: bool,
    /// Asked for by name, not for the sake of another.
    pub asked_for: bool,
    pub depth: usize,
}

impl<'u, 'a> State<'u, 'a> {
    /// Marks the package and, if so wanted, what it needs. `false` means that it could not be.
    pub fn mark(&mut self, package: PackageId, manner: Manner) -> bool {
        if !manner.asked_for && !self.may_mark(package, manner.depth) {
            return false;
        }
        let choice = *self.choice(package);
        let Some(candidate) = choice.candidate else { return false };
        if !choice.protected && choice.marked && !self.is_broken_or_lacks_recommended(package) {
            return true;
        }
        if manner.follow && !self.is_satisfiable(package, candidate) {
            return false;
        }
        if manner.asked_for {
            self.set_marked(package, manner);
        }
        if !manner.follow {
            if !manner.asked_for {
                self.set_marked(package, manner);
            }
            return true;
        }
        // What was not asked for fails at the first obstacle; what was goes on, to make the most of it.
        let fails_early = !choice.protected && !manner.asked_for;
        let (wanted, unwanted) = self.open_groups(package, candidate);
        let mut failed = false;
        if !self.evict(package, &unwanted, manner) {
            if fails_early {
                return false;
            }
            failed = true;
        }
        if !manner.asked_for {
            self.set_marked(package, manner);
        }
        // While its dependencies are being marked, nothing of theirs may evict it.
        self.choice_mut(package).protected = true;
        let installed = self.mark_dependencies(package, &wanted, choice.protected, manner);
        self.choice_mut(package).protected = choice.protected;
        if !installed {
            if fails_early {
                let choice = self.choice_mut(package);
                (choice.install, choice.marked) = (None, false);
                self.notice(package);
                self.discard_candidate(package);
                return false;
            }
            failed = true;
        }
        !failed
    }

    fn may_mark(&self, package: PackageId, depth: usize) -> bool {
        let choice = self.choice(package);
        depth <= MAX_DEPTH
            && !self.universe.package(package).versions.is_empty()
            && (choice.marked || !choice.protected)
    }

    fn set_marked(&mut self, package: PackageId, manner: Manner) {
        let choice = self.choice_mut(package);
        if choice.protected && choice.install == choice.candidate {
            return;
        }
        choice.marked = true;
        choice.install = choice.candidate;
        choice.automatic = !manner.asked_for;
        self.notice(package);
    }

    /// Whether everything that the candidate must have exists at all; if not, it is no candidate any more.
    fn is_satisfiable(&mut self, package: PackageId, candidate: VersionId) -> bool {
        let mut needs = groups(self.universe.dependencies(candidate))
            .filter(|group| is_critical(group[0].field) && !is_negative(group[0].field));
        let exists = needs.all(|group| {
            group.iter().any(|dependency| {
                self.has_target(package, dependency, View::Install)
                    || self.has_target(package, dependency, View::Believed)
            })
        });
        let choice = self.choice_mut(package);
        if !exists && !choice.protected {
            choice.marked = false;
            choice.install = None;
            self.discard_candidate(package);
        }
        exists
    }

    /// The groups that must be seen to: what is wanted and not there yet, what is unwanted and there. For a protected
    /// package all of them, because its protection extends to them.
    fn open_groups(
        &self,
        package: PackageId,
        version: VersionId,
    ) -> (Vec<&'u [Dependency<'a>]>, Vec<&'u Dependency<'a>>) {
        let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
        let protected = self.choice(package).protected;
        for group in groups(self.universe.dependencies(version)) {
            if !self.is_important(group[0].field) || !protected && self.holds(package, group) {
                continue;
            }
            if is_negative(group[0].field) {
                unwanted.push(&group[0]);
            } else {
                wanted.push(group);
            }
        }
        (wanted, unwanted)
    }

    /// Sees to it that nothing that conflicts with `package` is or becomes installed.
    fn evict(&mut self, package: PackageId, unwanted: &[&'u Dependency<'a>], manner: Manner) -> bool {
        let propagates = self.choice(package).protected;
        let mut failed = false;
        for &conflict in unwanted {
            for version in self.solutions(package, std::slice::from_ref(conflict), true) {
                let other = self.universe.version(version).package;
                if self.choice(other).candidate != Some(version) {
                    continue;
                }
                if self.choice(other).marked && !self.unmark(other) {
                    failed = true;
                    if !propagates && !manner.asked_for {
                        return false;
                    }
                } else if propagates {
                    self.discard_candidate(other);
                    self.choice_mut(other).protected = true;
                }
            }
        }
        !failed
    }

    /// Leaves the package out after all; `false` if it is protected.
    pub fn unmark(&mut self, package: PackageId) -> bool {
        let choice = self.choice_mut(package);
        if !choice.marked {
            return true;
        }
        if choice.protected {
            return false;
        }
        choice.marked = false;
        choice.install = None;
        self.notice(package);
        true
    }

    fn mark_dependencies(
        &mut self,
        package: PackageId,
        wanted: &[&'u [Dependency<'a>]],
        propagates: bool,
        manner: Manner,
    ) -> bool {
        let mut failed = false;
        for &group in wanted {
            let critical = is_critical(group[0].field);
            let holds = self.holds(package, group);
            if holds && !propagates {
                continue;
            }
            let inner = Manner { follow: true, asked_for: false, depth: manner.depth + 1 };
            if holds {
                failed |= critical && !self.protect_only_solution(package, group, inner);
                continue;
            }
            let solutions = self.solutions(package, group, true);
            let only = propagates && critical && solutions.len() == 1;
            let found = solutions.iter().any(|&version| {
                let other = self.universe.version(version).package;
                if self.choice(other).candidate != Some(version) {
                    return false;
                }
                if only {
                    if !self.mark(other, Manner { follow: false, ..inner }) {
                        return false;
                    }
                    self.choice_mut(other).protected = true;
                }
                self.mark(other, inner)
            });
            if !found && critical {
                failed = true;
                if !propagates && !manner.asked_for {
                    break;
                }
            }
        }
        !failed
    }

    /// A satisfied dependency of a protected package: if only one package can satisfy it, that one is protected too.
    fn protect_only_solution(&mut self, package: PackageId, group: &'u [Dependency<'a>], inner: Manner) -> bool {
        let solutions = self.solutions(package, group, false);
        let &[only] = solutions.as_slice() else { return true };
        let other = self.universe.version(only).package;
        if self.choice(other).protected {
            return true;
        }
        self.choice_mut(other).protected = true;
        self.mark(other, inner)
    }

    /// The candidates that satisfy the group (or are hit by the conflict), the best first if `sorted`.
    fn solutions(&self, package: PackageId, group: &'u [Dependency<'a>], sorted: bool) -> Vec<VersionId> {
        let mut solutions = Vec::new();
        for dependency in group {
            let mut found: Vec<VersionId> = self.targets(package, dependency, View::Candidate).collect();
            if sorted {
                found.sort_by(|&a, &b| self.prefer(dependency.target, a, b));
            }
            solutions.extend(found);
        }
        if !sorted {
            solutions.sort();
        } else if !self.earlier.is_empty() {
            solutions.sort_by_key(|&version| !self.is_known(version));
            // What it did without so far it does without now.
            if self.stays(package) && !is_critical(group[0].field) {
                solutions.retain(|&version| self.is_known(version));
            }
        }
        solutions.dedup();
        if !is_negative(group[0].field) {
            // Protected and not marked: something that must be there forbids it.
            solutions.retain(|&version| {
                let choice = self.choice(self.universe.version(version).package);
                choice.marked || !choice.protected
            });
        }
        solutions
    }

    /// Which of two packages that would do for `target` is tried first: the protected one, the one of that very name,
    /// an essential one, the one of higher priority, and if all that is equal, the one mentioned later.
    fn prefer(&self, target: PackageId, a: VersionId, b: VersionId) -> Ordering {
        let universe = self.universe;
        let (package_a, package_b) = (universe.version(a).package, universe.version(b).package);
        let first = |wins: &dyn Fn(PackageId) -> bool| wins(package_b).cmp(&wins(package_a));
        first(&|package| self.choice(package).protected)
            .then_with(|| first(&|package| package == target))
            .then_with(|| first(&|package| universe.package(package).essential))
            .then_with(|| first(&|package| universe.package(package).important))
            .then_with(|| universe.priority(a).cmp(&universe.priority(b)))
            .then_with(|| universe.package(package_b).rank.cmp(&universe.package(package_a).rank))
    }
}
