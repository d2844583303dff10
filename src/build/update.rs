//! Renewing a lock with store and network, and saying what that changes.
//!
//! Flows in: a request, the lock so far, what is to be renewed. Flows out: the next lock and a [`Report`]: each package
//! that changes, where its next version comes from, and the vulnerabilities that its changelog names between the two.
//!
//! The archive's `dists/` names no vulnerability. The changelog inside a package does, and it comes with the very bytes
//! that the lock pins: so the packages that change are fetched here, which the build needs anyway. What no changelog names
//! is not made up: a changelog that is not there, is another package's of another version, or counts its versions
//! otherwise than the package (while the store lacks the earlier package, whose own changelog would tell) says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use super::lock::MakeLockError;
use super::packages::{self, PackagesError};
use super::stages::Stages;
use crate::apt::update::{ControlSource, Renewal, Renewed, Unfixed};
use crate::apt::{self, FetchError, LockError, LockRequest, changelog};
use crate::digest::Digest;
use crate::lock::{Lock, LockedPackage, difference};
use crate::rootfs::deb::{EntryKind, UnpackedPackage};
use crate::store::fetch::Fetcher;
use crate::telemetry::Progress;

/// More than any changelog has, unpacked: the kernel's has 8 MB.
const CHANGELOG_MAX: u64 = 64 << 20;
/// Symlinks on the way to a changelog.
const LINKS_MAX: usize = 4;
/// Where packages keep what is written about them.
const DOC: &str = "usr/share/doc";

/// What a renewal changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// By name.
    pub changes: Vec<Change>,
    /// What stays older than what the security archive has.
    pub unfixed: Vec<Unfixed>,
}

/// A package that comes, goes, or is another one next time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub package: String,
    /// The sets in which it changes so.
    pub sets: Vec<String>,
    /// The version so far; `None` if it is new.
    pub before: Option<String>,
    /// The next version; `None` if it goes.
    pub after: Option<String>,
    /// The repository of the next version, else of the last.
    pub repository: String,
    /// The suites of it that have this version.
    pub suites: Vec<String>,
    /// The vulnerabilities that the changelog names between the two versions.
    pub cves: Vec<String>,
}

/// Renews `before` from the archives as they are at `now`, in seconds since 1970.
pub fn renew(
    request: &LockRequest,
    before: &Lock,
    renewal: &Renewal,
    fetcher: &Fetcher,
    progress: &dyn Progress,
    now: u64,
) -> Result<(Lock, Report), RenewError> {
    let controls = StoreControls { fetcher, progress };
    let renewed =
        apt::update::update(request, before, renewal, &controls, fetcher, now).map_err(MakeLockError::from)?;
    let mut changes = changes(before, &renewed);
    name_vulnerabilities(&mut changes, fetcher, progress)?;
    let changes = changes.into_values().map(|(change, _)| change).collect();
    Ok((renewed.lock, Report { changes, unfixed: renewed.unfixed }))
}

/// Why a lock could not be renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// Resolution.
    #[error(transparent)]
    Lock(#[from] MakeLockError),
    /// The packages that change could not be had.
    #[error(transparent)]
    Packages(#[from] PackagesError),
}

/// The two files of a change, as far as there are two.
type Files = (Option<LockedPackage>, Option<LockedPackage>);
/// By package, digest before, digest after.
type Changes = BTreeMap<(String, Option<Digest>, Option<Digest>), (Change, Files)>;

fn changes(before: &Lock, renewed: &Renewed) -> Changes {
    let mut changes = Changes::new();
    let mut add = |set: &str, before: Option<&LockedPackage>, after: Option<&LockedPackage>| {
        let Some(package) = after.or(before) else { return };
        let digest = |package: Option<&LockedPackage>| package.map(|package| package.digest);
        let version = |package: Option<&LockedPackage>| package.map(|package| package.version.clone());
        let key = (package.name.clone(), digest(before), digest(after));
        let (change, _) = changes.entry(key).or_insert_with(|| {
            let change = Change {
                package: package.name.clone(),
                sets: Vec::new(),
                before: version(before),
                after: version(after),
                repository: package.repository.clone(),
                suites: renewed.suites.get(&package.digest).cloned().unwrap_or_default(),
                cves: Vec::new(),
            };
            (change, (before.cloned(), after.cloned()))
        });
        change.sets.push(set.to_owned());
    };
    for (name, set) in &difference(before, &renewed.lock).sets {
        set.added.iter().for_each(|package| add(name, None, Some(package)));
        set.removed.iter().for_each(|package| add(name, Some(package), None));
        set.changed.iter().for_each(|change| add(name, Some(&change.before), Some(&change.after)));
    }
    changes
}

fn name_vulnerabilities(
    changes: &mut Changes,
    fetcher: &Fetcher,
    progress: &dyn Progress,
) -> Result<(), PackagesError> {
    let after: Vec<LockedPackage> =
        changes.values().filter(|(_, files)| files.0.is_some()).filter_map(|(_, files)| files.1.clone()).collect();
    if after.is_empty() {
        return Ok(());
    }
    packages::fetch(&after, fetcher, &Stages::new(progress))?;
    let (unpacked, _) = packages::unpack(&after, fetcher)?;
    let next: BTreeMap<&str, &UnpackedPackage> = unpacked.iter().map(|package| (package.name(), package)).collect();
    for (change, files) in changes.values_mut() {
        let (Some(before), Some(after)) = files else { continue };
        let Some(text) = next.get(after.name.as_str()).and_then(|package| changelog_of(package, &next)) else {
            continue;
        };
        let entries = match changelog::between(&text, &before.version, &after.version) {
            Some(entries) => entries,
            None => {
                let Some(earlier) = earlier_changelog(before, fetcher)? else { continue };
                changelog::since(&text, &earlier).unwrap_or_default()
            }
        };
        let named: BTreeSet<String> = entries.iter().flat_map(|entry| changelog::cves(entry.text)).collect();
        change.cves = named.into_iter().collect();
    }
    Ok(())
}

/// The changelog of the package so far, if the store has it: it is not worth a download.
fn earlier_changelog(before: &LockedPackage, fetcher: &Fetcher) -> Result<Option<String>, PackagesError> {
    if !fetcher.store().contains(&before.digest, before.size)? {
        return Ok(None);
    }
    let (unpacked, _) = packages::unpack(std::slice::from_ref(before), fetcher)?;
    Ok(unpacked.first().and_then(|package| changelog_of(package, &BTreeMap::new())))
}

/// The text of the package's Debian changelog, be it in another package of the same version.
fn changelog_of(package: &UnpackedPackage, others: &BTreeMap<&str, &UnpackedPackage>) -> Option<String> {
    let name = package.name();
    let architecture = package.architecture();
    // A rebuild has an entry of its own in a file of its own, and no changelog of upstream's is in Debian's form.
    [format!("changelog.Debian.{architecture}.gz"), "changelog.Debian.gz".to_owned(), "changelog.gz".to_owned()]
        .iter()
        .find_map(|file| read(package, &format!("{DOC}/{name}/{file}"), others, LINKS_MAX))
}

fn read(
    package: &UnpackedPackage,
    path: &str,
    others: &BTreeMap<&str, &UnpackedPackage>,
    links: usize,
) -> Option<String> {
    // The file itself, or the nearest link on the way to it.
    let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
    let entry = ends.filter_map(|end| Some((end, package.entry(&path.as_bytes()[..end])?))).find_map(|(end, entry)| {
        let links = matches!(entry.kind, EntryKind::Symlink(_));
        (links || end == path.len()).then_some((end, entry))
    });
    match entry {
        Some((end, entry)) => match &entry.kind {
            EntryKind::Symlink(target) if links > 0 => {
                let target = joined(&path[..end], std::str::from_utf8(target).ok()?)?;
                read(package, &format!("{target}{}", &path[end..]), others, links - 1)
            }
            EntryKind::Symlink(_) => None,
            _ => unzip(&package.node(entry).kind),
        },
        // A directory of another package, which must be of the same source to say anything.
        None => {
            let owner = others.get(path.strip_prefix(DOC)?.strip_prefix('/')?.split('/').next()?)?;
            let same = owner.name() != package.name() && owner.version() == package.version();
            if same { read(owner, path, &BTreeMap::new(), links) } else { None }
        }
    }
}

/// The path that a link at `link` means.
fn joined(link: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = if target.starts_with('/') { Vec::new() } else { link.split('/').collect() };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The text, without what is no UTF-8 (names of maintainers before 2005).
fn unzip(kind: &crate::tree::Kind) -> Option<String> {
    let crate::tree::Kind::File(content) = kind else { return None };
    let bytes = content.to_vec().ok()?;
    let mut text = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes.as_slice()).take(CHANGELOG_MAX).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Control files from packages in the store, or fetched: an archive keeps a file for a while after it last listed it.
struct StoreControls<'a> {
    fetcher: &'a Fetcher,
    progress: &'a dyn Progress,
}

impl ControlSource for StoreControls<'_> {
    fn controls(&self, wanted: &[LockedPackage]) -> Result<Vec<String>, LockError> {
        let unpacked = packages::fetch(wanted, self.fetcher, &Stages::new(self.progress))
            .and_then(|()| packages::unpack(wanted, self.fetcher));
        let (unpacked, _) = unpacked.map_err(|error| {
            // Whatever else could be fetched has been.
            let absent = |package: &&LockedPackage| {
                !self.fetcher.store().contains(&package.digest, package.size).unwrap_or(false)
            };
            let source = FetchError::Failed(Box::new(error));
            LockError::Controls { packages: wanted.iter().filter(absent).cloned().collect(), source }
        })?;
        Ok(unpacked.iter().map(|package| package.control().to_owned()).collect())
    }
}
