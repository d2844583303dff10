//! The outer archive of a package: `ar(5)`, common format, as `deb(5)` narrows it.
//!
//! ```text
//! "!<arch>\n"
//! header (60 bytes: name 16, date 12, uid 6, gid 6, mode 8, size 10 decimal, "`\n"), size bytes, "\n" if odd
//! ...
//! ```

use std::io::{self, Read};

const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER_LEN: usize = 60;

/// A header of the archive that is not one.
#[derive(Debug, thiserror::Error)]
pub enum ArError {
    /// The file could not be read, or ends within a header.
    #[error("cannot read the archive at offset {offset}")]
    Read {
        /// Where in the file.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file does not start as an archive does.
    #[error("not an ar archive: it does not start with \"!<arch>\"")]
    Magic,
    /// A member header is damaged.
    #[error("damaged member header at offset {offset}")]
    Header {
        /// Where in the file.
        offset: u64,
    },
}

/// One member: what its header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Without trailing blanks and slash.
    pub name: Vec<u8>,
    /// Bytes that follow.
    pub size: u64,
}

/// Reads an archive from its start to its end.
pub struct ArReader<R> {
    inner: R,
    offset: u64,
    /// Bytes of the current member not yet read, its padding included.
    left: u64,
    padding: u64,
}

impl<R: Read> ArReader<R> {
    /// Checks the magic.
    pub fn new(inner: R) -> Result<Self, ArError> {
        let mut reader = Self { inner, offset: 0, left: 0, padding: 0 };
        let mut magic = [0; 8];
        reader.fill(&mut magic)?;
        if &magic != MAGIC {
            return Err(ArError::Magic);
        }
        Ok(reader)
    }

    /// The next member, `None` after the last one. What was left of the one before is skipped.
    pub fn next_member(&mut self) -> Result<Option<Member>, ArError> {
        self.skip()?;
        let mut header = [0; HEADER_LEN];
        let offset = self.offset;
        let read = |source| ArError::Read { offset, source };
        match self.inner.read(&mut header[..1]).map_err(read)? {
            0 => return Ok(None),
            _ => self.offset += 1,
        }
        self.fill(&mut header[1..])?;
        let damaged = ArError::Header { offset };
        if &header[58..] != b"`\n" {
            return Err(damaged);
        }
        let size = std::str::from_utf8(&header[48..58]).ok().and_then(|text| text.trim_end().parse().ok());
        let Some(size) = size else { return Err(damaged) };
        let name = header[..16].trim_ascii_end();
        let name = name.strip_suffix(b"/").unwrap_or(name).to_vec();
        self.left = size;
        self.padding = size % 2;
        Ok(Some(Member { name, size }))
    }

    fn skip(&mut self) -> Result<(), ArError> {
        let count = self.left.saturating_add(self.padding);
        let offset = self.offset;
        let skipped = io::copy(&mut self.inner.by_ref().take(count), &mut io::sink())
            .map_err(|source| ArError::Read { offset, source })?;
        self.offset += skipped;
        // The padding of the last member may be missing; the member itself may not.
        if skipped < self.left {
            return Err(ArError::Read { offset: self.offset, source: io::ErrorKind::UnexpectedEof.into() });
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), ArError> {
        let offset = self.offset;
        self.inner.read_exact(buffer).map_err(|source| ArError::Read { offset, source })?;
        self.offset += buffer.len() as u64;
        Ok(())
    }
}

/// The bytes of the current member.
impl<R: Read> Read for ArReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = self.left.min(buffer.len() as u64) as usize;
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        self.offset += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (name, body) in [("odd/", "abc"), ("even", "abcd")] {
            bytes.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, body.len()).bytes());
            bytes.extend(body.bytes());
            bytes.extend(std::iter::repeat_n(b'\n', body.len() % 2));
        }
        bytes
    }

    #[test]
    fn reads_members_and_skips_what_was_not_read() {
        let bytes = archive();
        let mut reader = ArReader::new(bytes.as_slice()).unwrap();
        assert_eq!(reader.next_member().unwrap(), Some(Member { name: b"odd".to_vec(), size: 3 }));
        assert_eq!(reader.next_member().unwrap(), Some(Member { name: b"even".to_vec(), size: 4 }));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcd");
        assert_eq!(reader.next_member().unwrap(), None);
    }

    #[test]
    fn names_the_offset_of_what_is_wrong() {
        let bytes = archive();
        let mut cut = ArReader::new(&bytes[..100]).unwrap();
        cut.next_member().unwrap();
        assert!(matches!(cut.next_member(), Err(ArError::Read { offset: 73, .. })));
        let mut bad = bytes.clone();
        bad[8 + 48] = b'x';
        let mut reader = ArReader::new(bad.as_slice()).unwrap();
        assert!(matches!(reader.next_member(), Err(ArError::Header { offset: 8 })));
        assert!(matches!(ArReader::new(&b"!<arch>"[..]), Err(ArError::Read { offset: 0, .. })));
        assert!(matches!(ArReader::new(&b"PK\x03\x04....."[..]), Err(ArError::Magic)));
    }
}
