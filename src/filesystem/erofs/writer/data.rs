//! The contents of regular files: compressed by all workers, written in tree order.
//!
//! ```text
//! file ──┬─ empty ──────────────────────────> nothing
//!        ├─ mostly holes ───────────────────> chunks
//!        ├─ same content as a file before ──> its data again
//!        ├─ small and compressible ─────────> packed inode
//!        └─ else: segments ─────────────────> clusters; blocks as they are if none could be compressed
//! ```

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use super::clusters::{self, File, Written};
use super::pack::Pack;
use super::survey::{Survey, path_of};
use super::{Job, Sink, WriteError, chunks};
use crate::digest::Digest;
use crate::filesystem::erofs::index::Extent;
use crate::filesystem::erofs::parallel::in_order;
use crate::filesystem::erofs::{Compression, Options};
use crate::tree::{Content, Kind, Tree};

/// Where a file's bytes went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// It has none.
    Empty,
    /// Blocks one after the other from here; whether the last, incomplete one is to stand behind the inode.
    Flat {
        /// First block.
        block: u32,
        /// Whether the last `size % 4096` bytes were left out.
        inline: bool,
    },
    /// At this offset of the packed inode.
    Fragment(u64),
    /// In clusters.
    Extents(Arc<[Extent]>),
    /// In chunks: log2 of their size in blocks, and the first block of each.
    Chunks(u32, Arc<[u32]>),
}

/// Where all files' bytes went.
#[derive(Debug)]
pub struct Data {
    /// By item; `None` for what is no regular file.
    pub placed: Vec<Option<Placed>>,
    /// The packed inode's size and place, if there is one.
    pub packed: Option<(u64, Placed)>,
    /// Bytes of all regular files.
    pub content: u64,
    /// Bytes of files whose content another file has too.
    pub duplicates: u64,
}

impl Data {
    /// Bytes of small files that were compressed together.
    pub fn packed_size(&self) -> u64 {
        self.packed.as_ref().map_or(0, |(size, _)| *size)
    }
}

/// Writes the contents of all regular files.
pub fn write<W: Write>(job: &Job<'_>, survey: &Survey<'_>, sink: &mut Sink<'_, W>) -> Result<Data, WriteError> {
    let (tree, options) = (job.tree, job.options);
    let mut data = Data { placed: vec![None; survey.items.len()], packed: None, content: 0, duplicates: 0 };
    let (mut files, mut sparse) = (Vec::new(), Vec::new());
    for (item, survey) in survey.items.iter().enumerate() {
        let Kind::File(content) = &tree.node(survey.id).kind else { continue };
        data.content += content.size();
        if content.size() == 0 {
            data.placed[item] = Some(Placed::Empty);
        } else if is_sparse(content, options) {
            sparse.push((item, content));
        } else {
            let small = options.compression != Compression::None && content.size() <= options.packed_max as u64;
            files.push(File { item, id: Some(survey.id), content, small, pack: None });
        }
    }
    let mut originals = large_originals(tree, &files, options)?;
    files.retain(|file| !originals.contains_key(&file.item));
    let mut pack = Pack::default();
    clusters::write(job, &files, sink, |file, written| match written {
        Written::Placed(placed) => data.placed[file.item] = Some(placed),
        Written::Duplicate(original) => {
            originals.insert(file.item, original);
        }
        Written::Small { bytes, digest } => data.placed[file.item] = Some(pack.add(file, bytes, digest)),
    })?;
    write_pack(job, pack, sink, &mut data)?;
    for (item, content) in sparse {
        data.placed[item] = Some(chunks::write(tree, survey.items[item].id, content, sink)?);
    }
    for (item, original) in originals {
        data.duplicates += survey.items[item].inode.size;
        data.placed[item] = data.placed[original].clone();
    }
    Ok(data)
}

/// Holes cost nothing in chunks, but chunks are not compressed: where data prevails, zeros are compressed away.
fn is_sparse(content: &Content, options: &Options) -> bool {
    let data: u64 = content.extents().iter().map(|extent| extent.end - extent.start).sum();
    match options.compression {
        Compression::None => data < content.size(),
        _ => data <= content.size() / 2,
    }
}

/// Large files whose content is that of one before them, by item: found before they are compressed. Small ones are
/// compared when they are read.
fn large_originals(tree: &Tree, files: &[File<'_>], options: &Options) -> Result<BTreeMap<usize, usize>, WriteError> {
    let mut sizes: BTreeMap<u64, Vec<&File<'_>>> = BTreeMap::new();
    for file in files.iter().filter(|file| !file.small) {
        sizes.entry(file.content.size()).or_default().push(file);
    }
    let candidates: Vec<_> = sizes.into_values().filter(|same| same.len() > 1).flatten().collect();
    let mut first: BTreeMap<(u64, Digest), usize> = BTreeMap::new();
    let mut originals = BTreeMap::new();
    let work = |_: &mut (), file: &&File<'_>| {
        let path = || file.id.map(|id| path_of(tree, id)).unwrap_or_default();
        file.content.digest().map_err(|source| WriteError::Read { path: path(), source })
    };
    in_order(&candidates, options.workers, work, |file, digest| {
        let original = *first.entry((file.content.size(), digest)).or_insert(file.item);
        if original != file.item {
            originals.insert(file.item, original);
        }
        Ok(())
    })?;
    Ok(originals)
}

fn write_pack<W: Write>(job: &Job<'_>, pack: Pack, sink: &mut Sink<'_, W>, data: &mut Data) -> Result<(), WriteError> {
    let size = pack.size();
    if size == 0 {
        return Ok(());
    }
    let pack = Arc::new(pack);
    let content = Content::new(size, pack.clone(), 0);
    let file = File { item: usize::MAX, id: None, content: &content, small: false, pack: Some(&pack) };
    clusters::write(job, &[file], sink, |_, written| {
        if let Written::Placed(placed) = written {
            data.packed = Some((size, placed));
        }
    })
}
