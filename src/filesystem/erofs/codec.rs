//! One compressed cluster: bytes to bytes, by LZ4 or Zstandard.
//!
//! EROFS keeps a cluster's compressed bytes at the end of its blocks, zeros in front, and tells neither size: the
//! first byte of both formats is never zero. A Zstandard cluster is one frame (RFC 8878) with its content size and
//! without checksum; an LZ4 cluster is one block (LZ4 block format) without any framing.

use std::io;

use flate2::{Decompress, FlushDecompress};

use lz4::block::CompressionMode;
use zstd::bulk::Compressor;
use zstd::zstd_safe::{self, CParameter, DCtx, DParameter, InBuffer, OutBuffer};

use super::Compression;
use super::format::{ALGORITHM_DEFLATE, ALGORITHM_LZ4, ALGORITHM_ZSTD};

/// log2 of the largest window of a Zstandard frame: Linux refuses more than 1 MiB.
pub const ZSTD_WINDOW_BITS: u8 = 20;
/// log2 of the entries of Zstandard's match table, from this level on: half a mebibyte stays in a core's own cache, which
/// is worth 10 to 20 % of the time; the 2 MiB that large inputs get by default make images smaller by 1 in 1000.
const ZSTD_HASH_BITS: u32 = 17;
/// Lower levels have smaller tables anyway.
const ZSTD_HASH_LEVEL: i32 = 5;
/// Level by which compressibility is judged: fast, and with entropy coding.
const PROBE_LEVEL: i32 = 1;

/// The compressors of one thread, with their memory.
pub struct Encoder {
    kind: Kind,
    probe: Compressor<'static>,
    buffer: Vec<u8>,
    /// Of what was encoded last: compressed bytes in `buffer`, and bytes that went in.
    encoded: usize,
    decoded: usize,
}

enum Kind {
    Lz4(i32),
    Zstd(Compressor<'static>),
}

impl Encoder {
    /// An encoder for `compression`, which is not `None`.
    pub fn new(compression: Compression) -> io::Result<Self> {
        let kind = match compression {
            Compression::Lz4 { level } => Kind::Lz4(level),
            Compression::Zstd { level } => {
                let mut compressor = Compressor::new(level)?;
                compressor.set_parameter(CParameter::WindowLog(u32::from(ZSTD_WINDOW_BITS)))?;
                if level >= ZSTD_HASH_LEVEL {
                    compressor.set_parameter(CParameter::HashLog(ZSTD_HASH_BITS))?;
                }
                Kind::Zstd(compressor)
            }
            Compression::None => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let probe = Compressor::new(PROBE_LEVEL)?;
        Ok(Self { kind, probe, buffer: Vec::new(), encoded: 0, decoded: 0 })
    }

    /// `input` compressed.
    pub fn encode(&mut self, input: &[u8]) -> io::Result<&[u8]> {
        // Always room for the worst case: what Zstandard writes depends on the room that it has.
        let room = match self.kind {
            Kind::Lz4(_) => lz4::block::compress_bound(input.len())?,
            Kind::Zstd(_) => zstd_safe::compress_bound(input.len()),
        };
        let buffer = grown(&mut self.buffer, room);
        self.encoded = match &mut self.kind {
            Kind::Lz4(level) => {
                let mode = CompressionMode::HIGHCOMPRESSION(*level);
                lz4::block::compress_to_buffer(input, Some(mode), false, buffer)?
            }
            Kind::Zstd(compressor) => compressor.compress_to_buffer(input, buffer)?,
        };
        self.decoded = input.len();
        Ok(&self.buffer[..self.encoded])
    }

    /// Of what was encoded last, as much from its start as has at most `limit` compressed bytes: how many bytes of the
    /// input that is, and they compressed. `None` if less than half would be left, or the format has no such parts.
    pub fn shorten(&self, limit: usize) -> Option<(usize, Vec<u8>)> {
        match self.kind {
            Kind::Lz4(_) => None,
            Kind::Zstd(_) => shorten_zstd(&self.buffer[..self.encoded], self.decoded, limit),
        }
    }

    /// A quick estimate of the compressed size of `input`.
    pub fn estimate(&mut self, input: &[u8]) -> io::Result<usize> {
        let buffer = grown(&mut self.buffer, zstd_safe::compress_bound(input.len()));
        self.probe.compress_to_buffer(input, buffer)
    }
}

fn grown(buffer: &mut Vec<u8>, size: usize) -> &mut [u8] {
    if buffer.len() < size {
        buffer.resize(size, 0);
    }
    &mut buffer[..size]
}

/// Header of a frame whose content size takes four bytes and is the window: RFC 8878, section 3.1.1.1.
const SINGLE_SEGMENT_4: u8 = 0b1010_0000;

/// A Zstandard frame is a header and blocks, which need only those before them: any number of them from the start make
/// a frame, if the header tells its size and the last one is marked.
fn shorten_zstd(frame: &[u8], decoded: usize, limit: usize) -> Option<(usize, Vec<u8>)> {
    let descriptor = *frame.get(4)?;
    let is_single = descriptor >> 5 & 1;
    let content_size = [usize::from(is_single), 2, 4, 8][usize::from(descriptor >> 6)];
    let first = 5 + usize::from(1 - is_single) + content_size;
    let header = 9;
    let (mut last, mut end) = (first, first);
    while let Some([a, b, c]) = frame.get(end..end + 3) {
        let word = u32::from_le_bytes([*a, *b, *c, 0]);
        // Type 1 repeats one byte.
        let size = 3 + if word >> 1 & 3 == 1 { 1 } else { (word >> 3) as usize };
        if header + end + size - first > limit {
            break;
        }
        (last, end) = (end, end + size);
    }
    let length = decoded_length(&frame[..end], decoded)?;
    if length < decoded / 2 || length > 1 << ZSTD_WINDOW_BITS {
        return None;
    }
    let mut part = frame[..4].to_vec();
    part.push(SINGLE_SEGMENT_4);
    part.extend_from_slice(&(length as u32).to_le_bytes());
    part.extend_from_slice(&frame[first..end]);
    part[header + last - first] |= 1;
    Some((length, part))
}

/// How many bytes the blocks of an incomplete frame decode to: the format does not tell.
fn decoded_length(frame: &[u8], most: usize) -> Option<usize> {
    let mut context = DCtx::try_create()?;
    let mut bytes = vec![0; most];
    let (mut input, mut output) = (InBuffer::around(frame), OutBuffer::around(bytes.as_mut_slice()));
    loop {
        let before = (input.pos(), output.pos());
        context.decompress_stream(&mut output, &mut input).ok()?;
        if before == (input.pos(), output.pos()) {
            return Some(output.pos());
        }
    }
}

/// How a cluster is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decoder {
    /// LZ4 block; whether zeros stand in front (else behind).
    Lz4 {
        /// See [`super::format::INCOMPAT_ZERO_PADDING`].
        padded: bool,
    },
    /// A raw DEFLATE stream (RFC 1951), zeros in front.
    Deflate,
    /// A Zstandard frame, zeros in front.
    Zstd,
    /// Not compressed; each byte at its offset within the block, so the data starts in the middle and wraps.
    Interlaced {
        /// Where in the block the data starts.
        rotation: u32,
        /// Block size.
        block: u32,
    },
}

impl Decoder {
    /// The decoder of an algorithm by its number; `None` if there is none here.
    pub fn of_algorithm(number: u8, padded: bool) -> Option<Self> {
        match number {
            ALGORITHM_LZ4 => Some(Self::Lz4 { padded }),
            ALGORITHM_DEFLATE => Some(Self::Deflate),
            ALGORITHM_ZSTD => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Fills `output` from the start of what `cluster` decodes to; `None` if it is no valid cluster or too short.
    pub fn decode(self, cluster: &[u8], output: &mut [u8]) -> Option<()> {
        match self {
            Self::Lz4 { padded: true } => decode_lz4(strip_padding(cluster), output),
            Self::Lz4 { padded: false } => decode_lz4(cluster, output),
            Self::Deflate => decode_deflate(strip_padding(cluster), output),
            Self::Zstd => decode_zstd(strip_padding(cluster), output),
            Self::Interlaced { rotation, block } => {
                let first = output.len().min(block.checked_sub(rotation)? as usize);
                let (head, rest) = output.split_at_mut(first);
                head.copy_from_slice(cluster.get(rotation as usize..)?.get(..first)?);
                rest.copy_from_slice(cluster.get(..rest.len())?);
                Some(())
            }
        }
    }
}

fn strip_padding(cluster: &[u8]) -> &[u8] {
    &cluster[cluster.iter().position(|byte| *byte != 0).unwrap_or(cluster.len())..]
}

fn decode_zstd(input: &[u8], output: &mut [u8]) -> Option<()> {
    let mut context = DCtx::try_create()?;
    context.set_parameter(DParameter::WindowLogMax(u32::from(ZSTD_WINDOW_BITS))).ok()?;
    let mut input = InBuffer::around(input);
    let mut output = OutBuffer::around(output);
    while output.pos() < output.capacity() {
        let before = (input.pos(), output.pos());
        context.decompress_stream(&mut output, &mut input).ok()?;
        if before == (input.pos(), output.pos()) {
            return None;
        }
    }
    Some(())
}

fn decode_deflate(input: &[u8], output: &mut [u8]) -> Option<()> {
    let mut stream = Decompress::new(false);
    // `BufError` too is an end when the output is full: only the start of the cluster may be wanted.
    stream.decompress(input, output, FlushDecompress::Finish).ok()?;
    (stream.total_out() == output.len() as u64).then_some(())
}

/// The LZ4 block format. `lz4`'s own decoder wants the exact size of input and output; a cluster that several files
/// share tells neither.
fn decode_lz4(input: &[u8], output: &mut [u8]) -> Option<()> {
    let mut input = input.iter();
    let mut at = 0;
    while at < output.len() {
        let token = *input.next()?;
        let literals = lz4_length(token >> 4, &mut input)?.min(output.len() - at);
        let rest = input.as_slice();
        output[at..at + literals].copy_from_slice(rest.get(..literals)?);
        input = rest[literals..].iter();
        at += literals;
        if at == output.len() {
            break;
        }
        let distance = usize::from(u16::from_le_bytes([*input.next()?, *input.next()?]));
        let length = lz4_length(token & 15, &mut input)?.checked_add(4)?.min(output.len() - at);
        let from = at.checked_sub(distance).filter(|from| *from < at)?;
        if length <= distance {
            output.copy_within(from..from + length, at);
        } else {
            // The match overlaps what it makes.
            for position in 0..length {
                output[at + position] = output[from + position];
            }
        }
        at += length;
    }
    Some(())
}

fn lz4_length(nibble: u8, input: &mut std::slice::Iter<'_, u8>) -> Option<usize> {
    let mut length = usize::from(nibble);
    if nibble == 15 {
        loop {
            let more = *input.next()?;
            length = length.checked_add(usize::from(more))?;
            if more != 255 {
                break;
            }
        }
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> Vec<u8> {
        let mut text = vec![b'r'; 1000];
        text.extend((0..3000_u32).flat_map(|n| format!("line {n} of {}\n", n * 7919 % 1000).into_bytes()));
        text
    }

    #[test]
    fn decodes_what_it_encodes_also_in_part() {
        let text = text();
        for compression in [Compression::Lz4 { level: 9 }, Compression::Zstd { level: 9 }] {
            let mut cluster = vec![0; 77];
            cluster.extend_from_slice(Encoder::new(compression).unwrap().encode(&text).unwrap());
            let number = if matches!(compression, Compression::Zstd { .. }) { ALGORITHM_ZSTD } else { ALGORITHM_LZ4 };
            let decoder = Decoder::of_algorithm(number, true).unwrap();
            for size in [1, 999, 5000, text.len()] {
                let mut output = vec![0; size];
                assert_eq!(decoder.decode(&cluster, &mut output), Some(()), "{compression:?} {size}");
                assert_eq!(output, text[..size]);
            }
            assert_eq!(decoder.decode(&cluster, &mut vec![0; text.len() + 1]), None);
            assert_eq!(decoder.decode(&cluster[..cluster.len() / 2], &mut vec![0; text.len()]), None);
            assert_eq!(decoder.decode(&[0; 4096], &mut [0; 10]), None);
        }
    }

    #[test]
    fn decodes_deflate() {
        let text = text();
        let mut encoder = flate2::write::DeflateEncoder::new(vec![0; 5], flate2::Compression::new(6));
        io::Write::write_all(&mut encoder, &text).unwrap();
        let cluster = encoder.finish().unwrap();
        for size in [1, 999, text.len()] {
            let mut output = vec![0; size];
            assert_eq!(Decoder::Deflate.decode(&cluster, &mut output), Some(()));
            assert_eq!(output, text[..size]);
        }
        assert_eq!(Decoder::Deflate.decode(&cluster, &mut vec![0; text.len() + 1]), None);
    }

    #[test]
    fn interlaced_data_wraps_within_its_block() {
        let decoder = Decoder::Interlaced { rotation: 3, block: 8 };
        let mut output = [0; 7];
        assert_eq!(decoder.decode(b"fg_abcde", &mut output), Some(()));
        assert_eq!(&output, b"abcdefg");
        assert_eq!(decoder.decode(b"fg", &mut output), None);
    }
}
