//! `adamant build`: from a recipe to an image.

use std::path::PathBuf;

use clap::Args;

use super::FetchArguments;

/// Build the image that a recipe describes.
///
/// Without a lock beside the recipe (`web.lock` for `web.toml`), one is made first; an existing one is never
/// changed. The output folder appears when it is whole: `<name>_<version>_<arch>.raw`, `.efi`, `manifest.json`
/// and `SHA256SUMS`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adamant build web.toml                         # out/web_1
  adamant build web.toml --version 20261101 --out /srv/images/web
  adamant build web.toml --offline               # from lock and store alone
  adamant build web.toml --json | jq -r .root_hash")]
pub struct Arguments {
    /// The recipe.
    #[arg(value_name = "RECIPE")]
    pub recipe: PathBuf,
    /// Folder for the image: `out/<name>_<version>` unless told otherwise. It must not hold another image.
    #[arg(long, short, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Version of the image, in place of the recipe's.
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// Where packages come from.
    #[command(flatten)]
    pub fetch: FetchArguments,
}
