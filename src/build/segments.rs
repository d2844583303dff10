//! Compressed file data in the store: what was compressed for one image is not compressed again for another.
//!
//! ```text
//! stages/compress/<key>/content/segments
//!   │ value │ value │ ... │ rows: key 32 B, offset 8 B, bytes 8 B, SHA-256 of the value 32 B │ trailer │
//!   trailer: number of rows 8 B │ SHA-256 of the rows 32 B │ digest of this program's source 32 B │ magic 16 B
//! ```
//!
//! Two kinds of results have the name `compress`: of a configured tree before the recipe's own files, made once by
//! whoever comes first while others wait, and of an image, with what that tree did not have. A result holds only what
//! no other one had when it was made, in one file: values by the thousand would be as many inodes, and as slow to flush.
//!
//! Invariants: a value counts only if its bytes have the digest of its row, so what was damaged is compressed again and
//! never used. Without any result an image has the same bytes; results may be removed in any order. Values that other
//! source of this program made are not looked at: it may compress in another way.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use super::BuildError;
use super::roots::DamagedResult;
use crate::digest::Digest;
use crate::filesystem::erofs::{self, SegmentCache};
use crate::store::{StageKey, Store, StoreError};
use crate::tree::Tree;

/// The stage.
const COMPRESS: &str = "compress";
/// The file of its results.
const FILE: &str = "segments";
const MAGIC: &[u8; 16] = b"adamant segments";
const ROW: usize = 80;
const TRAILER: usize = 88;
/// Results that are looked into, of those that were used last: opening one takes a tenth of a millisecond.
const RESULTS_MAX: usize = 64;

/// The digest of this program's source, as the keys of stages have it.
fn source() -> Digest {
    Digest::of(env!("ADAMANT_STAGE_SOURCE").as_bytes())
}

/// Sees to it that the data of a configured tree, whose stage has the key `configured`, is compressed. Whether it was.
pub fn compress(tree: &Tree, configured: &Digest, options: &erofs::Options, store: &Store) -> Result<bool, BuildError> {
    let key = StageKey::new(COMPRESS)
        .with("configured", configured.as_bytes())
        .with("compression", format!("{:?}", options.compression).as_bytes());
    let result = store.build_stage(&key, |directory| {
        let segments = Segments::open(store, &directory.join(FILE))?;
        erofs::write_with(tree, options, &segments, &mut Nowhere::default()).map_err(super::image::ImageError::from)?;
        segments.finish(store).map(drop)
    })?;
    Ok(result.cached)
}

/// Keeps what `segments`, which were recorded at `path`, have more than the store, for the image with this key.
pub fn keep(segments: Segments, path: &Path, image: &Digest, store: &Store) -> Result<(), BuildError> {
    if segments.finish(store)? == 0 {
        return Ok(());
    }
    let key = StageKey::new(COMPRESS).with("image", image.as_bytes());
    store.build_stage(&key, |directory| {
        let target = directory.join(FILE);
        fs::rename(path, &target).map_err(|source| BuildError::Workspace { path: target, source })
    })?;
    Ok(())
}

/// Reads all compressed data. What holds a damaged value is removed, so that it is compressed again.
pub fn verify(store: &Store) -> Result<Vec<DamagedResult>, StoreError> {
    let check = |(key, content): &(Digest, PathBuf)| {
        let is_whole = match Pack::open(&content.join(FILE)) {
            Ok(pack) => pack.rows.par_iter().all(|row| pack.value(row).is_some()),
            Err(_) if !content.exists() => true, // collected meanwhile
            Err(_) => false,
        };
        if is_whole {
            return Ok(None);
        }
        store.discard_stage(COMPRESS, key)?;
        Ok(Some(DamagedResult { stage: COMPRESS.to_owned(), key: *key, name: None }))
    };
    let damaged: Vec<Option<DamagedResult>> =
        store.stage_results(COMPRESS)?.iter().map(check).collect::<Result<_, StoreError>>()?;
    Ok(damaged.into_iter().flatten().collect())
}

/// One value in a pack.
#[derive(Clone, Copy)]
struct Row {
    key: Digest,
    offset: u64,
    size: u64,
    digest: Digest,
}

impl Row {
    fn encode(&self) -> [u8; ROW] {
        let mut bytes = [0; ROW];
        bytes[..32].copy_from_slice(self.key.as_bytes());
        bytes[32..40].copy_from_slice(&self.offset.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.size.to_le_bytes());
        bytes[48..].copy_from_slice(self.digest.as_bytes());
        bytes
    }

    fn decode(bytes: &[u8; ROW]) -> Self {
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let digest = |at: usize| Digest::from_bytes(std::array::from_fn(|i| bytes[at + i]));
        Self { key: digest(0), offset: number(32), size: number(40), digest: digest(48) }
    }
}

/// The file of one result.
struct Pack {
    file: File,
    source: Digest,
    rows: Vec<Row>,
}

impl Pack {
    fn open(path: &Path) -> io::Result<Self> {
        let damaged = || io::Error::from(io::ErrorKind::InvalidData);
        let file = File::open(path)?;
        let end = file.metadata()?.len().checked_sub(TRAILER as u64).ok_or_else(damaged)?;
        let mut trailer = [0; TRAILER];
        file.read_exact_at(&mut trailer, end)?;
        let digest = |at: usize| Digest::from_bytes(std::array::from_fn(|i| trailer[at + i]));
        let count = u64::from_le_bytes(std::array::from_fn(|i| trailer[i]));
        let size = count.checked_mul(ROW as u64).filter(|size| *size <= end).ok_or_else(damaged)?;
        let mut rows = vec![0; size as usize];
        file.read_exact_at(&mut rows, end - size)?;
        if trailer[72..] != *MAGIC || Digest::of(&rows) != digest(8) {
            return Err(damaged());
        }
        let rows: Vec<Row> = rows.as_chunks().0.iter().map(Row::decode).collect();
        let within = |row: &Row| row.offset.checked_add(row.size).is_some_and(|row_end| row_end <= end - size);
        if rows.iter().all(within) { Ok(Self { file, source: digest(40), rows }) } else { Err(damaged()) }
    }

    /// The value, if it is what it was.
    fn value(&self, row: &Row) -> Option<Vec<u8>> {
        let mut value = vec![0; usize::try_from(row.size).ok()?];
        self.file.read_exact_at(&mut value, row.offset).ok()?;
        (Digest::of(&value) == row.digest).then_some(value)
    }
}

/// A result of before.
struct Earlier {
    key: Digest,
    pack: Pack,
    used: AtomicBool,
    damaged: AtomicBool,
}

/// What is recorded now.
struct Recording {
    out: BufWriter<File>,
    rows: Vec<Row>,
    offset: u64,
    /// The first error: after it nothing is recorded any more.
    failed: Option<io::Error>,
}

/// What the store has, and what is recorded besides.
pub struct Segments {
    earlier: Vec<Earlier>,
    /// By key: which result has the value, and where.
    index: HashMap<Digest, (usize, Row)>,
    path: PathBuf,
    recording: Mutex<Recording>,
}

impl Segments {
    /// Looks into the results of the store, and records what they do not have in the file `path`, which is made.
    pub fn open(store: &Store, path: &Path) -> Result<Self, BuildError> {
        let create = || File::options().read(true).write(true).create_new(true).open(path);
        let out = create().map_err(|source| BuildError::Workspace { path: path.to_owned(), source })?;
        let source = source();
        let results = store.recent_stage_results(COMPRESS, RESULTS_MAX)?;
        // One that cannot be read is none: `adamant store verify` names it.
        let open = |(key, content): &(Digest, PathBuf)| {
            let pack = Pack::open(&content.join(FILE)).ok().filter(|pack| pack.source == source)?;
            Some(Earlier { key: *key, pack, used: AtomicBool::new(false), damaged: AtomicBool::new(false) })
        };
        let earlier: Vec<Earlier> = results.iter().filter_map(open).collect();
        let mut index = HashMap::with_capacity(earlier.iter().map(|earlier| earlier.pack.rows.len()).sum());
        for (number, earlier) in earlier.iter().enumerate() {
            index.extend(earlier.pack.rows.iter().map(|row| (row.key, (number, *row))));
        }
        let recording =
            Recording { out: BufWriter::with_capacity(1 << 20, out), rows: Vec::new(), offset: 0, failed: None };
        Ok(Self { earlier, index, path: path.to_owned(), recording: Mutex::new(recording) })
    }

    /// Finishes the file and notes what was used; gives the number of new values. Results in which something was found
    /// damaged are removed.
    fn finish(self, store: &Store) -> Result<usize, BuildError> {
        for earlier in &self.earlier {
            if earlier.damaged.load(Ordering::Relaxed) {
                store.discard_stage(COMPRESS, &earlier.key)?;
            } else if earlier.used.load(Ordering::Relaxed) {
                store.note_stage_use(COMPRESS, &earlier.key)?;
            }
        }
        let recording = self.recording.into_inner().unwrap_or_else(PoisonError::into_inner);
        let path = self.path;
        recording.finish().map_err(|source| BuildError::Workspace { path, source })
    }

    fn recording(&self) -> MutexGuard<'_, Recording> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SegmentCache for Segments {
    fn get(&self, key: &Digest) -> Option<Vec<u8>> {
        let (number, row) = self.index.get(key)?;
        let earlier = &self.earlier[*number];
        let value = earlier.pack.value(row);
        let noted = if value.is_some() { &earlier.used } else { &earlier.damaged };
        noted.store(true, Ordering::Relaxed);
        value
    }

    fn put(&self, key: &Digest, value: &[u8]) {
        let digest = Digest::of(value);
        let mut recording = self.recording();
        if recording.failed.is_none() {
            let row = Row { key: *key, offset: recording.offset, size: value.len() as u64, digest };
            recording.failed = recording.out.write_all(value).err();
            recording.offset += row.size;
            recording.rows.push(row);
        }
    }
}

impl Recording {
    fn finish(mut self) -> io::Result<usize> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        // Threads came in no order.
        self.rows.sort_unstable_by_key(|row| row.key);
        let rows: Vec<u8> = self.rows.iter().flat_map(Row::encode).collect();
        self.out.write_all(&rows)?;
        self.out.write_all(&(self.rows.len() as u64).to_le_bytes())?;
        self.out.write_all(Digest::of(&rows).as_bytes())?;
        self.out.write_all(source().as_bytes())?;
        self.out.write_all(MAGIC)?;
        self.out.flush()?;
        Ok(self.rows.len())
    }
}

/// Takes an image and keeps nothing.
#[derive(Default)]
struct Nowhere(u64);

impl Write for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Nowhere {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.0 = match position {
            SeekFrom::Start(offset) => offset,
            SeekFrom::Current(0) => self.0,
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(self.0)
    }
}
