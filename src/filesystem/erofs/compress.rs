//! Bytes to compressed clusters: how much goes into each, and what stays as it is.
//!
//! A file is cut into segments of fixed size, compressed independently; a segment becomes [`Cluster`]s. Both are a
//! pure function of the bytes, the compression and the cluster size, so the work can be done on any thread, and
//! its result can be kept by the content's digest.
//!
//! EROFS addresses clusters in blocks, so what a cluster lacks to a full block is lost. mkfs.erofs searches for the
//! input that fills the cluster, compressing many times. Here the input is chosen by the ratio of what came before,
//! and what comes out is taken as it is, if clusters are large: half a block of many is little. Only small ones are
//! tried again, with more or less. If the bytes of a large one are too many, it ends where a part of it ends.

use std::io;

use super::codec::Encoder;
use super::format::BLOCK;
use super::{Compression, Options};

/// Bytes of a file that are compressed as one unit. Large files are compressed by several threads in these units.
pub const SEGMENT: usize = 4 << 20;
/// No cluster decodes to more than this many times the cluster size: a reader has to hold it.
const RATIO_MAX: usize = 4;
/// Bytes that are compressed to judge whether data can be.
const PROBE: usize = 16 * 1024;
/// Bytes that are counted before: most data shows at a glance that it can be compressed.
const GLANCE: usize = 4096;
/// What programs and texts compress to, for a start.
const USUAL: Ratio = Ratio { encoded: 45, decoded: 100 };
/// Data that shrinks by less than 1/32 is kept as it is: it costs time at every read and gains nothing.
const GAIN: usize = 32;

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
    /// Bytes of the file: so many that no two clusters start in one block of the file.
    pub length: usize,
    /// Blocks in the image.
    pub blocks: usize,
    /// How they are stored.
    pub encoding: Encoding,
}

/// What a segment became.
#[derive(Debug, Default)]
pub struct Segment {
    /// Its clusters, in order.
    pub clusters: Vec<Cluster>,
    /// Their blocks, one after the other.
    pub blocks: Vec<u8>,
}

/// Compresses segments, one thread's worth.
pub struct SegmentCompressor {
    encoder: Encoder,
    pcluster: usize,
    /// Best attempt at the cluster at hand.
    best: Vec<u8>,
}

impl SegmentCompressor {
    /// A compressor as `options` say; `None` if they say none.
    pub fn new(options: &Options) -> io::Result<Option<Self>> {
        if options.compression == Compression::None {
            return Ok(None);
        }
        let encoder = Encoder::new(options.compression)?;
        Ok(Some(Self { encoder, pcluster: options.pcluster, best: Vec::new() }))
    }

    /// Whether compressing `data` together with other files' is worth while, judged by a sample.
    pub fn is_compressible(&mut self, data: &[u8]) -> io::Result<bool> {
        Ok(!self.probe(data)?.is_incompressible())
    }

    fn probe(&mut self, data: &[u8]) -> io::Result<Ratio> {
        if !looks_random(&data[..data.len().min(GLANCE)]) {
            return Ok(USUAL);
        }
        let sample = &data[..data.len().min(PROBE)];
        Ok(Ratio { encoded: self.encoder.estimate(sample)?, decoded: sample.len() })
    }

    /// Compresses one segment: at most [`SEGMENT`] bytes, a multiple of the block size unless a file ends with it.
    pub fn compress(&mut self, data: &[u8]) -> io::Result<Segment> {
        let mut segment = Segment::default();
        segment.blocks.reserve(data.len() / 2);
        let mut position = 0;
        let mut expected = None;
        while position < data.len() {
            let rest = &data[position..];
            let ratio = match expected.take() {
                Some(ratio) => ratio,
                None => self.probe(rest)?,
            };
            let made = if ratio.is_incompressible() { None } else { self.make_cluster(rest, position, ratio)? };
            position += match made {
                Some(Made { length, ratio }) => {
                    segment.push_compressed(length, &self.best);
                    expected = Some(ratio);
                    length
                }
                None => {
                    // Plain data is read block by block: first to the end of this block of the file.
                    let room = if position % BLOCK == 0 { self.pcluster } else { BLOCK - position % BLOCK };
                    let length = rest.len().min(room);
                    segment.push_plain(&rest[..length]);
                    length
                }
            };
        }
        Ok(segment)
    }

    /// Makes one cluster, into `best`, from the start of `rest`, which stands at `position` in the segment; `None` if
    /// that gains nothing.
    fn make_cluster(&mut self, rest: &[u8], position: usize, expected: Ratio) -> io::Result<Option<Made>> {
        let mut search = Search::new(self.pcluster, rest.len(), position);
        let mut next = Some(search.first(expected));
        while let Some(length) = next {
            let encoded = self.encoder.encode(&rest[..length])?;
            let ratio = Ratio { encoded: encoded.len(), decoded: length };
            if encoded.len() > self.pcluster {
                if let Some((length, part)) = self.encoder.shorten(self.pcluster) {
                    self.best = part;
                    return Ok(Some(Made { length, ratio }));
                }
            } else if ratio.is_incompressible() || encoded.len().next_multiple_of(BLOCK) >= length {
                return Ok(None);
            } else {
                self.best.clear();
                self.best.extend_from_slice(encoded);
            }
            next = search.next(ratio);
        }
        Ok(search.fitting)
    }
}

/// Whether all bytes are about as frequent. What does not look so can be compressed by its frequencies alone.
fn looks_random(sample: &[u8]) -> bool {
    let mut counts = [0_u64; 256];
    for byte in sample {
        counts[usize::from(*byte)] += 1;
    }
    // The expected sum of squares of n random bytes is n + n(n-1)/256; a quarter more is far from random.
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    let length = sample.len() as u64;
    squares < (length + length * length / 256) * 5 / 4
}

/// A cluster that was made.
#[derive(Debug, Clone, Copy)]
struct Made {
    /// Bytes of the file.
    length: usize,
    /// What compression made of them, or of somewhat more.
    ratio: Ratio,
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

    /// How many bytes become `encoded` bytes, at this ratio.
    fn input_for(self, encoded: usize) -> usize {
        encoded * self.decoded / self.encoded.max(1)
    }
}

/// The search for an input whose compressed bytes fill a cluster.
struct Search {
    pcluster: usize,
    /// Where the input starts in its segment.
    position: usize,
    rest: usize,
    /// Attempts still to be made once something fits.
    tries: usize,
    /// Longest input that fits.
    fitting: Option<Made>,
    /// Shortest input that does not, or that may not be tried.
    overflowing: usize,
}

impl Search {
    fn new(pcluster: usize, rest: usize, position: usize) -> Self {
        let tries = match pcluster / BLOCK {
            0..=2 => 6,
            3..=4 => 4,
            5..=8 => 2,
            _ => 1,
        };
        let overflowing = rest.min(pcluster * RATIO_MAX) + 1;
        Self { pcluster, position, rest, tries, fitting: None, overflowing }
    }

    /// The first length to try.
    fn first(&self, expected: Ratio) -> usize {
        let most = self.overflowing - 1;
        // A little less than fills the cluster, so that most attempts fit.
        let length = expected.input_for(self.pcluster - self.pcluster / 16).clamp(self.pcluster.min(most), most);
        if self.tries > 1 {
            return length;
        }
        // Equal shares, so that no short one is left at the end.
        let share = self.rest.div_ceil(self.rest.div_ceil(length));
        self.aligned(share.next_multiple_of(BLOCK).min(most))
    }

    /// The length to try after the last one came to `ratio`; `None` if what fits is to be taken, or nothing does.
    fn next(&mut self, ratio: Ratio) -> Option<usize> {
        self.tries = self.tries.saturating_sub(1);
        let length = ratio.decoded;
        if ratio.encoded <= self.pcluster {
            self.fitting = Some(Made { length, ratio });
            let lost = self.pcluster - ratio.encoded;
            if lost <= self.pcluster / 64 {
                return None;
            }
        } else {
            self.overflowing = length;
        }
        if self.tries == 0 && self.fitting.is_some() {
            return None;
        }
        let lower = self.fitting.map_or(self.pcluster.min(self.rest) - 1, |made| made.length);
        let step = (self.overflowing - lower) / 16;
        if step == 0 && self.fitting.is_some() {
            return None;
        }
        let guess = ratio.input_for(self.pcluster - self.pcluster / 128);
        let guess = guess.clamp(lower + 1 + step, self.overflowing.checked_sub(1 + step)?.max(lower + 1 + step));
        (guess < self.overflowing).then_some(guess)
    }

    /// Makes the cluster end at a block of the file, if that leaves enough of it.
    fn aligned(&self, length: usize) -> usize {
        let beyond = (self.position + length) % BLOCK;
        if length == self.rest || length < 2 * BLOCK { length } else { length - beyond }
    }
}

impl Segment {
    /// One plain cluster.
    pub fn plain(data: &[u8]) -> Self {
        let mut segment = Self::default();
        segment.push_plain(data);
        segment
    }

    /// One plain cluster more.
    pub fn push_plain(&mut self, data: &[u8]) {
        self.blocks.extend_from_slice(data);
        self.blocks.resize(self.blocks.len().next_multiple_of(BLOCK), 0);
        let cluster = Cluster { length: data.len(), blocks: data.len().div_ceil(BLOCK), encoding: Encoding::Plain };
        self.clusters.push(cluster);
    }

    fn push_compressed(&mut self, length: usize, encoded: &[u8]) {
        let blocks = encoded.len().div_ceil(BLOCK);
        self.blocks.resize(self.blocks.len() + blocks * BLOCK - encoded.len(), 0);
        self.blocks.extend_from_slice(encoded);
        self.clusters.push(Cluster { length, blocks, encoding: Encoding::Compressed });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filesystem::erofs::codec::Decoder;
    use crate::filesystem::erofs::format::{ALGORITHM_LZ4, ALGORITHM_ZSTD};

    /// Parts that compress differently, in no step with blocks.
    fn mixed() -> Vec<u8> {
        let mut state = 1_u64;
        let mut data = Vec::new();
        for part in 0..160_u64 {
            for position in 0..part * 977 % 9000 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let noise = (state >> 56) as u8;
                data.push(match part % 4 {
                    0 => noise,
                    1 => noise & 7,
                    2 => noise & 63,
                    _ => (position % 97) as u8,
                });
            }
        }
        data
    }

    fn decode(segment: &Segment, decoder: Decoder, pcluster: usize) -> Vec<u8> {
        let (mut data, mut at) = (Vec::new(), 0);
        for cluster in &segment.clusters {
            let bytes = &segment.blocks[at..at + cluster.blocks * BLOCK];
            let mut part = vec![0; cluster.length];
            match cluster.encoding {
                Encoding::Plain => part.copy_from_slice(&bytes[..cluster.length]),
                Encoding::Compressed => {
                    assert!(bytes.len() <= pcluster && bytes.len() < cluster.length);
                    decoder.decode(bytes, &mut part).unwrap();
                }
            }
            data.extend(part);
            at += bytes.len();
        }
        assert_eq!(at, segment.blocks.len());
        data
    }

    #[test]
    fn clusters_decode_to_what_went_in_and_keep_to_their_size() {
        let data = mixed();
        for (compression, number) in [
            (Compression::Lz4 { level: 9 }, ALGORITHM_LZ4),
            (Compression::Zstd { level: 3 }, ALGORITHM_ZSTD),
            (Compression::Zstd { level: 17 }, ALGORITHM_ZSTD),
        ] {
            let decoder = Decoder::of_algorithm(number, true).unwrap();
            for pcluster in (12..=20).map(|bits| 1 << bits) {
                let options = Options { compression, pcluster, ..Options::default() };
                let mut compressor = SegmentCompressor::new(&options).unwrap().unwrap();
                for size in [1, 4095, 4097, 8193, 100_000, data.len()] {
                    let segment = compressor.compress(&data[..size]).unwrap();
                    assert_eq!(decode(&segment, decoder, pcluster), data[..size], "{options:?} {size}");
                    let (_, but_last) = segment.clusters.split_last().unwrap();
                    let mut position = 0;
                    for cluster in but_last {
                        // No two clusters start in one block of the file.
                        assert!(position / BLOCK < (position + cluster.length) / BLOCK);
                        position += cluster.length;
                    }
                }
            }
        }
    }

    #[test]
    fn small_clusters_are_filled() {
        let data: Vec<u8> = mixed().iter().map(|byte| byte & 0x0f).collect();
        let options = Options { compression: Compression::Zstd { level: 3 }, pcluster: 4096, ..Options::default() };
        let mut compressor = SegmentCompressor::new(&options).unwrap().unwrap();
        let whole = compressor.encoder.encode(&data).unwrap().len();
        let segment = compressor.compress(&data).unwrap();
        assert!(segment.blocks.len() < whole * 6 / 5, "{} for {whole}", segment.blocks.len());
    }
}
