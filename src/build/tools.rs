//! Tools trees: programs of packages that adamant brings itself, so that the machine it runs on needs none.
//!
//! A tools tree has a recipe and a lock like any other (`recipes/tools/`), both part of this program. Its packages are
//! unpacked, not configured, into a directory of the store that any user can run programs from. Archives drop old
//! versions: when the lock's packages are gone, the recipe is resolved afresh, for a week.

use std::path::{Path, PathBuf};

use super::lock::{self, MakeLockError};
use super::packages::{self, PackagesError};
use super::stages::Stages;
use crate::lock::Lock;
use crate::recipe::{self, Diagnostics, Layer, Overrides, SourceContents, Sources};
use crate::rootfs::{self, MaterialiseError, OverlayError};
use crate::store::fetch::{FetchError, Fetcher};
use crate::store::{StageKey, StoreError};
use crate::telemetry::{Event, Progress};

/// The tree in the stage's result.
const ROOT: &str = "root";
/// How long a fresh resolution is used, in seconds.
const WEEK: u64 = 7 * 24 * 3600;

/// A recipe and its lock, as they are in the source.
pub struct ToolsRecipe {
    name: &'static str,
    recipe: &'static str,
    lock: &'static str,
}

/// QEMU, firmware and TPM: what `adamant boot` needs.
pub const VM: ToolsRecipe = ToolsRecipe {
    name: "recipes/tools/vm.toml",
    recipe: include_str!("../../recipes/tools/vm.toml"),
    lock: include_str!("../../recipes/tools/vm.lock"),
};

impl ToolsRecipe {
    /// The lock that is part of this program.
    pub fn lock(&self) -> Result<Lock, MakeLockError> {
        lock::parse(Path::new(self.name), self.lock)
    }
}

/// Why there is no tools tree.
#[derive(Debug, thiserror::Error)]
pub enum ToolsError {
    /// The recipe.
    #[error("the recipe of the tools is wrong")]
    Recipe(#[from] Diagnostics),
    /// The lock.
    #[error(transparent)]
    Lock(#[from] MakeLockError),
    /// The packages.
    #[error(transparent)]
    Packages(#[from] PackagesError),
    /// The packages do not go together.
    #[error("cannot lay the packages of the tools over each other")]
    Overlay(#[from] OverlayError),
    /// The host's file system.
    #[error("cannot write the tools")]
    Materialise(#[from] MaterialiseError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The directory of the tools tree; made if the store has none. `now` is in seconds since 1970.
pub fn tree(tools: &ToolsRecipe, fetcher: &Fetcher, progress: &dyn Progress, now: u64) -> Result<PathBuf, ToolsError> {
    let committed = tools.lock()?;
    match unpacked(&committed, fetcher, progress) {
        Err(ToolsError::Packages(PackagesError::Fetch(FetchError::Missing { files }))) => {
            progress.event(&Event::Message(&format!(
                "{}: the archive no longer has {} of the locked packages; resolving afresh",
                tools.name,
                files.len()
            )));
            unpacked(&fresh(tools, fetcher, now)?, fetcher, progress)
        }
        result => result,
    }
}

fn unpacked(lock: &Lock, fetcher: &Fetcher, progress: &dyn Progress) -> Result<PathBuf, ToolsError> {
    let locked = lock.sets.get(lock::SYSTEM).map(Vec::as_slice).unwrap_or_default();
    let key = locked
        .iter()
        .fold(StageKey::new("tools").of_this_machine(), |key, package| key.with("deb", package.digest.as_bytes()));
    let result = fetcher.store().build_stage(&key, |directory| {
        let stages = Stages::new(progress);
        packages::fetch(locked, fetcher, &stages)?;
        stages.run("tools", || {
            let (packages, cached) = packages::unpack(locked, fetcher)?;
            rootfs::materialise(&rootfs::overlay(&packages)?, &directory.join(ROOT))?;
            Ok::<_, ToolsError>(((), cached))
        })
    })?;
    Ok(result.path.join(ROOT))
}

/// A lock of today's packages; the same one for a week.
fn fresh(tools: &ToolsRecipe, fetcher: &Fetcher, now: u64) -> Result<Lock, ToolsError> {
    const FILE: &str = "lock";
    // What it depends on is on the mirrors, not in its key.
    let key = StageKey::new("tools-lock").of_this_machine();
    let key = key.with("recipe", tools.recipe.as_bytes()).with("week", &(now / WEEK).to_le_bytes());
    let result = fetcher.store().build_stage(&key, |directory| {
        let mut sources = Sources::default();
        let document = recipe::parse(tools.name.to_owned(), tools.recipe.to_owned(), &mut sources)
            .map_err(|found| Diagnostics::new(found, sources.clone()))?;
        let layer = Layer { document, folder: PathBuf::new(), start: sources.start_of_last() };
        let recipe = recipe::resolve(vec![layer], &Overrides::default(), &sources)?;
        let request = lock::request(&recipe, &SourceContents::default())?;
        Ok::<_, ToolsError>(lock::write(&directory.join(FILE), &lock::make(&request, fetcher, now)?)?)
    })?;
    let path = result.path.join(FILE);
    let text = std::fs::read_to_string(&path).map_err(|source| MakeLockError::Read { path: path.clone(), source })?;
    Ok(lock::parse(&path, &text)?)
}
