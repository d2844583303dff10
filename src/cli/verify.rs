//! `adamant verify`: is an image what it claims to be?

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Failure, Kind, Output};
use crate::verify;

/// Recompute every claim of an image from its bytes alone, and name the first that does not hold.
///
/// Exit code 0: all of it holds. 5: it does not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adamant verify out/web_1
  adamant verify web_1_amd64.raw --json")]
pub struct Arguments {
    /// A folder that `build` made, or the image in it.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
}

/// Verifies, and says what was found to be true.
pub fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let verified = verify::image(&arguments.path)?;
    let beside = match verified.digest {
        Some(digest) => format!("digest {digest}\n"),
        None => "no manifest beside it: checked against itself only\n".to_owned(),
    };
    let text = format!(
        "{} {} ({}): verified\nroot hash {}\n{beside}{} files{}\n",
        verified.name,
        verified.version,
        verified.architecture,
        verified.root_hash,
        verified.files,
        verified.packages.map(|count| format!(", {count} packages")).unwrap_or_default(),
    );
    output.result(&text, || {
        json!({
            "schema": "adamant.verify/1",
            "image": verified.path,
            "name": verified.name,
            "version": verified.version,
            "architecture": verified.architecture,
            "root_hash": verified.root_hash,
            "digest": verified.digest,
            "files": verified.files,
            "packages": verified.packages,
        })
    })
}

impl From<verify::Failure> for Failure {
    fn from(failure: verify::Failure) -> Self {
        Self::new(Kind::Verification, failure)
    }
}
