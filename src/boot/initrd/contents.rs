//! What an initrd takes from its packages: a list of paths, each with its reason. What is not named stays out; the
//! shared libraries that a named program needs are found from the program itself (see [`libraries`](super::libraries)).

use super::State;

/// When a path is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// In every initrd; the package set must have it.
    Always,
    /// Only where `/var` is a partition.
    Persistent,
    /// Where the packages have it: systemd moved it out of another program since Debian 12.
    Present,
}

impl When {
    /// Whether a machine with `state` needs it.
    pub fn holds(self, state: State) -> bool {
        self != Self::Persistent || state == State::Persistent
    }
}

/// The packages that [`PATHS`] come from, for the recipe that names no others: resolved with their dependencies into
/// a set of the lock of their own, unpacked without running any script. Each with the suite that has it in `systemd`.
const PACKAGES: &[(&str, Option<&str>)] = &[
    ("busybox", None),
    ("e2fsprogs", None),
    ("mount", None),
    ("systemd", None),
    ("systemd-cryptsetup", Some("bookworm")),
    ("systemd-repart", Some("bookworm")),
    ("udev", None),
];

/// The packages of an initrd of Debian's `suite`.
pub fn packages(suite: &str) -> impl Iterator<Item = &'static str> {
    PACKAGES.iter().filter(move |(_, without)| *without != Some(suite)).map(|(name, _)| *name)
}

/// Files, symlinks (with what they lead to) and directories (whole) below the root of the packages' tree.
pub const PATHS: &[(When, &str, &str)] = &[
    (When::Always, "usr/lib/systemd/systemd", "the first process"),
    (When::Present, "usr/lib/systemd/systemd-executor", "starts each service"),
    (When::Always, "usr/lib/systemd/systemd-shutdown", "ends a machine that must not go on"),
    (When::Always, "usr/bin/systemctl", "switches to the root file system"),
    (When::Always, "usr/bin/udevadm", "udev: devices to modules and names"),
    (When::Always, "usr/lib/systemd/systemd-udevd", "udev: the daemon's name"),
    (When::Always, "usr/lib/systemd/systemd-veritysetup", "opens the root file system by its root hash"),
    (
        When::Always,
        "usr/lib/systemd/system-generators/systemd-veritysetup-generator",
        "reads roothash= from the command line",
    ),
    (When::Always, "usr/bin/busybox", "the shell of the script that prepares state, and its tools"),
    (When::Always, "usr/lib/udev/rules.d/50-udev-default.rules", "permissions; loads what must exist"),
    (When::Always, "usr/lib/udev/rules.d/60-block.rules", "change events of block devices"),
    (When::Always, "usr/lib/udev/rules.d/60-persistent-storage.rules", "/dev/disk/by-partuuid"),
    (When::Always, "usr/lib/udev/rules.d/80-drivers.rules", "loads modules by alias"),
    (When::Always, "usr/lib/udev/rules.d/99-systemd.rules", "device units"),
    (When::Always, "usr/lib/systemd/system/basic.target", ""),
    (When::Always, "usr/lib/systemd/system/sysinit.target", ""),
    (When::Always, "usr/lib/systemd/system/sockets.target", ""),
    (When::Always, "usr/lib/systemd/system/shutdown.target", ""),
    (When::Always, "usr/lib/systemd/system/umount.target", ""),
    (When::Always, "usr/lib/systemd/system/final.target", ""),
    (When::Always, "usr/lib/systemd/system/reboot.target", ""),
    (When::Always, "usr/lib/systemd/system/poweroff.target", ""),
    (When::Always, "usr/lib/systemd/system/systemd-reboot.service", ""),
    (When::Always, "usr/lib/systemd/system/systemd-poweroff.service", ""),
    (When::Always, "usr/lib/systemd/system/initrd.target", "the goal"),
    (When::Always, "usr/lib/systemd/system/initrd-fs.target", ""),
    (When::Always, "usr/lib/systemd/system/initrd-root-fs.target", ""),
    (When::Always, "usr/lib/systemd/system/initrd-root-device.target", ""),
    (When::Always, "usr/lib/systemd/system/initrd-usr-fs.target", ""),
    (When::Always, "usr/lib/systemd/system/initrd-cleanup.service", "leaves for the root file system"),
    (When::Always, "usr/lib/systemd/system/initrd-switch-root.target", ""),
    (When::Always, "usr/lib/systemd/system/initrd-switch-root.service", ""),
    (When::Always, "usr/lib/systemd/system/initrd-udevadm-cleanup-db.service", "the system's udev starts afresh"),
    (When::Always, "usr/lib/systemd/system/systemd-udevd.service", ""),
    (When::Always, "usr/lib/systemd/system/systemd-udevd-control.socket", ""),
    (When::Always, "usr/lib/systemd/system/systemd-udevd-kernel.socket", ""),
    (When::Always, "usr/lib/systemd/system/systemd-udev-trigger.service", ""),
    (When::Always, "usr/lib/systemd/system/veritysetup.target", ""),
    (When::Always, "usr/lib/systemd/system/veritysetup-pre.target", ""),
    (When::Persistent, "usr/bin/systemd-repart", "makes and grows the partition of /var"),
    (When::Persistent, "usr/sbin/mke2fs", "makes its file system"),
    (When::Persistent, "usr/sbin/mkfs.ext4", "the name by which systemd-repart calls it"),
    (When::Persistent, "usr/sbin/e2fsck", "repairs it after a crash"),
    (When::Persistent, "usr/lib/systemd/systemd-growfs", "grows it to its partition"),
    (When::Persistent, "etc/mke2fs.conf", "what an ext4 file system is made of"),
];

/// Libraries that are opened by name at run time, so that no program's own list shows them.
pub const OPENED_LIBRARIES: &[(When, &str, &str)] = &[(When::Always, "libkmod.so.2", "systemd and udev load modules")];

/// Parts of an additional package that no initrd needs: they are left out of what a recipe adds.
pub const LEFT_OUT: &[(&str, &str)] = &[
    ("usr/share/doc", "documentation"),
    ("usr/share/man", "documentation"),
    ("usr/share/info", "documentation"),
    ("usr/share/locale", "messages are English until the system runs"),
    ("usr/share/lintian", "for those who build packages"),
    ("usr/share/bug", "for those who report bugs"),
    ("var/lib/dpkg", "the lock says what is in an initrd"),
];
