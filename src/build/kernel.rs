//! What boots the tree: kernel and stub from the packages, and the initrd made for them.

use super::{BuildError, Plan};
use crate::boot::initrd;
use crate::boot::os_release;
use crate::lock::LockedPackage;
use crate::rootfs;
use crate::rootfs::deb::UnpackedPackage;
use crate::store::{StageKey, Store};
use crate::tree::{Content, FileAt, Kind, Timestamp, Tree};

/// The file of the stage result.
const ARCHIVE: &str = "initrd.cpio.zst";
/// Where kernel packages put what they are made of.
const MODULES: &str = "usr/lib/modules";

/// A kernel in a tree.
pub struct Kernel {
    /// As `uname -r` says it.
    pub release: String,
    /// The EFI executable.
    pub image: Content,
}

/// The one kernel that `tree` has.
pub fn find(tree: &Tree) -> Result<Kernel, BuildError> {
    let modules = tree.lookup(MODULES.as_bytes()).and_then(|id| tree.entries(id));
    let releases: Vec<String> =
        modules.into_iter().flatten().map(|(name, _)| String::from_utf8_lossy(name).into()).collect();
    let [release] = releases.as_slice() else { return Err(BuildError::Kernels(releases)) };
    let path = format!("boot/vmlinuz-{release}");
    let image = file(tree, &path).ok_or(BuildError::NoFile { what: "kernel", path })?;
    Ok(Kernel { release: release.clone(), image })
}

/// The EFI stub of systemd in the initrd's packages.
pub fn stub(tree: &Tree, efi: &str) -> Result<Content, BuildError> {
    let path = format!("usr/lib/systemd/boot/efi/linux{efi}.efi.stub");
    file(tree, &path).ok_or(BuildError::NoFile { what: "EFI stub", path })
}

/// The text of the tree's os-release, which names the image.
pub fn os_release_text(tree: &Tree) -> Result<String, BuildError> {
    let missing = || BuildError::NoFile { what: "os-release", path: "etc/os-release".to_owned() };
    let (_, id) = tree.resolve(b"etc/os-release").map_err(|_| missing())?;
    match &tree.node(id).kind {
        Kind::File(content) => Ok(String::from_utf8_lossy(&content.to_vec().map_err(BuildError::Read)?).into_owned()),
        _ => Err(missing()),
    }
}

fn file(tree: &Tree, path: &str) -> Option<Content> {
    match &tree.node(tree.resolve(path.as_bytes()).ok()?.1).kind {
        Kind::File(content) => Some(content.clone()),
        _ => None,
    }
}

/// Sources of an initrd.
pub struct InitrdSources<'a> {
    /// The set `initrd` of the lock, and unpacked.
    pub base: (&'a [LockedPackage], &'a [UnpackedPackage]),
    /// The set `initrd-additions`.
    pub additions: (&'a [LockedPackage], &'a [UnpackedPackage]),
    /// The packages of the image: one of them has the kernel's modules.
    pub system: (&'a [LockedPackage], &'a [UnpackedPackage]),
}

/// The packed initrd and the EFI stub; the initrd from the store if it was made before.
pub fn initrd(
    sources: &InitrdSources<'_>,
    plan: &Plan<'_>,
    store: &Store,
) -> Result<((Content, Content), bool), BuildError> {
    let base = rootfs::overlay(sources.base.1)?;
    let stub = stub(&base, plan.recipe.architecture.row().efi)?;
    // Only packages with modules: the initrd's key must not change with the rest of the image.
    let has_modules = |package: &UnpackedPackage| {
        // Debian 12's are in /lib, which is the same place.
        let merged = |path: &[u8]| path.strip_prefix(b"usr/").unwrap_or(path).starts_with(b"lib/modules/");
        package.entries().iter().any(|entry| merged(&entry.path))
    };
    let kernels: Vec<usize> = (0..sources.system.1.len()).filter(|i| has_modules(&sources.system.1[*i])).collect();
    let kernel = rootfs::overlay(&kernels.iter().map(|i| sources.system.1[*i].clone()).collect::<Vec<_>>())?;
    let release = find(&kernel)?.release;
    let os_release = initrd_release(plan, &base);
    let mut key = StageKey::new("initrd")
        .with("epoch", &plan.epoch.to_le_bytes())
        .with("state", format!("{:?}", plan.recipe.state).as_bytes())
        .with("os-release", os_release.as_bytes());
    let packages = sources.base.0.iter().chain(sources.additions.0);
    for package in packages.chain(kernels.iter().map(|i| &sources.system.0[*i])) {
        key = key.with("deb", package.digest.as_bytes());
    }
    for module in &plan.recipe.initrd.modules {
        key = key.with("module", module.value.as_bytes());
    }
    let result = store.build_stage(&key, |directory| {
        let additions = rootfs::overlay(sources.additions.1)?;
        let modules: Vec<String> = plan.recipe.initrd.modules.iter().map(|at| at.value.clone()).collect();
        let tree = initrd::build(&initrd::Sources {
            packages: &base,
            additions: (!sources.additions.1.is_empty()).then_some(&additions),
            kernel: &kernel,
            release: &release,
            modules: &modules,
            os_release: os_release.as_bytes(),
            state: plan.recipe.state,
            epoch: Timestamp::from_seconds(plan.epoch),
        })?;
        let path = directory.join(ARCHIVE);
        std::fs::write(&path, initrd::pack(&tree)?).map_err(|source| BuildError::Workspace { path, source })
    })?;
    let path = result.path.join(ARCHIVE);
    let damaged = |source| BuildError::Damaged { directory: result.directory().to_owned(), source };
    let size = std::fs::metadata(&path).map_err(damaged)?.len();
    Ok(((Content::new(size, std::sync::Arc::new(FileAt(path)), 0), stub), result.cached))
}

/// The initrd says which distribution it is of; the image's own name would make it another one for each version.
fn initrd_release(plan: &Plan<'_>, base: &Tree) -> String {
    let text = os_release_text(base).unwrap_or_else(|_| {
        format!("ID=debian\nVERSION_CODENAME={}\nPRETTY_NAME=\"Debian GNU/Linux\"\n", plan.recipe.debian.suite.value)
    });
    match os_release::get(&text, "ID") {
        Some(_) => text,
        None => format!("ID=debian\n{text}"),
    }
}
