//! Packages whose scripts make keys, dates, caches and identities give the same image to two builders that share nothing
//! but recipe, lock and packages.
//!
//! `ADAMANT_TROUBLEMAKERS=all` adds the recipes that take too long for every run: a desktop of some thousand packages,
//! and the trees of TeX and Emacs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use adamant::manifest::FILE_NAME;
use tempfile::TempDir;

use crate::support;

/// Built at every run.
const COMPACT: [&str; 2] = ["troublemakers", "databases"];
/// Built when asked for.
const LARGE: [&str; 2] = ["desktop", "large"];
const ALL: &str = "ADAMANT_TROUBLEMAKERS";

#[test]
fn troublemakers_are_the_same_everywhere() {
    let all = std::env::var_os(ALL).is_some_and(|value| value == "all");
    if !all {
        eprintln!("left out: {} ({ALL}=all builds them too)", LARGE.join(", "));
    }
    for name in COMPACT.iter().chain(LARGE.iter().filter(|_| all)) {
        let Some(difference) = difference(name) else { return };
        assert_eq!(difference, "", "{name}");
    }
}

/// What differs between the two builds; `None` (said aloud) where no mirror can be reached.
fn difference(name: &str) -> Option<String> {
    let here = directory();
    let recipe = copy_of(name, here.path());
    let lock = support::adamant(&["lock", text(&recipe)]);
    if matches!(lock.status.code(), Some(4 | 6)) {
        crate::oracle::skip(&format!("no packages: {}", String::from_utf8_lossy(&lock.stderr)));
        return None;
    }
    let first = here.path().join("first");
    succeed(&support::adamant(&["build", text(&recipe), "--out", text(&first)]));

    // Elsewhere: a longer path, a store with nothing but packages, another umask, time zone, locale and environment.
    let there = directory();
    let deep = there.path().join("a/path/of/another/length");
    fs::create_dir_all(&deep).unwrap();
    let store = deep.join("store");
    succeed(&support::adamant(&["vendor", text(&store), text(&recipe)]));
    let second = deep.join("second");
    let copy = copy_of(name, &deep);
    fs::copy(recipe.with_extension("lock"), copy.with_extension("lock")).unwrap();
    let mut build = Command::new("sh");
    build.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", &deep).env("TZ", "Asia/Kolkata");
    build.env("LC_ALL", "tr_TR.UTF-8").env("SOURCE_DATE_EPOCH", "1").current_dir(&deep);
    build.args(["-c", "umask 077; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_adamant"), "build", "--offline"]);
    build.arg(&copy).arg("--store").arg(&store).arg("--out").arg(&second);
    succeed(&build.output().unwrap());
    if fs::read(first.join(FILE_NAME)).unwrap() == fs::read(second.join(FILE_NAME)).unwrap() {
        return Some(String::new());
    }
    let mut diff = Command::new(env!("CARGO_BIN_EXE_adamant"));
    let difference = diff.args(["diff", "--all"]).args([first, second]).output().unwrap();
    Some(String::from_utf8_lossy(&difference.stdout).into_owned())
}

fn directory() -> TempDir {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

fn copy_of(name: &str, directory: &Path) -> PathBuf {
    let recipe = directory.join(format!("{name}.toml"));
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("vm-tests/recipes/{name}.toml")), &recipe).unwrap();
    recipe
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn succeed(output: &std::process::Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
