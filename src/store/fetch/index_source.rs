//! The store's side of resolution: indexes of repositories, from their mirrors.
//!
//! Release files come from the mirror each time: whether they are current is what they are fetched for. What a release
//! file lists is known by digest, so it is an object like any other: kept, and found there by the next resolution.

use super::{FetchError, Fetcher};
use crate::apt::{FetchError as SourceFetchError, FileIdentity, IndexSource};

/// Far more than any release file has (Debian's have some 200 KB).
const RELEASE_LIMIT: u64 = 16 << 20;

impl IndexSource for Fetcher {
    fn fetch(&self, repository: &str, path: &str, expected: Option<FileIdentity>) -> Result<Vec<u8>, SourceFetchError> {
        let limit = expected.map_or(RELEASE_LIMIT, |file| file.size);
        let expected = expected.map(|file| (file.digest, file.size));
        self.fetch_bytes(repository, path, expected, limit).map_err(|error| match error {
            FetchError::Missing { .. } => SourceFetchError::NotFound,
            error => SourceFetchError::Failed(Box::new(error)),
        })
    }
}
