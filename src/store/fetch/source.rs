//! One attempt to read a file from where it is: over HTTP, or from a directory of this machine.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::time::Duration;

use reqwest::header::{CACHE_CONTROL, CONTENT_RANGE, HeaderMap, RANGE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};

use super::Options;
use super::error::{FetchError, TransportError};

/// Why an attempt failed.
pub(super) enum Failure {
    /// The file is not there.
    Missing,
    /// The server cannot give the part that was asked for.
    Range,
    /// It may succeed another time; the server may have asked for a pause.
    Passing(TransportError, Option<Duration>),
    /// It will not succeed.
    Lasting(FetchError),
}

/// A file being read.
pub(super) struct Source {
    /// Where in the file the next byte stands: what was asked for, or 0 if the server does not give parts.
    pub(super) offset: u64,
    /// The size of the whole file, if the server tells.
    pub(super) size: Option<u64>,
    body: Body,
}

enum Body {
    Http { response: Box<Response>, stall_timeout: Duration, url: String },
    File { file: File, path: std::path::PathBuf },
}

/// The client for all HTTP mirrors. A machine without CA certificates can still use mirrors without TLS: what comes
/// from them is checked by digest and signature.
pub(super) fn client(options: &Options) -> Result<Client, FetchError> {
    // An error says that a provider is set already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || {
        let builder = Client::builder()
            .user_agent(concat!("adamant/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.stall_timeout)
            .pool_max_idle_per_host(options.connections_per_host);
        if options.proxy { builder } else { builder.no_proxy() }
    };
    builder().build().or_else(|_| builder().tls_certs_only([]).build()).map_err(|source| FetchError::Client { source })
}

impl Source {
    /// Asks for a file from byte `offset` on. `fresh`: what caches in between hold is not to be used.
    pub(super) async fn open(
        client: &Client,
        options: &Options,
        url: &Url,
        offset: u64,
        fresh: bool,
    ) -> Result<Self, Failure> {
        if url.scheme() == "file" {
            return Self::open_file(url, offset);
        }
        let mut request = client.get(url.clone());
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        if fresh {
            request = request.header(CACHE_CONTROL, "no-cache");
        }
        let response = request.send().await.map_err(|error| failure(error, url, options.stall_timeout))?;
        let (offset, size) = judge(response.status(), response.headers(), response.content_length(), url, offset)?;
        let body = Body::Http { response: Box::new(response), stall_timeout: options.stall_timeout, url: shown(url) };
        Ok(Self { offset, size, body })
    }

    fn open_file(url: &Url, offset: u64) -> Result<Self, Failure> {
        let path = url.to_file_path().map_err(|()| Failure::Missing)?;
        let read = || -> io::Result<(File, u64)> {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(offset))?;
            let metadata = file.metadata()?;
            if metadata.is_dir() { Err(io::ErrorKind::NotFound.into()) } else { Ok((file, metadata.len())) }
        };
        match read() {
            Ok((file, size)) => Ok(Self { offset, size: Some(size), body: Body::File { file, path } }),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(Failure::Missing)
            }
            Err(source) => Err(Failure::Lasting(FetchError::Read { path, source })),
        }
    }

    /// The next bytes; empty at the end.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, Failure> {
        match &mut self.body {
            Body::Http { response, stall_timeout, url } => match response.chunk().await {
                Ok(chunk) => Ok(chunk.map(Vec::from).unwrap_or_default()),
                Err(error) => Err(failure_of(error, url.clone(), *stall_timeout)),
            },
            Body::File { file, path } => {
                const CHUNK: u64 = 1 << 20;
                let mut bytes = Vec::new();
                let mut part = file.take(CHUNK);
                match part.read_to_end(&mut bytes) {
                    Ok(_) => Ok(bytes),
                    Err(source) => Err(Failure::Lasting(FetchError::Read { path: path.clone(), source })),
                }
            }
        }
    }
}

/// What an answer's head says: where its bytes begin and how large the whole file is (RFC 9110, sections 14 and 15).
fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    length: Option<u64>,
    url: &Url,
    offset: u64,
) -> Result<(u64, Option<u64>), Failure> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match status.as_u16() {
        200 => Ok((0, length)),
        206 => match text(CONTENT_RANGE).and_then(parse_content_range) {
            Some((start, size)) if start == offset => Ok((offset, size)),
            _ => Err(Failure::Range),
        },
        416 => Err(Failure::Range),
        404 | 410 => Err(Failure::Missing),
        408 | 425 | 429 | 500 | 502 | 503 | 504 => {
            let pause = text(RETRY_AFTER).and_then(|value| value.trim().parse().ok()).map(Duration::from_secs);
            Err(Failure::Passing(TransportError::Status(status.to_string()), pause))
        }
        _ => Err(Failure::Lasting(FetchError::Status { url: shown(url), status: status.to_string() })),
    }
}

/// `bytes 100-199/1000`: the first byte, and the size of the whole unless it is `*`.
fn parse_content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = value.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?);
    let size = match size.trim() {
        "*" => None,
        size => Some(size.parse::<u64>().ok()?),
    };
    (first <= last && size.is_none_or(|size| last < size)).then_some((first, size))
}

fn failure(error: reqwest::Error, url: &Url, stall_timeout: Duration) -> Failure {
    failure_of(error, shown(url), stall_timeout)
}

fn failure_of(error: reqwest::Error, url: String, stall_timeout: Duration) -> Failure {
    let error = error.without_url(); // said already, without a password
    if distrusted(&error) {
        return Failure::Lasting(FetchError::Untrusted { url, source: error });
    }
    if error.is_builder() || error.is_redirect() {
        return Failure::Lasting(FetchError::Client { source: error });
    }
    if error.is_timeout() && !error.is_connect() {
        return Failure::Passing(TransportError::Stalled(stall_timeout), None);
    }
    Failure::Passing(TransportError::Connection(error), None)
}

/// Whether a certificate is the cause: another attempt would see the same one.
fn distrusted(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        // The source of an `io::Error` is that of the error inside it, which would be passed over.
        cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

/// A URL for a message: without the password that may stand in it.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    if url.password().is_some() {
        let _ = url.set_password(None);
    }
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_content_ranges() {
        assert_eq!(parse_content_range("bytes 100-199/1000"), Some((100, Some(1000))));
        assert_eq!(parse_content_range("bytes 0-0/*"), Some((0, None)));
        for bad in
            ["", "bytes */1000", "bytes 5-4/10", "bytes 0-10/10", "lines 0-1/2", "bytes 0-99999999999999999999/*"]
        {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let url = Url::parse("http://user:secret@m.example/debian/x").unwrap();
        assert_eq!(shown(&url), "http://user@m.example/debian/x");
    }

    proptest! {
        #[test]
        fn any_content_range_is_read_or_refused(value: String, first: u64, last: u64, size: u64) {
            let _ = parse_content_range(&value);
            let read = parse_content_range(&format!("bytes {first}-{last}/{size}"));
            prop_assert_eq!(read.is_some(), first <= last && last < size);
        }
    }
}
