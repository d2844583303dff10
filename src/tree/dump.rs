//! A tree as text that can be read, compared by `diff`, and turned into a tree again.
//!
//! ```text
//! / directory 0755 0:0 1700000000.000000000
//! /bin symlink 0777 0:0 1700000000.000000000 target=usr/bin
//! /dev directory 0755 0:0 1700000000.000000000
//! /dev/null character-device 0666 0:0 1700000000.000000000 device=1:3
//! /etc directory 0755 0:0 1700000000.000000000
//! /etc/motd file 0644 0:0 1700000000.000000000 size=3 sha256=2c26b4...  xattr:user.a=1
//! /etc/motd2 hardlink target=/etc/motd
//! ```
//!
//! One line per name, in the order of [`Tree::walk`], so equal trees have equal texts. The first name of an inode has
//! its metadata, each further one names the first. Path, type, mode (octal), owner and group, time (seconds and
//! nanoseconds after them, also before 1970), then what belongs to the type, then extended attributes in byte order.
//! Bytes that are not printable ASCII, and `\`, are `\xff`; a space, and `=` in an attribute's name, too. Where a
//! file's holes are is not told: files with the same bytes are equal.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::{Content, DeviceNumber, Kind, Metadata, Node, NodeId, Timestamp, Tree, TreeError, TreePath, split};
use crate::digest::Digest;

/// Why a text is no tree.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the tree's text: {fault}")]
pub struct DumpError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub fault: DumpFault,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DumpFault {
    /// There is no root directory in the first line.
    #[error("the first line has to be the directory `/`")]
    Root,
    /// A field is missing or not what it should be.
    #[error("expected {0}")]
    Expected(&'static str),
    /// An escape that is not `\x` and two lower-case hexadecimal digits.
    #[error("an escape is \\x and two lower-case hexadecimal digits")]
    Escape,
    /// The name cannot be added.
    #[error(transparent)]
    Tree(TreeError),
    /// Nobody has this content.
    #[error("no content with digest {0} and {1} bytes is known")]
    Content(Digest, u64),
}

/// Writes `tree` as text. Contents whose digest is not known are read.
pub fn write(tree: &Tree, out: &mut dyn Write) -> io::Result<()> {
    let mut first: BTreeMap<NodeId, Vec<u8>> = BTreeMap::new();
    for (path, id) in tree.walk() {
        let shown = [b"/", path.as_slice()].concat();
        out.write_all(&escape(&shown, false))?;
        if let Some(target) = first.get(&id) {
            out.write_all(b" hardlink target=")?;
            out.write_all(&escape(target, false))?;
        } else {
            node(tree.node(id), out)?;
            if tree.entries(id).is_none() {
                first.insert(id, shown);
            }
        }
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn node(node: &Node, out: &mut dyn Write) -> io::Result<()> {
    let Metadata { mode, uid, gid, mtime, xattrs } = &node.metadata;
    let Timestamp { seconds, nanoseconds } = mtime;
    write!(out, " {} {mode:04o} {uid}:{gid} {seconds}.{nanoseconds:09}", word(&node.kind))?;
    match &node.kind {
        Kind::File(content) => write!(out, " size={} sha256={}", content.size(), content.digest()?)?,
        Kind::Symlink(target) => {
            out.write_all(b" target=")?;
            out.write_all(&escape(target, false))?;
        }
        Kind::CharacterDevice(device) | Kind::BlockDevice(device) => {
            write!(out, " device={}:{}", device.major, device.minor)?;
        }
        Kind::Directory(_) | Kind::Fifo | Kind::Socket => {}
    }
    for (name, value) in xattrs {
        out.write_all(b" xattr:")?;
        out.write_all(&escape(name, true))?;
        out.write_all(b"=")?;
        out.write_all(&escape(value, false))?;
    }
    Ok(())
}

fn word(kind: &Kind) -> String {
    kind.word().replace(' ', "-")
}

fn escape(bytes: &[u8], is_name: bool) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\\' => text.extend_from_slice(b"\\x5c"),
            b'=' if is_name => text.extend_from_slice(b"\\x3d"),
            0x21..=0x7e => text.push(*byte),
            _ => text.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    text
}

/// The tree that `text` tells. `lookup` gives the content of a file by its path, size and digest.
pub fn parse(
    text: &[u8],
    mut lookup: impl FnMut(&TreePath, u64, &Digest) -> Option<Content>,
) -> Result<Tree, DumpError> {
    let mut tree: Option<Tree> = None;
    let lines = text.split(|byte| *byte == b'\n');
    for (number, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
        parse_line(line, &mut tree, &mut lookup).map_err(|fault| DumpError { line: number + 1, fault })?;
    }
    tree.ok_or(DumpError { line: 1, fault: DumpFault::Root })
}

fn parse_line(
    line: &[u8],
    tree: &mut Option<Tree>,
    lookup: &mut impl FnMut(&TreePath, u64, &Digest) -> Option<Content>,
) -> Result<(), DumpFault> {
    let mut fields = line.split(|byte| *byte == b' ');
    let path = unescape(fields.next().unwrap_or_default())?;
    let kind = fields.next().ok_or(DumpFault::Expected("a type"))?;
    let tree = match tree {
        Some(tree) => tree,
        None if path == b"/" && kind == b"directory" => {
            *tree = Some(Tree::new(parse_metadata(&mut fields)?.with_xattrs(fields)?));
            return Ok(());
        }
        None => return Err(DumpFault::Root),
    };
    let parent = split(&path).and_then(|(parent, name)| Some((tree.lookup(parent)?, name)));
    let Some((parent, name)) = parent else {
        return Err(DumpFault::Tree(TreeError::NotFound(path)));
    };
    if kind == b"hardlink" {
        let target = unescape(value(&mut fields, b"target=", "target=PATH")?)?;
        let existing = tree.lookup(&target).ok_or(DumpFault::Tree(TreeError::NotFound(target)))?;
        return tree.link_in(parent, name, existing).map_err(DumpFault::Tree);
    }
    let metadata = parse_metadata(&mut fields)?;
    let kind = parse_kind(kind, &path, &mut fields, lookup)?;
    let node = Node { metadata: metadata.with_xattrs(fields)?, kind };
    tree.insert_in(parent, name, node).map_err(DumpFault::Tree)?;
    Ok(())
}

fn parse_metadata<'a>(fields: &mut impl Iterator<Item = &'a [u8]>) -> Result<Metadata, DumpFault> {
    let mode = next(fields).and_then(|text| u16::from_str_radix(text, 8).ok());
    let mode = mode.filter(|mode| *mode <= 0o7777).ok_or(DumpFault::Expected("a mode of four octal digits"))?;
    let owner = next(fields).and_then(|text| text.split_once(':'));
    let ids = owner.and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    let (uid, gid) = ids.ok_or(DumpFault::Expected("UID:GID"))?;
    let time = next(fields).and_then(|text| text.split_once('.'));
    let time = time.filter(|(_, fraction)| fraction.len() == 9 && fraction.bytes().all(|byte| byte.is_ascii_digit()));
    let time = time.and_then(|(seconds, fraction)| Some((seconds.parse().ok()?, fraction.parse().ok()?)));
    let (seconds, nanoseconds) = time.ok_or(DumpFault::Expected("SECONDS.NANOSECONDS, the latter of nine digits"))?;
    Ok(Metadata { mode, uid, gid, mtime: Timestamp { seconds, nanoseconds }, xattrs: BTreeMap::new() })
}

fn next<'a>(fields: &mut impl Iterator<Item = &'a [u8]>) -> Option<&'a str> {
    std::str::from_utf8(fields.next()?).ok()
}

/// What stands behind `key` in the next field.
fn value<'a>(
    fields: &mut impl Iterator<Item = &'a [u8]>,
    key: &[u8],
    what: &'static str,
) -> Result<&'a [u8], DumpFault> {
    fields.next().and_then(|field| field.strip_prefix(key)).ok_or(DumpFault::Expected(what))
}

fn parse_kind<'a>(
    kind: &[u8],
    path: &TreePath,
    fields: &mut impl Iterator<Item = &'a [u8]>,
    lookup: &mut impl FnMut(&TreePath, u64, &Digest) -> Option<Content>,
) -> Result<Kind, DumpFault> {
    let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).unwrap_or_default();
    let device = |fields: &mut dyn Iterator<Item = &'a [u8]>| {
        let expected = DumpFault::Expected("device=MAJOR:MINOR");
        let field = fields.next().and_then(|field| field.strip_prefix(b"device=")).map(text);
        let numbers = field.and_then(|field| field.split_once(':'));
        let numbers = numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        numbers.map(|(major, minor)| DeviceNumber { major, minor }).ok_or(expected)
    };
    Ok(match kind {
        b"directory" => Kind::directory(),
        b"file" => {
            let size = text(value(fields, b"size=", "size=BYTES")?);
            let size = size.parse().map_err(|_| DumpFault::Expected("a size in bytes"))?;
            let digest = text(value(fields, b"sha256=", "sha256=DIGEST")?);
            let digest = digest.parse().map_err(|_| DumpFault::Expected("64 lower-case hexadecimal digits"))?;
            let content = lookup(path, size, &digest).filter(|content| content.size() == size);
            Kind::File(content.ok_or(DumpFault::Content(digest, size))?)
        }
        b"symlink" => Kind::Symlink(unescape(value(fields, b"target=", "target=PATH")?)?),
        b"character-device" => Kind::CharacterDevice(device(fields)?),
        b"block-device" => Kind::BlockDevice(device(fields)?),
        b"fifo" => Kind::Fifo,
        b"socket" => Kind::Socket,
        _ => return Err(DumpFault::Expected("a type: file, directory, symlink, hardlink, ...")),
    })
}

impl Metadata {
    fn with_xattrs<'a>(mut self, fields: impl Iterator<Item = &'a [u8]>) -> Result<Self, DumpFault> {
        for field in fields {
            let expected = DumpFault::Expected("xattr:NAME=VALUE, each name once, and nothing else");
            let Some(field) = field.strip_prefix(b"xattr:") else { return Err(expected) };
            let Some(equals) = field.iter().position(|byte| *byte == b'=') else { return Err(expected) };
            let (name, value) = (unescape(&field[..equals])?, unescape(&field[equals + 1..])?);
            if self.xattrs.insert(name, value).is_some() {
                return Err(expected);
            }
        }
        Ok(self)
    }
}

fn unescape(text: &[u8]) -> Result<Vec<u8>, DumpFault> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        if *first != b'\\' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let digits: [u8; 2] = match after {
            [b'x', high, low, ..] => [*high, *low],
            _ => return Err(DumpFault::Escape),
        };
        let digits = std::str::from_utf8(&digits).ok().filter(|digits| !digits.bytes().any(|b| b.is_ascii_uppercase()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or(DumpFault::Escape)?;
        bytes.push(byte);
        rest = &after[3..];
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Tree {
        let mut tree = Tree::default();
        let mut metadata = Metadata::with_mode(0o4755);
        metadata.mtime = Timestamp { seconds: -5, nanoseconds: 7 };
        metadata.xattrs.insert(b"user.a=b".to_vec(), b"\0 x=\xff".to_vec());
        let file = Node { metadata: metadata.clone(), kind: Kind::File(Content::from_bytes("foo")) };
        tree.insert(b"with space\n\xff\\", file).unwrap();
        tree.link(b"with space\n\xff\\", b"z").unwrap();
        let device = DeviceNumber { major: 259, minor: 70_000 };
        for (name, kind) in [
            (&b"b"[..], Kind::BlockDevice(device)),
            (b"c", Kind::CharacterDevice(device)),
            (b"d", Kind::directory()),
            (b"f", Kind::Fifo),
            (b"l", Kind::Symlink(b"/a b".to_vec())),
            (b"s", Kind::Socket),
        ] {
            tree.insert(name, Node { metadata: Metadata::with_mode(0o600), kind }).unwrap();
        }
        tree
    }

    fn text(tree: &Tree) -> Vec<u8> {
        let mut text = Vec::new();
        write(tree, &mut text).unwrap();
        text
    }

    fn foo(_: &TreePath, _: u64, digest: &Digest) -> Option<Content> {
        (*digest == Digest::of(b"foo")).then(|| Content::from_bytes("foo"))
    }

    #[test]
    fn a_line_tells_all_of_a_name() {
        let text = String::from_utf8(text(&sample())).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "/ directory 0755 0:0 0.000000000");
        assert_eq!(lines[1], "/b block-device 0600 0:0 0.000000000 device=259:70000");
        assert_eq!(lines[5], "/l symlink 0600 0:0 0.000000000 target=/a\\x20b");
        assert_eq!(
            lines[7],
            format!(
                "/with\\x20space\\x0a\\xff\\x5c file 4755 0:0 -5.000000007 size=3 sha256={} xattr:user.a\\x3db=\\x00\\x20x=\\xff",
                Digest::of(b"foo")
            )
        );
        assert_eq!(lines[8], "/z hardlink target=/with\\x20space\\x0a\\xff\\x5c");
    }

    #[test]
    fn the_text_of_a_tree_becomes_the_tree_again() {
        let text = text(&sample());
        let tree = parse(&text, foo).unwrap();
        assert_eq!(super::tests::text(&tree), text);
        assert_eq!(tree.lookup(b"z"), tree.lookup(b"with space\n\xff\\"));
    }

    #[test]
    fn a_wrong_line_is_told_by_its_number() {
        let fault = |line: &str| {
            let text = format!("/ directory 0755 0:0 0.000000000\n{line}\n");
            let error = parse(text.as_bytes(), foo).unwrap_err();
            assert_eq!(error.line, 2);
            error.fault
        };
        assert_eq!(fault("/a fifo 755 0:0 0.0"), DumpFault::Expected("SECONDS.NANOSECONDS, the latter of nine digits"));
        assert_eq!(fault("/a fifo 10000 0:0 0.000000000"), DumpFault::Expected("a mode of four octal digits"));
        assert_eq!(fault("/a\\x2 fifo"), DumpFault::Escape);
        assert_eq!(fault("/a\\xFF fifo"), DumpFault::Escape);
        assert_eq!(fault("/a/b fifo 0755 0:0 0.000000000"), DumpFault::Tree(TreeError::NotFound(b"/a/b".to_vec())));
        assert_eq!(fault("/a hardlink target=/b"), DumpFault::Tree(TreeError::NotFound(b"/b".to_vec())));
        let other = Digest::of(b"bar");
        let line = format!("/a file 0644 0:0 0.000000000 size=3 sha256={other}");
        assert_eq!(fault(&line), DumpFault::Content(other, 3));
        assert_eq!(parse(b"", foo).unwrap_err().fault, DumpFault::Root);
        assert_eq!(parse(b"/a fifo", foo).unwrap_err().fault, DumpFault::Root);
    }

    proptest! {
        #[test]
        fn any_name_and_attribute_come_back(name in "[^/\0]{1,60}", bytes in proptest::collection::vec(1_u8.., 0..40)) {
            prop_assume!(name.len() <= 255 && name != "." && name != "..");
            let mut tree = sample();
            let mut metadata = Metadata::with_mode(0);
            metadata.xattrs.insert(bytes.clone(), bytes);
            let _ = tree.replace(name.as_bytes(), Node { metadata, kind: Kind::Fifo });
            let text = text(&tree);
            prop_assert_eq!(super::tests::text(&parse(&text, foo).unwrap()), text);
        }

        #[test]
        fn changed_text_never_panics(position in 0_usize..800, byte: u8) {
            let mut text = text(&sample());
            let position = position % text.len();
            text[position] = byte;
            let _ = parse(&text, foo);
        }
    }
}
