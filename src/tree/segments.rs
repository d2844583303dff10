//! Bytes put together from pieces, without copying any of them: a disk from its partitions, a fragmented file from
//! its runs.

use std::io;

use super::{Content, ReadAt};

/// `size` bytes: pieces at their offsets, zeros between them.
#[derive(Debug, Clone)]
pub struct Segments {
    size: u64,
    /// Ascending, disjoint, within the size.
    pieces: Vec<(u64, Content)>,
}

impl Segments {
    /// `size` zeros.
    pub fn new(size: u64) -> Self {
        Self { size, pieces: Vec::new() }
    }

    /// Puts `content` at `offset`, which must not lie before the end of the piece before. `None` if it does, or if the
    /// piece ends beyond the size.
    pub fn push(&mut self, offset: u64, content: Content) -> Option<()> {
        let start = self.pieces.last().map_or(0, |(offset, content)| offset + content.size());
        let end = offset.checked_add(content.size())?;
        if offset < start || end > self.size {
            return None;
        }
        if content.size() > 0 {
            self.pieces.push((offset, content));
        }
        Some(())
    }

    /// The bytes as a [`Content`] that knows its holes.
    pub fn into_content(self) -> Content {
        let shift = |(offset, content): &(u64, Content)| {
            let offset = *offset;
            content.extents().into_iter().map(move |extent| extent.start + offset..extent.end + offset)
        };
        let extents: Vec<_> = self.pieces.iter().flat_map(shift).collect();
        Content::new(self.size, std::sync::Arc::new(self), 0).with_extents(extents)
    }
}

impl ReadAt for Segments {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.size);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.fill(0);
        let first = self.pieces.partition_point(|(start, content)| start + content.size() <= offset);
        for (start, content) in self.pieces[first..].iter().take_while(|(start, _)| *start < end) {
            let part = offset.max(*start)..end.min(start + content.size());
            let target = (part.start - offset) as usize..(part.end - offset) as usize;
            content.read_exact_at(&mut buffer[target], part.start - start)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_stand_at_their_offsets_with_zeros_between() {
        let mut segments = Segments::new(10);
        segments.push(1, Content::from_bytes("ab")).unwrap();
        segments.push(3, Content::from_bytes("c")).unwrap();
        segments.push(7, Content::from_bytes("d\0e")).unwrap();
        let content = segments.into_content();
        assert_eq!(content.to_vec().unwrap(), b"\0abc\0\0\0d\0e");
        assert_eq!(content.extents(), [1..3, 3..4, 7..10]);
        let mut part = [9; 5];
        content.read_exact_at(&mut part, 2).unwrap();
        assert_eq!(&part, b"bc\0\0\0");
    }

    #[test]
    fn refuses_pieces_that_overlap_or_do_not_fit() {
        let mut segments = Segments::new(4);
        segments.push(1, Content::from_bytes("ab")).unwrap();
        assert!(segments.push(2, Content::from_bytes("c")).is_none());
        assert!(segments.push(3, Content::from_bytes("cd")).is_none());
        assert!(segments.push(u64::MAX, Content::from_bytes("c")).is_none());
    }
}
