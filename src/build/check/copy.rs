//! What a recipe reads, copied to another file system: other modes, other owner, other order of names.
//!
//! The same are: bytes, whether a file is executable, targets of symbolic links, which names are one file. That is all
//! of a source that may have a say in an image.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

/// Copies `sources`, absolute paths, to the same paths below `target`.
pub(super) fn copy_all(sources: &[PathBuf], target: &Path) -> io::Result<()> {
    let mut sources: Vec<&PathBuf> = sources.iter().collect();
    sources.sort();
    sources.dedup();
    let mut copier = Copier { links: HashMap::new() };
    // What was made last is what most file systems in memory name first.
    for source in sources.into_iter().rev() {
        let place = target.join(source.strip_prefix("/").unwrap_or(source));
        // A file that is also in a directory that was copied.
        if fs::symlink_metadata(&place).is_ok() && !place.is_dir() {
            continue;
        }
        if let Some(parent) = place.parent() {
            make_directories(parent)?;
        }
        // The recipe reads what a symlink leads to.
        copier.copy(&source.canonicalize()?, &place)?;
    }
    Ok(())
}

struct Copier {
    /// Where files with several names are by now: device and inode.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copier {
    fn copy(&mut self, source: &Path, place: &Path) -> io::Result<()> {
        let status = fs::symlink_metadata(source)?;
        if status.is_dir() {
            return self.directory(source, place);
        }
        match fs::symlink_metadata(place) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let inode = (status.dev(), status.ino());
        if status.nlink() > 1
            && let Some(first) = self.links.get(&inode)
        {
            return fs::hard_link(first, place);
        }
        if status.is_symlink() {
            symlink(fs::read_link(source)?, place)?;
        } else if status.is_file() {
            io::copy(&mut fs::File::open(source)?, &mut fs::File::create_new(place)?)?;
            let mode = if status.mode() & 0o100 != 0 { 0o700 } else { 0o600 };
            fs::set_permissions(place, fs::Permissions::from_mode(mode))?;
        }
        if status.nlink() > 1 {
            self.links.insert(inode, place.to_owned());
        }
        lchown(place, Some(0), Some(0))
    }

    fn directory(&mut self, source: &Path, place: &Path) -> io::Result<()> {
        make_directories(place)?;
        let mut names = fs::read_dir(source)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for name in names.into_iter().rev() {
            self.copy(&source.join(&name), &place.join(&name))?;
        }
        Ok(())
    }
}

/// Makes a directory and those above it, of the other user.
pub(super) fn make_directories(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directories(parent)?;
    }
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    lchown(path, Some(0), Some(0))
}

/// Makes everything below `path` the property of `owner` within this user namespace.
pub(super) fn give(path: &Path, owner: u32) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), owner)?;
        }
    }
    lchown(path, Some(owner), Some(owner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_keeps_what_counts_of_a_source_and_nothing_else() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let (from, to) = (place.path().join("from"), place.path().join("to"));
        fs::create_dir_all(from.join("d")).unwrap();
        for (name, mode) in [("d/a", 0o644), ("d/b", 0o755), ("c", 0o640)] {
            fs::write(from.join(name), name).unwrap();
            fs::set_permissions(from.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::hard_link(from.join("d/a"), from.join("d/z")).unwrap();
        symlink("a", from.join("d/l")).unwrap();
        symlink("c", from.join("s")).unwrap();
        copy_all(&[from.join("s"), from.join("d"), from.join("d/a")], &to).unwrap();
        let copied = |name: &str| to.join(from.join(name).strip_prefix("/").unwrap());
        let mode = |name: &str| fs::symlink_metadata(copied(name)).unwrap().mode() & 0o7777;
        assert_eq!([mode("d/a"), mode("d/b"), mode("s")], [0o600, 0o700, 0o600]);
        assert_eq!(fs::read_to_string(copied("s")).unwrap(), "c");
        assert_eq!(fs::read_link(copied("d/l")).unwrap(), Path::new("a"));
        let inode = |name: &str| fs::metadata(copied(name)).unwrap().ino();
        assert_eq!(inode("d/a"), inode("d/z"));
        assert!(!copied("c").exists());
    }
}
