//! The host's apt with sources and a state of its own: nothing of the host is read or installed.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use super::oracle;

/// An apt for a system on which nothing is installed yet.
pub struct HostApt {
    directory: tempfile::TempDir,
}

impl HostApt {
    /// With no source yet; `None` (said aloud) where the host has no apt.
    pub fn new() -> Option<Self> {
        oracle::oracle("apt-get")?;
        let apt = Self { directory: tempfile::tempdir().unwrap() };
        for path in ["etc/preferences.d", "state/lists/partial", "cache/archives/partial", "log"] {
            fs::create_dir_all(apt.path(path)).unwrap();
        }
        fs::write(apt.path("status"), "").unwrap();
        let root = apt.directory.path().display();
        let configuration = format!(
            "Dir \"{root}\"; Dir::Etc \"{root}/etc\"; Dir::Etc::sourceparts \"-\"; Dir::Etc::parts \"-\";\n\
             Dir::State \"{root}/state\"; Dir::State::status \"{root}/status\"; Dir::Cache \"{root}/cache\";\n\
             Dir::Log \"{root}/log\"; APT::Architecture \"amd64\"; APT::Architectures {{ \"amd64\"; }};\n\
             APT::Sandbox::User \"\"; Acquire::Languages \"none\";\n"
        );
        fs::write(apt.path("apt.conf"), configuration).unwrap();
        Some(apt)
    }

    /// A file of its own.
    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Takes these lines as sources, and fetches their indexes.
    pub fn update(&self, sources: &str) {
        fs::write(self.path("etc/sources.list"), sources).unwrap();
        oracle::run(self.command().args(["-q", "update"]));
    }

    /// `apt-get`, ready for arguments.
    pub fn command(&self) -> Command {
        let mut command = oracle::oracle("apt-get").unwrap();
        command.env("APT_CONFIG", self.path("apt.conf"));
        command
    }

    /// What installing the packages would do.
    pub fn simulate(&self, mut names: Vec<String>, recommends: bool) -> Output {
        names.sort();
        let recommends = format!("APT::Install-Recommends={recommends}");
        self.command().args(["-s", "-y", "-V", "-o", &recommends, "install"]).args(names).output().unwrap()
    }
}
