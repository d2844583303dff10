//! Where each inode goes in the metadata area.
//!
//! An inode starts at a multiple of 32 bytes. Data inlined behind it must lie within one block; nothing else is
//! bound to blocks. What a block has left when an inline tail does not fit is kept as a gap and given to the next
//! inode that fits it best.

use std::collections::BTreeSet;

use super::format::{BLOCK, SLOT};

/// Hands out places, as offsets from the start of the metadata area.
#[derive(Debug)]
pub struct Placement {
    end: u64,
    /// Size and offset of free space, each within one block.
    gaps: BTreeSet<(usize, u64)>,
}

impl Placement {
    /// An empty area whose first slot stays free: no file has node number 0.
    pub fn new() -> Self {
        Self { end: SLOT as u64, gaps: BTreeSet::new() }
    }

    /// A place for `base` bytes that may cross blocks, a multiple of 4, followed by `inline` bytes that may not, and
    /// [can](can_inline).
    pub fn place(&mut self, base: usize, inline: usize) -> u64 {
        let size = base + inline;
        if let Some(gap) = self.gaps.range((size, 0)..).next().copied() {
            self.gaps.remove(&gap);
            let (room, offset) = gap;
            self.keep(offset + size as u64, room - size);
            return offset;
        }
        let mut offset = self.end;
        while !fits_block(offset + base as u64, inline) {
            offset += SLOT as u64;
        }
        self.keep(self.end, (offset - self.end) as usize);
        self.end = (offset + size as u64).next_multiple_of(SLOT as u64);
        offset
    }

    /// Bytes of the area so far.
    pub fn size(&self) -> u64 {
        self.end
    }

    /// Remembers free space within a block, as far as an inode fits.
    fn keep(&mut self, offset: u64, room: usize) {
        let end = offset + room as u64;
        let mut start = offset.next_multiple_of(SLOT as u64);
        while start < end {
            let stop = (start + 1).next_multiple_of(BLOCK as u64).min(end);
            if (stop - start) as usize >= SLOT {
                self.gaps.insert(((stop - start) as usize, start));
            }
            start = stop;
        }
    }
}

fn fits_block(start: u64, length: usize) -> bool {
    start % BLOCK as u64 + length as u64 <= BLOCK as u64
}

/// Whether an inline tail of `inline` bytes can stand behind any inode: one starts at a multiple of 32 bytes, and its
/// attributes take a multiple of 4.
pub const fn can_inline(inline: usize) -> bool {
    SLOT - 4 + inline <= BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_tails_stay_within_a_block_and_places_do_not_overlap() {
        let mut placement = Placement::new();
        let mut taken: Vec<(u64, u64)> = Vec::new();
        let mut random = 1_u64;
        for _ in 0..3000 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let base = [32, 64, 64 + 20, 4096 + 44][(random >> 60) as usize % 4];
            let inline = (random >> 33) as usize % (BLOCK - 27);
            assert!(can_inline(inline));
            let offset = placement.place(base, inline);
            assert_eq!(offset % 32, 0);
            assert!(inline == 0 || fits_block(offset + base as u64, inline));
            taken.push((offset, offset + (base + inline) as u64));
        }
        taken.sort_unstable();
        assert!(taken[0].0 >= 32);
        assert!(taken.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        let used: u64 = taken.iter().map(|(start, end)| end - start).sum();
        assert!(placement.size() < used * 5 / 4, "{used} bytes took {}", placement.size());
    }
}
