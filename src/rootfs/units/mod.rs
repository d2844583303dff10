//! systemd units: `systemctl enable`, `disable` and `mask` on a tree, without systemctl.
//!
//! ```text
//! [Install]                          /etc/systemd/system/
//! WantedBy=multi-user.target   ──>     multi-user.target.wants/NAME  -> /usr/lib/systemd/system/FILE
//! RequiredBy=x.service         ──>     x.service.requires/NAME       -> ...
//! UpheldBy=y.target            ──>     y.target.upholds/NAME         -> ...
//! Alias=other.service          ──>     other.service                 -> ...
//! Also=c.socket                ──>     (the same for c.socket)
//! masked                       ──>     NAME                          -> /dev/null
//! ```
//!
//! The rules are those of systemd 257 (`systemctl(1)`, `systemd.unit(5)`, `src/shared/install.c`), and the tests hold
//! the links against those that the real systemctl makes. Stricter than systemctl in three things, because a recipe
//! that asks for something means it: a unit that has no `[Install]` section cannot be enabled, one that does not
//! exist cannot be masked, and names in `[Install]` that depend on the running machine (`%H`, `%m`, ...) are refused.

mod install;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use self::install::{LoadError, SEARCH_PATH, Unit, UnitName, load, names};
use super::files::put;
use crate::recipe::{At, CheckKind, Diagnostic, Diagnostics, Recipe, nearest, values};
use crate::tree::{Kind, Metadata, Node, NodeId, Timestamp, Tree, TreeError, components, show};

/// Disables, enables and masks what `recipe` says, in this order; its checks must name units that exist.
pub fn apply(tree: &mut Tree, recipe: &Recipe, epoch: Timestamp) -> Result<(), Diagnostics> {
    let mut found = Vec::new();
    let mut note = |result: Result<(), Fault>, unit: &At<String>, verb: &str, tree: &Tree| {
        if let Err(fault) = result {
            found.push(fault.diagnostic(unit, verb, tree));
        }
    };
    let units = &recipe.units;
    for unit in &units.disable {
        note(disable(tree, unit), unit, "disable", tree);
    }
    for unit in &units.enable {
        note(enable(tree, unit, epoch), unit, "enable", tree);
    }
    for unit in &units.mask {
        note(mask(tree, unit, epoch), unit, "mask", tree);
    }
    for check in &recipe.checks {
        let CheckKind::Unit(name) = &check.kind else { continue };
        if matches!(load(tree, name), Err(LoadError::Missing)) && !is_made_at_run_time(name) {
            let unit = At::new(name.clone(), check.span);
            found.push(Fault::Load(LoadError::Missing).diagnostic(&unit, "check", tree));
        }
    }
    if found.is_empty() { Ok(()) } else { Err(recipe.complain(found)) }
}

/// Whether units of this type are made from fstab, the partition table and hardware while the machine runs.
fn is_made_at_run_time(name: &str) -> bool {
    [".device", ".mount", ".swap"].contains(&UnitName::new(name).suffix())
}

/// Why something was not done to a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    Load(LoadError),
    /// It has no `[Install]` section.
    Static,
    /// It is a template, and there is no instance for that destination.
    NoInstance(String),
    /// A name in its section is not one.
    BadName(String),
    /// `Alias=` names a unit of another kind.
    BadAlias(String),
    /// The path is taken by something else.
    Taken(String),
    Tree(TreeError),
}

impl From<LoadError> for Fault {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}

impl From<TreeError> for Fault {
    fn from(error: TreeError) -> Self {
        Self::Tree(error)
    }
}

impl Fault {
    fn diagnostic(self, unit: &At<String>, verb: &str, tree: &Tree) -> Diagnostic {
        let name = unit.value.as_str();
        let found = |label: String| Diagnostic::at(unit.span, format!("cannot {verb} `{name}`"), label);
        match self {
            Self::Load(LoadError::Missing) => {
                let names = names(tree);
                let title = format!("the image has no unit `{name}`");
                match nearest(name, names.keys().map(String::as_str)) {
                    Some(near) => Diagnostic::at(unit.span, title, format!("did you mean \"{near}\"?")),
                    None => Diagnostic::at(unit.span, title, "no such unit")
                        .help("is the package that brings it in `packages`? Units of your own are `[[file]]`s"),
                }
            }
            Self::Load(LoadError::Masked) => found("it is masked".into()).help("a package or a `[[file]]` masks it"),
            Self::Load(LoadError::Alias(other)) => {
                found(format!("it is another name of `{other}`")).help(format!("write \"{other}\""))
            }
            Self::Load(LoadError::Unreadable(why)) => found(why),
            Self::Static => is_static(found("it has no `[Install]` section".into()), name, tree),
            Self::NoInstance(destination) => {
                let example = UnitName::new(name).with_instance("NAME");
                found(format!("it is a template, and `{destination}` needs an instance of it"))
                    .help(format!("name the instance: \"{}\"", example.as_str()))
            }
            Self::BadName(text) => found(format!("its `[Install]` section has \"{}\"", text.escape_debug())),
            Self::BadAlias(alias) => found(format!("its `[Install]` section gives it the impossible name `{alias}`")),
            Self::Taken(path) => found(format!("{path} is there already")),
            Self::Tree(error) => found(error.to_string()),
        }
    }
}

/// What to do about a unit that cannot be enabled: find out what starts it.
fn is_static(found: Diagnostic, name: &str, tree: &Tree) -> Diagnostic {
    let stem = UnitName::new(name).stem().to_owned();
    for suffix in ["socket", "timer", "path"] {
        let other = format!("{stem}.{suffix}");
        if other != name && load(tree, &other).is_ok_and(|unit| !unit.install.is_empty()) {
            return found.help(format!("`{other}` starts it: enable that"));
        }
    }
    for folder in SEARCH_PATH {
        let Ok((_, id)) = tree.resolve(folder.as_bytes()) else { continue };
        for (entry, child) in tree.entries(id).into_iter().flatten() {
            let entry = show(entry);
            let wants = entry.ends_with(".wants") || entry.ends_with(".requires");
            if wants && tree.entries(*child).is_some_and(|links| links.contains_key(name.as_bytes())) {
                let puller = entry.trim_start_matches('/').rsplit_once('.').map_or("", |(puller, _)| puller).to_owned();
                return found.help(format!("`{puller}` starts it by itself: leave it out"));
            }
        }
    }
    found
        .help(format!(
            "say when it starts in a drop-in: `[[file]]` with the path /etc/systemd/system/{name}.d/install.conf"
        ))
        .help("and the content \"[Install]\\nWantedBy=multi-user.target\\n\"")
}

/// `systemctl enable NAME`.
fn enable(tree: &mut Tree, name: &str, epoch: Timestamp) -> Result<(), Fault> {
    let first = load(tree, name)?;
    if first.install.is_empty() {
        return Err(Fault::Static);
    }
    let mut done = BTreeSet::new();
    let mut asked = BTreeSet::new();
    let mut pending = vec![first];
    while let Some(unit) = pending.pop() {
        if !done.insert(unit.name.clone()) {
            continue;
        }
        for also in &unit.install.also {
            let also = expand(also, &unit)?;
            values::unit_name(&also).map_err(|_| Fault::BadName(also.clone()))?;
            // What `Also=` names may be missing or masked, as with systemctl: a package splits its units as it likes.
            if asked.insert(also.clone()) {
                pending.extend(load(tree, &also).ok());
            }
        }
        link_unit(tree, &unit, epoch)?;
    }
    Ok(())
}

fn link_unit(tree: &mut Tree, unit: &Unit, epoch: Timestamp) -> Result<(), Fault> {
    for alias in &unit.install.alias {
        let alias = alias_name(&expand(alias, unit)?, unit)?;
        let path = format!("{}/{}", SEARCH_PATH[0], alias.as_str());
        if path != unit.path {
            link(tree, &path, &unit.path, epoch)?;
        }
    }
    for (suffix, list) in unit.install.destinations() {
        for destination in list {
            let destination = expand(destination, unit)?;
            values::unit_name(&destination).map_err(|_| Fault::BadName(destination.clone()))?;
            let name = match (&unit.install.default_instance, unit.name.is_template()) {
                (Some(instance), true) => unit.name.with_instance(instance),
                (None, true) if !UnitName::new(&destination).is_template() => {
                    return Err(Fault::NoInstance(destination));
                }
                _ => unit.name.clone(),
            };
            let path = format!("{}/{destination}.{suffix}/{}", SEARCH_PATH[0], name.as_str());
            link(tree, &path, &unit.path, epoch)?;
        }
    }
    Ok(())
}

/// An alias has the type of its unit and is a template or an instance as it is (`unit_validate_alias_symlink`).
fn alias_name(alias: &str, unit: &Unit) -> Result<UnitName, Fault> {
    values::unit_name(alias).map_err(|_| Fault::BadName(alias.to_owned()))?;
    let alias = UnitName::new(alias);
    let alias = match unit.name.instance() {
        Some(instance) if !instance.is_empty() && alias.is_template() => alias.with_instance(instance),
        _ => alias,
    };
    let fits = match (unit.name.instance(), alias.instance()) {
        (None, None) => true,
        (Some(unit), Some(alias)) => unit == alias || unit.is_empty(),
        _ => false,
    };
    if fits && alias.suffix() == unit.name.suffix() {
        Ok(alias)
    } else {
        Err(Fault::BadAlias(alias.as_str().to_owned()))
    }
}

/// Specifiers that do not depend on the machine (systemd.unit(5), "Specifiers").
fn expand(text: &str, unit: &Unit) -> Result<String, Fault> {
    let name = match (&unit.install.default_instance, unit.name.is_template()) {
        (Some(instance), true) => unit.name.with_instance(instance),
        _ => unit.name.clone(),
    };
    let mut result = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c != '%' {
            result.push(c);
            continue;
        }
        match characters.next() {
            Some('n') => result.push_str(name.as_str()),
            Some('N') => result.push_str(name.stem()),
            Some('p') => result.push_str(name.prefix()),
            Some('i') => result.push_str(name.instance().unwrap_or_default()),
            Some('j') => result.push_str(name.prefix().rsplit('-').next().unwrap_or_default()),
            Some('%') => result.push('%'),
            _ => return Err(Fault::BadName(text.to_owned())),
        }
    }
    Ok(result)
}

/// A symbolic link from `path` to `target`, both absolute. One that is there and leads to the same file stays.
fn link(tree: &mut Tree, path: &str, target: &str, epoch: Timestamp) -> Result<(), Fault> {
    if let Ok((_, id)) = tree.resolve_parent(path.as_bytes()) {
        let same = match (tree.resolve(path.as_bytes()), tree.resolve(target.as_bytes())) {
            (Ok((_, a)), Ok((_, b))) => a == b,
            _ => matches!(&tree.node(id).kind, Kind::Symlink(old) if old == target.as_bytes()),
        };
        return if same { Ok(()) } else { Err(Fault::Taken(path.to_owned())) };
    }
    let metadata = Metadata { mtime: epoch, ..Metadata::with_mode(0o777) };
    Ok(put(tree, path.as_bytes(), Node { metadata, kind: Kind::Symlink(target.as_bytes().to_vec()) }, epoch)?)
}

/// `systemctl mask NAME`.
fn mask(tree: &mut Tree, name: &str, epoch: Timestamp) -> Result<(), Fault> {
    if matches!(load(tree, name), Err(LoadError::Missing)) && !is_made_at_run_time(name) {
        return Err(LoadError::Missing.into());
    }
    let path = format!("{}/{name}", SEARCH_PATH[0]);
    match tree.resolve_parent(path.as_bytes()).map(|(_, id)| &tree.node(id).kind) {
        Ok(Kind::File(content)) if content.size() > 0 => return Err(Fault::Taken(path)),
        Ok(Kind::Directory(_)) => return Err(Fault::Taken(path)),
        _ => {}
    }
    let metadata = Metadata { mtime: epoch, ..Metadata::with_mode(0o777) };
    Ok(put(tree, path.as_bytes(), Node { metadata, kind: Kind::Symlink(b"/dev/null".to_vec()) }, epoch)?)
}

/// `systemctl disable NAME`: takes away every link in /etc/systemd/system that is named like the unit or leads to it,
/// and, for `Also=`, to those units; then links that lead to those links.
fn disable(tree: &mut Tree, name: &str) -> Result<(), Fault> {
    let first = load(tree, name)?;
    let mut marked: BTreeSet<String> = BTreeSet::new();
    let mut asked = BTreeSet::new();
    let mut pending = vec![first];
    while let Some(unit) = pending.pop() {
        if !marked.insert(unit.name.as_str().to_owned()) {
            continue;
        }
        for also in &unit.install.also {
            let also = expand(also, &unit)?;
            if asked.insert(also.clone()) {
                pending.extend(load(tree, &also).ok());
            }
        }
    }
    loop {
        let links = links_to(tree, &marked);
        if links.is_empty() {
            return Ok(());
        }
        for path in links {
            marked.extend(components(&path).next_back().map(|name| String::from_utf8_lossy(name).into_owned()));
            tree.remove(&path)?;
            let parent: Vec<&[u8]> = components(&path).collect();
            let parent = parent[..parent.len() - 1].join(&b'/');
            let empty = tree.lookup(&parent).and_then(|id| tree.entries(id)).is_some_and(|entries| entries.is_empty());
            if empty && parent.rsplit(|byte| *byte == b'/').next().is_some_and(|folder| folder.contains(&b'.')) {
                tree.remove(&parent)?;
            }
        }
    }
}

/// Links below /etc/systemd/system that have a marked name or lead to a file of a marked name.
fn links_to(tree: &Tree, marked: &BTreeSet<String>) -> Vec<Vec<u8>> {
    let Ok((root, id)) = tree.resolve(SEARCH_PATH[0].as_bytes()) else { return Vec::new() };
    let mut links = Vec::new();
    let mut visit = |folder: &[u8], id: NodeId| {
        for (name, child) in tree.entries(id).into_iter().flatten() {
            let Kind::Symlink(target) = &tree.node(*child).kind else { continue };
            let last = components(target).next_back().unwrap_or_default();
            let is_marked = |name: &[u8]| std::str::from_utf8(name).is_ok_and(|name| marked.contains(name));
            let masked = target == b"/dev/null";
            if !masked && (is_marked(name) || is_marked(last)) {
                links.push([folder, b"/", name].concat());
            }
        }
    };
    visit(&root, id);
    for (name, child) in tree.entries(id).into_iter().flatten() {
        if tree.entries(*child).is_some() {
            visit(&[&root[..], b"/", name].concat(), *child);
        }
    }
    links
}
