//! `adamant verify`: is an image what it claims to be?

use std::path::PathBuf;

use clap::Args;

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
