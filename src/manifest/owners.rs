//! Which package a path belongs to, by dpkg's database in the tree itself: what the builder says can be checked.
//!
//! | in the tree | says |
//! |---|---|
//! | /var/lib/dpkg/info/NAME.list, NAME:ARCH.list | the paths of a package |
//! | /var/lib/dpkg/info/NAME.* | files about a package: they are its own |
//! | /var/lib/dpkg/diversions | paths of one package that another one moved elsewhere |
//!
//! Paths of the database may lead through symlinks (`/lib` of a merged `/usr`); those here do not. What several packages
//! list, as they do with directories, belongs to none.

use std::collections::BTreeMap;

use super::{FileError, Package};
use crate::tree::{Content, Kind, Tree, TreePath};

/// Where dpkg keeps a file or more per package.
const INFO: &[u8] = b"var/lib/dpkg/info";
/// Which paths are elsewhere than their packages say.
const DIVERSIONS: &[u8] = b"var/lib/dpkg/diversions";
/// Longest list that is read: the largest packages have 5 MB.
const LIST_MAX: u64 = 64 << 20;

/// The owner of each path that has one, as a position in `packages`; only those of the set `system` are installed.
pub fn owners(tree: &Tree, packages: &[Package]) -> Result<BTreeMap<Vec<u8>, u32>, FileError> {
    let mut by_name: BTreeMap<&str, Vec<(&str, u32)>> = BTreeMap::new();
    for (package, index) in packages.iter().zip(0u32..).filter(|(package, _)| package.set == "system") {
        by_name.entry(&package.name).or_default().push((&package.architecture, index));
    }
    let find = |name: &[u8]| {
        let name = std::str::from_utf8(name).ok()?;
        let (name, architecture) = name.split_once(':').map_or((name, None), |(name, arch)| (name, Some(arch)));
        let fits = |(found, _): &&(&str, u32)| architecture.is_none_or(|architecture| architecture == *found);
        by_name.get(name)?.iter().find(fits).map(|(_, index)| *index)
    };
    let diversions = diversions(tree)?;
    let mut owners: BTreeMap<Vec<u8>, Option<u32>> = BTreeMap::new();
    let Some(info) = tree.lookup(INFO) else { return Ok(BTreeMap::new()) };
    for (file, id) in tree.entries(info).into_iter().flatten() {
        let dot = file.iter().rposition(|byte| *byte == b'.').unwrap_or(file.len());
        let Some(index) = find(&file[..dot]) else { continue };
        owners.insert([INFO, b"/", file].concat(), Some(index));
        let Kind::File(content) = &tree.node(*id).kind else { continue };
        if file[dot..] != *b".list" {
            continue;
        }
        let text = read(content, || [INFO, b"/", file].concat())?;
        let name = &packages[index as usize].name;
        for path in text.split(|byte| *byte == b'\n').filter(|path| !path.is_empty()) {
            let path = match diversions.get(path) {
                Some((to, by)) if *by != name.as_bytes() => to,
                _ => path,
            };
            // What the package ships may have been removed since.
            let Ok((place, _)) = tree.resolve_parent(path) else { continue };
            let same = |known: &mut Option<u32>| *known = known.filter(|known| *known == index);
            owners.entry(place).and_modify(same).or_insert(Some(index));
        }
    }
    Ok(owners.into_iter().filter_map(|(path, owner)| owner.map(|owner| (path, owner))).collect())
}

fn read(content: &Content, path: impl Fn() -> Vec<u8>) -> Result<Vec<u8>, FileError> {
    let refuse = |source| FileError { path: path(), source };
    if content.size() > LIST_MAX {
        return Err(refuse(std::io::ErrorKind::FileTooLarge.into()));
    }
    content.to_vec().map_err(refuse)
}

/// Contested path to new path and the package that diverts.
type Diversions = BTreeMap<Vec<u8>, (Vec<u8>, Vec<u8>)>;

/// Three lines each.
fn diversions(tree: &Tree) -> Result<Diversions, FileError> {
    let Some(id) = tree.lookup(DIVERSIONS) else { return Ok(Diversions::new()) };
    let Kind::File(content) = &tree.node(id).kind else { return Ok(Diversions::new()) };
    let text = read(content, || DIVERSIONS.to_vec())?;
    let lines: Vec<&TreePath> = text.split(|byte| *byte == b'\n').collect();
    let entry = |lines: &[&[u8]]| {
        let by = lines[2].split(|byte| *byte == b':').next().unwrap_or_default();
        (lines[0].to_vec(), (lines[1].to_vec(), by.to_vec()))
    };
    Ok(lines.chunks_exact(3).map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::tree::{Metadata, Node};

    fn package(set: &str, name: &str, architecture: &str) -> Package {
        let [set, name, architecture] = [set, name, architecture].map(str::to_owned);
        Package { set, name, architecture, version: "1".into(), sha256: Digest::of(b""), from: None }
    }

    #[test]
    fn owners_are_found_through_merged_directories_diversions_and_architectures() {
        let mut tree = Tree::default();
        let file =
            |text: &str| Node { metadata: Metadata::with_mode(0o644), kind: Kind::File(Content::from_bytes(text)) };
        for path in ["usr/lib", "var/lib/dpkg/info", "usr/bin"] {
            tree.make_directories(path.as_bytes(), &Metadata::with_mode(0o755)).unwrap();
        }
        let link = Node { metadata: Metadata::with_mode(0o777), kind: Kind::Symlink(b"usr/lib".to_vec()) };
        tree.insert(b"lib", link).unwrap();
        for path in ["usr/lib/a", "usr/bin/b", "usr/bin/b.a", "usr/bin/unowned"] {
            tree.insert(path.as_bytes(), file("")).unwrap();
        }
        let info = [
            ("a:amd64.list", "/.\n/lib\n/lib/a\n/usr/bin\n/usr/bin/b\n/usr/bin/gone\n"),
            ("b.list", "/.\n/usr/bin\n/usr/bin/b\n"),
            ("b.postinst", "/usr/bin/unowned"),
            ("initrd-only.list", "/usr/bin/unowned\n"),
            ("format", "1\n"),
        ];
        for (name, text) in info {
            tree.insert(format!("var/lib/dpkg/info/{name}").as_bytes(), file(text)).unwrap();
        }
        tree.insert(b"var/lib/dpkg/diversions", file("/usr/bin/b\n/usr/bin/b.a\nb\n")).unwrap();
        let packages = [
            package("initrd", "initrd-only", "amd64"),
            package("system", "a", "i386"),
            package("system", "a", "amd64"),
            package("system", "b", "all"),
        ];
        let found = owners(&tree, &packages).unwrap();
        let found: Vec<(&str, u32)> =
            found.iter().map(|(path, owner)| (std::str::from_utf8(path).unwrap(), *owner)).collect();
        let expected = [
            ("lib", 2),
            ("usr/bin/b", 3),
            ("usr/bin/b.a", 2),
            ("usr/lib/a", 2),
            ("var/lib/dpkg/info/a:amd64.list", 2),
            ("var/lib/dpkg/info/b.list", 3),
            ("var/lib/dpkg/info/b.postinst", 3),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_tree_without_a_database_has_no_owners() {
        assert_eq!(owners(&Tree::default(), &[package("system", "a", "all")]).unwrap(), BTreeMap::new());
    }
}
