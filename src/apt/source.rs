//! From repositories to verified indexes.
//!
//! Flows in: [`Repository`]s, an [`IndexSource`] that fetches, the time. Flows out: parsed package indexes with their
//! origins. The chain of trust, each link checked before the next is read:
//!
//! ```text
//! trusted key ─signs─> InRelease ─lists size and digest of─> Packages.xz ─lists size and digest of─> .deb
//! ```
//!
//! Indexes of all suites are fetched and parsed side by side; the result is in the order of the repositories.

use std::io::Read;

use rayon::prelude::*;

use super::openpgp::{self, Keyring, OpenPgpError};
use super::packages::{PackagesError, PackagesIndex};
use super::release::{FileIdentity, Release, ReleaseError};
use super::universe::{Origin, SourceIndex};
use crate::digest::Digest;
use crate::lock::LockedIndex;

/// No index unpacks to more than this, unless its release file says so: a bomb is small when it arrives.
const UNLISTED_SIZE_LIMIT: u64 = 1 << 30;
/// Nor to more than this, whoever says so: larger ones cannot be parsed.
const SIZE_LIMIT: u64 = u32::MAX as u64;
/// The dictionary of `xz -9` takes 65 MiB; twice that is more than archives ask for.
const XZ_MEMORY_MAX: u64 = 128 << 20;

/// Fetches files of repositories. Implemented by whoever has a network, a store, or a directory.
pub trait IndexSource: Sync {
    /// The file at `path` (e.g. `dists/trixie/InRelease`) below the root of the repository of this name. If `expected`
    /// is given, a file that has it may be taken from anywhere, a cache included; what is returned is checked again.
    fn fetch(&self, repository: &str, path: &str, expected: Option<FileIdentity>) -> Result<Vec<u8>, FetchError>;
}

/// Why a file could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The repository answers, and has no such file.
    #[error("there is no such file")]
    NotFound,
    /// Anything else.
    #[error(transparent)]
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

/// A repository to take packages from.
#[derive(Debug, Clone)]
pub struct Repository {
    /// By which the host finds its mirror, and the lock names it.
    pub name: String,
    /// In the order in which they are to be considered.
    pub suites: Vec<String>,
    /// Of every suite.
    pub components: Vec<String>,
    /// Any of them may sign.
    pub keys: Keyring,
    /// apt's pin priority of all its suites; `None` leaves it to the release files (500; 100 for backports; 1 for
    /// what is not automatic).
    pub priority: Option<i32>,
}

/// An index that could not be had or believed.
#[derive(Debug, thiserror::Error)]
#[error("repository {repository}, {path}")]
pub struct SourceError {
    /// The repository's name.
    pub repository: String,
    /// Which file of it.
    pub path: String,
    /// What is wrong.
    #[source]
    pub problem: SourceProblem,
}

/// What can be wrong with an index.
#[derive(Debug, thiserror::Error)]
pub enum SourceProblem {
    /// Not fetched.
    #[error("cannot fetch it")]
    Fetch {
        /// From the source.
        #[source]
        source: FetchError,
    },
    /// The signature.
    #[error("the signature is not accepted")]
    Signature {
        /// Why.
        #[source]
        source: OpenPgpError,
    },
    /// The release file.
    #[error("the release file is not accepted")]
    Release {
        /// Why.
        #[source]
        source: ReleaseError,
    },
    /// The release file of another suite, well signed.
    #[error("this is the release file of {}, not of {suite}", .found.join("/"))]
    OtherSuite {
        /// Asked for.
        suite: String,
        /// Its codename and suite.
        found: Vec<String>,
    },
    /// A component that the suite does not have.
    #[error("the suite has no component {component}, only {}", .available.join(", "))]
    NoComponent {
        /// Asked for.
        component: String,
        /// What there is.
        available: Vec<String>,
    },
    /// No index for the architecture.
    #[error("the suite has no packages for {architecture}, only for {}", .available.join(", "))]
    NoArchitecture {
        /// Asked for.
        architecture: String,
        /// What there is.
        available: Vec<String>,
    },
    /// Fewer bytes than listed.
    #[error("it is truncated: {found} of {expected} bytes")]
    Truncated {
        /// By the release file.
        expected: u64,
        /// In hand.
        found: u64,
    },
    /// Other bytes than listed.
    #[error("it is not the file that the release file lists: SHA-256 {found}, expected {expected}")]
    Digest {
        /// By the release file.
        expected: Digest,
        /// In hand.
        found: Digest,
    },
    /// Does not unpack.
    #[error("cannot decompress it")]
    Decompress {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Unpacks to another size than listed.
    #[error("it does not unpack to the {expected} bytes that the release file lists")]
    UnpackedSize {
        /// By the release file.
        expected: u64,
    },
    /// Does not parse.
    #[error("it is not a package index")]
    Packages {
        /// Why.
        #[source]
        source: PackagesError,
    },
}

/// An index, ready for resolving and for the lock.
pub(super) type Loaded = (SourceIndex, LockedIndex);

/// Fetches, verifies and parses every index of the repositories.
pub(super) fn load(
    repositories: &[Repository],
    architecture: &str,
    source: &dyn IndexSource,
    now: u64,
) -> Result<Vec<Loaded>, SourceError> {
    let suites: Vec<(&Repository, &str)> = repositories
        .iter()
        .flat_map(|repository| repository.suites.iter().map(move |suite| (repository, suite.as_str())))
        .collect();
    // Every release file before any index: what is expired or forged is found before a byte too much is fetched.
    let releases: Vec<Release> = suites
        .par_iter()
        .map(|(repository, suite)| load_release(repository, suite, source, now))
        .collect::<Result<_, _>>()?;
    let mut wanted = Vec::new();
    for ((repository, suite), release) in suites.iter().zip(&releases) {
        for component in &repository.components {
            let indexes = choose(repository, suite, release, component, architecture)?;
            wanted.extend(indexes.into_iter().map(|index| (*repository, *suite, release, index)));
        }
    }
    wanted
        .par_iter()
        .map(|(repository, suite, release, index)| load_index(repository, suite, release, index, source))
        .collect()
}

fn load_release(
    repository: &Repository,
    suite: &str,
    source: &dyn IndexSource,
    now: u64,
) -> Result<Release, SourceError> {
    let path = format!("dists/{suite}/InRelease");
    let check = || {
        let bytes = source.fetch(&repository.name, &path, None).map_err(|source| SourceProblem::Fetch { source })?;
        let signed = openpgp::verify_cleartext(&bytes, &repository.keys, now)
            .map_err(|source| SourceProblem::Signature { source })?;
        let refuse = |source| SourceProblem::Release { source };
        let release = Release::parse(&signed.text).map_err(refuse)?;
        release.check_dates(now).map_err(refuse)?;
        // Small archives may call their suite nothing at all.
        if !release.is_called(suite) && (release.codename.is_some() || release.suite.is_some()) {
            let found = [&release.codename, &release.suite].into_iter().flatten().cloned().collect();
            return Err(SourceProblem::OtherSuite { suite: suite.to_owned(), found });
        }
        Ok(release)
    };
    check().map_err(|problem| SourceError { repository: repository.name.clone(), path: path.clone(), problem })
}

/// An index to fetch.
struct Wanted {
    component: String,
    architecture: String,
    /// Below the suite's directory, without the compression's suffix.
    path: String,
    suffix: &'static str,
    identity: FileIdentity,
}

/// The indexes of a component: that of the architecture, and that of all where the suite keeps one.
fn choose(
    repository: &Repository,
    suite: &str,
    release: &Release,
    component: &str,
    architecture: &str,
) -> Result<Vec<Wanted>, SourceError> {
    let error = |problem| SourceError {
        repository: repository.name.clone(),
        path: format!("dists/{suite}/InRelease"),
        problem,
    };
    // The same archives may not list components either; then the index decides.
    if !release.components.is_empty() && !release.components.iter().any(|one| one == component) {
        let available = release.components.clone();
        return Err(error(SourceProblem::NoComponent { component: component.to_owned(), available }));
    }
    let index = |architecture: &str| {
        let path = format!("{component}/binary-{architecture}/Packages");
        // The best compression first. All are listed with their digests, so none is less trusted.
        [".xz", ".gz", ""].into_iter().find_map(|suffix| {
            let identity = *release.files.get(&format!("{path}{suffix}"))?;
            let (component, architecture) = (component.to_owned(), architecture.to_owned());
            Some(Wanted { component, architecture, path: path.clone(), suffix, identity })
        })
    };
    let own = index(architecture).ok_or_else(|| {
        let available = release.architectures.clone();
        error(SourceProblem::NoArchitecture { architecture: architecture.to_owned(), available })
    })?;
    let has_all = release.all_listed_separately && release.architectures.iter().any(|one| one == "all");
    let all = if has_all { index("all") } else { None };
    Ok(std::iter::once(own).chain(all).collect())
}

fn load_index(
    repository: &Repository,
    suite: &str,
    release: &Release,
    wanted: &Wanted,
    source: &dyn IndexSource,
) -> Result<Loaded, SourceError> {
    let path = format!("dists/{suite}/{}{}", wanted.path, wanted.suffix);
    let check = || {
        let bytes = fetch_index(repository, &path, release, wanted, source)?;
        let listed = release.files.get(&wanted.path).map(|identity| identity.size);
        let plain = decompress(bytes, wanted.suffix, listed)?;
        PackagesIndex::parse(plain).map_err(|source| SourceProblem::Packages { source })
    };
    let packages =
        check().map_err(|problem| SourceError { repository: repository.name.clone(), path: path.clone(), problem })?;
    let by_release = match (release.not_automatic, release.but_automatic_upgrades) {
        (true, true) => 100,
        (true, false) => 1,
        (false, _) => 500,
    };
    let origin = Origin {
        repository: repository.name.clone(),
        suite: suite.to_owned(),
        aliases: [&release.codename, &release.suite].into_iter().flatten().cloned().collect(),
        component: wanted.component.clone(),
        priority: repository.priority.unwrap_or(by_release),
    };
    let locked = LockedIndex {
        repository: repository.name.clone(),
        suite: suite.to_owned(),
        component: wanted.component.clone(),
        architecture: wanted.architecture.clone(),
        date: release.date,
        size: wanted.identity.size,
        digest: wanted.identity.digest,
    };
    Ok((SourceIndex { origin, packages }, locked))
}

/// The index's bytes as listed, by digest where the archive keeps them so: a file of that name may be replaced between
/// the fetch of the release file and now.
fn fetch_index(
    repository: &Repository,
    path: &str,
    release: &Release,
    wanted: &Wanted,
    source: &dyn IndexSource,
) -> Result<Vec<u8>, SourceProblem> {
    let fetch = |path: &str| source.fetch(&repository.name, path, Some(wanted.identity));
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let by_hash = format!("{directory}/by-hash/SHA256/{}", wanted.identity.digest);
    let fetched = match release.by_hash.then(|| fetch(&by_hash)) {
        Some(Err(FetchError::NotFound)) | None => fetch(path),
        Some(fetched) => fetched,
    };
    let bytes = fetched.map_err(|source| SourceProblem::Fetch { source })?;
    let FileIdentity { size, digest } = wanted.identity;
    if (bytes.len() as u64) < size {
        return Err(SourceProblem::Truncated { expected: size, found: bytes.len() as u64 });
    }
    let found = Digest::of(&bytes);
    if found != digest {
        return Err(SourceProblem::Digest { expected: digest, found });
    }
    Ok(bytes)
}

fn decompress(bytes: Vec<u8>, suffix: &str, listed: Option<u64>) -> Result<Vec<u8>, SourceProblem> {
    let limit = listed.unwrap_or(UNLISTED_SIZE_LIMIT).min(SIZE_LIMIT);
    let unpacked = match suffix {
        ".xz" => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_MAX, liblzma::stream::CONCATENATED)
                .map_err(|error| SourceProblem::Decompress { source: error.into() })?;
            read_at_most(liblzma::read::XzDecoder::new_stream(bytes.as_slice(), stream), limit)?
        }
        ".gz" => read_at_most(flate2::read::MultiGzDecoder::new(bytes.as_slice()), limit)?,
        _ => bytes,
    };
    if unpacked.len() as u64 > limit || listed.is_some_and(|listed| listed != unpacked.len() as u64) {
        return Err(SourceProblem::UnpackedSize { expected: limit });
    }
    Ok(unpacked)
}

/// At most one byte more than `limit`, which tells that there was more.
fn read_at_most(reader: impl Read, limit: u64) -> Result<Vec<u8>, SourceProblem> {
    let mut unpacked = Vec::new();
    reader.take(limit + 1).read_to_end(&mut unpacked).map_err(|source| SourceProblem::Decompress { source })?;
    Ok(unpacked)
}
