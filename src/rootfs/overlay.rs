//! Packages laid over each other: which file of which package ends up where.
//!
//! Flows in: unpacked packages. Flows out: a [`Tree`] as `dpkg --unpack` of all of them would have made it, without a
//! script run: for an initrd, for the tools of the host. The sandbox uses the same rules, package by package
//! ([`Overlay`]), with the diversions that scripts have made.
//!
//! The rules are dpkg's: directories are shared and the first one's metadata stays; a directory stays where a package
//! has a symlink and the other way round, so that `lib/x` of one package lands in `usr/lib/x` if another one ships
//! `lib -> usr/lib`; a file in two packages is an error unless one of them `Replaces` the other.
//!
//! The result does not depend on the order of the packages: they are taken by name, `base-files` first because it
//! ships the symlinks of the merged `/usr`.

use std::collections::{BTreeMap, HashMap};

use super::deb::{EntryKind, UnpackedPackage};
use crate::apt::relation;
use crate::tree::{Kind, Metadata, Node, Tree, TreeError, show, split};

/// Why packages do not fit together.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// Two packages ship the same file and neither replaces the other.
    #[error("{}: shipped by {first} and by {second}, and neither Replaces the other", show(.path))]
    Conflict {
        /// Path within the root.
        path: Vec<u8>,
        /// The package that came first.
        first: String,
        /// The package that came second.
        second: String,
    },
    /// A directory of one package is a file of another.
    #[error("{}: {package} ships a {kind} where there is a {existing}", show(.path))]
    Kinds {
        /// Path within the root.
        path: Vec<u8>,
        /// Whose file does not fit.
        package: String,
        /// What it is.
        kind: &'static str,
        /// What stands there.
        existing: &'static str,
    },
    /// A path that leads through something else than directories.
    #[error("package {package}")]
    Path {
        /// Whose path.
        package: String,
        /// What is wrong with it.
        #[source]
        source: TreeError,
    },
}

/// The tree that `packages` make together, without running any script.
pub fn overlay(packages: &[UnpackedPackage]) -> Result<Tree, OverlayError> {
    let mut overlay = Overlay::new(packages);
    overlay.merge_usr()?;
    for index in order(packages) {
        overlay.place(index, &Diversions::default())?;
    }
    Ok(overlay.into_tree())
}

/// Where each of these directories is since Debian 12.
const MERGED_USR: &[(&str, &str)] =
    &[("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "usr/sbin")];

/// Positions of `packages` in the order in which they are unpacked.
pub(super) fn order(packages: &[UnpackedPackage]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..packages.len()).collect();
    order.sort_by_key(|index| {
        let package = &packages[*index];
        (package.name() != "base-files", package.name(), package.architecture())
    });
    order
}

/// What `dpkg-divert` keeps: files of other packages that go to another name.
#[derive(Debug, Default, Clone)]
pub(super) struct Diversions(BTreeMap<Vec<u8>, Diversion>);

#[derive(Debug, Clone)]
struct Diversion {
    to: Vec<u8>,
    by: Vec<u8>,
}

impl Diversions {
    /// Reads `/var/lib/dpkg/diversions`: three lines each, contested name, new name, diverting package or `:`.
    pub(super) fn parse(text: &[u8]) -> Self {
        let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        let relative = |path: &[u8]| path.strip_prefix(b"/").unwrap_or(path).to_vec();
        let entries = lines.chunks_exact(3).map(|triple| {
            let package = triple[2].split(|byte| *byte == b':').next().unwrap_or_default();
            (relative(triple[0]), Diversion { to: relative(triple[1]), by: package.to_vec() })
        });
        Self(entries.collect())
    }

    /// Where `path` of `package` goes.
    fn apply<'a>(&'a self, package: &UnpackedPackage, path: &'a [u8]) -> &'a [u8] {
        match self.0.get(path) {
            Some(diversion) if diversion.by != package.name().as_bytes() => &diversion.to,
            _ => path,
        }
    }
}

/// An entry of a package that has to be made, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placement {
    pub package: usize,
    pub entry: usize,
    /// Free of symlinks, as far as packages ship them.
    pub path: Vec<u8>,
    /// For a hard link, the path of the file it joins; `None` if that file went to another package.
    pub link_to: Option<Vec<u8>>,
}

/// A tree to which packages are added one by one.
pub(super) struct Overlay<'p> {
    packages: &'p [UnpackedPackage],
    tree: Tree,
    owners: HashMap<Vec<u8>, usize>,
    /// Package and path as shipped of every file that another package replaced.
    displaced: Vec<(usize, Vec<u8>)>,
}

impl<'p> Overlay<'p> {
    pub(super) fn new(packages: &'p [UnpackedPackage]) -> Self {
        Self { packages, tree: Tree::default(), owners: HashMap::new(), displaced: Vec::new() }
    }

    /// Makes the symlinks of the merged `/usr` that packages rely on and none ships, as bootstrapping Debian 12 does: its
    /// packages still have files in `/lib`. What comes back has to be made on disk.
    pub(super) fn merge_usr(&mut self) -> Result<Vec<(&'static str, &'static str)>, OverlayError> {
        let paths = || self.packages.iter().flat_map(|package| package.entries());
        let is_needed = |name: &str| {
            let below = |path: &[u8]| path.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"));
            let is_symlink = |kind: &EntryKind| matches!(kind, EntryKind::Symlink(_));
            paths().any(|entry| below(&entry.path))
                && !paths().any(|entry| entry.path == name.as_bytes() && is_symlink(&entry.kind))
        };
        let needed: Vec<_> = MERGED_USR.iter().copied().filter(|(name, _)| is_needed(name)).collect();
        for (name, target) in &needed {
            let made = self.tree.make_directories(target.as_bytes(), &Metadata::with_mode(0o755));
            let node = Node { metadata: Metadata::with_mode(0o777), kind: Kind::Symlink(target.as_bytes().to_vec()) };
            made.map(drop)
                .and_then(|()| self.tree.insert(name.as_bytes(), node).map(drop))
                .map_err(|source| OverlayError::Path { package: "base-files".to_owned(), source })?;
        }
        Ok(needed)
    }

    pub(super) fn into_tree(self) -> Tree {
        self.tree
    }

    /// Files that are not their package's any more: they do not belong in its list.
    pub(super) fn displaced(&self) -> &[(usize, Vec<u8>)] {
        &self.displaced
    }

    /// Adds a package; what comes back has to be made on disk, parents before children.
    pub(super) fn place(&mut self, package: usize, diversions: &Diversions) -> Result<Vec<Placement>, OverlayError> {
        let mut placements = Vec::new();
        // Where the files of this package went, for its hard links.
        let mut homes: HashMap<&[u8], Vec<u8>> = HashMap::new();
        for (entry, item) in self.packages[package].entries().iter().enumerate() {
            let wanted = diversions.apply(&self.packages[package], &item.path);
            let Some((parent, name)) = split(wanted) else {
                self.tree.node_mut(crate::tree::NodeId::ROOT).metadata = item.metadata.clone();
                placements.push(Placement { package, entry, path: Vec::new(), link_to: None });
                continue;
            };
            let mut path = self.directory(package, parent)?;
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            if !self.make_room(package, &item.path, &path, &item.kind)? {
                continue;
            }
            let link_to = match &item.kind {
                EntryKind::HardLink(target) => homes.get(target.as_slice()).cloned(),
                _ => None,
            };
            let inserted = match &link_to {
                Some(first) => self.tree.link(first, &path),
                None => self.tree.insert(&path, self.packages[package].node(item)).map(drop),
            };
            inserted.map_err(|source| self.path_error(package, source))?;
            if item.kind != EntryKind::Directory {
                self.owners.insert(path.clone(), package);
                homes.insert(&item.path, path.clone());
            }
            placements.push(Placement { package, entry, path, link_to });
        }
        Ok(placements)
    }

    /// Whether the entry is to be made at `path`, which is then free.
    fn make_room(
        &mut self,
        package: usize,
        shipped: &[u8],
        path: &[u8],
        kind: &EntryKind,
    ) -> Result<bool, OverlayError> {
        let Some(existing) = self.tree.lookup(path) else { return Ok(true) };
        let existing_kind = &self.tree.node(existing).kind;
        let kinds = |word| OverlayError::Kinds {
            path: path.to_vec(),
            package: self.packages[package].name().to_owned(),
            kind: word,
            existing: existing_kind.word(),
        };
        match (kind, existing_kind) {
            (EntryKind::Directory | EntryKind::Symlink(_), Kind::Directory(_)) => return Ok(false),
            (EntryKind::Directory, Kind::Symlink(_)) if self.leads_to_directory(path) => return Ok(false),
            (EntryKind::Directory, _) => return Err(kinds("directory")),
            (_, Kind::Directory(_)) => return Err(kinds("file")),
            _ => {}
        }
        let owner = self.owners.get(path).copied().unwrap_or(package);
        let (new, old) = (&self.packages[package], &self.packages[owner]);
        if owner != package && !replaces(new, old) {
            if shared_between_architectures(new, old) {
                return Ok(false);
            }
            if !replaces(old, new) {
                let (first, second) = (old.name().to_owned(), new.name().to_owned());
                return Err(OverlayError::Conflict { path: path.to_vec(), first, second });
            }
            self.displaced.push((package, shipped.to_vec()));
            return Ok(false);
        }
        if owner != package {
            self.displaced.push((owner, path.to_vec()));
        }
        self.tree.remove(path).map_err(|source| self.path_error(package, source))?;
        Ok(true)
    }

    fn leads_to_directory(&self, path: &[u8]) -> bool {
        self.tree.resolve(path).is_ok_and(|(_, id)| self.tree.entries(id).is_some())
    }

    /// The directory at `path` without symlinks in its name; made, as dpkg would not, where no package ships it.
    fn directory(&mut self, package: usize, path: &[u8]) -> Result<Vec<u8>, OverlayError> {
        match self.tree.resolve(path) {
            Ok((real, id)) if self.tree.entries(id).is_some() => Ok(real),
            Ok(_) => Err(self.path_error(package, TreeError::NotADirectory(path.to_vec()))),
            Err(TreeError::NotFound(_)) => {
                let Some((parent, name)) = split(path) else { return Ok(Vec::new()) };
                let mut real = self.directory(package, parent)?;
                if !real.is_empty() {
                    real.push(b'/');
                }
                real.extend_from_slice(name);
                let made = self.tree.make_directories(&real, &Metadata::with_mode(0o755));
                made.map_err(|source| self.path_error(package, source))?;
                Ok(real)
            }
            Err(source) => Err(self.path_error(package, source)),
        }
    }

    fn path_error(&self, package: usize, source: TreeError) -> OverlayError {
        OverlayError::Path { package: self.packages[package].name().to_owned(), source }
    }
}

/// Whether `new` says that it takes over files of `old`.
fn replaces(new: &UnpackedPackage, old: &UnpackedPackage) -> bool {
    let field = new.field("Replaces").unwrap_or_default();
    relation::parse(field).flatten().any(|alternative| {
        let name = alternative.name.split(':').next().unwrap_or_default();
        name == old.name()
            && alternative.constraint.is_none_or(|(operator, bound)| operator.holds(old.version(), bound))
    })
}

/// Packages of one name for several architectures share files (Multi-Arch: same).
fn shared_between_architectures(new: &UnpackedPackage, old: &UnpackedPackage) -> bool {
    new.name() == old.name() && new.field("Multi-Arch") == Some("same")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::deb::Entry;

    fn entry(path: &str, kind: EntryKind) -> Entry {
        let metadata = Metadata::with_mode(if kind == EntryKind::Directory { 0o755 } else { 0o644 });
        Entry { path: path.into(), kind, metadata, user: Vec::new(), group: Vec::new() }
    }

    fn file(path: &str) -> Entry {
        entry(path, EntryKind::File { offset: 0, size: 0, digest: crate::digest::Digest::of(b"") })
    }

    fn symlink(path: &str, target: &str) -> Entry {
        entry(path, EntryKind::Symlink(target.into()))
    }

    fn directory(path: &str) -> Entry {
        entry(path, EntryKind::Directory)
    }

    fn package(name: &str, fields: &str, entries: Vec<Entry>) -> UnpackedPackage {
        let control = format!("Package: {name}\nVersion: 1\nArchitecture: all\n{fields}");
        UnpackedPackage::from_parts(name, "1", "all", control, Vec::new(), entries)
    }

    #[test]
    fn usr_is_merged_where_packages_rely_on_it_and_none_does_it() {
        let old = || package("old", "", vec![directory("lib"), file("lib/x"), directory("etc")]);
        let tree = overlay(&[old()]).unwrap();
        assert!(tree.lookup(b"usr/lib/x").is_some() && tree.lookup(b"lib/x").is_none());
        assert!(tree.lookup(b"bin").is_none() && tree.lookup(b"lib").is_some());
        let merged = package("merged", "", vec![directory("elsewhere"), symlink("lib", "elsewhere")]);
        let tree = overlay(&[package("merge", "", vec![directory("usr"), file("usr/lib")]), old()]);
        assert!(tree.is_err());
        // A package's own symlink stays.
        assert!(overlay(&[merged, old()]).unwrap().lookup(b"elsewhere/x").is_some());
    }

    #[test]
    fn files_behind_a_usrmerge_symlink_land_in_usr() {
        let merged = package("base-files", "", vec![directory("usr"), directory("usr/lib"), symlink("lib", "usr/lib")]);
        let old = package("a", "", vec![directory("lib"), directory("lib/x"), file("lib/x/y")]);
        let tree = overlay(&[old, merged]).unwrap();
        assert!(tree.lookup(b"usr/lib/x/y").is_some());
        assert!(matches!(tree.node(tree.lookup(b"lib").unwrap()).kind, Kind::Symlink(_)));
    }

    #[test]
    fn a_file_in_two_packages_needs_replaces() {
        let a = package("a", "", vec![file("x")]);
        let error = overlay(&[a.clone(), package("b", "", vec![file("x")])]).unwrap_err();
        assert_eq!(error.to_string(), "/x: shipped by a and by b, and neither Replaces the other");
        for fields in ["Replaces: a\n", "Replaces: a (<< 2)\n", "Replaces: z, a (= 1)\n"] {
            let packages = [a.clone(), package("b", fields, vec![file("x")])];
            let mut overlay = Overlay::new(&packages);
            assert_eq!(overlay.place(0, &Diversions::default()).unwrap().len(), 1);
            assert_eq!(overlay.place(1, &Diversions::default()).unwrap().len(), 1);
            assert_eq!(overlay.displaced(), [(0, b"x".to_vec())]);
        }
        assert!(overlay(&[a, package("b", "Replaces: a (<< 1)\n", vec![file("x")])]).is_err());
    }

    #[test]
    fn a_package_that_came_first_keeps_what_it_replaces() {
        let packages = [package("a", "Replaces: b\n", vec![file("x")]), package("b", "", vec![file("x")])];
        let mut overlay = Overlay::new(&packages);
        overlay.place(0, &Diversions::default()).unwrap();
        assert_eq!(overlay.place(1, &Diversions::default()).unwrap(), []);
        assert_eq!(overlay.displaced(), [(1, b"x".to_vec())]);
    }

    #[test]
    fn a_diversion_moves_the_files_of_other_packages() {
        let diversions = Diversions::parse(b"/bin/sh\n/bin/sh.distrib\nb\n/z\n/zz\n:\n");
        let packages = [package("a", "", vec![file("bin/sh"), file("z")]), package("b", "", vec![file("bin/sh")])];
        let mut overlay = Overlay::new(&packages);
        overlay.place(0, &diversions).unwrap();
        overlay.place(1, &diversions).unwrap();
        let tree = overlay.into_tree();
        let names: Vec<_> = tree.walk().map(|(path, _)| String::from_utf8(path).unwrap()).collect();
        assert_eq!(names, ["", "bin", "bin/sh", "bin/sh.distrib", "zz"]);
    }

    #[test]
    fn hard_links_stay_links() {
        let link = entry("b", EntryKind::HardLink(b"a".to_vec()));
        let tree = overlay(&[package("a", "", vec![file("a"), link])]).unwrap();
        assert_eq!(tree.lookup(b"a"), tree.lookup(b"b"));
    }

    #[test]
    fn a_file_where_another_package_has_a_directory_is_refused() {
        let error = overlay(&[package("a", "", vec![directory("x")]), package("b", "", vec![file("x")])]).unwrap_err();
        assert_eq!(error.to_string(), "/x: b ships a file where there is a directory");
    }
}
