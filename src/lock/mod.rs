//! The lockfile: every package of an image by name, version and digest; canonical text.
//!
//! Flows in: what was resolved, or a lockfile's text. Flows out: the same [`Lock`] as a value, its text, and what
//! changed between two.
//!
//! ```text
//! schema = 1
//! request = "<digest of what was asked for>"
//! architecture = "amd64"
//! epoch = 1795313385
//!
//! indexes = [
//!     { repository = "debian", suite = "trixie", component = "main", ..., date = 2026-11-21T09:15:44Z, ... },
//! ]
//!
//! [sets]
//! system = [
//!     { name = "adduser", version = "3.152", architecture = "all", repository = "debian", size = ..., ... },
//! ]
//! ```
//!
//! Invariants: equal locks have equal texts, and the text of a lock that was read is canonical again. One line per
//! package, in the order of their names, so that a change of a package is a change of its line. No address of a mirror
//! stands in a lock: `repository` is a name, and where it is found is the host's business.

mod difference;
mod text;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

pub use difference::{Change, Difference, SetDifference, difference};
pub use text::{ParseLockError, SCHEMA};

/// Every byte that may enter an image, by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Digest of the request that this lock answers: another one means that the recipe has changed.
    pub request: Digest,
    /// Debian's name of the architecture, e.g. `amd64`.
    pub architecture: String,
    /// The date of the newest index, in Unix seconds: the image's time unless the recipe says otherwise.
    pub epoch: u64,
    /// What was resolved from, in the order of the sources.
    pub indexes: Vec<LockedIndex>,
    /// The sets by name, each sorted by package name.
    pub sets: BTreeMap<String, Vec<LockedPackage>>,
}

/// A package index that was resolved from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockedIndex {
    /// The repository's name.
    pub repository: String,
    /// Its suite.
    pub suite: String,
    /// The component.
    pub component: String,
    /// `all` for an index of its own of packages for all architectures.
    pub architecture: String,
    /// The date of the suite's release file, in seconds since 1970-01-01 00:00 UTC.
    pub date: u64,
    /// Of the index as fetched, in bytes.
    pub size: u64,
    /// SHA-256 of the index as fetched.
    #[serde(rename = "sha256")]
    #[schemars(with = "String")]
    pub digest: Digest,
}

/// A package to fetch and install.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockedPackage {
    /// The package.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture, `all` included.
    pub architecture: String,
    /// The repository that has it.
    pub repository: String,
    /// Of the `.deb`, in bytes.
    pub size: u64,
    /// Of the `.deb`.
    pub digest: Digest,
    /// Of the `.deb`, relative to the repository's root.
    pub path: String,
}
