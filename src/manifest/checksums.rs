//! `SHA256SUMS`: the files beside an image with their digests, as `sha256sum --check` reads it.

use crate::digest::Digest;

/// A text that is no list of digests.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not a SHA-256 digest, two spaces and a file name")]
pub struct ChecksumsError {
    /// Which line, counted from 1.
    pub line: usize,
    /// Where it starts, in bytes.
    pub offset: u64,
}

/// The text for `files`, names with their digests, in the order of the names.
pub fn checksums(files: &[(String, Digest)]) -> String {
    let mut lines: Vec<_> = files.iter().map(|(name, digest)| (name, format!("{digest}  {name}\n"))).collect();
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect()
}

/// Names, digests, and where in the text each line starts.
pub fn parse_checksums(text: &[u8]) -> Result<Vec<(String, Digest, u64)>, ChecksumsError> {
    let mut files = Vec::new();
    let mut offset = 0;
    for (index, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let refuse = || ChecksumsError { line: index + 1, offset };
        let line_text = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok()).ok_or_else(refuse)?;
        let (digest, name) = line_text.split_once("  ").ok_or_else(refuse)?;
        files.push((name.to_owned(), digest.parse().map_err(|_| refuse())?, offset));
        offset += line.len() as u64;
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_back_with_their_places() {
        let digest = Digest::of(b"");
        let text = checksums(&[("b".into(), digest), ("a c".into(), digest)]);
        assert_eq!(text, format!("{digest}  a c\n{digest}  b\n"));
        let expected = vec![("a c".to_owned(), digest, 0), ("b".to_owned(), digest, 70)];
        assert_eq!(parse_checksums(text.as_bytes()), Ok(expected));
    }

    #[test]
    fn names_the_line_that_is_none() {
        let digest = Digest::of(b"");
        for wrong in ["x", "abc  b\n", &format!("{digest} b\n"), &format!("{digest}  b")] {
            let text = format!("{digest}  a\n{wrong}");
            assert_eq!(parse_checksums(text.as_bytes()), Err(ChecksumsError { line: 2, offset: 68 }), "{wrong}");
        }
    }
}
