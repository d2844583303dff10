//! The files by which state is prepared: some in the initrd, some in the image.

use super::State;
use super::identity::IDENTITIES;
use crate::tree::{Content, Kind, Metadata, Node, Timestamp, Tree, TreeError};

/// A file to put into a tree, owned by root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Below the root.
    pub path: &'static str,
    /// Permissions.
    pub mode: u16,
    /// Contents.
    pub text: &'static str,
}

pub(super) const fn entry(path: &'static str, mode: u16, text: &'static str) -> Entry {
    Entry { path, mode, text }
}

/// Files of the initrd.
pub fn initrd(state: State) -> &'static [Entry] {
    match state {
        State::Volatile => VOLATILE,
        State::Persistent => PERSISTENT,
    }
}

const VOLATILE: &[Entry] =
    &[entry("usr/lib/adamant/state", 0o755, concat!(include_str!("common.sh"), include_str!("volatile.sh")))];

const PERSISTENT: &[Entry] = &[
    entry("usr/lib/adamant/state", 0o755, concat!(include_str!("common.sh"), include_str!("persistent.sh"))),
    entry("usr/lib/adamant/repart.d/var.conf", 0o644, VAR_PARTITION),
    entry("usr/lib/udev/rules.d/66-adamant-state.rules", 0o644, VAR_RULES),
];

/// Found again by its type. Grows with the disk: no upper limit is set.
const VAR_PARTITION: &str = "\
[Partition]
Type=var
Label=var
Format=ext4
SizeMinBytes=256M
";

/// systemd-repart makes the file system on a loop device, before the partition table names it.
const VAR_RULES: &str = r#"ACTION!="remove", SUBSYSTEM=="block", ENV{DEVTYPE}=="partition", IMPORT{builtin}="kmod load loop ext4"
"#;

/// Puts the files of a machine with `state` into the image's tree. Nothing else is touched; what is there already
/// under one of the names is replaced, but for directories, which stay.
pub fn apply(tree: &mut Tree, state: State, epoch: Timestamp) -> Result<(), TreeError> {
    let journal = match state {
        State::Volatile => JOURNAL_VOLATILE,
        State::Persistent => JOURNAL_PERSISTENT,
    };
    put(tree, &entry("etc/systemd/journald.conf.d/adamant.conf", 0o644, journal), epoch)?;
    for path in ["etc/machine-id", "etc/.updated", "var/.updated"] {
        put(tree, &entry(path, 0o444, if path == "etc/machine-id" { "" } else { UPDATED }), epoch)?;
    }
    if tree.resolve(b"usr/sbin/sshd").is_ok() {
        for entry in SSH {
            put(tree, entry, epoch)?;
        }
        provision(tree, epoch)?;
        // Debian's own way: keys of all kinds below /etc, on first boots only.
        mask(tree, "etc/systemd/system/sshd-keygen.service", epoch)?;
    }
    for identity in IDENTITIES {
        if tree.resolve(identity.of.as_bytes()).is_err() {
            continue;
        }
        for entry in identity.entries {
            put(tree, entry, epoch)?;
        }
        for (path, target) in identity.links {
            link(tree, path, target, epoch)?;
        }
    }
    for (when, unit, _) in MASKED_UNITS.iter().filter(|(when, _, _)| when.is_none_or(|when| when == state)) {
        debug_assert!(when.is_none_or(|when| when == state));
        mask(tree, &format!("etc/systemd/system/{unit}"), epoch)?;
    }
    // Debian 12 leaves it to the administrator whether /tmp is in memory: where / cannot be written, it must be.
    if tree.resolve(b"usr/lib/systemd/system/tmp.mount").is_err() && tree.resolve(TMP_MOUNT.as_bytes()).is_ok() {
        for path in ["etc/systemd/system/tmp.mount", "etc/systemd/system/local-fs.target.wants/tmp.mount"] {
            link(tree, path, &format!("/{TMP_MOUNT}"), epoch)?;
        }
    }
    for (generator, _) in MASKED_GENERATORS {
        mask(tree, &format!("etc/systemd/system-generators/{generator}"), epoch)?;
    }
    Ok(())
}

/// Units that make no sense where the image cannot change, or that prepare what nothing uses, each with its reason;
/// `None`: in every state.
pub const MASKED_UNITS: &[(Option<State>, &str, &str)] = &[
    (None, "apt-daily.timer", "packages are replaced with the image"),
    (None, "apt-daily-upgrade.timer", "packages are replaced with the image"),
    (None, "dpkg-db-backup.timer", "the database cannot change"),
    (None, "e2scrub_all.timer", "there is no LVM"),
    (None, "e2scrub_reap.service", "there is no LVM"),
    (None, "man-db.timer", "manual pages cannot change"),
    (None, "ldconfig.service", "libraries cannot change"),
    (None, "systemd-hwdb-update.service", "the hardware database cannot change"),
    (None, "systemd-update-done.service", "records an update of /usr, which cannot change"),
    (None, "systemd-firstboot.service", "asks who the machine is; credentials say it"),
    (None, "systemd-machine-id-commit.service", "the machine-id is kept below /var or not at all"),
    (None, "systemd-remount-fs.service", "the root file system stays as the initrd mounted it"),
    (None, "systemd-repart.service", "partitions are made in the initrd"),
    (None, "systemd-hibernate-clear.service", "there is no swap to hibernate to"),
    (None, "systemd-udev-load-credentials.service", "udev's rules are the image's"),
    (None, "sys-fs-fuse-connections.mount", "fusectl: who needs it mounts it; FUSE works without"),
    (None, "sys-kernel-config.mount", "configfs: who needs it mounts it"),
    (None, "sys-kernel-debug.mount", "debugfs: who debugs a kernel mounts it"),
    (None, "sys-kernel-tracing.mount", "tracefs: who traces a kernel mounts it"),
    (Some(State::Volatile), "systemd-random-seed.service", "no seed outlives a boot"),
    (Some(State::Volatile), "systemd-networkd-persistent-storage.service", "no lease outlives a boot"),
    (Some(State::Volatile), "systemd-journal-flush.service", "the journal stays in memory"),
    (
        Some(State::Volatile),
        "systemd-journal-catalog-update.service",
        "the image holds the catalogue it was built with",
    ),
    (Some(State::Volatile), "fstrim.timer", "no file system on the disk is written"),
    (Some(State::Volatile), "systemd-pstore.service", "nothing it saves outlives a boot"),
];

/// Generators of units that an immutable image has no use for, each with its reason.
pub const MASKED_GENERATORS: &[(&str, &str)] = &[
    ("systemd-gpt-auto-generator", "mounts are the initrd's business, not guessed from the disk"),
    ("systemd-hibernate-resume-generator", "there is no swap to resume from"),
    ("systemd-rc-local-generator", "/etc/rc.local: a unit says it better"),
    ("systemd-ssh-generator", "opens sshd on sockets that the recipe does not name"),
    ("systemd-system-update-generator", "no update happens within the image"),
    ("systemd-veritysetup-generator", "the root file system is open already"),
];

/// Says that `/etc` and `/var` belong to this `/usr`, so that no unit brings them up to date at boot. The time that
/// counts is the file's, which is the image's epoch: as late as anything in the image.
const UPDATED: &str = "# /etc and /var are as old as this image.\n";

const JOURNAL_VOLATILE: &str = "[Journal]\nStorage=volatile\n";
const JOURNAL_PERSISTENT: &str = "[Journal]\nStorage=persistent\n";

/// Where Debian 12 keeps the unit for those who want it.
const TMP_MOUNT: &str = "usr/share/systemd/tmp.mount";

/// Only for images with an SSH server.
const SSH: &[Entry] = &[
    entry(
        "etc/ssh/sshd_config.d/10-adamant.conf",
        0o644,
        "\
HostKey /var/lib/adamant/ssh/ssh_host_ed25519_key
AuthorizedKeysFile .ssh/authorized_keys /run/adamant/authorized-keys/%u
",
    ),
    entry(
        "usr/lib/systemd/system/adamant-ssh-host-key.service",
        0o644,
        "\
[Unit]
Description=SSH Host Key of this Machine
Before=ssh.service ssh.socket
ConditionPathExists=!/var/lib/adamant/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
RemainAfterExit=yes
ImportCredential=adamant.ssh-host-key
ExecStart=/usr/lib/adamant/ssh-host-key
",
    ),
    entry("usr/lib/adamant/ssh-host-key", 0o755, include_str!("ssh-host-key.sh")),
    entry("usr/lib/systemd/system/ssh.service.d/adamant.conf", 0o644, SSH_DROP_IN),
    entry("usr/lib/systemd/system/ssh.socket.d/adamant.conf", 0o644, SSH_DROP_IN),
];

const SSH_DROP_IN: &str = "\
[Unit]
Wants=adamant-ssh-host-key.service
After=adamant-ssh-host-key.service
";

/// systemd's own way with SSH keys given at boot puts root's below `/root`, where a persistent machine would keep them
/// for ever: its lines of tmpfiles.d(5) are left out.
fn provision(tree: &mut Tree, epoch: Timestamp) -> Result<(), TreeError> {
    let Ok((_, id)) = tree.resolve(b"usr/lib/tmpfiles.d/provision.conf") else { return Ok(()) };
    let Kind::File(content) = &tree.node(id).kind else { return Ok(()) };
    // A file that cannot be read here stops the build where it is written.
    let Ok(text) = content.to_vec() else { return Ok(()) };
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    let kept: Vec<u8> =
        lines.filter(|line| !line.windows(16).any(|part| part == b"authorized_keys.")).flatten().copied().collect();
    let metadata = Metadata { mtime: epoch, ..Metadata::with_mode(0o644) };
    let node = Node { metadata, kind: Kind::File(Content::from_bytes(kept)) };
    insert(tree, "etc/tmpfiles.d/provision.conf", node, epoch)
}

fn put(tree: &mut Tree, entry: &Entry, epoch: Timestamp) -> Result<(), TreeError> {
    let metadata = Metadata { mtime: epoch, ..Metadata::with_mode(entry.mode) };
    insert(tree, entry.path, Node { metadata, kind: Kind::File(Content::from_bytes(entry.text)) }, epoch)
}

fn mask(tree: &mut Tree, path: &str, epoch: Timestamp) -> Result<(), TreeError> {
    link(tree, path, "/dev/null", epoch)
}

fn link(tree: &mut Tree, path: &str, target: &str, epoch: Timestamp) -> Result<(), TreeError> {
    let metadata = Metadata { mtime: epoch, ..Metadata::with_mode(0o777) };
    insert(tree, path, Node { metadata, kind: Kind::Symlink(target.as_bytes().to_vec()) }, epoch)
}

fn insert(tree: &mut Tree, path: &str, node: Node, epoch: Timestamp) -> Result<(), TreeError> {
    let directory = Metadata { mtime: epoch, ..Metadata::with_mode(0o755) };
    let parent = crate::tree::split(path.as_bytes()).map_or(&[][..], |(parent, _)| parent);
    tree.make_directories(parent, &directory)?;
    tree.replace(path.as_bytes(), node)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_sshd() -> Tree {
        let mut tree = Tree::default();
        tree.make_directories(b"usr/sbin", &Metadata::with_mode(0o755)).unwrap();
        let sshd = Node { metadata: Metadata::with_mode(0o755), kind: Kind::File(Content::from_bytes("")) };
        tree.insert(b"usr/sbin/sshd", sshd).unwrap();
        tree
    }

    fn text(tree: &Tree, path: &str) -> String {
        match &tree.node(tree.lookup(path.as_bytes()).unwrap()).kind {
            Kind::File(content) => String::from_utf8(content.to_vec().unwrap()).unwrap(),
            Kind::Symlink(target) => String::from_utf8(target.clone()).unwrap(),
            _ => panic!("{path}: neither file nor symlink"),
        }
    }

    #[test]
    fn the_machine_id_is_empty_and_not_missing() {
        let mut tree = Tree::default();
        apply(&mut tree, State::Volatile, Timestamp::from_seconds(7)).unwrap();
        assert_eq!(text(&tree, "etc/machine-id"), "");
    }

    #[test]
    fn what_is_recorded_as_updated_is_as_late_as_the_epoch() {
        let mut tree = Tree::default();
        apply(&mut tree, State::Persistent, Timestamp::from_seconds(7)).unwrap();
        for path in ["etc/.updated", "var/.updated"] {
            let id = tree.lookup(path.as_bytes()).unwrap();
            assert_eq!(tree.node(id).metadata.mtime, Timestamp::from_seconds(7), "{path}");
        }
    }

    #[test]
    fn tmp_is_in_memory_where_debian_does_not_make_it_so() {
        let unit = || Node { metadata: Metadata::with_mode(0o644), kind: Kind::File(Content::from_bytes("")) };
        let wanted = "etc/systemd/system/local-fs.target.wants/tmp.mount";
        let mut tree = Tree::default();
        tree.make_directories(b"usr/share/systemd", &Metadata::with_mode(0o755)).unwrap();
        tree.insert(TMP_MOUNT.as_bytes(), unit()).unwrap();
        let mut newer = tree.clone();
        apply(&mut tree, State::Volatile, Timestamp::default()).unwrap();
        assert_eq!(text(&tree, wanted), "/usr/share/systemd/tmp.mount");
        newer.make_directories(b"usr/lib/systemd/system", &Metadata::with_mode(0o755)).unwrap();
        newer.insert(b"usr/lib/systemd/system/tmp.mount", unit()).unwrap();
        apply(&mut newer, State::Volatile, Timestamp::default()).unwrap();
        assert_eq!(newer.lookup(wanted.as_bytes()), None);
    }

    #[test]
    fn a_persistent_machine_keeps_its_journal_and_seed() {
        let mut tree = Tree::default();
        apply(&mut tree, State::Persistent, Timestamp::default()).unwrap();
        assert_eq!(text(&tree, "etc/systemd/journald.conf.d/adamant.conf"), JOURNAL_PERSISTENT);
        assert_eq!(tree.lookup(b"etc/systemd/system/systemd-random-seed.service"), None);
        let mut tree = Tree::default();
        apply(&mut tree, State::Volatile, Timestamp::default()).unwrap();
        assert_eq!(text(&tree, "etc/systemd/system/systemd-random-seed.service"), "/dev/null");
    }

    #[test]
    fn only_an_image_with_an_ssh_server_gets_its_files() {
        let mut without = Tree::default();
        apply(&mut without, State::Volatile, Timestamp::default()).unwrap();
        assert_eq!(without.lookup(b"etc/ssh"), None);
        let mut with = with_sshd();
        apply(&mut with, State::Volatile, Timestamp::default()).unwrap();
        assert!(text(&with, "etc/ssh/sshd_config.d/10-adamant.conf").starts_with("HostKey /var/lib/adamant/ssh/"));
    }

    #[test]
    fn keys_given_at_boot_are_not_written_below_root() {
        let mut tree = with_sshd();
        let lines = "f^ /etc/hosts - - - - network.hosts\nf^ /root/.ssh/authorized_keys :0600 root :root - ssh.authorized_keys.root\n";
        let node = Node { metadata: Metadata::with_mode(0o644), kind: Kind::File(Content::from_bytes(lines)) };
        tree.make_directories(b"usr/lib/tmpfiles.d", &Metadata::with_mode(0o755)).unwrap();
        tree.insert(b"usr/lib/tmpfiles.d/provision.conf", node).unwrap();
        apply(&mut tree, State::Persistent, Timestamp::default()).unwrap();
        assert_eq!(text(&tree, "etc/tmpfiles.d/provision.conf"), "f^ /etc/hosts - - - - network.hosts\n");
    }

    #[test]
    fn applying_twice_changes_nothing() {
        let mut tree = with_sshd();
        apply(&mut tree, State::Volatile, Timestamp::default()).unwrap();
        let once: Vec<_> = tree.walk().map(|(path, _)| path).collect();
        apply(&mut tree, State::Volatile, Timestamp::default()).unwrap();
        assert_eq!(tree.walk().map(|(path, _)| path).collect::<Vec<_>>(), once);
    }

    #[test]
    fn the_scripts_of_the_initrd_are_whole() {
        for state in [State::Volatile, State::Persistent] {
            let script = initrd(state)[0];
            assert!(script.text.starts_with("#!/usr/bin/busybox sh\n") && script.text.ends_with("protect\n"));
        }
    }
}
