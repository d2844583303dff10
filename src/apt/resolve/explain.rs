//! Saying why a set cannot be had, as a person would: a list of facts, each following from those before it.

use std::fmt;

use super::super::universe::{Dependency, PackageId, Universe, VersionId};
use super::prove::{Rule, prove, verb};
use super::request::{Selector, SetRequest};
use super::select::available;
use super::state::{State, groups, is_critical};

/// More facts than this are not read; the last ones are the contradiction.
const MOST_FACTS: usize = 40;

/// Why the packages cannot be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Sentences, each following from those before it. The last one is what cannot be.
    pub facts: Vec<String>,
    /// Whether the facts prove that no set exists. If not, choosing as apt does led into a dead end, and asking for one
    /// of the alternatives by name may lead out of it.
    pub proved: bool,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.proved {
            "the packages cannot be installed together:"
        } else {
            "choosing packages came to a dead end (asking for another alternative by name may lead out of it):"
        })?;
        let left_out = self.facts.len().saturating_sub(MOST_FACTS);
        if left_out > 0 {
            write!(f, "\n  - ({left_out} facts left out)")?;
        }
        self.facts[left_out..].iter().try_for_each(|fact| write!(f, "\n  - {fact}"))
    }
}

/// Explains the failure. `before` has the candidates as they were before anything was marked, `after` is the dead end.
pub(super) fn explain(
    request: &SetRequest,
    before: &State<'_, '_>,
    after: &State<'_, '_>,
    asked_for: &[PackageId],
) -> Explanation {
    let universe = before.universe;
    if let Some(rules) = prove(before, asked_for) {
        let facts = rules.into_iter().map(|rule| fact(universe, request, before, rule)).collect();
        return Explanation { facts, proved: true };
    }
    let mut facts = Vec::new();
    for package in after.broken() {
        let Some(version) = after.choice(package).install else { continue };
        for group in groups(universe.dependencies(version)) {
            if is_critical(group[0].field) && !after.holds(package, group) {
                let name = called(universe, before, package);
                let wanted = relation(universe, group);
                facts.push(format!("{name} {wanted}, which does not go with what was chosen before"));
            }
        }
    }
    Explanation { facts, proved: false }
}

fn fact(universe: &Universe<'_>, request: &SetRequest, state: &State<'_, '_>, rule: Rule<'_, '_>) -> String {
    match rule {
        Rule::AskedFor { package } => {
            let name = universe.name(package);
            match request.packages.iter().find(|wanted| wanted.name == name) {
                Some(wanted) => match &wanted.selector {
                    None => format!("{name} is asked for"),
                    Some(Selector::Version(version)) => format!("{name} is asked for in version {version}"),
                    Some(Selector::Origin(origin)) => format!("{name} is asked for from {origin}"),
                },
                None if request.essential && is_essential(universe, state, package) => format!("{name} is essential"),
                None => format!("{name} is asked for (by a name that it provides)"),
            }
        }
        Rule::Needs { package, group } => {
            let mut text = format!("{} {}", called(universe, state, package), relation(universe, group));
            let missing: Vec<String> =
                group.iter().filter_map(|dependency| absence(universe, request, state, dependency)).collect();
            if !missing.is_empty() {
                text += ", but ";
                text += &missing.join(", and ");
            }
            text
        }
        Rule::Conflicts { package, other, relation } => {
            let (one, two) = (called(universe, state, package), called(universe, state, other));
            let conflict = format!("{one} {} {}", verb(relation.field), alternative(universe, relation));
            if relation.target != other {
                format!("{conflict}, which {two} provides")
            } else if relation.constraint.is_some() {
                format!("{conflict}, and it is {two}")
            } else {
                conflict
            }
        }
    }
}

fn is_essential(universe: &Universe<'_>, state: &State<'_, '_>, package: PackageId) -> bool {
    state.choice(package).candidate.is_some_and(|one| universe.version(one).record.essential == Some(true))
}

/// Name and version of the candidate.
fn called(universe: &Universe<'_>, state: &State<'_, '_>, package: PackageId) -> String {
    let version = state.choice(package).candidate.map_or("", |version| universe.version(version).text);
    format!("{} {version}", universe.name(package)).trim_end().to_owned()
}

/// `depends on a (>= 1) or b`.
fn relation(universe: &Universe<'_>, group: &[Dependency<'_>]) -> String {
    let alternatives: Vec<String> = group.iter().map(|dependency| alternative(universe, dependency)).collect();
    format!("{} {}", verb(group[0].field), alternatives.join(" or "))
}

fn alternative(universe: &Universe<'_>, dependency: &Dependency<'_>) -> String {
    let any = if dependency.any { ":any" } else { "" };
    let constraint = dependency.constraint.map_or(String::new(), |(operator, bound)| format!(" ({operator} {bound})"));
    format!("{}{any}{constraint}", universe.name(dependency.target))
}

/// Why nothing can satisfy the dependency, whatever else is chosen; `None` if something can.
fn absence(
    universe: &Universe<'_>,
    request: &SetRequest,
    state: &State<'_, '_>,
    dependency: &Dependency<'_>,
) -> Option<String> {
    let name = universe.name(dependency.target);
    let known = universe.package(dependency.target);
    let is_candidate = |version: VersionId| state.choice(universe.version(version).package).candidate == Some(version);
    let fitting: Vec<VersionId> = (known.versions.iter().copied())
        .filter(|&version| universe.is_satisfied_by(dependency, version))
        .chain(
            (known.providers.iter())
                .filter(|provider| universe.is_satisfied_by_provider(dependency, provider))
                .map(|provider| provider.version),
        )
        .collect();
    if fitting.iter().any(|&version| is_candidate(version)) {
        return None;
    }
    let Some(&best) = fitting.first() else {
        let there_is = |what: &str| Some(format!("there is {what}"));
        return if !known.versions.is_empty() {
            there_is(&format!("only {name} {}", super::versions(&available(universe, dependency.target))))
        } else if known.providers.is_empty() {
            there_is(&format!("no package {name}"))
        } else {
            there_is(&format!("no package that provides {}", alternative(universe, dependency)))
        };
    };
    let owner = universe.version(best).package;
    let (owner_name, text) = (universe.name(owner), universe.version(best).text);
    Some(match state.choice(owner).candidate {
        None if request.excluded.iter().any(|excluded| excluded == owner_name) => format!("{owner_name} is excluded"),
        None => format!("{owner_name} {text} is only in a repository whose priority forbids it"),
        Some(other) => {
            format!("{owner_name} {} takes precedence over {owner_name} {text}", universe.version(other).text)
        }
    })
}
