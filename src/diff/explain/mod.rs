//! Why two images differ: the chain from an input to the digest.
//!
//! ```text
//! image digest
//! └─ root hash
//!    └─ /usr/lib/x                    whose it is, and which step wrote it last: the manifest says so
//!       └─ package y 1.2 → 1.3        what it was locked to, before and after
//!          └─ the lock
//!             └─ index debian-security of 2026-11-01 → 2026-11-20
//! ```
//!
//! Flows in: two [`Subject`]s with manifests. Flows out: an [`Explanation`]: a graph without cycles whose node 0 is the
//! image. An edge of [`Node::because`] is certain. Where a step of the build reads several inputs that differ, it
//! cannot be told which of them it was: those are edges of [`Node::perhaps`], of which at least one is right if there
//! is no certain one. This rests on what a build promises: the same inputs, the same bits. So the inputs of a step that
//! did not change are no cause, and a single one that did is. Where nothing that was recorded differs, the end is
//! [`Effect::Unknown`] with what is missing.

mod boot;
mod files;
mod packages;
mod recipe;

use std::collections::BTreeMap;
use std::rc::Rc;

use serde::Serialize;

use self::packages::Needs;
use super::{Difference, Identity, Subject, difference};
use crate::manifest::{Manifest, Step};

/// Something that differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Effect {
    /// The image as a whole.
    Image {
        /// Digest of its manifest.
        before: Option<String>,
        /// Digest of its manifest.
        after: Option<String>,
    },
    /// The digest that stands for the root file system.
    RootHash {
        /// In the first subject.
        before: String,
        /// In the second subject.
        after: String,
    },
    /// A partition besides that of the root file system.
    Partition {
        /// `esp` or `root-verity`.
        partition: String,
    },
    /// A section of the unified kernel image.
    Section {
        /// Its name.
        name: String,
    },
    /// What the manifest says of recipe, lock and tool; the disk is the same.
    Records,
    /// Files of the root file system that have the same cause.
    Files {
        /// Steps of the builds that wrote them; none if they are as packages ship them, or if it is not known.
        by: Vec<Step>,
        /// Where they are.
        paths: Vec<String>,
    },
    /// Times of files, and nothing else of them.
    Times {
        /// How many files.
        count: usize,
    },
    /// UUIDs, labels and the salt of the hashes, which are derived from name, version and architecture.
    Identifiers,
    /// All packages of the system together: what scripts find.
    InstalledPackages,
    /// A package.
    Package {
        /// Its set.
        set: String,
        /// Its name.
        name: String,
        /// Its version in the first subject.
        before: Option<String>,
        /// Its version in the second subject.
        after: Option<String>,
        /// The repository that it came from: in the second subject, if it is there.
        repository: Option<String>,
    },
    /// The lock.
    Lock,
    /// A package index: an input.
    Index {
        /// Repository, suite, component and architecture.
        index: String,
        /// Its date in seconds since 1970, in the first subject.
        before: Option<u64>,
        /// Its date in seconds since 1970, in the second subject.
        after: Option<u64>,
        /// Whether what it lists is something else; else only its date is.
        content: bool,
    },
    /// The time of everything in the image.
    Epoch {
        /// In seconds since 1970, in the first subject.
        before: i64,
        /// In seconds since 1970, in the second subject.
        after: i64,
    },
    /// A field of the recipe: an input.
    Recipe(RecipeChange),
    /// What made the image: an input.
    Tool {
        /// Name and version, in the first subject.
        before: String,
        /// Name and version, in the second subject.
        after: String,
    },
    /// Nothing that was recorded explains it.
    Unknown {
        /// What is missing.
        why: String,
    },
}

pub use recipe::RecipeChange;

impl Effect {
    /// Whether it is something that a build was given, and that nothing before it explains.
    pub fn is_input(&self) -> bool {
        matches!(self, Self::Index { .. } | Self::Recipe(_) | Self::Tool { .. })
    }
}

/// Something that differs, with its causes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    /// What differs.
    #[serde(flatten)]
    pub effect: Effect,
    /// Positions of nodes that caused it, each for certain.
    pub because: Vec<usize>,
    /// Positions of nodes that may have caused it; if none is certain, at least one of these did.
    pub perhaps: Vec<usize>,
}

/// Why two images differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The first subject.
    pub before: Identity,
    /// The second subject.
    pub after: Identity,
    /// Whether there is nothing to explain.
    pub same: bool,
    /// What differs; the first one is the image. Empty if there is nothing to explain.
    pub nodes: Vec<Node>,
    /// Positions of the inputs that differ and from which no chain leads to the image: they changed nothing, or only
    /// what the manifest says of them.
    pub without_effect: Vec<usize>,
}

/// Explains why two subjects differ.
pub fn explain(before: &Subject, after: &Subject) -> Explanation {
    let difference = difference(before, after);
    let same = difference.same;
    let mut chain = Chain::new(before, after, &difference);
    if !same {
        chain.image();
    }
    let without_effect = chain.without_effect();
    Explanation { before: before.identity(), after: after.identity(), same, nodes: chain.nodes, without_effect }
}

/// Causes of a node: certain ones and possible ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Causes {
    because: Vec<usize>,
    perhaps: Vec<usize>,
}

impl Causes {
    /// Of several inputs that differ, none can be ruled out; a single one must be it.
    fn among(mut candidates: Vec<usize>) -> Self {
        candidates.sort_unstable();
        candidates.dedup();
        match candidates.len() {
            0 | 1 => Self { because: candidates, perhaps: Vec::new() },
            _ => Self { because: Vec::new(), perhaps: candidates },
        }
    }

    fn is_empty(&self) -> bool {
        self.because.is_empty() && self.perhaps.is_empty()
    }
}

/// A graph that grows.
struct Chain<'a> {
    before: &'a Subject,
    after: &'a Subject,
    difference: &'a Difference,
    /// Both manifests, if both say what the images were made from.
    records: Option<(&'a Manifest, &'a Manifest)>,
    recipe: Vec<RecipeChange>,
    nodes: Vec<Node>,
    known: BTreeMap<Effect, usize>,
    /// What was found of packages by set and name, asked for with every file.
    packages: BTreeMap<(String, String), Option<usize>>,
    /// All packages of the system, once they were asked for.
    installed: Option<Option<usize>>,
    /// Who needs whom, before and after.
    needs: [Option<Rc<Needs>>; 2],
    /// Packages whose causes are being looked for: a circle of dependencies ends here.
    open: Vec<(String, String)>,
}

impl<'a> Chain<'a> {
    fn new(before: &'a Subject, after: &'a Subject, difference: &'a Difference) -> Self {
        let full = |subject: &'a Subject| subject.manifest.as_ref().filter(|manifest| manifest.lock.is_some());
        let records = full(before).zip(full(after));
        let recipe = records.map(|(old, new)| recipe::changes(&old.recipe, &new.recipe)).unwrap_or_default();
        Self {
            before,
            after,
            difference,
            records,
            recipe,
            nodes: Vec::new(),
            known: BTreeMap::new(),
            packages: BTreeMap::new(),
            installed: None,
            needs: [None, None],
            open: Vec::new(),
        }
    }

    /// The node of that effect; its causes are found once.
    fn node(&mut self, effect: Effect, causes: impl FnOnce(&mut Self) -> Causes) -> usize {
        if let Some(known) = self.known.get(&effect) {
            return *known;
        }
        let index = self.nodes.len();
        self.known.insert(effect.clone(), index);
        self.nodes.push(Node { effect, because: Vec::new(), perhaps: Vec::new() });
        let Causes { because, perhaps } = causes(self);
        (self.nodes[index].because, self.nodes[index].perhaps) = (because, perhaps);
        index
    }

    fn leaf(&mut self, effect: Effect) -> usize {
        self.node(effect, |_| Causes::default())
    }

    fn unknown(&mut self, why: &str) -> usize {
        let why = match self.records {
            Some(_) => why.to_owned(),
            None => "there are no two manifests that say what the images were made from".to_owned(),
        };
        self.leaf(Effect::Unknown { why })
    }

    /// `causes`, or that they are not known.
    fn or_unknown(&mut self, causes: Causes, why: &str) -> Causes {
        match causes.is_empty() {
            true => Causes { because: vec![self.unknown(why)], perhaps: Vec::new() },
            false => causes,
        }
    }

    fn image(&mut self) {
        let digest = |subject: &Subject| subject.digest.map(|digest| digest.to_string());
        let effect = Effect::Image { before: digest(self.before), after: digest(self.after) };
        self.node(effect, |chain| {
            let mut because = Vec::new();
            let partitions: Vec<String> =
                chain.difference.boot.partitions.iter().map(|partition| partition.part.clone()).collect();
            if chain.before.verity.root_hash != chain.after.verity.root_hash {
                because.push(chain.root_hash());
            }
            because.extend(partitions.iter().filter(|part| *part != "root").map(|part| chain.partition(part)));
            if because.is_empty() {
                because.push(chain.node(Effect::Records, |chain| {
                    let because = chain.inputs();
                    chain.or_unknown(Causes { because, perhaps: Vec::new() }, "recipe, indexes and tool are the same")
                }));
            }
            Causes { because, perhaps: Vec::new() }
        });
    }

    fn root_hash(&mut self) -> usize {
        let hash = |subject: &Subject| subject.verity.root_hash.to_string();
        self.node(Effect::RootHash { before: hash(self.before), after: hash(self.after) }, |chain| {
            let mut causes = Causes { because: chain.files(), perhaps: Vec::new() };
            // The salt of the hashes, the file system's UUID and its time stand beside the files.
            causes.because.extend(chain.identifiers());
            causes.because.extend(chain.epoch());
            if let Some(tool) = chain.tool() {
                let into = if causes.is_empty() { &mut causes.because } else { &mut causes.perhaps };
                into.push(tool);
            }
            chain.or_unknown(causes, "files, identifiers, epoch and tool are the same")
        })
    }

    /// All inputs that differ.
    fn inputs(&mut self) -> Vec<usize> {
        let mut inputs: Vec<usize> =
            self.recipe.clone().into_iter().map(|change| self.leaf(Effect::Recipe(change))).collect();
        inputs.extend(self.indexes(false));
        inputs.extend(self.tool());
        inputs
    }

    /// Inputs that differ and that no chain from the image ends in.
    fn without_effect(&mut self) -> Vec<usize> {
        let mut reached = vec![false; self.nodes.len()];
        let mut pending: Vec<usize> = if reached.is_empty() { Vec::new() } else { vec![0] };
        while let Some(index) = pending.pop() {
            if !std::mem::replace(&mut reached[index], true) {
                pending.extend(self.nodes[index].because.iter().chain(&self.nodes[index].perhaps));
            }
        }
        let inputs = self.inputs();
        inputs.into_iter().filter(|index| !reached.get(*index).is_some_and(|reached| *reached)).collect()
    }

    fn tool(&mut self) -> Option<usize> {
        let name = |manifest: &Manifest| format!("{} {}", manifest.tool.name, manifest.tool.version);
        let (old, new) = (self.before.manifest.as_ref()?, self.after.manifest.as_ref()?);
        (old.tool != new.tool).then(|| self.leaf(Effect::Tool { before: name(old), after: name(new) }))
    }

    fn identifiers(&mut self) -> Option<usize> {
        let seed = |subject: &Subject| (subject.name.clone(), subject.version.clone(), subject.architecture);
        if seed(self.before) == seed(self.after) {
            return None;
        }
        Some(self.node(Effect::Identifiers, |chain| {
            let because = chain.recipe_nodes(|change| ["name", "version", "architecture"].contains(&&*change.field));
            chain.or_unknown(Causes { because, perhaps: Vec::new() }, "the recipes say the same")
        }))
    }

    fn epoch(&mut self) -> Option<usize> {
        let (old, new) = (self.before.manifest.as_ref()?, self.after.manifest.as_ref()?);
        if old.epoch == new.epoch {
            return None;
        }
        Some(self.node(Effect::Epoch { before: old.epoch, after: new.epoch }, |chain| {
            let mut because = chain.recipe_nodes(|change| change.field == "epoch");
            if because.is_empty() {
                // Without a word of the recipe it is the date of the newest index.
                because = chain.newest_indexes();
            }
            chain.or_unknown(Causes { because, perhaps: Vec::new() }, "neither the recipe nor an index says another")
        }))
    }

    /// Nodes of the changes of the recipe that are `wanted`.
    fn recipe_nodes(&mut self, wanted: impl Fn(&RecipeChange) -> bool) -> Vec<usize> {
        let changes: Vec<RecipeChange> = self.recipe.iter().filter(|change| wanted(change)).cloned().collect();
        changes.into_iter().map(|change| self.leaf(Effect::Recipe(change))).collect()
    }
}
