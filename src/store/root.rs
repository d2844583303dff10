//! Roots: locks whose objects are kept, however long ago they were used.
//!
//! ```text
//! roots/<SHA-256 of the path>     adamant root 1
//!                                 <digest>            one line per object that the lock named when it was last used
//!                                 (an empty line)
//!                                 <path>              of the lock, absolute, as it is, up to the end of the file
//! ```
//!
//! A root lasts as long as its file: whoever removes the lock, or the directory that it lies in, gives its objects
//! free. What the lock names by now is for its readers to say; the digests here stand in where it cannot be read.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::{Store, StoreError, layout, session};
use crate::digest::Digest;

/// The first line.
const HEADER: &str = "adamant root 1";

/// A lock whose objects are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The lock.
    pub path: PathBuf,
    /// The objects that it named when it was last used.
    pub digests: BTreeSet<Digest>,
}

impl Store {
    /// Keeps the objects of the lock at `path`, which is absolute, as long as that file exists.
    pub fn add_root(&self, path: &Path, digests: &BTreeSet<Digest>) -> Result<(), StoreError> {
        let mut bytes = format!("{HEADER}\n").into_bytes();
        for digest in digests {
            bytes.extend_from_slice(format!("{digest}\n").as_bytes());
        }
        bytes.push(b'\n');
        bytes.extend_from_slice(path.as_os_str().as_bytes());
        let place = self.root_place(path);
        if fs::read(&place).is_ok_and(|known| known == bytes) {
            return Ok(());
        }
        let partial = self.inner.session.fresh_path();
        layout::write_file(&partial, &bytes)
            .and_then(|()| fs::rename(&partial, &place))
            .map_err(StoreError::write(&place))
    }

    /// Gives the objects of the lock at `path` free.
    pub fn remove_root(&self, path: &Path) -> Result<(), StoreError> {
        let place = self.root_place(path);
        match fs::remove_file(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::write(&place)(error)),
            _ => Ok(()),
        }
    }

    /// All roots, in the order of their paths. What is no root is passed over.
    pub fn roots(&self) -> Result<Vec<Root>, StoreError> {
        let directory = self.layout().roots();
        let mut roots = Vec::new();
        for place in session::entries(&directory).map_err(StoreError::read(&directory))? {
            match fs::read(&place) {
                Ok(bytes) => roots.extend(parse(&bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // given free meanwhile
                Err(error) => return Err(StoreError::read(&place)(error)),
            }
        }
        roots.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(roots)
    }

    fn root_place(&self, path: &Path) -> PathBuf {
        self.layout().roots().join(Digest::of(path.as_os_str().as_bytes()).to_string())
    }
}

fn parse(bytes: &[u8]) -> Option<Root> {
    let rest = bytes.strip_prefix(HEADER.as_bytes())?.strip_prefix(b"\n")?;
    let mut digests = BTreeSet::new();
    let mut at = 0;
    while let Some(length) = memchr::memchr(b'\n', &rest[at..]) {
        let line = &rest[at..at + length];
        at += length + 1;
        if line.is_empty() {
            let path = std::ffi::OsString::from_vec(rest[at..].to_vec());
            return Some(Root { path: path.into(), digests }).filter(|root| root.path.is_absolute());
        }
        digests.insert(std::str::from_utf8(line).ok()?.parse().ok()?);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_root_is_none() {
        for bytes in ["", "adamant root 1", "adamant root 1\n", "adamant root 1\n\nrelative", "adamant root 1\nx\n\n/a"]
        {
            assert_eq!(parse(bytes.as_bytes()), None, "{bytes:?}");
        }
        let root = parse(b"adamant root 1\n\n/a\nb\xff").unwrap();
        assert_eq!((root.path.as_os_str().as_bytes(), root.digests.len()), (&b"/a\nb\xff"[..], 0));
    }

    #[test]
    fn roots_are_kept_replaced_and_given_free() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let path = Path::new("/a/b.lock");
        store.add_root(path, &[one].into()).unwrap();
        store.add_root(path, &[one, two].into()).unwrap();
        store.add_root(Path::new("/a/a.lock"), &BTreeSet::new()).unwrap();
        let expected = Root { path: path.to_owned(), digests: [one, two].into() };
        assert_eq!(store.roots().unwrap()[1], expected);
        assert_eq!(store.roots().unwrap().len(), 2);
        store.remove_root(path).unwrap();
        store.remove_root(path).unwrap();
        assert_eq!(store.roots().unwrap().len(), 1);
    }
}
