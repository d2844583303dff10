//! Files that are mostly holes: chunks, of which those without data take no room.

use std::io::Write;
use std::ops::Range;

use super::data::Placed;
use super::survey::path_of;
use super::{Sink, WriteError};
use crate::filesystem::erofs::format::{BLOCK, NULL_BLOCK};
use crate::tree::{Content, NodeId, Tree};

/// A copy goes through memory in pieces of at most this many bytes.
const COPY: u64 = 1 << 20;

/// Writes a file's data extents as chunks, of the size that makes data and chunk table smallest.
pub fn write<W: Write>(
    tree: &Tree,
    id: NodeId,
    content: &Content,
    sink: &mut Sink<'_, W>,
) -> Result<Placed, WriteError> {
    let (size, extents) = (content.size(), content.extents());
    let bits = (0..=31).min_by_key(|bits| chunked_size(&extents, size, *bits)).unwrap_or(0);
    let chunk = (BLOCK as u64) << bits;
    let mut table = vec![NULL_BLOCK; size.div_ceil(chunk) as usize];
    for number in chunks_of(&extents, chunk) {
        let (mut start, end) = (number * chunk, size.min((number + 1) * chunk));
        table[number as usize] = sink.next;
        while start < end {
            let mut bytes = vec![0; (end - start).min(COPY) as usize];
            content
                .read_exact_at(&mut bytes, start)
                .map_err(|source| WriteError::Read { path: path_of(tree, id), source })?;
            sink.append(&bytes)?;
            start += bytes.len() as u64;
        }
    }
    Ok(Placed::Chunks(bits, table.into()))
}

/// The chunks that hold data, ascending.
fn chunks_of(extents: &[Range<u64>], chunk: u64) -> impl Iterator<Item = u64> {
    let mut next = 0;
    extents.iter().flat_map(move |extent| {
        let range = (extent.start / chunk).max(next)..extent.end.div_ceil(chunk);
        next = range.end.max(next);
        range
    })
}

/// Bytes of data and table with chunks of `1 << bits` blocks.
fn chunked_size(extents: &[Range<u64>], size: u64, bits: u32) -> u64 {
    let chunk = (BLOCK as u64) << bits;
    let mut next = 0;
    let mut data = 0;
    for extent in extents {
        let (first, end) = ((extent.start / chunk).max(next), extent.end.div_ceil(chunk));
        data += end.saturating_sub(first) * chunk;
        next = end;
    }
    data.saturating_add(4 * size.div_ceil(chunk))
}
