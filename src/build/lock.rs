//! The lock of a recipe: where it lies, whether it still fits, and how it is made.
//!
//! A recipe `web.toml` has its lock beside it in `web.lock`. It is made of two sets: `system`, the image's packages with
//! everything essential, and `initrd`, unpacked without running a script: what the initrd consists of, and systemd's
//! EFI stub. A recipe with `scripts = "none"` has one set, of what it names and what that depends on.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::apt::distribution::{self, DistributionError};
use crate::apt::openpgp::OpenPgpError;
use crate::apt::{self, Keyring, LockError, LockRequest, Repository, Selector, SetRequest};
use crate::boot::initrd::contents;
use crate::interrupt::Leftover;
use crate::lock::{Lock, ParseLockError};
use crate::recipe::{self, At, Recipe, Scripts, SourceContent, SourceContents, SourcePath};
use crate::store::fetch::Fetcher;

/// The set of the image's packages.
pub const SYSTEM: &str = "system";
/// The set of what is taken apart for the initrd and the kernel image.
pub const INITRD: &str = "initrd";
/// The packages that a recipe adds to the initrd, with their dependencies; only if there are any.
pub const INITRD_ADDITIONS: &str = "initrd-additions";
/// The package that holds systemd's EFI stub.
const STUB_PACKAGE: &str = "systemd-boot-efi";
/// The ending of a lock that is being written, before the number of the process.
const PARTIAL: &str = "lock.partial-";
/// Bytes in a lock: a desktop's has half a megabyte.
const LOCK_MAX: u64 = 64 << 20;

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum MakeLockError {
    /// The distribution is not one of those known.
    #[error("cannot tell where the recipe's packages come from")]
    Distribution(#[from] DistributionError),
    /// A repository's key is none.
    #[error(
        "the key {key} of the repository {repository} cannot be used: it must be OpenPGP public keys, as `gpg --export` writes them"
    )]
    Key {
        /// The repository.
        repository: String,
        /// The key as the recipe names it.
        key: String,
        /// Why.
        #[source]
        source: OpenPgpError,
    },
    /// Resolution.
    #[error(transparent)]
    Resolve(#[from] LockError),
    /// The file could not be read.
    #[error("cannot read the lock {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is no lock.
    #[error("{} is not a lock that can be used; `adamant lock` makes a new one", .path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: ParseLockError,
    },
    /// The file could not be written.
    #[error("cannot write the lock {}", .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The recipe asks for other packages than when the lock was made.
    #[error(
        "{} was made for other packages, repositories or settings than the recipe now asks for; `adamant lock` adapts \
         it",
        .0.display()
    )]
    Stale(PathBuf),
}

/// Where the lock of a recipe lies.
pub fn path(recipe: &Path) -> PathBuf {
    recipe.with_extension("lock")
}

/// The lock in `path`; `None` if there is none. A lock that was made for another request is refused.
pub fn read(path: &Path, request: &LockRequest) -> Result<Option<Lock>, MakeLockError> {
    match read_any(path)? {
        Some(lock) if lock.request != request.digest() => Err(MakeLockError::Stale(path.to_owned())),
        lock => Ok(lock),
    }
}

/// The lock in `path`, whatever request it was made for; `None` if there is none.
pub fn read_any(path: &Path) -> Result<Option<Lock>, MakeLockError> {
    let read = |source| MakeLockError::Read { path: path.to_owned(), source };
    let size = match fs::metadata(path) {
        Ok(status) => status.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(error)),
    };
    if size > LOCK_MAX {
        return Err(read(io::ErrorKind::FileTooLarge.into()));
    }
    let text = String::from_utf8(fs::read(path).map_err(read)?).map_err(|error| {
        let source = ParseLockError::Encoding { offset: error.utf8_error().valid_up_to() };
        MakeLockError::Parse { path: path.to_owned(), source }
    })?;
    parse(path, &text).map(Some)
}

/// The lock whose text is `text`; `path` is for messages.
pub fn parse(path: &Path, text: &str) -> Result<Lock, MakeLockError> {
    Lock::parse(text).map_err(|source| MakeLockError::Parse { path: path.to_owned(), source })
}

/// Writes the lock to `path`, in one step. What killed processes left of earlier attempts is removed.
pub fn write(path: &Path, lock: &Lock) -> Result<(), MakeLockError> {
    let write = |source| MakeLockError::Write { path: path.to_owned(), source };
    remove_abandoned(path).map_err(write)?;
    let partial = path.with_extension(format!("{PARTIAL}{}", std::process::id()));
    let leftover = Leftover::new(partial.clone());
    let result = fs::File::create(&partial)
        .and_then(|mut file| {
            // Held until the end: so it is known that this process lives.
            file.lock()?;
            file.write_all(lock.to_text().as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| leftover.keep_while(|| fs::rename(&partial, path)));
    if result.is_err() {
        // Nothing can be done about a failure here; the first one is told.
        let _ = fs::remove_file(&partial);
    }
    result.map_err(write)
}

/// Removes what was written beside the lock `path` by processes that are gone.
fn remove_abandoned(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let prefix = path.with_extension(PARTIAL);
    let prefix = prefix.file_name().unwrap_or_default().as_encoded_bytes();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(prefix)
            && fs::File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
        {
            // It does no harm where it is.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// What the recipe asks of the archives.
pub fn request(recipe: &Recipe, sources: &SourceContents) -> Result<LockRequest, MakeLockError> {
    let mut repositories = debian(recipe, sources)?;
    for extra in &recipe.repositories {
        repositories.push(repository(extra, sources)?);
    }
    let mut system = set(SYSTEM, recipe.packages.iter().map(|at| &at.value));
    system.recommends = recipe.recommends;
    system.essential = recipe.scripts == Scripts::Run;
    let mut sets = vec![system];
    if recipe.scripts == Scripts::Run {
        let mut initrd = SetRequest::new(INITRD);
        let names = contents::packages(&recipe.debian.suite.value).chain([STUB_PACKAGE]);
        initrd.packages = names.map(|name| apt::PackageRequest { name: name.to_owned(), selector: None }).collect();
        sets.push(initrd);
        if !recipe.initrd.packages.is_empty() {
            sets.push(set(INITRD_ADDITIONS, recipe.initrd.packages.iter().map(|at| &at.value)));
        }
    }
    Ok(LockRequest { architecture: recipe.architecture.row().name.to_owned(), repositories, sets })
}

fn debian(recipe: &Recipe, sources: &SourceContents) -> Result<Vec<Repository>, MakeLockError> {
    let pockets: Vec<String> = recipe
        .debian
        .pockets
        .iter()
        .map(|pocket| match pocket {
            recipe::Pocket::Updates => "updates".to_owned(),
            recipe::Pocket::Security => "security".to_owned(),
            recipe::Pocket::Backports => "backports".to_owned(),
        })
        .collect();
    let components: Vec<String> = recipe.debian.components.iter().map(|at| at.value.clone()).collect();
    let suite = &recipe.debian.suite.value;
    Ok(match &recipe.debian.key {
        Some(key) => {
            let keys = keys(distribution::DEBIAN_REPOSITORY, key, sources)?;
            distribution::debian_signed_by(&keys, suite, &pockets, &components)?
        }
        None => distribution::debian(suite, &pockets, &components)?,
    })
}

/// The keys in the file `path`, which the recipe names for a repository.
fn keys(repository: &str, path: &At<SourcePath>, sources: &SourceContents) -> Result<Keyring, MakeLockError> {
    let bytes = match sources.get(path) {
        Some(SourceContent::File { content, .. }) => content.to_vec().unwrap_or_default(),
        _ => Vec::new(),
    };
    let key_error = |source| MakeLockError::Key { repository: repository.to_owned(), key: path.text.clone(), source };
    Keyring::parse(&bytes).map_err(key_error)
}

fn repository(extra: &recipe::Repository, sources: &SourceContents) -> Result<Repository, MakeLockError> {
    Ok(Repository {
        name: extra.name.value.clone(),
        suites: vec![extra.suite.value.clone()],
        components: extra.components.iter().map(|at| at.value.clone()).collect(),
        keys: keys(&extra.name.value, &extra.key, sources)?,
        priority: None,
    })
}

fn set<'a>(name: &str, packages: impl Iterator<Item = &'a recipe::PackageRequest>) -> SetRequest {
    let mut set = SetRequest::new(name);
    set.packages = packages
        .map(|package| apt::PackageRequest {
            name: package.name.clone(),
            selector: match (&package.version, &package.target) {
                (Some(version), _) => Some(Selector::Version(version.clone())),
                (None, Some(target)) => Some(Selector::Origin(target.clone())),
                (None, None) => None,
            },
        })
        .collect();
    set
}

/// Resolves the request against the archives as they are at `now`, in seconds since 1970.
pub fn make(request: &LockRequest, fetcher: &Fetcher, now: u64) -> Result<Lock, MakeLockError> {
    Ok(apt::lock(request, fetcher, now)?)
}
