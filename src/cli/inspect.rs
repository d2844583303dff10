//! `adamant inspect`: what is in an image?

use std::path::PathBuf;

use clap::Args;

/// Show an image: partitions, sections of the kernel image, command line, packages, biggest directories.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adamant inspect out/web_1
  adamant inspect out/web_1 --json | jq -r '.packages[].name'")]
pub struct Arguments {
    /// A folder that `build` made, or the image in it.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
}
