//! Digests of blocks, four at a time where the processor lets them overlap.
//!
//! The SHA instructions of x86-64 take longer to finish than to start: one digest keeps the unit busy for a third of the
//! time, because each round waits for the one before. Four independent blocks in turn fill the gaps, and a hash tree is
//! nothing but independent blocks. Everything else (other processors, other salts, the blocks that are left over) goes
//! through the `sha2` crate, which is also what the tests compare with.
//!
//! Specification: FIPS 180-4, section 6.2.2; Intel, "SHA Extensions" (2013), for the order of words in registers.

use sha2::{Digest as _, Sha256};

use super::format::{BLOCK_SIZE, DIGEST_SIZE};

/// Blocks hashed at a time.
pub(crate) const LANES: usize = 4;
/// The only salt size that has a short cut: what adamant and systemd-repart write.
pub(crate) const SALT_SIZE: usize = 32;

/// Hashes blocks with a salt in front of each.
#[derive(Clone)]
pub(super) struct BlockHasher {
    salted: Sha256,
    salt: Option<[u8; SALT_SIZE]>,
}

impl BlockHasher {
    /// For blocks with `salt` in front.
    pub fn new(salt: &[u8]) -> Self {
        Self { salted: Sha256::new_with_prefix(salt), salt: salt.try_into().ok() }
    }

    /// The digest of one block.
    pub fn digest(&self, block: &[u8]) -> [u8; DIGEST_SIZE] {
        self.salted.clone().chain_update(block).finalize().into()
    }

    /// The digests of the blocks in `blocks`, one after the other, to `digests`.
    pub fn digests(&self, blocks: &[u8], digests: &mut [u8]) {
        debug_assert_eq!(blocks.len() / BLOCK_SIZE, digests.len() / DIGEST_SIZE);
        let groups = blocks.chunks(LANES * BLOCK_SIZE).zip(digests.chunks_mut(LANES * DIGEST_SIZE));
        for (blocks, digests) in groups {
            match self.salt.and_then(|salt| crate::sys::sha256_lanes(&salt, lanes(blocks)?)) {
                Some(four) => digests.copy_from_slice(four.as_flattened()),
                None => {
                    for (block, digest) in blocks.chunks(BLOCK_SIZE).zip(digests.chunks_mut(DIGEST_SIZE)) {
                        digest.copy_from_slice(&self.digest(block));
                    }
                }
            }
        }
    }
}

/// Digests compared at a time, on the stack.
const COMPARED: usize = 16;

impl BlockHasher {
    /// The number of the first block whose digest is not the expected one. There may be more digests than blocks: a
    /// level is padded.
    pub fn first_mismatch(&self, blocks: &[u8], expected: &[u8]) -> Option<usize> {
        let mut found = [0; COMPARED * DIGEST_SIZE];
        let groups = blocks.chunks(COMPARED * BLOCK_SIZE).zip(expected.chunks(COMPARED * DIGEST_SIZE));
        groups.enumerate().find_map(|(group, (blocks, expected))| {
            let found = &mut found[..blocks.len() / BLOCK_SIZE * DIGEST_SIZE];
            self.digests(blocks, found);
            let mut pairs = found.chunks(DIGEST_SIZE).zip(expected.chunks(DIGEST_SIZE));
            Some(group * COMPARED + pairs.position(|(found, expected)| found != expected)?)
        })
    }
}

/// Four whole blocks; `None` if there are fewer.
fn lanes(blocks: &[u8]) -> Option<[&[u8; BLOCK_SIZE]; LANES]> {
    let four: &[[u8; BLOCK_SIZE]; LANES] = blocks.as_chunks().0.try_into().ok()?;
    Some(four.each_ref())
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::digests as x86_64_digests;

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::*;

    use super::{BLOCK_SIZE, DIGEST_SIZE, LANES, SALT_SIZE};

    /// Bytes of a message block of SHA-256.
    const MESSAGE_BLOCK: usize = 64;
    /// First and last message block hold half a message block of data: the salt is in front, the padding behind.
    const HALF: usize = MESSAGE_BLOCK / 2;

    /// Round constants.
    const K: [u32; 64] = [
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98,
        0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
        0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8,
        0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
        0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
        0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
        0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2,
    ];

    /// State of the four digests, as the instructions want it: words A, B, E, F and C, D, G, H.
    struct State {
        abef: [__m128i; LANES],
        cdgh: [__m128i; LANES],
    }

    /// SHA-256(salt, block) of four blocks.
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    pub(crate) fn digests(salt: &[u8; SALT_SIZE], blocks: [&[u8; BLOCK_SIZE]; LANES]) -> [[u8; DIGEST_SIZE]; LANES] {
        let mut state = State {
            abef: [words([0x6a09e667, 0xbb67ae85, 0x510e527f, 0x9b05688c]); LANES],
            cdgh: [words([0x3c6ef372, 0xa54ff53a, 0x1f83d9ab, 0x5be0cd19]); LANES],
        };
        let (mut first, mut last) = ([[0; MESSAGE_BLOCK]; LANES], [[0; MESSAGE_BLOCK]; LANES]);
        let bits = ((SALT_SIZE + BLOCK_SIZE) as u64 * 8).to_be_bytes();
        for lane in 0..LANES {
            first[lane][..HALF].copy_from_slice(salt);
            first[lane][HALF..].copy_from_slice(&blocks[lane][..HALF]);
            last[lane][..HALF].copy_from_slice(&blocks[lane][BLOCK_SIZE - HALF..]);
            last[lane][HALF] = 0x80;
            last[lane][MESSAGE_BLOCK - 8..].copy_from_slice(&bits);
        }
        compress(&mut state, first.each_ref());
        let middle = blocks.map(|block| block[HALF..BLOCK_SIZE - HALF].as_chunks::<MESSAGE_BLOCK>().0);
        for index in 0..BLOCK_SIZE / MESSAGE_BLOCK - 1 {
            compress(&mut state, middle.map(|blocks| &blocks[index]));
        }
        compress(&mut state, last.each_ref());
        std::array::from_fn(|lane| to_bytes(state.abef[lane], state.cdgh[lane]))
    }

    /// One message block of each lane: sixteen times four rounds, lane by lane within each.
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    #[inline]
    fn compress(state: &mut State, blocks: [&[u8; MESSAGE_BLOCK]; LANES]) {
        let (abef, cdgh) = (state.abef, state.cdgh);
        let mut schedule = [[_mm_setzero_si128(); 4]; LANES];
        for (words, block) in schedule.iter_mut().zip(blocks) {
            for (words, quarter) in words.iter_mut().zip(block.chunks_exact(16)) {
                *words = load(quarter);
            }
        }
        for group in 0..16 {
            let constants = _mm_set_epi32(
                K[group * 4 + 3] as i32,
                K[group * 4 + 2] as i32,
                K[group * 4 + 1] as i32,
                K[group * 4] as i32,
            );
            for (lane, w) in schedule.iter_mut().enumerate() {
                if group >= 4 {
                    w[group % 4] = next_words(w[group % 4], w[(group + 1) % 4], w[(group + 2) % 4], w[(group + 3) % 4]);
                }
                let sum = _mm_add_epi32(w[group % 4], constants);
                state.cdgh[lane] = _mm_sha256rnds2_epu32(state.cdgh[lane], state.abef[lane], sum);
                let upper = _mm_shuffle_epi32(sum, 0x0e);
                state.abef[lane] = _mm_sha256rnds2_epu32(state.abef[lane], state.cdgh[lane], upper);
            }
        }
        for lane in 0..LANES {
            state.abef[lane] = _mm_add_epi32(state.abef[lane], abef[lane]);
            state.cdgh[lane] = _mm_add_epi32(state.cdgh[lane], cdgh[lane]);
        }
    }

    /// The next four words of the message schedule from the sixteen before.
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    #[inline]
    fn next_words(w0: __m128i, w1: __m128i, w2: __m128i, w3: __m128i) -> __m128i {
        let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8(w3, w2, 4));
        _mm_sha256msg2_epu32(sum, w3)
    }

    /// Four words in the order of the specification's letters, the first one highest.
    #[target_feature(enable = "sse2")]
    #[inline]
    fn words(words: [u32; 4]) -> __m128i {
        _mm_set_epi32(words[0] as i32, words[1] as i32, words[2] as i32, words[3] as i32)
    }

    /// Four big-endian words of a message, the first one lowest.
    #[target_feature(enable = "ssse3")]
    #[inline]
    fn load(bytes: &[u8]) -> __m128i {
        let half = |start: usize| i64::from_le_bytes(std::array::from_fn(|i| bytes[start + i]));
        let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        _mm_shuffle_epi8(_mm_set_epi64x(half(8), half(0)), swap)
    }

    /// The digest that a state stands for.
    #[target_feature(enable = "sse4.1")]
    #[inline]
    fn to_bytes(abef: __m128i, cdgh: __m128i) -> [u8; DIGEST_SIZE] {
        let letters = [
            _mm_extract_epi32(abef, 3),
            _mm_extract_epi32(abef, 2),
            _mm_extract_epi32(cdgh, 3),
            _mm_extract_epi32(cdgh, 2),
            _mm_extract_epi32(abef, 1),
            _mm_extract_epi32(abef, 0),
            _mm_extract_epi32(cdgh, 1),
            _mm_extract_epi32(cdgh, 0),
        ];
        let mut bytes = [0; DIGEST_SIZE];
        for (target, word) in bytes.chunks_exact_mut(4).zip(letters) {
            target.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_give_what_one_digest_at_a_time_gives() {
        let noise: Vec<u8> = (0..11 * BLOCK_SIZE).map(|i| (i * i / 977 % 256) as u8).collect();
        for salt_size in [0, 31, 32, 33, 256] {
            let hasher = BlockHasher::new(&vec![0xa5; salt_size]);
            for blocks in [1, 3, 4, 5, 8, 11] {
                let data = &noise[..blocks * BLOCK_SIZE];
                let mut digests = vec![0; blocks * DIGEST_SIZE];
                hasher.digests(data, &mut digests);
                for (index, digest) in digests.chunks(DIGEST_SIZE).enumerate() {
                    let block = &data[index * BLOCK_SIZE..(index + 1) * BLOCK_SIZE];
                    let expected = Sha256::new_with_prefix(vec![0xa5; salt_size]).chain_update(block).finalize();
                    assert_eq!(digest, expected.as_slice(), "salt of {salt_size}, block {index} of {blocks}");
                }
            }
        }
    }
}
