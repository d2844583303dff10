//! The packed inode: small files, one after the other, in groups that are compressed apart.
//!
//! ```text
//! │ a │ b │ c │ ... │ 0 │ d │ e │ ...          │ 0 │ f ...
//! └ group, to a block ──┘ └ group ─────────────────┘
//! ```
//!
//! Where a group ends is said by the digests of the files in it, not by where it stands: when a file changes, is added
//! or goes, the groups around it change and all others are compressed to what they were before.

use std::io;
use std::ops::Range;

use super::clusters::File;
use super::data::Placed;
use crate::digest::{Digest, Hasher};
use crate::filesystem::erofs::format::BLOCK;
use crate::tree::{Content, NodeId, ReadAt};

/// Bytes of small files that stay in memory until they are packed, so that they are read once. Others are read again.
const KEPT: u64 = 64 << 20;
/// No group but the last is smaller. The end of a group wastes about half a block, and the last cluster of a group
/// compresses a little worse: of half a megabyte that is less than 1 %.
const GROUP_MIN: u64 = 512 * 1024;
/// No group is larger, so that a changed file never costs more than a few hundredths of a second.
const GROUP_MAX: u64 = 2 << 20;
/// Behind a file whose digest starts with a byte below this, a group of at least the smallest size ends: with files
/// of some kilobytes, groups are a megabyte on the average.
const GROUP_ENDS: u8 = 4;

/// A small file in the packed inode.
struct Part {
    id: Option<NodeId>,
    range: Range<u64>,
    content: Content,
    digest: Digest,
}

/// The packed inode in the making.
#[derive(Default)]
pub struct Pack {
    parts: Vec<Part>,
    /// Where groups start, and the digest of the files in each and where in it they are.
    groups: Vec<(u64, Hasher)>,
    size: u64,
}

impl Pack {
    /// Adds a file, with its bytes if they were read.
    pub fn add(&mut self, file: &File<'_>, bytes: Option<Vec<u8>>, digest: Digest) -> Placed {
        let content = file.content;
        if self.ends_before(content.size()) {
            self.size = self.size.next_multiple_of(BLOCK as u64);
            self.groups.push((self.size, Hasher::new()));
        }
        let offset = self.size;
        let content = match bytes {
            Some(bytes) if offset < KEPT => Content::from_bytes(bytes),
            _ => content.clone(),
        };
        self.size += content.size();
        if let Some((start, hasher)) = self.groups.last_mut() {
            for number in [offset - *start, content.size()] {
                hasher.update(&number.to_le_bytes());
            }
            hasher.update(digest.as_bytes());
        }
        self.parts.push(Part { id: file.id, range: offset..self.size, content, digest });
        Placed::Fragment(offset)
    }

    /// Whether the group at hand ends before a file of `size` bytes.
    fn ends_before(&self, size: u64) -> bool {
        let (Some((start, _)), Some(last)) = (self.groups.last(), self.parts.last()) else { return true };
        let length = self.size - start;
        length + size > GROUP_MAX || (length >= GROUP_MIN && last.digest.as_bytes()[0] < GROUP_ENDS)
    }

    /// Bytes of all files and what is between groups.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The groups, each with a digest that stands for its bytes.
    pub fn groups(&self) -> Vec<(Range<u64>, Digest)> {
        let ends = self.groups.iter().skip(1).map(|(start, _)| *start).chain([self.size]);
        self.groups.iter().zip(ends).map(|((start, hasher), end)| (*start..end, hasher.digest())).collect()
    }

    /// The first file of a group whose bytes are not those of its digest.
    pub fn damaged(&self, group: &Range<u64>, bytes: &[u8]) -> Option<NodeId> {
        let first = self.parts.partition_point(|part| part.range.end <= group.start);
        let mut parts = self.parts[first..].iter().take_while(|part| part.range.end <= group.end);
        let damaged = parts.find(|part| {
            let range = (part.range.start - group.start) as usize..(part.range.end - group.start) as usize;
            Digest::of(&bytes[range]) != part.digest
        });
        damaged.and_then(|part| part.id)
    }
}

impl ReadAt for Pack {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let wanted = offset..offset + buffer.len() as u64;
        if wanted.end > self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.fill(0);
        let first = self.parts.partition_point(|part| part.range.end <= wanted.start);
        for part in self.parts[first..].iter().take_while(|part| part.range.start < wanted.end) {
            let range = part.range.start.max(wanted.start)..part.range.end.min(wanted.end);
            let target = (range.start - offset) as usize..(range.end - offset) as usize;
            part.content.read_exact_at(&mut buffer[target], range.start - part.range.start)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of about two kilobytes; the text of file `changed` is another one and longer.
    fn pack(count: usize, changed: Option<usize>) -> Pack {
        let mut pack = Pack::default();
        for number in 0..count {
            let text =
                format!("file {number} ").repeat(150 + number % 100 + if changed == Some(number) { 7 } else { 0 });
            let digest = Digest::of(text.as_bytes());
            let content = Content::from_bytes(text.clone());
            let file = File { item: number, id: Some(NodeId::ROOT), content: &content, small: true, pack: None };
            pack.add(&file, (number % 2 == 0).then(|| text.into()), digest);
        }
        pack
    }

    #[test]
    fn groups_start_at_blocks_and_read_as_their_files_with_zeros_between() {
        let pack = pack(3000, None);
        let groups = pack.groups();
        assert!(groups.len() > 3, "{groups:?}");
        assert_eq!((groups[0].0.start, groups[groups.len() - 1].0.end), (0, pack.size()));
        assert!(groups.windows(2).all(|pair| pair[0].0.end == pair[1].0.start));
        for (group, _) in &groups {
            assert_eq!(group.start % BLOCK as u64, 0);
            assert!(group.end - group.start <= GROUP_MAX + BLOCK as u64);
            let mut bytes = vec![9; (group.end - group.start) as usize];
            pack.read_exact_at(&mut bytes, group.start).unwrap();
            assert_eq!(pack.damaged(group, &bytes), None);
            bytes[0] ^= 1;
            assert_eq!(pack.damaged(group, &bytes), Some(NodeId::ROOT));
        }
        assert!(pack.read_exact_at(&mut [0; 2], pack.size() - 1).is_err());
    }

    #[test]
    fn a_changed_file_changes_few_groups() {
        let digests = |changed| pack(6000, changed).groups().into_iter().map(|(_, digest)| digest).collect::<Vec<_>>();
        let before = digests(None);
        assert!(before.len() > 8);
        for changed in [0, 1234, 3000, 5999] {
            let new = digests(Some(changed)).iter().filter(|digest| !before.contains(digest)).count();
            assert!((1..=3).contains(&new), "file {changed}: {new} of {} groups are new", before.len());
        }
    }
}
