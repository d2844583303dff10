//! How old an image, a manifest, a lock or a recipe's lock is against the archives now.
//!
//! Flows in: a path, perhaps a recipe. Flows out: a [`Report`]. Which archives to compare with is for the recipe to say:
//! the one given, the one that the path names, or the one beside a lock. A manifest, or a lock without its recipe, names
//! the indexes that it was made from, a disk alone names Debian's suite in its os-release: if all is Debian's, then it is
//! compared with that suite, its updates and its security archive.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::lock::{self, MakeLockError};
use crate::apt::distribution::{self, DEBIAN_REPOSITORY, DEBIAN_SECURITY_REPOSITORY};
use crate::apt::outdated::{Installed, Survey, survey};
use crate::apt::source::{Repository, SourceProblem};
use crate::apt::{LockError, LockRequest};
use crate::boot::os_release;
use crate::inspect;
use crate::lock::Lock;
use crate::manifest::{self, Manifest};
use crate::recipe::{self, Diagnostics, LoadError, Overrides};
use crate::store::fetch::Fetcher;
use crate::verify;

/// Components of Debian's archive that an image may be made of; of those a suite lacks some.
const COMPONENTS: [&str; 4] = ["main", "contrib", "non-free", "non-free-firmware"];

/// How old something is.
#[derive(Debug, Clone)]
pub struct Report {
    /// What it is called.
    pub name: String,
    /// The date of the newest index that it was made from, in seconds since 1970; `None` if nothing says so.
    pub date: Option<u64>,
    /// How many packages it has.
    pub packages: usize,
    /// What the archives have newer.
    pub survey: Survey,
}

/// Why that could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum OutdatedError {
    /// The recipe cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The recipe's keys cannot be read.
    #[error("the recipe is wrong")]
    Recipe(#[from] Diagnostics),
    /// The lock, or the archives.
    #[error(transparent)]
    Lock(#[from] MakeLockError),
    /// The image or the manifest.
    #[error(transparent)]
    Image(Box<verify::Failure>),
    /// A recipe that was never locked.
    #[error("{} has no lock: `adamant lock` makes it", .0.display())]
    NoLock(PathBuf),
    /// Nothing tells where the packages come from.
    #[error("nothing in {} tells which archives its packages come from", .0.display())]
    NoArchives(PathBuf),
}

impl From<verify::Failure> for OutdatedError {
    fn from(failure: verify::Failure) -> Self {
        Self::Image(Box::new(failure))
    }
}

/// What is to be compared.
struct Subject {
    name: String,
    date: Option<u64>,
    architecture: String,
    packages: BTreeSet<Installed>,
}

/// Where to compare it with.
enum Archives {
    /// As a recipe says.
    Said(Vec<Repository>),
    /// Debian's suite, with as many components as it has.
    Debian(String),
}

/// Compares what is at `path` with the archives as they are at `now`, in seconds since 1970.
pub fn report(path: &Path, recipe: Option<&Path>, fetcher: &Fetcher, now: u64) -> Result<Report, OutdatedError> {
    let said = recipe.map(request).transpose()?.map(|request| Archives::Said(request.repositories));
    let (subject, own) = match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => of_recipe(path)?,
        Some("lock") => of_lock(path, said.is_some())?,
        _ => of_image(path, said.is_some())?,
    };
    let archives = said.or(own).ok_or_else(|| OutdatedError::NoArchives(path.to_owned()))?;
    let compare =
        |repositories: &[Repository]| survey(repositories, &subject.architecture, &subject.packages, fetcher, now);
    let survey = match archives {
        Archives::Said(repositories) => compare(&repositories).map_err(MakeLockError::from)?,
        Archives::Debian(suite) => {
            let components = COMPONENTS.map(str::to_owned);
            match compare(&debian(&suite, &components)?) {
                Err(error) => match available(&error) {
                    Some(some) => compare(&debian(&suite, &some)?).map_err(MakeLockError::from)?,
                    None => return Err(MakeLockError::from(error).into()),
                },
                Ok(survey) => survey,
            }
        }
    };
    Ok(Report { name: subject.name, date: subject.date, packages: subject.packages.len(), survey })
}

fn debian(suite: &str, components: &[String]) -> Result<Vec<Repository>, MakeLockError> {
    Ok(distribution::debian(suite, &["updates", "security"].map(str::to_owned), components)?)
}

/// The components that a suite has, if the error says that it lacks one.
fn available(error: &LockError) -> Option<Vec<String>> {
    let LockError::Source(error) = error else { return None };
    let SourceProblem::NoComponent { available, .. } = &error.problem else { return None };
    // The security archive calls them `updates/main` in old suites; those are found by their last word.
    let has = |component: &&str| available.iter().any(|one| one.rsplit('/').next() == Some(component));
    Some(COMPONENTS.iter().filter(|one| has(one)).map(|one| (*one).to_owned()).collect())
}

fn request(path: &Path) -> Result<LockRequest, OutdatedError> {
    let recipe = recipe::load(path, &Overrides::default())?;
    let sources = recipe.read_sources()?;
    Ok(lock::request(&recipe, &sources)?)
}

fn of_recipe(path: &Path) -> Result<(Subject, Option<Archives>), OutdatedError> {
    let request = request(path)?;
    let lock = lock::read(&lock::path(path), &request)?.ok_or_else(|| OutdatedError::NoLock(path.to_owned()))?;
    Ok((locked(path, &lock), Some(Archives::Said(request.repositories))))
}

fn of_lock(path: &Path, told: bool) -> Result<(Subject, Option<Archives>), OutdatedError> {
    let lock = lock::read_any(path)?.ok_or_else(|| OutdatedError::NoLock(path.with_extension("toml")))?;
    let recipe = path.with_extension("toml");
    let archives = match () {
        () if told => None,
        () if recipe.exists() => Some(Archives::Said(request(&recipe)?.repositories)),
        () => by_indexes(lock.indexes.iter().map(|index| (&*index.repository, &*index.suite))),
    };
    Ok((locked(path, &lock), archives))
}

fn locked(path: &Path, lock: &Lock) -> Subject {
    let packages = lock.sets.values().flatten();
    Subject {
        name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        date: Some(lock.epoch),
        architecture: lock.architecture.clone(),
        packages: packages.map(|one| Installed { name: one.name.clone(), version: one.version.clone() }).collect(),
    }
}

/// Debian's suite, if all indexes (each by repository and suite) are of it.
fn by_indexes<'a>(indexes: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Option<Archives> {
    let ours = |name: &str| name == DEBIAN_REPOSITORY || name == DEBIAN_SECURITY_REPOSITORY;
    let (_, suite) = indexes.clone().find(|(repository, _)| *repository == DEBIAN_REPOSITORY)?;
    let whole = indexes.clone().all(|(repository, _)| ours(repository));
    (whole && distribution::known_suites().contains(&suite)).then(|| Archives::Debian(suite.to_owned()))
}

/// A directory that `build` made, the manifest in it, or a disk image alone.
fn of_image(path: &Path, told: bool) -> Result<(Subject, Option<Archives>), OutdatedError> {
    let is_manifest = path.extension().is_some_and(|extension| extension == "json");
    let file = if path.is_dir() { path.join(manifest::FILE_NAME) } else { path.to_owned() };
    let directory = if is_manifest { path.parent().unwrap_or(Path::new("")) } else { path };
    let manifest = if path.is_dir() || is_manifest { Some(verify::read_manifest(&file)?) } else { None };
    if let Some(manifest) = manifest.as_ref().filter(|_| told) {
        return Ok((described(manifest), None));
    }
    if let Some(manifest) = manifest.as_ref().filter(|manifest| !manifest.indexes.is_empty()) {
        let indexes = manifest.indexes.iter().map(|index| (&*index.repository, &*index.suite));
        return Ok((described(manifest), by_indexes(indexes)));
    }
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let image = inspect::image(directory)?;
    let suite = os_release::get(&image.uki.os_release, "VERSION_CODENAME");
    let subject = manifest.as_ref().map(described).unwrap_or_else(|| Subject {
        name: format!("{} {}", image.name, image.version),
        date: None,
        architecture: image.architecture.row().name.to_owned(),
        packages: image.packages.into_iter().map(|one| Installed { name: one.name, version: one.version }).collect(),
    });
    Ok((subject, suite.map(Archives::Debian)))
}

fn described(manifest: &Manifest) -> Subject {
    let packages = manifest.packages.iter();
    Subject {
        name: format!("{} {}", manifest.name, manifest.version),
        date: manifest.indexes.iter().map(|index| index.date).max().or(u64::try_from(manifest.epoch).ok()),
        architecture: manifest.architecture.row().name.to_owned(),
        packages: packages.map(|one| Installed { name: one.name.clone(), version: one.version.clone() }).collect(),
    }
}
