//! A directory or an object store, by its address: where what several machines share is kept.
//!
//! Flows in: an address. Flows out: a [`Bucket`], which gives and takes objects by their names below the address.
//!
//! | address | what it is | credentials and settings |
//! |---|---|---|
//! | `DIR`, `file:///DIR` | a directory, mounted from wherever | its permissions |
//! | `s3://BUCKET/PREFIX` | S3 and what speaks its language | `AWS_*`, also `AWS_ENDPOINT_URL`; else the instance's role |
//! | `gs://BUCKET/PREFIX` | Google Cloud Storage | `GOOGLE_*`; else the instance's account |
//! | `az://CONTAINER/PREFIX` | Azure Blob Storage | `AZURE_*`; else the instance's identity |
//!
//! Everything is by the `object_store` crate, which reads these variables. Buckets are addressed in the path, as every
//! imitation of S3 understands; `AWS_VIRTUAL_HOSTED_STYLE_REQUEST=true` changes that.
//!
//! Invariant: no time is unlimited. A connection comes about within [`Patience::connect`], a request is repeated
//! [`Patience::repeats`] times at most, and none takes longer than [`Patience::request`].

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};
use reqwest::Url;

/// How long is waited for an object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For a whole request, its body included.
    pub request: Duration,
    /// How often a request is repeated that failed for a reason that may pass: a broken connection, a status of 5xx.
    pub repeats: usize,
    /// How long after the first attempt nothing is repeated any more.
    pub repeats_within: Duration,
}

/// Objects below an address.
#[derive(Debug, Clone)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    address: Address,
}

/// Where a bucket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A directory.
    Directory(PathBuf),
    /// A bucket of a kind, by name, and what stands before the name of every object there.
    Remote {
        /// Who keeps it.
        kind: Remote,
        /// The bucket or container.
        bucket: String,
        /// Without `/` at its ends.
        prefix: String,
    },
}

/// Who keeps a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remote {
    /// S3 and compatible.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

impl Remote {
    const ALL: [(Self, &str); 3] = [(Self::S3, "s3"), (Self::Google, "gs"), (Self::Azure, "az")];

    fn scheme(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, scheme)| scheme)
    }
}

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no place for objects: expected a directory, file:///DIR, s3://BUCKET/PREFIX, gs:// or az:// ({why})"
)]
pub struct AddressError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

/// Why a bucket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// A directory that is not there, or that is none.
    #[error("cannot open the directory {}", .path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Settings or credentials that do not do.
    #[error("cannot use {address}")]
    Settings {
        /// Which bucket.
        address: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
}

impl Address {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let refuse = |why: &str| AddressError { text: text.to_owned(), why: why.to_owned() };
        if !text.contains("://") {
            return match text {
                "" => Err(refuse("it is empty")),
                directory => Ok(Self::Directory(PathBuf::from(directory))),
            };
        }
        let url = Url::parse(text).map_err(|error| refuse(&error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("credentials belong in the environment, not in the address"));
        }
        if url.query().is_some() || url.fragment().is_some() || url.port().is_some() {
            return Err(refuse("it has no port, no ? and no #"));
        }
        if url.scheme() == "file" {
            return url.to_file_path().map(Self::Directory).map_err(|()| refuse("it names another machine"));
        }
        let kind = Remote::ALL.iter().find(|(_, scheme)| *scheme == url.scheme());
        let (kind, _) = kind.ok_or_else(|| refuse(&format!("the scheme {:?} is not supported", url.scheme())))?;
        let bucket = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| refuse("it names no bucket"))?;
        let prefix = Path::from_url_path(url.path()).map_err(|error| refuse(&error.to_string()))?;
        Ok(Self::Remote { kind: *kind, bucket: bucket.to_owned(), prefix: prefix.to_string() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Remote { kind, bucket, prefix } if prefix.is_empty() => write!(f, "{}://{bucket}", kind.scheme()),
            Self::Remote { kind, bucket, prefix } => write!(f, "{}://{bucket}/{prefix}", kind.scheme()),
        }
    }
}

impl Bucket {
    /// Opens the bucket at `address`. Nothing is asked of a remote one yet; a directory must be there.
    pub fn open(address: &Address, patience: &Patience) -> Result<Self, BucketError> {
        let (store, prefix) = match address {
            Address::Directory(path) => (directory(path)?, Path::default()),
            Address::Remote { kind, bucket, prefix } => {
                let store = remote(*kind, bucket, patience);
                let settings = |source| BucketError::Settings { address: address.to_string(), source };
                (store.map_err(settings)?, Path::from(prefix.as_str()))
            }
        };
        Ok(Self { store, prefix, address: address.clone() })
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What gives and takes its objects.
    pub fn store(&self) -> &dyn ObjectStore {
        self.store.as_ref()
    }

    /// The full name of the object `name`, segments separated by `/`.
    pub fn path(&self, name: &str) -> Path {
        self.prefix.parts().chain(Path::from(name).parts()).collect()
    }
}

fn directory(path: &FilePath) -> Result<Arc<dyn ObjectStore>, BucketError> {
    let open = || -> std::io::Result<LocalFileSystem> {
        let path = path.canonicalize()?;
        std::fs::read_dir(&path)?;
        LocalFileSystem::new_with_prefix(path).map_err(std::io::Error::other)
    };
    match open() {
        Ok(store) => Ok(Arc::new(store)),
        Err(source) => Err(BucketError::Directory { path: path.to_owned(), source }),
    }
}

fn remote(kind: Remote, bucket: &str, patience: &Patience) -> object_store::Result<Arc<dyn ObjectStore>> {
    // An error says that a provider is set already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retry = RetryConfig {
        backoff: BackoffConfig { init_backoff: Duration::from_millis(100), ..BackoffConfig::default() },
        max_retries: patience.repeats,
        retry_timeout: patience.repeats_within,
    };
    let milliseconds = |duration: Duration| format!("{} ms", duration.as_millis());
    let client = [
        (ClientConfigKey::ConnectTimeout, milliseconds(patience.connect)),
        (ClientConfigKey::Timeout, milliseconds(patience.request)),
        (ClientConfigKey::UserAgent, concat!("adamant/", env!("CARGO_PKG_VERSION")).to_owned()),
    ];
    Ok(match kind {
        Remote::S3 => {
            let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry);
            for (key, value) in client {
                builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
            }
            if is_plain(builder.get_config_value(&AmazonS3ConfigKey::Endpoint)) {
                builder = builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp), "true");
            }
            Arc::new(builder.build()?)
        }
        Remote::Google => {
            let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(retry);
            for (key, value) in client {
                builder = builder.with_config(GoogleConfigKey::Client(key), value);
            }
            Arc::new(builder.build()?)
        }
        Remote::Azure => {
            let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(bucket).with_retry(retry);
            for (key, value) in client {
                builder = builder.with_config(AzureConfigKey::Client(key), value);
            }
            if is_plain(builder.get_config_value(&AzureConfigKey::Endpoint)) {
                builder = builder.with_config(AzureConfigKey::Client(ClientConfigKey::AllowHttp), "true");
            }
            Arc::new(builder.build()?)
        }
    })
}

/// Who names an endpoint without TLS means it.
fn is_plain(endpoint: Option<String>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_directories_and_buckets() {
        let shown = |text: &str| Address::parse(text).unwrap().to_string();
        assert_eq!(Address::parse("some/dir").unwrap(), Address::Directory("some/dir".into()));
        assert_eq!(Address::parse("file:///srv/c%20d").unwrap(), Address::Directory("/srv/c d".into()));
        assert_eq!(shown("s3://team/adamant/cache/"), "s3://team/adamant/cache");
        assert_eq!(shown("gs://team"), "gs://team");
        let azure = Address::Remote { kind: Remote::Azure, bucket: "box".to_owned(), prefix: "a/b".to_owned() };
        assert_eq!(Address::parse("az://box/a/b").unwrap(), azure);
    }

    #[test]
    fn refuses_what_is_no_address_and_credentials_in_one() {
        let why = |text: &str| Address::parse(text).unwrap_err().why;
        assert_eq!(why(""), "it is empty");
        assert_eq!(why("ftp://team/x"), "the scheme \"ftp\" is not supported");
        assert_eq!(why("s3://key:secret@team/x"), "credentials belong in the environment, not in the address");
        assert_eq!(why("s3://team/x?y"), "it has no port, no ? and no #");
        assert!(Address::parse("s3:///x").is_err() && Address::parse("s3://t/%00").is_err());
    }

    #[test]
    fn names_of_objects_stay_below_the_prefix() {
        let directory = tempfile::tempdir().unwrap();
        let patience = Patience {
            connect: Duration::from_secs(1),
            request: Duration::from_secs(1),
            repeats: 0,
            repeats_within: Duration::from_secs(1),
        };
        let bucket = Bucket::open(&Address::Directory(directory.path().to_owned()), &patience).unwrap();
        assert_eq!(bucket.path("objects/ab").to_string(), "objects/ab");
        assert_eq!(bucket.path("../../etc").to_string(), "%2E%2E/%2E%2E/etc");
        let gone = Bucket::open(&Address::Directory(directory.path().join("none")), &patience);
        assert!(matches!(gone, Err(BucketError::Directory { .. })));
    }
}
