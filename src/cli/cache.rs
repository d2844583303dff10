//! From flags, environment and configuration to the cache that machines share.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::fetch::config_files;
use super::{Failure, Kind};
use crate::bucket::{Address, AddressError};
use crate::sign::{KEY_FILE_MAX, KeyError, PublicKey, SecretKey};
use crate::store::Store;
use crate::store::mirror::{CacheConfig, MirrorError, parse_config};
use crate::store::shared::Shared;
use crate::telemetry::Progress;

/// What stands for no cache, where the environment or a file names one.
const NONE: &str = "none";

/// A cache that machines share: flags of every verb that makes what can be shared.
#[derive(Debug, Clone, Default, Args)]
pub struct CacheArguments {
    /// Cache that machines share: a folder, s3://BUCKET/PREFIX, gs:// or az://, or `none`. What it has is neither
    /// fetched nor built. Without it: ADAMANT_CACHE or the configuration file, in this order.
    #[arg(long, value_name = "URL", conflicts_with = "offline")]
    pub cache: Option<String>,
    /// File of public keys: results in the cache that one of them signed are believed. Without it:
    /// ADAMANT_CACHE_KEY or the configuration file.
    #[arg(long, value_name = "FILE")]
    pub cache_key: Vec<PathBuf>,
    /// File of a secret key: what is fetched and built here is written to the cache, signed. Without it:
    /// ADAMANT_CACHE_SIGN.
    #[arg(long, value_name = "FILE")]
    pub cache_sign: Option<PathBuf>,
}

/// A cache or its keys that cannot be used as given.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// No address.
    #[error("{origin}")]
    Address {
        /// Who gave it.
        origin: String,
        /// What is wrong with it.
        #[source]
        source: AddressError,
    },
    /// A file that cannot be read.
    #[error("cannot read the key file {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file without the key that it should have.
    #[error("{}", .path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// A key for no cache.
    #[error("--cache-sign and --cache-key need a cache: --cache URL, ADAMANT_CACHE or the configuration file")]
    NoCache,
}

/// What the host says besides the flags.
#[derive(Default)]
struct Surroundings {
    url: Option<String>,
    keys: Vec<PathBuf>,
    sign: Option<PathBuf>,
    /// Each with its folder, the first one decides.
    configs: Vec<(PathBuf, CacheConfig)>,
}

impl CacheArguments {
    /// Lets `store` use the cache that this command line or this machine names, if any does.
    pub fn attach(&self, store: &Store, offline: bool, progress: &Arc<dyn Progress>) -> Result<(), Failure> {
        if offline {
            return Ok(());
        }
        let Some((address, keys, signer)) = self.decide(surroundings()?)? else { return Ok(()) };
        store.share(Shared::new(address, keys, signer, progress.clone()));
        Ok(())
    }

    /// Says what came, and waits until what is to be written has been written. To be called when the user has the result.
    pub fn finish(store: &Store) {
        if let Some(shared) = store.shared() {
            shared.finish();
        }
    }

    /// Address, keys that are believed, and the key that signs.
    #[allow(clippy::type_complexity)] // three values for one caller
    fn decide(&self, host: Surroundings) -> Result<Option<(Address, Vec<PublicKey>, Option<SecretKey>)>, Failure> {
        let from_config = || host.configs.iter().find_map(|(path, config)| Some((path, config.url.clone()?)));
        let (url, origin, kind) = match (&self.cache, &host.url) {
            (Some(url), _) => (url.clone(), "--cache".to_owned(), Kind::Usage),
            (None, Some(url)) => (url.clone(), "ADAMANT_CACHE".to_owned(), Kind::Environment),
            (None, None) => match from_config() {
                Some((path, url)) => (url, path.display().to_string(), Kind::Environment),
                None if self.cache_sign.is_some() || !self.cache_key.is_empty() => {
                    return Err(Failure::new(Kind::Usage, CacheError::NoCache));
                }
                None => return Ok(None),
            },
        };
        if url == NONE {
            return Ok(None);
        }
        let address = Address::parse(&url);
        let address = address.map_err(|source| Failure::new(kind, CacheError::Address { origin, source }))?;
        let listed = |config: &(PathBuf, CacheConfig)| {
            let folder = config.0.parent().unwrap_or(Path::new("")).to_owned();
            let files: Vec<PathBuf> = config.1.keys.iter().map(|file| folder.join(file)).collect();
            Some(files).filter(|files| !files.is_empty())
        };
        let files = match (self.cache_key.as_slice(), host.keys) {
            ([], variable) if variable.is_empty() => host.configs.iter().find_map(listed).unwrap_or_default(),
            ([], variable) => variable,
            (arguments, _) => arguments.to_vec(),
        };
        let mut keys = Vec::new();
        for file in files {
            keys.extend(read_key(&file, PublicKey::from_pem)?);
        }
        let signer = self.cache_sign.clone().or(host.sign);
        let signer = signer.map(|file| read_key(&file, SecretKey::from_pem)).transpose()?;
        Ok(Some((address, keys, signer)))
    }
}

fn surroundings() -> Result<Surroundings, Failure> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
    let mut configs = Vec::new();
    for path in config_files() {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(MirrorError::Read { path, source }.into()),
        };
        match parse_config(&text) {
            Ok(config) => configs.push((path, config.cache)),
            Err(source) => return Err(MirrorError::Config { path, source }.into()),
        }
    }
    Ok(Surroundings {
        url: variable("ADAMANT_CACHE").map(|value| value.to_string_lossy().into_owned()),
        keys: variable("ADAMANT_CACHE_KEY").map(|value| env::split_paths(&value).collect()).unwrap_or_default(),
        sign: variable("ADAMANT_CACHE_SIGN").map(PathBuf::from),
        configs,
    })
}

fn read_key<T>(path: &Path, parse: impl FnOnce(&str) -> Result<T, KeyError>) -> Result<T, CacheError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(KEY_FILE_MAX).read_to_string(&mut text))
        .map_err(|source| CacheError::Read { path: path.to_owned(), source })?;
    parse(&text).map_err(|source| CacheError::Key { path: path.to_owned(), source })
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        match error {
            error @ (CacheError::NoCache | CacheError::Address { .. }) => Self::new(Kind::Usage, error),
            error => Self::new(Kind::Environment, error)
                .hint("`adamant key generate FILE` makes a secret key FILE and its public one FILE.pub"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(url: &str, keys: &[&str]) -> (PathBuf, CacheConfig) {
        let config = CacheConfig { url: Some(url.to_owned()), keys: keys.iter().map(PathBuf::from).collect() };
        (PathBuf::from("/nowhere/adamant/config.toml"), config)
    }

    fn address(arguments: &CacheArguments, host: Surroundings) -> Option<String> {
        arguments.decide(host).unwrap().map(|(address, ..)| address.to_string())
    }

    #[test]
    fn the_flag_comes_before_the_variable_before_the_file_and_none_is_none() {
        let host = || Surroundings {
            url: Some("s3://variable".to_owned()),
            configs: vec![configured("s3://file", &[])],
            ..Surroundings::default()
        };
        let flag = |url: &str| CacheArguments { cache: Some(url.to_owned()), ..CacheArguments::default() };
        assert_eq!(address(&flag("s3://flag"), host()).as_deref(), Some("s3://flag"));
        assert_eq!(address(&flag("none"), host()), None);
        assert_eq!(address(&CacheArguments::default(), host()).as_deref(), Some("s3://variable"));
        let file_only = Surroundings { url: None, ..host() };
        assert_eq!(address(&CacheArguments::default(), file_only).as_deref(), Some("s3://file"));
        assert_eq!(address(&CacheArguments::default(), Surroundings::default()), None);
    }

    #[test]
    fn a_wrong_address_or_key_is_told_with_its_origin() {
        let arguments = CacheArguments { cache: Some("ftp://x".to_owned()), ..CacheArguments::default() };
        assert_eq!(arguments.decide(Surroundings::default()).err().unwrap().kind, Kind::Usage);
        let host = Surroundings { configs: vec![configured("s3://file", &["k.pub"])], ..Surroundings::default() };
        let failure = CacheArguments::default().decide(host).err().unwrap();
        assert_eq!(failure.kind, Kind::Environment);
        assert_eq!(failure.chain()[0], "cannot read the key file /nowhere/adamant/k.pub");
        let lonely = CacheArguments { cache_sign: Some("k".into()), ..CacheArguments::default() };
        assert_eq!(lonely.decide(Surroundings::default()).err().unwrap().kind, Kind::Usage);
    }
}
