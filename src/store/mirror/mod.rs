//! Where the host gets a repository's files from. Recipes and locks name repositories, never addresses.
//!
//! Flows in: `--mirror` values, environment variables, a configuration file, the host's apt sources; in this order, the
//! first that knows a repository decides. Flows out: for each repository a mirror, and perhaps a snapshot archive for
//! files that the mirror no longer has.
//!
//! `--mirror` and `ADAMANT_MIRROR` hold (the variable several, separated by white space)
//! - `NAME=URL`: the mirror of the repository NAME;
//! - `URL`: the mirror of `debian`. If its path ends in `/debian`, the path with `/debian-security` instead is the
//!   mirror of `debian-security`, unless that is given by name.
//!
//! `ADAMANT_SNAPSHOT` holds `NAME=URL`s of snapshot archives; `{timestamp}` in such a URL stands for the date of the
//! repository's index (`20250520T000000Z`).
//!
//! URLs are `http:`, `https:` or `file:`. Proxies are those of `http_proxy`, `https_proxy` and `no_proxy`.

mod apt_sources;
mod config;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use reqwest::Url;

pub use self::apt_sources::{AptSource, parse_list, parse_sources};
pub use self::config::{CacheConfig, Config, ConfigError, parse_config};

/// The repository that Debian's releases, updates and backports are in.
pub const DEBIAN: &str = "debian";
/// The repository of Debian's security updates.
pub const DEBIAN_SECURITY: &str = "debian-security";

/// A `--mirror` or similar value, or a file, that does not say where a mirror is.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The value is not a usable URL.
    #[error("{origin}: {value:?} is not a mirror: expected URL or NAME=URL, with http:, https: or file: ({reason})")]
    Value {
        /// Where the value comes from.
        origin: Origin,
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A configuration file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A configuration file is not well-formed.
    #[error("{} is not a configuration file of adamant", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ConfigError,
    },
}

/// Who said where a mirror is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `--mirror`.
    Argument,
    /// An environment variable of this name.
    Environment(&'static str),
    /// A configuration file.
    ConfigFile(PathBuf),
    /// A file of the host's apt.
    AptSources(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument => f.write_str("--mirror"),
            Self::Environment(name) => f.write_str(name),
            Self::ConfigFile(path) | Self::AptSources(path) => path.display().fmt(f),
        }
    }
}

/// A base address: the directory that holds `dists/` and `pool/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The address, its path ending in `/`.
    pub url: Url,
    /// Who said so.
    pub origin: Origin,
}

/// Where to ask for more, by repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirrors {
    mirrors: BTreeMap<String, Mirror>,
    snapshots: BTreeMap<String, String>,
    timestamps: BTreeMap<String, String>,
}

/// What the host offers to find mirrors in.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// The values of `--mirror`.
    pub arguments: Vec<String>,
    /// `ADAMANT_MIRROR`.
    pub mirror_variable: Option<String>,
    /// `ADAMANT_SNAPSHOT`.
    pub snapshot_variable: Option<String>,
    /// Configuration files, the first decides; those that do not exist are passed over.
    pub config_files: Vec<PathBuf>,
    /// apt's directory, commonly `/etc/apt`.
    pub apt_directory: Option<PathBuf>,
}

impl Mirrors {
    /// All mirrors that the host knows.
    pub fn discover(host: &Host) -> Result<Self, MirrorError> {
        let mut mirrors = Self::from_values(&host.arguments, Origin::Argument)?;
        let words = |text: &Option<String>| -> Vec<String> {
            text.iter().flat_map(|text| text.split_whitespace()).map(str::to_owned).collect()
        };
        let variable = Origin::Environment("ADAMANT_MIRROR");
        mirrors.or(Self::from_values(&words(&host.mirror_variable), variable)?);
        mirrors.or(Self::from_snapshot_values(&words(&host.snapshot_variable))?);
        for path in &host.config_files {
            match std::fs::read_to_string(path) {
                Ok(text) => mirrors.or(Self::from_config(&text, path)?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(MirrorError::Read { path: path.clone(), source }),
            }
        }
        if let Some(directory) = &host.apt_directory {
            mirrors.or(Self::from_apt(&apt_sources::read_directory(directory)));
        }
        Ok(mirrors)
    }

    /// From values of the form `URL` or `NAME=URL`. Of two for one repository the last counts.
    pub fn from_values(values: &[String], origin: Origin) -> Result<Self, MirrorError> {
        let mut mirrors = Self::default();
        let mut derived = None;
        for value in values {
            let (name, address) = split_value(value);
            let url = parse_base(address).map_err(|reason| MirrorError::Value {
                origin: origin.clone(),
                value: value.clone(),
                reason,
            })?;
            if name.is_none() {
                derived = security_sibling(&url);
            }
            mirrors.add(name.unwrap_or(DEBIAN), url, origin.clone());
        }
        if let Some(url) = derived {
            mirrors.mirrors.entry(DEBIAN_SECURITY.to_owned()).or_insert(Mirror { url, origin });
        }
        Ok(mirrors)
    }

    fn from_snapshot_values(values: &[String]) -> Result<Self, MirrorError> {
        let mut mirrors = Self::default();
        for value in values {
            let refuse = |reason: String| MirrorError::Value {
                origin: Origin::Environment("ADAMANT_SNAPSHOT"),
                value: value.clone(),
                reason,
            };
            let (name, address) = split_value(value);
            let name = name.ok_or_else(|| refuse("a snapshot archive needs its repository's NAME=".to_owned()))?;
            parse_base(address).map_err(refuse)?;
            mirrors.set_snapshot(name, address);
        }
        Ok(mirrors)
    }

    /// From the text of a configuration file.
    pub fn from_config(text: &str, path: &Path) -> Result<Self, MirrorError> {
        let config = parse_config(text).map_err(|source| MirrorError::Config { path: path.to_owned(), source })?;
        let mut mirrors = Self::default();
        for (name, address) in &config.mirrors {
            let url = parse_base(address).map_err(|reason| MirrorError::Value {
                origin: Origin::ConfigFile(path.to_owned()),
                value: address.clone(),
                reason,
            })?;
            mirrors.add(name, url, Origin::ConfigFile(path.to_owned()));
        }
        for (name, address) in &config.snapshots {
            parse_base(address).map_err(|reason| MirrorError::Value {
                origin: Origin::ConfigFile(path.to_owned()),
                value: address.clone(),
                reason,
            })?;
            mirrors.set_snapshot(name, address);
        }
        Ok(mirrors)
    }

    /// From the host's apt sources, each with the file that it stands in.
    pub fn from_apt(sources: &[(PathBuf, AptSource)]) -> Self {
        let mut mirrors = Self::default();
        for name in [DEBIAN, DEBIAN_SECURITY] {
            if let Some((path, url)) = apt_sources::best(sources, name) {
                mirrors.add(name, url, Origin::AptSources(path));
            }
        }
        mirrors
    }

    /// Names the mirror of a repository, in place of another.
    pub fn add(&mut self, repository: &str, url: Url, origin: Origin) {
        self.mirrors.insert(repository.to_owned(), Mirror { url, origin });
    }

    /// Names the snapshot archive of a repository; `{timestamp}` in it stands for the date given by
    /// [`Mirrors::set_timestamp`].
    pub fn set_snapshot(&mut self, repository: &str, address: &str) {
        self.snapshots.insert(repository.to_owned(), address.to_owned());
    }

    /// Says as of when a snapshot archive is to be asked for the files of a repository: `20250520T000000Z`.
    pub fn set_timestamp(&mut self, repository: &str, timestamp: &str) {
        self.timestamps.insert(repository.to_owned(), timestamp.to_owned());
    }

    /// Takes over what `other` knows of repositories that `self` does not.
    pub fn or(&mut self, other: Self) {
        for (name, mirror) in other.mirrors {
            self.mirrors.entry(name).or_insert(mirror);
        }
        for (name, address) in other.snapshots {
            self.snapshots.entry(name).or_insert(address);
        }
        for (name, timestamp) in other.timestamps {
            self.timestamps.entry(name).or_insert(timestamp);
        }
    }

    /// The mirror of a repository.
    pub fn mirror(&self, repository: &str) -> Option<&Mirror> {
        self.mirrors.get(repository)
    }

    /// The snapshot archive of a repository as of its timestamp. `None` if there is none, or if it needs a timestamp
    /// and there is none.
    pub fn snapshot(&self, repository: &str) -> Option<Url> {
        let address = self.snapshots.get(repository)?;
        let dated = match self.timestamps.get(repository) {
            Some(timestamp) => address.replace("{timestamp}", timestamp),
            None if address.contains("{timestamp}") => return None,
            None => address.clone(),
        };
        parse_base(&dated).ok()
    }
}

/// `NAME=URL` or `URL`. A `=` may also stand in a URL, a `/` or `:` in no name.
fn split_value(value: &str) -> (Option<&str>, &str) {
    match value.split_once('=') {
        Some((name, address)) if !name.contains(['/', ':']) => (Some(name), address),
        _ => (None, value),
    }
}

/// A base address with its final `/`, so that paths are added to it and do not replace its last part.
fn parse_base(address: &str) -> Result<Url, String> {
    let mut url = Url::parse(address).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https" | "file") {
        return Err(format!("the scheme {:?} is not supported", url.scheme()));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("a mirror's address has no ? and no #".to_owned());
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

fn security_sibling(debian: &Url) -> Option<Url> {
    let parent = debian.path().strip_suffix("/debian/")?;
    let mut url = debian.clone();
    url.set_path(&format!("{parent}/debian-security/"));
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(values: &[&str]) -> Result<Mirrors, MirrorError> {
        Mirrors::from_values(&values.iter().map(|&value| value.to_owned()).collect::<Vec<_>>(), Origin::Argument)
    }

    fn url<'a>(mirrors: &'a Mirrors, name: &str) -> Option<&'a str> {
        mirrors.mirror(name).map(|mirror| mirror.url.as_str())
    }

    #[test]
    fn a_url_alone_is_debians_and_derives_that_of_the_security_updates() {
        let mirrors = values(&["http://mirror.example/ftp/debian"]).unwrap();
        assert_eq!(url(&mirrors, "debian"), Some("http://mirror.example/ftp/debian/"));
        assert_eq!(url(&mirrors, "debian-security"), Some("http://mirror.example/ftp/debian-security/"));
        let mirrors = values(&["http://mirror.example/archive/"]).unwrap();
        assert_eq!(url(&mirrors, "debian-security"), None);
    }

    #[test]
    fn a_named_url_wins_over_a_derived_one_in_any_order() {
        for order in [
            ["http://a.example/debian", "debian-security=file:///srv/s"],
            ["debian-security=file:///srv/s", "http://a.example/debian"],
        ] {
            assert_eq!(url(&values(&order).unwrap(), "debian-security"), Some("file:///srv/s/"));
        }
    }

    #[test]
    fn refuses_what_is_not_a_mirror() {
        for value in ["", "debian", "ftp://a.example/debian", "nginx=", "mirror:debian", "http://a.example/?x=y"] {
            assert!(values(&[value]).is_err(), "{value}");
        }
        assert_eq!(
            values(&["nginx=nowhere"]).unwrap_err().to_string(),
            "--mirror: \"nginx=nowhere\" is not a mirror: expected URL or NAME=URL, with http:, https: or file: \
             (relative URL without a base)"
        );
    }

    #[test]
    fn arguments_come_before_the_variable_before_the_file_before_apt() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        };
        let config = write("config.toml", "[mirrors]\ndebian = \"http://config.example/\"\n");
        write("apt/sources.list", "deb http://apt.example/debian trixie main\n");
        let mut host = Host {
            arguments: vec!["http://argument.example/".to_owned()],
            mirror_variable: Some(" debian=http://variable.example/ ".to_owned()),
            snapshot_variable: None,
            config_files: vec![directory.path().join("absent.toml"), config],
            apt_directory: Some(directory.path().join("apt")),
        };
        let found = |host: &Host| url(&Mirrors::discover(host).unwrap(), "debian").map(str::to_owned);
        assert_eq!(found(&host).as_deref(), Some("http://argument.example/"));
        host.arguments.clear();
        assert_eq!(found(&host).as_deref(), Some("http://variable.example/"));
        host.mirror_variable = None;
        assert_eq!(found(&host).as_deref(), Some("http://config.example/"));
        host.config_files.clear();
        assert_eq!(found(&host).as_deref(), Some("http://apt.example/debian/"));
        host.apt_directory = None;
        assert_eq!(found(&host), None);
    }

    #[test]
    fn a_snapshot_archive_is_asked_as_of_the_repositorys_timestamp() {
        let mut mirrors =
            Mirrors::from_snapshot_values(&["debian=http://s.example/archive/debian/{timestamp}".to_owned()]).unwrap();
        assert_eq!(mirrors.snapshot("debian"), None);
        mirrors.set_timestamp("debian", "20250520T000000Z");
        let url = mirrors.snapshot("debian").unwrap();
        assert_eq!(url.as_str(), "http://s.example/archive/debian/20250520T000000Z/");
        assert!(Mirrors::from_snapshot_values(&["http://s.example/".to_owned()]).is_err());
    }
}
