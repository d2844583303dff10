//! How old a lock or an image is against the archives.

use super::*;
use crate::support::image::{EPOCH, Sketch};

#[test]
fn what_has_the_archives_newest_is_up_to_date() {
    let mut workshop = Workshop::new([deb("tool", "1"), deb("idle", "1")]);
    let recipe = workshop.recipe("\"tool\"");
    workshop.run(&["lock", &recipe]).good();
    workshop.main.add("trixie", "main", deb("idle", "2"));
    workshop.publish();
    for path in [recipe.clone(), recipe.replace(".toml", ".lock")] {
        let run = workshop.run(&["outdated", &path]).good();
        assert!(run.stdout.starts_with("r: index ") && run.stdout.ends_with(" days old; 1 packages, up to date\n"));
    }
    let json = workshop.run(&["outdated", &recipe, "--json"]).good().json();
    assert_eq!((json["schema"].as_str(), json["outdated"].as_bool()), (Some("adamant.outdated/1"), Some(false)));
    let day = json["age_days"].as_u64().unwrap();
    assert!(day > 300, "the test archive is of 2025: {day}");
    let suites: Vec<&str> =
        json["indexes"].as_array().unwrap().iter().map(|index| index["suite"].as_str().unwrap()).collect();
    assert_eq!(suites, ["trixie", "trixie-updates", "trixie-security"]);
}

#[test]
fn newer_versions_and_packages_that_are_gone_exit_with_7() {
    let mut workshop = Workshop::new([deb("tool", "1"), deb("lib", "1"), deb("gone", "1")]);
    let recipe = workshop.recipe("\"tool\", \"lib\", \"gone\"");
    workshop.run(&["lock", &recipe]).good();
    workshop.replace([deb("tool", "1"), deb("lib", "1")]);
    workshop.main.add("trixie-updates", "main", deb("tool", "2"));
    workshop.fix(deb("lib", "1+deb13u1"));
    let run = workshop.run(&["outdated", &recipe]);
    assert_eq!(run.code, Some(7));
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "package  has  newest     from                             fixed in",
            "lib      1    1+deb13u1  debian-security trixie-security  1+deb13u1",
            "tool     1    2          debian trixie-updates",
            "gone     1    -          (gone)",
        ]
    );
    assert_eq!(
        run.stderr,
        "error: r is outdated: 2 of 3 packages have newer versions, 1 of them fixes of the security archive; 1 are gone\n"
    );
    let json = workshop.run(&["outdated", &recipe, "--json"]).json();
    assert_eq!(json["security"], 1);
    assert_eq!(json["removed"], serde_json::json!([{ "package": "gone", "version": "1" }]));
    assert_eq!(json["newer"][0]["fixed"], "1+deb13u1");
    assert_eq!((&json["newer"][1]["newest"], &json["newer"][1]["fixed"]), (&"2".into(), &Value::Null));
}

#[test]
fn with_security_only_fixes_count() {
    let mut workshop = Workshop::new([deb("tool", "1"), deb("lib", "1")]);
    let recipe = workshop.recipe("\"tool\", \"lib\"");
    workshop.run(&["lock", &recipe]).good();
    workshop.replace([deb("tool", "2")]);
    workshop.run(&["outdated", &recipe, "--security"]).good();
    workshop.fix(deb("lib", "2"));
    assert_eq!(workshop.run(&["outdated", &recipe, "--security"]).code, Some(7));
    let recipe = workshop.recipe_with("\"tool\", \"lib\"", "[]");
    let run = workshop.run(&["outdated", "--security", &recipe.replace(".toml", ".lock")]);
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    assert!(run.stderr.contains("hint: add \"security\" to `pockets`"), "{}", run.stderr);
}

#[test]
fn what_comes_from_a_repository_of_low_priority_is_not_to_be_downgraded() {
    let mut workshop = Workshop::new([deb("tool", "1")]);
    let backports = Suite { not_automatic: true, but_automatic_upgrades: true, ..Suite::new("trixie-backports") };
    workshop.main.suite(backports);
    workshop.main.add("trixie-backports", "main", deb("tool", "2~bpo1"));
    workshop.publish();
    let recipe = workshop.recipe_with("\"tool/trixie-backports\"", "[\"backports\"]");
    workshop.run(&["lock", &recipe]).good();
    assert_eq!(workshop.locked(), ["tool=2~bpo1"]);
    workshop.run(&["outdated", &recipe]).good();
    workshop.main.add("trixie-backports", "main", deb("tool", "2~bpo2"));
    workshop.publish();
    let json = workshop.run(&["outdated", &recipe, "--json"]).json();
    assert_eq!(json["newer"][0]["newest"], "2~bpo2");
}

#[test]
fn an_image_and_its_manifest_are_compared_with_what_a_recipe_says() {
    let image = Sketch::default().build();
    let workshop = Workshop::new([deb("base-files", "13.9"), deb("udev", "257")]);
    let recipe = workshop.recipe("\"udev\"");
    for path in [image.path().to_owned(), image.path().join("manifest.json"), image.raw.clone()] {
        let run = workshop.run(&["outdated", path.to_str().unwrap(), "--recipe", &recipe, "--json"]);
        assert_eq!(run.code, Some(7), "{}", run.stderr);
        let json = run.json();
        assert_eq!(json["newer"][0]["package"], "base-files");
        // The disk alone knows neither the initrd's packages nor the date of the index.
        let alone = path == image.raw;
        assert_eq!(json["packages"], if alone { 1 } else { 2 });
        assert_eq!(json["date"].as_i64(), (!alone).then_some(EPOCH));
    }
    let run = workshop.run(&["outdated", image.path().to_str().unwrap()]);
    assert_eq!(run.code, Some(2), "its os-release names no suite: {}", run.stderr);
    assert!(run.stderr.contains("hint: name the recipe that does with --recipe"), "{}", run.stderr);
}

#[test]
fn a_failing_mirror_is_no_verdict() {
    let workshop = Workshop::new([deb("tool", "1")]);
    let recipe = workshop.recipe("\"tool\"");
    assert_eq!(workshop.run(&["outdated", &recipe]).code, Some(3), "never locked");
    workshop.run(&["lock", &recipe]).good();
    remove(&workshop.main.path("dists"));
    let run = workshop.run(&["outdated", &recipe, "--json"]);
    assert_eq!(run.code, Some(6), "{}", run.stderr);
    assert_eq!(run.json()["schema"], "adamant.error/1");
    assert_eq!(workshop.run(&["outdated", &recipe, "--offline"]).code, Some(4));
}
