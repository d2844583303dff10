//! Who wrote a file that differs: the maintainer script, by the time of the file's last change in the second build, or the
//! step of the build, by the manifest.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::compare::Discrepancy;
use super::trace::{self, Turn};
use super::wire;
use crate::manifest::{FILE_NAME, Manifest, Step, path_to_text};
use crate::rootfs::ChangeRow;

/// Names the writers of the files in `found`; the second build has left its lists on `disk`. Where they cannot be read,
/// nobody is named.
pub(super) fn name(mut found: Discrepancy, first: &Path, disk: &Path) -> Discrepancy {
    let turns: Vec<Turn> = list(&disk.join(wire::TURNS));
    let changes: Vec<ChangeRow> = list(&disk.join(wire::CHANGES));
    let times: HashMap<String, (i64, i64)> =
        changes.into_iter().map(|row| (format!("/{}", path_to_text(&row.path)), row.time)).collect();
    let second = disk.join(wire::OUTPUT).join(super::second::IMAGE);
    let steps: [HashMap<String, Option<Step>>; 2] = [steps(&second), steps(first)];
    for file in found.files.iter_mut().filter(|file| file.partition == "root") {
        let step = steps.iter().find_map(|steps| steps.get(&file.path)).copied().flatten();
        let script = times.get(&file.path).and_then(|time| trace::whose(&turns, *time));
        file.writer = match (step, script) {
            (Some(step @ (Step::Settings | Step::Accounts | Step::State | Step::Files | Step::Units)), _) => {
                Some(format!("written by adamant: {}", word(step)))
            }
            (_, Some(script)) => Some(format!("{} of {}", script.name, script.package)),
            (Some(Step::Configure), None) => Some("written while packages were configured".to_owned()),
            _ => None,
        };
    }
    found
}

fn word(step: Step) -> &'static str {
    match step {
        Step::Configure => "configuration of packages",
        Step::Normalise => "normalisation",
        Step::Settings => "the recipe's settings",
        Step::Accounts => "the recipe's accounts",
        Step::State => "the state of machines",
        Step::Files => "the recipe's files",
        Step::Units => "the recipe's units",
    }
}

fn list<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

fn steps(output: &Path) -> HashMap<String, Option<Step>> {
    let manifest = fs::read(output.join(FILE_NAME)).ok();
    let manifest: Option<Manifest> = manifest.and_then(|text| serde_json::from_slice(&text).ok());
    manifest.into_iter().flat_map(|manifest| manifest.files).map(|file| (file.path, file.by)).collect()
}
