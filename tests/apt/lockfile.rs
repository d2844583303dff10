//! The text of a lock.

use super::*;

fn made() -> Lock {
    let archive = Archive::of([
        Deb::new("web", "1:1.0-1").depends("lib").architecture("amd64"),
        Deb::new("lib", "2.0").file("usr/lib/lib", 0o644, b"x"),
    ]);
    let mut request = request(&archive, ask(&["web"]));
    request.sets.push(SetRequest { packages: vec!["lib".parse().unwrap()], ..SetRequest::new("initrd") });
    lock(&request, &archive, NOW).unwrap()
}

#[test]
fn is_canonical_text_with_a_line_for_each_package() {
    let lock = made();
    let text = lock.to_text();
    assert_eq!(Lock::parse(&text).unwrap(), lock);
    assert_eq!(Lock::parse(&text).unwrap().to_text(), text);
    assert_eq!(lock.epoch, PUBLISHED);
    let web = lock.sets["system"].iter().find(|package| package.name == "web").unwrap();
    let line = format!(
        "    {{ name = \"web\", version = \"1:1.0-1\", architecture = \"amd64\", repository = \"test\", size = {}, \
         sha256 = \"{}\", path = \"pool/main/web_1.0-1_amd64.deb\" }},",
        web.size, web.digest
    );
    assert_eq!(text.lines().filter(|one| *one == line).count(), 1, "{text}");
    assert!(text.contains("\ninitrd = [\n    { name = \"lib\""), "{text}");
    assert!(text.contains("date = 2025-05-31T22:00:00Z"), "{text}");
    let index = &lock.indexes[0];
    assert_eq!((index.repository.as_str(), index.suite.as_str(), index.date), ("test", "trixie", PUBLISHED));
}

#[test]
fn is_the_same_for_the_same_archive() {
    assert_eq!(made().to_text(), made().to_text());
}

#[test]
fn may_have_its_lines_in_any_order() {
    let lock = made();
    let mut lines: Vec<String> = lock.to_text().lines().map(str::to_owned).collect();
    let at = lines.iter().position(|line| line.starts_with("system")).unwrap();
    lines.swap(at + 1, at + 2);
    assert_eq!(Lock::parse(&lines.join("\n")).unwrap(), lock);
}

#[test]
fn says_what_is_wrong_with_it() {
    let text = made().to_text();
    for (from, to, words) in [
        ("schema = 1", "schema = 2", "the lockfile has schema 2, this adamant reads 1"),
        ("name = \"web\"", "name = \"../web\"", "set system, package ../web: \"../web\" is not a package name"),
        ("path = \"pool/main/web", "path = \"../web", "is not a path in a repository"),
        ("path = \"pool/main/web", "path = \"/web", "is not a path in a repository"),
        ("version = \"1:1.0-1\"", "version = \"x y\"", "package web: \"x y\" is not a version"),
        ("name = \"web\"", "name = \"lib\"", "set system: package lib is listed twice"),
        ("T22:00:00Z", "", "2025-05-31 is not a date in UTC since 1970"),
        ("architecture = \"amd64\"\nepoch", "epoch", "missing field `architecture`"),
        ("epoch =", "epock =", "unknown field `epock`"),
        ("size = ", "size = -", "invalid value"),
        ("[sets]", "[sets", "not a lockfile"),
    ] {
        assert!(text.contains(from), "{from}");
        let error = told(&Lock::parse(&text.replace(from, to)).unwrap_err());
        assert!(error.contains(words), "{from}: {error}");
    }
}

#[test]
fn differences_are_a_value() {
    let before = made();
    let mut after = before.clone();
    let packages = after.sets.get_mut("system").unwrap();
    packages[0].version = "2.1".to_owned();
    packages[1].name = "apache".to_owned();
    after.sets.remove("initrd");
    after.epoch += 1;
    let change = difference(&before, &after);
    assert!(!change.is_empty());
    assert_eq!(change.epoch, Some((PUBLISHED, PUBLISHED + 1)));
    let names = |packages: &[adamant::lock::LockedPackage]| {
        packages.iter().map(|package| package.name.clone()).collect::<Vec<_>>()
    };
    let system = &change.sets["system"];
    assert_eq!((names(&system.added), names(&system.removed)), (vec!["apache".into()], vec!["web".into()]));
    assert_eq!((system.changed.len(), system.changed[0].after.version.as_str()), (1, "2.1"));
    assert_eq!(names(&change.sets["initrd"].removed), ["lib"]);
    assert!(difference(&before, &before).is_empty());
}
