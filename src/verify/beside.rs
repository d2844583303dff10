//! The files beside a disk image: manifest, UKI, list of digests.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::failure::{Failure, Problem};
use super::parts::Parts;
use crate::digest::Digest;
use crate::manifest::{CHECKSUMS_FILE_NAME, FILE_NAME, Manifest, file_stem, parse_checksums};
use crate::tree::Content;

/// Longest manifest that is read: a million files.
const MANIFEST_MAX: u64 = 512 * 1024 * 1024;
/// Longest list of digests that is read; ours has three lines.
const CHECKSUMS_MAX: u64 = 64 * 1024;

fn failure(file: &Path, offset: u64, problem: Problem) -> Failure {
    Failure { file: file.to_owned(), offset, problem }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let refuse = |source| failure(path, 0, Problem::Read(source));
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).map_err(refuse)?;
    if bytes.len() as u64 > limit {
        return Err(refuse(std::io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

/// Reads `manifest.json`.
pub(crate) fn read_manifest(path: &Path) -> Result<Manifest, Failure> {
    let text = read(path, MANIFEST_MAX)?;
    Manifest::parse(&text).map_err(|error| failure(path, error.offset(), Problem::Manifest(error)))
}

/// The name of the disk image: the one that follows from the manifest, and the one in it, which must be equal. So no
/// manifest leads out of its directory.
pub fn file_name(manifest: &Manifest) -> Result<String, Failure> {
    let stem = file_stem(&manifest.name, &manifest.version, manifest.architecture);
    for (extension, found) in [("raw", &manifest.disk.file), ("efi", &manifest.uki.file)] {
        let expected = format!("{stem}.{extension}");
        if *found != expected || expected.contains('/') {
            let problem = Problem::FileName { expected, found: found.clone() };
            return Err(failure(Path::new(FILE_NAME), 0, problem));
        }
    }
    Ok(manifest.disk.file.clone())
}

/// The UKI beside the image is the one on it, and the list of digests is right.
pub(super) fn check(manifest: &Manifest, parts: &Parts, directory: &Path) -> Result<(), Failure> {
    let uki = directory.join(&manifest.uki.file);
    let file = File::open(&uki).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (size, file) = file.map_err(|source| failure(&uki, 0, Problem::Read(source)))?;
    let content = Content::new(size, Arc::new(file), 0);
    match first_difference(&content, &parts.uki_content) {
        Ok(None) => {}
        Ok(Some(offset)) => return Err(failure(&uki, offset, Problem::UkiCopy)),
        Err(source) => return Err(failure(&uki, 0, Problem::Read(source))),
    }
    check_checksums(manifest, &directory.join(CHECKSUMS_FILE_NAME))
}

/// The digests in the list are those of the manifest, which were compared with the bytes, and that of the manifest.
fn check_checksums(manifest: &Manifest, path: &Path) -> Result<(), Failure> {
    let text = read(path, CHECKSUMS_MAX)?;
    let said = parse_checksums(&text).map_err(|error| failure(path, error.offset, Problem::Checksums(error)))?;
    let mut expected = vec![
        (FILE_NAME.to_owned(), manifest.digest()),
        (manifest.disk.file.clone(), manifest.disk.sha256),
        (manifest.uki.file.clone(), manifest.uki.sha256),
    ];
    expected.sort();
    let names = |list: &[(String, Digest)]| list.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let list: Vec<_> = said.iter().map(|(name, digest, _)| (name.clone(), *digest)).collect();
    if names(&list) != names(&expected) {
        let problem = Problem::ChecksumFiles { expected: names(&expected), found: names(&list) };
        return Err(failure(path, 0, problem));
    }
    for ((file, found), (_, said, offset)) in expected.into_iter().zip(said) {
        if found != said {
            return Err(failure(path, offset, Problem::Checksum { file: file.into(), found, said }));
        }
    }
    Ok(())
}

/// The first byte in which two contents differ; the end of the shorter one if it is the start of the other.
pub(super) fn first_difference(one: &Content, other: &Content) -> std::io::Result<Option<u64>> {
    let common = one.size().min(other.size());
    let mut buffers = [Vec::new(), Vec::new()];
    let mut offset = 0;
    while offset < common {
        for (buffer, content) in buffers.iter_mut().zip([one, other]) {
            buffer.resize((common - offset).min(1 << 20) as usize, 0);
            content.read_exact_at(buffer, offset)?;
        }
        if buffers[0] != buffers[1] {
            let position = buffers[0].iter().zip(&buffers[1]).position(|(a, b)| a != b).unwrap_or(0);
            return Ok(Some(offset + position as u64));
        }
        offset += buffers[0].len() as u64;
    }
    Ok((one.size() != other.size()).then_some(common))
}
