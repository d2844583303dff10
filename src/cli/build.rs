//! `adamant build`: from a recipe to an image.

mod check;
mod unrepeatable;

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::lock::now;
use super::{Failure, FetchArguments, Kind, Output, fetch};
use crate::build::check::Report;
use crate::build::image::ImageError;
use crate::build::packages::PackagesError;
use crate::build::{self, BuildError, Built, Plan, lock, roots};
use crate::lock::Lock;
use crate::recipe::{self, Overrides, Recipe, Scripts};
use crate::rootfs::deb::DebError;
use crate::rootfs::{ConfigureError, Storage};
use crate::telemetry::Event;

/// Build the image that a recipe describes.
///
/// Without a lock beside the recipe (`web.lock` for `web.toml`), one is made first; an existing one is never
/// changed. The output folder appears when it is whole: `<name>_<version>_<arch>.raw`, `.efi`, `manifest.json`
/// and `SHA256SUMS`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adamant build web.toml                         # out/web_1
  adamant build web.toml --version 20261101 --out /srv/images/web
  adamant build web.toml --offline               # from lock and store alone
  adamant build web.toml --check                 # twice, the second time elsewhere: are the bits the same?
  adamant build web.toml --json | jq -r .root_hash")]
pub struct Arguments {
    /// The recipe.
    #[arg(value_name = "RECIPE")]
    pub recipe: PathBuf,
    /// Folder for the image: `out/<name>_<version>` unless told otherwise. It must not hold another image.
    #[arg(long, short, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Version of the image, in place of the recipe's.
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// Build a second time under other circumstances and compare every bit.
    ///
    /// From lock and store alone, with another user, umask, time zone, locale, host name, environment, working
    /// directory, path, file system and order of directories, years later and on one processor. Where the bits
    /// differ: exit code 5, and which partition, which file, which bytes, and which package's script wrote them.
    #[arg(long)]
    pub check: bool,
    /// Where packages come from.
    #[command(flatten)]
    pub fetch: FetchArguments,
}

/// Builds, with a lock made first where there is none.
pub fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let recipe = recipe::load(&arguments.recipe, &Overrides { version: arguments.version.clone() })?;
    if recipe.scripts == Scripts::None {
        return Err(Failure::new(Kind::Recipe, NotAnImageError { recipe: arguments.recipe.clone() }));
    }
    let target = arguments.out.clone().unwrap_or_else(|| default_target(&recipe));
    // Before anything is fetched.
    build::output::check(&target).map_err(BuildError::from)?;
    let sources = recipe.read_sources()?;
    let store = arguments.fetch.open_store()?;
    // What cannot be removed now is tried again by the next command.
    let _ = store.empty_trash(&build::system::remove_abandoned);
    let fetcher = arguments.fetch.fetcher(store, arguments.fetch.mirrors()?);
    let progress = fetch::progress(output);
    let request = lock::request(&recipe, &sources)?;
    let path = lock::path(&arguments.recipe);
    let locked = match lock::read(&path, &request)? {
        Some(lock) => lock,
        None => {
            let lock = lock::make(&request, &fetcher, now())?;
            lock::write(&path, &lock)?;
            progress.event(&Event::Message(&format!("locked: {}", path.display())));
            lock
        }
    };
    roots::register(fetcher.store(), &path, &locked)?;
    let plan = Plan {
        recipe: &recipe,
        sources: &sources,
        epoch: recipe.epoch.unwrap_or(i64::try_from(locked.epoch).unwrap_or(i64::MAX)),
        lock: &locked,
        workers: std::thread::available_parallelism().unwrap_or(std::num::NonZeroUsize::MIN),
        storage: Storage::Automatic,
    };
    let built = build::build(&plan, &target, &fetcher, progress.as_ref())?;
    let checked = match arguments.check {
        true => Some(check::run(&plan, arguments, &path, &built, fetcher.store(), progress.as_ref())?),
        false => None,
    };
    unrepeatable::tell(&locked, &built, arguments.check, output);
    let text = format!("{}\n", built.directory.display());
    let text = checked.as_ref().map_or(text.clone(), |report| text + &check::text(report));
    output.result(&text, || to_json(&built, &locked, checked.as_ref()))?;
    // The user need not wait for the disk: what is lost in a power failure is built again.
    fetcher.store().settle()?;
    checked.map_or(Ok(()), check::outcome)
}

fn to_json(built: &Built, locked: &Lock, checked: Option<&Report>) -> Value {
    let stage = |stage: &build::stages::Stage| json!({ "name": stage.name, "seconds": stage.duration.as_secs_f64(), "cached": stage.cached });
    let mut object = json!({
        "schema": "adamant.build/1",
        "image": built.image,
        "manifest": built.manifest,
        "digest": built.digest,
        "root_hash": built.root_hash,
        "stages": built.stages.iter().map(stage).collect::<Vec<_>>(),
        "cached": built.stages.iter().all(|stage| stage.cached),
        "unrepeatable": unrepeatable::to_json(locked),
    });
    if let Some(report) = checked {
        object["check"] = check::to_json(report);
    }
    object
}

/// `out/<name>_<version>`.
fn default_target(recipe: &Recipe) -> PathBuf {
    PathBuf::from("out").join(format!("{}_{}", recipe.name.value, recipe.version.value))
}

/// A tools tree.
#[derive(Debug, thiserror::Error)]
#[error("{} says scripts = \"none\": it is a tree of unpacked packages, not an image that boots", .recipe.display())]
struct NotAnImageError {
    recipe: PathBuf,
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Recipe(found) => found.into(),
            BuildError::Store(error) => error.into(),
            BuildError::Packages(error) => error.into(),
            BuildError::Configure(error) if ran_out_of_room(&error) => {
                Self::new(Kind::Environment, BuildError::Configure(error)).hint(
                    "free some room where the store lies, and memory: the tree that scripts run in is in one of them",
                )
            }
            error => Self::new(build_kind(&error), error),
        }
    }
}

/// Whether a script printed what programs print when a write fails for want of room (the sandbox's language is C's).
fn ran_out_of_room(error: &ConfigureError) -> bool {
    match error {
        ConfigureError::Script { log, .. } | ConfigureError::Dpkg { log, .. } => {
            log.contains("No space left on device")
        }
        _ => false,
    }
}

impl From<PackagesError> for Failure {
    fn from(error: PackagesError) -> Self {
        match error {
            PackagesError::Fetch(error) => error.into(),
            PackagesError::Store(error) => error.into(),
            error @ PackagesError::Other { .. } => Self::new(Kind::Verification, error)
                .hint("`adamant lock` makes a new lock; if the archive says so itself, tell those who keep it"),
            error @ PackagesError::Damaged { .. } => Self::new(Kind::Environment, error),
            error @ PackagesError::Unpack { source: DebError::Open { .. } | DebError::Write { .. }, .. } => {
                Self::new(Kind::Environment, error)
            }
            error @ PackagesError::Unpack { .. } => Self::new(Kind::Verification, error).hint(
                "the package is as its archive's signature covers it, and nothing of it was used: report it to those \
                 who keep the archive, and pin another version with \"name=version\"",
            ),
        }
    }
}

fn build_kind(error: &BuildError) -> Kind {
    match error {
        BuildError::Configure(
            ConfigureError::Script { .. }
            | ConfigureError::Packages { .. }
            | ConfigureError::Dpkg { .. }
            | ConfigureError::Unfinished { .. },
        )
        | BuildError::Image(ImageError::CommandLine(_) | ImageError::Uki(_))
        | BuildError::NoSet(_)
        | BuildError::Overlay(_)
        | BuildError::Kernels(_)
        | BuildError::NoFile { .. }
        | BuildError::Tree(_)
        | BuildError::Initrd(_) => Kind::Recipe,
        _ => Kind::Environment,
    }
}
