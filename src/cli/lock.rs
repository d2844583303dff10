//! `adamant lock`: which packages exactly.

use std::path::PathBuf;

use clap::Args;

use super::FetchArguments;

/// Resolve a recipe's packages and pin them, each with version and digest, in the lock beside it.
///
/// Builds use the lock as it is until this verb renews it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adamant lock web.toml            # writes web.lock
  git diff web.lock                # what the renewal changed: one line per package")]
pub struct Arguments {
    /// The recipe.
    #[arg(value_name = "RECIPE")]
    pub recipe: PathBuf,
    /// Where packages come from.
    #[command(flatten)]
    pub fetch: FetchArguments,
}
