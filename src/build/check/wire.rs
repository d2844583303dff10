//! What the process that checks and the one that builds again tell each other: a plan in, lines of events out.
//!
//! Private to one check: both ends are the same program, so there is no version.

use std::io::Write;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Variation;

/// What is to be built again, and from what.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The recipe, absolute.
    pub recipe: PathBuf,
    /// Everything that the recipe reads, itself and its lock included, absolute: files and directories.
    pub sources: Vec<PathBuf>,
    /// In place of the recipe's.
    pub version: Option<String>,
    /// The directory of the store's objects.
    pub objects: PathBuf,
    /// A directory on disk: [`OUTPUT`] and [`TREE`] are in it.
    pub disk: PathBuf,
    /// Whether there is memory enough for the workspace.
    pub memory: bool,
}

/// The second build, in the place that was made for it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Second {
    /// The copy of the recipe.
    pub recipe: PathBuf,
    pub version: Option<String>,
    pub store: PathBuf,
    pub output: PathBuf,
    pub tree: PathBuf,
}

/// Where the second build's image appears.
pub(super) const OUTPUT: &str = "out";
/// Where the tree is while scripts run.
pub(super) const TREE: &str = "tree";
/// Whose turn it was when: rows of [`Turn`](super::trace::Turn).
pub(super) const TURNS: &str = "turns.json";
/// What [`become_other`](super::second::become_other) waits for: the tracer is there.
pub(super) const TRACED: u8 = b't';
/// The same: there is no tracer.
pub(super) const ALONE: u8 = b'a';
/// When which file was changed.
pub(super) const CHANGES: &str = "changes.json";

/// A line from the second build.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Event {
    /// In its user namespace, waiting for ids.
    Ready,
    /// Something is other than in the first build, or cannot be.
    Varied(Variation),
    /// What it does now.
    Stage(String),
    /// The check could not be made.
    Failed(String),
    /// The build failed.
    BuildFailed(String),
}

/// Tells the other end. If it is gone, so will this process be.
pub(super) fn say(event: &Event) {
    if let Ok(mut line) = serde_json::to_vec(event) {
        line.push(b'\n');
        let _ = std::io::stdout().write_all(&line);
    }
}
