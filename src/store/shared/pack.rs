//! A stage's result as entry and objects: its files packed, and unpacked again.
//!
//! Results consist of files and directories, whoever made them: owners, modes and devices of an image's tree are inside
//! their files, so root and an ordinary user can share them. A result of anything else is not shared.
//!
//! Invariants of unpacking: the bytes that go into the decompressor were compared with a signed digest before; not one
//! byte more comes out of it than the entry says; every file is made anew below the given directory, and its digest is
//! compared.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::entry::{Item, Packed, Packing, checked_path};
use crate::digest::{Digest, Hasher};

/// The least effort: what comes out must be packed sooner than it is sent.
const LEVEL: i32 = 1;
/// Zeros of this length become a hole; the store's copy of a disk should not take more room than the first one.
const HOLE: usize = 64 << 10;

/// What is in a result's directory, in ascending order of the paths. `None`: something that is not shared.
pub(super) fn list(directory: &Path) -> io::Result<Option<Vec<(String, PathBuf, bool)>>> {
    let mut found = Vec::new();
    let mut stack = vec![(String::new(), directory.to_owned())];
    while let Some((prefix, here)) = stack.pop() {
        for entry in fs::read_dir(&here)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { return Ok(None) };
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            if !(kind.is_dir() || kind.is_file()) || checked_path(&path).is_err() {
                return Ok(None);
            }
            if kind.is_dir() {
                stack.push((path.clone(), entry.path()));
            }
            found.push((path, entry.path(), kind.is_dir()));
        }
    }
    found.sort();
    Ok(Some(found))
}

/// Packs the file `from` into `scratch`, if that makes it smaller.
pub(super) fn pack(path: String, from: &Path, scratch: &Path) -> io::Result<Item> {
    let mut encoder = zstd::Encoder::new(Hashed::new(File::create(scratch)?), LEVEL)?;
    let mut whole = Hashed::new(io::sink());
    let mut file = File::open(from)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        whole.write_all(&buffer[..count])?;
        encoder.write_all(&buffer[..count])?;
    }
    let packed = encoder.finish()?;
    let (size, digest) = (whole.hasher.length(), whole.hasher.digest());
    let packed = match packed.hasher.length() < size {
        true => Packed { packing: Packing::Zstd, size: packed.hasher.length(), digest: packed.hasher.digest() },
        false => Packed { packing: Packing::Plain, size, digest },
    };
    Ok(Item::File { path, size, digest, packed })
}

/// Unpacks the object in `scratch`, whose digest was compared, into the new file `target`. `false`: it is not the
/// file of that size and digest.
pub(super) fn unpack(scratch: &Path, packing: Packing, target: &Path, expected: (u64, Digest)) -> io::Result<bool> {
    let object = File::open(scratch)?;
    let (size, digest) = expected;
    let mut reader: Box<dyn Read> = match packing {
        Packing::Plain => Box::new(object),
        Packing::Zstd => Box::new(zstd::Decoder::new(object)?),
    };
    let mut file = File::create_new(target)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; HOLE];
    loop {
        let count = fill(reader.as_mut(), &mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        if hasher.length() > size {
            return Ok(false);
        }
        match buffer[..count].iter().all(|byte| *byte == 0) {
            true => drop(file.seek(SeekFrom::Current(count as i64))?),
            false => file.write_all(&buffer[..count])?,
        }
    }
    file.set_len(hasher.length())?;
    Ok(hasher.length() == size && hasher.digest() == digest)
}

/// Reads until the buffer is full or nothing more comes.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Digests what is written.
struct Hashed<W> {
    inner: W,
    hasher: Hasher,
}

impl<W> Hashed<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::new() }
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(item: &Item, scratch: &Path, from: &Path, target: &Path, lie: u64) -> io::Result<bool> {
        let Item::File { size, digest, packed, .. } = item else { panic!() };
        let object = if packed.packing == Packing::Plain { from } else { scratch };
        unpack(object, packed.packing, target, (size - lie, *digest))
    }

    #[test]
    fn files_are_packed_where_that_helps_and_come_back_with_their_holes() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("zeros"), [vec![0; 1 << 20], b"end".to_vec()].concat()).unwrap();
        fs::write(at("dense"), Digest::of(b"").as_bytes()).unwrap();
        for (name, packing) in [("zeros", Packing::Zstd), ("dense", Packing::Plain)] {
            let item = pack(name.to_owned(), &at(name), &at("scratch")).unwrap();
            let Item::File { packed, .. } = &item else { panic!() };
            assert_eq!(packed.packing, packing);
            assert!(unpacked(&item, &at("scratch"), &at(name), &at("back"), 0).unwrap());
            assert_eq!(fs::read(at("back")).unwrap(), fs::read(at(name)).unwrap());
            assert!(fs::metadata(at("back")).unwrap().blocks() * 512 <= 128 << 10);
            fs::remove_file(at("back")).unwrap();
            assert!(!unpacked(&item, &at("scratch"), &at(name), &at("back"), 1).unwrap(), "a byte more than said");
            fs::remove_file(at("back")).unwrap();
        }
    }

    #[test]
    fn a_bomb_stops_where_the_entry_says() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("bomb"), zstd::encode_all(&vec![7; 64 << 20][..], 1).unwrap()).unwrap();
        assert!(!unpack(&at("bomb"), Packing::Zstd, &at("out"), (1000, Digest::of(b""))).unwrap());
        assert!(fs::metadata(at("out")).unwrap().len() <= 1000);
    }

    #[test]
    fn a_result_with_anything_but_files_and_directories_is_not_shared() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("b/c")).unwrap();
        fs::write(directory.path().join("b/c/d"), "x").unwrap();
        fs::write(directory.path().join("a"), "x").unwrap();
        let listed = list(directory.path()).unwrap().unwrap();
        assert_eq!(listed.iter().map(|(path, ..)| path.as_str()).collect::<Vec<_>>(), ["a", "b", "b/c", "b/c/d"]);
        std::os::unix::fs::symlink("a", directory.path().join("link")).unwrap();
        assert!(list(directory.path()).unwrap().is_none());
    }
}
