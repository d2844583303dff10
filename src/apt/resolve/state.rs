//! What is chosen so far: for each package the version that could be installed and the one that will be.
//!
//! Nothing is installed when a set is resolved, so every package is either left out or to be installed. Whether a
//! dependency holds is computed when asked for, from these choices.

use super::super::packages::RelationField;
use super::super::universe::{Dependency, PackageId, Universe, VersionId};
use super::keep::Earlier;

/// The choices about one package.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Choice {
    /// The version to install if it comes to that. Taken away once it turns out not to be installable.
    pub candidate: Option<VersionId>,
    /// The version to install.
    pub install: Option<VersionId>,
    /// Marked for installation.
    pub marked: bool,
    /// Decided for good: asked for, or the only way to get what was asked for.
    pub protected: bool,
    /// Here for the sake of others.
    pub automatic: bool,
    /// The candidate that was taken away, and when.
    discarded: Option<(VersionId, u32)>,
    /// When apt last looked again at the dependencies on this name.
    seen: u32,
}

impl Choice {
    /// Left out, with this candidate.
    pub fn of(candidate: Option<VersionId>) -> Self {
        Self { candidate, ..Self::default() }
    }
}

/// Which of a package's versions a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// What will be installed.
    Install,
    /// What could be.
    Candidate,
    /// What apt's cache says could be. It learns late that a candidate was taken away: at the next change of a package
    /// of that name, or of one that provides it. Sets depend on it, so it is kept track of.
    Believed,
}

/// Everything chosen so far.
#[derive(Clone)]
pub(super) struct State<'u, 'a> {
    pub universe: &'u Universe<'a>,
    pub choices: Vec<Choice>,
    /// Whether `Recommends` are followed.
    pub recommends: bool,
    /// By package id: what an earlier set has. Of several that would do, its packages are tried first. Empty: none.
    pub earlier: Vec<Earlier>,
    /// Counts the events that [`View::Believed`] is about.
    clock: u32,
}

impl<'u, 'a> State<'u, 'a> {
    pub fn new(universe: &'u Universe<'a>, choices: Vec<Choice>, recommends: bool) -> Self {
        Self { universe, choices, recommends, earlier: Vec::new(), clock: 0 }
    }

    pub fn choice(&self, package: PackageId) -> &Choice {
        &self.choices[package.0 as usize]
    }

    pub fn choice_mut(&mut self, package: PackageId) -> &mut Choice {
        &mut self.choices[package.0 as usize]
    }

    fn viewed(&self, package: PackageId, target: PackageId, view: View) -> Option<VersionId> {
        let choice = self.choice(package);
        match view {
            View::Install => choice.install,
            View::Candidate => choice.candidate,
            View::Believed => {
                let unnoticed = choice.discarded.filter(|(_, when)| *when > self.choice(target).seen);
                choice.candidate.or(unnoticed.map(|(version, _)| version))
            }
        }
    }

    /// Takes the candidate away, except for what is to be installed already.
    pub fn discard_candidate(&mut self, package: PackageId) {
        self.clock += 1;
        let clock = self.clock;
        let choice = self.choice_mut(package);
        if let Some(lost) = choice.candidate.filter(|_| choice.candidate != choice.install) {
            choice.discarded = Some((lost, clock));
            choice.candidate = choice.install;
        }
    }

    /// To be called after every change of what will be installed.
    pub fn notice(&mut self, package: PackageId) {
        self.clock += 1;
        let clock = self.clock;
        self.choice_mut(package).seen = clock;
        if let Some(candidate) = self.choice(package).candidate {
            for &name in self.universe.provided(candidate) {
                self.choice_mut(name).seen = clock;
            }
        }
    }

    /// The versions in `view` that satisfy (or, for a conflict, are hit by) the dependency of `owner`: the package
    /// itself first, then those that provide it.
    pub fn targets(
        &self,
        owner: PackageId,
        dependency: &'u Dependency<'a>,
        view: View,
    ) -> impl Iterator<Item = VersionId> + use<'_, 'u, 'a> {
        let universe = self.universe;
        // Nobody conflicts with himself, be it by his own name or by one that he provides.
        let ignored = move |package: PackageId| is_negative(dependency.field) && package == owner;
        let own = self
            .viewed(dependency.target, dependency.target, view)
            .filter(move |&version| !ignored(dependency.target) && universe.is_satisfied_by(dependency, version));
        let providers = universe.package(dependency.target).providers.iter().filter(move |provider| {
            let package = universe.version(provider.version).package;
            !ignored(package)
                && self.viewed(package, dependency.target, view) == Some(provider.version)
                && universe.is_satisfied_by_provider(dependency, provider)
        });
        own.into_iter().chain(providers.map(|provider| provider.version))
    }

    /// Whether anything in `view` satisfies (or is hit by) the dependency.
    pub fn has_target(&self, owner: PackageId, dependency: &'u Dependency<'a>, view: View) -> bool {
        self.targets(owner, dependency, view).next().is_some()
    }

    /// Whether the group holds with what will be installed.
    pub fn holds(&self, owner: PackageId, group: &'u [Dependency<'a>]) -> bool {
        let any = group.iter().any(|dependency| self.has_target(owner, dependency, View::Install));
        any != is_negative(group[0].field)
    }

    /// Whether a relation in this field must hold: always, except for what is only recommended or suggested.
    pub fn is_important(&self, field: RelationField) -> bool {
        is_critical(field) || self.recommends && field == RelationField::Recommends
    }

    /// Whether the package is to be installed and something that it must have is not.
    pub fn is_broken(&self, package: PackageId) -> bool {
        self.broken_group(package, is_critical).is_some()
    }

    /// The same, recommended packages included if they are followed.
    pub fn is_broken_or_lacks_recommended(&self, package: PackageId) -> bool {
        self.broken_group(package, |field| self.is_important(field)).is_some()
    }

    fn broken_group(&self, package: PackageId, counts: impl Fn(RelationField) -> bool) -> Option<&'u [Dependency<'a>]> {
        let version = self.choice(package).install?;
        groups(self.universe.dependencies(version)).find(|group| counts(group[0].field) && !self.holds(package, group))
    }

    /// All packages for which [`Self::is_broken`] is true.
    pub fn broken(&self) -> impl Iterator<Item = PackageId> {
        self.universe.packages().filter(|&package| self.is_broken(package))
    }
}

/// Cuts dependencies into groups of alternatives; a conflict is a group of its own.
pub(super) fn groups<'u, 'a>(dependencies: &'u [Dependency<'a>]) -> impl Iterator<Item = &'u [Dependency<'a>]> {
    dependencies.split_inclusive(|dependency| dependency.last)
}

/// `Conflicts` and `Breaks`.
pub(super) fn is_negative(field: RelationField) -> bool {
    matches!(field, RelationField::Conflicts | RelationField::Breaks)
}

/// What must hold in any case.
pub(super) fn is_critical(field: RelationField) -> bool {
    is_negative(field) || matches!(field, RelationField::PreDepends | RelationField::Depends)
}
