//! The lock as text: written by hand so that every byte is decided here, read by the `toml` crate.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Deserialize;

use super::{Lock, LockedIndex, LockedPackage};
use crate::digest::Digest;

/// The version of the format. A lock of another version is not read: made again, it is up to date.
pub const SCHEMA: u64 = 1;

/// A text that is not a lock.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ParseLockError {
    /// No text at all.
    #[error("byte {offset} is not UTF-8")]
    Encoding {
        /// Of the first wrong byte.
        offset: usize,
    },
    /// Not TOML, or not these keys.
    #[error("not a lockfile")]
    Toml {
        /// With line, column and the line.
        #[from]
        source: toml::de::Error,
    },
    /// Of another version of adamant.
    #[error("the lockfile has schema {found}, this adamant reads {SCHEMA}: make it again with `adamant lock`")]
    Schema {
        /// What it says.
        found: u64,
    },
    /// A package that cannot be one.
    #[error("set {set}, package {package}: {value:?} is not a {field}")]
    Package {
        /// The set.
        set: String,
        /// Its name as written.
        package: String,
        /// The wrong field.
        field: &'static str,
        /// Its value, shortened.
        value: String,
    },
    /// A package that stands in a set twice.
    #[error("set {set}: package {package} is listed twice")]
    Twice {
        /// The set.
        set: String,
        /// The package.
        package: String,
    },
    /// A date that no clock shows.
    #[error("index {repository} {suite} {component}: {date} is not a date in UTC since 1970")]
    Date {
        /// The index's repository.
        repository: String,
        /// The index's suite.
        suite: String,
        /// The index's component.
        component: String,
        /// As written.
        date: String,
    },
}

impl Lock {
    /// The canonical text.
    pub fn to_text(&self) -> String {
        let mut text = String::from(
            "# Made by `adamant lock`. Commit it; to change it, change the recipe or run `adamant lock` again.\n",
        );
        // Writing to a String cannot fail.
        let _ = writeln!(text, "schema = {SCHEMA}");
        let _ = writeln!(text, "request = \"{}\"", self.request);
        let _ = writeln!(text, "architecture = {}", quoted(&self.architecture));
        let _ = writeln!(text, "epoch = {}", self.epoch);
        text.push_str("\nindexes = [\n");
        for index in &self.indexes {
            let _ = writeln!(
                text,
                "    {{ repository = {}, suite = {}, component = {}, architecture = {}, date = {}, size = {}, sha256 = \"{}\" }},",
                quoted(&index.repository),
                quoted(&index.suite),
                quoted(&index.component),
                quoted(&index.architecture),
                date_text(index.date),
                index.size,
                index.digest,
            );
        }
        text.push_str("]\n\n[sets]\n");
        for (name, packages) in &self.sets {
            let _ = writeln!(text, "{} = [", quoted_key(name));
            for package in packages {
                let _ = writeln!(
                    text,
                    "    {{ name = {}, version = {}, architecture = {}, repository = {}, size = {}, sha256 = \"{}\", path = {} }},",
                    quoted(&package.name),
                    quoted(&package.version),
                    quoted(&package.architecture),
                    quoted(&package.repository),
                    package.size,
                    package.digest,
                    quoted(&package.path),
                );
            }
            text.push_str("]\n");
        }
        text
    }

    /// Reads a lock. Its lines may be in any order; what it gives is canonical.
    pub fn parse(text: &str) -> Result<Self, ParseLockError> {
        let schema: Schema = toml::from_str(text)?;
        if schema.schema != SCHEMA {
            return Err(ParseLockError::Schema { found: schema.schema });
        }
        let file: File = toml::from_str(text)?;
        let mut sets = BTreeMap::new();
        for (set, lines) in file.sets {
            let mut packages = Vec::with_capacity(lines.len());
            let mut names = BTreeSet::new();
            for line in lines {
                let package = line.check(&set)?;
                if !names.insert(package.name.clone()) {
                    return Err(ParseLockError::Twice { set, package: package.name });
                }
                packages.push(package);
            }
            packages.sort();
            sets.insert(set, packages);
        }
        let indexes = file.indexes.into_iter().map(IndexLine::check).collect::<Result<_, _>>()?;
        Ok(Self { request: file.request, architecture: file.architecture, epoch: file.epoch, indexes, sets })
    }
}

/// Only the version of the format, whatever else the text holds.
#[derive(Deserialize)]
struct Schema {
    schema: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "schema")]
    _schema: u64,
    request: Digest,
    architecture: String,
    epoch: u64,
    indexes: Vec<IndexLine>,
    sets: BTreeMap<String, Vec<PackageLine>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexLine {
    repository: String,
    suite: String,
    component: String,
    architecture: String,
    date: toml::value::Datetime,
    size: u64,
    sha256: Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PackageLine {
    name: String,
    version: String,
    architecture: String,
    repository: String,
    size: u64,
    sha256: Digest,
    path: String,
}

impl IndexLine {
    fn check(self) -> Result<LockedIndex, ParseLockError> {
        let date = self.date.to_string().parse::<jiff::Timestamp>().ok();
        let Some(date) = date.and_then(|date| u64::try_from(date.as_second()).ok()) else {
            return Err(ParseLockError::Date {
                repository: self.repository,
                suite: self.suite,
                component: self.component,
                date: self.date.to_string(),
            });
        };
        Ok(LockedIndex {
            repository: self.repository,
            suite: self.suite,
            component: self.component,
            architecture: self.architecture,
            date,
            size: self.size,
            digest: self.sha256,
        })
    }
}

impl PackageLine {
    /// A lock may come from anywhere: its paths become URLs, its names become file names.
    fn check(self, set: &str) -> Result<LockedPackage, ParseLockError> {
        let name = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-._".contains(&c))
        };
        let version = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_digit())
                && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-.~:".contains(&c))
        };
        let path = |text: &str| {
            text.split('/').all(|part| !matches!(part, "" | "." | ".."))
                && text.bytes().all(|c| c.is_ascii_graphic() && !b"\"\\?#<>|*".contains(&c))
        };
        for (field, value, is_good) in [
            ("package name", &self.name, name(&self.name)),
            ("version", &self.version, version(&self.version)),
            ("architecture", &self.architecture, name(&self.architecture)),
            ("repository", &self.repository, name(&self.repository)),
            ("path in a repository", &self.path, path(&self.path)),
        ] {
            if !is_good {
                let value = value.chars().take(80).collect();
                return Err(ParseLockError::Package { set: set.to_owned(), package: self.name.clone(), field, value });
            }
        }
        Ok(LockedPackage {
            name: self.name,
            version: self.version,
            architecture: self.architecture,
            repository: self.repository,
            size: self.size,
            digest: self.sha256,
            path: self.path,
        })
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A key: bare where it may be.
fn quoted_key(text: &str) -> String {
    let bare = !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
    if bare { text.to_owned() } else { quoted(text) }
}

/// RFC 3339 in UTC; years beyond 9999 do not occur, and would read as the epoch.
fn date_text(seconds: u64) -> String {
    let timestamp = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    timestamp.unwrap_or_default().to_string()
}
