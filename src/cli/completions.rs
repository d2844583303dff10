//! `adamant completions`: completion of the command line, for shells.

use clap::{Args, Command};
use clap_complete::Shell;
use serde_json::json;

use super::{Failure, Output};

/// Print a script that completes the command line in a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adamant completions bash > ~/.local/share/bash-completion/completions/adamant
  adamant completions fish > ~/.config/fish/completions/adamant.fish
  adamant completions zsh  > ~/.zfunc/_adamant        # a folder of $fpath")]
pub struct Arguments {
    /// The shell.
    shell: Shell,
}

/// Prints the script for `command`.
pub fn run(arguments: &Arguments, command: &mut Command, output: &Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, command, "adamant", &mut script);
    let script = String::from_utf8_lossy(&script);
    output.result(
        &script,
        || json!({ "schema": "adamant.completions/1", "shell": arguments.shell.to_string(), "script": script }),
    )
}
