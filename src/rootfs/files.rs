//! The recipe's directories, files and symbolic links, written into the tree.
//!
//! Directories come first, then files, then symbolic links, each kind in the order of the recipe, so that what
//! stands on something else finds it there. Parents that are missing become directories of root with mode 0755.
//! Symbolic links on the way to a parent are followed inside the tree, as `chroot(2)` would; what is at the path
//! itself is replaced, unless it is a directory. Owners are looked up in the tree's own /etc/passwd and /etc/group,
//! so accounts are added before. All times are the epoch: when a source was changed on the building host says
//! nothing.

use super::users::Accounts;
use crate::recipe::{
    Account, At, Diagnostic, Diagnostics, DirectoryEntry, FileContent, FileEntry, Ownership, Recipe, SourceContent,
    SourceContents, Span, SymlinkEntry, listed, values,
};
use crate::tree::{Content, Kind, Metadata, Node, Timestamp, Tree, TreeError, TreePath, show, split};

/// Mode of parents that nobody asked for.
const PARENT_MODE: u16 = 0o755;

/// Writes what `recipe` asks for into `tree`; `contents` holds its sources. All mistakes are found in one go; `tree`
/// is then half changed and of no use.
pub fn apply(tree: &mut Tree, recipe: &Recipe, contents: &SourceContents, epoch: Timestamp) -> Result<(), Diagnostics> {
    let accounts = Accounts::read(tree).map_err(|complaint| recipe.complain(vec![complaint]))?;
    let mut writer = Writer { tree, accounts, epoch, found: Vec::new() };
    recipe.directories.iter().for_each(|entry| writer.directory(entry));
    recipe.files.iter().for_each(|entry| writer.file(entry, contents));
    recipe.symlinks.iter().for_each(|entry| writer.symlink(entry));
    if writer.found.is_empty() { Ok(()) } else { Err(recipe.complain(writer.found)) }
}

struct Writer<'t> {
    tree: &'t mut Tree,
    accounts: Accounts,
    epoch: Timestamp,
    found: Vec<Diagnostic>,
}

impl Writer<'_> {
    fn directory(&mut self, entry: &DirectoryEntry) {
        let Some(metadata) = self.metadata(&entry.ownership, entry.mode) else { return };
        let made = make_directory(self.tree, entry.path.as_bytes(), metadata, self.epoch);
        self.take_note(&entry.path, made);
    }

    fn file(&mut self, entry: &FileEntry, contents: &SourceContents) {
        let mode = |executable: bool| entry.mode.unwrap_or(if executable { 0o755 } else { 0o644 });
        let path = entry.path.as_bytes();
        match &entry.content {
            FileContent::Inline(text) => {
                let Some(metadata) = self.metadata(&entry.ownership, mode(false)) else { return };
                let node = Node { metadata, kind: Kind::File(Content::from_bytes(text.as_str())) };
                let written = put(self.tree, path, node, self.epoch);
                self.take_note(&entry.path, written);
            }
            FileContent::Source(source) => match contents.get(source) {
                Some(SourceContent::File { content, executable }) => {
                    let Some(metadata) = self.metadata(&entry.ownership, mode(*executable)) else { return };
                    let written = put(self.tree, path, file(metadata, content), self.epoch);
                    self.take_note(&entry.path, written);
                }
                Some(SourceContent::Directory(from)) => self.copy(entry, from),
                None => {
                    let title = format!("the source \"{}\" was not read", source.text);
                    self.found.push(Diagnostic::at(source.span, title, ""));
                }
            },
        }
    }

    /// A directory with all that is in it. Files get the mode that was asked for, directories the same with leave to
    /// enter for whoever may read; where none was asked for, each file has that of its kind.
    fn copy(&mut self, entry: &FileEntry, from: &Tree) {
        let Some(metadata) = self.metadata(&entry.ownership, 0) else { return };
        for (below, id) in from.walk() {
            let mut path = entry.path.as_bytes().to_vec();
            if !below.is_empty() {
                path.push(b'/');
                path.extend_from_slice(&below);
            }
            let node = from.node(id);
            let with = |mode: u16| Metadata { mode, ..metadata.clone() };
            let written = match &node.kind {
                Kind::File(content) => {
                    let executable = node.metadata.mode & 0o100 != 0;
                    let mode = entry.mode.unwrap_or(if executable { 0o755 } else { 0o644 });
                    put(self.tree, &path, file(with(mode), content), self.epoch)
                }
                Kind::Symlink(target) => {
                    let node = Node { metadata: with(0o777), kind: Kind::Symlink(target.clone()) };
                    put(self.tree, &path, node, self.epoch)
                }
                _ => {
                    let mode = entry.mode.map_or(PARENT_MODE, |mode| (mode & 0o777) | (mode & 0o444) >> 2);
                    make_directory(self.tree, &path, with(mode), self.epoch)
                }
            };
            if written.is_err() {
                return self.take_note(&entry.path, written);
            }
        }
    }

    fn symlink(&mut self, entry: &SymlinkEntry) {
        let Some(metadata) = self.metadata(&entry.ownership, 0o777) else { return };
        let node = Node { metadata, kind: Kind::Symlink(entry.target.as_bytes().to_vec()) };
        let written = put(self.tree, entry.path.as_bytes(), node, self.epoch);
        self.take_note(&entry.path, written);
    }

    fn metadata(&mut self, ownership: &Ownership, mode: u16) -> Option<Metadata> {
        let Ownership { owner, group } = ownership;
        let uid = resolve_account(&self.accounts, owner, Accounts::uid, Accounts::user_names, "user");
        let gid = resolve_account(&self.accounts, group, Accounts::gid, Accounts::group_names, "group");
        let mut keep = |id: Result<u32, Box<Diagnostic>>| id.map_err(|complaint| self.found.push(*complaint)).ok();
        let (uid, gid) = (keep(uid), keep(gid));
        Some(Metadata { uid: uid?, gid: gid?, mtime: self.epoch, ..Metadata::with_mode(mode) })
    }

    fn take_note(&mut self, path: &At<String>, written: Result<(), TreeError>) {
        if let Err(error) = written {
            return self.found.push(refusal(path.span, path, error));
        }
        // A link on the way (/var/run) may lead to where nothing of an image is ever seen.
        let Ok((place, _)) = self.tree.resolve_parent(path.as_bytes()) else { return };
        if let Err(fault) = values::image_path(&show(&place)) {
            let complaint = Diagnostic::at(path.span, format!("cannot write `{}`", path.value), fault.label);
            self.found.push(complaint.help(format!("the path leads to {}", show(&place))));
        }
    }
}

fn file(metadata: Metadata, content: &Content) -> Node {
    Node { metadata, kind: Kind::File(content.clone()) }
}

fn refusal(span: Span, path: &str, error: TreeError) -> Diagnostic {
    let at = |path: &[u8]| show(path).trim_end_matches('/').to_owned();
    let label = match error {
        TreeError::Exists(path) => format!("{} is a directory of the image already", at(&path)),
        TreeError::NotADirectory(path) => format!("{} is not a directory of the image", at(&path)),
        TreeError::NotFound(path) => format!("a symbolic link on the way to {} leads nowhere", at(&path)),
        other => other.to_string(),
    };
    Diagnostic::at(span, format!("cannot write `{path}`"), label)
}

/// The number that `account` stands for in the image.
pub(super) fn resolve_account<'a, I: Iterator<Item = &'a str>>(
    accounts: &'a Accounts,
    account: &At<Account>,
    find: impl Fn(&Accounts, &str) -> Option<u32>,
    names: impl Fn(&'a Accounts) -> I,
    what: &str,
) -> Result<u32, Box<Diagnostic>> {
    let name = match &account.value {
        Account::Id(id) => return Ok(*id),
        Account::Name(name) => name,
    };
    find(accounts, name).ok_or_else(|| {
        let title = format!("the image has no {what} `{name}`");
        let label = match crate::recipe::nearest(name, names(accounts)) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => "no package makes it".into(),
        };
        let help = format!("add it with `[[{what}]]`; there are {}", listed(names(accounts)));
        Box::new(Diagnostic::at(account.span, title, label).help(help))
    })
}

/// Where `path` is, once the symbolic links on the way to its parent are followed; missing parents are made.
fn place(tree: &mut Tree, path: &TreePath, epoch: Timestamp) -> Result<Vec<u8>, TreeError> {
    let (parent, name) = split(path).ok_or_else(|| TreeError::BadPath(path.to_vec()))?;
    let mut place = resolve_or_make(tree, parent, epoch)?;
    if !place.is_empty() {
        place.push(b'/');
    }
    place.extend_from_slice(name);
    Ok(place)
}

/// The directory at `path`, symbolic links followed; what is missing is made.
fn resolve_or_make(tree: &mut Tree, path: &TreePath, epoch: Timestamp) -> Result<Vec<u8>, TreeError> {
    match tree.resolve(path) {
        Ok((place, id)) if tree.entries(id).is_some() => Ok(place),
        Ok(_) => Err(TreeError::NotADirectory(path.to_vec())),
        Err(TreeError::NotFound(_)) => {
            let at = place(tree, path, epoch)?;
            if tree.lookup(&at).is_some() {
                // Only a symbolic link can be there and yet not be found.
                return Err(TreeError::NotFound(path.to_vec()));
            }
            let metadata = Metadata { mtime: epoch, ..Metadata::with_mode(PARENT_MODE) };
            tree.insert(&at, Node { metadata, kind: Kind::directory() })?;
            Ok(at)
        }
        Err(other) => Err(other),
    }
}

/// Puts `node` at `path`, in place of a file or link that is there.
pub(super) fn put(tree: &mut Tree, path: &TreePath, node: Node, epoch: Timestamp) -> Result<(), TreeError> {
    let place = place(tree, path, epoch)?;
    tree.replace(&place, node).map(|_| ())
}

/// Makes the directory `path`, or gives the one that is there that mode and owner.
pub(super) fn make_directory(
    tree: &mut Tree,
    path: &TreePath,
    metadata: Metadata,
    epoch: Timestamp,
) -> Result<(), TreeError> {
    let place = resolve_or_make(tree, path, epoch)?;
    let id = tree.lookup(&place).ok_or(TreeError::NotFound(place))?;
    tree.node_mut(id).metadata = metadata;
    Ok(())
}

/// Files of an image that are read whole, to be changed: accounts, units. What is larger is none of these.
const TEXT_MAX: u64 = 16 << 20;

/// The bytes of the file at `path`, symbolic links followed; `None` if there is none.
pub(super) fn read(tree: &Tree, path: &TreePath) -> Result<Option<Vec<u8>>, Box<Diagnostic>> {
    let complaint = |label: String| {
        let title = format!("cannot read the image's {}", show(path));
        Box::new(Diagnostic { title, span: None, label: String::new(), context: Vec::new(), help: vec![label] })
    };
    match tree.resolve(path) {
        Ok((_, id)) => match &tree.node(id).kind {
            Kind::File(content) if content.size() > TEXT_MAX => Err(complaint("it is too large".into())),
            Kind::File(content) => content.to_vec().map(Some).map_err(|error| complaint(error.to_string())),
            other => Err(complaint(format!("it is a {}", other.word()))),
        },
        Err(TreeError::NotFound(_) | TreeError::NotADirectory(_)) => Ok(None),
        Err(error) => Err(complaint(error.to_string())),
    }
}

/// Gives the file at `path` other bytes; its mode and owner stay, or are those of `metadata` if it is new.
pub(super) fn rewrite(
    tree: &mut Tree,
    path: &TreePath,
    bytes: Vec<u8>,
    metadata: Metadata,
    epoch: Timestamp,
) -> Result<(), TreeError> {
    let content = Kind::File(Content::from_bytes(bytes));
    match tree.resolve(path) {
        Ok((place, id)) => {
            let metadata = Metadata { mtime: epoch, ..tree.node(id).metadata.clone() };
            tree.replace(&place, Node { metadata, kind: content }).map(|_| ())
        }
        Err(_) => put(tree, path, Node { metadata: Metadata { mtime: epoch, ..metadata }, kind: content }, epoch),
    }
}
