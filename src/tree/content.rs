//! The bytes of a regular file, wherever they lie.
//!
//! A [`Content`] knows its size, which parts of it are data and which are holes, and where to read; it does not
//! hold the bytes unless they are small. So a tree of gigabytes costs memory by its number of files only.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::digest::Digest;

/// Something that can be read at any offset, from several threads at once.
pub trait ReadAt: Send + Sync {
    /// Fills `buffer` with the bytes at `offset`; a source that ends before is an error of kind `UnexpectedEof`.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buffer.len());
        match end.and_then(|end| self.get(start..end)) {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        ReadAt::read_exact_at(self.as_slice(), buffer, offset)
    }
}

/// A file that is opened for each read: trees have more files than a process may hold open.
#[derive(Debug, Clone)]
pub struct FileAt(pub PathBuf);

impl ReadAt for FileAt {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(&File::open(&self.0)?, buffer, offset)
    }
}

/// The bytes of a regular file: `size` bytes, of which those outside `extents` are zero.
#[derive(Clone)]
pub struct Content {
    size: u64,
    /// Data in ascending, disjoint, non-empty ranges of the file; `None`: all of it is data.
    extents: Option<Arc<[Range<u64>]>>,
    source: Arc<dyn ReadAt>,
    /// Where the file's byte 0 lies in `source`.
    offset: u64,
    digest: Option<Digest>,
}

impl Content {
    /// Content held in memory.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes: Vec<u8> = bytes.into();
        Self::new(bytes.len() as u64, Arc::new(bytes), 0)
    }

    /// `size` bytes that stand at `offset` in `source`.
    pub fn new(size: u64, source: Arc<dyn ReadAt>, offset: u64) -> Self {
        Self { size, extents: None, source, offset, digest: None }
    }

    /// The same content, of which only `extents` (ascending, disjoint, non-empty, within the size) are data. Holes
    /// read as zero and are never asked of the source.
    pub fn with_extents(mut self, extents: impl Into<Arc<[Range<u64>]>>) -> Self {
        let extents = extents.into();
        debug_assert!(extents.iter().all(|e| e.start < e.end && e.end <= self.size));
        debug_assert!(extents.windows(2).all(|pair| pair[0].end <= pair[1].start));
        self.extents = Some(extents);
        self
    }

    /// The same content, whose SHA-256 (of all `size` bytes, holes as zeros) is known already.
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// Size in bytes, holes included.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The SHA-256 of all bytes, if it is known without reading them.
    pub fn known_digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The SHA-256 of all bytes; reads them unless it is known.
    pub fn digest(&self) -> io::Result<Digest> {
        match self.digest {
            Some(digest) => Ok(digest),
            None => Ok(Digest::of_reader(&mut self.reader())?.0),
        }
    }

    /// The ranges that are data, ascending and disjoint; all else reads as zero.
    pub fn extents(&self) -> Vec<Range<u64>> {
        match &self.extents {
            Some(extents) => extents.to_vec(),
            None if self.size == 0 => Vec::new(),
            None => std::iter::once(0..self.size).collect(),
        }
    }

    /// Fills `buffer` with the bytes at `offset`; beyond the size is an error of kind `UnexpectedEof`.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(extents) = &self.extents else {
            return self.source.read_exact_at(buffer, self.offset + offset);
        };
        buffer.fill(0);
        let wanted = offset..offset + buffer.len() as u64;
        let first = extents.partition_point(|extent| extent.end <= wanted.start);
        for extent in extents[first..].iter().take_while(|extent| extent.start < wanted.end) {
            let part = extent.start.max(wanted.start)..extent.end.min(wanted.end);
            let target = (part.start - offset) as usize..(part.end - offset) as usize;
            self.source.read_exact_at(&mut buffer[target], self.offset + part.start)?;
        }
        Ok(())
    }

    /// All bytes, in memory: for files known to be small.
    pub fn to_vec(&self) -> io::Result<Vec<u8>> {
        let size = usize::try_from(self.size).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut bytes = vec![0; size];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// A sequential reader over all bytes.
    pub fn reader(&self) -> ContentReader<'_> {
        ContentReader { content: self, position: 0 }
    }
}

/// A content is itself something to read from: a window of its source.
impl ReadAt for Content {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content")
            .field("size", &self.size)
            .field("extents", &self.extents)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

const ZEROS: [u8; 4096] = [0; 4096];

/// Where the first byte of `range` is that is not zero. Holes are not read.
pub fn first_nonzero(content: &Content, range: Range<u64>) -> io::Result<Option<u64>> {
    let mut buffer = Vec::new();
    for extent in content.extents() {
        let (mut offset, end) = (extent.start.max(range.start), extent.end.min(range.end));
        while offset < end {
            buffer.resize((end - offset).min(1 << 20) as usize, 0);
            content.read_exact_at(&mut buffer, offset)?;
            // Slices compare at memory speed, which matters for gigabytes of free space.
            let dirty = buffer.chunks(ZEROS.len()).position(|chunk| *chunk != ZEROS[..chunk.len()]);
            if let Some(chunk) = dirty {
                let start = chunk * ZEROS.len();
                let position = buffer[start..].iter().position(|byte| *byte != 0).unwrap_or(0);
                return Ok(Some(offset + (start + position) as u64));
            }
            offset += buffer.len() as u64;
        }
    }
    if range.end > content.size() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(None) }
}

/// Reads a [`Content`] from its first byte to its last.
pub struct ContentReader<'a> {
    content: &'a Content,
    position: u64,
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.content.size - self.position;
        let count = left.min(buffer.len() as u64) as usize;
        self.content.read_exact_at(&mut buffer[..count], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_read_as_zeros_whatever_the_source_holds_there() {
        let source: Arc<dyn ReadAt> = Arc::new(b"abcdefgh".to_vec());
        let content = Content::new(8, source, 0).with_extents([1..2, 4..6]);
        assert_eq!(content.to_vec().unwrap(), b"\0b\0\0ef\0\0");
        let mut part = [9; 3];
        content.read_exact_at(&mut part, 3).unwrap();
        assert_eq!(&part, b"\0ef");
    }

    #[test]
    fn refuses_to_read_beyond_its_size() {
        let content = Content::new(2, Arc::new(b"abcd".to_vec()), 0);
        let error = content.read_exact_at(&mut [0; 2], 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn digests_holes_as_zeros() {
        let content =
            Content::new(4, Arc::new(b"abcd".to_vec()), 0).with_extents(std::iter::once(0..1).collect::<Vec<_>>());
        assert_eq!(content.digest().unwrap(), Digest::of(b"a\0\0\0"));
    }
}
