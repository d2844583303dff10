//! Keeping versions: an earlier set changes only where it has to.
//!
//! Flows in: versions of packages, those of a lock say. Flows out: the same without those that stand in the way. A kept
//! version is its package's candidate, so the resolver takes it like any other. It stands in the way
//!
//! - if something needs another version of it, and the newest would do;
//! - if itself needs a version of something that is no candidate any more;
//! - if it and something that is needed conflict, and the newest of one of them would not.
//!
//! Then it is let go of: the archive's newest takes its place, which may bring others into the way, and so on.
//! Nothing else changes. What cannot be foreseen like this (a dead end that only marking finds) lets go of everything.

use std::collections::{BTreeMap, BTreeSet};

use super::super::universe::{Dependency, PackageId, Universe, VersionId};
use super::mark::Manner;
use super::request::SetRequest;
use super::select::best;
use super::state::{Choice, State, View, groups, is_critical, is_negative};

/// What an earlier set has of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Earlier {
    /// Nothing.
    Absent,
    /// A version that is not kept.
    Renewed,
    /// A version that is kept.
    Kept(VersionId),
}

/// Versions to keep, by package.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Kept {
    versions: BTreeMap<PackageId, VersionId>,
    /// Packages of the earlier set, in whatever version.
    known: BTreeSet<PackageId>,
    /// Whether the earlier set answers the same request.
    pub same_request: bool,
}

impl Kept {
    /// Prefers a package, in whatever version, to others that would do as well.
    pub fn prefer(&mut self, package: PackageId) {
        self.known.insert(package);
    }

    /// Keeps a version.
    pub fn add(&mut self, package: PackageId, version: VersionId) {
        self.versions.insert(package, version);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.versions.is_empty() && self.known.is_empty()
    }

    pub(super) fn version(&self, package: PackageId) -> Option<VersionId> {
        self.versions.get(&package).copied()
    }

    /// Makes the kept versions candidates, except of what the request itself decides about.
    pub(super) fn take_over(&self, universe: &Universe<'_>, request: &SetRequest, choices: &mut [Choice]) {
        for (&package, &version) in &self.versions {
            let name = universe.name(package);
            let decided = request.excluded.iter().any(|excluded| excluded == name)
                || request.pins.iter().any(|pin| pin.name == name);
            if !decided {
                choices[package.0 as usize].candidate = Some(version);
            }
        }
    }

    /// Lets go of what stands in the way of what is asked for; whether that was anything. `state` has the candidates,
    /// nothing marked, and is used up.
    pub(super) fn let_go_of_obstacles(&mut self, state: &mut State<'_, '_>, asked_for: &[PackageId]) -> bool {
        let mut any = false;
        while let Some(obstacle) = self.obstacle(state, asked_for) {
            self.versions.remove(&obstacle);
            state.choice_mut(obstacle).candidate = best(state.universe, obstacle);
            any = true;
        }
        any
    }

    fn obstacle(&self, state: &State<'_, '_>, asked_for: &[PackageId]) -> Option<PackageId> {
        if self.versions.is_empty() {
            return None;
        }
        let universe = state.universe;
        let mut reached = vec![false; state.choices.len()];
        let mut order: Vec<PackageId> = asked_for.to_vec();
        let mut at = 0;
        while let Some(&package) = order.get(at) {
            at += 1;
            if std::mem::replace(&mut reached[package.0 as usize], true) {
                continue;
            }
            let Some(version) = state.choice(package).candidate else { continue };
            for group in groups(universe.dependencies(version)) {
                if is_negative(group[0].field) || !state.is_important(group[0].field) {
                    continue;
                }
                match self.answer(state, package, group) {
                    // What is only recommended, and not there yet, is not worth moving anything for.
                    Some(version) if is_critical(group[0].field) || state.is_known(version) => {
                        order.push(universe.version(version).package);
                    }
                    Some(_) => {}
                    None if is_critical(group[0].field) => {
                        let obstacle = self.needed_newer(state, group).or(self.is_kept(package));
                        if obstacle.is_some() {
                            return obstacle;
                        }
                    }
                    None => {}
                }
            }
        }
        order.iter().find_map(|&package| self.conflict(state, package, &reached))
    }

    fn is_kept(&self, package: PackageId) -> Option<PackageId> {
        self.versions.contains_key(&package).then_some(package)
    }

    /// The candidate that answers a dependency: one that was there before, else the first.
    fn answer<'u, 'a>(
        &self,
        state: &State<'u, 'a>,
        owner: PackageId,
        group: &'u [Dependency<'a>],
    ) -> Option<VersionId> {
        let mut targets =
            group.iter().flat_map(|dependency| state.targets(owner, dependency, View::Candidate)).peekable();
        let first = targets.peek().copied();
        targets.find(|&version| state.is_known(version)).or(first)
    }

    /// A kept package whose newest version would satisfy the group, which nothing satisfies now.
    fn needed_newer(&self, state: &State<'_, '_>, group: &[Dependency<'_>]) -> Option<PackageId> {
        let universe = state.universe;
        group.iter().find_map(|dependency| {
            let own = self.is_kept(dependency.target).filter(|&package| {
                best(universe, package).is_some_and(|best| universe.is_satisfied_by(dependency, best))
            });
            let mut providers = universe.package(dependency.target).providers.iter();
            own.or_else(|| {
                providers.find_map(|provider| {
                    let package = self.is_kept(universe.version(provider.version).package)?;
                    let newest = best(universe, package) == Some(provider.version);
                    (newest && universe.is_satisfied_by_provider(dependency, provider)).then_some(package)
                })
            })
        })
    }

    /// Of two that conflict, the kept one whose newest version would not; else the other, if that is kept.
    fn conflict(&self, state: &State<'_, '_>, owner: PackageId, reached: &[bool]) -> Option<PackageId> {
        let universe = state.universe;
        let version = state.choice(owner).candidate?;
        for relation in universe.dependencies(version).iter().filter(|relation| is_negative(relation.field)) {
            for hit in state.targets(owner, relation, View::Candidate) {
                let other = universe.version(hit).package;
                if !reached[other.0 as usize] {
                    continue;
                }
                let spared = best(universe, other).is_some_and(|best| {
                    best != hit && !(other == relation.target && universe.is_satisfied_by(relation, best))
                });
                let obstacle = self.is_kept(other).filter(|_| spared).or(self.is_kept(owner)).or(self.is_kept(other));
                if obstacle.is_some() {
                    return obstacle;
                }
            }
        }
        None
    }
}

impl State<'_, '_> {
    /// Prefers the packages of an earlier set to others that would do as well.
    pub(super) fn prefer_known(&mut self, earlier: &Kept) {
        if earlier.known.is_empty() {
            return;
        }
        self.earlier = vec![Earlier::Absent; self.choices.len()];
        for package in &earlier.known {
            self.earlier[package.0 as usize] = match earlier.versions.get(package) {
                Some(&version) => Earlier::Kept(version),
                None => Earlier::Renewed,
            };
        }
    }

    /// Takes in again what the earlier set has and marking has not, as far as it goes together with what is marked.
    /// [`Self::sweep`] then judges it as apt judges what is installed. (A package that something brought which was
    /// given up later may be there although marking anew does not come by it.)
    pub(super) fn take_in_earlier(&mut self) {
        let is_left = |package: &PackageId| self.stays(*package) && self.choice(*package).install.is_none();
        let mut added: BTreeSet<PackageId> = self.universe.packages().filter(is_left).collect();
        for &package in &added {
            self.mark(package, Manner { follow: false, asked_for: false, depth: 0 });
        }
        loop {
            let Some(broken) = self.broken().next() else { return };
            // A package of the set itself is broken by what was added: then nothing of it is.
            let out = if added.remove(&broken) { [broken].into() } else { std::mem::take(&mut added) };
            if out.is_empty() {
                return;
            }
            for package in out {
                self.unmark(package);
            }
        }
    }

    /// Whether the version's package was in the earlier set.
    pub(super) fn is_known(&self, version: VersionId) -> bool {
        let package = self.universe.version(version).package;
        self.earlier.get(package.0 as usize).is_some_and(|earlier| *earlier != Earlier::Absent)
    }

    /// Whether the package is as it was in the earlier set: then it has no new wishes.
    pub(super) fn stays(&self, package: PackageId) -> bool {
        matches!(self.earlier.get(package.0 as usize), Some(&Earlier::Kept(version))
            if self.choice(package).candidate == Some(version))
    }
}
