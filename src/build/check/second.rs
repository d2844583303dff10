//! The second build itself, in surroundings that [`vary`](super::vary) has made.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::setgroups;

use super::wire::{Event, Second, TRACED, say};
use super::{MARKER, calls};
use crate::build::{self, BuildError, Plan, lock};
use crate::recipe::{self, Overrides};
use crate::rootfs::Storage;
use crate::store::Store;
use crate::store::fetch::{Fetcher, Options};
use crate::store::mirror::Mirrors;
use crate::telemetry::{self, Progress};

/// The stage that gives up what the other user does not have.
pub(super) const BECOME: &str = "become";
/// The stage that builds.
pub(super) const STAGE: &str = "build";
/// The name of the image's directory in the output.
pub(super) const IMAGE: &str = "image";

/// Waits for a word on standard input, then starts the build. Returns only with a failure.
pub(super) fn become_other(plan: &Path) -> i32 {
    let switch = || -> io::Result<()> {
        let mut word = [0];
        io::stdin().read_exact(&mut word)?;
        setgroups(&[])?;
        nix::sys::prctl::set_no_new_privs()?;
        // Without a tracer, the filters would make system calls fail.
        if word == [TRACED] {
            for filter in calls::filters().map_err(io::Error::other)? {
                seccompiler::apply_filter(&filter).map_err(io::Error::other)?;
            }
        }
        Ok(())
    };
    let error = match switch() {
        Ok(()) => Command::new("/proc/self/exe").args([MARKER, STAGE]).arg(plan).exec(),
        Err(error) => error,
    };
    say(&Event::Failed(format!("cannot start the build: {error}")));
    1
}

/// Builds.
pub(super) fn main(plan: &Path) -> i32 {
    let read = || -> io::Result<Second> { Ok(serde_json::from_slice(&fs::read(plan)?)?) };
    let built = match read() {
        Ok(plan) => build(&plan),
        Err(error) => Err(Event::Failed(format!("cannot read {}: {error}", plan.display()))),
    };
    match built {
        Ok(()) => 0,
        Err(event) => {
            say(&event);
            1
        }
    }
}

/// As `adamant build --offline` does.
fn build(second: &Second) -> Result<(), Event> {
    let recipe = recipe::load(&second.recipe, &Overrides { version: second.version.clone() });
    let recipe = recipe.map_err(|error| failed(&error))?;
    let sources = recipe.read_sources().map_err(|error| failed(&error))?;
    let store = Store::open(&second.store).map_err(|error| failed(&error))?;
    let fetcher = Fetcher::new(store, Mirrors::default(), Options { offline: true, ..Options::default() });
    let request = lock::request(&recipe, &sources).map_err(|error| failed(&error))?;
    let locked = lock::read(&lock::path(&second.recipe), &request).map_err(|error| failed(&error))?;
    let locked = locked.ok_or_else(|| Event::Failed("the lock is gone".to_owned()))?;
    let plan = Plan {
        recipe: &recipe,
        sources: &sources,
        epoch: recipe.epoch.unwrap_or(i64::try_from(locked.epoch).unwrap_or(i64::MAX)),
        lock: &locked,
        workers: std::thread::available_parallelism().unwrap_or(std::num::NonZeroUsize::MIN),
        storage: Storage::Elsewhere(second.tree.clone()),
    };
    let built = build::build(&plan, &second.output.join(IMAGE), &fetcher, &Told);
    built.map(drop).map_err(|error| match error {
        BuildError::Store(_) | BuildError::Workspace { .. } | BuildError::Output(_) => failed(&error),
        error => Event::BuildFailed(chain(&error)),
    })
}

fn failed(error: &dyn std::error::Error) -> Event {
    Event::Failed(chain(error))
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Stages, told to the process that checks.
struct Told;

impl Progress for Told {
    fn event(&self, event: &telemetry::Event<'_>) {
        if let telemetry::Event::StageStarted { name } = event {
            say(&Event::Stage(format!("second build: {name}")));
        }
    }
}
