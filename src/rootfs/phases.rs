//! Which packages are configured before others are unpacked, and in what order scripts run before unpacking.
//!
//! As debootstrap, mmdebstrap and apt do: what is `Essential` is there before anything else, because scripts rely on
//! it without saying so; what a package has in `Pre-Depends` is there before its first script.

use std::collections::{BTreeMap, BTreeSet};

use super::deb::UnpackedPackage;
use crate::apt::relation;

/// Positions of the packages in sets, each of which is unpacked and configured before the next one: first what is
/// `Essential` and all that it needs, then what others have in `Pre-Depends`, last everything else.
pub(super) fn phases(packages: &[UnpackedPackage]) -> Vec<BTreeSet<usize>> {
    let providers = Providers::new(packages);
    let is_essential = |index: &usize| packages[*index].field("Essential") == Some("yes");
    let mut phase = providers.closure((0..packages.len()).filter(is_essential).collect());
    let mut done = BTreeSet::new();
    let mut phases = Vec::new();
    loop {
        done.extend(&phase);
        if !phase.is_empty() {
            phases.push(phase);
        }
        phase = (0..packages.len()).filter(|index| !done.contains(index)).collect();
        if phase.is_empty() {
            return phases;
        }
        loop {
            let needed = phase.iter().flat_map(|index| providers.needed(&packages[*index], "Pre-Depends")).collect();
            let needed: BTreeSet<usize> = providers.closure(needed).difference(&done).copied().collect();
            // What pre-depends on each other in a circle has to go together.
            if needed.is_empty() || needed.len() >= phase.len() {
                break;
            }
            phase = needed;
        }
    }
}

/// Who provides which name, versions as they are declared.
struct Providers<'p> {
    packages: &'p [UnpackedPackage],
    by_name: BTreeMap<&'p str, Vec<(usize, Option<&'p str>)>>,
}

impl<'p> Providers<'p> {
    fn new(packages: &'p [UnpackedPackage]) -> Self {
        let mut by_name: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (index, package) in packages.iter().enumerate() {
            by_name.entry(package.name()).or_default().push((index, Some(package.version())));
            for provided in relation::parse(package.field("Provides").unwrap_or_default()).flatten() {
                let version = provided.constraint.map(|(_, version)| version);
                by_name.entry(provided.name).or_default().push((index, version));
            }
        }
        Self { packages, by_name }
    }

    /// For each group of the field, the packages of the first alternative that is there. Whoever resolved the set
    /// answers for its completeness: a group that nobody satisfies is dpkg's to complain about.
    fn needed(&self, package: &UnpackedPackage, field: &str) -> Vec<usize> {
        let mut needed = Vec::new();
        let mut satisfied = false;
        for alternative in relation::parse(package.field(field).unwrap_or_default()).flatten() {
            if !satisfied {
                let found = self.satisfying(&alternative);
                satisfied = !found.is_empty();
                needed.extend(found);
            }
            if alternative.last {
                satisfied = false;
            }
        }
        needed
    }

    /// The packages with all that they need.
    fn closure(&self, mut pending: Vec<usize>) -> BTreeSet<usize> {
        let mut closure = BTreeSet::new();
        while let Some(index) = pending.pop() {
            if closure.insert(index) {
                pending.extend(self.needed(&self.packages[index], "Pre-Depends"));
                pending.extend(self.needed(&self.packages[index], "Depends"));
            }
        }
        closure
    }

    fn satisfying(&self, alternative: &relation::Alternative<'_>) -> Vec<usize> {
        let name = alternative.name.split(':').next().unwrap_or_default();
        let candidates = self.by_name.get(name).map_or(&[][..], Vec::as_slice);
        let fits = |version: &Option<&str>| match (alternative.constraint, version) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((operator, bound)), Some(version)) => operator.holds(version, bound),
        };
        let found: Vec<usize> =
            candidates.iter().filter(|(_, version)| fits(version)).map(|(index, _)| *index).collect();
        // A package of that very name is what the author meant; virtual ones are for when it is not there.
        let real: Vec<usize> = found.iter().copied().filter(|index| self.packages[*index].name() == name).collect();
        if real.is_empty() { found } else { real }
    }
}

/// Runs before the scripts of all others: makes `/etc/passwd`, the directories, the C library's diversions.
const FIRST: [&str; 3] = ["base-passwd", "base-files", "libc6"];

/// `indices` in the order in which their scripts run before unpacking: the order of their names, for no package may
/// rely on another one here but on the base.
pub(super) fn script_order(packages: &[UnpackedPackage], indices: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut order: Vec<usize> = indices.collect();
    order.sort_by_key(|index| {
        let package = &packages[*index];
        let rank = FIRST.iter().position(|name| *name == package.name()).unwrap_or(FIRST.len());
        (rank, package.name(), package.architecture())
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, fields: &str) -> UnpackedPackage {
        let control = format!("Package: {name}\nVersion: 2\nArchitecture: all\n{fields}");
        UnpackedPackage::from_parts(name, "2", "all", control, Vec::new(), Vec::new())
    }

    fn names(packages: &[UnpackedPackage]) -> Vec<Vec<&str>> {
        let names = |phase: BTreeSet<usize>| phase.into_iter().map(|index| packages[index].name()).collect();
        phases(packages).into_iter().map(names).collect()
    }

    #[test]
    fn essential_packages_come_first_then_what_is_predepended() {
        let packages = [
            package("bash", "Essential: yes\nPre-Depends: libc (>= 1)\n"),
            package("libc", "Depends: gcc-base | other, awk\n"),
            package("gcc-base", ""),
            package("mawk", "Provides: awk\n"),
            package("server", "Pre-Depends: debconf (>= 3) | debconf-2.0\nDepends: perl\n"),
            package("perl", ""),
            package("cdebconf", "Provides: debconf-2.0\nPre-Depends: init\n"),
            package("debconf", ""),
            package("init", ""),
        ];
        let expected = [
            vec!["bash", "libc", "gcc-base", "mawk"],
            vec!["init"],
            vec!["cdebconf"],
            vec!["server", "perl", "debconf"],
        ];
        assert_eq!(names(&packages), expected);
    }

    #[test]
    fn a_circle_of_predependencies_ends() {
        let packages = [package("a", "Pre-Depends: b\n"), package("b", "Pre-Depends: a\n"), package("c", "")];
        assert_eq!(names(&packages), [vec!["a", "b"], vec!["c"]]);
    }

    #[test]
    fn scripts_run_by_name_after_the_first_three() {
        let packages = ["z", "libc6", "a", "base-passwd"].map(|name| package(name, ""));
        let names: Vec<_> = script_order(&packages, 0..4).into_iter().map(|index| packages[index].name()).collect();
        assert_eq!(names, ["base-passwd", "libc6", "a", "z"]);
    }
}
