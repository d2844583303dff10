//! `adamant schema`: the JSON Schema of recipes.

use clap::Args;

use super::{Failure, Output};
use crate::recipe::json_schema;

/// Print the JSON Schema of recipes, for editors and other programs.
#[derive(Debug, Args)]
#[command(after_help = "\
Example: completion and documentation while writing a recipe, in every editor that knows TOML schemas
  adamant schema > recipe.schema.json
and as the first line of the recipe:
  #:schema ./recipe.schema.json")]
pub struct Arguments {}

/// Prints it.
pub fn run(_: &Arguments, output: &Output) -> Result<(), Failure> {
    let schema = json_schema();
    output.result(&format!("{schema:#}\n"), || schema.clone())
}
