//! The initrd: systemd, udev and veritysetup, just enough to open the root file system by its root hash, to prepare
//! what is writable over it, and to switch to it.
//!
//! In: a tree of its own locked packages (unpacked, no script run), the tree with the kernel's modules, the machine's
//! [`State`]. Out: a [`Tree`] ([`build`]) and its compressed archive ([`pack`]). Both depend on nothing else.
//!
//! ```text
//! power-on: firmware -> UKI (systemd-stub) -> kernel -> /init = systemd
//!   systemd-udevd, systemd-udev-trigger      only what leads to disks; modules by alias
//!   systemd-veritysetup@root                 from roothash=; partitions by UUID = halves of the root hash
//!   adamant-state                            mounts /dev/mapper/root, EROFS, read-only; then see `boot::state`
//!   initrd-cleanup -> initrd-switch-root
//! whatever fails -> emergency.target = adamant-refuse: says so, then reboots; there is no shell
//! ```
//!
//! No journal runs here: messages go to the kernel's log, which the system's journal reads. No generator runs but
//! veritysetup's; the units are those in [`contents`] and [`units`]. `/sysroot/etc/fstab` is not consulted: the
//! image says what is mounted by its state, not by a file.
//!
//! Invariants: nothing in the initrd is a secret or differs from machine to machine; every time is the epoch; every
//! owner is root; no file has extended attributes (the archive cannot hold them).

pub mod contents;
pub mod kmod_index;
pub mod libraries;
pub mod modules;
mod units;

use std::collections::BTreeSet;
use std::io;

use super::state;
pub use super::state::State;
use crate::filesystem::cpio;
use crate::tree::{Content, Kind, Metadata, Node, NodeId, Timestamp, Tree, TreeError, TreePath, show, split};

/// What an initrd is made from.
pub struct Sources<'a> {
    /// The packages of [`contents::packages`] with their dependencies.
    pub packages: &'a Tree,
    /// Packages that the recipe adds: taken whole, but for [`contents::LEFT_OUT`].
    pub additions: Option<&'a Tree>,
    /// The tree with `usr/lib/modules/<release>`.
    pub kernel: &'a Tree,
    /// The kernel's release, as `uname -r` says it.
    pub release: &'a str,
    /// Modules besides the default ones.
    pub modules: &'a [String],
    /// What `/etc/initrd-release` says: the image's `os-release`.
    pub os_release: &'a [u8],
    /// What becomes of writes.
    pub state: State,
    /// The time of every file.
    pub epoch: Timestamp,
}

/// Why an initrd could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitrdError {
    /// The package set lacks a path of the table.
    #[error(
        "the initrd needs {path}, which its packages do not have: is the suite one that adamant knows?",
        path = show(.path.as_bytes())
    )]
    NoPath {
        /// Which path.
        path: String,
    },
    /// A program's library is in no package.
    #[error("the initrd needs the library {library} for {program}, which its packages do not have", program = show(.program))]
    NoLibrary {
        /// Its name, as the linker wants it.
        library: String,
        /// What needs it.
        program: Vec<u8>,
    },
    /// There is no kernel of that release.
    #[error("there are no kernel modules at {path}: is a kernel package in the recipe?", path = show(.path.as_bytes()))]
    NoModules {
        /// Where they should be.
        path: String,
    },
    /// The kernel lacks a module that is required.
    #[error("kernel {release} has no module {name}")]
    NoModule {
        /// The module's name.
        name: String,
        /// Of which kernel.
        release: String,
    },
    /// A module could not be uncompressed.
    #[error("cannot uncompress the kernel module {path}", path = show(.path))]
    Module {
        /// Which file.
        path: Vec<u8>,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A module file that holds no module.
    #[error("{path}: not a kernel module", path = show(.path))]
    NotAModule {
        /// Which file.
        path: Vec<u8>,
    },
    /// Two sources disagree about a path.
    #[error("cannot put the initrd together")]
    Tree(#[from] TreeError),
    /// A file of a source could not be read.
    #[error("cannot read {path}", path = show(.path))]
    Read {
        /// Which file.
        path: Vec<u8>,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive could not be written.
    #[error("cannot write the initrd's archive")]
    Archive(#[from] cpio::WriteError),
    /// Compression failed.
    #[error("cannot compress the initrd")]
    Compress(#[source] io::Error),
}

/// The initrd's tree.
pub fn build(sources: &Sources<'_>) -> Result<Tree, InitrdError> {
    let mut tree = Tree::default();
    for (path, target) in SYMLINKS {
        symlink(&mut tree, path, target)?;
    }
    for path in DIRECTORIES {
        tree.make_directories(path.as_bytes(), &Metadata::with_mode(0o755))?;
    }
    let mut programs = Vec::new();
    for (when, path, _) in contents::PATHS.iter().filter(|(when, _, _)| when.holds(sources.state)) {
        if *when == contents::When::Present && sources.packages.lookup(path.as_bytes()).is_none() {
            continue;
        }
        copy(sources.packages, path.as_bytes(), &mut tree)?;
        programs.push(path.as_bytes().to_vec());
    }
    let opened = contents::OPENED_LIBRARIES.iter().filter(|(when, _, _)| when.holds(sources.state));
    let opened: Vec<&str> = opened.map(|(_, library, _)| *library).collect();
    for path in libraries::closure(sources.packages, &programs, &opened)? {
        copy(sources.packages, &path, &mut tree)?;
    }
    if let Some(additions) = sources.additions {
        add(additions, &mut tree)?;
    }
    for applet in units::BUSYBOX_APPLETS {
        let path = format!("usr/bin/{applet}");
        if tree.lookup(path.as_bytes()).is_none() {
            symlink(&mut tree, &path, "busybox")?;
        }
    }
    modules::add(sources.kernel, sources.release, sources.modules, &mut tree)?;
    file(&mut tree, "etc/initrd-release", 0o644, sources.os_release)?;
    symlink(&mut tree, "etc/os-release", "initrd-release")?;
    for (path, mode, text) in units::files() {
        file(&mut tree, path, mode, text.as_bytes())?;
    }
    for (path, target) in units::SYMLINKS {
        symlink(&mut tree, path, target)?;
    }
    for entry in state::initrd(sources.state) {
        file(&mut tree, entry.path, entry.mode, entry.text.as_bytes())?;
    }
    settle(&mut tree, sources.epoch);
    Ok(tree)
}

/// The level of zstd. Higher ones save little (19: 6 % of the size for 8 times the time) and decode no faster.
const LEVEL: i32 = 9;

/// The archive of an initrd's tree, compressed: what the kernel unpacks.
///
/// One frame, one thread: the bytes depend on the tree and the version of zstd only.
pub fn pack(tree: &Tree) -> Result<Vec<u8>, InitrdError> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL).map_err(InitrdError::Compress)?;
    cpio::write(tree, &mut encoder)?;
    encoder.finish().map_err(InitrdError::Compress)
}

/// The merged `/usr`, which no package of the set ships; and where the kernel starts.
const SYMLINKS: &[(&str, &str)] = &[
    ("bin", "usr/bin"),
    ("sbin", "usr/sbin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
    ("init", "usr/lib/systemd/systemd"),
];

/// Where systemd mounts what it mounts itself, and what services expect.
const DIRECTORIES: &[&str] =
    &["dev", "proc", "sys", "run", "tmp", "sysroot", "root", "etc", "usr/bin", "usr/sbin", "usr/lib64", "var/tmp"];

/// Reads the file `id` of `tree` whole.
fn contents_of(tree: &Tree, path: &TreePath, id: NodeId) -> Result<Vec<u8>, InitrdError> {
    match &tree.node(id).kind {
        Kind::File(content) => content.to_vec().map_err(|source| InitrdError::Read { path: path.to_vec(), source }),
        _ => Err(InitrdError::NotAModule { path: path.to_vec() }),
    }
}

/// Takes `path` of `source` over; of a symlink also what it leads to, of a directory also what is below.
fn copy(source: &Tree, path: &TreePath, target: &mut Tree) -> Result<(), InitrdError> {
    let missing = || InitrdError::NoPath { path: String::from_utf8_lossy(path).into_owned() };
    // The directory's own path may lead over symlinks (`lib64/ld-linux...`): the real one is taken.
    let (real, id) = source.resolve_parent(path).map_err(|_| missing())?;
    if target.lookup(&real).is_some() {
        return Ok(());
    }
    let node = source.node(id).clone();
    make_parents(&real, target)?;
    match &node.kind {
        Kind::Directory(entries) => {
            target.make_directories(&real, &node.metadata)?;
            for name in entries.keys() {
                copy(source, &[&real[..], b"/", name].concat(), target)?;
            }
        }
        Kind::Symlink(link) => {
            let parent = split(&real).map_or(&[][..], |(parent, _)| parent);
            let next = if link.starts_with(b"/") { link.clone() } else { [parent, b"/", link].concat() };
            target.insert(&real, node.clone())?;
            copy(source, &next, target)?;
        }
        _ => {
            target.insert(&real, node)?;
        }
    }
    Ok(())
}

/// Takes a whole tree over, except what no initrd needs and what is there already.
fn add(additions: &Tree, target: &mut Tree) -> Result<(), InitrdError> {
    let left_out: BTreeSet<&[u8]> = contents::LEFT_OUT.iter().map(|(path, _)| path.as_bytes()).collect();
    let beneath = |path: &[u8]| {
        left_out.iter().any(|out| path.starts_with(out) && matches!(path.get(out.len()), None | Some(b'/')))
    };
    for (path, id) in additions.walk().filter(|(path, _)| !path.is_empty() && !beneath(path)) {
        let node = additions.node(id);
        if additions.entries(id).is_some() {
            target.make_directories(&path, &node.metadata)?;
        } else if target.lookup(&path).is_none() {
            target.insert(&path, node.clone())?;
        }
    }
    Ok(())
}

fn make_parents(path: &TreePath, target: &mut Tree) -> Result<(), InitrdError> {
    let parent = split(path).map_or(&[][..], |(parent, _)| parent);
    target.make_directories(parent, &Metadata::with_mode(0o755))?;
    Ok(())
}

fn file(tree: &mut Tree, path: &str, mode: u16, bytes: &[u8]) -> Result<(), InitrdError> {
    make_parents(path.as_bytes(), tree)?;
    let node = Node { metadata: Metadata::with_mode(mode), kind: Kind::File(Content::from_bytes(bytes)) };
    tree.replace(path.as_bytes(), node)?;
    Ok(())
}

fn symlink(tree: &mut Tree, path: &str, target: &str) -> Result<(), InitrdError> {
    make_parents(path.as_bytes(), tree)?;
    let node = Node { metadata: Metadata::with_mode(0o777), kind: Kind::Symlink(target.into()) };
    tree.replace(path.as_bytes(), node)?;
    Ok(())
}

/// One owner, one time, no attributes: the archive holds no more, and a running initrd needs no more.
fn settle(tree: &mut Tree, epoch: Timestamp) {
    let ids: Vec<NodeId> = tree.walk().map(|(_, id)| id).collect();
    for id in ids {
        let metadata = &mut tree.node_mut(id).metadata;
        *metadata = Metadata { mtime: epoch, ..Metadata::with_mode(metadata.mode) };
    }
}
