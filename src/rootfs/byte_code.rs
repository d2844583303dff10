//! Python's compiled modules go with their sources, whose times may have been clamped.
//!
//! In: a `.pyc` file, and the time that its source has now. Out: the same with that time, if it goes by times at all.
//! PEP 552 is the format: four bytes that name the version of Python, a word of flags (0: what follows is the source's
//! time and size), the low 32 bits of the source's time, the low 32 bits of its size; then the code. A time that is not
//! the source's makes Python compile the module at every start, for where it cannot write it cannot keep the result.

/// Little-endian words: version, flags, time, size.
const HEADER: usize = 16;

/// The byte code with the source's time changed from `old` to `new`, in seconds; `None` if it does not have the old one.
pub(super) fn with_time(bytes: &[u8], old: i64, new: i64) -> Option<Vec<u8>> {
    let header = bytes.get(..HEADER)?;
    let goes_by_time = header[4..8] == [0; 4];
    if !goes_by_time || header[8..12] != word(old) {
        return None;
    }
    let mut changed = bytes.to_vec();
    changed[8..12].copy_from_slice(&word(new));
    Some(changed)
}

/// PEP 552 keeps 32 bits.
fn word(seconds: i64) -> [u8; 4] {
    (seconds as u32).to_le_bytes()
}

/// Where the byte code of the source at `path` lies: `a/__pycache__/b.` before a tag of the Python that made it, for
/// `a/b.py`.
pub(super) fn prefix(path: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (directory, name) = crate::tree::split(path)?;
    let stem = name.strip_suffix(b".py")?;
    Some(([directory, b"__pycache__"].concat(), [stem, b"."].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn byte_code(flags: u32, time: u32) -> Vec<u8> {
        let words = [0x0a0d_0df3_u32, flags, time, 5].map(u32::to_le_bytes);
        [words.as_flattened(), b"code"].concat()
    }

    #[test]
    fn the_time_of_the_source_is_replaced() {
        assert_eq!(with_time(&byte_code(0, 2_000), 2_000, 1_000), Some(byte_code(0, 1_000)));
    }

    #[test]
    fn byte_code_of_another_source_or_by_hash_or_cut_off_is_left_alone() {
        assert_eq!(with_time(&byte_code(0, 2_001), 2_000, 1_000), None);
        assert_eq!(with_time(&byte_code(1, 2_000), 2_000, 1_000), None);
        assert_eq!(with_time(&byte_code(0, 2_000)[..15], 2_000, 1_000), None);
    }

    #[test]
    fn byte_code_lies_below_its_source() {
        assert_eq!(prefix(b"usr/a.b.py"), Some((b"usr/__pycache__".to_vec(), b"a.b.".to_vec())));
        assert_eq!(prefix(b"usr/a.so"), None);
    }
}
