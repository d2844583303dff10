//! What a machine says of a stage's result in the cache, signed: a text.
//!
//! ```text
//! adamant stage 1
//! stage configure
//! key 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
//! directory sandbox
//! file 1048576 <SHA-256> zstd 83211 <SHA-256> sandbox/pack
//! file 120 <SHA-256> plain 120 <SHA-256> sandbox/result.json
//! signature <key's id> <base64 of 64 bytes>
//! ```
//!
//! A line `file` has the file's size and digest, how it is packed, size and digest of what lies in the cache for it
//! (an object of that digest), and its path, which is the rest of the line. The signature ([`crate::sign`]) is over
//! every byte before its line; the first line keeps it apart from any other text that the key might sign.
//!
//! Flows in: bytes from anywhere. Flows out: an [`Entry`] that a listed key signed, of the stage and the key that were
//! asked for. Nothing but the last line is interpreted before its signature was found good.
//!
//! Invariants of an entry, checked even though it is signed: paths are relative, without empty, `.` and `..` segments
//! and control characters, in ascending order, each below directories that were named; no size is beyond its limit.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::digest::Digest;
use crate::sign::{KeyId, PublicKey, SecretKey, Signature};

/// A larger entry is none: thousands of files fit.
pub const ENTRY_MAX: usize = 1 << 20;
/// All files of a result together, unpacked: more than any disk image that fits into a store.
const RESULT_MAX: u64 = 256 << 30;
/// A path's bytes.
const PATH_MAX: usize = 1024;

const HEAD: &str = "adamant stage 1\n";

/// What a result consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The stage's name.
    pub stage: String,
    /// The digest of everything that the result depends on.
    pub key: Digest,
    /// Directories and files, in ascending order of their paths.
    pub items: Vec<Item>,
}

/// A name in a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A directory.
    Directory {
        /// Segments separated by `/`.
        path: String,
    },
    /// A file.
    File {
        /// Segments separated by `/`.
        path: String,
        /// Bytes of the file.
        size: u64,
        /// SHA-256 of the file.
        digest: Digest,
        /// What lies in the cache.
        packed: Packed,
    },
}

/// An object of the cache that holds a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// How.
    pub packing: Packing,
    /// Bytes of the object.
    pub size: u64,
    /// SHA-256 of the object, and its name.
    pub digest: Digest,
}

/// How a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// It is the object.
    Plain,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// Why an entry is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// More bytes than an entry has.
    #[error("it is larger than any entry")]
    Large,
    /// No signature at its end.
    #[error("it is not signed")]
    Unsigned,
    /// A key that nobody listed.
    #[error("it is signed by the key {0}, which is not listed")]
    Key(String),
    /// The signature is of something else.
    #[error("the signature of the key {0} is wrong")]
    Signature(KeyId),
    /// Signed, but about another stage's result.
    #[error("it is about another result: stage {stage}, key {key}")]
    Other {
        /// By its own words.
        stage: String,
        /// By its own words.
        key: Digest,
    },
    /// A line that does not belong there.
    #[error("line {line}: {why}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        why: &'static str,
    },
}

impl Item {
    /// Its path.
    pub fn path(&self) -> &str {
        match self {
            Self::Directory { path } | Self::File { path, .. } => path,
        }
    }
}

impl Entry {
    /// The text, signed.
    pub fn sign(&self, key: &SecretKey) -> String {
        let text = self.text();
        let signature = key.sign(text.as_bytes());
        text + &format!("signature {} {signature}\n", key.public().id())
    }

    /// What is signed.
    fn text(&self) -> String {
        let mut text = format!("{HEAD}stage {}\nkey {}\n", self.stage, self.key);
        for item in &self.items {
            // Writing into a string does not fail.
            let _ = match item {
                Item::Directory { path } => writeln!(text, "directory {path}"),
                Item::File { path, size, digest, packed } => {
                    let packing = packed.packing.word();
                    writeln!(text, "file {size} {digest} {packing} {} {} {path}", packed.size, packed.digest)
                }
            };
        }
        text
    }

    /// Reads the entry of `key` of the stage `stage`, signed by one of the `listed` keys.
    pub fn read(bytes: &[u8], stage: &str, key: &Digest, listed: &[PublicKey]) -> Result<Self, EntryError> {
        let text = signed_text(bytes, listed)?;
        let entry = Self::parse(text)?;
        match entry.stage == stage && entry.key == *key {
            true => Ok(entry),
            false => Err(EntryError::Other { stage: entry.stage, key: entry.key }),
        }
    }

    fn parse(text: &str) -> Result<Self, EntryError> {
        let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
        let mut head = |prefix: &str| {
            let (line, text) = lines.next().unwrap_or((0, ""));
            text.strip_prefix(prefix).ok_or(EntryError::Line { line, why: "not the beginning of an entry" })
        };
        head(HEAD.trim_end())?;
        let stage = head("stage ")?.to_owned();
        let key = head("key ")?.parse().map_err(|_| EntryError::Line { line: 3, why: "not a digest" })?;
        let mut items: Vec<Item> = Vec::new();
        let mut directories = BTreeSet::from([""]);
        let mut room = RESULT_MAX;
        for (line, text) in lines {
            let refuse = |why| EntryError::Line { line, why };
            let item = parse_item(text).map_err(refuse)?;
            let path = match &item {
                Item::Directory { .. } => text.strip_prefix("directory ").unwrap_or_default(),
                Item::File { size, path, .. } => {
                    room = room.checked_sub(*size).ok_or(refuse("more bytes than any result has"))?;
                    &text[text.len() - path.len()..]
                }
            };
            if items.last().is_some_and(|last| last.path() >= path) {
                return Err(refuse("paths are not in ascending order"));
            }
            if !directories.contains(path.rsplit_once('/').map_or("", |(parent, _)| parent)) {
                return Err(refuse("a path below what is no directory"));
            }
            if matches!(item, Item::Directory { .. }) {
                directories.insert(path);
            }
            items.push(item);
        }
        let entry = Self { stage, key, items };
        // Sizes could be written in several ways.
        let is_canonical = entry.text() == text;
        if is_canonical { Ok(entry) } else { Err(EntryError::Line { line: 1, why: "not as this program writes it" }) }
    }
}

/// The text before the signature, which is by a listed key.
fn signed_text<'a>(bytes: &'a [u8], listed: &[PublicKey]) -> Result<&'a str, EntryError> {
    if bytes.len() > ENTRY_MAX {
        return Err(EntryError::Large);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| EntryError::Unsigned)?;
    let body = text.strip_suffix('\n').ok_or(EntryError::Unsigned)?;
    let (before, last) = body.rsplit_once('\n').ok_or(EntryError::Unsigned)?;
    let (id, signature) =
        last.strip_prefix("signature ").and_then(|rest| rest.split_once(' ')).ok_or(EntryError::Unsigned)?;
    let key = listed.iter().find(|key| key.id().to_string() == id);
    let key = key.ok_or_else(|| EntryError::Key(id.chars().filter(char::is_ascii_hexdigit).take(32).collect()))?;
    let signature: Signature = signature.parse().map_err(|_| EntryError::Signature(key.id()))?;
    let signed = &text[..before.len() + 1];
    if key.verifies(signed.as_bytes(), &signature) { Ok(signed) } else { Err(EntryError::Signature(key.id())) }
}

fn parse_item(text: &str) -> Result<Item, &'static str> {
    if let Some(path) = text.strip_prefix("directory ") {
        return Ok(Item::Directory { path: checked_path(path)? });
    }
    let rest = text.strip_prefix("file ").ok_or("neither a directory nor a file")?;
    let mut words = rest.splitn(6, ' ');
    let mut word = || words.next().ok_or("a file has size, digest, packing, size, digest and path");
    let size = word()?.parse().map_err(|_| "not a size")?;
    let digest = word()?.parse().map_err(|_| "not a digest")?;
    let packing = Packing::of(word()?).ok_or("an unknown packing")?;
    let packed_size: u64 = word()?.parse().map_err(|_| "not a size")?;
    let packed = Packed { packing, size: packed_size, digest: word()?.parse().map_err(|_| "not a digest")? };
    if packed.size > packing.size_max(size) {
        return Err("packed, the file is larger than it can be");
    }
    if packing == Packing::Plain && (packed.size, packed.digest) != (size, digest) {
        return Err("a plain file is its own object");
    }
    Ok(Item::File { path: checked_path(word()?)?, size, digest, packed })
}

/// The path, if it stays within the result.
pub(super) fn checked_path(path: &str) -> Result<String, &'static str> {
    if path.len() > PATH_MAX || path.chars().any(|c| c.is_control() || c == '\\') {
        return Err("a path that is too long or has control characters");
    }
    match path.split('/').any(|segment| matches!(segment, "" | "." | "..") || segment.len() > 255) {
        true => Err("a path that leads elsewhere"),
        false => Ok(path.to_owned()),
    }
}

impl Packing {
    fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Zstd => "zstd",
        }
    }

    fn of(word: &str) -> Option<Self> {
        [Self::Plain, Self::Zstd].into_iter().find(|packing| packing.word() == word)
    }

    /// The most bytes that a file of `size` bytes can take: what does not compress costs a few bytes for each block
    /// (`ZSTD_COMPRESSBOUND`).
    fn size_max(self, size: u64) -> u64 {
        match self {
            Self::Plain => size,
            Self::Zstd => size.saturating_add(size / 128).saturating_add(64 << 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let digest = Digest::of(b"content");
        let packed = Packed { packing: Packing::Zstd, size: 5, digest: Digest::of(b"packed") };
        let plain = Packed { packing: Packing::Plain, size: 7, digest };
        Entry {
            stage: "configure".to_owned(),
            key: Digest::of(b"key"),
            items: vec![
                Item::Directory { path: "sandbox".to_owned() },
                Item::File { path: "sandbox/a name".to_owned(), size: 7, digest, packed: plain },
                Item::File { path: "z".to_owned(), size: 1 << 30, digest, packed },
            ],
        }
    }

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_random([seed; 32])
    }

    fn read(text: &str, listed: &[PublicKey]) -> Result<Entry, EntryError> {
        Entry::read(text.as_bytes(), "configure", &Digest::of(b"key"), listed)
    }

    #[test]
    fn a_signed_entry_is_read_back_by_who_lists_its_key() {
        let text = entry().sign(&key(1));
        assert_eq!(read(&text, &[key(2).public(), key(1).public()]), Ok(entry()));
        assert_eq!(read(&text, &[key(2).public()]), Err(EntryError::Key(key(1).public().id().to_string())));
        assert!(matches!(read(&text, &[]), Err(EntryError::Key(_))));
    }

    #[test]
    fn no_byte_can_be_changed() {
        let text = entry().sign(&key(1)).into_bytes();
        for position in 0..text.len() {
            let mut changed = text.clone();
            changed[position] ^= 1;
            let read = Entry::read(&changed, "configure", &Digest::of(b"key"), &[key(1).public()]);
            assert!(read.is_err(), "byte {position}");
            let cut = Entry::read(&text[..position], "configure", &Digest::of(b"key"), &[key(1).public()]);
            assert!(cut.is_err(), "cut at {position}");
        }
    }

    #[test]
    fn an_entry_of_another_stage_or_key_is_not_taken_for_the_one_asked_for() {
        let text = entry().sign(&key(1));
        let listed = [key(1).public()];
        let other = |stage, key| Entry::read(text.as_bytes(), stage, &key, &listed);
        assert!(matches!(other("image", Digest::of(b"key")), Err(EntryError::Other { .. })));
        assert!(matches!(other("configure", Digest::of(b"other")), Err(EntryError::Other { .. })));
    }

    /// What a line says, signed: the invariants hold whatever the signer did.
    fn refusal(line: &str) -> &'static str {
        let text = format!("{HEAD}stage configure\nkey {}\n{line}\n", Digest::of(b"key"));
        let text = text.clone() + &format!("signature {} {}\n", key(1).public().id(), key(1).sign(text.as_bytes()));
        match read(&text, &[key(1).public()]) {
            Err(EntryError::Line { why, .. }) => why,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn paths_that_lead_elsewhere_and_bombs_are_refused_though_signed() {
        let digest = Digest::of(b"");
        for path in ["/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/", ""] {
            assert_eq!(refusal(&format!("directory {path}")), "a path that leads elsewhere", "{path}");
        }
        assert_eq!(refusal("directory a\\b"), "a path that is too long or has control characters");
        assert_eq!(refusal("directory a/b"), "a path below what is no directory");
        assert_eq!(refusal("directory b\ndirectory a"), "paths are not in ascending order");
        assert_eq!(refusal("directory a\ndirectory a"), "paths are not in ascending order");
        let file = |size: u64, packed: u64| format!("file {size} {digest} zstd {packed} {digest} f");
        assert_eq!(refusal(&file(1 << 50, 10)), "more bytes than any result has");
        assert_eq!(refusal(&file(10, 1 << 20)), "packed, the file is larger than it can be");
        assert_eq!(refusal(&format!("file 1 {digest} plain 0 {digest} f")), "a plain file is its own object");
        assert_eq!(refusal(&format!("file 01 {digest} zstd 1 {digest} f")), "not as this program writes it");
        assert_eq!(refusal("symlink a b"), "neither a directory nor a file");
    }
}
