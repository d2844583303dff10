//! Mount namespaces of a test's own: small file systems, little memory. Only root can make them.

use std::path::Path;

use nix::mount::{MsFlags, mount};

/// Runs `work` in a mount namespace of its own, in a thread of its own.
pub fn in_own_mounts<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let set_up_and_work = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(set_up_and_work).join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
}

/// A tmpfs of that size at `place`.
pub fn tmpfs(place: &Path, kilobytes: u64, flags: MsFlags) {
    let options = format!("size={kilobytes}k");
    mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some(options.as_str())).unwrap();
}

/// Lets the programs that are started here find so little memory that sandboxes keep their tree on disk.
pub fn little_memory() {
    let place = Path::new("/sys/fs/cgroup");
    tmpfs(place, 64, MsFlags::empty());
    std::fs::write(place.join("memory.max"), "1\n").unwrap();
}
