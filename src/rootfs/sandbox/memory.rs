//! Whether the sandbox's tree fits into memory.
//!
//! A tmpfs makes and removes files without the disk's journal and vanishes with the sandbox, however that ends. The
//! tree that comes back is the same; only speed depends on the choice.

use std::fs;
use std::path::{Path, PathBuf};

use super::wire::TreePlace;
use crate::rootfs::deb::{EntryKind, UnpackedPackage};

/// Where the tree is while scripts run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Storage {
    /// In memory where there is plenty of it, else on disk.
    #[default]
    Automatic,
    /// In a tmpfs.
    Memory,
    /// In the workspace.
    Disk,
    /// In this empty directory, perhaps on another file system than the workspace. For builds that check others: the
    /// workspace then also tells when each file was last changed ([`CHANGES`](super::CHANGES)).
    Elsewhere(PathBuf),
}

/// Memory must be free for this many times the packages' files: scripts make more, and others want some.
const MARGIN: u64 = 4;

/// A file of any size takes a page, an inode and a name.
const FILE_OVERHEAD: u64 = 4096 + 1024;

impl Storage {
    /// Where the tree of `packages` is to be on this machine.
    pub(super) fn place(&self, packages: &[UnpackedPackage]) -> TreePlace {
        match self {
            Self::Memory => TreePlace::Memory,
            Self::Disk => TreePlace::Workspace,
            Self::Elsewhere(directory) => TreePlace::Directory(directory.clone()),
            Self::Automatic if size(packages).saturating_mul(MARGIN) < available_memory() => TreePlace::Memory,
            Self::Automatic => TreePlace::Workspace,
        }
    }
}

/// Bytes of memory that this process may still use; 0 where that cannot be known.
pub fn available_memory() -> u64 {
    let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    available(&cgroup, |path| fs::read_to_string(path).ok()).unwrap_or(0)
}

fn size(packages: &[UnpackedPackage]) -> u64 {
    let entries = packages.iter().flat_map(UnpackedPackage::entries);
    let of = |kind: &EntryKind| match kind {
        EntryKind::File { size, .. } => *size,
        _ => 0,
    };
    entries.map(|entry| of(&entry.kind) + FILE_OVERHEAD).fold(0, u64::saturating_add)
}

/// Bytes that may be used: of the machine, and of every control group that this process is in.
fn available(cgroup: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let meminfo = read(Path::new("/proc/meminfo"))?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let mut available = line.trim().trim_end_matches(" kB").parse::<u64>().ok()?.saturating_mul(1024);
    let group = cgroup.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    for directory in
        Path::new("/sys/fs/cgroup").join(group).ancestors().take_while(|path| path.starts_with("/sys/fs/cgroup"))
    {
        let number = |name: &str| read(&directory.join(name))?.trim().parse::<u64>().ok();
        // "max" is no number: no limit here.
        if let Some(limit) = number("memory.max") {
            available = available.min(limit.saturating_sub(number("memory.current").unwrap_or(0)));
        }
    }
    Some(available)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_counts() {
        let read = |path: &Path| {
            let text = match path.to_str()? {
                "/proc/meminfo" => "MemTotal: 9 kB\nMemAvailable:    4000 kB\n",
                "/sys/fs/cgroup/a/memory.max" => "2048000\n",
                "/sys/fs/cgroup/a/memory.current" => "1024000\n",
                "/sys/fs/cgroup/a/b/memory.max" => "max\n",
                _ => return None,
            };
            Some(text.to_owned())
        };
        assert_eq!(available("0::/a/b\n", read), Some(1_024_000));
        assert_eq!(available("0::/\n", read), Some(4_096_000));
        assert_eq!(available("", |_| None), None);
    }
}
