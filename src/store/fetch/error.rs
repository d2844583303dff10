//! Why a file could not be fetched.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::super::StoreError;
use crate::digest::Digest;

/// A failed fetch.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody has said where the repository's files are.
    #[error(
        "no mirror is known for the repository {repository:?}: give one with --mirror {}URL, or in the variable \
         ADAMANT_MIRROR, or as {repository:?} under [mirrors] in ~/.config/adamant/config.toml or \
         /etc/adamant/config.toml{}",
        if repository == "debian" { String::new() } else { format!("{repository}=") },
        if repository.starts_with("debian") { "; this machine's apt sources name none either" } else { "" }
    )]
    NoMirror {
        /// The repository's name.
        repository: String,
    },
    /// The network may not be used and the store does not have what is needed.
    #[error(
        "not in the store, and --offline forbids fetching: {}. Run the command once without --offline",
        list(files)
    )]
    Offline {
        /// The files.
        files: Vec<String>,
    },
    /// The mirror, and the snapshot archive if there is one, do not have the files.
    #[error(
        "not on the mirror (any more): {}. Make a new lock with `adamant lock`, or name a snapshot archive under [snapshots] in \
         ~/.config/adamant/config.toml",
        list(files)
    )]
    Missing {
        /// Their addresses.
        files: Vec<String>,
    },
    /// The bytes that came are not those that were announced. They were not kept.
    #[error(
        "{url} is not the file that was expected: its SHA-256 is {found} instead of {expected}. The mirror, or \
         something between it and this machine, altered it: try another mirror"
    )]
    Digest {
        /// The file's address.
        url: String,
        /// The digest it should have.
        expected: Digest,
        /// The digest it has.
        found: Digest,
    },
    /// The file has another size than announced. Nothing of it was kept.
    #[error(
        "{url} is not the file that was expected: it has {found} bytes instead of {expected}. The mirror, or \
         something between it and this machine (a login page?), altered it: try another mirror"
    )]
    Size {
        /// The file's address.
        url: String,
        /// The size it should have.
        expected: u64,
        /// The size it has, as far as known.
        found: u64,
    },
    /// A file whose size nobody announced is larger than any such file should be.
    #[error("{url} is larger than {limit} bytes, which no such file should be")]
    TooLarge {
        /// The file's address.
        url: String,
        /// The most that is taken.
        limit: u64,
    },
    /// The server refused.
    #[error("{url}: the server answered {status}")]
    Status {
        /// The file's address.
        url: String,
        /// The HTTP status, with its meaning.
        status: String,
    },
    /// The file did not come, in spite of several attempts.
    #[error(
        "{url} could not be fetched ({attempts} attempts); what has arrived is kept: run the command again to go on, \
         or try another mirror with --mirror"
    )]
    Transport {
        /// The file's address.
        url: String,
        /// How often it was tried.
        attempts: u32,
        /// The last attempt's failure.
        source: TransportError,
    },
    /// The server cannot be trusted.
    #[error(
        "{url}: no trusted connection; this machine's CA certificates decide (package ca-certificates, SSL_CERT_FILE)"
    )]
    Untrusted {
        /// The file's address.
        url: String,
        /// The cause.
        source: reqwest::Error,
    },
    /// A file of a `file:` mirror could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A path that leads out of the mirror, or nowhere.
    #[error("{path:?} is not the path of a file in the repository {repository:?}")]
    Path {
        /// The repository's name.
        repository: String,
        /// The path.
        path: String,
    },
    /// The HTTP client could not be made.
    #[error("cannot start the network client")]
    Client {
        /// The cause.
        source: reqwest::Error,
    },
    /// The threads of the network half could not be started.
    #[error("cannot start the threads that fetch")]
    Runtime {
        /// The cause.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an attempt failed that might have succeeded.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The connection could not be made, or broke.
    #[error("the connection failed")]
    Connection(#[source] reqwest::Error),
    /// Nothing came for so long.
    #[error("nothing came for {} s", .0.as_secs_f32())]
    Stalled(Duration),
    /// The server is overloaded or broken.
    #[error("the server answered {0}")]
    Status(String),
    /// The server ended the file early and called it whole.
    #[error("the server sent {found} bytes of {expected} and ended")]
    Truncated {
        /// Bytes that should have come.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
}

impl TransportError {
    /// The cause behind all causes, in a few words.
    pub(super) fn root_cause(&self) -> String {
        let mut error: &dyn std::error::Error = self;
        while let Some(cause) = error.source() {
            error = cause;
        }
        error.to_string()
    }
}

/// The first few of a list, and how many more there are.
fn list(files: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text = files.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if files.len() > SHOWN {
        text.push_str(&format!(" and {} more", files.len() - SHOWN));
    }
    text
}
