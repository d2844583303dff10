//! Why files differ: whose they are and which step wrote them last says what can have changed them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Causes, Chain, Effect};
use crate::manifest::{File, Manifest, Step};

/// What a manifest says of where a file comes from.
struct Origin<'m> {
    file: &'m File,
    package: Option<&'m str>,
}

/// Where dpkg keeps files about single packages.
const DPKG_INFO: &str = "/var/lib/dpkg/info/";

impl Chain<'_> {
    /// Nodes of all files that differ, those with the same causes together.
    pub(super) fn files(&mut self) -> Vec<usize> {
        let files = &self.difference.files;
        let mut groups: BTreeMap<(Causes, Vec<Step>), Vec<String>> = BTreeMap::new();
        if let Some((old, new)) = self.records {
            let (old, new) = (by_path(old), by_path(new));
            for (path, times_only) in files.paths() {
                let (before, after) = (old.get(path), new.get(path));
                // A directory's time, and that of all that a build makes, is the epoch.
                if times_only && self.epoch().is_some() {
                    continue;
                }
                let causes = self.file(path, before, after);
                let by: BTreeSet<Step> = [before, after].into_iter().flatten().filter_map(|o| o.file.by).collect();
                groups.entry((causes, by.into_iter().collect())).or_default().push(path.to_owned());
            }
        } else {
            let paths: Vec<String> = files.paths().map(|(path, _)| path.to_owned()).collect();
            if !paths.is_empty() {
                let because = vec![self.unknown("")];
                groups.insert((Causes { because, perhaps: Vec::new() }, Vec::new()), paths);
            }
        }
        let mut groups: Vec<_> = groups.into_iter().map(|(causes, paths)| (paths, causes)).collect();
        groups.iter_mut().for_each(|(paths, _)| paths.sort());
        groups.sort();
        let mut nodes = Vec::new();
        for (paths, (causes, by)) in groups {
            nodes.push(self.node(Effect::Files { by, paths }, |_| causes));
        }
        let count = files.retimed.len();
        if let Some(epoch) = self.epoch().filter(|_| count > 0) {
            nodes.push(self.node(Effect::Times { count }, |_| Causes { because: vec![epoch], perhaps: Vec::new() }));
        }
        nodes
    }

    fn file(&mut self, path: &str, before: Option<&Origin>, after: Option<&Origin>) -> Causes {
        let sides = || [before, after].into_iter().flatten();
        let steps: BTreeSet<Step> = sides().filter_map(|origin| origin.file.by).collect();
        let packages: BTreeSet<&str> = sides().filter_map(|origin| origin.package).collect();
        let own: Vec<usize> = packages.iter().filter_map(|package| self.package("system", package)).collect();
        let shipped = sides().any(|origin| origin.file.by.is_none());
        // What a package ships changes with it, what dpkg keeps about a package too: no other input is read.
        if steps.is_empty() || path.starts_with(DPKG_INFO) && !own.is_empty() {
            // As packages ship it, and more than one does: a directory.
            let own = if packages.is_empty() { self.installed_packages().into_iter().collect() } else { own };
            let why = match packages.is_empty() {
                true => "it belongs to no package and no step is said to have written it",
                false => "its package is the same, and no step is said to have written it",
            };
            return self.or_unknown(Causes { because: own, perhaps: Vec::new() }, why);
        }
        let mut candidates = if shipped { own.clone() } else { Vec::new() };
        for step in steps {
            candidates.extend(self.step_inputs(step, path, &own));
        }
        let why = "nothing that the step which wrote it reads is recorded as changed";
        self.or_unknown(Causes::among(candidates), why)
    }

    /// Inputs of a step that differ, as far as they can have to do with `path`.
    fn step_inputs(&mut self, step: Step, path: &str, own: &[usize]) -> Vec<usize> {
        let mut inputs: Vec<usize> = match step {
            Step::Configure | Step::Normalise => self.configure_inputs(),
            Step::Settings => {
                let mut inputs = own.to_vec();
                inputs.extend(self.recipe_nodes(|change| {
                    ["name", "version"].contains(&&*change.field) && path.ends_with("os-release")
                        || change.field == "system.hostname" && path == "/etc/hostname"
                        || change.field == "system.locale" && path.contains("locale")
                        || change.field == "system.timezone" && path.contains("timezone")
                        || change.field == "system.timezone" && path == "/etc/localtime"
                }));
                inputs
            }
            Step::Accounts => {
                let mut inputs = self.configure_inputs();
                inputs.extend(self.recipe_nodes(|change| ["users", "groups"].contains(&&*change.field)));
                inputs
            }
            Step::State => self.recipe_nodes(|change| change.field == "state"),
            Step::Files => self.recipe_files(path),
            Step::Units => {
                let mut inputs = self.recipe_nodes(|change| change.field.starts_with("units."));
                inputs.extend(self.installed_packages());
                inputs
            }
        };
        inputs.extend(self.tool());
        inputs
    }

    /// Scripts see all packages, the files that are laid out before they run, and the epoch as their time.
    fn configure_inputs(&mut self) -> Vec<usize> {
        let mut inputs: Vec<usize> = self.installed_packages().into_iter().collect();
        inputs.extend(self.recipe_nodes(|change| change.field == "system.locale"));
        inputs.extend(self.epoch());
        inputs
    }

    /// The entries of the recipe for `path`, or for a directory above it; all of them if a symlink led there.
    fn recipe_files(&mut self, path: &str) -> Vec<usize> {
        const FIELDS: [&str; 3] = ["directories", "files", "symlinks"];
        let covers = |item: &str| path == item || path.strip_prefix(item).is_some_and(|rest| rest.starts_with('/'));
        let exact =
            self.recipe_nodes(|change| FIELDS.contains(&&*change.field) && change.item.as_deref().is_some_and(covers));
        if !exact.is_empty() {
            return exact;
        }
        let mut inputs = self.recipe_nodes(|change| FIELDS.contains(&&*change.field));
        // Owners by name are looked up among the accounts.
        inputs.extend(self.recipe_nodes(|change| ["users", "groups"].contains(&&*change.field)));
        inputs.extend(self.installed_packages());
        inputs
    }
}

fn by_path(manifest: &Manifest) -> BTreeMap<&str, Origin<'_>> {
    fn origin<'m>(manifest: &'m Manifest, file: &'m File) -> Origin<'m> {
        let package = file.package.and_then(|index| manifest.packages.get(index as usize));
        Origin { file, package: package.map(|package| package.name.as_str()) }
    }
    manifest.files.iter().map(|file| (file.path.as_str(), origin(manifest, file))).collect()
}
