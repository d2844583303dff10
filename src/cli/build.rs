//! `adamant build`: from a recipe to an image.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::lock::now;
use super::{CacheArguments, Failure, FetchArguments, Kind, Output, fetch};
use crate::build::image::ImageError;
use crate::build::packages::PackagesError;
use crate::build::{self, BuildError, Plan, lock, roots};
use crate::filesystem::erofs::WriteError;
use crate::recipe::{self, Overrides, Recipe, Scripts};
use crate::rootfs::ConfigureError;
use crate::rootfs::deb::DebError;
use crate::store::shared::Shared;
use crate::telemetry::{Event, Progress};

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
  adamant build web.toml --json | jq -r .root_hash
  adamant build web.toml --cache s3://team/adamant --cache-key ci.pub   # what CI has built is not built again")]
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
    /// Where packages come from.
    #[command(flatten)]
    pub fetch: FetchArguments,
    /// What machines share.
    #[command(flatten)]
    pub cache: CacheArguments,
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
    let progress: Arc<dyn Progress> = fetch::progress(output).into();
    let store = arguments.fetch.open_store()?;
    arguments.cache.attach(&store, arguments.fetch.offline, &progress)?;
    // What cannot be removed now is tried again by the next command.
    let _ = store.empty_trash(&build::system::remove_abandoned);
    let fetcher = arguments.fetch.fetcher(store, arguments.fetch.mirrors()?);
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
    };
    let built = build::build(&plan, &target, &fetcher, progress.as_ref())?;
    // The user need not wait for the disk: what is lost in a power failure is built again.
    let text = format!("{}\n", built.directory.display());
    output.result(&text, || {
        let stage = |stage: &build::stages::Stage| {
            json!({ "name": stage.name, "seconds": stage.duration.as_secs_f64(), "cached": stage.cached })
        };
        json!({
            "schema": "adamant.build/1",
            "image": built.image,
            "manifest": built.manifest,
            "digest": built.digest,
            "root_hash": built.root_hash,
            "stages": built.stages.iter().map(stage).collect::<Vec<_>>(),
            "cached": built.stages.iter().all(|stage| stage.cached),
            "shared": fetcher.store().shared().map(Shared::brought).map(|came| {
                json!({ "stages": came.stages, "packages": came.objects })
            }),
        })
    })?;
    fetcher.store().settle()?;
    CacheArguments::finish(fetcher.store());
    Ok(())
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
            BuildError::Image(ImageError::Erofs(error @ WriteError::Read { .. })) => {
                Self::new(Kind::Environment, BuildError::Image(error.into())).hint(
                    "`adamant store verify` finds what was damaged in the store and takes it out; then build again",
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
