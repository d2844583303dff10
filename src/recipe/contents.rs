//! The files beside a recipe that it puts into an image, and the digests that name a recipe with them.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::diagnostic::{Diagnostic, Diagnostics};
use super::resolved::{Debian, FileContent, PackageRequest, Recipe, SourcePath};
use super::schema::{Architecture, Scripts};
use super::source::At;
use crate::digest::{Digest, Hasher};
use crate::tree::{Content, FileAt, Kind, Tree, scan, show};

/// What a `source` or `key` is. Of modes only this counts: whether a file is executable. The others depend on the
/// umask of whoever checked the recipe out.
#[derive(Debug, Clone)]
pub enum SourceContent {
    /// A regular file.
    File {
        /// Its bytes, with their digest known.
        content: Content,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A directory of directories, regular files (with their digests known) and symbolic links.
    Directory(Tree),
}

impl SourceContent {
    /// Names the content: paths, types, which files are executable, bytes, targets. `None` if a file's digest is not
    /// known.
    pub fn digest(&self) -> Option<Digest> {
        let mut hasher = Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        match self {
            Self::File { content, executable } => {
                part(if *executable { b"executable" } else { b"file" });
                part(content.known_digest()?.as_bytes());
            }
            Self::Directory(tree) => {
                for (path, id) in tree.walk() {
                    let node = tree.node(id);
                    part(&path);
                    match &node.kind {
                        Kind::File(content) => {
                            part(if node.metadata.mode & 0o100 != 0 { b"executable" } else { b"file" });
                            part(content.known_digest()?.as_bytes());
                        }
                        Kind::Symlink(target) => {
                            part(b"symlink");
                            part(target);
                        }
                        _ => part(b"directory"),
                    }
                }
            }
        }
        Some(hasher.digest())
    }
}

/// What every source that a recipe names holds.
#[derive(Debug, Clone, Default)]
pub struct SourceContents {
    by_path: BTreeMap<(PathBuf, String), SourceContent>,
}

impl SourceContents {
    /// What that source holds; `None` if it is none of the recipe's.
    pub fn get(&self, path: &SourcePath) -> Option<&SourceContent> {
        self.by_path.get(&(path.folder.clone(), path.text.clone()))
    }

    /// Adds what a source holds.
    pub fn insert(&mut self, path: &SourcePath, content: SourceContent) {
        self.by_path.insert((path.folder.clone(), path.text.clone()), content);
    }
}

impl Recipe {
    /// Every source that the recipe names: keys of repositories first, then those of files.
    pub fn source_paths(&self) -> Vec<&At<SourcePath>> {
        let keys = self.debian.key.iter().chain(self.repositories.iter().map(|repository| &repository.key));
        let files = self.files.iter().filter_map(|file| match &file.content {
            FileContent::Source(path) => Some(path),
            FileContent::Inline(_) => None,
        });
        keys.chain(files).collect()
    }

    /// Reads the sources: their bytes stay on disk, but for keys, and are read once to get their digests.
    pub fn read_sources(&self) -> Result<SourceContents, Diagnostics> {
        let mut contents = SourceContents::default();
        let mut found = Vec::new();
        for path in self.source_paths() {
            match read_source(path) {
                Ok(content) => contents.insert(path, content),
                Err(complaint) => found.push(*complaint),
            }
        }
        if found.is_empty() { Ok(contents) } else { Err(self.complain(found)) }
    }

    /// Names all that the recipe says and all that its sources hold: the same digest, the same image from the same
    /// lock. `None` if `contents` lacks a source.
    pub fn digest(&self, contents: &SourceContents) -> Option<Digest> {
        let sources = self.source_paths().into_iter().map(|path| contents.get(path)?.digest());
        Some(digest_of("adamant.recipe/1", &(self, sources.collect::<Option<Vec<_>>>()?)))
    }

    /// Names the part of the recipe that decides which packages are locked. Order does not count. `None` if
    /// `contents` lacks a key.
    pub fn lock_digest(&self, contents: &SourceContents) -> Option<Digest> {
        let mut repositories = Vec::new();
        for repository in &self.repositories {
            let key = contents.get(&repository.key)?.digest()?;
            repositories.push((&repository.name.value, &repository.suite, &repository.components, key));
        }
        repositories.sort_by_key(|(name, ..)| *name);
        let part = LockPart {
            architecture: self.architecture,
            debian: &self.debian,
            repositories,
            packages: sorted(&self.packages),
            recommends: self.recommends,
            scripts: self.scripts,
            initrd_packages: sorted(&self.initrd.packages),
        };
        Some(digest_of("adamant.recipe.lock/1", &part))
    }
}

#[derive(Serialize)]
struct LockPart<'r, R> {
    architecture: Architecture,
    debian: &'r Debian,
    repositories: Vec<R>,
    packages: Vec<String>,
    recommends: bool,
    scripts: Scripts,
    initrd_packages: Vec<String>,
}

fn sorted(requests: &[At<PackageRequest>]) -> Vec<String> {
    let mut texts: Vec<String> = requests.iter().map(|request| request.to_string()).collect();
    texts.sort();
    texts
}

/// Of the canonical text: JSON without spaces, fields in the order of the types.
fn digest_of(label: &str, value: &impl Serialize) -> Digest {
    let json = serde_json::to_vec(value).expect("structs, strings and numbers always serialise");
    let mut hasher = Hasher::new();
    hasher.update(label.as_bytes());
    hasher.update(b"\n");
    hasher.update(&json);
    hasher.digest()
}

fn read_source(path: &At<SourcePath>) -> Result<SourceContent, Box<Diagnostic>> {
    let title = |what: &str| format!("{what} \"{}\"", path.text.escape_debug());
    let unreadable = |error: &dyn std::fmt::Display| {
        Box::new(
            Diagnostic::at(path.span, title("cannot read"), error.to_string())
                .help("the path is relative to the folder of the recipe file that names it"),
        )
    };
    let folder = if path.folder.as_os_str().is_empty() { PathBuf::from(".") } else { path.folder.clone() };
    let folder = folder.canonicalize().map_err(|error| unreadable(&error))?;
    let host = folder.join(&path.text).canonicalize().map_err(|error| unreadable(&error))?;
    if !host.starts_with(&folder) {
        let label = "a symbolic link on the way leads out of the recipe's folder";
        return Err(Box::new(Diagnostic::at(path.span, title("refused to read"), label)));
    }
    let status = host.metadata().map_err(|error| unreadable(&error))?;
    if status.is_dir() {
        let tree = scan(&host).map_err(|error| unreadable(&with_cause(&error)))?;
        return digest_tree(tree)
            .map(SourceContent::Directory)
            .map_err(|label| Box::new(Diagnostic::at(path.span, title("cannot take"), label)));
    }
    if !status.is_file() {
        let label = "neither a regular file nor a directory";
        return Err(Box::new(Diagnostic::at(path.span, title("cannot take"), label)));
    }
    let content = Content::new(status.len(), Arc::new(FileAt(host)), 0);
    let digest = content.digest().map_err(|error| unreadable(&error))?;
    let executable = status.permissions().mode() & 0o100 != 0;
    Ok(SourceContent::File { content: content.with_digest(digest), executable })
}

fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

fn digest_tree(mut tree: Tree) -> Result<Tree, String> {
    let nodes: Vec<_> = tree.walk().collect();
    for (path, id) in nodes {
        let node = tree.node_mut(id);
        match &mut node.kind {
            Kind::Directory(_) | Kind::Symlink(_) => {}
            Kind::File(content) => {
                let digest = content.digest().map_err(|error| format!("cannot read {}: {error}", show(&path)))?;
                *content = content.clone().with_digest(digest);
            }
            other => return Err(format!("{} in it is a {}", show(&path), other.word())),
        }
    }
    Ok(tree)
}
