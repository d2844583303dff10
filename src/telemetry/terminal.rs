//! Events as moving bars, for a person at a terminal.

use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{Event, Progress, lasting_line};

/// How often a spinner turns: often enough to look alive.
const TICK: Duration = Duration::from_millis(120);

/// Shows bars on standard error; what was shown in passing is cleared when it is over.
pub struct Terminal {
    bars: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stages: Vec<(String, ProgressBar)>,
    transfer: Option<ProgressBar>,
}

impl Terminal {
    /// Draws on standard error.
    #[allow(clippy::new_without_default)] // it does something: a default would not
    pub fn new() -> Self {
        Self { bars: MultiProgress::new(), state: Mutex::default() }
    }

    fn spinner(&self, name: &str) -> ProgressBar {
        let bar = self.bars.add(ProgressBar::new_spinner());
        bar.set_style(style(ProgressStyle::default_spinner(), "{spinner} {msg} {elapsed}"));
        bar.set_message(name.to_owned());
        bar.enable_steady_tick(TICK);
        bar
    }

    fn transfer(&self, files: u64, bytes: u64) -> ProgressBar {
        let bar = self.bars.add(ProgressBar::new(bytes));
        let template = "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
        bar.set_style(style(ProgressStyle::default_bar(), template));
        bar.set_message(format!("0/{files}"));
        bar
    }
}

/// The style with a template; a template that indicatif refuses is a bar less pretty, no more.
fn style(plain: ProgressStyle, template: &str) -> ProgressStyle {
    plain.clone().template(template).unwrap_or(plain)
}

impl Progress for Terminal {
    fn event(&self, event: &Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match event {
            Event::StageStarted { name } => state.stages.push(((*name).to_owned(), self.spinner(name))),
            Event::StageFinished { name, .. } => {
                if let Some(index) = state.stages.iter().position(|(other, _)| other == name) {
                    state.stages.remove(index).1.finish_and_clear();
                }
            }
            Event::TransferStarted { files, bytes } => state.transfer = Some(self.transfer(*files, *bytes)),
            Event::TransferProgress { files, bytes } => {
                if let Some(bar) = &state.transfer {
                    let total = bar.message();
                    let total = total.rsplit('/').next().unwrap_or_default().to_owned();
                    bar.set_message(format!("{files}/{total}"));
                    bar.set_position(*bytes);
                }
            }
            Event::TransferFinished { .. } | Event::TransferFailed => {
                if let Some(bar) = state.transfer.take() {
                    bar.finish_and_clear();
                }
            }
            Event::Message(_) | Event::Warning(_) => {}
        }
        if let Some(line) = lasting_line(event) {
            self.bars.suspend(|| eprintln!("{line}"));
        }
    }
}

impl Drop for Terminal {
    /// An error ends a command in the midst of a stage: its bar must not stand before the error's text.
    fn drop(&mut self) {
        let _ = self.bars.clear();
    }
}
