//! What happens during a command, as events; and how a person is shown them.
//!
//! Flows in: [`Event`]s, from whatever thread. Flows out: lines or bars on standard error, or nothing. Who reports an event
//! does not know who looks: the library takes a [`Progress`], the command line decides which.
//!
//! | Renderer | for | shows |
//! |---|---|---|
//! | [`Terminal`] | a person at a terminal | a bar for transfers, a line for the running stage, lines that stay |
//! | [`Plain`] | CI logs, pipes | the same as lines, transfers at most every few seconds |
//! | [`Silent`] | `--quiet` | nothing but warnings |

mod plain;
mod terminal;

use std::time::Duration;

pub use self::plain::Plain;
pub use self::terminal::Terminal;

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// A stage of a build began. Stages may overlap; `name` tells them apart.
    StageStarted {
        /// The stage, a word or a few.
        name: &'a str,
    },
    /// A stage ended well.
    StageFinished {
        /// The stage.
        name: &'a str,
        /// How long it took.
        duration: Duration,
        /// Whether its result was there already.
        cached: bool,
    },
    /// Files are going to be transferred. One transfer runs at a time.
    TransferStarted {
        /// How many files.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// A transfer goes on; reported several times each second.
    TransferProgress {
        /// Files done so far.
        files: u64,
        /// Bytes arrived so far, those of earlier attempts that are of use included.
        bytes: u64,
    },
    /// All files have arrived.
    TransferFinished {
        /// How many files.
        files: u64,
        /// Their bytes.
        bytes: u64,
        /// How long it took.
        duration: Duration,
    },
    /// The transfer ended badly: what was shown of it is to be cleared. The error comes by another way.
    TransferFailed,
    /// Something worth a line.
    Message(&'a str),
    /// Something that the user should look after; the command goes on.
    Warning(&'a str),
}

/// Who is told of events. Takes them from any thread and must not take long.
pub trait Progress: Send + Sync {
    /// Takes note of an event.
    fn event(&self, event: &Event<'_>);
}

/// Shows warnings only.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, event: &Event<'_>) {
        if let Event::Warning(text) = event {
            eprintln!("warning: {text}");
        }
    }
}

/// The renderer for standard error: `quiet` wins; a terminal that can move its cursor gets bars, all else lines.
/// `dumb`: whether the environment says that there is no such terminal (`CI` is set, `TERM` is `dumb`).
pub fn for_standard_error(quiet: bool, dumb: bool) -> Box<dyn Progress> {
    use std::io::IsTerminal;
    match () {
        () if quiet => Box::new(Silent),
        () if dumb || !std::io::stderr().is_terminal() => Box::new(Plain::new(std::io::stderr())),
        () => Box::new(Terminal::new()),
    }
}

/// `1.5 MB`: bytes for a person, in powers of 1000.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        // 999.95 would be shown as 1000.0.
        if value < 999.95 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// `1 file`, `2 files`.
fn count_files(files: u64) -> String {
    if files == 1 { "1 file".to_owned() } else { format!("{files} files") }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// The line for an event that stays; `None` for events of passing interest.
fn lasting_line(event: &Event<'_>) -> Option<String> {
    match event {
        Event::StageFinished { name, cached: true, .. } => Some(format!("{name}: unchanged")),
        Event::StageFinished { name, duration, .. } => Some(format!("{name}: {}", seconds(*duration))),
        Event::TransferFinished { files, bytes, duration } => {
            Some(format!("fetched {}, {} in {}", count_files(*files), human_bytes(*bytes), seconds(*duration)))
        }
        Event::Message(text) => Some((*text).to_owned()),
        Event::Warning(text) => Some(format!("warning: {text}")),
        Event::StageStarted { .. }
        | Event::TransferStarted { .. }
        | Event::TransferProgress { .. }
        | Event::TransferFailed => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_with_one_digit_after_the_point() {
        let shown = [0, 999, 1000, 1_500_000, 999_949, 999_950, u64::MAX].map(human_bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "1.5 MB", "999.9 kB", "1.0 MB", "18.4 EB"]);
    }
}
