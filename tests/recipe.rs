//! Recipes: what they mean, and what is said about wrong ones.

use std::fs;
use std::path::Path;

use adamant::recipe::{
    Check, CheckKind, FileContent, LoadError, Overrides, Recipe, RecipeField, Sources, json_schema, load, parse,
    record_digest, starter,
};
use proptest::prelude::*;

use crate::support::recipes::{recipe, try_recipe};

/// Says what `adamant` would say about `tests/recipes/NAME.toml`.
fn message(name: &str) -> String {
    match load(&Path::new("tests/recipes").join(name), &Overrides::default()) {
        Ok(_) => panic!("{name} should be wrong"),
        Err(error) => format!("{error}\n"),
    }
}

/// Each recipe with a `.txt` beside it is wrong, and this is what is said about it. `UPDATE_GOLDEN=1` writes the
/// texts anew, for a person to look at.
#[test]
fn wrong_recipes_get_messages_that_teach() {
    let mut names: Vec<_> = fs::read_dir("tests/recipes").unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let mut compared = 0;
    for path in names.iter().filter(|path| path.extension().is_some_and(|extension| extension == "toml")) {
        let expected = path.with_extension("txt");
        let name = path.file_name().unwrap().to_str().unwrap();
        if ["base.toml", "cycle-b.toml", "parent-is-wrong-base.toml"].contains(&name) {
            continue;
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, message(name)).unwrap();
        }
        let text = fs::read_to_string(&expected).unwrap_or_else(|error| panic!("{}: {error}", expected.display()));
        assert_eq!(message(name), text, "{name}");
        compared += 1;
    }
    assert_eq!(compared, 14);
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn load_in(folder: &Path, name: &str) -> Recipe {
    load(&folder.join(name), &Overrides::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn packages(recipe: &Recipe) -> Vec<String> {
    recipe.packages.iter().map(|request| request.to_string()).collect()
}

const BASE: &str = r#"
name = "base"
version = "1"
packages = ["systemd", "nginx", "curl"]
recommends = true
[debian]
suite = "trixie"
pockets = ["backports"]
[kernel]
command-line = ["quiet", "console=ttyS0"]
[system]
locale = "de_DE.UTF-8"
timezone = "Europe/Berlin"
[units]
enable = ["a.service", "b.service"]
mask = ["c.service"]
[[file]]
path = "/etc/motd"
source = "motd"
[[file]]
path = "/etc/issue"
content = "base"
[[check]]
name = "up"
unit = "a.service"
"#;

#[test]
fn an_extending_recipe_overrides_appends_replaces_and_removes() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "base/base.toml", BASE);
    let text = r#"
extends = "../base/base.toml"
name = "web"
packages = ["nginx=1.26.3-3", "vim"]
[debian]
pockets = ["security"]
[kernel]
command-line = ["debug"]
[system]
locale = "fr_FR.UTF-8"
[units]
disable = ["b.service"]
enable = ["c.service"]
[[file]]
path = "/etc/motd"
source = "motd"
[[check]]
name = "up"
command = ["/bin/true"]
[remove]
packages = ["curl"]
files = ["/etc/issue"]
command-line = ["quiet"]
units = ["a.service"]
"#;
    write(folder.path(), "web/web.toml", text);
    let recipe = load_in(folder.path(), "web/web.toml");
    assert_eq!((recipe.name.as_str(), recipe.version.as_str(), recipe.recommends), ("web", "1", true));
    assert_eq!(packages(&recipe), ["systemd", "nginx=1.26.3-3", "vim"]);
    assert_eq!(recipe.debian.pockets.len(), 1);
    let words = |list: &[adamant::recipe::At<String>]| list.iter().map(|at| at.value.clone()).collect::<Vec<_>>();
    assert_eq!(words(&recipe.command_line), ["console=ttyS0", "debug"]);
    assert_eq!(recipe.system.locale.value, "fr_FR.UTF-8");
    assert_eq!(recipe.system.timezone.value, "Europe/Berlin");
    assert_eq!(recipe.system.hostname.value, "web");
    let units = &recipe.units;
    assert_eq!((words(&units.enable), words(&units.disable)), (vec!["c.service".into()], vec!["b.service".into()]));
    assert!(units.mask.is_empty());
    assert_eq!(recipe.files.len(), 1);
    let FileContent::Source(source) = &recipe.files[0].content else { panic!("a source") };
    assert!(source.folder.ends_with("web"), "a source lies beside the file that names it");
    assert_eq!(recipe.checks.len(), 1);
    assert_eq!(recipe.checks[0].kind, CheckKind::Command(vec!["/bin/true".into()]));
    let place = recipe.sources.locate(recipe.packages[0].span).unwrap();
    assert!(place.file.ends_with("base/base.toml") && (place.line, place.column) == (4, 13), "{place}");
}

#[test]
fn the_version_of_the_command_line_wins() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "r.toml", BASE);
    let with = |version: &str| {
        load(&folder.path().join("r.toml"), &Overrides { version: Some(version.into()) })
            .map(|recipe| recipe.version.value)
            .map_err(|error| error.to_string())
    };
    assert_eq!(with("20261101").unwrap(), "20261101");
    assert!(with("1_2").unwrap_err().starts_with("error: `--version` cannot be \"1_2\""));
}

#[test]
fn a_chain_that_is_too_long_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..12 {
        write(folder.path(), &format!("{number}.toml"), &format!("extends = \"{}.toml\"", number + 1));
    }
    write(folder.path(), "12.toml", BASE);
    let error = load(&folder.path().join("0.toml"), &Overrides::default()).unwrap_err().to_string();
    assert!(error.contains("more than 8 recipes extend each other"), "{error}");
}

#[test]
fn a_file_that_is_not_text_or_not_there_is_an_error_of_reading() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("r.toml"), b"name = \"\xff\"").unwrap();
    for name in ["r.toml", "none.toml", "."] {
        let error = load(&folder.path().join(name), &Overrides::default()).unwrap_err();
        assert!(matches!(error, LoadError::Read { .. }), "{error}");
    }
}

#[test]
fn a_source_that_leaves_the_folder_by_a_link_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), "s").unwrap();
    let inside = folder.path().join("recipes");
    write(&inside, "motd", "hello");
    write(&inside, "r.toml", BASE);
    load_in(&inside, "r.toml").read_sources().unwrap();
    fs::remove_file(inside.join("motd")).unwrap();
    std::os::unix::fs::symlink("../secret", inside.join("motd")).unwrap();
    let error = load_in(&inside, "r.toml").read_sources().unwrap_err().to_string();
    assert!(error.contains("a symbolic link on the way leads out of the recipe's folder"), "{error}");
    fs::remove_file(inside.join("motd")).unwrap();
    let error = load_in(&inside, "r.toml").read_sources().unwrap_err().to_string();
    assert!(error.contains("cannot read \"motd\"") && error.contains("r.toml:19:10"), "{error}");
}

#[test]
fn digests_follow_what_is_said_and_what_sources_hold_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    for folder in [folder.path(), other.path()] {
        write(folder, "motd", "hello");
        write(folder, "r.toml", BASE);
    }
    let digests = |folder: &Path| {
        let recipe = load_in(folder, "r.toml");
        let contents = recipe.read_sources().unwrap();
        (recipe.digest(&contents).unwrap(), recipe.lock_digest(&contents).unwrap())
    };
    let before = digests(folder.path());
    assert_eq!(before, digests(other.path()), "the folder does not count");
    write(other.path(), "r.toml", &format!("# a comment\n\n{BASE}"));
    assert_eq!(before, digests(other.path()), "comments and places do not count");
    write(other.path(), "motd", "HELLO");
    let changed = digests(other.path());
    assert!(changed.0 != before.0 && changed.1 == before.1, "a source is no part of the lock");
    write(folder.path(), "r.toml", &BASE.replace(r#""systemd", "nginx""#, r#""nginx", "systemd""#));
    let swapped = digests(folder.path());
    assert!(swapped.0 != before.0 && swapped.1 == before.1, "the order of packages is no part of the lock");
    write(folder.path(), "r.toml", &BASE.replace(r#""curl""#, r#""curl", "vim""#));
    assert_ne!(digests(folder.path()).1, before.1);
}

#[test]
fn a_record_of_a_recipe_names_what_its_sources_hold_and_shows_none_of_it() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("motd", "hello"), ("archive.asc", "key one"), ("extra.asc", "key two")] {
        write(folder.path(), name, text);
    }
    let text = BASE.replace("[debian]", "[debian]\nkey = \"archive.asc\"");
    let text = text
        + "[[repository]]\nname = \"extra\"\nsuite = \"x\"\nkey = \"extra.asc\"\n[[file]]\npath = \"/etc/secret\"\ncontent = \"s3cret\"\n";
    write(folder.path(), "r.toml", &text);
    let record = || {
        let recipe = load_in(folder.path(), "r.toml");
        let contents = recipe.read_sources().unwrap();
        let record = recipe.record(&contents).unwrap();
        assert_eq!(recipe.digest(&contents), Some(record_digest(&record)));
        record
    };
    let before = record();
    let shown = serde_json::to_string(&before).unwrap();
    assert!(!["hello", "key one", "key two", "s3cret"].iter().any(|text| shown.contains(text)), "{shown}");
    assert_eq!(serde_json::from_str::<Vec<RecipeField>>(&shown).unwrap(), before);
    for name in ["motd", "archive.asc", "extra.asc"] {
        let good = fs::read_to_string(folder.path().join(name)).unwrap();
        write(folder.path(), name, "other");
        assert_ne!(record_digest(&record()), record_digest(&before), "{name}");
        write(folder.path(), name, &good);
    }
    assert_eq!(record(), before);
}

#[test]
fn an_epoch_is_a_date_or_seconds() {
    assert_eq!(recipe("epoch = 2026-11-01T01:00:00+01:00").epoch, Some(1_793_491_200));
    assert_eq!(recipe("epoch = 1_793_491_200").epoch, Some(1_793_491_200));
    assert_eq!(recipe("").epoch, None);
    for wrong in ["2026-11-01", "-1", "2026-11-01T00:00:00", "1e9", "'x'"] {
        assert!(try_recipe(&format!("epoch = {wrong}")).is_err(), "{wrong}");
    }
}

#[test]
fn the_starter_is_a_recipe_and_so_it_is_with_all_its_examples() {
    let text = starter("web").unwrap();
    let check = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "r.toml", text);
        load_in(folder.path(), "r.toml")
    };
    let plain = check(&text);
    assert_eq!((plain.name.as_str(), plain.users.len()), ("web", 0));
    let example = |line: &str| match line.trim_start().strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    let full: String = text.lines().map(|line| example(line) + "\n").collect();
    let full = check(&full);
    assert_eq!((full.users.len(), full.repositories.len(), full.symlinks.len()), (1, 1, 1));
    assert!(starter("My_Web").is_err());
}

#[test]
fn the_recipes_of_the_project_are_valid() {
    for name in ["minimal.toml", "web.toml", "tools/vm.toml"] {
        let recipe = load(&Path::new("recipes").join(name), &Overrides::default()).unwrap_or_else(|e| panic!("{e}"));
        recipe.read_sources().unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn every_key_of_the_schema_is_documented() {
    fn visit(value: &serde_json::Value, path: &str) {
        if let Some(properties) = value.get("properties").and_then(|properties| properties.as_object()) {
            for (key, property) in properties {
                assert!(property.get("description").is_some(), "{path}.{key} has no description");
                assert!(!key.contains('_'), "{path}.{key}: words are joined by `-`");
            }
        }
        if let Some(object) = value.as_object() {
            object.iter().for_each(|(key, value)| visit(value, &format!("{path}.{key}")));
        }
    }
    let schema = json_schema();
    visit(&schema, "");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(!schema.to_string().contains("\"null\""), "TOML has no null");
}

proptest! {
    /// Whatever is written, there is a recipe or a message that can be shown.
    #[test]
    fn mutated_recipes_never_panic(edits in prop::collection::vec((any::<prop::sample::Index>(), ".{0,3}"), 1..6)) {
        let mut text = include_str!("recipes/wrong-values.toml").to_owned();
        for (index, replacement) in edits {
            let boundaries: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let at = boundaries[index.index(boundaries.len())];
            let end = (at + text[at..].chars().next().map_or(0, char::len_utf8)).min(text.len());
            text.replace_range(at..end, &replacement);
            if text.is_empty() {
                text.push('x');
            }
        }
        let _ = try_recipe(&text);
    }

    #[test]
    fn any_text_is_parsed_without_panic(text in "\\PC{0,200}|[\\[\\]\"'=.#\na-z0-9\r\t{},]{0,200}") {
        let mut sources = Sources::default();
        if let Err(found) = parse("r.toml".into(), text, &mut sources) {
            let shown = adamant::recipe::Diagnostics::new(found, sources).render(true);
            prop_assert!(shown.contains("r.toml"));
        }
    }
}

#[test]
fn checks_go_through_json_and_back() {
    let text = "[[check]]\nname = 'page'\nhttp = { path = '/x' }\ntimeout = 5\n\
                [[check]]\nname = 'up'\nunit = 'a.service'\n[[check]]\nname = 'ok'\ncommand = ['/bin/true', 'x']\n";
    let checks = recipe(text).checks;
    let json = serde_json::to_value(&checks).unwrap();
    let http = serde_json::json!({ "port": 80, "path": "/x", "status": 200 });
    assert_eq!(json[0], serde_json::json!({ "name": "page", "http": http, "timeout_s": 5 }));
    let mut back: Vec<Check> = serde_json::from_value(json).unwrap();
    back.iter_mut().zip(&checks).for_each(|(back, check)| back.span = check.span);
    assert_eq!(back, checks);
}
