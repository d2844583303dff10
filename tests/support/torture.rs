//! A tree that holds whatever a Linux file system can hold, and what differs between two trees.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use adamant::tree::{Content, DeviceNumber, Kind, Metadata, Node, NodeId, ReadAt, Timestamp, Tree, show};

/// Reproducible bytes that do not compress.
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Bytes that compress about as well as programs do.
pub fn program(seed: u64, size: usize) -> Vec<u8> {
    let noise = noise(seed, size);
    let mut bytes = Vec::with_capacity(size);
    for (number, chunk) in noise.chunks(16).enumerate() {
        // A third noise, a third from a small alphabet, a third repeated from before.
        match chunk[0] % 3 {
            0 => bytes.extend_from_slice(chunk),
            1 => bytes.extend(chunk.iter().map(|byte| byte & 0x0f)),
            _ => {
                let from = (number * 16).saturating_sub(16 + usize::from(chunk[0] / 3) * 16);
                let again: Vec<u8> = bytes[from..].iter().copied().chain([0; 16]).take(chunk.len()).collect();
                bytes.extend_from_slice(&again);
            }
        }
    }
    bytes
}

/// Adds nodes with different metadata, each call with a further second.
pub struct Builder {
    tree: Tree,
    clock: i64,
}

impl Builder {
    /// Only a root.
    pub fn new() -> Self {
        let mut root = Metadata::with_mode(0o755);
        root.mtime = Timestamp { seconds: 1_700_000_000, nanoseconds: 1 };
        Self { tree: Tree::new(root), clock: 1_700_000_000 }
    }

    fn metadata(&mut self, mode: u16) -> Metadata {
        self.clock += 1;
        Metadata { mtime: Timestamp::from_seconds(self.clock / 4), ..Metadata::with_mode(mode) }
    }

    /// Adds a node of any kind.
    pub fn add(&mut self, path: impl AsRef<[u8]>, mode: u16, kind: Kind) -> &mut Metadata {
        let metadata = self.metadata(mode);
        let id = self.tree.insert(path.as_ref(), Node { metadata, kind }).expect("the path is free");
        &mut self.tree.node_mut(id).metadata
    }

    /// Adds a regular file.
    pub fn file(&mut self, path: impl AsRef<[u8]>, bytes: impl Into<Vec<u8>>) -> &mut Metadata {
        self.add(path, 0o644, Kind::File(Content::from_bytes(bytes)))
    }

    /// Adds a directory.
    pub fn directory(&mut self, path: impl AsRef<[u8]>) -> &mut Metadata {
        self.add(path, 0o755, Kind::directory())
    }

    /// Gives a node a further name.
    pub fn link(&mut self, existing: impl AsRef<[u8]>, path: impl AsRef<[u8]>) {
        self.tree.link(existing.as_ref(), path.as_ref()).expect("the path is free");
    }

    /// The tree.
    pub fn tree(self) -> Tree {
        self.tree
    }
}

/// How many of what is many: names in one directory, names of one file.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Names in one directory.
    pub entries: usize,
    /// Names of one file.
    pub links: usize,
}

impl Scale {
    /// Quick.
    pub const SMALL: Self = Self { entries: 2_000, links: 700 };
    /// What issue 2 asks for.
    pub const FULL: Self = Self { entries: 100_000, links: 70_000 };
}

/// Everything at once.
pub fn tree(scale: Scale) -> Tree {
    let mut builder = Builder::new();
    sizes(&mut builder);
    sparse(&mut builder);
    symlinks_and_links(&mut builder, scale);
    special(&mut builder);
    attributes(&mut builder);
    owners_and_modes(&mut builder);
    names(&mut builder, scale);
    times(&mut builder);
    duplicates(&mut builder);
    builder.tree()
}

/// Only files of all sizes: what old tools can take too.
pub fn files() -> Tree {
    let mut builder = Builder::new();
    sizes(&mut builder);
    duplicates(&mut builder);
    builder.tree()
}

fn sizes(builder: &mut Builder) {
    for size in [0, 1, 59, 60, 61, 155, 156, 160, 4031, 4032, 4033, 4064, 4065, 4095, 4096, 4097, 8191, 8192, 65537] {
        builder.file(format!("noise-{size}"), noise(size as u64, size));
        builder.file(format!("program-{size}"), program(size as u64, size));
        builder.file(format!("zeros-{size}"), vec![0; size]);
    }
    builder.file("noise-9M", noise(1, 9 << 20));
    builder.file("program-9M", program(2, (9 << 20) + 77));
    builder.file("zeros-20M", vec![0; 20 << 20]);
    let text: String = (0..220_000).map(|line| format!("line {line} of text, quite compressible\n")).collect();
    builder.file("text-8M", text);
    // Parts that compress and parts that do not, at boundaries of all kinds.
    let mut mixed = Vec::new();
    for part in 0..200 {
        let size = part as usize * 331 % 40_000;
        mixed.extend(if part % 3 == 0 { noise(part, size) } else { program(part, size) });
    }
    builder.file("mixed", mixed);
    builder.directory("small");
    for number in 0..300_u64 {
        let size = 1 + number as usize * 7919 % 3000;
        builder.file(format!("small/program-{number}"), program(number, size));
        builder.file(format!("small/noise-{number}"), noise(number, size));
    }
}

/// A content of `size` bytes, of which `extents` are noise.
fn islands(size: u64, extents: &[std::ops::Range<u64>]) -> Kind {
    Kind::File(Content::new(size, Arc::new(Pattern), 0).with_extents(extents))
}

/// Endless bytes that a function of their offset gives, so that large files take no memory.
pub struct Pattern;

impl ReadAt for Pattern {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        // Lines of 64 bytes that count up: repetitive, but no line is the one before.
        let (mut rest, mut position) = (buffer, offset);
        while !rest.is_empty() {
            let mut line: [u8; 64] = std::array::from_fn(|column| column as u8);
            line[..8].copy_from_slice(&(position / 64).to_le_bytes());
            let part = &line[(position % 64) as usize..];
            let count = part.len().min(rest.len());
            rest[..count].copy_from_slice(&part[..count]);
            (rest, position) = (&mut rest[count..], position + count as u64);
        }
        Ok(())
    }
}

fn sparse(builder: &mut Builder) {
    let mib = 1 << 20;
    builder.add("sparse-64M", 0o644, islands(64 * mib, &[mib..mib + 4096, 40 * mib..40 * mib + 8192]));
    let many: Vec<_> = (0..800).map(|number| number * 8192..number * 8192 + 4096).collect();
    builder.add("sparse-many", 0o644, islands(800 * 8192, &many));
    builder.add("sparse-empty", 0o644, islands(1_000_003, &[]));
    builder.add("sparse-little", 0o644, islands(100_000, &[0..50_001, 60_000..100_000]));
    builder.add("sparse-unaligned", 0o644, islands(100_001, &[1..2, 4095..4097, 99_999..100_001]));
}

/// Files beyond 4 GiB: nearly all hole, and one all data, if asked for.
pub fn large(with_data: bool) -> Tree {
    let mut builder = Builder::new();
    builder.add("sparse-5G", 0o644, islands(5 << 30, &[0..1, (4 << 30) - 1..(4 << 30) + 1, (5 << 30) - 1..5 << 30]));
    builder.add("sparse-8T", 0o644, islands(1 << 43, &[1 << 42..(1 << 42) + 1, (1 << 43) - 1..1 << 43]));
    if with_data {
        builder.add("data-4G", 0o644, Kind::File(Content::new((4 << 30) + 12_345, Arc::new(Pattern), 0)));
    }
    builder.tree()
}

fn symlinks_and_links(builder: &mut Builder, scale: Scale) {
    let long = ["x"; 4].map(|x| x.repeat(50)).join("/").repeat(25);
    for size in [1, 59, 60, 61, 255, 1000, 4000, 4031, 4032, 4033, 4063, 4064, 4065, 4095] {
        builder.add(format!("symlink-{size}"), 0o777, Kind::Symlink(long.as_bytes()[..size].to_vec()));
    }
    builder.add("symlink-bytes", 0o777, Kind::Symlink(b"/non/utf8/\xff\xfe".to_vec()));
    builder.directory("links");
    builder.directory("links/a");
    builder.directory("links/b");
    builder.file("links/a/file", "hard");
    builder.file("links/large", program(3, 300_000));
    builder.link("links/large", "links/b/large");
    builder.add("links/symlink", 0o777, Kind::Symlink(b"target".to_vec()));
    builder.link("links/symlink", "links/symlink-again");
    for number in 1..scale.links {
        builder.link("links/a/file", format!("links/b/{number:05}"));
    }
}

fn special(builder: &mut Builder) {
    builder.add("character", 0o666, Kind::CharacterDevice(DeviceNumber { major: 1, minor: 3 }));
    builder.link("character", "character-again");
    builder.add("block", 0o660, Kind::BlockDevice(DeviceNumber { major: 259, minor: 70_000 }));
    builder.add("limits", 0o660, Kind::BlockDevice(DeviceNumber { major: 4095, minor: (1 << 20) - 1 }));
    builder.add("fifo", 0o644, Kind::Fifo);
    builder.add("socket", 0o755, Kind::Socket);
    builder.directory(".wh.looks-like-whiteout");
    builder.file(".wh.file", "wh");
    builder.add("whiteout", 0o000, Kind::CharacterDevice(DeviceNumber { major: 0, minor: 0 }));
}

/// A POSIX ACL as `getxattr(2)` gives it.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// Sets attributes of a node.
pub fn set(metadata: &mut Metadata, xattrs: &[(&str, &[u8])]) {
    metadata.xattrs.extend(xattrs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())));
}

fn attributes(builder: &mut Builder) {
    let capability = [0x0200_0001, 1 << 10, 0, 0, 0_u32].map(u32::to_le_bytes).concat();
    let rooted = [0x0300_0001, 1 << 10, 0, 0, 0, 100_000_u32].map(u32::to_le_bytes).concat();
    set(builder.file("capability", "#!x\n"), &[("security.capability", &capability)]);
    set(builder.file("capability-3", "#!x\n"), &[("security.capability", &rooted)]);
    let label: &[u8] = b"system_u:object_r:etc_t:s0\0";
    set(
        builder.file("attributes", "x"),
        &[("user.one", b"1"), ("user.empty", b""), ("trusted.overlay.opaque", b"y"), ("security.selinux", label)],
    );
    set(builder.file("attributes-large", "x"), &[("user.large", &noise(4, 60_000)), ("user.small", b"s")]);
    set(builder.file("attributes-4000", noise(5, 3000)), &[("user.large", &noise(6, 4000))]);
    let many = builder.file("attributes-many", program(7, 100_000));
    for number in 0..300 {
        set(many, &[(&format!("user.k{number:03}"), &vec![b'v'; number * 3])]);
    }
    // More shared attributes than one inode can refer to.
    for name in ["attributes-shared-a", "attributes-shared-b"] {
        let file = builder.file(name, name);
        for number in 0..300 {
            set(file, &[(&format!("user.s{number:03}"), b"shared")]);
        }
    }
    let long_name = format!("user.{}", "n".repeat(250));
    set(builder.file("attributes-name", "x"), &[(&long_name, b"n")]);
    for (name, kind) in [
        ("attributes-directory", Kind::directory()),
        ("attributes-symlink", Kind::Symlink(b"t".to_vec())),
        ("attributes-fifo", Kind::Fifo),
    ] {
        set(builder.add(name, 0o755, kind), &[("security.selinux", label), ("trusted.x", b"y")]);
    }
    let none = u32::MAX;
    let access = acl(&[(1, 6, none), (2, 4, 1000), (4, 4, none), (8, 6, 100_000), (16, 6, none), (32, 0, none)]);
    // The permission bits are those of the ACL's owner, mask and others.
    set(builder.add("acl", 0o660, Kind::File(Content::from_bytes("acl"))), &[("system.posix_acl_access", &access)]);
    set(
        builder.add("acl-directory", 0o660, Kind::directory()),
        &[("system.posix_acl_access", &access), ("system.posix_acl_default", &access)],
    );
}

fn owners_and_modes(builder: &mut Builder) {
    for (name, uid, gid) in [
        ("owner-65535", 65_535, 65_534),
        ("owner-65536", 65_536, 0),
        ("owner-100000", 100_000, 200_000),
        ("owner-largest", u32::MAX - 1, u32::MAX - 1),
    ] {
        let metadata = builder.file(name, "u");
        (metadata.uid, metadata.gid) = (uid, gid);
    }
    let file = |text: &str| Kind::File(Content::from_bytes(text));
    for mode in [0o0000, 0o6755, 0o7777, 0o4711, 0o2755] {
        builder.add(format!("mode-{mode:04o}"), mode, file("m")).gid = 5;
    }
    builder.add("sticky", 0o1777, Kind::directory());
}

fn names(builder: &mut Builder, scale: Scale) {
    builder.directory("many");
    for number in 0..scale.entries {
        let name = format!("many/entry-{number:06}-{}", "n".repeat(number % 40));
        if number % 50 == 0 {
            builder.file(name, format!("content of {number}"));
        } else {
            builder.file(name, "");
        }
    }
    builder.file("n".repeat(255), "long");
    builder.file(b"bytes-\xff\xfe\x80", "not UTF-8");
    builder.file("new\nline", "newline");
    builder.file(" sp ace\\\"$é日本", "utf-8");
    builder.file("!before the dots", "");
    builder.file("-", "");
    builder.file("...", "");
    builder.directory("empty");
    // One directory whose entries end at a block's last byte, one that goes one byte beyond.
    for (name, extra) in [("exact", 0), ("beyond", 1)] {
        builder.directory(name);
        for number in 0..18 {
            builder.file(format!("{name}/{number:0200}"), "");
        }
        // 27 bytes are the dots, 18 x 212 the names.
        builder.file(format!("{name}/{}", "z".repeat(4096 - 27 - 18 * 212 - 12 + extra)), "");
    }
    let mut deep = String::new();
    for level in 0..40 {
        deep.push_str(if level == 0 { "" } else { "/" });
        deep.push_str(&"d".repeat(if level < 18 { 200 } else { 5 }));
        builder.directory(&deep);
    }
    builder.file(format!("{deep}/leaf"), "deep");
}

fn times(builder: &mut Builder) {
    for (name, seconds, nanoseconds) in [
        ("time-old", -1_000_000_000, 0),
        ("time-before", -1, 999_999_999),
        ("time-future", 5_000_000_000, 123_456_789),
        ("time-nano", 1_700_000_000, 123_456_789),
        ("time-0", 0, 0),
    ] {
        builder.file(name, "t").mtime = Timestamp { seconds, nanoseconds };
    }
    // Enough of one time that it becomes the image's, with all that a short inode does not hold beside it.
    builder.directory("common");
    for number in 0..5000 {
        let metadata = builder.file(format!("common/{number}"), if number % 7 == 0 { "c" } else { "" });
        metadata.mtime = Timestamp { seconds: 1_234_567_890, nanoseconds: 5 };
        metadata.uid = if number % 11 == 0 { 65_535 + number % 3 } else { number };
    }
}

fn duplicates(builder: &mut Builder) {
    builder.directory("same");
    for number in 0..5 {
        builder.file(format!("same/small-{number}"), program(8, 3000));
        builder.file(format!("same/noise-{number}"), noise(8, 10_000));
        builder.file(format!("same/large-{number}"), program(9, 500_000));
        builder.file(format!("same/other-{number}"), program(10 + number, 500_000));
    }
    for size in [4060, 4068, 4069, 4095] {
        builder.file(format!("same/tail-{size}"), noise(11, size));
        set(builder.file(format!("same/tail-{size}-attributes"), noise(11, size)), &[("user.a", b"12345")]);
    }
    // An inode with so many attributes that no tail fits behind it, and the same content behind one where it does.
    set(builder.file("same/attributes", noise(8, 10_000)), &[("user.large", &noise(9, 4000))]);
}

/// What differs between two trees, at most `LIMIT` lines.
pub fn differences(expected: &Tree, found: &Tree) -> Vec<String> {
    const LIMIT: usize = 20;
    let mut differences = Vec::new();
    let (left, right) = (names_of(expected), names_of(found));
    let (left_links, right_links) = (first_names(expected), first_names(found));
    for path in left.keys().chain(right.keys().filter(|path| !left.contains_key(*path))) {
        let what = match (left.get(path), right.get(path)) {
            (Some(_), None) => Some("missing".to_owned()),
            (None, _) => Some("not expected".to_owned()),
            (Some(a), Some(b)) => {
                let (a_first, b_first) = (&left_links[a], &right_links[b]);
                match a_first == b_first {
                    true if a_first == path => difference(expected.node(*a), found.node(*b)),
                    true => None,
                    false => Some(format!("linked to {}, not to {}", show(b_first), show(a_first))),
                }
            }
        };
        if let Some(what) = what {
            differences.push(format!("{}: {what}", show(path)));
            if differences.len() == LIMIT {
                break;
            }
        }
    }
    differences
}

fn names_of(tree: &Tree) -> BTreeMap<Vec<u8>, NodeId> {
    tree.walk().collect()
}

fn first_names(tree: &Tree) -> BTreeMap<NodeId, Vec<u8>> {
    let mut names = BTreeMap::new();
    for (path, id) in tree.walk() {
        names.entry(id).or_insert(path);
    }
    names
}

fn difference(expected: &Node, found: &Node) -> Option<String> {
    if expected.metadata != found.metadata {
        return Some(shorten(format!("{:?}, not {:?}", found.metadata, expected.metadata)));
    }
    match (&expected.kind, &found.kind) {
        (Kind::Directory(_), Kind::Directory(_)) | (Kind::Fifo, Kind::Fifo) | (Kind::Socket, Kind::Socket) => None,
        (Kind::File(a), Kind::File(b)) => content_difference(a, b),
        (Kind::Symlink(a), Kind::Symlink(b)) if a == b => None,
        (Kind::CharacterDevice(a), Kind::CharacterDevice(b)) | (Kind::BlockDevice(a), Kind::BlockDevice(b))
            if a == b =>
        {
            None
        }
        (a, b) => Some(shorten(format!("{b:?}, not {a:?}"))),
    }
}

fn shorten(text: String) -> String {
    text.chars().take(2000).collect()
}

fn content_difference(expected: &Content, found: &Content) -> Option<String> {
    if expected.size() != found.size() {
        return Some(format!("{} bytes, not {}", found.size(), expected.size()));
    }
    let mut step = 0;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    // Holes that both know of are not read; what one of them has as data is.
    for range in data_of_either(expected, found) {
        let mut start = range.start;
        while start < range.end {
            // Steps of odd sizes, so that reads start and end anywhere in a cluster.
            step = (step * 5 + 123_457) % (1 << 20);
            let end = range.end.min(start + 1 + step);
            a.resize((end - start) as usize, 0);
            b.resize((end - start) as usize, 0);
            expected.read_exact_at(&mut a, start).expect("the expected content can be read");
            if let Err(error) = found.read_exact_at(&mut b, start) {
                return Some(format!("reading at {start}: {error}"));
            }
            if let Some(position) = a.iter().zip(&b).position(|(a, b)| a != b) {
                return Some(format!("byte {} differs", start + position as u64));
            }
            start = end;
        }
    }
    None
}

fn data_of_either(a: &Content, b: &Content) -> Vec<std::ops::Range<u64>> {
    let mut ranges: Vec<_> = a.extents().into_iter().chain(b.extents()).collect();
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<std::ops::Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}
