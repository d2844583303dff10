//! What a verb says and where: data on standard output, talk on standard error.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::failure::{Failure, Kind};

/// When text is coloured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// on a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// also into files and pipes
    Always,
    /// never
    Never,
}

/// Where a verb's words go.
#[derive(Debug, Clone)]
pub struct Output {
    json: bool,
    quiet: bool,
    styled: bool,
}

impl Output {
    /// As the global flags say; looks whether standard error is a terminal.
    pub fn new(json: bool, quiet: bool, color: Color) -> Self {
        // The convention of no-color.org: any value that is not empty.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let styled = match color {
            Color::Auto => io::stderr().is_terminal() && !plain,
            Color::Always => true,
            Color::Never => false,
        };
        Self { json, quiet, styled }
    }

    /// Whether data is one JSON object.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Whether only results and errors are to be said.
    pub fn quiet(&self) -> bool {
        self.quiet
    }

    /// Whether standard error takes colours.
    pub fn styled(&self) -> bool {
        self.styled
    }

    /// Prints the result: `text` for people, `json` for machines.
    pub fn result(&self, text: &str, json: impl FnOnce() -> Value) -> Result<(), Failure> {
        if !self.json {
            return self.write(text);
        }
        let object = serde_json::to_string_pretty(&json()).map_err(|error| Failure::new(Kind::Internal, error))?;
        self.write(&format!("{object}\n"))
    }

    /// Writes `text` to standard output. A reader that went away (`adamant schema | head`) has what it wanted: that
    /// is no failure.
    pub fn write(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::new(Kind::Environment, WriteError { source: error }))
            }
            _ => Ok(()),
        }
    }

    /// Says a line on standard error, unless `--quiet`.
    pub fn talk(&self, line: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "{line}");
        }
    }

    /// Says what went wrong, and gives the exit code.
    pub fn failure(&self, failure: &Failure) -> ExitCode {
        let _ = io::stderr().write_all(self.failure_text(failure).as_bytes());
        if self.json && !failure.told {
            let object = failure_json(failure);
            let _ = writeln!(io::stdout(), "{object:#}");
        }
        ExitCode::from(failure.kind.code())
    }

    fn failure_text(&self, failure: &Failure) -> String {
        let paint = |style: &str, text: &str| match self.styled {
            true => format!("\x1b[{style}m{text}\x1b[0m"),
            false => text.to_owned(),
        };
        let mut text = match failure.diagnostics() {
            Some(found) => format!("{}\n", found.render(self.styled)),
            None => format!("{} {}\n", paint("1;31", "error:"), failure.chain().join(": ")),
        };
        for hint in &failure.hints {
            text.push_str(&format!("{} {hint}\n", paint("1;36", "hint:")));
        }
        text
    }
}

/// Standard output refused what was to be printed.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
struct WriteError {
    source: io::Error,
}

fn failure_json(failure: &Failure) -> Value {
    let diagnostics = failure.diagnostics();
    let causes = if diagnostics.is_some() { vec!["the recipe is wrong".into()] } else { failure.chain() };
    json!({
        "schema": "adamant.error/1",
        "kind": failure.kind.word(),
        "code": failure.kind.code(),
        "message": causes.first(),
        "causes": causes.get(1..).unwrap_or_default(),
        "diagnostics": diagnostics.map_or(json!([]), |found| found.to_json()),
        "hints": failure.hints,
    })
}
