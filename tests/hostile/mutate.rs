//! Mutations: what an attacker, a bad disk or a cut connection does to bytes. Each is named by a number, and the same
//! number always makes the same input.

/// Inputs do not grow beyond this, unless their seed is larger.
const SIZE_MAX: usize = 1 << 18;

pub struct Mutator {
    state: u64,
}

impl Mutator {
    pub fn new(number: u64) -> Self {
        Self { state: number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x0123_4567_89ab_cdef }
    }

    /// splitmix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `end`; 0 for 0.
    fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    /// One of the seeds, changed in a few places.
    pub fn mutate(mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..1 + self.below(4) * self.below(3) {
            self.step(&mut bytes, seeds);
        }
        bytes
    }

    fn step(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.place(bytes);
        match self.below(14) {
            0 => self.flip(bytes, at),
            1 => self.set(bytes, at),
            2..=5 => self.integer(bytes, at),
            6 => self.digits(bytes, at),
            7 => bytes.truncate(at),
            8 => self.cut(bytes, at),
            9 => self.repeat(bytes, at),
            10 => self.splice(bytes, at, seeds),
            11 => self.copy(bytes, at),
            12 => self.line(bytes),
            _ => self.word(bytes, at),
        }
    }

    /// Where to strike: mostly where something stands, because images are mostly zeros.
    fn place(&mut self, bytes: &[u8]) -> usize {
        let mut at = self.below(bytes.len() + 1);
        if self.below(4) > 0 {
            let ahead = bytes[at..].iter().take(1 << 16).position(|byte| *byte != 0);
            at = ahead.map_or_else(|| bytes.iter().position(|byte| *byte != 0).unwrap_or(at), |ahead| at + ahead);
        }
        // Fields are mostly aligned.
        if self.below(3) == 0 { at & !3 } else { at }
    }

    fn flip(&mut self, bytes: &mut [u8], at: usize) {
        let bit = self.below(8);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
    }

    fn set(&mut self, bytes: &mut [u8], at: usize) {
        let value =
            [0, 1, 0x7f, 0x80, 0xff, b'/', b'.', b'0', b'9', b'\n', b'"', b' ', self.next() as u8][self.below(13)];
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
    }

    /// Writes an integer that is likely to be at a limit over what stands there, in either order of bytes.
    fn integer(&mut self, bytes: &mut [u8], at: usize) {
        let size = [1, 2, 4, 8][self.below(4)];
        let Some(field) = bytes.get_mut(at..at + size) else { return };
        let mut old = [0; 8];
        old[..size].copy_from_slice(field);
        let old = u64::from_le_bytes(old);
        let all = u64::MAX >> (64 - 8 * size);
        let value = match self.below(10) {
            0 => 0,
            1 => all,
            2 => all >> 1,
            3 => (all >> 1) + 1,
            4 => old.wrapping_add(1),
            5 => old.wrapping_sub(1),
            6 => 1 << self.below(8 * size),
            7 => all.wrapping_sub(self.below(4096) as u64),
            8 => old << self.below(8),
            _ => self.below(0x1_0000) as u64,
        };
        let little = value.to_le_bytes();
        let value: Vec<u8> = little[..size].to_vec();
        let reverse = self.below(5) == 0;
        field.copy_from_slice(&if reverse { value.into_iter().rev().collect() } else { value });
    }

    /// Replaces the number in digits that stands next by one at a limit.
    fn digits(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit).map(|ahead| at + ahead) else { return };
        let length = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let texts = [
            "0",
            "1",
            "-1",
            "65536",
            "4294967295",
            "4294967296",
            "9223372036854775807",
            "9223372036854775808",
            "18446744073709551615",
            "99999999999999999999999999",
            "1e9",
            "0x7fffffff",
            "77777777777",
            "",
        ];
        let mut text = texts[self.below(texts.len())].to_owned();
        if self.below(3) == 0 {
            // Of the same length, as fields of fixed width want it.
            text = format!("{text:0>length$}");
            text.truncate(length);
        }
        bytes.splice(start..start + length, text.bytes());
    }

    fn length(&mut self) -> usize {
        let most = [4, 16, 64, 600, 5000][self.below(5)];
        1 + self.below(most)
    }

    fn cut(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let end = (at + self.length()).min(bytes.len());
        bytes.drain(at..end);
    }

    fn repeat(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let end = (at + self.length()).min(bytes.len());
        let most = [2, 8, 100][self.below(3)];
        let times = 1 + self.below(most);
        let piece = bytes[at..end].repeat(times);
        if bytes.len() + piece.len() <= SIZE_MAX {
            bytes.splice(at..at, piece);
        }
    }

    fn splice(&mut self, bytes: &mut Vec<u8>, at: usize, seeds: &[Vec<u8>]) {
        let other = &seeds[self.below(seeds.len())];
        let start = self.place(other);
        let end = (start + self.length()).min(other.len());
        if self.below(2) == 0 {
            bytes.truncate(at);
            bytes.extend_from_slice(&other[start..]);
        } else if bytes.len() + end - start <= SIZE_MAX {
            bytes.splice(at..at, other[start..end].iter().copied());
        }
    }

    /// Copies a piece of the input over another: an index entry that stands twice, a pointer to elsewhere.
    fn copy(&mut self, bytes: &mut [u8], at: usize) {
        let length = [4, 8, 12, 16, 32, 64, 128, 512, 4096][self.below(9)];
        let from = self.place(bytes);
        if at + length <= bytes.len() && from + length <= bytes.len() {
            bytes.copy_within(from..from + length, at);
        }
    }

    /// Takes a line away, doubles it, or moves it.
    fn line(&mut self, bytes: &mut Vec<u8>) {
        let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let (from, to) = (self.below(lines.len()), self.below(lines.len()));
        if lines.is_empty() || lines.len() > 10_000 {
            return;
        }
        match self.below(3) {
            0 => drop(lines.remove(from)),
            1 => lines.insert(to, lines[from].clone()),
            _ => lines.swap(from, to),
        }
        *bytes = lines.concat();
    }

    /// Puts a word in that means something to one format or another.
    fn word(&mut self, bytes: &mut Vec<u8>, at: usize) {
        const WORDS: &[&[u8]] = &[
            b"../",
            b"/",
            b"\0",
            b"\n\n",
            b"\r\n",
            b"\"\"\"",
            b"[[",
            b"]]",
            b"{",
            b"}",
            b"\\",
            b"\\x",
            b"\\u0000",
            b"=",
            b": ",
            b" | ",
            b", ",
            b"(>= ",
            b")",
            b"~",
            b"-",
            b"+",
            b":",
            b"\xff\xfe",
            b"\xc3",
            b"\xe2\x80\xae",
            b"\x1b[2J",
            b"..",
            b".",
            b"hardlink target=/",
            b"- ",
            b"-----",
            b"#",
            b"null",
            b"true",
            b"1e999",
            b"'",
            b"$",
            b"TRAILER!!!\0",
            b"070701",
            b"./",
            b"\t",
            "ä".as_bytes(),
            "\u{85}".as_bytes(),
            "İ".as_bytes(),
        ];
        let word = WORDS[self.below(WORDS.len())];
        if self.below(2) == 0 {
            let end = (at + word.len()).min(bytes.len());
            bytes.splice(at..end, word.iter().copied());
        } else {
            bytes.splice(at..at, word.iter().copied());
        }
    }
}
