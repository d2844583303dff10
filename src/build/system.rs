//! The system's tree: packages configured in the sandbox, then what the recipe asks for, then what no image keeps.

use std::path::Path;

use super::origins::Origins;
use super::stages::Stages;
use super::{BuildError, Plan};
use crate::boot::state;
use crate::digest::Digest;
use crate::lock::LockedPackage;
use crate::manifest::Step;
use crate::rootfs::deb::UnpackedPackage;
use crate::rootfs::{self, SeedFile, Settings};
use crate::store::{StageKey, Store};
use crate::tree::{Timestamp, Tree};

/// The store's workspaces are one directory; the sandbox's lies in it, so that it can be emptied by itself.
pub(super) const SANDBOX: &str = "sandbox";

/// The tree of the packages, their scripts run, and the key of that stage; from the store if they were configured before.
pub fn configured(
    locked: &[LockedPackage],
    packages: &[UnpackedPackage],
    plan: &Plan<'_>,
    store: &Store,
    stages: &Stages<'_>,
) -> Result<((Tree, Digest), bool), BuildError> {
    let files = rootfs::system::files_before_configure(plan.recipe);
    let mut key = StageKey::new("configure").with("epoch", &plan.epoch.to_le_bytes());
    for package in locked {
        key = key.with("deb", package.digest.as_bytes());
    }
    for (path, text) in &files {
        key = key.with(path, text.as_bytes());
    }
    let seed = |(path, text): &(&str, String)| SeedFile {
        path: path.trim_start_matches('/').as_bytes().to_vec(),
        mode: 0o644,
        bytes: text.as_bytes().to_vec(),
    };
    let result = store.build_stage(&key, |directory| {
        let workspace = directory.join(SANDBOX);
        std::fs::create_dir(&workspace).map_err(|source| BuildError::Workspace { path: workspace.clone(), source })?;
        let settings = Settings {
            workspace: &workspace,
            program: None,
            epoch: plan.epoch,
            files: files.iter().map(seed).collect(),
            debconf: Vec::new(),
            storage: plan.storage.clone(),
            progress: &|text| stages.progress().event(&crate::telemetry::Event::StageStarted { name: text }),
        };
        let made = rootfs::configure(packages, &settings);
        if made.is_err() {
            // The first error is told; what cannot be removed waits for the next run.
            let _ = rootfs::remove_workspace(&workspace, None);
        }
        made.map(drop).map_err(BuildError::from)
    })?;
    let tree = rootfs::reopen(packages, &result.path.join(SANDBOX)).map_err(|source| match result.cached {
        true => BuildError::DamagedTree { directory: result.directory().to_owned(), source },
        false => source.into(),
    })?;
    Ok(((tree, key.digest()), result.cached))
}

/// Takes away from the configured `tree` what is random or of this build only. `origins` takes note of it.
pub fn normalise(tree: &mut Tree, plan: &Plan<'_>, origins: &mut Origins) -> Result<(), BuildError> {
    noted(Step::Normalise, tree, origins, |tree| Ok(rootfs::normalise(tree, plan.epoch)?))
}

/// Does to the normalised `tree` what the recipe says. `origins` takes note of what each step writes.
pub fn finish(tree: &mut Tree, plan: &Plan<'_>, origins: &mut Origins) -> Result<(), BuildError> {
    let (recipe, epoch) = (plan.recipe, Timestamp::from_seconds(plan.epoch));
    let mut step = |step: Step, apply: &dyn Fn(&mut Tree) -> Result<(), BuildError>| noted(step, tree, origins, apply);
    step(Step::Settings, &|tree| Ok(rootfs::system::apply(tree, recipe, epoch)?))?;
    step(Step::Accounts, &|tree| Ok(rootfs::users::apply(tree, recipe, epoch)?))?;
    step(Step::State, &|tree| Ok(state::apply(tree, recipe.state, epoch)?))?;
    step(Step::Files, &|tree| Ok(rootfs::files::apply(tree, recipe, plan.sources, epoch)?))?;
    step(Step::Units, &|tree| Ok(rootfs::units::apply(tree, recipe, epoch)?))
}

fn noted(
    step: Step,
    tree: &mut Tree,
    origins: &mut Origins,
    apply: impl Fn(&mut Tree) -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    let before = tree.clone();
    apply(tree)?;
    origins.note(step, &before, tree);
    Ok(())
}

/// What sandboxes left at `path` for their user ids, removed with all that is there: a workspace of the store, or the
/// session of a process that was killed, with its workspaces.
pub fn remove_abandoned(path: &Path) -> std::io::Result<()> {
    let sessions_workspaces = std::fs::read_dir(path)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    for place in std::iter::once(path.to_owned()).chain(sessions_workspaces) {
        let sandbox = place.join("content").join(SANDBOX);
        if sandbox.exists() {
            rootfs::remove_workspace(&sandbox, None).map_err(std::io::Error::other)?;
        }
    }
    std::fs::remove_dir_all(path)
}
