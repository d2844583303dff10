//! `diff` and `explain` of whole images: the facts come from their bytes.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use adamant::diff::{self, Effect, Source, UnitState};
use adamant::digest::Digest;
use adamant::filesystem::cpio;
use adamant::lock::{Lock, LockedIndex, LockedPackage};
use adamant::manifest::Step;
use adamant::recipe::RecipeField;
use adamant::tree::{Kind, Metadata, Node, Tree};
use adamant::verify::{self, Problem};
use serde_json::Value;

use crate::support::image::{Built, Sketch, file};
use crate::support::oracle::{oracle, root, run};

const STATUS: &str = "Status: install ok installed\nArchitecture: amd64\n";

fn link(target: &str) -> Node {
    Node { metadata: Metadata::with_mode(0o777), kind: Kind::Symlink(target.into()) }
}

fn initrd(text: &str) -> Vec<u8> {
    let mut tree = Tree::default();
    tree.insert(b"init", file("#!/bin/sh\n")).unwrap();
    tree.insert(b"state", file(text)).unwrap();
    let mut archive = Vec::new();
    cpio::write(&tree, &mut archive).unwrap();
    zstd::encode_all(archive.as_slice(), 1).unwrap()
}

/// An image with accounts, a unit and a package that brings its changelog.
fn first() -> Sketch {
    let mut sketch = Sketch { initrd: initrd("one"), ..Sketch::default() };
    let tree = &mut sketch.tree;
    for path in ["etc/systemd/system/multi-user.target.wants", "usr/lib/systemd/system", "usr/share/doc/demo"] {
        tree.make_directories(path.as_bytes(), &Metadata::with_mode(0o755)).unwrap();
    }
    tree.insert(b"etc/passwd", file("root:x:0:0:root:/root:/bin/sh\ngone:x:5:5::/:\n")).unwrap();
    tree.insert(b"etc/shadow", file("root:*:1::::::\ngone:!*:::::::\n")).unwrap();
    tree.insert(b"etc/group", file("root:x:0:\nadm:x:4:\n")).unwrap();
    tree.insert(b"usr/lib/systemd/system/a.service", file("[Service]\n")).unwrap();
    tree.insert(b"usr/lib/systemd/system/b.service", file("[Service]\n")).unwrap();
    tree.insert(b"usr/bin/tool", file("one")).unwrap();
    tree.replace(b"var/lib/dpkg/status", file(format!("Package: demo\nVersion: 1.0-1\n{STATUS}"))).unwrap();
    sketch.packages = vec![("system", "demo", "1.0-1"), ("initrd", "udev", "257")];
    sketch
}

/// The same with a change of every kind.
fn second() -> Sketch {
    let mut sketch = Sketch { initrd: initrd("other"), ..first() };
    sketch.arguments = vec!["quiet".to_owned(), "console=ttyS1".to_owned(), "panic=-1".to_owned()];
    let tree = &mut sketch.tree;
    tree.replace(b"etc/passwd", file("root:x:0:0:root:/root:/bin/bash\nnew:x:6:6::/:\n")).unwrap();
    tree.replace(b"etc/shadow", file("root:$y$secret:1::::::\nnew:!*:::::::\n")).unwrap();
    tree.replace(b"etc/group", file("root:x:0:new\nadm:x:4:\n")).unwrap();
    tree.insert(b"etc/systemd/system/multi-user.target.wants/a.service", link("/usr/lib/systemd/system/a.service"))
        .unwrap();
    tree.insert(b"etc/systemd/system/b.service", link("/dev/null")).unwrap();
    let tool = tree.lookup(b"usr/bin/tool").unwrap();
    tree.node_mut(tool).metadata.mode = 0o4755;
    tree.node_mut(tool).metadata.gid = 7;
    tree.replace(b"etc/hostname", file("MINIMAL\n")).unwrap();
    tree.remove(b"usr/lib/7").unwrap();
    tree.remove(b"usr/bin/link").unwrap();
    let news = "demo (1.0-2) trixie-security; urgency=high\n\n  * Fix (CVE-2026-1001).\n\n -- A <a@example.org>  Mon, 04 Aug 2025 12:35:44 +0100\n\n\
                demo (1.0-1) unstable; urgency=low\n\n  * Old.\n\n -- A <a@example.org>  Sun, 03 Aug 2025 12:35:44 +0100\n";
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(news.as_bytes()).unwrap();
    tree.insert(b"usr/share/doc/demo/changelog.Debian.gz", file(encoder.finish().unwrap())).unwrap();
    tree.replace(b"var/lib/dpkg/status", file(format!("Package: demo\nVersion: 1.0-2\n{STATUS}"))).unwrap();
    sketch.packages = vec![("system", "demo", "1.0-2"), ("system", "extra", "1"), ("initrd", "udev", "258")];
    sketch
}

fn compare(before: &Path, after: &Path) -> diff::Difference {
    diff::difference(&diff::read(before).unwrap(), &diff::read(after).unwrap())
}

fn paths(files: &[adamant::manifest::File]) -> Vec<&str> {
    files.iter().map(|file| file.path.as_str()).collect()
}

#[test]
fn two_images_differ_in_what_was_changed_and_in_nothing_else() {
    let (one, other) = (first().build(), second().build());
    let found = compare(one.path(), other.path());
    assert_eq!(
        (found.before.source, found.same, found.not_compared.as_slice()),
        (Source::ImageAndManifest, false, &[][..])
    );
    let files = &found.files;
    let added = [
        "/etc/systemd/system/b.service",
        "/etc/systemd/system/multi-user.target.wants/a.service",
        "/usr/share/doc/demo/changelog.Debian.gz",
    ];
    assert_eq!(paths(&files.added), added);
    assert_eq!(paths(&files.removed), ["/usr/bin/link", "/usr/lib/7"]);
    let changed: Vec<(&str, Vec<&str>)> = files
        .changed
        .iter()
        .map(|change| (change.path.as_str(), change.changes.iter().map(|field| field.name.as_str()).collect()))
        .collect();
    let content = vec!["size", "sha256"];
    let expected = [
        ("/etc/group", content.clone()),
        ("/etc/hostname", vec!["sha256"]),
        ("/etc/passwd", content.clone()),
        ("/etc/shadow", content),
        ("/usr/bin/tool", vec!["mode", "gid"]),
        ("/var/lib/dpkg/status", vec!["sha256"]),
    ];
    assert_eq!(changed, expected);
    assert_eq!(files.retimed, [""; 0]);

    let package = &found.packages.changed[0];
    assert_eq!((package.after.name.as_str(), package.direction), ("demo", "upgrade"));
    assert_eq!(package.changelog.len(), 1);
    assert_eq!(package.changelog[0].changes, ["* Fix (CVE-2026-1001)."]);
    assert_eq!(package.cves, ["CVE-2026-1001"]);
    let added: Vec<&str> = found.packages.added.iter().map(|package| package.name.as_str()).collect();
    assert_eq!((added, found.packages.removed.len(), found.packages.changed.len()), (vec!["extra"], 0, 2));

    let units: Vec<_> = found.units.iter().map(|unit| (unit.unit.as_str(), unit.before, unit.after)).collect();
    let present = Some(UnitState::Present);
    let expected = [("a.service", present, Some(UnitState::Enabled)), ("b.service", present, Some(UnitState::Masked))];
    assert_eq!(units, expected);

    let users: Vec<_> = found.users.iter().map(|user| (user.name.as_str(), user.what)).collect();
    assert_eq!(users, [("gone", "removed"), ("new", "added"), ("root", "changed")]);
    let root: Vec<_> =
        found.users[2].changes.iter().map(|field| (&*field.name, field.after.as_deref().unwrap())).collect();
    assert_eq!(root, [("password", "a password opens it"), ("shell", "/bin/bash")]);
    assert_eq!(found.groups.len(), 1);
    assert_eq!(found.groups[0].changes[0].after.as_deref(), Some("new"));
    assert!(!serde_json::to_string(&found).unwrap().contains("secret"), "no password leaves the image");

    let words: Vec<_> = found.boot.command_line.as_ref().unwrap().words.iter().skip(1).collect();
    let words: Vec<_> = words.iter().map(|word| (word.before.as_deref(), word.after.as_deref())).collect();
    assert_eq!(words, [(Some("console=ttyS0"), Some("console=ttyS1")), (None, Some("panic=-1"))]);
    let initrd = found.boot.initrd.as_ref().unwrap();
    assert_eq!((initrd.changed.len(), initrd.changed[0].path.as_str()), (1, "/state"));
    let parts: Vec<&str> = found.boot.partitions.iter().map(|part| part.part.as_str()).collect();
    assert_eq!(parts, ["esp", "root", "root-verity"]);
    let sections: Vec<&str> = found.boot.sections.iter().map(|part| part.part.as_str()).collect();
    assert_eq!(sections, [".cmdline", ".initrd"]);
}

#[test]
fn an_image_does_not_differ_from_itself_in_any_form() {
    let one = first().build();
    let manifest = one.path().join("manifest.json");
    for (before, after) in
        [(one.path(), one.path()), (one.path(), &one.raw), (&one.raw, &manifest), (&manifest, &manifest)]
    {
        let found = compare(before, after);
        assert!(found.same, "{found:?}");
        assert_eq!(found.units, []);
    }
    let explained = diff::explain(&diff::read(one.path()).unwrap(), &diff::read(&one.raw).unwrap());
    assert!(explained.same && explained.nodes.is_empty() && explained.without_effect.is_empty());
}

#[test]
fn what_a_manifest_cannot_tell_is_said_with_its_reason() {
    let (one, other) = (first().build(), second().build());
    let found = compare(&one.path().join("manifest.json"), &other.path().join("manifest.json"));
    let what: Vec<&str> = found.not_compared.iter().map(|it| it.what.as_str()).collect();
    assert_eq!(what, ["changelogs of packages", "users", "groups", "passwords", "files of the initrd"]);
    assert_eq!(found.files, compare(one.path(), other.path()).files, "files are the same by bytes and by manifest");
    let found = compare(&one.raw, &other.raw);
    let what: Vec<&str> = found.not_compared.iter().map(|it| it.what.as_str()).collect();
    let expected = ["packages of the initrd, digests of packages", "epoch, tool, recipe, lock, state and checks"];
    assert_eq!(what, expected);
    assert_eq!((found.packages.changed.len(), found.packages.changed[0].changelog.len()), (1, 1));
}

#[test]
fn a_manifest_of_another_image_is_refused() {
    let (one, other) = (first().build(), second().build());
    let mut wrong = Built { manifest: other.manifest.clone(), ..one };
    wrong.write_manifest();
    let failure = diff::read(wrong.path()).unwrap_err();
    assert!(matches!(&failure.problem, Problem::Field { field, .. } if field == "verity.root_hash"), "{failure}");
    wrong.manifest.verity.root_hash = first().build().manifest.verity.root_hash;
    wrong.write_manifest();
    let failure = diff::read(wrong.path()).unwrap_err();
    assert!(matches!(&failure.problem, Problem::TreeFile { .. }), "{failure}");
    assert!(diff::read(&wrong.path().join("none")).is_err());
}

#[test]
fn without_records_the_explanation_ends_in_unknown() {
    let (one, other) = (first().build(), second().build());
    for (before, after) in [(one.path(), other.path()), (&*one.raw, &*other.raw)] {
        let explained = diff::explain(&diff::read(before).unwrap(), &diff::read(after).unwrap());
        let inputs = explained.nodes.iter().filter(|node| node.effect.is_input()).count();
        let ends: Vec<_> =
            explained.nodes.iter().filter(|node| node.because.is_empty() && node.perhaps.is_empty()).collect();
        assert_eq!(inputs, 0);
        assert!(ends.iter().all(|node| matches!(node.effect, Effect::Unknown { .. })), "{ends:?}");
    }
}

#[test]
fn the_kernel_and_diff_see_the_same_files_differ() {
    if !root() {
        return;
    }
    let Some(mut mount) = oracle("mount") else { return };
    let (one, other) = (first().build(), second().build());
    let places = tempfile::tempdir().unwrap();
    let offset = |built: &Built| built.manifest.partitions[1].offset;
    for (built, name) in [(&one, "a"), (&other, "b")] {
        std::fs::create_dir(places.path().join(name)).unwrap();
        let options = format!("loop,ro,offset={},sizelimit={}", offset(built), built.manifest.partitions[1].size);
        let mut mount =
            if name == "a" { std::mem::replace(&mut mount, Command::new("mount")) } else { oracle("mount").unwrap() };
        run(mount.args(["-t", "erofs", "-o", &options]).arg(&built.raw).arg(places.path().join(name)));
    }
    let output = Command::new("diff").args(["-rq", "--no-dereference", "a", "b"]).current_dir(places.path()).output();
    for name in ["a", "b"] {
        run(oracle("umount").unwrap().arg(places.path().join(name)));
    }
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let mut said: Vec<String> = text
        .lines()
        .map(|line| match line.strip_prefix("Only in ") {
            Some(rest) => rest[1..].replace(": ", "/"),
            None => line.split(' ').nth(1).unwrap()[1..].to_owned(),
        })
        .collect();
    said.sort();
    let found = compare(one.path(), other.path()).files;
    // diff(1) does not look at modes and owners.
    let contents =
        found.changed.iter().filter(|c| c.changes.iter().any(|f| f.name == "sha256")).map(|c| c.path.clone());
    let mut expected: Vec<String> =
        paths(&found.added).into_iter().chain(paths(&found.removed)).map(str::to_owned).collect();
    expected.extend(contents);
    expected.sort();
    assert_eq!(said, expected);
}

fn adamant(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_adamant")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_exit_code_says_that_images_differ_only_if_asked_to() {
    let (one, other) = (first().build(), second().build());
    let (a, b) = (one.path().to_str().unwrap(), other.path().to_str().unwrap());
    assert_eq!(adamant(&["diff", a, b]).0, Some(0));
    assert_eq!(adamant(&["diff", a, a, "--exit-code"]).0, Some(0));
    let (code, stdout, stderr) = adamant(&["diff", a, b, "--exit-code", "--json"]);
    assert_eq!((code, stderr), (Some(5), format!("error: {a} and {b} differ\n")));
    let object: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&object["schema"], &object["same"]), (&"adamant.diff/1".into(), &false.into()));
    assert_eq!(object["packages"]["changed"][0]["changelog"][0]["version"], "1.0-2");
    assert_eq!(adamant(&["diff", a, b, "--markdown", "--json"]).0, Some(2));
    let (code, stdout, _) = adamant(&["explain", a, b, "--json"]);
    let object: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (code, &object["schema"], &object["nodes"][0]["kind"]),
        (Some(0), &"adamant.explain/1".into(), &"image".into())
    );
}

#[test]
fn text_and_markdown_say_it_in_short_and_fold_long_lists() {
    let (one, other) = (first().build(), {
        let mut sketch = second();
        for number in 0..40 {
            sketch.tree.insert(format!("usr/lib/new{number}").as_bytes(), file("x")).unwrap();
        }
        sketch.tree.insert(b"usr/lib/a\x1b[31m`evil`", file("x")).unwrap();
        sketch.build()
    });
    let (a, b) = (one.path().to_str().unwrap(), other.path().to_str().unwrap());
    let text = adamant(&["diff", a, b]).1;
    for line in [
        "  packages: 2 changed, 1 added\n",
        "  ~ demo 1.0-1 → 1.0-2, names CVE-2026-1001\n      1.0-2 (trixie-security, urgency high, Mon, 04 Aug 2025 12:35:44 +0100)\n        * Fix (CVE-2026-1001).\n",
        "  ~ udev 257 → 258 (initrd)\n",
        "  ~ a.service not enabled → enabled, now in multi-user.target.wants\n",
        "  ~ /usr/bin/tool mode 0644 → 4755, gid 0 → 7\n",
        "  ~ console ttyS0 → ttyS1\n  + panic=-1\n",
        "more: --all lists them\n",
    ] {
        assert!(text.contains(line), "{line}is not in\n{text}");
    }
    let all = adamant(&["diff", a, b, "--all"]).1;
    assert!(!all.contains("--all") && all.contains("/usr/lib/a\\u{1b}[31m`evil`") && !all.contains('\x1b'), "{all}");
    let markdown = adamant(&["diff", a, b, "--all", "--markdown"]).1;
    for line in [
        "## minimal 1 → minimal 1\n",
        "\n### Packages\n",
        "- `demo` 1.0-1 → 1.0-2, names CVE-2026-1001\n  ```text\n",
        "- added `` /usr/lib/a\\u{1b}[31m`evil` `` 1 B\n",
    ] {
        assert!(markdown.contains(line), "{line}is not in\n{markdown}");
    }
}

/// An image that says what it was made from; `version` is that of its package, `date` that of its index.
fn recorded(version: &str, date: u64, motd: &str) -> Sketch {
    let locked = LockedPackage {
        name: "demo".into(),
        version: version.into(),
        architecture: "amd64".into(),
        repository: "debian-security".into(),
        size: 5,
        digest: Digest::of(version.as_bytes()),
        path: "pool/demo.deb".into(),
    };
    let index = LockedIndex {
        repository: "debian-security".into(),
        suite: "trixie-security".into(),
        component: "main".into(),
        architecture: "amd64".into(),
        date,
        size: 7,
        digest: Digest::of(version.as_bytes()),
    };
    let mut sketch = first();
    let tree = &mut sketch.tree;
    tree.replace(b"usr/bin/tool", file(version)).unwrap();
    tree.insert(b"etc/motd", file(motd)).unwrap();
    tree.make_directories(b"var/lib/dpkg/info", &Metadata::with_mode(0o755)).unwrap();
    tree.insert(b"var/lib/dpkg/info/demo.list", file("/usr/bin/tool\n")).unwrap();
    tree.replace(b"var/lib/dpkg/status", file(format!("Package: demo\nVersion: {version}\n{STATUS}"))).unwrap();
    sketch.written = [("etc/motd", Step::Files), ("var/lib/dpkg/status", Step::Configure)]
        .map(|(path, step)| (path.as_bytes().to_vec(), step))
        .into();
    sketch.recipe = vec![RecipeField {
        field: "files".into(),
        value: serde_json::json!([{ "path": "/etc/motd", "content": { "inline": Digest::of(motd.as_bytes()) } }]),
    }];
    sketch.lock = Some(Lock {
        request: Digest::of(b"request"),
        architecture: "amd64".into(),
        epoch: 1_700_000_000,
        indexes: vec![index],
        sets: [("system".to_owned(), vec![locked])].into(),
    });
    sketch
}

#[test]
fn explain_tells_the_chain_from_the_inputs_to_the_digest() {
    let one = recorded("1.0-1", 1_793_491_200, "hello").build();
    let other = recorded("1.0-2", 1_795_132_800, "good day").build();
    for built in [&one, &other] {
        verify::image(built.path()).unwrap();
    }
    let short = |text: String| format!("{}…", &text[..12]);
    let digests = |built: &Built| {
        (short(built.manifest.digest().to_string()), short(built.manifest.verity.root_hash.to_string()))
    };
    let ((image, root), (image_after, root_after)) = (digests(&one), digests(&other));
    let root_hash = format!("the root hash: {root} → {root_after}");
    let expected = format!(
        "\
the image: {image} → {image_after}
├ because {root_hash}
│ ├ because /etc/motd (written from the recipe's files)
│ │ └ because the recipe: files /etc/motd changed
│ ├ because /usr/bin/tool
│ │ └ because package demo 1.0-1 → 1.0-2, from debian-security
│ │   └ because the lock was made anew
│ │     └ because the index debian-security trixie-security main amd64 lists other packages: 2026-11-01T00:00:00Z → \
2026-11-20T00:00:00Z
│ └ because /var/lib/dpkg/status (written by dpkg and scripts while packages were configured)
│   └ because package demo 1.0-1 → 1.0-2, from debian-security (see above)
├ because the partition esp
│ └ because .cmdline in the kernel image
│   └ because {root_hash} (see above)
└ because the partition root-verity
  └ because {root_hash} (see above)
"
    );
    let (a, b) = (one.path().to_str().unwrap(), other.path().to_str().unwrap());
    assert_eq!(adamant(&["explain", a, b]), (Some(0), expected, String::new()));
    assert_eq!(adamant(&["explain", a, a]).1, "the same: nothing to explain\n");
}

#[test]
fn a_directory_without_its_disk_is_its_manifest() {
    let one = first().build();
    std::fs::remove_file(&one.raw).unwrap();
    assert_eq!(diff::read(one.path()).unwrap().source, Source::Manifest);
    File::create(one.path().join("empty")).unwrap();
    assert!(diff::read(&one.path().join("empty")).is_err());
}
