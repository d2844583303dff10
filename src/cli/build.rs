//! `adamant build`: from a recipe to an image.

mod check;
mod unrepeatable;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::lock::now;
use super::{CacheArguments, Failure, FetchArguments, Kind, Output, fetch};
use crate::build::check::Report;
use crate::build::image::ImageError;
use crate::build::packages::PackagesError;
use crate::build::{self, BuildError, Built, Plan, lock, roots};
use crate::filesystem::erofs::WriteError;
use crate::lock::Lock;
use crate::recipe::{self, Overrides, Recipe, Scripts};
use crate::rootfs::deb::DebError;
use crate::rootfs::{ConfigureError, Storage};
use crate::store::Store;
use crate::store::fetch::Fetcher;
use crate::store::shared::Shared;
use crate::telemetry::{Event, Progress};

/// Build the images that recipes describe.
///
/// Without a lock beside the recipe (`web.lock` for `web.toml`), one is made first; an existing one is never
/// changed. The output folder appears when it is whole: `<name>_<version>_<arch>.raw`, `.efi`, `manifest.json`
/// and `SHA256SUMS`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adamant build web.toml                         # out/web_1
  adamant build web.toml --version 20261101 --out /srv/images/web
  adamant build web.toml mail.toml               # what they have in common is done once
  adamant build web.toml --offline               # from lock and store alone
  adamant build web.toml --check                 # twice, the second time elsewhere: are the bits the same?
  adamant build web.toml --json | jq -r .root_hash
  adamant build web.toml --cache s3://team/adamant --cache-key ci.pub   # what CI has built is not built again")]
pub struct Arguments {
    /// The recipe; or several, built one after the other.
    #[arg(value_name = "RECIPE", required = true)]
    pub recipes: Vec<PathBuf>,
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
    /// What machines share.
    #[command(flatten)]
    pub cache: CacheArguments,
}

/// A recipe that is to be built, and where.
struct Order<'a> {
    path: &'a Path,
    recipe: Recipe,
    target: PathBuf,
}

/// An image, and what is told of it.
struct Image {
    built: Built,
    locked: Lock,
    /// With `--check`.
    checked: Option<Report>,
}

/// Builds, with locks made first where there are none.
pub fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let orders = orders(arguments)?;
    let progress: Arc<dyn Progress> = fetch::progress(output).into();
    let store = arguments.fetch.open_store()?;
    arguments.cache.attach(&store, arguments.fetch.offline, &progress)?;
    // What cannot be removed now is tried again by the next command.
    let _ = store.empty_trash(&build::system::remove_abandoned);
    let fetcher = arguments.fetch.fetcher(store, arguments.fetch.mirrors()?);
    let mut images: Vec<Image> = Vec::new();
    for order in &orders {
        match build(order, arguments, &fetcher, progress.as_ref()) {
            Ok(image) => {
                unrepeatable::tell(&image.locked, &image.built, arguments.check, output);
                images.push(image);
            }
            Err(failure) if orders.len() == 1 => return Err(failure),
            Err(failure) => {
                // What is done is done, and told, on standard error: standard output is for the whole.
                for image in &images {
                    progress.event(&Event::Message(&format!("built: {}", image.built.directory.display())));
                }
                progress.event(&Event::Message(&format!("while building {}:", order.path.display())));
                return Err(failure);
            }
        }
    }
    let text: String = images.iter().map(image_text).collect();
    output.result(&text, || to_json(&images, fetcher.store()))?;
    // The user need not wait for the disk: what is lost in a power failure is built again.
    if images.iter().any(|image| image.built.is_to_be_settled()) {
        fetcher.store().settle()?;
    }
    CacheArguments::finish(fetcher.store());
    images.into_iter().filter_map(|image| image.checked).try_for_each(check::outcome)
}

/// What is to be built. Mistakes in any recipe are told before the first is built.
fn orders(arguments: &Arguments) -> Result<Vec<Order<'_>>, Failure> {
    if arguments.out.is_some() && arguments.recipes.len() > 1 {
        return Err(Failure::new(Kind::Usage, OneFolderError));
    }
    let mut targets = BTreeSet::new();
    let mut orders = Vec::new();
    for path in &arguments.recipes {
        let recipe = recipe::load(path, &Overrides { version: arguments.version.clone() })?;
        if recipe.scripts == Scripts::None {
            return Err(Failure::new(Kind::Recipe, NotAnImageError { recipe: path.clone() }));
        }
        let target = arguments.out.clone().unwrap_or_else(|| default_target(&recipe));
        // Before anything is fetched.
        build::output::check(&target).map_err(BuildError::from)?;
        if !targets.insert(target.clone()) {
            return Err(Failure::new(Kind::Recipe, SameNameError { recipe: path.clone(), target }));
        }
        orders.push(Order { path, recipe, target });
    }
    Ok(orders)
}

fn build(
    order: &Order<'_>,
    arguments: &Arguments,
    fetcher: &Fetcher,
    progress: &dyn Progress,
) -> Result<Image, Failure> {
    let Order { path, recipe, target } = order;
    let sources = recipe.read_sources()?;
    let request = lock::request(recipe, &sources)?;
    let lock_path = lock::path(path);
    let locked = match lock::read(&lock_path, &request)? {
        Some(lock) => lock,
        None => {
            let lock = lock::make(&request, fetcher, now())?;
            lock::write(&lock_path, &lock)?;
            progress.event(&Event::Message(&format!("locked: {}", lock_path.display())));
            lock
        }
    };
    roots::register(fetcher.store(), &lock_path, &locked)?;
    let plan = Plan {
        recipe,
        sources: &sources,
        epoch: recipe.epoch.unwrap_or(i64::try_from(locked.epoch).unwrap_or(i64::MAX)),
        lock: &locked,
        workers: std::thread::available_parallelism().unwrap_or(std::num::NonZeroUsize::MIN),
        storage: Storage::Automatic,
    };
    let built = build::build(&plan, target, fetcher, progress)?;
    let checked = match arguments.check {
        true => {
            let request = build::check::Request {
                recipe,
                recipe_path: path,
                version: arguments.version.as_deref(),
                lock: &locked,
                lock_path: &lock_path,
                output: &built.directory,
                store: fetcher.store(),
            };
            Some(build::check::check(&request, progress)?)
        }
        false => None,
    };
    Ok(Image { built, locked, checked })
}

fn image_text(image: &Image) -> String {
    format!("{}\n", image.built.directory.display()) + &image.checked.as_ref().map(check::text).unwrap_or_default()
}

fn to_json(images: &[Image], store: &Store) -> Value {
    let mut object = match images {
        [image] => image_json(image),
        images => {
            json!({ "schema": "adamant.builds/1", "images": images.iter().map(image_json).collect::<Vec<_>>() })
        }
    };
    let brought = store.shared().map(Shared::brought);
    object["shared"] = json!(brought.map(|came| json!({ "stages": came.stages, "packages": came.objects })));
    object
}

fn image_json(image: &Image) -> Value {
    let Image { built, locked, checked } = image;
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

/// `--out` with several recipes.
#[derive(Debug, thiserror::Error)]
#[error("--out names the folder of one image, and there are several recipes; without it each gets its own in out/")]
struct OneFolderError;

/// Two recipes, one image.
#[derive(Debug, thiserror::Error)]
#[error("{} has the name and version of a recipe before it: both would be {}", .recipe.display(), .target.display())]
struct SameNameError {
    recipe: PathBuf,
    target: PathBuf,
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
