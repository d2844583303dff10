//! Bytes to compressed clusters: how much goes into each, and what stays as it is.
//!
//! A file is cut into segments of fixed size, compressed independently; a segment becomes [`Cluster`]s. Both are a
//! pure function of the bytes, the compression and the cluster size, so the work can be done on any thread, and
//! its result can be kept by the content's digest.
//!
//! EROFS addresses clusters in blocks, so what a cluster lacks to a full block is lost. mkfs.erofs searches for the
//! input that fills the cluster, compressing many times; here the input is chosen by the ratio of what came before,
//! compressed once, and only what does not fit is tried again with less.

use std::io;

use super::codec::Encoder;
use super::format::BLOCK;
use super::{Compression, Options};

/// Bytes of a file that are compressed as one unit. Large files are compressed by several threads in these units.
pub const SEGMENT: usize = 4 << 20;
/// No cluster decodes to more than this many times the cluster size: a reader has to hold it.
const RATIO_MAX: usize = 4;
/// Bytes looked at to judge whether data can be compressed.
const PROBE: usize = 32 * 1024;
/// Data that shrinks by less than 1/32 is kept as it is: it costs time at every read and gains nothing.
const GAIN: usize = 32;
/// Share of the cluster size that is aimed at, in 1/64, so that most attempts fit.
const AIM: usize = 60;

/// How a cluster's bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    Plain,
    /// Compressed.
    Compressed,
}

/// A run of a file that is encoded on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cluster {
    /// Bytes of the file.
    pub length: usize,
    /// Blocks in the image.
    pub blocks: usize,
    /// How they are stored.
    pub encoding: Encoding,
}

/// What a segment became.
#[derive(Debug, Default)]
pub struct Segment {
    /// Its clusters, in order; all but the last of a file are multiples of the block size.
    pub clusters: Vec<Cluster>,
    /// Their blocks, one after the other.
    pub blocks: Vec<u8>,
}

/// Compresses segments, one thread's worth.
pub struct SegmentCompressor {
    encoder: Encoder,
    pcluster: usize,
}

impl SegmentCompressor {
    /// A compressor as `options` say; `None` if they say none.
    pub fn new(options: &Options) -> io::Result<Option<Self>> {
        if options.compression == Compression::None {
            return Ok(None);
        }
        Ok(Some(Self { encoder: Encoder::new(options.compression)?, pcluster: options.pcluster }))
    }

    /// Whether compressing `data` is worth while, judged by a sample.
    pub fn is_compressible(&mut self, data: &[u8]) -> io::Result<bool> {
        let sample = &data[..data.len().min(PROBE)];
        let estimate = self.encoder.estimate(sample)?;
        Ok(estimate + sample.len() / GAIN < sample.len())
    }

    /// Compresses one segment: at most [`SEGMENT`] bytes, a multiple of the block size unless a file ends with it.
    pub fn compress(&mut self, data: &[u8]) -> io::Result<Segment> {
        let mut segment = Segment::default();
        let mut rest = data;
        let mut ratio = None;
        while !rest.is_empty() {
            let known = match ratio.take() {
                Some(ratio) => ratio,
                None => {
                    let sample = &rest[..rest.len().min(PROBE)];
                    Ratio { encoded: self.encoder.estimate(sample)?, decoded: sample.len() }
                }
            };
            if known.is_incompressible() {
                let length = rest.len().min(self.pcluster);
                segment.push_plain(&rest[..length]);
                rest = &rest[length..];
                continue;
            }
            let (length, next) = self.compress_one(rest, known, &mut segment)?;
            rest = &rest[length..];
            ratio = next;
        }
        Ok(segment)
    }

    /// Adds one cluster from the start of `rest`; gives how many bytes it took and what ratio to expect next.
    fn compress_one(
        &mut self,
        rest: &[u8],
        mut ratio: Ratio,
        segment: &mut Segment,
    ) -> io::Result<(usize, Option<Ratio>)> {
        let mut limit = rest.len();
        loop {
            let length = ratio.input(self.pcluster, limit);
            let input = &rest[..length];
            let encoded = self.encoder.encode(input)?;
            ratio = Ratio { encoded: encoded.len(), decoded: length };
            if encoded.len().div_ceil(BLOCK) >= length.div_ceil(BLOCK) || ratio.is_incompressible() {
                let length = length.min(self.pcluster);
                segment.push_plain(&rest[..length]);
                return Ok((length, None));
            }
            if encoded.len() <= self.pcluster {
                segment.push_compressed(length, encoded);
                return Ok((length, Some(ratio)));
            }
            // Less by at least one block each time, so this ends.
            limit = length - BLOCK;
        }
    }
}

/// What compression made of some bytes.
#[derive(Debug, Clone, Copy)]
struct Ratio {
    encoded: usize,
    decoded: usize,
}

impl Ratio {
    fn is_incompressible(self) -> bool {
        self.encoded + self.decoded / GAIN >= self.decoded
    }

    /// How many of `rest` bytes to take for a cluster of `pcluster` bytes: equal shares, so that no short one is
    /// left at the end.
    fn input(self, pcluster: usize, rest: usize) -> usize {
        let fitting = pcluster * AIM / 64 * self.decoded / self.encoded.max(1);
        let fitting = fitting.clamp(pcluster, pcluster * RATIO_MAX);
        let shares = rest.div_ceil(fitting);
        (rest.div_ceil(shares)).next_multiple_of(BLOCK).min(rest)
    }
}

impl Segment {
    /// One plain cluster.
    pub fn plain(data: Vec<u8>) -> Self {
        let blocks = data.len().div_ceil(BLOCK);
        let cluster = Cluster { length: data.len(), blocks, encoding: Encoding::Plain };
        let mut bytes = data;
        bytes.resize(blocks * BLOCK, 0);
        Self { clusters: vec![cluster], blocks: bytes }
    }

    fn push_plain(&mut self, data: &[u8]) {
        self.blocks.extend_from_slice(data);
        self.blocks.resize(self.blocks.len().next_multiple_of(BLOCK), 0);
        let blocks = data.len().div_ceil(BLOCK);
        match self.clusters.last_mut() {
            Some(last) if last.encoding == Encoding::Plain => {
                last.length += data.len();
                last.blocks += blocks;
            }
            _ => self.clusters.push(Cluster { length: data.len(), blocks, encoding: Encoding::Plain }),
        }
    }

    fn push_compressed(&mut self, length: usize, encoded: &[u8]) {
        let blocks = encoded.len().div_ceil(BLOCK);
        self.blocks.resize(self.blocks.len() + blocks * BLOCK - encoded.len(), 0);
        self.blocks.extend_from_slice(encoded);
        self.clusters.push(Cluster { length, blocks, encoding: Encoding::Compressed });
    }
}
