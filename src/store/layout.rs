//! Where everything in a store's directory lies.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// The first line of the file `format`. Another number: another arrangement, which this version leaves alone.
const FORMAT: &str = "adamant store 1";

/// The paths of a store.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

/// Why a directory cannot be laid out as a store.
pub(super) enum LayoutError {
    Io(io::Error),
    Format(String),
}

impl Layout {
    /// Makes what is missing of a store in `root`.
    pub(super) fn make(root: &Path) -> Result<Self, LayoutError> {
        make_directories(root, Path::new("/"), 0o755).map_err(LayoutError::Io)?;
        let root = root.canonicalize().map_err(LayoutError::Io)?;
        let layout = Self { root };
        layout.check_format()?;
        let private = [layout.sessions(), layout.stages(), layout.trash()];
        let public = [
            layout.objects(),
            layout.partial(),
            layout.stage_locks(),
            layout.quarantine(),
            layout.roots(),
            layout.notes(),
        ];
        // Sessions and stage results hold unpacked packages: set-user-id programs of known weakness among
        // them, which other users of this machine must not reach.
        for (directories, mode) in [(private.as_slice(), 0o700), (public.as_slice(), 0o755)] {
            for directory in directories {
                make_directories(directory, &layout.root, mode).map_err(LayoutError::Io)?;
            }
        }
        Ok(layout)
    }

    fn check_format(&self) -> Result<(), LayoutError> {
        let path = self.root.join("format");
        match fs::read(&path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
                let line = text.lines().next().unwrap_or_default();
                // Empty: the machine lost power just after the store was made.
                if line == FORMAT || line.is_empty() { Ok(()) } else { Err(LayoutError::Format(line.to_owned())) }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_file(&path, format!("{FORMAT}\n")).map_err(LayoutError::Io)
            }
            Err(error) => Err(LayoutError::Io(error)),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn objects(&self) -> PathBuf {
        self.root.join("objects/sha256")
    }

    pub(super) fn object(&self, digest: &Digest) -> PathBuf {
        let text = digest.to_string();
        let (head, tail) = text.split_at(2);
        self.objects().join(head).join(tail)
    }

    pub(super) fn partial(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub(super) fn stages(&self) -> PathBuf {
        self.root.join("stages")
    }

    pub(super) fn stage_locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    pub(super) fn roots(&self) -> PathBuf {
        self.root.join("roots")
    }

    pub(super) fn notes(&self) -> PathBuf {
        self.root.join("notes")
    }

    pub(super) fn sessions(&self) -> PathBuf {
        self.root.join("sessions")
    }

    pub(super) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    pub(super) fn sessions_lock(&self) -> PathBuf {
        self.root.join("sessions.lock")
    }

    /// Held shared by who finds an object or a stage result and notes its use, exclusively by who removes some.
    pub(super) fn removal_lock(&self) -> PathBuf {
        self.root.join("removal.lock")
    }
}

/// The store's directory where the user gave none: `$XDG_CACHE_HOME/adamant`, else `$HOME/.cache/adamant`, for root as
/// for anybody (XDG Base Directory Specification 0.8: a relative or empty value counts as none). `None`: neither is set.
pub fn default_directory(xdg_cache_home: Option<&OsStr>, home: Option<&OsStr>) -> Option<PathBuf> {
    let absolute = |value: &OsStr| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    let cache = xdg_cache_home.and_then(absolute).or_else(|| Some(home.and_then(absolute)?.join(".cache")))?;
    Some(cache.join("adamant"))
}

/// Writes a file, with mode 0644 whatever the umask.
pub(super) fn write_file(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    fs::write(path, bytes)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// Makes one directory, with this mode whatever the umask.
pub(super) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Makes a directory and those between it and `root`; what exists keeps its mode.
pub(super) fn make_directories(path: &Path, root: &Path, mode: u32) -> io::Result<()> {
    match make_directory(path, mode) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && path != root => {
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                make_directories(parent, root, mode)?;
            }
            match make_directory(path, mode) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                result => result,
            }
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_directory_follows_the_xdg_specification() {
        let of = |cache: Option<&str>, home: Option<&str>| {
            default_directory(cache.map(OsStr::new), home.map(OsStr::new)).map(|path| path.display().to_string())
        };
        assert_eq!(of(Some("/c"), Some("/home/u")).as_deref(), Some("/c/adamant"));
        assert_eq!(of(None, Some("/home/u")).as_deref(), Some("/home/u/.cache/adamant"));
        assert_eq!(of(Some("relative"), Some("/root")).as_deref(), Some("/root/.cache/adamant"));
        assert_eq!(of(Some(""), Some("")), None);
    }
}
