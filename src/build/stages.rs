//! Stages as the user sees them: announced, timed, and told apart from those whose result was there already.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::telemetry::{Event, Progress};

/// A stage that ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// How long it took.
    pub duration: Duration,
    /// Whether its result was in the store already.
    pub cached: bool,
}

/// Runs stages and remembers them, in the order of their end.
pub struct Stages<'a> {
    progress: &'a dyn Progress,
    ended: Mutex<Vec<Stage>>,
}

impl<'a> Stages<'a> {
    /// No stage yet.
    pub fn new(progress: &'a dyn Progress) -> Self {
        Self { progress, ended: Mutex::default() }
    }

    /// Who is told of events.
    pub fn progress(&self) -> &'a dyn Progress {
        self.progress
    }

    /// Runs `work` as the stage `name`; its second value says whether the result was there already.
    pub fn run<T, E>(&self, name: &'static str, work: impl FnOnce() -> Result<(T, bool), E>) -> Result<T, E> {
        self.progress.event(&Event::StageStarted { name });
        let start = Instant::now();
        let (value, cached) = work()?;
        let duration = start.elapsed();
        self.progress.event(&Event::StageFinished { name, duration, cached });
        if let Ok(mut ended) = self.ended.lock() {
            ended.push(Stage { name, duration, cached });
        }
        Ok(value)
    }

    /// The stages that ended.
    pub fn into_ended(self) -> Vec<Stage> {
        self.ended.into_inner().unwrap_or_default()
    }
}
