//! `adamant inspect`: what is in an image?

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Output};
use crate::inspect::{self, Inspection};
use crate::telemetry::human_bytes;

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

/// Shows the image.
pub fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let found = inspect::image(&arguments.path)?;
    output.result(&text(&found), || serde_json::to_value(&found).unwrap_or_default())
}

fn text(image: &Inspection) -> String {
    let mut lines = vec![
        format!("{} {} ({})", image.name, image.version, image.architecture),
        format!("  {}", image.image.display()),
        format!("  {}, {} on disk", human_bytes(image.size), human_bytes(image.allocated)),
        String::new(),
        "Partitions".to_owned(),
    ];
    lines.extend(image.partitions.iter().map(|partition| {
        let size = human_bytes(partition.size);
        format!("  {:<12} {size:>9} at {:<10} {} {}", partition.role, partition.offset, partition.uuid, partition.label)
    }));
    lines.push(format!("\nUnified kernel image ({})", image.uki.uname));
    lines.extend(
        image.uki.sections.iter().map(|section| format!("  {:<12} {:>9}", section.name, human_bytes(section.size))),
    );
    lines.push(format!("  command line: {}", image.uki.command_line));
    lines.push(format!("\nBiggest directories of {} files", image.root.files));
    lines.extend(
        image.directories.iter().map(|directory| format!("  {:>9} {}", human_bytes(directory.bytes), directory.path)),
    );
    lines.push(format!("\n{} packages", image.packages.len()));
    lines.extend(image.packages.iter().map(|package| format!("  {} {}", package.name, package.version)));
    lines.join("\n") + "\n"
}
