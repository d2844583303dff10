//! Which step of a build last wrote each file: for the manifest, so that a change of the file can be explained.
//!
//! Flows in: the packages, and the tree after each step. Flows out: [`Origins`]: paths with the step that wrote them;
//! what is as its package ships it has none. Times do not count: every step sets them to the epoch.

use std::collections::{BTreeMap, HashMap};

use crate::manifest::Step;
use crate::rootfs::deb::UnpackedPackage;
use crate::tree::{Content, Kind, Node, NodeId, Tree};

/// Paths with the step that last wrote them.
#[derive(Debug, Default)]
pub struct Origins {
    written: BTreeMap<Vec<u8>, Step>,
}

impl Origins {
    /// Of the tree of configured `packages`: what differs from what they ship was written while they were configured.
    pub fn configured(tree: &Tree, packages: &[UnpackedPackage]) -> Self {
        let mut shipped: HashMap<Vec<u8>, Vec<Node>> = HashMap::new();
        for package in packages {
            for entry in package.entries() {
                // Through the symlinks of a merged /usr; what is diverted is at its place no longer, and no longer counts
                // as shipped.
                if let Ok((place, _)) = tree.resolve_parent(&entry.path) {
                    shipped.entry(place).or_default().push(package.node(entry));
                }
            }
        }
        let is_shipped = |path: &[u8], node: &Node| shipped.get(path).is_some_and(|s| s.iter().any(|s| same(s, node)));
        let made = tree.walk().filter(|(path, id)| !is_shipped(path, tree.node(*id)));
        Self { written: made.map(|(path, _)| (path, Step::Configure)).collect() }
    }

    /// Takes note of what `step` made of `before`.
    pub fn note(&mut self, step: Step, before: &Tree, after: &Tree) {
        let mut pending: Vec<(Vec<u8>, Option<NodeId>, NodeId)> = vec![(Vec::new(), Some(NodeId::ROOT), NodeId::ROOT)];
        while let Some((path, old, new)) = pending.pop() {
            let node = after.node(new);
            if old.is_none_or(|old| !same(before.node(old), node)) {
                self.written.insert(path.clone(), step);
            }
            for (name, child) in after.entries(new).into_iter().flatten() {
                let below = if path.is_empty() { name.clone() } else { [&path, &b"/"[..], name].concat() };
                let old = old.and_then(|old| before.entries(old)).and_then(|entries| entries.get(name)).copied();
                pending.push((below, old, *child));
            }
        }
    }

    /// The paths, without a leading slash.
    pub fn written(&self) -> &BTreeMap<Vec<u8>, Step> {
        &self.written
    }
}

/// Whether two nodes are the same but for their times and, of directories, what is in them.
fn same(one: &Node, other: &Node) -> bool {
    let (a, b) = (&one.metadata, &other.metadata);
    let metadata = (a.mode, a.uid, a.gid, &a.xattrs) == (b.mode, b.uid, b.gid, &b.xattrs);
    metadata
        && match (&one.kind, &other.kind) {
            (Kind::Directory(_), Kind::Directory(_)) => true,
            (Kind::File(one), Kind::File(other)) => same_content(one, other),
            (Kind::Symlink(one), Kind::Symlink(other)) => one == other,
            (Kind::CharacterDevice(one), Kind::CharacterDevice(other))
            | (Kind::BlockDevice(one), Kind::BlockDevice(other)) => one == other,
            (Kind::Fifo, Kind::Fifo) | (Kind::Socket, Kind::Socket) => true,
            _ => false,
        }
}

/// Packages' files and the pack of what scripts wrote come with digests; what a later step writes is small.
fn same_content(one: &Content, other: &Content) -> bool {
    one.size() == other.size() && matches!((one.digest(), other.digest()), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::rootfs::deb::{Entry, EntryKind};
    use crate::tree::Metadata;

    fn file(text: &str) -> Node {
        Node { metadata: Metadata::with_mode(0o644), kind: Kind::File(Content::from_bytes(text)) }
    }

    fn shipped(path: &str, text: &str) -> Entry {
        Entry {
            path: path.into(),
            kind: EntryKind::File { offset: 0, size: text.len() as u64, digest: Digest::of(text.as_bytes()) },
            metadata: Metadata::with_mode(0o644),
            user: b"root".to_vec(),
            group: b"root".to_vec(),
        }
    }

    #[test]
    fn what_differs_from_what_packages_ship_was_written_while_they_were_configured() {
        let mut tree = Tree::default();
        tree.make_directories(b"usr/lib", &Metadata::with_mode(0o755)).unwrap();
        tree.insert(b"lib", Node { metadata: Metadata::with_mode(0o777), kind: Kind::Symlink(b"usr/lib".to_vec()) })
            .unwrap();
        for (path, text) in [("a", "a"), ("b", "edited"), ("made", "m"), ("owned", "o")] {
            tree.insert(format!("usr/lib/{path}").as_bytes(), file(text)).unwrap();
        }
        let owned = tree.lookup(b"usr/lib/owned").unwrap();
        tree.node_mut(owned).metadata.uid = 7;
        let entries = ["a", "b", "owned"].map(|name| shipped(&format!("lib/{name}"), &name[..1])).to_vec();
        let control = "Package: p\nVersion: 1\nArchitecture: all\n".to_owned();
        let package = UnpackedPackage::from_parts("p", "1", "all", control, Vec::new(), entries);
        let origins = Origins::configured(&tree, &[package]);
        let written: Vec<&str> = origins.written().keys().map(|path| std::str::from_utf8(path).unwrap()).collect();
        assert_eq!(written, ["", "lib", "usr", "usr/lib", "usr/lib/b", "usr/lib/made", "usr/lib/owned"]);
    }

    #[test]
    fn a_step_wrote_what_is_new_or_other_and_not_what_it_only_gave_a_time() {
        let mut before = Tree::default();
        before.make_directories(b"etc/x", &Metadata::with_mode(0o755)).unwrap();
        for name in ["kept", "written", "moved"] {
            before.insert(format!("etc/{name}").as_bytes(), file(name)).unwrap();
        }
        let mut after = before.clone();
        let kept = after.lookup(b"etc/kept").unwrap();
        after.node_mut(kept).metadata.mtime.seconds = 5;
        after.replace(b"etc/written", file("other")).unwrap();
        after.remove(b"etc/moved").unwrap();
        after.insert(b"etc/x/moved", file("moved")).unwrap();
        let etc = after.lookup(b"etc").unwrap();
        after.node_mut(etc).metadata.mode = 0o700;
        let mut origins = Origins::default();
        origins.note(Step::Accounts, &before, &before);
        assert_eq!(origins.written(), &BTreeMap::new());
        origins.note(Step::Files, &before, &after);
        let expected = ["etc", "etc/written", "etc/x/moved"].map(|path| (path.as_bytes().to_vec(), Step::Files));
        assert_eq!(origins.written(), &BTreeMap::from(expected));
    }
}
