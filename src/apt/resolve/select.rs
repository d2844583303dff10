//! From what is asked for to versions: candidates, pins, virtual packages, and errors that help.

use std::collections::BTreeMap;

use super::super::universe::{Origin, PackageId, Universe, VersionId};
use super::keep::Kept;
use super::request::{PackageRequest, Selector, SetRequest};
use super::state::{Choice, State, View, groups, is_negative};
use super::{Available, ResolveError};

/// How many names or versions an error lists.
const LISTED: usize = 5;

/// A version asked for.
pub(super) struct Selected {
    pub version: VersionId,
    /// What the request says about the version.
    pub selector: Option<Selector>,
}

/// The candidate of every package, by the repositories' priorities, what is excluded, and the pins.
pub(super) fn candidates(universe: &Universe<'_>, request: &SetRequest) -> Result<Vec<Choice>, ResolveError> {
    let mut choices: Vec<Choice> = universe.packages().map(|package| Choice::of(best(universe, package))).collect();
    for name in &request.excluded {
        if let Some(package) = universe.find(name) {
            choices[package.0 as usize].candidate = None;
        }
    }
    for pin in &request.pins {
        let package = universe.find(&pin.name).filter(|&package| !universe.package(package).versions.is_empty());
        let package = package.ok_or_else(|| unknown(universe, &pin.name))?;
        choices[package.0 as usize].candidate = Some(pinned(universe, package, pin)?);
    }
    Ok(choices)
}

/// The version of the highest priority; among equals the newest; among those the first source's.
pub(in super::super) fn best(universe: &Universe<'_>, package: PackageId) -> Option<VersionId> {
    let mut best: Option<VersionId> = None;
    for &version in &universe.package(package).versions {
        let pin = universe.version(version).pin;
        if pin > 0 && best.is_none_or(|best| pin > universe.version(best).pin) {
            best = Some(version);
        }
    }
    best
}

/// The versions asked for, in the order of their packages' names.
pub(super) fn select(
    universe: &Universe<'_>,
    request: &SetRequest,
    choices: &[Choice],
    kept: &Kept,
) -> Result<Vec<Selected>, ResolveError> {
    let mut by_package: BTreeMap<&str, (VersionId, Option<&PackageRequest>)> = BTreeMap::new();
    if request.essential {
        for package in universe.packages() {
            let candidate = choices[package.0 as usize].candidate;
            if let Some(version) = candidate.filter(|&one| universe.version(one).record.essential == Some(true)) {
                by_package.insert(universe.name(package), (version, None));
            }
        }
    }
    for wanted in &request.packages {
        let version = one(universe, request, choices, kept, wanted)?;
        let name = universe.name(universe.version(version).package);
        let selected = wanted.selector.is_some().then_some(wanted);
        match by_package.get_mut(name) {
            None => {
                by_package.insert(name, (version, selected));
            }
            Some((known, earlier)) => match (earlier.as_ref(), selected) {
                (_, None) => {}
                (None, Some(_)) => (*known, *earlier) = (version, selected),
                (Some(_), Some(_)) if *known == version => {}
                (Some(first), Some(second)) => {
                    return Err(ResolveError::Contradiction { first: first.to_string(), second: second.to_string() });
                }
            },
        }
    }
    let selected = |(version, wanted): (VersionId, Option<&PackageRequest>)| Selected {
        version,
        selector: wanted.and_then(|wanted| wanted.selector.clone()),
    };
    Ok(by_package.into_values().map(selected).collect())
}

fn one(
    universe: &Universe<'_>,
    request: &SetRequest,
    choices: &[Choice],
    kept: &Kept,
    wanted: &PackageRequest,
) -> Result<VersionId, ResolveError> {
    if request.excluded.contains(&wanted.name) {
        return Err(ResolveError::Excluded { package: wanted.name.clone() });
    }
    let package = universe.find(&wanted.name).ok_or_else(|| unknown(universe, &wanted.name))?;
    let known = universe.package(package);
    if known.versions.is_empty() {
        let provider = provided(universe, choices, package).filter(|_| wanted.selector.is_none());
        return provider.ok_or_else(|| virtual_or_unknown(universe, choices, package));
    }
    if wanted.selector.is_some() {
        return kept.version(package).map_or_else(|| pinned(universe, package, wanted), Ok);
    }
    choices[package.0 as usize].candidate.ok_or_else(|| ResolveError::NoCandidate {
        package: wanted.name.clone(),
        available: available(universe, package),
    })
}

/// For a virtual package with a single provider: that one, as apt does.
fn provided(universe: &Universe<'_>, choices: &[Choice], package: PackageId) -> Option<VersionId> {
    let mut candidates = universe
        .package(package)
        .providers
        .iter()
        .map(|provider| provider.version)
        .filter(|&version| choices[universe.version(version).package.0 as usize].candidate == Some(version));
    let first = candidates.next()?;
    candidates.all(|other| universe.version(other).package == universe.version(first).package).then_some(first)
}

fn virtual_or_unknown(universe: &Universe<'_>, choices: &[Choice], package: PackageId) -> ResolveError {
    let name = universe.name(package);
    let mut providers: Vec<String> = universe
        .package(package)
        .providers
        .iter()
        .map(|provider| universe.version(provider.version).package)
        .filter(|owner| choices[owner.0 as usize].candidate.is_some())
        .map(|owner| universe.name(owner).to_owned())
        .collect();
    providers.sort();
    providers.dedup();
    if providers.is_empty() {
        unknown(universe, name)
    } else {
        ResolveError::Virtual { package: name.to_owned(), providers }
    }
}

fn pinned(universe: &Universe<'_>, package: PackageId, wanted: &PackageRequest) -> Result<VersionId, ResolveError> {
    let versions = &universe.package(package).versions;
    let name = || wanted.name.clone();
    match &wanted.selector {
        Some(Selector::Version(text)) => {
            versions.iter().copied().find(|&version| universe.version(version).text == text).ok_or_else(|| {
                ResolveError::UnknownVersion {
                    package: name(),
                    version: text.clone(),
                    available: available(universe, package),
                }
            })
        }
        Some(Selector::Origin(origin)) => {
            newest_of(universe, package, origin).ok_or_else(|| ResolveError::NotInOrigin {
                package: name(),
                origin: origin.clone(),
                available: available(universe, package),
            })
        }
        None => best(universe, package)
            .ok_or_else(|| ResolveError::NoCandidate { package: name(), available: available(universe, package) }),
    }
}

/// The newest version that a repository or suite has.
pub(in super::super) fn newest_of(universe: &Universe<'_>, package: PackageId, origin: &str) -> Option<VersionId> {
    let versions = &universe.package(package).versions;
    versions.iter().copied().find(|&version| universe.origins(version).any(|one| one.is_called(origin)))
}

impl State<'_, '_> {
    /// Makes the versions asked for the candidates. What was asked for from an origin may need what the candidates do
    /// not offer: that is taken from there as well, and so on; what they do offer stays as it is.
    ///
    /// apt does the same (`SetCandidateRelease`), except that it takes more from there than is needed while little is
    /// installed, and gives up where a dependency without a version is not installed yet.
    pub fn choose_candidates(&mut self, selected: &[Selected]) {
        selected.iter().for_each(|one| self.set_candidate(one.version));
        for one in selected {
            if let Some(Selector::Origin(origin)) = &one.selector {
                self.prefer_origin(one.version, origin);
            }
        }
        // A version that was asked for is not up for discussion.
        selected.iter().filter(|one| one.selector.is_some()).for_each(|one| self.set_candidate(one.version));
    }

    fn prefer_origin(&mut self, version: VersionId, origin: &str) {
        let universe = self.universe;
        let mut queue = vec![version];
        while let Some(version) = queue.pop() {
            let owner = universe.version(version).package;
            for group in groups(universe.dependencies(version)) {
                let offered = |dependency| self.has_target(owner, dependency, View::Candidate);
                let field = group[0].field;
                if is_negative(field) || !self.is_important(field) || group.iter().any(offered) {
                    continue;
                }
                let there = group.iter().find_map(|dependency| {
                    newest_of(universe, dependency.target, origin)
                        .filter(|&version| universe.is_satisfied_by(dependency, version))
                });
                if let Some(there) = there {
                    self.set_candidate(there);
                    queue.push(there);
                }
            }
        }
    }

    fn set_candidate(&mut self, version: VersionId) {
        let package = self.universe.version(version).package;
        self.choice_mut(package).candidate = Some(version);
        self.notice(package);
    }
}

pub(super) fn available(universe: &Universe<'_>, package: PackageId) -> Vec<Available> {
    let place = |origin: &Origin| format!("{} {}", origin.repository, origin.suite);
    let versions = universe.package(package).versions.iter().take(LISTED);
    versions
        .map(|&version| Available {
            version: universe.version(version).text.to_owned(),
            origins: universe.origins(version).map(place).collect(),
        })
        .collect()
}

pub(super) fn unknown(universe: &Universe<'_>, name: &str) -> ResolveError {
    let real = universe.packages().filter(|&package| !universe.package(package).versions.is_empty());
    // A slip of the finger, or half of the name: `mysql-server` for `default-mysql-server`.
    let part = |other: &str| other.len() > name.len() && format!("-{other}-").contains(&format!("-{name}-"));
    let mut near: Vec<(usize, &str)> = real
        .map(|package| universe.name(package))
        .filter_map(|other| match distance(name, other, 1 + name.len() / 6) {
            Some(distance) => Some((distance, other)),
            None => part(other).then_some((name.len(), other)),
        })
        .collect();
    near.sort_by_key(|&(distance, other)| (distance, other.len(), other));
    let nearest = near.first().map_or(0, |&(distance, _)| distance);
    near.retain(|&(distance, _)| distance == nearest);
    near.truncate(LISTED);
    ResolveError::Unknown {
        package: name.to_owned(),
        nearest: near.into_iter().map(|(_, name)| name.to_owned()).collect(),
    }
}

/// How many bytes must be inserted, removed, replaced or swapped with their neighbour to make one of the other; `None`
/// if more than `limit`.
fn distance(a: &str, b: &str, limit: usize) -> Option<usize> {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut current = vec![i];
        for j in 1..=b.len() {
            let replaced = previous[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(previous[j] + 1).min(current[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            current.push(best);
        }
        if current.iter().min().is_some_and(|&least| least > limit) {
            return None;
        }
        before = std::mem::replace(&mut previous, current);
    }
    Some(previous[b.len()]).filter(|&distance| distance <= limit)
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn counts_typing_mistakes() {
        for (a, b, expected) in [
            ("nginx", "nginx", Some(0)),
            ("ngnix", "nginx", Some(1)),
            ("ngix", "nginx", Some(1)),
            ("nginxx", "nginx", Some(1)),
            ("openssh-sever", "openssh-server", Some(1)),
            ("", "ab", Some(2)),
            ("abc", "xyz", None),
            ("kitten", "sitting", None),
        ] {
            assert_eq!(distance(a, b, 2), expected, "{a} {b}");
        }
    }
}
