//! Unit files of a tree: finding them, and reading what their `[Install]` sections say.
//!
//! As systemd 257's `src/shared/install.c` does: the first file of the search path counts, an instance without a file
//! of its own uses its template, drop-ins (`NAME.d/*.conf`) add to the section or, by an empty assignment, reset it.

use std::collections::BTreeMap;

use crate::tree::{Kind, Tree, show};

/// Where units are looked for, the first before the last (systemd.unit(5), "Unit File Load Path"; what is made at
/// run time is left out). The first is where links are made.
pub(super) const SEARCH_PATH: [&str; 3] =
    ["/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"];

/// Aliases followed before it is a loop (`UNIT_FILE_FOLLOW_SYMLINK_MAX`).
const FOLLOW_MAX: usize = 64;
/// A unit file that is larger is not read: none is.
const FILE_MAX: u64 = 1 << 20;

/// What an `[Install]` section says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Install {
    pub wanted_by: Vec<String>,
    pub required_by: Vec<String>,
    pub upheld_by: Vec<String>,
    pub alias: Vec<String>,
    pub also: Vec<String>,
    pub default_instance: Option<String>,
}

impl Install {
    /// Whether enabling would do nothing.
    pub fn is_empty(&self) -> bool {
        let lists = [&self.wanted_by, &self.required_by, &self.upheld_by, &self.alias, &self.also];
        lists.iter().all(|list| list.is_empty()) && self.default_instance.is_none()
    }

    /// The lists that become links in folders, with the endings of these folders.
    pub fn destinations(&self) -> [(&'static str, &[String]); 3] {
        [("wants", &self.wanted_by), ("requires", &self.required_by), ("upholds", &self.upheld_by)]
    }

    /// Takes in the section from `text`, over what is there.
    pub fn read(&mut self, text: &str) {
        let mut inside = false;
        for line in logical_lines(text) {
            if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                inside = section == "Install";
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| inside) else { continue };
            let (key, value) = (key.trim(), value.trim());
            let list = match key {
                "WantedBy" => &mut self.wanted_by,
                "RequiredBy" => &mut self.required_by,
                "UpheldBy" => &mut self.upheld_by,
                "Alias" => &mut self.alias,
                "Also" => &mut self.also,
                "DefaultInstance" => {
                    self.default_instance = (!value.is_empty()).then(|| value.to_owned());
                    continue;
                }
                _ => continue,
            };
            if value.is_empty() && key != "Also" {
                list.clear();
            }
            list.extend(value.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()));
        }
    }
}

/// Lines with those that end in `\` joined, without comments and empty ones (systemd.syntax(7)).
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = String::new();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) || (line.is_empty() && pending.is_empty()) {
            continue;
        }
        match line.strip_suffix('\\') {
            Some(part) => {
                pending.push_str(part);
                pending.push(' ');
            }
            None => {
                pending.push_str(line);
                lines.push(std::mem::take(&mut pending));
            }
        }
    }
    lines.extend((!pending.is_empty()).then_some(pending));
    lines
}

/// A unit that was found.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    /// Its name, aliases of packages followed: `getty@tty1.service`.
    pub name: UnitName,
    /// Its file, absolute: `/usr/lib/systemd/system/getty@.service`.
    pub path: String,
    /// The section, drop-ins included.
    pub install: Install,
}

/// Why a unit cannot be enabled or disabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LoadError {
    /// There is no file.
    Missing,
    /// Its file is empty or a link to /dev/null.
    Masked,
    /// It is a second name, made in /etc, of the unit of that name.
    Alias(String),
    /// The file cannot be read as a unit; why.
    Unreadable(String),
}

/// `prefix@instance.suffix`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct UnitName(String);

impl UnitName {
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// With the dot: `.service`.
    pub fn suffix(&self) -> &str {
        self.0.rfind('.').map_or("", |dot| &self.0[dot..])
    }

    /// Without the suffix.
    pub fn stem(&self) -> &str {
        self.0.strip_suffix(self.suffix()).unwrap_or(&self.0)
    }

    /// Before `@`, or the stem.
    pub fn prefix(&self) -> &str {
        self.stem().split('@').next().unwrap_or_default()
    }

    /// After `@`: `Some("")` for a template, `None` for a plain unit.
    pub fn instance(&self) -> Option<&str> {
        self.stem().split_once('@').map(|(_, instance)| instance)
    }

    pub fn is_template(&self) -> bool {
        self.instance() == Some("")
    }

    /// The template of an instance.
    pub fn template(&self) -> Option<Self> {
        let instance = self.instance()?;
        (!instance.is_empty()).then(|| self.with_instance(""))
    }

    pub fn with_instance(&self, instance: &str) -> Self {
        Self(format!("{}@{instance}{}", self.prefix(), self.suffix()))
    }
}

/// Every name that some unit file has, with the folder it is found in.
pub(super) fn names(tree: &Tree) -> BTreeMap<String, &'static str> {
    let mut names = BTreeMap::new();
    for folder in SEARCH_PATH.iter().rev() {
        let Ok((_, id)) = tree.resolve(folder.as_bytes()) else { continue };
        for (name, child) in tree.entries(id).into_iter().flatten() {
            let file = matches!(tree.node(*child).kind, Kind::File(_) | Kind::Symlink(_));
            if let (true, Ok(name)) = (file, std::str::from_utf8(name)) {
                names.insert(name.to_owned(), *folder);
            }
        }
    }
    names
}

/// Finds the unit `name` and reads its section.
pub(super) fn load(tree: &Tree, name: &str) -> Result<Unit, LoadError> {
    let mut name = UnitName::new(name);
    for _ in 0..FOLLOW_MAX {
        match find(tree, &name)? {
            Found::File(path) => {
                let mut install = Install::default();
                install.read(&text_at(tree, &path)?);
                for path in drop_ins(tree, &name) {
                    install.read(&text_at(tree, &path)?);
                }
                return Ok(Unit { name, path, install });
            }
            Found::AliasOf(target) => {
                let target = UnitName::new(&target);
                name = match name.instance() {
                    Some(instance) if target.is_template() => target.with_instance(instance),
                    _ => target,
                };
            }
        }
    }
    Err(LoadError::Unreadable("its aliases go round in circles".into()))
}

enum Found {
    File(String),
    AliasOf(String),
}

fn find(tree: &Tree, name: &UnitName) -> Result<Found, LoadError> {
    let candidates = std::iter::once(name.clone()).chain(name.template());
    for candidate in candidates {
        for (index, folder) in SEARCH_PATH.iter().enumerate() {
            let path = format!("{folder}/{}", candidate.as_str());
            let Ok((_, id)) = tree.resolve_parent(path.as_bytes()) else { continue };
            match &tree.node(id).kind {
                Kind::File(content) if content.size() == 0 => return Err(LoadError::Masked),
                Kind::File(_) => return Ok(Found::File(path)),
                Kind::Symlink(target) => return follow(target, index == 0),
                _ => {}
            }
        }
    }
    Err(LoadError::Missing)
}

/// Aliases of packages are followed. One made in /etc is the work of enabling another unit: refused, as systemctl
/// does, because its links would bear the wrong name.
fn follow(target: &[u8], in_etc: bool) -> Result<Found, LoadError> {
    let text = show(target);
    let last = text.rsplit('/').next().unwrap_or_default().to_owned();
    match () {
        () if target == b"/dev/null" => Err(LoadError::Masked),
        () if in_etc => Err(LoadError::Alias(last)),
        () => Ok(Found::AliasOf(last)),
    }
}

fn text_at(tree: &Tree, path: &str) -> Result<String, LoadError> {
    let unreadable = |why: String| LoadError::Unreadable(why);
    let (_, id) = tree.resolve(path.as_bytes()).map_err(|error| unreadable(error.to_string()))?;
    let Kind::File(content) = &tree.node(id).kind else { return Err(unreadable(format!("{path} is no file"))) };
    if content.size() > FILE_MAX {
        return Err(unreadable(format!("{path} is too large")));
    }
    let bytes = content.to_vec().map_err(|error| unreadable(error.to_string()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Drop-ins of the unit and of its template, by file name; of the same name, the first of the search path.
fn drop_ins(tree: &Tree, name: &UnitName) -> Vec<String> {
    let mut by_name: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    let owners: Vec<UnitName> = std::iter::once(name.clone()).chain(name.template()).collect();
    for folder in SEARCH_PATH {
        for owner in &owners {
            let folder = format!("{folder}/{}.d", owner.as_str());
            let Ok((_, id)) = tree.resolve(folder.as_bytes()) else { continue };
            for file in tree.entries(id).into_iter().flatten().map(|(file, _)| file) {
                if let (true, Ok(text)) = (file.ends_with(b".conf"), std::str::from_utf8(file)) {
                    by_name.entry(file.clone()).or_insert_with(|| format!("{folder}/{text}"));
                }
            }
        }
    }
    // A link to /dev/null takes a drop-in away.
    let readable = |path: &String| tree.resolve(path.as_bytes()).is_ok();
    by_name.into_values().filter(readable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists_resets_and_continuations() {
        let mut install = Install::default();
        install.read(
            "[Unit]\nWantedBy=no.target\n[Install]\n# a\nWantedBy=a.target \\\n  ; c\n  b.target\nAlias=x.service\n",
        );
        assert_eq!(install.wanted_by, ["a.target", "b.target"]);
        install.read("[Install]\nWantedBy=\nWantedBy=\"c.target\"\nDefaultInstance=one\n[X]\nAlias=no.service\n");
        assert_eq!(install.wanted_by, ["c.target"]);
        assert_eq!((install.alias, install.default_instance), (vec!["x.service".into()], Some("one".into())));
    }

    #[test]
    fn takes_names_apart() {
        let name = UnitName::new("getty@tty1.service");
        assert_eq!((name.prefix(), name.instance(), name.suffix()), ("getty", Some("tty1"), ".service"));
        assert_eq!(name.template().unwrap().as_str(), "getty@.service");
        assert!(name.template().unwrap().is_template() && UnitName::new("a.service").template().is_none());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_panic(text: String) {
            Install::default().read(&text);
            let name = UnitName::new(&text);
            let _ = (name.prefix(), name.instance(), name.template());
        }
    }
}
