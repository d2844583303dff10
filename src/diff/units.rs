//! systemd units of the system, from names, links and digests alone: what is enabled, masked, added, changed.
//!
//! As systemd.unit(5) has it: the first file of the search path counts; a link to `/dev/null` masks; links in
//! `NAME.wants/`, `NAME.requires/` and `NAME.upholds/` pull a unit in; `NAME.d/*.conf` adds to it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::manifest::File;

/// Where units are, the first before the last. What the administrator (the recipe, a package's script) says is in the
/// first.
const SEARCH_PATH: [&str; 3] = ["/etc/systemd/system/", "/usr/local/lib/systemd/system/", "/usr/lib/systemd/system/"];
const SUFFIXES: [&str; 9] =
    [".service", ".socket", ".target", ".timer", ".path", ".mount", ".automount", ".swap", ".slice"];

/// What becomes of a unit at boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitState {
    /// Pulled in by a link in /etc.
    Enabled,
    /// There, not pulled in by a link in /etc.
    Present,
    /// Cannot be started.
    Masked,
}

/// A unit that is another one afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnitChange {
    /// Its name.
    pub unit: String,
    /// `None`: not there.
    pub before: Option<UnitState>,
    /// `None`: not there.
    pub after: Option<UnitState>,
    /// Links that pull it in now and did not before.
    pub links_added: Vec<String>,
    /// Links that pulled it in before and do not now.
    pub links_removed: Vec<String>,
    /// Its file and drop-ins that were added, removed or changed.
    pub files: Vec<String>,
}

/// What the files say of one unit.
#[derive(Default, PartialEq, Eq)]
struct Unit<'f> {
    /// Position in the search path, and whether the file there masks.
    place: Option<(usize, bool)>,
    /// Files and drop-ins with what identifies their content.
    files: BTreeMap<&'f str, (Option<String>, Option<&'f str>)>,
    links: BTreeSet<&'f str>,
}

impl Unit<'_> {
    fn state(&self) -> Option<UnitState> {
        let enabled = self.links.iter().any(|link| link.starts_with(SEARCH_PATH[0]));
        match self.place {
            Some((_, true)) => Some(UnitState::Masked),
            // A link may pull in an instance, whose file is its template's.
            _ if enabled => Some(UnitState::Enabled),
            Some((_, false)) => Some(UnitState::Present),
            None => None,
        }
    }
}

/// Units that differ, by name.
pub(super) fn compare(before: &[File], after: &[File]) -> Vec<UnitChange> {
    let (old, new) = (units(before), units(after));
    let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    let none = Unit::default();
    let change = |name: &str| {
        let (old, new) = (old.get(name).unwrap_or(&none), new.get(name).unwrap_or(&none));
        if old == new {
            return None;
        }
        let only = |one: &Unit, other: &Unit| -> Vec<String> {
            one.links.difference(&other.links).map(|link| (*link).to_owned()).collect()
        };
        let paths: BTreeSet<&str> = old.files.keys().chain(new.files.keys()).copied().collect();
        let files = paths.into_iter().filter(|path| old.files.get(path) != new.files.get(path));
        Some(UnitChange {
            unit: name.to_owned(),
            before: old.state(),
            after: new.state(),
            links_added: only(new, old),
            links_removed: only(old, new),
            files: files.map(str::to_owned).collect(),
        })
    };
    names.into_iter().filter_map(change).collect()
}

fn is_unit(name: &str) -> bool {
    SUFFIXES.iter().any(|suffix| name.len() > suffix.len() && name.ends_with(suffix))
}

fn units(files: &[File]) -> BTreeMap<&str, Unit<'_>> {
    let mut units: BTreeMap<&str, Unit<'_>> = BTreeMap::new();
    for file in files {
        let place = SEARCH_PATH.iter().enumerate().find_map(|(i, folder)| Some((i, file.path.strip_prefix(folder)?)));
        let Some((position, below)) = place else { continue };
        let identity = (file.sha256.map(|digest| digest.to_string()), file.target.as_deref());
        match below.split_once('/') {
            None if is_unit(below) && file.kind != "directory" => {
                let unit = units.entry(below).or_default();
                let masks = file.target.as_deref() == Some("/dev/null") || file.size == Some(0);
                if unit.place.is_none_or(|(best, _)| position < best) {
                    unit.place = Some((position, masks));
                }
                unit.files.insert(&file.path, identity);
            }
            Some((folder, name)) => match folder.rsplit_once('.') {
                Some((_, "wants" | "requires" | "upholds")) if is_unit(name) => {
                    units.entry(name).or_default().links.insert(&file.path);
                }
                Some((unit, "d")) if is_unit(unit) && name.ends_with(".conf") => {
                    units.entry(unit).or_default().files.insert(&file.path, identity);
                }
                _ => {}
            },
            None => {}
        }
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Kind, Metadata, Node, Tree};

    fn files(list: &[(&str, &str)]) -> Vec<File> {
        let mut tree = Tree::default();
        for (path, text) in list {
            let (parent, _) = crate::tree::split(path.as_bytes()).unwrap();
            tree.make_directories(parent, &Metadata::with_mode(0o755)).unwrap();
            let kind = match text.strip_prefix("-> ") {
                Some(target) => Kind::Symlink(target.into()),
                None => Kind::File(Content::from_bytes(*text)),
            };
            tree.insert(path.as_bytes(), Node { metadata: Metadata::with_mode(0o644), kind }).unwrap();
        }
        crate::manifest::files(&tree).unwrap()
    }

    #[test]
    fn units_are_enabled_masked_overridden_and_extended_as_systemd_sees_it() {
        let before = files(&[
            ("usr/lib/systemd/system/a.service", "1"),
            ("usr/lib/systemd/system/b.service", "1"),
            ("usr/lib/systemd/system/c.timer", "1"),
            ("usr/lib/systemd/system/sysinit.target.wants/b.service", "-> ../b.service"),
            ("usr/lib/systemd/system/t@.service", "1"),
            ("usr/lib/systemd/system/notes.txt", "1"),
        ]);
        let after = files(&[
            ("usr/lib/systemd/system/a.service", "1"),
            ("etc/systemd/system/a.service", "-> /dev/null"),
            ("usr/lib/systemd/system/b.service", "1"),
            ("usr/lib/systemd/system/sysinit.target.wants/b.service", "-> ../b.service"),
            ("etc/systemd/system/b.service.d/more.conf", "x"),
            ("etc/systemd/system/timers.target.requires/c.timer", "-> /usr/lib/systemd/system/c.timer"),
            ("usr/lib/systemd/system/c.timer", "2"),
            ("usr/lib/systemd/system/t@.service", "1"),
            ("etc/systemd/system/getty.target.wants/t@x.service", "-> /usr/lib/systemd/system/t@.service"),
            ("usr/lib/systemd/system/notes.txt", "2"),
        ]);
        let found = compare(&before, &after);
        let list: Vec<_> = found.iter().map(|unit| (unit.unit.as_str(), unit.before, unit.after)).collect();
        let (present, enabled, masked) = (Some(UnitState::Present), Some(UnitState::Enabled), Some(UnitState::Masked));
        let expected = [
            ("a.service", present, masked),
            ("b.service", present, present),
            ("c.timer", present, enabled),
            ("t@x.service", None, enabled),
        ];
        assert_eq!(list, expected);
        assert_eq!(found[1].files, ["/etc/systemd/system/b.service.d/more.conf"]);
        assert_eq!(found[2].links_added, ["/etc/systemd/system/timers.target.requires/c.timer"]);
        assert_eq!(found[2].files, ["/usr/lib/systemd/system/c.timer"]);
        assert_eq!(compare(&after, &after), []);
    }
}
