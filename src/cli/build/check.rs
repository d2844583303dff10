//! `adamant build --check`: what was varied, and where the bits differ, for people and for machines.

use serde_json::{Value, json};

use crate::build::check::{Bytes, CheckError, Discrepancy, FileDiscrepancy, Report};
use crate::cli::diff::report::printable;
use crate::cli::{Failure, Kind};

/// How many files are listed for a person.
const FOLD: usize = 50;

/// For people.
pub(super) fn text(report: &Report) -> String {
    let (varied, kept): (Vec<_>, Vec<_>) = report.variations.iter().partition(|variation| variation.varied);
    let names: Vec<&str> = varied.iter().map(|variation| variation.what.as_str()).collect();
    let mut lines = Vec::new();
    match &report.discrepancy {
        None => lines.push(format!("built a second time, the same bits; varied: {}", names.join(", "))),
        Some(found) => {
            lines.push(format!("built a second time, other bits; varied: {}", names.join(", ")));
            lines.extend(discrepancy(found));
        }
    }
    lines.extend(kept.iter().map(|variation| format!("not varied: {}: {}", variation.what, variation.how)));
    let lines: Vec<String> = lines.iter().map(|line| printable(line)).collect();
    lines.join("\n") + "\n"
}

fn discrepancy(found: &Discrepancy) -> Vec<String> {
    let mut lines = Vec::new();
    for file in found.files.iter().take(FOLD) {
        let writer = file.writer.as_ref().map(|writer| format!(" ({writer})")).unwrap_or_default();
        lines.push(format!("{} {}{writer}: {}", file.partition, file.path, differences(file)));
        lines.extend(file.bytes.iter().map(|found| format!("  {}", bytes(found))));
    }
    let hidden = found.files.len().saturating_sub(FOLD);
    if hidden > 0 {
        lines.push(format!("… {hidden} more files: --json lists them"));
    }
    for (kind, parts) in [("partition", &found.partitions), ("output", &found.outputs)] {
        for part in parts {
            let place = part.bytes.as_ref().map_or("only one build has it".to_owned(), bytes);
            lines.push(format!("{kind} {}: {place}", part.name));
        }
    }
    lines.extend(found.unread.iter().map(|why| format!("the files are not known: {why}")));
    lines
}

fn differences(file: &FileDiscrepancy) -> String {
    let value = |value: &Option<String>| value.as_deref().unwrap_or("nothing").to_owned();
    let changes = file.changes.iter().filter(|change| change.name != "sha256");
    let mut texts: Vec<String> = changes
        .map(|change| match (change.name.as_str(), &change.before, &change.after) {
            ("name", Some(kind), None) => format!("a {kind} that only the first build has"),
            ("name", None, Some(kind)) => format!("a {kind} that only the second build has"),
            (name, before, after) => format!("{name} {} and {}", value(before), value(after)),
        })
        .collect();
    if file.changes.iter().any(|change| change.name == "sha256") {
        texts.push("other bytes".to_owned());
    }
    texts.join(", ")
}

fn bytes(found: &Bytes) -> String {
    let Bytes { offset, first, second, count } = found;
    let shown = |text: &str| if text.is_empty() { "the end".to_owned() } else { text.to_owned() };
    format!("from byte {offset} on ({count} differ): {} and {}", shown(first), shown(second))
}

/// For machines.
pub(super) fn to_json(report: &Report) -> Value {
    json!({
        "same": report.discrepancy.is_none(),
        "variations": report.variations,
        "discrepancy": report.discrepancy,
    })
}

/// Exit code 5 if the bits differ.
pub(super) fn outcome(report: Report) -> Result<(), Failure> {
    match report.discrepancy {
        None => Ok(()),
        Some(found) => {
            let files = found.files.len();
            Err(Failure::new(Kind::Verification, UnrepeatableError { files }).after_result())
        }
    }
}

/// The bits differ.
#[derive(Debug, thiserror::Error)]
#[error("the second build made other bits: {}", match .files { 0 => "of no file".to_owned(), 1 => "of 1 file".to_owned(), n => format!("of {n} files") })]
struct UnrepeatableError {
    files: usize,
}

impl From<CheckError> for Failure {
    fn from(error: CheckError) -> Self {
        let kind = match &error {
            CheckError::SecondBuild { .. } => Kind::Verification,
            _ => Kind::Environment,
        };
        let failure = Self::new(kind, error);
        match kind {
            Kind::Verification => failure.hint(
                "the image that was built first is in its place; a script depends on one of the things that were varied: \
                 user, clock, processors, file system, order of directories",
            ),
            _ => failure,
        }
    }
}
