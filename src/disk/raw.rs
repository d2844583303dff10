//! A disk in a file, byte for byte, with holes where it is zero.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rayon::prelude::*;

use crate::tree::Content;

/// Bytes copied at once.
const CHUNK: u64 = 1024 * 1024;
/// The unit in which zeros are left out: the block size of common file systems.
const HOLE: usize = 4096;
const ZEROS: [u8; HOLE] = [0; HOLE];

/// Writes `content` to `file`, an empty file. What is zero, whether known to be or found to be, is not written.
pub fn write_sparse(content: &Content, file: &File) -> io::Result<()> {
    write_sparse_around(content, file, 0..0)
}

/// Writes `content` to `file`, which has nothing but the bytes of `there`, and those already.
pub fn write_sparse_around(content: &Content, file: &File, there: Range<u64>) -> io::Result<()> {
    file.set_len(content.size())?;
    let missing = |extent: Range<u64>| {
        let before = extent.start..extent.end.min(there.start);
        let behind = extent.start.max(there.end)..extent.end;
        let whole = [extent, 0..0];
        let parts = if there.is_empty() { whole } else { [before, behind] };
        parts.into_iter().filter(|part| part.start < part.end)
    };
    let pieces: Vec<(u64, u64)> = content
        .extents()
        .into_iter()
        .flat_map(missing)
        .flat_map(|extent| {
            // Cut at multiples of the chunk, so that a page of the file is written once.
            let first = extent.start - extent.start % CHUNK;
            let cuts = (first..extent.end).step_by(CHUNK as usize);
            cuts.map(move |cut| (cut.max(extent.start), (cut + CHUNK).min(extent.end)))
        })
        .collect();
    pieces.par_iter().try_for_each_init(Vec::new, |buffer, (start, end)| {
        buffer.resize((end - start) as usize, 0);
        content.read_exact_at(buffer, *start)?;
        write_data(file, buffer, *start)
    })
}

/// Writes the runs of blocks that are not zero.
fn write_data(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut run = 0..0;
    for (index, block) in bytes.chunks(HOLE).enumerate() {
        let start = index * HOLE;
        if *block == ZEROS[..block.len()] {
            file.write_all_at(&bytes[run.clone()], offset + run.start as u64)?;
            run = start + block.len()..start + block.len();
        } else {
            run.end = start + block.len();
        }
    }
    file.write_all_at(&bytes[run.clone()], offset + run.start as u64)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::sync::Arc;

    use super::*;
    use crate::tree::{ReadAt, Segments};

    #[test]
    fn zeros_take_no_room_and_the_bytes_are_the_same() {
        let mut data = vec![0u8; 5 << 20];
        data[3_000_000..3_000_010].fill(7);
        data[0] = 1;
        let mut segments = Segments::new(1 << 30);
        segments.push(12_345, Content::new(data.len() as u64, Arc::new(data), 0)).unwrap();
        segments.push((1 << 30) - 1, Content::from_bytes("e")).unwrap();
        let content = segments.into_content();
        let file = tempfile::NamedTempFile::new().unwrap();
        write_sparse(&content, file.as_file()).unwrap();
        // Again around a part that is there: what is there is not touched, all else is written.
        for there in [0..4096, 12_000..3_000_000, 4 << 20..1 << 30] {
            let around = tempfile::tempfile().unwrap();
            write_sparse_around(&content, &around, there.clone()).unwrap();
            let mut part = [9; 1];
            for at in [0, 12_345, 12_345 + 3_000_005, (1 << 30) - 1] {
                ReadAt::read_exact_at(&around, &mut part, at).unwrap();
                let mut expected = [0; 1];
                content.read_exact_at(&mut expected, at).unwrap();
                assert_eq!(part[0], if there.contains(&at) { 0 } else { expected[0] }, "{there:?} {at}");
            }
        }
        let written = crate::tree::Content::new(1 << 30, Arc::new(file.reopen().unwrap()), 0);
        assert_eq!(written.digest().unwrap(), content.digest().unwrap());
        assert!(file.as_file().metadata().unwrap().blocks() < 100);
    }
}
