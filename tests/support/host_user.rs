//! Ordinary users of the host, made for one test each. Only root can make them.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

/// A user of the host for one test, with or without subordinate ids.
pub struct HostUser {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl HostUser {
    pub fn new(suffix: &str) -> Self {
        let name = format!("adamant-{}-{suffix}", std::process::id());
        let run = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().unwrap();
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        };
        run("useradd", &["--no-create-home", "--shell", "/bin/sh", &name]);
        let text = fs::read_to_string("/etc/passwd").unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
        let number = |field: usize| line.split(':').nth(field).unwrap().parse().unwrap();
        Self { uid: number(2), gid: number(3), name }
    }

    pub fn has_subordinate_ids(&self) -> bool {
        let text = fs::read_to_string("/etc/subuid").unwrap_or_default();
        text.lines().any(|line| line.starts_with(&format!("{}:", self.name)))
    }

    /// Makes the directory and all that is in it this user's.
    pub fn give(&self, directory: &Path) {
        chown(directory, Some(self.uid), Some(self.gid)).unwrap();
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => self.give(&entry.path()),
                false => chown(entry.path(), Some(self.uid), Some(self.gid)).unwrap(),
            }
        }
    }

    pub fn take_subordinate_ids(&self) {
        for flags in [["--del-subuids", "0-4294967294"], ["--del-subgids", "0-4294967294"]] {
            let _ = Command::new("usermod").args(flags).arg(&self.name).output();
        }
    }
}

impl Drop for HostUser {
    fn drop(&mut self) {
        let _ = Command::new("userdel").arg(&self.name).output();
    }
}
