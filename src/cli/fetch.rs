//! From flags, environment and this machine's files to a store, its mirrors, and who is told of progress.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Failure, FetchArguments, Kind, Output};
use crate::store::fetch::{FetchError, Fetcher, Options};
use crate::store::mirror::{Host, MirrorError, Mirrors, Origin};
use crate::store::{Store, StoreError, default_directory};
use crate::telemetry::{self, Progress};

/// No place for a store is known.
#[derive(Debug, thiserror::Error)]
#[error("no place for the store is known: neither XDG_CACHE_HOME nor HOME is set: give one with --store")]
struct NoPlaceError;

impl FetchArguments {
    /// The store of `--store`, else of `$XDG_CACHE_HOME/adamant`, else of `~/.cache/adamant`.
    pub fn open_store(&self) -> Result<Store, Failure> {
        let variables = (env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"));
        Ok(Store::open(&store_directory(self.store.as_deref(), variables)?)?)
    }

    /// The mirrors that this command line and this machine know; none with `--offline`.
    pub fn mirrors(&self) -> Result<Mirrors, Failure> {
        if self.offline {
            return Ok(Mirrors::default());
        }
        let variable = |name| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let host = Host {
            arguments: self.mirror.clone(),
            mirror_variable: variable("ADAMANT_MIRROR"),
            snapshot_variable: variable("ADAMANT_SNAPSHOT"),
            config_files: config_files(),
            apt_directory: Some(PathBuf::from("/etc/apt")),
        };
        Ok(Mirrors::discover(&host)?)
    }

    /// What fetches into `store`.
    pub fn fetcher(&self, store: Store, mirrors: Mirrors) -> Fetcher {
        Fetcher::new(store, mirrors, Options { offline: self.offline, ..Options::default() })
    }
}

/// The folder that was given, else the one that `XDG_CACHE_HOME` or `HOME` lead to.
pub(super) fn store_directory(
    given: Option<&Path>,
    (cache, home): (Option<OsString>, Option<OsString>),
) -> Result<PathBuf, Failure> {
    let default = || default_directory(cache.as_deref(), home.as_deref());
    given.map(Path::to_owned).or_else(default).ok_or_else(|| Failure::new(Kind::Environment, NoPlaceError))
}

/// The user's configuration file, then the machine's.
pub(super) fn config_files() -> Vec<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let user = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    user.into_iter().chain([PathBuf::from("/etc")]).map(|directory| directory.join("adamant/config.toml")).collect()
}

/// Who is told of what happens: bars for a person at a terminal, lines for a log, nothing with `--quiet`.
pub fn progress(output: &Output) -> Box<dyn Progress> {
    let dumb =
        env::var_os("CI").is_some() || env::var_os("TERM").is_none_or(|term| Path::new(&term) == Path::new("dumb"));
    telemetry::for_standard_error(output.quiet(), dumb)
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(store_kind(&error), error)
    }
}

fn store_kind(error: &StoreError) -> Kind {
    match error {
        StoreError::Mismatch { .. } | StoreError::Corrupt { .. } => Kind::Verification,
        StoreError::Open { .. }
        | StoreError::Format { .. }
        | StoreError::Read { .. }
        | StoreError::Write { .. }
        | StoreError::Full { .. }
        | StoreError::Absent { .. } => Kind::Environment,
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self::new(fetch_kind(&error), error)
    }
}

/// Which kind of failure a failed fetch is.
pub(super) fn fetch_kind(error: &FetchError) -> Kind {
    match error {
        FetchError::Digest { .. } | FetchError::Size { .. } => Kind::Verification,
        FetchError::Missing { .. }
        | FetchError::TooLarge { .. }
        | FetchError::Status { .. }
        | FetchError::Transport { .. }
        | FetchError::Untrusted { .. } => Kind::Remote,
        FetchError::Path { .. } => Kind::Recipe,
        FetchError::NoMirror { .. }
        | FetchError::Offline { .. }
        | FetchError::Read { .. }
        | FetchError::Client { .. }
        | FetchError::Runtime { .. } => Kind::Environment,
        FetchError::Store(error) => store_kind(error),
    }
}

impl From<MirrorError> for Failure {
    fn from(error: MirrorError) -> Self {
        let kind = match &error {
            MirrorError::Value { origin: Origin::Argument, .. } => Kind::Usage,
            MirrorError::Value { .. } | MirrorError::Read { .. } | MirrorError::Config { .. } => Kind::Environment,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(mirror: &[&str], offline: bool, store: Option<&Path>) -> FetchArguments {
        FetchArguments {
            offline,
            mirror: mirror.iter().map(|&value| value.to_owned()).collect(),
            store: store.map(Path::to_owned),
        }
    }

    #[test]
    fn a_wrong_mirror_is_a_matter_of_usage() {
        assert_eq!(arguments(&["nowhere"], false, None).mirrors().unwrap_err().kind, Kind::Usage);
    }

    #[test]
    fn offline_looks_for_no_mirror() {
        assert_eq!(arguments(&[], true, None).mirrors().unwrap(), Mirrors::default());
    }

    #[test]
    fn a_store_that_cannot_be_made_is_a_matter_of_the_machine() {
        let failure = arguments(&[], false, Some(Path::new("/proc/none/store"))).open_store().unwrap_err();
        assert_eq!(failure.kind, Kind::Environment);
        assert!(failure.chain()[0].starts_with("cannot open the store in /proc/none/store"), "{:?}", failure.chain());
    }
}
