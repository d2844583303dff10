//! Everything that can be installed: all indexes of all repositories joined into one graph.
//!
//! Flows in: parsed indexes, each with its origin, in the order of the sources. Flows out: a [`Universe`]: packages by
//! name, their versions from the newest down, dependencies, and who provides what. Nothing changes afterwards:
//! resolving several sets reads the same universe.
//!
//! ```text
//! package ──< version ──< dependency ──> package (real, virtual, or only named)
//!    ^            └──── origins (one or more)
//!    └──< provider: a version that stands in for the package
//! ```
//!
//! Each package is ranked by where the indexes first mention it, be it as a dependency. That order is apt's as well, and
//! its last resort when nothing else tells two providers apart.

use std::collections::HashMap;

use super::packages::{MultiArch, PackagesIndex, Priority, RELATION_FIELDS, Record, RelationField};
use super::relation::{self, Operator, ParseRelationError};
use super::version;

/// A package name, real or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PackageId(pub u32);

/// One version of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct VersionId(pub u32);

/// Where an index comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The repository's name in the recipe.
    pub repository: String,
    /// The suite as asked for.
    pub suite: String,
    /// The other names of the suite, by its release file.
    pub aliases: Vec<String>,
    /// The component.
    pub component: String,
    /// apt's pin priority: the highest wins, whatever the version; nothing at or below 0 is installed.
    pub priority: i32,
}

impl Origin {
    /// Whether a request `package/name` means this origin.
    pub fn is_called(&self, name: &str) -> bool {
        self.repository == name || self.suite == name || self.aliases.iter().any(|alias| alias == name)
    }
}

/// A package index and its origin.
#[derive(Debug, Clone)]
pub struct SourceIndex {
    /// Where it comes from.
    pub origin: Origin,
    /// What it lists.
    pub packages: PackagesIndex,
}

/// A relationship field that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {field} of {package} in {origin}")]
pub struct UniverseError {
    /// Name and version.
    pub package: String,
    /// Repository and suite.
    pub origin: String,
    /// The field.
    pub field: &'static str,
    /// What is wrong with it.
    pub source: ParseRelationError,
}

/// A relation of a version to a package name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dependency<'a> {
    pub target: PackageId,
    pub field: RelationField,
    pub constraint: Option<(Operator, &'a str)>,
    /// `name:any`: only a package with `Multi-Arch: allowed` will do.
    pub any: bool,
    /// Whether the group of alternatives ends here.
    pub last: bool,
}

/// A version that stands in for a package.
#[derive(Debug, Clone, Copy)]
pub(super) struct Provider<'a> {
    pub version: VersionId,
    /// The version that it claims, `None` if none.
    pub claimed: Option<&'a str>,
}

#[derive(Debug, Default)]
pub(super) struct Package<'a> {
    /// The later first mentioned, the higher.
    pub rank: u32,
    /// From the newest down; among equal ones, in the order of the sources.
    pub versions: Vec<VersionId>,
    pub providers: Vec<Provider<'a>>,
    /// apt counts itself in.
    pub essential: bool,
    /// `Protected`, and apt: as hard to leave out as what is essential.
    pub important: bool,
}

#[derive(Debug)]
pub(super) struct Version<'a> {
    pub package: PackageId,
    pub text: &'a str,
    /// The source it is taken from: the first that lists it.
    pub origin: u32,
    /// The highest of all sources that list it.
    pub pin: i32,
    pub record: &'a Record,
    first_dependency: u32,
    end_dependency: u32,
    first_provided: u32,
    end_provided: u32,
}

/// All indexes as one graph.
#[derive(Debug)]
pub struct Universe<'a> {
    sources: &'a [SourceIndex],
    native: &'a str,
    by_name: HashMap<&'a str, PackageId>,
    names: Vec<&'a str>,
    packages: Vec<Package<'a>>,
    mentions: u32,
    versions: Vec<Version<'a>>,
    dependencies: Vec<Dependency<'a>>,
    /// What versions provide, one after the other.
    provided: Vec<PackageId>,
    /// Further sources of a version, beside its first.
    further_origins: Vec<(VersionId, u32)>,
}

impl<'a> Universe<'a> {
    /// Joins the indexes; `native` is the architecture, and packages of any other than it and `all` are left out.
    pub fn new(sources: &'a [SourceIndex], native: &'a str) -> Result<Self, UniverseError> {
        let records: usize = sources.iter().map(|source| source.packages.records().len()).sum();
        let mut universe = Self {
            sources,
            native,
            by_name: HashMap::with_capacity(records * 2),
            names: Vec::with_capacity(records * 2),
            packages: Vec::with_capacity(records * 2),
            mentions: 0,
            versions: Vec::with_capacity(records),
            dependencies: Vec::with_capacity(records * 10),
            provided: Vec::new(),
            further_origins: Vec::new(),
        };
        for (origin, source) in (0..).zip(sources) {
            for record in source.packages.records() {
                let architecture = source.packages.architecture(record);
                if architecture == native || architecture == "all" {
                    universe.add(origin, record).map_err(|(field, problem)| UniverseError {
                        package: format!("{} {}", source.packages.name(record), source.packages.version(record)),
                        origin: format!("{} {}", source.origin.repository, source.origin.suite),
                        field,
                        source: problem,
                    })?;
                }
            }
        }
        Ok(universe)
    }

    fn add(&mut self, origin: u32, record: &'a Record) -> Result<(), (&'static str, ParseRelationError)> {
        let sources = self.sources;
        let source = &sources[origin as usize];
        let index = &source.packages;
        let (package, text) = (self.intern(index.name(record)), index.version(record));
        self.mention(package);
        let known = &self.packages[package.0 as usize].versions;
        let mut place = known.len();
        for (at, &other) in known.iter().enumerate() {
            match version::compare(text, self.versions[other.0 as usize].text) {
                std::cmp::Ordering::Greater => {
                    place = at;
                    break;
                }
                std::cmp::Ordering::Equal if self.is_same(other, text, record) => {
                    self.further_origins.push((other, origin));
                    let pin = &mut self.versions[other.0 as usize].pin;
                    *pin = (*pin).max(source.origin.priority);
                    self.set_flags(package, index.name(record), record);
                    return Ok(());
                }
                _ => {}
            }
        }
        let version = VersionId(self.versions.len() as u32);
        self.packages[package.0 as usize].versions.insert(place, version);
        let (first_dependency, first_provided) = (self.dependencies.len() as u32, self.provided.len() as u32);
        self.versions.push(Version {
            package,
            text,
            origin,
            pin: source.origin.priority,
            record,
            first_dependency,
            end_dependency: first_dependency,
            first_provided,
            end_provided: first_provided,
        });
        for field in RELATION_FIELDS {
            self.add_relations(version, index, record, field).map_err(|problem| (field.name(), problem))?;
        }
        self.versions[version.0 as usize].end_dependency = self.dependencies.len() as u32;
        self.versions[version.0 as usize].end_provided = self.provided.len() as u32;
        self.set_flags(package, index.name(record), record);
        Ok(())
    }

    /// The same version in two sources is one version only if it is the same file.
    fn is_same(&self, other: VersionId, text: &str, record: &Record) -> bool {
        let other = self.version(other);
        other.text == text && (other.record.size, other.record.digest) == (record.size, record.digest)
    }

    fn set_flags(&mut self, package: PackageId, name: &str, record: &Record) {
        let package = &mut self.packages[package.0 as usize];
        package.essential = record.essential.unwrap_or(package.essential) || name == "apt";
        package.important = record.protected.unwrap_or(package.important) || name == "apt";
    }

    fn add_relations(
        &mut self,
        version: VersionId,
        index: &'a PackagesIndex,
        record: &'a Record,
        field: RelationField,
    ) -> Result<(), ParseRelationError> {
        for alternative in relation::parse(index.relation(record, field)) {
            let alternative = alternative?;
            // To apt, `name:any` is a package of its own: mentioning it is not mentioning `name`.
            let (name, any) = match alternative.name.strip_suffix(":any") {
                Some(bare) => (bare, true),
                None => (self.resolve_qualifier(alternative.name), false),
            };
            let target = self.intern(name);
            if !any {
                self.mention(target);
            }
            match field {
                RelationField::Provides => {
                    let claimed = match alternative.constraint {
                        None => None,
                        Some((Operator::Equal, claimed)) => Some(claimed),
                        // Only `=` has a meaning here; apt passes over the others as well.
                        Some(_) => continue,
                    };
                    self.provide(version, target, claimed);
                }
                // They never decide what is installed, but they are mentions.
                RelationField::Replaces | RelationField::Enhances => {}
                _ => {
                    let (constraint, last) = (alternative.constraint, alternative.last);
                    self.dependencies.push(Dependency { target, field, constraint, any, last });
                }
            }
        }
        Ok(())
    }

    fn provide(&mut self, version: VersionId, target: PackageId, claimed: Option<&'a str>) {
        let own = self.version(version);
        // That a package stands in for itself goes without saying.
        if own.package != target || claimed.is_some_and(|claimed| claimed != own.text) {
            self.packages[target.0 as usize].providers.push(Provider { version, claimed });
            self.provided.push(target);
        }
    }

    /// `name:amd64` is `name` on amd64. Another architecture stays part of the name, which no package has.
    fn resolve_qualifier(&self, name: &'a str) -> &'a str {
        match name.rsplit_once(':') {
            Some((bare, qualifier)) if qualifier == self.native => bare,
            _ => name,
        }
    }

    fn mention(&mut self, package: PackageId) {
        let rank = &mut self.packages[package.0 as usize].rank;
        if *rank == 0 {
            self.mentions += 1;
            *rank = self.mentions;
        }
    }

    fn intern(&mut self, name: &'a str) -> PackageId {
        if let Some(&known) = self.by_name.get(name) {
            return known;
        }
        let id = PackageId(self.packages.len() as u32);
        self.by_name.insert(name, id);
        self.names.push(name);
        self.packages.push(Package::default());
        id
    }

    /// Whether `version` itself satisfies the dependency on its own package, by version and architecture.
    pub(super) fn is_satisfied_by(&self, dependency: &Dependency<'_>, version: VersionId) -> bool {
        let version = self.version(version);
        (!dependency.any || version.record.multi_arch == MultiArch::Allowed)
            && dependency.constraint.is_none_or(|(operator, bound)| operator.holds(version.text, bound))
    }

    /// Whether the provider satisfies the dependency; one that claims no version satisfies no constraint.
    pub(super) fn is_satisfied_by_provider(&self, dependency: &Dependency<'_>, provider: &Provider<'_>) -> bool {
        (!dependency.any || self.version(provider.version).record.multi_arch == MultiArch::Allowed)
            && match (dependency.constraint, provider.claimed) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some((operator, bound)), Some(claimed)) => operator.holds(claimed, bound),
            }
    }

    pub(super) fn find(&self, name: &str) -> Option<PackageId> {
        self.by_name.get(name).copied()
    }

    pub(super) fn name(&self, package: PackageId) -> &'a str {
        self.names[package.0 as usize]
    }

    pub(super) fn package(&self, package: PackageId) -> &Package<'a> {
        &self.packages[package.0 as usize]
    }

    pub(super) fn version(&self, version: VersionId) -> &Version<'a> {
        &self.versions[version.0 as usize]
    }

    pub(super) fn packages(&self) -> impl Iterator<Item = PackageId> + use<> {
        (0..self.packages.len() as u32).map(PackageId)
    }

    pub(super) fn dependencies(&self, version: VersionId) -> &[Dependency<'a>] {
        let version = self.version(version);
        &self.dependencies[version.first_dependency as usize..version.end_dependency as usize]
    }

    /// The names that the version stands in for.
    pub(super) fn provided(&self, version: VersionId) -> &[PackageId] {
        let version = self.version(version);
        &self.provided[version.first_provided as usize..version.end_provided as usize]
    }

    /// The sources that list this version, the one it is taken from first.
    pub(super) fn origins(&self, version: VersionId) -> impl Iterator<Item = &'a Origin> {
        let further =
            self.further_origins.iter().filter(move |(other, _)| *other == version).map(|(_, origin)| *origin);
        std::iter::once(self.version(version).origin).chain(further).map(|origin| &self.sources[origin as usize].origin)
    }

    pub(super) fn priority(&self, version: VersionId) -> Priority {
        self.version(version).record.priority
    }

    pub(super) fn index(&self, version: VersionId) -> &'a PackagesIndex {
        &self.sources[self.version(version).origin as usize].packages
    }
}
