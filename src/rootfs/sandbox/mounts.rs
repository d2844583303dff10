//! The mount namespace in which scripts see the tree as their root.
//!
//! ```text
//! /        the tree on disk                       /proc   of the sandbox's own processes
//! /dev     tmpfs: null zero full random urandom   /sys    empty, read-only
//!          tty, pts, shm, fd, std*                /run, /tmp   tmpfs
//! ```
//!
//! The process that sets it up keeps its own namespace, where the tree is a directory without anything mounted on
//! it: that is where files are unpacked and read back. Scripts enter by the descriptor that [`prepare`] returns.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{chdir, pivot_root};

use super::wire::Failure;

/// What scripts find in `/dev`. Those of the host are bound, for a user namespace can make none.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Programs that do nothing while scripts run, each with its reason.
pub(super) const MASKED: [(&str, &str); 4] = [
    ("usr/bin/ssh-keygen", "an image holds no host key: the machine makes its own when it boots"),
    ("usr/sbin/start-stop-daemon", "services are never started"),
    ("usr/sbin/update-initramfs", "the image's initrd is not made from its root file system"),
    ("usr/bin/dracut", "the image's initrd is not made from its root file system"),
];

/// The mount namespace of the scripts, with `tree` as its root.
pub(super) fn prepare(tree: &Path) -> Result<OwnedFd, Failure> {
    // A thread that unshares its mount namespace has a root of its own; the others stay where they are.
    let set_up = || -> Result<OwnedFd, Failure> {
        unshare(CloneFlags::CLONE_NEWNS).map_err(Failure::errno("make a mount namespace for scripts"))?;
        bind(tree, tree, MsFlags::MS_REC).map_err(Failure::errno("bind the tree onto itself"))?;
        populate_dev(&tree.join("dev"))?;
        let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let proc = mount(Some("proc"), &tree.join("proc"), Some("proc"), quiet, None::<&str>);
        proc.map_err(Failure::errno(
            "mount /proc for scripts (in a container, /proc must not be masked: `--security-opt systempaths=unconfined`)",
        ))?;
        tmpfs(&tree.join("run"), "mode=755", MsFlags::empty())?;
        tmpfs(&tree.join("tmp"), "mode=1777", MsFlags::empty())?;
        tmpfs(&tree.join("sys"), "mode=555", MsFlags::MS_RDONLY)?;
        chdir(tree).map_err(Failure::errno("enter the tree"))?;
        // The old root ends up on top of the new one and is taken off: no directory of the tree is needed for it.
        pivot_root(".", ".").map_err(Failure::errno("make the tree the root"))?;
        umount2(".", MntFlags::MNT_DETACH).map_err(Failure::errno("leave the host's root"))?;
        chdir("/").map_err(Failure::errno("enter the tree"))?;
        Ok(File::open("/proc/thread-self/ns/mnt").map_err(Failure::system("open the mount namespace"))?.into())
    };
    thread::scope(|scope| scope.spawn(set_up).join()).unwrap_or_else(|_| Err(panicked()))
}

/// Puts a program that does nothing in the place of each of [`MASKED`] that is there, for scripts only.
pub(super) fn mask(namespace: &OwnedFd) -> Result<(), Failure> {
    let inside = || -> Result<(), Failure> {
        unshare(CloneFlags::CLONE_FS).map_err(Failure::errno("leave the builder's root"))?;
        setns(namespace, CloneFlags::CLONE_NEWNS).map_err(Failure::errno("enter the mount namespace of scripts"))?;
        let nothing = Path::new("/run/.nothing");
        let write = || -> io::Result<()> {
            fs::write(nothing, "#!/bin/sh\nexit 0\n")?;
            fs::set_permissions(nothing, fs::Permissions::from_mode(0o755))
        };
        write().map_err(Failure::system("write a program that does nothing"))?;
        for (path, _) in MASKED {
            let target = Path::new("/").join(path);
            // One that was masked before lies on the file system of /run.
            let device = |path: &Path| fs::symlink_metadata(path).map(|status| status.dev());
            let is_file = fs::symlink_metadata(&target).is_ok_and(|status| status.is_file());
            if is_file && device(&target).ok() != device(nothing).ok() {
                bind(nothing, &target, MsFlags::empty()).map_err(Failure::errno(format!("mask /{path}")))?;
            }
        }
        // What is bound stays when its name goes.
        fs::remove_file(nothing).map_err(Failure::system("remove a temporary program"))
    };
    thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|_| Err(panicked()))
}

fn panicked() -> Failure {
    Failure::System { what: "set up mounts".to_owned(), code: None, message: "its thread panicked".to_owned() }
}

fn bind(from: &Path, to: &Path, flags: MsFlags) -> nix::Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | flags, None::<&str>)
}

fn tmpfs(target: &Path, options: &str, flags: MsFlags) -> Result<(), Failure> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | flags;
    let what = format!("mount a tmpfs on /{}", target.file_name().unwrap_or_default().display());
    mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(options)).map_err(Failure::errno(what))
}

fn populate_dev(dev: &Path) -> Result<(), Failure> {
    tmpfs(dev, "mode=755", MsFlags::empty())?;
    for name in DEVICES {
        let target = dev.join(name);
        File::create(&target).map_err(Failure::system(format!("make a place for /dev/{name}")))?;
        let host = Path::new("/dev").join(name);
        bind(&host, &target, MsFlags::empty()).map_err(Failure::errno(format!("bind the host's /dev/{name}")))?;
    }
    for (name, target) in DEVICE_LINKS {
        symlink(target, dev.join(name)).map_err(Failure::system(format!("link /dev/{name}")))?;
    }
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777)] {
        let make = || {
            fs::create_dir(dev.join(name))?;
            fs::set_permissions(dev.join(name), fs::Permissions::from_mode(mode))
        };
        make().map_err(Failure::system(format!("make /dev/{name}")))?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let options = Some("newinstance,ptmxmode=0666,mode=0620,gid=5");
    mount(Some("devpts"), &dev.join("pts"), Some("devpts"), flags, options).map_err(Failure::errno("mount /dev/pts"))
}

/// Puts a tmpfs on `tree`. No other process of the host sees it, and it goes with the sandbox.
pub(super) fn in_memory(tree: &Path) -> Result<(), Failure> {
    let flags = MsFlags::empty();
    let mounted = mount(Some("tmpfs"), tree, Some("tmpfs"), flags, Some("mode=755"));
    mounted.map_err(Failure::errno("mount a tmpfs for the tree"))
}

/// Puts a directory of the host on `tree`.
pub(super) fn elsewhere(directory: &Path, tree: &Path) -> Result<(), Failure> {
    bind(directory, tree, MsFlags::empty()).map_err(Failure::errno("bind the directory of the tree"))
}

/// Takes away what [`in_memory`] or [`elsewhere`] put there.
pub(super) fn unmount(tree: &Path) -> Result<(), Failure> {
    umount2(tree, MntFlags::MNT_DETACH).map_err(Failure::errno("unmount the tree"))
}

/// Makes nothing of the host change with what is mounted here, and the other way round.
pub(super) fn detach_from_host() -> Result<(), Failure> {
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(Failure::errno("make mounts private"))
}

/// Writes `text` to a setting of the kernel that belongs to the sandbox's namespaces.
pub(super) fn set_kernel_setting(path: &str, text: &str) -> Result<(), Failure> {
    let write = || fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes());
    write().map_err(Failure::system(format!("write {path}")))
}
