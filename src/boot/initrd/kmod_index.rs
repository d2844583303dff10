//! The binary indexes of libkmod (`modules.dep.bin`, `modules.alias.bin`): what it reads when it looks up a module.
//! It does not fall back to the text files, so an initrd with modules needs these two.
//!
//! ```text
//! file   magic 0xB007F457 | version 0x00020001 | offset of the root node, with its flags
//! node   prefix, NUL                              if PREFIX: what all keys below have in common here
//!        first u8 | last u8 | (last-first+1) × u32  if CHILDREN: offsets with flags; 0 where there is none
//!        count u32 | count × (priority u32 | value, NUL)  if VALUES: of the key that ends here
//! ```
//!
//! All numbers are big-endian; the flags of a node stand in the upper four bits of its offset. Children stand before
//! their parents. Keys are ASCII. Source: kmod's `libkmod/libkmod-index.h`, the format's only description.

use std::collections::BTreeMap;

const MAGIC: u32 = 0xB007_F457;
const VERSION: u32 = 2 << 16 | 1;
const NODE_PREFIX: u32 = 0x8000_0000;
const NODE_VALUES: u32 = 0x4000_0000;
const NODE_CHILDREN: u32 = 0x2000_0000;

/// Key to its values, each with its priority (lower is asked first).
pub type Entries = BTreeMap<Vec<u8>, Vec<(u32, Vec<u8>)>>;

/// The index of `entries`, whose keys must be ASCII without NUL.
pub fn write(entries: &Entries) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [MAGIC, VERSION, 0] {
        bytes.extend(word.to_be_bytes());
    }
    let entries: Vec<_> = entries.iter().map(|(key, values)| (key.as_slice(), values.as_slice())).collect();
    let root = node(&entries, &mut bytes);
    bytes[8..12].copy_from_slice(&root.to_be_bytes());
    bytes
}

/// A key (what is left of it at this depth) with its values.
type Entry<'a> = (&'a [u8], &'a [(u32, Vec<u8>)]);

/// Writes the node that holds `entries` (in order of their keys), its children first. Gives its offset with flags.
fn node(entries: &[Entry<'_>], bytes: &mut Vec<u8>) -> u32 {
    let common = match (entries.first(), entries.last()) {
        (Some((first, _)), Some((last, _))) => first.iter().zip(*last).take_while(|(a, b)| a == b).count(),
        _ => 0,
    };
    let prefix = entries.first().map_or(&[][..], |(key, _)| &key[..common]);
    let values = entries.first().filter(|(key, _)| key.len() == common).map(|(_, values)| *values);
    let below = &entries[usize::from(values.is_some())..];
    let mut children = Vec::new();
    for group in below.chunk_by(|a, b| a.0[common] == b.0[common]) {
        let shorter: Vec<Entry<'_>> = group.iter().map(|(key, values)| (&key[common + 1..], *values)).collect();
        children.push((group[0].0[common], node(&shorter, bytes)));
    }
    let mut offset = bytes.len() as u32;
    if !prefix.is_empty() {
        offset |= NODE_PREFIX;
        bytes.extend(prefix);
        bytes.push(0);
    }
    if let (Some((first, _)), Some((last, _))) = (children.first(), children.last()) {
        offset |= NODE_CHILDREN;
        bytes.extend([*first, *last]);
        let mut children = children.iter().peekable();
        for byte in *first..=*last {
            let child = children.next_if(|(key, _)| *key == byte).map_or(0, |(_, offset)| *offset);
            bytes.extend(child.to_be_bytes());
        }
    }
    if let Some(values) = values {
        offset |= NODE_VALUES;
        bytes.extend((values.len() as u32).to_be_bytes());
        for (priority, value) in values {
            bytes.extend(priority.to_be_bytes());
            bytes.extend(value);
            bytes.push(0);
        }
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks `key` up as libkmod's `index_search` does.
    fn search(index: &[u8], key: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word = |at: usize| u32::from_be_bytes(index[at..at + 4].try_into().unwrap());
        let text = |at: usize| index[at..].split(|byte| *byte == 0).next().unwrap();
        let (mut offset, mut key) = (word(8), key);
        loop {
            let mut at = (offset & 0x0fff_ffff) as usize;
            if offset & NODE_PREFIX != 0 {
                let prefix = text(at);
                let Some(rest) = key.strip_prefix(prefix) else { return Vec::new() };
                (key, at) = (rest, at + prefix.len() + 1);
            }
            let mut next = 0;
            if offset & NODE_CHILDREN != 0 {
                let (first, last) = (index[at], index[at + 1]);
                if let Some(byte) = key.first().filter(|byte| (first..=last).contains(byte)) {
                    next = word(at + 2 + 4 * usize::from(byte - first));
                }
                at += 2 + 4 * (usize::from(last - first) + 1);
            }
            if key.is_empty() {
                if offset & NODE_VALUES == 0 {
                    return Vec::new();
                }
                let (count, mut at) = (word(at), at + 4);
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push((word(at), text(at + 4).to_vec()));
                    at += 5 + text(at + 4).len();
                }
                return values;
            }
            if next == 0 {
                return Vec::new();
            }
            (key, offset) = (&key[1..], next);
        }
    }

    #[test]
    fn finds_each_key_and_no_other() {
        let mut entries = Entries::new();
        for key in ["erofs", "ero", "ext4", "e", "virtio:d00000002v*", "virtio:d00000008v*"] {
            entries.insert(key.into(), vec![(1, format!("{key} value").into_bytes()), (7, b"second".to_vec())]);
        }
        let index = write(&entries);
        for (key, values) in &entries {
            assert_eq!(&search(&index, key), values, "{}", String::from_utf8_lossy(key));
        }
        for key in ["", "er", "erofsx", "virtio:d0000000", "x"] {
            assert_eq!(search(&index, key.as_bytes()), [], "{key}");
        }
    }

    #[test]
    fn an_empty_index_is_one_empty_node() {
        assert_eq!(write(&Entries::new()), [0xB0, 0x07, 0xF4, 0x57, 0, 2, 0, 1, 0, 0, 0, 12]);
    }
}
