//! What a verb needs of this machine: store, mirrors, progress. The one file that reads the environment for them.

use std::env;
use std::path::{Path, PathBuf};

use super::{Failure, FetchArguments, Kind, Output};
use crate::store::fetch::{FetchError, Fetcher, Options};
use crate::store::mirror::{self, MirrorError, Mirrors};
use crate::store::{Store, StoreError, default_directory};
use crate::telemetry::{Progress, for_standard_error};

/// This machine, ready to fetch and to build.
pub struct Host {
    /// Fetches into the store.
    pub fetcher: Fetcher,
    /// Shows what happens.
    pub progress: Box<dyn Progress>,
}

impl Host {
    /// Opens the store and finds the mirrors, as flags, environment and configuration files say.
    pub fn open(arguments: &FetchArguments, output: &Output) -> Result<Self, Failure> {
        let directory = match &arguments.store {
            Some(directory) => directory.clone(),
            None => default_directory(env::var_os("XDG_CACHE_HOME").as_deref(), env::var_os("HOME").as_deref())
                .ok_or_else(|| Failure::new(Kind::Environment, NoStore))?,
        };
        let store = Store::open(&directory)?;
        // What a sandbox of a killed build left for its user ids goes now; what resists is tried again next time.
        let _ = store.empty_trash(&|path| crate::rootfs::remove(path));
        let mirrors = Mirrors::discover(&mirror::Host {
            arguments: arguments.mirror.clone(),
            mirror_variable: env::var("ADAMANT_MIRROR").ok(),
            snapshot_variable: env::var("ADAMANT_SNAPSHOT").ok(),
            config_files: config_files(),
            apt_directory: Some(PathBuf::from("/etc/apt")),
        })?;
        let fetcher = Fetcher::new(store, mirrors, Options { offline: arguments.offline, ..Options::default() });
        let dumb = env::var_os("CI").is_some() || env::var_os("TERM").is_none_or(|term| term == "dumb");
        Ok(Self { fetcher, progress: for_standard_error(output.quiet(), dumb) })
    }

    /// The store.
    pub fn store(&self) -> &Store {
        self.fetcher.store()
    }
}

/// The user's configuration file, then the machine's (XDG Base Directory Specification 0.8).
fn config_files() -> Vec<PathBuf> {
    let absolute = |variable| env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let user = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    let files = user.into_iter().chain([Path::new("/etc").to_owned()]);
    files.map(|directory| directory.join("adamant/config.toml")).collect()
}

/// There is no place for the store.
#[derive(Debug, thiserror::Error)]
#[error("cannot tell where the store is: neither XDG_CACHE_HOME nor HOME is set; name a folder with --store")]
struct NoStore;

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(Kind::Environment, error)
    }
}

impl From<MirrorError> for Failure {
    fn from(error: MirrorError) -> Self {
        Self::new(Kind::Environment, error)
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self::new(fetch_kind(&error), error)
    }
}

/// Which kind of failure a failed fetch is.
pub fn fetch_kind(error: &FetchError) -> Kind {
    match error {
        FetchError::Digest { .. } | FetchError::Size { .. } => Kind::Verification,
        FetchError::NoMirror { .. }
        | FetchError::Offline { .. }
        | FetchError::Untrusted { .. }
        | FetchError::Client { .. }
        | FetchError::Runtime { .. }
        | FetchError::Store(_) => Kind::Environment,
        _ => Kind::Remote,
    }
}
