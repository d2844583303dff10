//! Programs of a tools tree, run where they lie.
//!
//! A tools tree is a directory with the files of `recipes/tools/vm.toml`: QEMU, its firmware, swtpm. Its programs are
//! started through the tree's own dynamic linker with the tree's own libraries, so they need neither the host's
//! libraries nor a root of their own: no namespace, no mount, any user, and paths mean what they mean to the host.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::VmError;

/// A tools tree on the host's disk.
#[derive(Debug, Clone)]
pub struct Tools {
    root: PathBuf,
    linker: PathBuf,
    libraries: PathBuf,
}

/// Linker and library directory of the architectures that Debian's tools trees come in.
const LAYOUTS: &[(&str, &str)] = &[
    ("usr/lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu"),
    ("usr/lib/ld-linux-aarch64.so.1", "usr/lib/aarch64-linux-gnu"),
];

impl Tools {
    /// The tools tree in the directory `root`.
    pub fn at(root: &Path) -> Result<Self, VmError> {
        let found = LAYOUTS.iter().find(|(linker, _)| root.join(linker).exists());
        let (linker, libraries) =
            found.ok_or_else(|| VmError::NoTool { root: root.to_owned(), path: LAYOUTS[0].0.into() })?;
        Ok(Self { root: root.to_owned(), linker: root.join(linker), libraries: root.join(libraries) })
    }

    /// A file of the tree, which must exist.
    pub fn file(&self, path: &str) -> Result<PathBuf, VmError> {
        let file = self.root.join(path);
        if file.exists() { Ok(file) } else { Err(VmError::NoTool { root: self.root.clone(), path: path.into() }) }
    }

    /// A program of the tree (`usr/bin/...`), ready for arguments. Of the environment it gets only where to put
    /// temporary files: what loads libraries elsewhere must not reach it.
    pub fn program(&self, path: &str) -> Result<Command, VmError> {
        let program = self.file(path)?;
        let mut libraries = self.libraries.clone().into_os_string();
        // swtpm's own libraries are found by an absolute path, which is the host's here.
        libraries.push(":");
        libraries.push(self.libraries.join("swtpm"));
        let mut command = Command::new(&self.linker);
        command.arg("--inhibit-cache").arg("--library-path").arg(libraries).arg(program);
        command.env_clear().env("QEMU_MODULE_DIR", self.libraries.join("qemu"));
        if let Some(directory) = std::env::var_os("TMPDIR") {
            command.env("TMPDIR", directory);
        }
        Ok(command)
    }
}
