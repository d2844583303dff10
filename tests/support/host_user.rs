//! Ordinary users of the host, made for one test each. Only root can make them.

use std::fs;
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
}

impl Drop for HostUser {
    fn drop(&mut self) {
        let _ = Command::new("userdel").arg(&self.name).output();
    }
}
