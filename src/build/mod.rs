//! The arrow from a recipe to an image: the stages in their order.
//!
//! ```text
//! recipe ── lock ──> fetch ──> unpack ─┬─> configure (sandbox) ──> normalise ──> compress ──> recipe's files ─┐
//!                                      └─> initrd ────────────────────────────────────────────────────────────┤
//!                                                                         EROFS ──> verity ──> UKI ──> disk <──┘
//! ```
//!
//! In: a [`Plan`], a [`Fetcher`] with its store, an output directory. Out: the directory, whole, and a [`Built`].
//! `unpack`, `configure`, `initrd`, `compress` and the whole `image` are results in the store, by the digest of everything
//! that they depend on, or come from a cache that machines share: after a change of a file in the recipe, only what comes
//! after `compress` is done. An output that is still as it was published is left alone ([`unchanged`]). This module
//! and `cli` are where the pure stages meet the network and the disk.

pub mod check;
pub mod image;
pub mod kernel;
pub mod lock;
pub mod origins;
pub mod outdated;
pub mod output;
pub mod packages;
pub mod roots;
pub mod segments;
pub mod stages;
pub mod system;
pub mod tools;
mod unchanged;
pub mod update;
pub mod vendor;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::origins::Origins;
use self::output::{Output, OutputError};
use self::packages::PackagesError;
use self::segments::Segments;
use self::stages::{Stage, Stages};
use crate::boot::initrd::InitrdError;
use crate::digest::Digest;
use crate::disk;
use crate::lock::{Lock, LockedPackage};
use crate::manifest::{self, DescribeError, Manifest, Subject};
use crate::recipe::{Diagnostics, Recipe, SourceContents};
use crate::rootfs::{ConfigureError, NormaliseError, OverlayError, Storage};
use crate::store::fetch::Fetcher;
use crate::store::{StageKey, StoreError};
use crate::telemetry::Progress;
use crate::tree::{Content, FileAt, TreeError};
use crate::verity::RootHash;

/// What is to be built.
pub struct Plan<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// What its sources hold.
    pub sources: &'a SourceContents,
    /// Its lock.
    pub lock: &'a Lock,
    /// The time of everything in the image, in seconds since 1970.
    pub epoch: i64,
    /// Threads to use; no byte depends on it.
    pub workers: NonZeroUsize,
    /// Where the tree is while scripts run; no byte depends on it.
    pub storage: Storage,
}

/// What was built.
#[derive(Debug)]
pub struct Built {
    /// The output directory.
    pub directory: PathBuf,
    /// The disk in it.
    pub image: PathBuf,
    /// The manifest in it.
    pub manifest: PathBuf,
    /// SHA-256 of the manifest: stands for everything.
    pub digest: Digest,
    /// What the kernel verifies the root file system by.
    pub root_hash: RootHash,
    /// What was done.
    pub stages: Vec<Stage>,
}

impl Built {
    /// Whether something was made that takes long to make again, so that it is worth waiting until it is on disk. An image
    /// of what the store has takes less time to make than to get there.
    pub fn is_to_be_settled(&self) -> bool {
        const LONG: [&str; 4] = ["unpack", "configure", "initrd", "compress"];
        self.stages.iter().any(|stage| !stage.cached && LONG.contains(&stage.name))
    }
}

/// Why nothing was built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The recipe asks for what cannot be done with its packages.
    #[error("the recipe is wrong")]
    Recipe(#[from] Diagnostics),
    /// The lock lacks a set.
    #[error("the lock has no set {0:?}; `adamant lock` makes a new one")]
    NoSet(&'static str),
    /// Packages.
    #[error(transparent)]
    Packages(#[from] PackagesError),
    /// Packages that do not go together.
    #[error("cannot lay the packages over each other")]
    Overlay(#[from] OverlayError),
    /// The sandbox.
    #[error("cannot configure the packages")]
    Configure(#[from] ConfigureError),
    /// None or several.
    #[error("an image has one kernel, its packages have {}; name one kernel package, as in linux-image-cloud-amd64",
        if .0.is_empty() { "none".to_owned() } else { .0.join(", ") })]
    Kernels(Vec<String>),
    /// A file that packages should have.
    #[error("the packages have no {what}: /{path}")]
    NoFile {
        /// What it is.
        what: &'static str,
        /// Where it should be.
        path: String,
    },
    /// What no image keeps.
    #[error("cannot normalise the tree")]
    Normalise(#[from] NormaliseError),
    /// The initrd.
    #[error("cannot make the initrd")]
    Initrd(#[from] InitrdError),
    /// The tree.
    #[error("cannot finish the tree")]
    Tree(#[from] TreeError),
    /// File system, hash tree, kernel image, partitions.
    #[error(transparent)]
    Image(#[from] image::ImageError),
    /// The manifest.
    #[error("cannot write the manifest")]
    Manifest(#[from] DescribeError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The output directory.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A file of the build.
    #[error("cannot write {}", .path.display())]
    Workspace {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A configured tree in the store.
    #[error("{} in the store was damaged since it was made: remove it and run the command again", .directory.display())]
    DamagedTree {
        /// The stage's result.
        directory: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ConfigureError,
    },
    /// An initrd or an image in the store.
    #[error("{} in the store was damaged since it was made: remove it and run the command again", .directory.display())]
    Damaged {
        /// The stage's result.
        directory: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// A file that was there before.
    #[error("cannot read a file of the build")]
    Read(#[source] io::Error),
}

/// The name of an image's facts in its stage result.
const FACTS: &str = "facts.json";
/// The directory of an image's stage result that becomes the output.
const FILES: &str = "files";

/// What is told of an image that was made.
#[derive(Serialize, Deserialize)]
struct Facts {
    /// File name of the disk.
    disk: String,
    /// SHA-256 of the manifest.
    digest: Digest,
    root_hash: RootHash,
    /// SHA-256 of every file of the output.
    files: BTreeMap<String, Digest>,
}

/// Builds the image of `plan` into the directory `target`.
pub fn build(plan: &Plan<'_>, target: &Path, fetcher: &Fetcher, progress: &dyn Progress) -> Result<Built, BuildError> {
    let output = Output::create(target)?;
    let stages = Stages::new(progress);
    let store = fetcher.store();
    let key = key(plan);
    let made =
        store.build_stage(&key, |directory| make(plan, &key.digest(), directory, output.path(), fetcher, &stages))?;
    let damaged = |source| BuildError::Damaged { directory: made.directory().to_owned(), source };
    let facts = fs::read(made.path.join(FACTS)).and_then(|text| Ok(serde_json::from_slice::<Facts>(&text)?));
    let facts = facts.map_err(damaged)?;
    let is_unchanged = made.cached && unchanged::is_unchanged(store, target, key.digest());
    if made.cached {
        stages.run("image", || Ok::<_, BuildError>(((), true)))?;
    }
    if !is_unchanged {
        for (name, digest) in &facts.files {
            let (file, target) = (FileAt(made.path.join(FILES).join(name)), output.path().join(name));
            // The large ones were written while their digests were computed.
            if !made.cached && target.exists() {
                continue;
            }
            let size = fs::metadata(&file.0).map_err(damaged)?.len();
            let content = Content::new(size, Arc::new(file), 0);
            // What was made just now was hashed when it was made.
            let is_whole = || if made.cached { Ok(content.digest()? == *digest) } else { Ok(true) };
            let (written, is_whole) = rayon::join(|| write_content(&content, &target), is_whole);
            if !is_whole.map_err(damaged)? {
                return Err(damaged(io::Error::new(io::ErrorKind::InvalidData, format!("{name} has another digest"))));
            }
            written?;
        }
        output.publish()?;
        unchanged::remember(store, target, key.digest());
    }
    Ok(Built {
        directory: target.to_owned(),
        image: target.join(facts.disk),
        manifest: target.join(manifest::FILE_NAME),
        digest: facts.digest,
        root_hash: facts.root_hash,
        stages: stages.into_ended(),
    })
}

/// The key of the whole image: everything in the output depends on this and nothing else.
fn key(plan: &Plan<'_>) -> StageKey {
    let recipe = plan.recipe.record(plan.sources).unwrap_or_default();
    StageKey::new("image")
        .with("recipe", crate::recipe::record_digest(&recipe).as_bytes())
        .with("lock", Digest::of(plan.lock.to_text().as_bytes()).as_bytes())
        .with("epoch", &plan.epoch.to_le_bytes())
}

/// Makes the image of `plan`, which has the key `key`, in the empty directory `directory`, and its large files in `output`
/// too.
fn make(
    plan: &Plan<'_>,
    key: &Digest,
    directory: &Path,
    output: &Path,
    fetcher: &Fetcher,
    stages: &Stages<'_>,
) -> Result<(), BuildError> {
    let store = fetcher.store();
    let set = |name: &'static str| plan.lock.sets.get(name).map(Vec::as_slice);
    let system_set = set(lock::SYSTEM).ok_or(BuildError::NoSet(lock::SYSTEM))?;
    let initrd_set = set(lock::INITRD).ok_or(BuildError::NoSet(lock::INITRD))?;
    let additions_set = set(lock::INITRD_ADDITIONS).unwrap_or_default();

    let everything: Vec<LockedPackage> = [system_set, initrd_set, additions_set].concat();
    packages::fetch(&everything, fetcher, stages)?;
    let unpacked = stages.run("unpack", || packages::unpack(&everything, fetcher))?;
    let (system_packages, rest) = unpacked.split_at(system_set.len());
    let (initrd_packages, additions) = rest.split_at(initrd_set.len());

    let sources = kernel::InitrdSources {
        base: (initrd_set, initrd_packages),
        additions: (additions_set, additions),
        system: (system_set, system_packages),
    };
    let (configured, initrd) = rayon::join(
        || stages.run("configure", || system::configured(system_set, system_packages, plan, store, stages)),
        || stages.run("initrd", || kernel::initrd(&sources, plan, store)),
    );
    let ((mut tree, configured), (initrd, stub)) = (configured?, initrd?);
    let kernel = kernel::find(&tree)?;
    let mut origins = Origins::configured(&tree, system_packages);
    system::normalise(&mut tree, plan, &mut origins)?;
    let options = image::options(plan, &kernel.release);
    stages.run("compress", || Ok::<_, BuildError>(((), segments::compress(&tree, &configured, &options, store)?)))?;
    system::finish(&mut tree, plan, &mut origins)?;

    let workspace = store.workspace()?;
    let arguments: Vec<String> = plan.recipe.command_line.iter().map(|at| at.value.clone()).collect();
    let parts = image::Parts {
        name: &plan.recipe.name.value,
        version: &plan.recipe.version.value,
        architecture: plan.recipe.architecture,
        os_release: kernel::os_release_text(&tree)?,
        tree: &tree,
        stub,
        kernel: kernel.image,
        uname: &kernel.release,
        initrd,
        arguments: &arguments,
        epoch: plan.epoch,
        root: options,
    };
    let recorded = workspace.path().join("segments");
    let segments = Segments::open(store, &recorded)?;
    let files = directory.join(FILES);
    fs::create_dir(&files).map_err(workspace_error(&files))?;
    let raw = files.join(format!("{}.raw", manifest::file_stem(parts.name, parts.version, parts.architecture)));
    let image = image::assemble(&parts, &segments, &raw, &workspace.path(), stages)?;
    segments::keep(segments, &recorded, key, store)?;
    let (manifest, files) = stages
        .run("disk", || Ok::<_, BuildError>((write(plan, &parts, &image, &origins, [&files, output])?, false)))?;
    let digest = files.get(manifest::FILE_NAME).copied().unwrap_or_else(|| manifest.digest());
    let facts = Facts { disk: manifest.disk.file.clone(), digest, root_hash: image.root_hash, files };
    let path = directory.join(FACTS);
    let text = serde_json::to_vec(&facts).unwrap_or_default();
    fs::write(&path, text).map_err(workspace_error(&path))
}

fn workspace_error(path: &Path) -> impl FnOnce(io::Error) -> BuildError + use<> {
    let path = path.to_owned();
    move |source| BuildError::Workspace { path, source }
}

/// Writes disk, UKI, manifest and checksums into the first directory, and disk and UKI into the second; their digests.
fn write(
    plan: &Plan<'_>,
    parts: &image::Parts<'_>,
    image: &image::Image,
    origins: &Origins,
    [output, copy]: [&Path; 2],
) -> Result<(Manifest, BTreeMap<String, Digest>), BuildError> {
    let seed = image::seed(parts.name, parts.version, parts.architecture);
    let recipe = plan.recipe.record(plan.sources).unwrap_or_default();
    let subject = Subject {
        name: parts.name,
        version: parts.version,
        architecture: parts.architecture,
        epoch: plan.epoch,
        recipe_sha256: crate::recipe::record_digest(&recipe),
        lock_sha256: Digest::of(plan.lock.to_text().as_bytes()),
        recipe,
        lock: Some(plan.lock),
        written: origins.written(),
        state: plan.recipe.state,
        checks: &plan.recipe.checks,
        disk: &image.disk,
        uki: &image.uki,
        root_hash: image.root_hash,
        salt: image.salt,
        verity_uuid: seed.uuid(b"verity-uuid"),
        data_size: image.data_size,
        packages: manifest::locked_packages(plan.lock),
        tree: parts.tree,
    };
    let (manifest, written) = rayon::join(
        || Manifest::describe(&subject).map_err(BuildError::from),
        || {
            let stem = manifest::file_stem(parts.name, parts.version, parts.architecture);
            let raw = |directory: &Path| directory.join(format!("{stem}.raw"));
            write_around(&image.disk.content, &raw(output), image.root_range.clone())?;
            write_content(&image.disk.content, &raw(copy))?;
            [output, copy]
                .into_iter()
                .try_for_each(|directory| write_content(&image.uki, &directory.join(format!("{stem}.efi"))))
        },
    );
    written?;
    let manifest = manifest?;
    let text = manifest.to_json();
    let mut files = vec![
        (manifest.disk.file.clone(), manifest.disk.sha256),
        (manifest.uki.file.clone(), manifest.uki.sha256),
        (manifest::FILE_NAME.to_owned(), Digest::of(text.as_bytes())),
    ];
    let sums = manifest::checksums(&files);
    files.push((manifest::CHECKSUMS_FILE_NAME.to_owned(), Digest::of(sums.as_bytes())));
    for (name, text) in [(manifest::FILE_NAME, &text), (manifest::CHECKSUMS_FILE_NAME, &sums)] {
        let path = output.join(name);
        fs::write(&path, text).map_err(|source| BuildError::Workspace { path, source })?;
    }
    Ok((manifest, files.into_iter().collect()))
}

/// Writes what the file does not have yet.
fn write_around(content: &Content, path: &Path, there: Range<u64>) -> Result<(), BuildError> {
    let write = || disk::write_sparse_around(content, &File::options().write(true).open(path)?, there);
    write().map_err(workspace_error(path))
}

fn write_content(content: &Content, path: &Path) -> Result<(), BuildError> {
    let write = || disk::write_sparse(content, &File::create_new(path)?);
    write().map_err(workspace_error(path))
}
