//! From a list of wishes to the set of packages that fulfils them.
//!
//! Flows in: a [`Universe`], a [`SetRequest`], versions to keep. Flows out: the versions to install, or why there are none.
//!
//! Invariants: the set depends on the universe and on what is asked for, not on the order in which it is asked; it is
//! the set that `apt-get install` gives on an empty system, unless versions are to be kept ([`Kept`]).

mod explain;
mod keep;
mod mark;
mod prove;
mod repair;
mod request;
mod select;
mod state;
mod sweep;

use super::universe::{PackageId, Universe, VersionId};
pub use explain::Explanation;
pub(super) use keep::Kept;
use mark::Manner;
pub use request::{PackageRequest, ParseRequestError, Selector, SetRequest};
pub(super) use select::{best, newest_of};
use state::State;

/// Marking recurses along dependencies, at most 3000 deep as in apt; this is ten times what that takes.
pub(super) const STACK_BYTES: usize = 64 << 20;

/// A version that exists, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Available {
    /// The version.
    pub version: String,
    /// Repository and suite of each place that has it.
    pub origins: Vec<String>,
}

/// Why a set cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No package of this name.
    #[error("there is no package {package}{}", suggestion(.nearest))]
    Unknown {
        /// As asked for.
        package: String,
        /// Names that look like it, the nearest first.
        nearest: Vec<String>,
    },
    /// A virtual package that several provide.
    #[error("{package} is a virtual package; ask for one of those that provide it: {}", .providers.join(", "))]
    Virtual {
        /// As asked for.
        package: String,
        /// Packages that provide it.
        providers: Vec<String>,
    },
    /// A version that no repository has.
    #[error("there is no version {version} of {package}; there is {}", versions(.available))]
    UnknownVersion {
        /// As asked for.
        package: String,
        /// As asked for.
        version: String,
        /// The newest that exist.
        available: Vec<Available>,
    },
    /// A repository or suite that does not have the package.
    #[error("{origin} has no package {package}; there is {}", versions(.available))]
    NotInOrigin {
        /// As asked for.
        package: String,
        /// As asked for.
        origin: String,
        /// The newest that exist.
        available: Vec<Available>,
    },
    /// All versions come from repositories whose priority forbids them.
    #[error("no repository with a priority above 0 has {package}; there is {}", versions(.available))]
    NoCandidate {
        /// As asked for.
        package: String,
        /// The newest that exist.
        available: Vec<Available>,
    },
    /// Asked for and excluded.
    #[error("{package} is asked for and excluded")]
    Excluded {
        /// The package.
        package: String,
    },
    /// Two different versions of one package are asked for.
    #[error("{first} and {second} contradict each other")]
    Contradiction {
        /// One wish.
        first: String,
        /// The other.
        second: String,
    },
    /// What is asked for contradicts itself or the repositories.
    #[error("{0}")]
    Unsatisfiable(Explanation),
}

fn suggestion(nearest: &[String]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; did you mean {}?", nearest.join(" or ")) }
}

fn versions(available: &[Available]) -> String {
    let one = |available: &Available| format!("{} ({})", available.version, available.origins.join(", "));
    if available.is_empty() { "none".to_owned() } else { available.iter().map(one).collect::<Vec<_>>().join(", ") }
}

/// The versions to install; those of `kept` wherever they go together with what is asked for.
pub(super) fn resolve(
    universe: &Universe<'_>,
    request: &SetRequest,
    mut kept: Kept,
) -> Result<Vec<VersionId>, ResolveError> {
    loop {
        let mut candidates = select::candidates(universe, request)?;
        kept.take_over(universe, request, &mut candidates);
        let selected = select::select(universe, request, &candidates, &kept)?;
        let mut state = State::new(universe, candidates, request.recommends);
        state.prefer_known(&kept);
        let asked_for: Vec<PackageId> = selected.iter().map(|one| universe.version(one.version).package).collect();
        state.choose_candidates(&selected);
        if kept.let_go_of_obstacles(&mut state.clone(), &asked_for) {
            continue;
        }
        match install(state, request, &asked_for, kept.same_request) {
            Ok(versions) => return Ok(versions),
            // What is kept stands in the way, beyond what was foreseen.
            Err(_) if !kept.is_empty() => kept = Kept::default(),
            Err(explanation) => return Err(ResolveError::Unsatisfiable(explanation)),
        }
    }
}

/// Marks what is asked for, with all that it needs.
fn install(
    mut state: State<'_, '_>,
    request: &SetRequest,
    asked_for: &[PackageId],
    same_request: bool,
) -> Result<Vec<VersionId>, Explanation> {
    let before = state.clone();
    let manner = Manner { follow: false, asked_for: true, depth: 0 };
    for &package in asked_for {
        state.choice_mut(package).protected = true;
        state.mark(package, manner);
    }
    for &package in asked_for {
        state.mark(package, Manner { follow: true, ..manner });
    }
    if state.broken().next().is_some() {
        state.repair(asked_for);
    }
    if state.broken().next().is_some() {
        return Err(explain::explain(request, &before, &state, asked_for));
    }
    if same_request {
        state.take_in_earlier();
    }
    state.sweep();
    let universe = state.universe;
    Ok(universe.packages().filter_map(|package| state.choice(package).install).collect())
}
