//! Events as lines, for logs.

use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::{Event, Progress, count_files, human_bytes, lasting_line};

/// A log is read afterwards: a line now and then shows that a long transfer lives, more are in the way.
const INTERVAL: Duration = Duration::from_secs(5);

/// Writes a line for each event, of a transfer one every five seconds.
pub struct Plain<W: Write + Send> {
    state: Mutex<State<W>>,
}

struct State<W> {
    output: W,
    interval: Duration,
    /// Files and bytes of the running transfer.
    total: (u64, u64),
    shown: Instant,
}

impl<W: Write + Send> Plain<W> {
    /// Writes to `output`.
    pub fn new(output: W) -> Self {
        Self::with_interval(output, INTERVAL)
    }

    fn with_interval(output: W, interval: Duration) -> Self {
        Self { state: Mutex::new(State { output, interval, total: (0, 0), shown: Instant::now() }) }
    }
}

impl<W: Write + Send> State<W> {
    fn line(&mut self, event: &Event<'_>) -> Option<String> {
        match event {
            Event::TransferStarted { files, bytes } => {
                self.total = (*files, *bytes);
                self.shown = Instant::now();
                Some(format!("fetching {}, {}", count_files(*files), human_bytes(*bytes)))
            }
            Event::TransferProgress { files, bytes } if self.shown.elapsed() >= self.interval => {
                self.shown = Instant::now();
                let (all_files, all_bytes) = self.total;
                let percent = if all_bytes == 0 { 100 } else { u128::from(*bytes) * 100 / u128::from(all_bytes) };
                Some(format!("fetched {files} of {}, {percent} %", count_files(all_files)))
            }
            other => lasting_line(other),
        }
    }
}

impl<W: Write + Send> Progress for Plain<W> {
    fn event(&self, event: &Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(line) = state.line(event) {
            // A log that cannot be written to is no reason to stop the work.
            let _ = writeln!(state.output, "{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(interval: Duration, events: &[Event<'_>]) -> String {
        let plain = Plain::with_interval(Vec::new(), interval);
        events.iter().for_each(|event| plain.event(event));
        let state = plain.state.into_inner().unwrap();
        String::from_utf8(state.output).unwrap()
    }

    #[test]
    fn a_transfer_is_shown_at_its_ends_and_seldom_in_between() {
        let started = Event::TransferStarted { files: 2, bytes: 4000 };
        let progress = Event::TransferProgress { files: 1, bytes: 1000 };
        let finished = Event::TransferFinished { files: 2, bytes: 4000, duration: Duration::from_millis(1250) };
        let events = [started, progress.clone(), progress, finished];
        assert_eq!(lines(INTERVAL, &events), "fetching 2 files, 4.0 kB\nfetched 2 files, 4.0 kB in 1.2 s\n");
        assert_eq!(lines(Duration::ZERO, &events[..2]), "fetching 2 files, 4.0 kB\nfetched 1 of 2 files, 25 %\n");
    }

    #[test]
    fn stages_are_shown_when_they_end_with_seconds_or_as_unchanged() {
        let events = [
            Event::StageStarted { name: "unpack" },
            Event::StageFinished { name: "unpack", duration: Duration::from_secs(2), cached: false },
            Event::StageFinished { name: "configure", duration: Duration::ZERO, cached: true },
            Event::Warning("the clock is wrong"),
        ];
        assert_eq!(lines(INTERVAL, &events), "unpack: 2.0 s\nconfigure: unchanged\nwarning: the clock is wrong\n");
    }
}
