//! `adamant diff`: in what do two images differ?

pub(super) mod report;

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use self::report::Report;
use super::{Failure, Kind, Output};
use crate::diff::{self, Difference};

/// Show in what two images differ: packages with their changelogs, files, units, users, kernel command line, parts of
/// the kernel image, partitions.
///
/// Each is a folder that `build` made, a disk image, or a manifest.json; any two of them. With an image, the facts are
/// read from its bytes. What one of the two cannot tell is listed, with the reason, as not compared. Nothing is
/// verified: `adamant verify` does that.
///
/// Exit code 0: compared, whether or not they differ. With --exit-code, 5 if they differ: who asks for it says that
/// they should be equal. (1, which diff and git use, means a mistake in adamant itself.)
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adamant diff out/web_1 out/web_2
  adamant diff web_1/manifest.json out/web_2 --markdown > release-notes.md
  adamant diff out/web_1 other/web_1 --exit-code --quiet > /dev/null
  adamant diff out/web_1 out/web_2 --json | jq -r '.packages.changed[].after.name'")]
pub struct Arguments {
    /// A folder that `build` made, the image in it, or a manifest.
    #[arg(value_name = "A")]
    pub before: PathBuf,
    /// What to compare it with.
    #[arg(value_name = "B")]
    pub after: PathBuf,
    /// Write Markdown, for a release note.
    #[arg(long)]
    pub markdown: bool,
    /// List everything, however long.
    #[arg(long)]
    pub all: bool,
    /// Exit with 5 if they differ.
    #[arg(long)]
    pub exit_code: bool,
}

/// Compares, and shows what differs.
pub fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    if arguments.markdown && output.json() {
        return Err(Failure::new(Kind::Usage, TwoFormsError));
    }
    let (before, after) = rayon::join(|| diff::read(&arguments.before), || diff::read(&arguments.after));
    let found = diff::difference(&before?, &after?);
    let report = Report::new(&found, arguments.all);
    let text = if arguments.markdown { report.markdown() } else { report.text() };
    output.result(&text, || to_json(&found))?;
    match arguments.exit_code && !found.same {
        true => Err(Failure::new(
            Kind::Verification,
            DifferentError { before: arguments.before.clone(), after: arguments.after.clone() },
        )
        .after_result()),
        false => Ok(()),
    }
}

fn to_json(found: &Difference) -> Value {
    let mut object = json!({ "schema": "adamant.diff/1" });
    if let (Value::Object(object), Ok(Value::Object(fields))) = (&mut object, serde_json::to_value(found)) {
        object.extend(fields);
    }
    object
}

/// Asked for twice.
#[derive(Debug, thiserror::Error)]
#[error("--markdown and --json are two forms of one output: give one of them")]
struct TwoFormsError;

/// They should have been equal.
#[derive(Debug, thiserror::Error)]
#[error("{} and {} differ", .before.display(), .after.display())]
struct DifferentError {
    before: PathBuf,
    after: PathBuf,
}
