//! One compressed cluster: bytes to bytes, by LZ4 or Zstandard.
//!
//! EROFS keeps a cluster's compressed bytes at the end of its blocks, zeros in front, and tells neither size: the
//! first byte of both formats is never zero. A Zstandard cluster is one frame (RFC 8878) with its content size and
//! without checksum; an LZ4 cluster is one block (LZ4 block format) without any framing.

use std::io;

use lz4::block::CompressionMode;
use zstd::bulk::Compressor;
use zstd::zstd_safe::{self, CParameter};

use super::Compression;

/// log2 of the largest window of a Zstandard frame: Linux refuses more than 1 MiB.
pub const ZSTD_WINDOW_BITS: u8 = 20;
/// Level by which compressibility is judged: fast, and with entropy coding.
const PROBE_LEVEL: i32 = 1;

/// The compressors of one thread, with their memory.
pub struct Encoder {
    kind: Kind,
    probe: Compressor<'static>,
    buffer: Vec<u8>,
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
                Kind::Zstd(compressor)
            }
            Compression::None => return Err(io::ErrorKind::InvalidInput.into()),
        };
        Ok(Self { kind, probe: Compressor::new(PROBE_LEVEL)?, buffer: Vec::new() })
    }

    /// `input` compressed.
    pub fn encode(&mut self, input: &[u8]) -> io::Result<&[u8]> {
        // Always room for the worst case: what Zstandard writes depends on the room that it has.
        let size = match &mut self.kind {
            Kind::Lz4(level) => {
                self.buffer.resize(lz4::block::compress_bound(input.len())?, 0);
                let mode = CompressionMode::HIGHCOMPRESSION(*level);
                lz4::block::compress_to_buffer(input, Some(mode), false, &mut self.buffer)?
            }
            Kind::Zstd(compressor) => {
                self.buffer.resize(zstd_safe::compress_bound(input.len()), 0);
                compressor.compress_to_buffer(input, self.buffer.as_mut_slice())?
            }
        };
        Ok(&self.buffer[..size])
    }

    /// A quick estimate of the compressed size of `input`.
    pub fn estimate(&mut self, input: &[u8]) -> io::Result<usize> {
        self.buffer.resize(zstd_safe::compress_bound(input.len()), 0);
        self.probe.compress_to_buffer(input, self.buffer.as_mut_slice())
    }
}
