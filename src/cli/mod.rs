//! The command line: one file per verb; human and JSON rendering live here and only here.
//!
//! ```text
//! arguments ── clap ──> Verb ── verb's run(arguments, &Output) ──> Ok: exit code 0
//!                                                              └─> Failure: kind -> exit code, text, hints
//! ```
//!
//! Standard output is data: what was asked for, and nothing else, as text or with `--json` as one JSON object.
//! Standard error is talk: progress, errors, hints. A verb reads nothing from the environment but through here.

pub mod boot;
pub mod build;
mod cache;
pub mod completions;
pub mod diff;
pub mod explain;
mod failure;
pub mod fetch;
pub mod gc;
pub mod init;
pub mod inspect;
pub mod key;
pub mod lock;
pub mod outdated;
mod output;
pub mod schema;
pub mod store;
pub mod vendor;
pub mod verify;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::interrupt;

pub use cache::{CacheArguments, CacheError};
pub use failure::{Failure, Kind};
pub use output::{Color, Output};

/// Builds machine images that cannot change, proves what is in them, and boots them.
#[derive(Debug, Parser)]
#[command(name = "adamant", version, max_term_width = 100, subcommand_value_name = "VERB")]
#[command(subcommand_help_heading = "Verbs", after_help = SHORT_AFTER, after_long_help = LONG_AFTER)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

const SHORT_AFTER: &str = "`adamant help` explains exit codes and files; `adamant help VERB` has examples.";

const LONG_AFTER: &str = "\
Exit codes:
  0    done
  1    a mistake in adamant itself
  2    the command line is wrong
  3    the recipe or its lock is wrong
  4    this machine lacks something: a permission, space, a mirror, user namespaces
  5    verification failed: bytes are not what they should be
  6    a remote machine failed: a mirror, a registry
  7    a gate says no: what was asked about is outdated, a rollout was stopped
  130  interrupted

Standard output holds what was asked for, standard error everything else. With --json, standard
output holds exactly one JSON object, also on failure; its field `schema` names its form.";

/// Flags of every verb.
#[derive(Debug, Clone, Args)]
struct Global {
    /// Print one JSON object instead of text.
    #[arg(long, global = true)]
    json: bool,
    /// Say nothing but results and errors.
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Whether text is coloured.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
}

/// One variant per verb; its documentation stands with its arguments.
#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::Arguments),
    Schema(schema::Arguments),
    Lock(lock::Arguments),
    Outdated(outdated::Arguments),
    Vendor(vendor::Arguments),
    Store(store::Arguments),
    Gc(gc::Arguments),
    Build(build::Arguments),
    Verify(verify::Arguments),
    Inspect(inspect::Arguments),
    Diff(diff::Arguments),
    Explain(explain::Arguments),
    Boot(boot::Arguments),
    Key(key::Arguments),
    Completions(completions::Arguments),
}

/// Where packages come from and where they are kept: flags of every verb that may fetch.
#[derive(Debug, Clone, Args)]
pub struct FetchArguments {
    /// Take everything from the store, nothing from the network.
    #[arg(long)]
    pub offline: bool,
    /// Mirror of the Debian archive, as in http://deb.example.org/debian, or of the repository NAME. Without it:
    /// ADAMANT_MIRROR, the configuration file, or the apt sources of this machine, in this order.
    #[arg(long, value_name = "[NAME=]URL", conflicts_with = "offline")]
    pub mirror: Vec<String>,
    /// Folder that keeps packages and results of earlier builds.
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
}

/// Runs the command line `arguments`, the program's name first, and gives its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Without a thread or a pipe the signals end the process as they always do: less tidy, no less safe.
    let _ = interrupt::catch();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        // Help and version go to standard output with 0, mistakes to standard error with 2; a closed pipe is no
        // concern of either.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Kind::Usage.code()));
        }
    };
    let output = Output::new(cli.global.json, cli.global.quiet, cli.global.color);
    let result = match cli.verb {
        Verb::Init(arguments) => init::run(&arguments, &output),
        Verb::Schema(arguments) => schema::run(&arguments, &output),
        Verb::Lock(arguments) => lock::run(&arguments, &output),
        Verb::Outdated(arguments) => outdated::run(&arguments, &output),
        Verb::Vendor(arguments) => vendor::run(&arguments, &output),
        Verb::Store(arguments) => store::run(&arguments, &output),
        Verb::Gc(arguments) => gc::run(&arguments, &output),
        Verb::Build(arguments) => build::run(&arguments, &output),
        Verb::Verify(arguments) => verify::run(&arguments, &output),
        Verb::Inspect(arguments) => inspect::run(&arguments, &output),
        Verb::Diff(arguments) => diff::run(&arguments, &output),
        Verb::Explain(arguments) => explain::run(&arguments, &output),
        Verb::Boot(arguments) => boot::run(&arguments, &output),
        Verb::Key(arguments) => key::run(&arguments, &output),
        Verb::Completions(arguments) => completions::run(&arguments, &mut Cli::command(), &output),
    };
    interrupt::wait_if_interrupted();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output.failure(&failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
