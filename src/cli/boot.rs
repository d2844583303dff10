//! `adamant boot`: run an image in a virtual machine.

use std::path::PathBuf;

use clap::Args;

use super::FetchArguments;

/// Boot an image in QEMU, its console on this terminal. The image itself is never altered.
///
/// With `--test`, the recipe's checks run inside the machine; exit code 0 if all of them hold, 5 if not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adamant boot out/web_1              # its console; Ctrl-a x ends it
  adamant boot out/web_1 --shell      # a root shell on the console, by a credential given at boot
  adamant boot out/web_1 --test")]
pub struct Arguments {
    /// A folder that `build` made.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Run the recipe's checks and exit.
    #[arg(long)]
    pub test: bool,
    /// Give a root shell on the console.
    #[arg(long, conflicts_with = "test")]
    pub shell: bool,
    /// Where the tools that it needs (QEMU, firmware) come from.
    #[command(flatten)]
    pub fetch: FetchArguments,
}
