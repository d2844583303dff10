//! Directory blocks: names to node numbers.
//!
//! ```text
//! one block:  ┌ 12 B: nid 8, name offset 2, type 1, 0 ┬ ... ┬ name ┬ name ┬ ... ┬ zeros ┐
//! ```
//!
//! Entries are in byte order, `.` and `..` among them, across all blocks, so that Linux finds a name by bisection.
//! A block's first name offset tells how many entries it has. A block is full when the next entry does not fit;
//! the last block ends with its last name.

use std::ops::Range;

use super::format::{BLOCK, DIRENT};

/// One name of a directory that is being written.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a, T> {
    /// The name.
    pub name: &'a [u8],
    /// What it names: something that becomes a node number once those are known.
    pub target: T,
}

/// The entries of a directory in their order on disk.
pub fn entries<'a, T: Copy>(names: impl Iterator<Item = (&'a [u8], T)>, own: T, parent: T) -> Vec<Entry<'a, T>> {
    let dots = [(&b"."[..], own), (&b".."[..], parent)];
    let mut entries: Vec<_> = dots.into_iter().chain(names).map(|(name, target)| Entry { name, target }).collect();
    entries.sort_by(|a, b| a.name.cmp(b.name));
    entries
}

/// Which entries share a block, and how many bytes they take.
fn blocks<T>(entries: &[Entry<'_, T>]) -> Vec<(Range<usize>, usize)> {
    let mut blocks = Vec::new();
    let (mut start, mut used) = (0, 0);
    for (number, entry) in entries.iter().enumerate() {
        let size = DIRENT + entry.name.len();
        if used + size > BLOCK {
            blocks.push((start..number, used));
            (start, used) = (number, 0);
        }
        used += size;
    }
    blocks.push((start..entries.len(), used));
    blocks
}

/// Size of the directory in bytes.
pub fn size<T>(entries: &[Entry<'_, T>]) -> usize {
    let blocks = blocks(entries);
    let last = blocks.last().map_or(0, |(_, used)| *used);
    (blocks.len() - 1) * BLOCK + last
}

/// The directory's bytes; `resolve` gives node number and file type of a target.
pub fn encode<T: Copy>(entries: &[Entry<'_, T>], resolve: impl Fn(T) -> (u64, u8)) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (range, _) in blocks(entries) {
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        let mut name_offset = range.len() * DIRENT;
        for entry in &entries[range.clone()] {
            let (nid, file_type) = resolve(entry.target);
            bytes.extend_from_slice(&nid.to_le_bytes());
            bytes.extend_from_slice(&(name_offset as u16).to_le_bytes());
            bytes.extend_from_slice(&[file_type, 0]);
            name_offset += entry.name.len();
        }
        for entry in &entries[range] {
            bytes.extend_from_slice(entry.name);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_stand_among_the_names_in_byte_order() {
        let names = [(&b"!first"[..], 3), (b".a", 4), (b"b", 5)];
        let entries = entries(names.into_iter(), 1, 2);
        let order: Vec<_> = entries.iter().map(|entry| entry.name).collect();
        assert_eq!(order, [&b"!first"[..], b".", b"..", b".a", b"b"]);
        let bytes = encode(&entries, |nid| (nid, 1));
        assert_eq!(bytes.len(), size(&entries));
        assert_eq!(bytes.len(), 5 * DIRENT + 6 + 1 + 2 + 2 + 1);
        assert_eq!(&bytes[60..], b"!first....ab");
    }

    #[test]
    fn no_entry_crosses_a_block() {
        let names: Vec<Vec<u8>> = (0..100).map(|n| format!("{n:0200}").into_bytes()).collect();
        let entries = entries(names.iter().map(|name| (name.as_slice(), 9)), 1, 2);
        let bytes = encode(&entries, |nid| (nid, 1));
        // 19 names of 200 bytes fit in a block; the first also holds the dots' 27 bytes.
        assert_eq!(bytes.len(), size(&entries));
        assert_eq!(bytes.len(), 5 * BLOCK + 212 * (100 - 5 * 19));
    }
}
