//! The configuration file: what a host's user or administrator says once instead of with each command.
//!
//! ```toml
//! [mirrors]                  # repository = base address
//! debian = "http://mirror.example/debian"
//!
//! [snapshots]                # repository = base address of an archive of everything it ever had
//! debian = "http://snapshot.example/archive/debian/{timestamp}"
//!
//! [cache]                    # what machines share
//! url = "s3://team/adamant"
//! keys = ["team.pub"]        # who is believed; files, relative to this one
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

/// A configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Base addresses of repositories, by name.
    #[serde(default)]
    pub mirrors: BTreeMap<String, String>,
    /// Base addresses of their snapshot archives, by name.
    #[serde(default)]
    pub snapshots: BTreeMap<String, String>,
    /// What machines share.
    #[serde(default)]
    pub cache: CacheConfig,
}

/// The table `cache` of a configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// Its address.
    pub url: Option<String>,
    /// Files of the public keys that are believed.
    #[serde(default)]
    pub keys: Vec<PathBuf>,
}

/// A text that is not a configuration file; says line and column.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ConfigError(#[from] toml::de::Error);

/// Parses the text of a configuration file.
pub fn parse_config(text: &str) -> Result<Config, ConfigError> {
    Ok(toml::from_str(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_mirrors_snapshots_and_cache_and_refuses_other_keys() {
        let text = "[mirrors]\na = \"http://a.example/\"\n[snapshots]\na = \"http://s.example/\"\n\
                    [cache]\nurl = \"s3://team\"\nkeys = [\"k.pub\"]\n";
        let config = parse_config(text).unwrap();
        assert_eq!(config.cache.url.as_deref(), Some("s3://team"));
        assert_eq!(config.cache.keys, [PathBuf::from("k.pub")]);
        assert_eq!(config.mirrors["a"], "http://a.example/");
        assert_eq!(config.snapshots["a"], "http://s.example/");
        assert_eq!(parse_config("").unwrap(), Config::default());
        let error = parse_config("[mirror]\na = \"http://a.example/\"\n").unwrap_err().to_string();
        assert!(error.contains("unknown field `mirror`, expected one of `mirrors`, `snapshots`, `cache`"), "{error}");
    }
}
