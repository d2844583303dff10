//! From a chain of documents to one [`Recipe`].
//!
//! Layers are laid over each other from the oldest ancestor to the recipe itself. In each, in this order:
//! what `[remove]` names is taken away, scalars replace inherited ones, lists are appended. An item that has a key
//! (a package by name, a file by path, a user by name ...) replaces the inherited one of that key; two of the same
//! key in one file are a mistake. `pockets` and `components` are settings of one value and are replaced whole.
//! All mistakes of all layers are found in one go.

use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Diagnostics, listed, nearest};
use super::items::{Found, Keyed, check_of, file_content, pocket_word, pockets, seconds, user_of};
use super::resolved::*;
use super::schema::{self, Document};
use super::source::{At, Sources, Span};
use super::values::{self, Fault};

/// One file of a chain.
#[derive(Debug)]
pub struct Layer {
    /// What it says.
    pub document: Document,
    /// The folder it stands in: what its sources are relative to.
    pub folder: PathBuf,
    /// The beginning of the file.
    pub start: Span,
}

/// What the command line decides instead of the recipe.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--version`.
    pub version: Option<String>,
}

/// Lays `layers`, the oldest ancestor first, over each other. There is at least one layer.
pub fn resolve(layers: Vec<Layer>, overrides: &Overrides, sources: &Sources) -> Result<Recipe, Diagnostics> {
    let start = layers.last().map(|layer| layer.start).unwrap_or_default();
    let mut draft = Draft::default();
    if let Some(version) = &overrides.version {
        draft.version_given = Some(version.clone());
    }
    for layer in layers {
        draft.lay(layer);
    }
    draft.finish(start, sources).map_err(|found| Diagnostics::new(found, sources.clone()))
}

#[derive(Default)]
struct Draft {
    version_given: Option<String>,
    name: Option<At<String>>,
    version: Option<At<String>>,
    description: Option<String>,
    architecture: Architecture,
    state: State,
    scripts: Scripts,
    epoch: Option<i64>,
    suite: Option<At<String>>,
    pockets: Option<At<Vec<At<Pocket>>>>,
    components: Option<Vec<At<String>>>,
    key: Option<At<SourcePath>>,
    repositories: Vec<Repository>,
    packages: Vec<At<PackageRequest>>,
    recommends: bool,
    initrd: Initrd,
    command_line: Vec<At<String>>,
    directories: Vec<DirectoryEntry>,
    files: Vec<FileEntry>,
    symlinks: Vec<SymlinkEntry>,
    users: Vec<User>,
    groups: Vec<Group>,
    units: Units,
    hostname: Option<At<String>>,
    locale: Option<At<String>>,
    timezone: Option<At<String>>,
    checks: Vec<Check>,
    found: Found,
}

impl Draft {
    fn lay(&mut self, layer: Layer) {
        let Layer { mut document, folder, .. } = layer;
        if let Some(remove) = document.remove.take() {
            self.remove(&remove);
        }
        self.scalars(&mut document);
        self.archive(&mut document, &folder);
        self.boot(&mut document);
        self.entries(&mut document, &folder);
        self.accounts(&mut document);
        if let Some(units) = document.units.take() {
            self.units(units.value);
        }
        let checks: Vec<Check> =
            document.check.drain(..).filter_map(|check| check_of(&mut self.found, check)).collect();
        self.found.append("check", &mut self.checks, checks);
    }

    fn remove(&mut self, remove: &schema::RemoveTable) {
        let found = &mut self.found;
        found.remove("package", &mut self.packages, &remove.packages);
        found.remove("repository", &mut self.repositories, &remove.repositories);
        found.remove("package of the initrd", &mut self.initrd.packages, &remove.initrd_packages);
        found.remove("module of the initrd", &mut self.initrd.modules, &remove.initrd_modules);
        found.remove("parameter", &mut self.command_line, &remove.command_line);
        found.remove("user", &mut self.users, &remove.users);
        found.remove("group", &mut self.groups, &remove.groups);
        found.remove("check", &mut self.checks, &remove.checks);
        for name in &remove.files {
            if !self.paths().any(|path| path == name.value) {
                let there: Vec<String> = self.paths().map(str::to_owned).collect();
                self.found.nothing_to_remove("file", name, there.iter().map(String::as_str));
            }
            self.drop_path(&name.value);
        }
        for name in &remove.units {
            if !self.unit_lists().iter().any(|list| list.contains(name)) {
                let there: Vec<String> =
                    self.unit_lists().into_iter().flatten().map(|unit| unit.value.clone()).collect();
                self.found.nothing_to_remove("unit", name, there.iter().map(String::as_str));
            }
            self.unit_lists().into_iter().for_each(|list| list.retain(|unit| unit != name));
        }
    }

    fn paths(&self) -> impl Iterator<Item = &str> {
        let directories = self.directories.iter().map(Keyed::key);
        directories.chain(self.files.iter().map(Keyed::key)).chain(self.symlinks.iter().map(Keyed::key))
    }

    fn drop_path(&mut self, path: &str) {
        self.directories.retain(|entry| entry.key() != path);
        self.files.retain(|entry| entry.key() != path);
        self.symlinks.retain(|entry| entry.key() != path);
    }

    fn unit_lists(&mut self) -> [&mut Vec<At<String>>; 3] {
        [&mut self.units.enable, &mut self.units.disable, &mut self.units.mask]
    }

    fn scalars(&mut self, document: &mut Document) {
        let found = &mut self.found;
        replace(&mut self.name, document.name.take().and_then(|text| found.text("name", text, values::image_name)));
        replace(
            &mut self.version,
            document.version.take().and_then(|text| found.text("version", text, values::version)),
        );
        replace(&mut self.description, document.description.take().map(|text| text.value));
        self.architecture = document.architecture.as_ref().map_or(self.architecture, |at| at.value);
        self.state = document.state.as_ref().map_or(self.state, |at| at.value);
        self.scripts = document.scripts.as_ref().map_or(self.scripts, |at| at.value);
        self.recommends = document.recommends.as_ref().map_or(self.recommends, |at| at.value);
        replace(&mut self.epoch, document.epoch.take().and_then(|epoch| seconds(found, &epoch)));
        let system = document.system.take().map(|system| system.value).unwrap_or_default();
        replace(&mut self.hostname, system.hostname.and_then(|text| found.text("hostname", text, values::hostname)));
        replace(&mut self.locale, system.locale.and_then(|text| found.text("locale", text, values::locale)));
        replace(&mut self.timezone, system.timezone.and_then(|text| found.text("timezone", text, values::timezone)));
    }

    fn archive(&mut self, document: &mut Document, folder: &Path) {
        let found = &mut self.found;
        if let Some(debian) = document.debian.take().map(|debian| debian.value) {
            replace(&mut self.suite, debian.suite.and_then(|text| found.text("suite", text, values::debian_suite)));
            replace(&mut self.pockets, debian.pockets);
            let components = debian.components.map(|list| found.components(list));
            replace(&mut self.components, components);
            replace(&mut self.key, debian.key.map(|key| found.source("key", key, folder)));
        }
        let mut repositories = Vec::new();
        for table in document.repository.drain(..) {
            let table = table.value;
            let key = found.source("key", table.key, folder);
            let (name, suite) = (
                found.text("name", table.name, values::repository_name),
                found.text("suite", table.suite, values::suite),
            );
            let default = || vec![At::new("main".to_owned(), key.span)];
            let components = table.components.map_or_else(default, |list| {
                let span = list.first().map_or(key.span, |first| first.span);
                found.components(At::new(list, span))
            });
            if let (Some(name), Some(suite)) = (name, suite) {
                repositories.push(Repository { name, suite, components, key });
            }
        }
        found.append("repository", &mut self.repositories, repositories);
        let packages = found.packages("packages", std::mem::take(&mut document.packages));
        found.append("package", &mut self.packages, packages);
    }

    fn boot(&mut self, document: &mut Document) {
        let found = &mut self.found;
        if let Some(initrd) = document.initrd.take().map(|initrd| initrd.value) {
            let packages = found.packages("initrd.packages", initrd.packages);
            found.append("package of the initrd", &mut self.initrd.packages, packages);
            let modules = found.texts("initrd.modules", initrd.modules, values::module);
            found.append("module of the initrd", &mut self.initrd.modules, modules);
        }
        if let Some(kernel) = document.kernel.take().map(|kernel| kernel.value) {
            // The same parameter may stand there twice with a meaning (console=): a plain list.
            self.command_line.extend(found.texts("kernel.command-line", kernel.command_line, values::kernel_parameter));
        }
    }

    fn entries(&mut self, document: &mut Document, folder: &Path) {
        let mut seen: Vec<At<String>> = Vec::new();
        let (mut directories, mut files, mut symlinks) = (Vec::new(), Vec::new(), Vec::new());
        let found = &mut self.found;
        let mut new_path = |found: &mut Found, path: At<String>, check: fn(&str) -> Result<(), Fault>| {
            let path = found.text("path", path, check)?;
            if let Some(first) = seen.iter().find(|first| **first == path) {
                found.twice("the path", &path, first.span, path.span);
            }
            seen.push(path.clone());
            Some(path)
        };
        for directory in document.directory.drain(..).map(|directory| directory.value) {
            let ownership = found.ownership(directory.owner, directory.group, directory.path.span);
            let mode = found.mode(directory.mode).unwrap_or(0o755);
            if let Some(path) = new_path(found, directory.path, values::image_path) {
                directories.push(DirectoryEntry { path, mode, ownership });
            }
        }
        for file in document.file.drain(..) {
            let (span, file) = (file.span, file.value);
            let content = file_content(found, file.content, file.source, span, folder);
            let ownership = found.ownership(file.owner, file.group, file.path.span);
            let mode = found.mode(file.mode);
            let path = new_path(found, file.path, values::file_path);
            if let (Some(path), Some(content)) = (path, content) {
                files.push(FileEntry { path, content, mode, ownership });
            }
        }
        for link in document.symlink.drain(..).map(|link| link.value) {
            let ownership = found.ownership(link.owner, link.group, link.path.span);
            let target = found.text("target", link.target, values::symlink_target);
            let path = new_path(found, link.path, values::file_path);
            if let (Some(path), Some(target)) = (path, target) {
                symlinks.push(SymlinkEntry { path, target, ownership });
            }
        }
        for path in seen {
            self.drop_path(&path);
        }
        self.directories.extend(directories);
        self.files.extend(files);
        self.symlinks.extend(symlinks);
    }

    fn accounts(&mut self, document: &mut Document) {
        let found = &mut self.found;
        let users = document.user.drain(..).filter_map(|user| user_of(found, user.value)).collect();
        found.append("user", &mut self.users, users);
        let mut groups = Vec::new();
        for group in document.group.drain(..).map(|group| group.value) {
            let gid = found.id("gid", group.gid);
            if let Some(name) = found.text("name", group.name, values::account_name) {
                groups.push(Group { name, gid, system: group.system });
            }
        }
        found.append("group", &mut self.groups, groups);
    }

    fn units(&mut self, table: schema::UnitsTable) {
        let found = &mut self.found;
        let enable = found.texts("units.enable", table.enable, values::unit_name);
        let disable = found.texts("units.disable", table.disable, values::unit_name);
        let mask = found.texts("units.mask", table.mask, values::unit_name);
        let all: Vec<At<String>> = enable.iter().chain(&disable).chain(&mask).cloned().collect();
        found.twice_within("the unit", &all);
        for list in self.unit_lists() {
            list.retain(|unit| !all.contains(unit));
        }
        self.units.enable.extend(enable);
        self.units.disable.extend(disable);
        self.units.mask.extend(mask);
    }

    fn finish(mut self, start: Span, sources: &Sources) -> Result<Recipe, Vec<Diagnostic>> {
        let blank = At::new(String::new(), start);
        self.version_override(start);
        for (key, missing, example) in [
            ("name", self.name.is_none(), "name = \"web\""),
            ("version", self.version.is_none(), "version = \"1\"` or give `--version 1"),
            ("suite", self.suite.is_none(), "[debian]` and below it `suite = \"trixie\""),
        ] {
            // A value that was given but is wrong has been complained about already.
            let complained = |found: &Diagnostic| found.title.starts_with(&format!("`{key}`"));
            if missing && !self.found.0.iter().any(complained) {
                let found = Diagnostic::at(start, format!("the recipe has no `{key}`"), "");
                self.found.0.push(found.help(format!("write `{example}`")));
            }
        }
        let debian = Debian {
            suite: self.suite.take().unwrap_or(blank.clone()),
            pockets: pockets(&mut self.found, self.pockets.take()),
            components: self.components.take().unwrap_or_else(|| vec![At::new("main".to_owned(), start)]),
            key: self.key.take(),
        };
        self.targets(&debian);
        if !self.found.0.is_empty() {
            return Err(self.found.0);
        }
        let name = self.name.unwrap_or(blank.clone());
        let default = |text: &str| At::new(text.to_owned(), start);
        Ok(Recipe {
            system: System {
                hostname: self.hostname.unwrap_or_else(|| name.clone()),
                locale: self.locale.unwrap_or_else(|| default("C.UTF-8")),
                timezone: self.timezone.unwrap_or_else(|| default("UTC")),
            },
            name,
            version: self.version.unwrap_or(blank),
            description: self.description,
            architecture: self.architecture,
            state: self.state,
            scripts: self.scripts,
            epoch: self.epoch,
            debian,
            repositories: self.repositories,
            packages: self.packages,
            recommends: self.recommends,
            initrd: self.initrd,
            command_line: self.command_line,
            directories: self.directories,
            files: self.files,
            symlinks: self.symlinks,
            users: self.users,
            groups: self.groups,
            units: self.units,
            checks: self.checks,
            sources: sources.clone(),
        })
    }

    fn version_override(&mut self, start: Span) {
        let Some(text) = self.version_given.take() else { return };
        match values::version(&text) {
            Ok(()) => self.version = Some(At::new(text, start)),
            Err(fault) => {
                let title = format!("`--version` cannot be \"{}\"", text.escape_debug());
                let mut found = Diagnostic { span: None, ..Diagnostic::at(start, title, "") };
                found.help.push(fault.label);
                found.help.extend(fault.help);
                self.found.0.push(found);
                self.version.get_or_insert(At::new("0".to_owned(), start));
            }
        }
    }

    /// What stands after `/` in a package must be a suite or repository that the recipe has.
    fn targets(&mut self, debian: &Debian) {
        let suite = debian.suite.as_str();
        if suite.is_empty() {
            return; // complained about already; without it nothing is known
        }
        let pocket = |pocket: &Pocket| format!("{suite}-{}", pocket_word(*pocket));
        let mut known: Vec<String> = vec![suite.to_owned()];
        known.extend(debian.pockets.iter().map(pocket));
        for repository in &self.repositories {
            known.extend([repository.name.value.clone(), repository.suite.value.clone()]);
        }
        for request in self.packages.iter().chain(&self.initrd.packages) {
            let Some(target) = request.target.as_ref().filter(|target| !known.contains(target)) else { continue };
            let title = format!("the recipe has no suite or repository `{target}`");
            let label = match nearest(target, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean \"{}/{near}\"?", request.name),
                None => "not known".into(),
            };
            let all = [Pocket::Updates, Pocket::Security, Pocket::Backports];
            let help = match all.iter().find(|missing| pocket(missing) == **target) {
                Some(missing) => format!("add \"{}\" to `pockets` in `[debian]`", pocket_word(*missing)),
                None => format!("known: {}", listed(known.iter().map(String::as_str))),
            };
            self.found.0.push(Diagnostic::at(request.span, title, label).help(help));
        }
    }
}

fn replace<T>(old: &mut Option<T>, new: Option<T>) {
    if new.is_some() {
        *old = new;
    }
}
