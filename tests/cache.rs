//! A cache that machines share: one builds and writes to it, another with an empty store and no mirror takes the same
//! bits from it and runs no script; and whatever a cache does, the build goes on as if there were none.

mod clouds;
mod directory;
mod faults;
mod lies;
mod s3;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use adamant::digest::Digest;
use serde_json::Value;

use crate::support::workshop::{Ended, Workshop};

/// Packages of the recipe.
const PACKAGES: u64 = 13;

/// A place for what machines share, and keys.
struct Commons {
    directory: tempfile::TempDir,
}

impl Commons {
    /// With the keys `ci` and `other`.
    fn new(workshop: &Workshop) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["ci", "other"] {
            let file = directory.path().join(name);
            Ended::of(&mut workshop.adamant(&["key", "generate", file.to_str().unwrap()])).expect(0, &[]);
        }
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The address of the cache that is a directory.
    fn url(&self) -> String {
        self.path("cache").to_str().unwrap().to_owned()
    }

    /// Arguments that sign with the key.
    fn signing(&self, key: &str) -> [String; 2] {
        ["--cache-sign".to_owned(), self.path(key).to_str().unwrap().to_owned()]
    }

    /// Arguments that list the key.
    fn listing(&self, key: &str) -> [String; 2] {
        ["--cache-key".to_owned(), self.path(&format!("{key}.pub")).to_str().unwrap().to_owned()]
    }

    /// The files of the cache that is a directory, by their names in it.
    fn files(&self) -> BTreeMap<String, PathBuf> {
        let mut files = BTreeMap::new();
        let mut stack = vec![self.path("cache")];
        while let Some(here) = stack.pop() {
            for entry in fs::read_dir(here).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => stack.push(path),
                    false => {
                        let name = path.strip_prefix(self.path("cache")).unwrap().to_str().unwrap().to_owned();
                        files.insert(name, path);
                    }
                }
            }
        }
        files
    }

    /// Names of the entries of a stage.
    fn entries(&self, stage: &str) -> Vec<String> {
        let prefix = format!("stages/{stage}/");
        self.files().into_keys().filter(|name| name.starts_with(&prefix)).collect()
    }
}

/// A build with this cache.
fn build(workshop: &Workshop, cache: &str, further: &[String]) -> Command {
    let mut arguments = vec!["--json", "--cache", cache];
    arguments.extend(further.iter().map(String::as_str));
    workshop.build_with(&arguments)
}

/// The same build on a machine whose mirror is gone: it has the lock of `other`, and an address where nobody listens.
fn build_without_mirror(workshop: &Workshop, other: &Workshop, cache: &str, further: &[String]) -> Command {
    workshop.write("tiny.lock", &fs::read_to_string(other.path("recipe/tiny.lock")).unwrap());
    let mut arguments = vec!["--mirror".to_owned(), format!("http://127.0.0.1:{}/", closed_port())];
    arguments.extend_from_slice(further);
    build(workshop, cache, &arguments)
}

fn closed_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What the build says of itself, which must have ended well with the image that everybody gets.
#[track_caller]
fn said(workshop: &Workshop, ended: &Ended) -> Value {
    let said = said_of_another(ended);
    assert_eq!(workshop.image().as_ref(), Some(workshop.archived.reference()));
    workshop.assert_store_is_good();
    said
}

/// The same of a build of another image.
#[track_caller]
fn said_of_another(ended: &Ended) -> Value {
    ended.expect(0, &[]);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Whether a stage's result was there already; `None`: there was no such stage.
fn was_there(said: &Value, stage: &str) -> Option<bool> {
    let stages = said["stages"].as_array().unwrap();
    stages.iter().find(|one| one["name"] == stage).map(|one| one["cached"].as_bool().unwrap())
}

/// Results of stages and packages that came from the cache.
fn came(said: &Value) -> (u64, u64) {
    let count = |name: &str| said["shared"][name].as_u64().unwrap();
    (count("stages"), count("packages"))
}

/// Warnings on standard error.
fn warnings(ended: &Ended) -> Vec<&str> {
    ended.stderr.lines().filter(|line| line.starts_with("warning: ")).collect()
}

/// Digests of all files below a directory.
fn digests(directory: &Path) -> BTreeMap<PathBuf, Digest> {
    let mut found = BTreeMap::new();
    let mut stack = vec![directory.to_owned()];
    while let Some(here) = stack.pop() {
        for entry in fs::read_dir(here).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => stack.push(path),
                false => drop(found.insert(path.clone(), Digest::of(&fs::read(&path).unwrap()))),
            }
        }
    }
    found
}
