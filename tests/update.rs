//! Renewing locks, how old they are, what they need and keep: the program itself, on small signed archives.

mod outdated;
mod store;
mod vendor;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::archive::{Archive, Deb, Suite};

/// Two archives as Debian has them, a store, and a recipe beside its key.
struct Workshop {
    directory: tempfile::TempDir,
    main: Archive,
    security: Archive,
}

/// How a run ended.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }

    /// It ended well.
    fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }
}

impl Workshop {
    /// With these packages in the release itself.
    fn new(packages: impl IntoIterator<Item = Deb>) -> Self {
        let mut workshop =
            Self { directory: tempfile::tempdir().unwrap(), main: Archive::new(), security: Archive::new() };
        workshop.main.suite(Suite::new("trixie-updates"));
        workshop.security.suite(Suite::new("trixie-security"));
        packages.into_iter().for_each(|deb| workshop.main.add("trixie", "main", deb));
        workshop.publish();
        fs::write(workshop.path("archive.asc"), workshop.main.key.public()).unwrap();
        workshop
    }

    fn publish(&self) {
        self.main.publish();
        self.security.publish();
    }

    /// Replaces the release's packages: a point release, whose predecessors stay in the pool for a while.
    fn release(&mut self, packages: impl IntoIterator<Item = Deb>) {
        let old = std::mem::replace(&mut self.main, Archive::new());
        self.replace(packages);
        self.main.key = old.key.clone();
        self.publish();
        for entry in fs::read_dir(old.path("pool/main")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), self.main.path("pool/main").join(entry.file_name())).unwrap();
        }
    }

    /// Replaces the release's packages: a point release, whose predecessors are gone.
    fn replace(&mut self, packages: impl IntoIterator<Item = Deb>) {
        let key = self.main.key.clone();
        self.main = Archive::new();
        self.main.key = key;
        self.main.suite(Suite::new("trixie-updates"));
        packages.into_iter().for_each(|deb| self.main.add("trixie", "main", deb));
        self.publish();
    }

    fn fix(&mut self, deb: Deb) {
        self.security.add("trixie-security", "main", deb);
        self.publish();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn recipe(&self, packages: &str) -> String {
        self.recipe_with(packages, r#"["updates", "security"]"#)
    }

    fn recipe_with(&self, packages: &str, pockets: &str) -> String {
        let path = self.path("r.toml");
        let text = format!(
            "name = \"r\"\nversion = \"1\"\narchitecture = \"amd64\"\nscripts = \"none\"\npackages = [{packages}]\n\
             [debian]\nsuite = \"trixie\"\npockets = {pockets}\nkey = \"archive.asc\"\n"
        );
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let url = |archive: &Archive| format!("file://{}", archive.root().display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_adamant"));
        command.args(arguments).env_remove("NO_COLOR").stdin(Stdio::null());
        command.env("XDG_CACHE_HOME", self.path("cache")).env("XDG_CONFIG_HOME", self.path("config"));
        let mirrors = format!("debian={} debian-security={}", url(&self.main), url(&self.security));
        command.env("ADAMANT_MIRROR", mirrors);
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Run { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    fn lock_text(&self) -> String {
        fs::read_to_string(self.path("r.lock")).unwrap()
    }

    /// `name=version` of every package in the lock.
    fn locked(&self) -> Vec<String> {
        let lock = adamant::lock::Lock::parse(&self.lock_text()).unwrap();
        lock.sets["system"].iter().map(|package| format!("{}={}", package.name, package.version)).collect()
    }
}

/// A changelog with these versions, the newest first, each with what it says.
fn changelog(source: &str, entries: &[(&str, &str)]) -> Vec<u8> {
    let entry = |(version, text): &(&str, &str)| {
        format!(
            "{source} ({version}) trixie; urgency=medium\n\n  * {text}\n\n \
             -- Someone <s@example.org>  Sun, 01 Jun 2025 00:00:00 +0000\n\n"
        )
    };
    let text: String = entries.iter().map(entry).collect();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

trait WithChangelog {
    fn log(self, entries: &[(&str, &str)]) -> Deb;
}

impl WithChangelog for Deb {
    fn log(self, entries: &[(&str, &str)]) -> Deb {
        let (path, bytes) =
            (format!("usr/share/doc/{}/changelog.Debian.gz", self.name), changelog(&self.name, entries));
        self.file(&path, 0o644, &bytes)
    }
}

fn deb(name: &str, version: &str) -> Deb {
    Deb::new(name, version)
}

fn remove(path: &Path) {
    fs::remove_dir_all(path).unwrap();
}

/// Lines of a table, without what is said of transfers and stages.
fn table(run: &Run) -> Vec<&str> {
    let start = run.stderr.lines().position(|line| line.starts_with("package ")).unwrap_or(usize::MAX);
    run.stderr.lines().skip(start).collect()
}

#[test]
fn a_lock_that_fits_is_left_as_it_is_without_asking_the_archive() {
    let mut workshop = Workshop::new([deb("aa", "1")]);
    let recipe = workshop.recipe("\"aa\"");
    let made = workshop.run(&["lock", &recipe]).good();
    assert_eq!(made.stdout, format!("{}: 1 packages\n", workshop.path("r.lock").display()));
    let before = workshop.lock_text();
    workshop.replace([deb("aa", "2")]);
    remove(&workshop.main.path("dists"));
    let run = workshop.run(&["lock", &recipe]).good();
    assert!(run.stdout.ends_with("r.lock: 1 packages, as before; --update renews them\n"), "{}", run.stdout);
    assert_eq!(workshop.lock_text(), before);
}

#[test]
fn a_changed_recipe_changes_only_what_it_asks_for() {
    let mut workshop = Workshop::new([deb("aa", "1"), deb("bb", "1"), deb("cc", "1")]);
    workshop.run(&["lock", &workshop.recipe("\"aa\", \"cc\"")]).good();
    workshop.release([deb("aa", "2"), deb("bb", "2"), deb("cc", "2")]);
    // `aa` 1 is in no index any more, but still in the pool: what it needs is read from the package itself.
    let run = workshop.run(&["lock", &workshop.recipe("\"aa\", \"bb\"")]).good();
    assert_eq!(workshop.locked(), ["aa=1", "bb=2"]);
    assert_eq!(
        table(&run),
        ["package  old  new  from           CVE", "bb       -    2    debian trixie", "cc       1    -    -"]
    );
}

#[test]
fn without_more_words_update_renews_everything() {
    let mut workshop = Workshop::new([deb("aa", "1").depends("bb"), deb("bb", "1")]);
    let recipe = workshop.recipe("\"aa\"");
    workshop.run(&["lock", &recipe]).good();
    workshop.replace([deb("aa", "2").depends("bb"), deb("bb", "2")]);
    let run = workshop.run(&["lock", &recipe, "--update"]).good();
    assert_eq!(workshop.locked(), ["aa=2", "bb=2"]);
    assert_eq!(table(&run)[1..], ["aa       1    2    debian trixie", "bb       1    2    debian trixie"]);
    assert!(run.stdout.ends_with("r.lock: 2 packages, 2 changed\n"), "{}", run.stdout);
}

#[test]
fn nothing_newer_leaves_the_lock_byte_for_byte_even_if_the_indexes_are() {
    let mut workshop = Workshop::new([deb("aa", "1")]);
    let recipe = workshop.recipe("\"aa\"");
    workshop.run(&["lock", &recipe]).good();
    let before = workshop.lock_text();
    workshop.main.suite(Suite { date: crate::support::archive::PUBLISHED + 86_400, ..Suite::new("trixie") });
    workshop.fix(deb("other", "1"));
    for arguments in [&["lock", &recipe, "--update"][..], &["lock", &recipe, "--update", "--security"]] {
        let run = workshop.run(arguments).good();
        assert!(run.stdout.ends_with("r.lock: 1 packages, as before\n"), "{}", run.stdout);
        assert_eq!(workshop.lock_text(), before);
    }
}

#[test]
fn security_takes_what_the_security_archive_fixes_and_nothing_else() {
    let old = [
        deb("tool", "1-1").depends("lib").log(&[("1-1", "first")]),
        deb("lib", "1-1").log(&[("1-1", "first CVE-2024-0001")]),
        deb("idle", "1-1"),
    ];
    let mut workshop = Workshop::new(old.clone());
    let recipe = workshop.recipe("\"tool\", \"idle\"");
    workshop.run(&["lock", &recipe]).good();
    let newer = [deb("tool", "2-1").depends("lib"), deb("lib", "2-1"), deb("idle", "2-1")];
    newer.into_iter().for_each(|deb| workshop.main.add("trixie-updates", "main", deb));
    let log = [("1-1+deb13u2", "CVE-2025-1111 too"), ("1-1+deb13u1", "CVE-2025-22222"), ("1-1", "first CVE-2024-0001")];
    workshop.fix(deb("lib", "1-1+deb13u2").depends("extra").log(&log));
    workshop.main.add("trixie", "main", deb("extra", "1"));
    workshop.publish();
    let dry = workshop.run(&["lock", &recipe, "--update", "--security", "--dry-run", "--json"]).good().json();
    assert_eq!((dry["changed"].as_bool(), dry["written"].as_bool()), (Some(true), Some(false)));
    assert_eq!(workshop.locked(), ["idle=1-1", "lib=1-1", "tool=1-1"]);
    let run = workshop.run(&["lock", &recipe, "--update", "--security"]).good();
    assert_eq!(workshop.locked(), ["extra=1", "idle=1-1", "lib=1-1+deb13u2", "tool=1-1"]);
    assert_eq!(
        table(&run),
        [
            "package  old  new          from                             CVE",
            "extra    -    1            debian trixie",
            "lib      1-1  1-1+deb13u2  debian-security trixie-security  CVE-2025-1111 CVE-2025-22222",
        ]
    );
    assert_eq!(dry["schema"], "adamant.lock/1");
    let change = &dry["changes"][1];
    assert_eq!(
        (change["package"].as_str(), change["before"].as_str(), change["after"].as_str()),
        (Some("lib"), Some("1-1"), Some("1-1+deb13u2"))
    );
    assert_eq!(change["cves"], serde_json::json!(["CVE-2025-1111", "CVE-2025-22222"]));
    assert_eq!(
        (&change["suites"], &change["sets"]),
        (&serde_json::json!(["trixie-security"]), &serde_json::json!(["system"]))
    );
    let again = workshop.run(&["lock", &recipe, "--update", "--security"]).good();
    assert!(again.stdout.ends_with(", as before\n"), "{}", again.stdout);
}

#[test]
fn a_named_package_takes_along_only_what_must_change_with_it() {
    let set = |version: &str| {
        let same = format!("core (= {version})");
        [
            deb("tool", version).depends("core, base"),
            deb("core", version),
            deb("twin", version).depends(&same),
            deb("base", version),
            deb("idle", version),
        ]
    };
    let mut workshop = Workshop::new(set("1"));
    let recipe = workshop.recipe("\"tool\", \"twin\", \"idle\"");
    workshop.run(&["lock", &recipe]).good();
    let mut next = set("2");
    next[0] = deb("tool", "2").depends("core (>= 2), base");
    workshop.release(next);
    // `core` because `tool` needs it newer, `twin` because it goes with one `core` only.
    let run = workshop.run(&["lock", &recipe, "--update", "tool"]).good();
    assert_eq!(workshop.locked(), ["base=1", "core=2", "idle=1", "tool=2", "twin=2"]);
    assert_eq!(table(&run).len(), 4);
    workshop.run(&["lock", &recipe, "--update", "base"]).good();
    assert_eq!(workshop.locked(), ["base=2", "core=2", "idle=1", "tool=2", "twin=2"]);
}

#[test]
fn a_conflict_moves_the_kept_package_that_it_is_about() {
    let mut workshop = Workshop::new([deb("tool", "1"), deb("peer", "1"), deb("idle", "1")]);
    let recipe = workshop.recipe("\"tool\", \"peer\", \"idle\"");
    workshop.run(&["lock", &recipe]).good();
    workshop.release([deb("tool", "2").field("Breaks", "peer (<< 2)"), deb("peer", "2"), deb("idle", "2")]);
    workshop.run(&["lock", &recipe, "--update", "tool"]).good();
    assert_eq!(workshop.locked(), ["idle=1", "peer=2", "tool=2"]);
}

#[test]
fn a_newcomer_does_not_replace_the_alternative_that_is_locked() {
    let mut workshop = Workshop::new([deb("tool", "1").depends("left | right"), deb("right", "1"), deb("idle", "1")]);
    let recipe = workshop.recipe("\"tool\", \"idle\"");
    workshop.run(&["lock", &recipe]).good();
    workshop.release([deb("tool", "2").depends("left | right"), deb("left", "1"), deb("right", "1"), deb("idle", "2")]);
    workshop.run(&["lock", &recipe, "--update", "tool"]).good();
    assert_eq!(workshop.locked(), ["idle=1", "right=1", "tool=2"]);
    // Everything anew is as if there had been no lock.
    workshop.run(&["lock", &recipe, "--update"]).good();
    assert_eq!(workshop.locked(), ["idle=2", "left=1", "tool=2"]);
}

#[test]
fn a_kept_package_that_is_nowhere_any_more_stops_the_update_and_says_what_to_do() {
    let mut workshop = Workshop::new([deb("tool", "1"), deb("idle", "1")]);
    let recipe = workshop.recipe("\"tool\", \"idle\"");
    workshop.run(&["lock", &recipe]).good();
    let before = workshop.lock_text();
    workshop.replace([deb("tool", "2"), deb("idle", "2")]);
    let run = workshop.run(&["lock", &recipe, "--update", "tool"]);
    assert_eq!(run.code, Some(6), "{}", run.stderr);
    assert!(
        run.stderr.contains(
            "error: cannot keep idle 1: the archives no longer list this version, and the store does not have it"
        ) && run.stderr.contains("hint: update them too, by naming them after --update: idle; or name a snapshot"),
        "{}",
        run.stderr
    );
    assert_eq!(workshop.lock_text(), before);
    workshop.run(&["lock", &recipe, "--update", "tool", "idle"]).good();
    assert_eq!(workshop.locked(), ["idle=2", "tool=2"]);
}

#[test]
fn a_version_that_the_recipe_asks_for_stays_and_is_said_to_be_vulnerable() {
    let mut workshop = Workshop::new([deb("tool", "1"), deb("idle", "1")]);
    let recipe = workshop.recipe("\"tool=1\", \"idle\"");
    workshop.run(&["lock", &recipe]).good();
    workshop.fix(deb("tool", "2"));
    let run = workshop.run(&["lock", &recipe, "--update", "--security"]).good();
    assert_eq!(workshop.locked(), ["idle=1", "tool=1"]);
    assert!(run.stderr.ends_with("warning: tool stays at 1, older than 2 of the security archive\n"), "{}", run.stderr);
    let json = workshop.run(&["lock", &recipe, "--update", "--security", "--json"]).good().json();
    assert_eq!(json["unfixed"], serde_json::json!([{ "package": "tool", "locked": "1", "fixed": "2" }]));
}

#[test]
fn where_no_changelog_tells_nothing_is_said() {
    let mut workshop = Workshop::new([
        deb("none", "1"),
        deb("other", "9.1").log(&[("1-1", "CVE-2024-0001")]),
        deb("guest", "1").depends("host").file("usr/share/doc/guest/x", 0o644, b""),
        deb("host", "1").log(&[("1", "first")]),
    ]);
    let recipe = workshop.recipe("\"none\", \"other\", \"guest\"");
    workshop.run(&["lock", &recipe]).good();
    workshop.replace([
        deb("none", "2"),
        // Its changelog counts otherwise than the package.
        deb("other", "9.2").log(&[("1-2", "CVE-2025-0001"), ("1-1", "CVE-2024-0001")]),
        deb("guest", "2").depends("host"),
        deb("host", "2").log(&[("2", "CVE-2025-0002"), ("1", "first")]),
    ]);
    let json = workshop.run(&["lock", &recipe, "--update", "--json"]).good().json();
    let named: Vec<(&str, usize)> = (json["changes"].as_array().unwrap().iter())
        .map(|change| (change["package"].as_str().unwrap(), change["cves"].as_array().unwrap().len()))
        .collect();
    assert_eq!(named, [("guest", 0), ("host", 1), ("none", 0), ("other", 0)]);
}

#[test]
fn what_cannot_be_updated_is_refused() {
    let workshop = Workshop::new([deb("nginx", "1"), deb("idle", "1")]);
    let recipe = workshop.recipe_with("\"nginx\", \"idle\"", "[]");
    let run = workshop.run(&["lock", &recipe, "--update", "--security"]);
    assert_eq!(run.code, Some(3));
    assert!(run.stderr.contains("r.lock: `adamant lock` makes it"), "{}", run.stderr);
    workshop.run(&["lock", &recipe]).good();
    let run = workshop.run(&["lock", &recipe, "--update", "ngin"]);
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (Some(2), "error: the lock has no package ngin; did you mean nginx?\n")
    );
    let run = workshop.run(&["lock", &recipe, "--update", "--security"]);
    assert_eq!(run.code, Some(3));
    assert!(run.stderr.contains("hint: add \"security\" to `pockets` in `[debian]`"), "{}", run.stderr);
    assert_eq!(workshop.run(&["lock", &recipe, "--security"]).code, Some(2));
    assert_eq!(workshop.run(&["lock", &recipe, "nginx"]).code, Some(2));
}

#[test]
fn an_archive_that_another_key_signed_is_not_believed() {
    let workshop = Workshop::new([deb("aa", "1")]);
    let recipe = workshop.recipe("\"aa\"");
    fs::write(workshop.path("archive.asc"), crate::support::archive::Key::new(7).public()).unwrap();
    let run = workshop.run(&["lock", &recipe]);
    assert_eq!(run.code, Some(5), "{}", run.stderr);
    assert!(!workshop.path("r.lock").exists());
}
