//! What compression made of some bytes, kept by somebody else for the next image.
//!
//! Flows in: a digest of bytes that are to be compressed. Flows out: what was made of them, if it is known. Compressing
//! is a pure function of the bytes, the compression and the cluster size, so a [`SegmentCache`] changes how long an
//! image takes and none of its bytes.
//!
//! ```text
//! of a segment:     blocks of its compressed clusters │ per cluster: bytes 4 B, blocks 4 B, encoding 1 B │ clusters 4 B
//! of a small file:  1 if it is worth compressing, else 0
//! ```
//!
//! The blocks of plain clusters are not kept: they are the bytes themselves, and those are at hand.

use super::compress::{Cluster, Encoding, Segment};
use super::format::BLOCK;
use super::{Compression, Options};
use crate::digest::{Digest, Hasher};

/// Keeps values by key. Whoever implements it answers for giving back what was put there, byte for byte, or nothing.
pub trait SegmentCache: Sync {
    /// What is kept under `key`.
    fn get(&self, key: &Digest) -> Option<Vec<u8>>;
    /// Keeps `value` under `key`, if it can.
    fn put(&self, key: &Digest, value: &[u8]);
}

/// What a key is about.
#[derive(Debug, Clone, Copy)]
pub enum Subject {
    /// What a segment is compressed to.
    Segment,
    /// Whether a small file is worth compressing.
    Small,
}

/// The key of what is made of bytes with this digest.
pub fn key(subject: Subject, options: &Options, bytes: &Digest) -> Digest {
    let (algorithm, level) = match options.compression {
        Compression::None => (0, 0),
        Compression::Lz4 { level } => (1, level),
        Compression::Zstd { level } => (2, level),
    };
    let mut hasher = Hasher::new();
    hasher.update(match subject {
        Subject::Segment => b"erofs segment\0",
        Subject::Small => b"erofs small\0\0\0",
    });
    for number in [algorithm, i64::from(level), options.pcluster as i64] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(bytes.as_bytes());
    hasher.digest()
}

/// Bytes of a cluster in the table behind the blocks.
const ROW: usize = 9;

/// The value that is kept of `segment`.
pub fn encode(segment: &Segment) -> Vec<u8> {
    let mut value = Vec::with_capacity(segment.blocks.len() + segment.clusters.len() * ROW + 4);
    let mut rest = segment.blocks.as_slice();
    for cluster in &segment.clusters {
        let (blocks, behind) = rest.split_at((cluster.blocks * BLOCK).min(rest.len()));
        if cluster.encoding == Encoding::Compressed {
            value.extend_from_slice(blocks);
        }
        rest = behind;
    }
    for cluster in &segment.clusters {
        value.extend_from_slice(&(cluster.length as u32).to_le_bytes());
        value.extend_from_slice(&(cluster.blocks as u32).to_le_bytes());
        value.push(u8::from(cluster.encoding == Encoding::Compressed));
    }
    value.extend_from_slice(&(segment.clusters.len() as u32).to_le_bytes());
    value
}

/// A segment as it was kept: what is plain in it is still to be filled in.
#[derive(Debug)]
pub struct Kept {
    clusters: Vec<Cluster>,
    compressed: Vec<u8>,
}

impl Kept {
    /// Reads the value of a segment of `size` bytes; `None` if it is none.
    pub fn decode(mut value: Vec<u8>, size: usize) -> Option<Self> {
        let (rest, count) = value.split_last_chunk()?;
        let start = rest.len().checked_sub((u32::from_le_bytes(*count) as usize).checked_mul(ROW)?)?;
        let clusters: Vec<Cluster> = rest[start..].as_chunks::<ROW>().0.iter().map(row).collect();
        let (mut length, mut blocks) = (0_usize, 0_usize);
        for cluster in &clusters {
            length = length.checked_add(cluster.length)?;
            match cluster.encoding {
                Encoding::Compressed => blocks = blocks.checked_add(cluster.blocks)?,
                Encoding::Plain if cluster.blocks == cluster.length.div_ceil(BLOCK) => {}
                Encoding::Plain => return None,
            }
        }
        if length != size || blocks.checked_mul(BLOCK)? != start {
            return None;
        }
        value.truncate(start);
        Some(Self { clusters, compressed: value })
    }

    /// Whether the segment's own bytes are needed.
    pub fn has_plain(&self) -> bool {
        self.clusters.iter().any(|cluster| cluster.encoding == Encoding::Plain)
    }

    /// The segment, of whose bytes the plain clusters are taken.
    pub fn fill(self, bytes: &[u8]) -> Segment {
        if !self.has_plain() {
            return Segment { clusters: self.clusters, blocks: self.compressed };
        }
        let mut segment = Segment::default();
        let (mut bytes, mut compressed) = (bytes, self.compressed.as_slice());
        for cluster in self.clusters {
            let (part, rest) = bytes.split_at(cluster.length);
            bytes = rest;
            match cluster.encoding {
                Encoding::Plain => segment.push_plain(part),
                Encoding::Compressed => {
                    let (blocks, rest) = compressed.split_at(cluster.blocks * BLOCK);
                    compressed = rest;
                    segment.blocks.extend_from_slice(blocks);
                    segment.clusters.push(cluster);
                }
            }
        }
        segment
    }
}

fn row(row: &[u8; ROW]) -> Cluster {
    let number = |at: usize| u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]) as usize;
    let encoding = if row[8] == 0 { Encoding::Plain } else { Encoding::Compressed };
    Cluster { length: number(0), blocks: number(4), encoding }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filesystem::erofs::compress::SegmentCompressor;

    /// Text, then noise, then text: compressed, plain and compressed clusters.
    fn mixed() -> Vec<u8> {
        let mut data: Vec<u8> =
            (0..60_000_u32).flat_map(|n| format!("line {}\n", n * 7919 % 1000).into_bytes()).collect();
        let mut state = 1_u64;
        data.extend((0..300_000).map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        }));
        data.extend((0..9_000_u32).flat_map(|n| n.to_string().into_bytes()));
        data
    }

    #[test]
    fn a_segment_comes_back_as_it_was() {
        let data = mixed();
        let segment = SegmentCompressor::new(&Options::default()).unwrap().unwrap().compress(&data).unwrap();
        let value = encode(&segment);
        assert!(value.len() < segment.blocks.len() - 250_000, "plain clusters are not kept");
        let kept = Kept::decode(value, data.len()).unwrap();
        assert!(kept.has_plain());
        let found = kept.fill(&data);
        assert_eq!(found.clusters, segment.clusters);
        assert_eq!(found.blocks, segment.blocks);
    }

    #[test]
    fn what_does_not_fit_is_none() {
        let data = mixed();
        let segment = SegmentCompressor::new(&Options::default()).unwrap().unwrap().compress(&data).unwrap();
        let value = encode(&segment);
        assert!(Kept::decode(value.clone(), data.len() - 1).is_none());
        for length in [0, 3, 4, value.len() - 4096, value.len() - 1] {
            assert!(Kept::decode(value[..length].to_vec(), data.len()).is_none(), "{length}");
        }
        assert!(Kept::decode(vec![0xff; 64], data.len()).is_none());
    }

    #[test]
    fn a_key_is_of_the_bytes_the_compression_and_the_cluster_size() {
        let options = Options::default();
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let mut keys = vec![
            key(Subject::Segment, &options, &one),
            key(Subject::Segment, &options, &two),
            key(Subject::Small, &options, &one),
            key(Subject::Segment, &Options { pcluster: 4096, ..options.clone() }, &one),
            key(Subject::Segment, &Options { compression: Compression::Zstd { level: 7 }, ..options.clone() }, &one),
            key(Subject::Segment, &Options { compression: Compression::Lz4 { level: 6 }, ..options }, &one),
        ];
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 6);
    }
}
