//! Packages of a lock whose scripts are known to write something else at every build, and what was done about it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::build::{Built, lock};
use crate::cli::Output;
use crate::lock::Lock;
use crate::rootfs::{Remedy, Unrepeatable, unrepeatable};

/// What is known of the lock's packages, each thing once, with the first package that it is known of.
fn known(locked: &Lock) -> impl Iterator<Item = (&str, &'static Unrepeatable)> {
    let mut seen = BTreeSet::new();
    // Only the scripts of this set run.
    let packages = locked.sets.get(lock::SYSTEM).into_iter().flatten();
    let rows = packages.flat_map(|package| unrepeatable::of(&package.name).map(|row| (package.name.as_str(), row)));
    rows.filter(move |(_, row)| seen.insert((row.package, row.writes)))
}

/// One line, when an image was made; what is known of each package, when it is checked.
pub(super) fn tell(locked: &Lock, built: &Built, every: bool, output: &Output) {
    if every {
        for (name, row) in known(locked) {
            output.talk(&format!("scripts of {name} write {}: {}", row.writes, row.done));
        }
        return;
    }
    let names: Vec<&str> = known(locked).map(|(name, _)| name).collect();
    if !names.is_empty() && !built.stages.iter().all(|stage| stage.cached) {
        output.talk(&format!(
            "what scripts of {} write differs from build to build; it is taken out or made the same (`--check` says how)",
            names.join(", ")
        ));
    }
}

/// The same for programs.
pub(super) fn to_json(locked: &Lock) -> Value {
    let entry = |(name, row): (&str, &Unrepeatable)| {
        json!({
            "package": name,
            "writes": row.writes,
            "paths": row.paths.iter().map(|path| format!("/{path}")).collect::<Vec<_>>(),
            "remedy": word(row.remedy),
            "done": row.done,
        })
    };
    known(locked).map(entry).collect()
}

fn word(remedy: Remedy) -> &'static str {
    match remedy {
        Remedy::Prevented => "prevented",
        Remedy::Removed => "removed",
        Remedy::MadeAtBoot => "made-at-boot",
        Remedy::Rewritten => "rewritten",
        Remedy::Yours => "yours",
    }
}
