//! Only the work that a change needs, and the same bits as from nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use adamant::digest::Digest;
use serde_json::Value;

use crate::support::packages::Package;
use crate::support::workshop::{Archived, Ended, Workshop, noise};

/// Builds, and tells which stages were found done.
#[track_caller]
fn build(workshop: &Workshop) -> BTreeMap<String, bool> {
    let built = Ended::of(&mut workshop.build_with(&["--json"]));
    built.expect(0, &[]);
    let built: Value = serde_json::from_str(&built.stdout).unwrap();
    let stage = |stage: &Value| (stage["name"].as_str().unwrap().to_owned(), stage["cached"].as_bool().unwrap());
    built["stages"].as_array().unwrap().iter().map(stage).collect()
}

/// What comes out when the same recipe is built with an empty store.
#[track_caller]
fn from_nothing(workshop: &Workshop) -> BTreeMap<String, Digest> {
    let store = workshop.path("other-store");
    let out = workshop.path("other-out");
    let mut command = workshop.adamant(&["build", "--mirror", &workshop.server.url(), "--store"]);
    command.arg(&store).arg("--out").arg(&out).arg(workshop.recipe());
    Ended::of(&mut command).expect(0, &[]);
    let image = crate::support::workshop::image_in(&out).unwrap();
    fs::remove_dir_all(store).unwrap();
    fs::remove_dir_all(out).unwrap();
    image
}

/// The files that hold compressed data, the largest last.
fn compressed(workshop: &Workshop) -> Vec<PathBuf> {
    let results = fs::read_dir(workshop.path("store/stages/compress")).unwrap();
    let mut files: Vec<PathBuf> = results.map(|entry| entry.unwrap().path().join("content/segments")).collect();
    files.sort_by_key(|file| fs::metadata(file).unwrap().len());
    files
}

/// A package with files of every kind that is compressed: small, large, and one of several segments.
fn library() -> Package {
    let text =
        |count: u32| (0..count).map(|line| format!("line {} of it\n", line % 9973 * 7919 % 9973)).collect::<String>();
    let mut package = Package::new("library", "").file("usr/share/library/huge", 0o644, text(600_000));
    for number in 0..40 {
        package = package.file(&format!("usr/share/library/small-{number}"), 0o644, text(500 + number * 41));
        package = package.file(&format!("usr/share/library/large-{number}"), 0o644, text(9_000 + number));
    }
    package.file("usr/share/library/noise", 0o644, &noise(900_000)[300_000..])
}

fn workshop() -> Option<Workshop> {
    let archived = Archived::with(&[library(), Package::new("extra", "").file("usr/bin/extra", 0o755, "extra\n")])?;
    let workshop = Workshop::of(&archived);
    workshop.edit("\"greeter\"]", "\"greeter\", \"library\"]");
    Some(workshop)
}

#[test]
fn a_changed_file_runs_no_script_and_compresses_nothing_else() {
    let Some(workshop) = workshop() else { return };
    assert!(build(&workshop).values().all(|cached| !cached));
    assert_eq!(workshop.image(), Some(from_nothing(&workshop)));
    let before: Vec<PathBuf> = compressed(&workshop);
    let size = |file: &PathBuf| fs::metadata(file).unwrap().len();
    let base = size(&before[before.len() - 1]);
    workshop.write("issue", "another welcome\n");
    let stages = build(&workshop);
    for stage in ["unpack", "configure", "initrd", "compress"] {
        assert_eq!(stages.get(stage), Some(&true), "{stage}");
    }
    assert_eq!(workshop.image(), Some(from_nothing(&workshop)));
    let new: Vec<PathBuf> = compressed(&workshop).into_iter().filter(|file| !before.contains(file)).collect();
    let [new] = new.as_slice() else { panic!("{new:?} is what the image added") };
    assert!(size(new) < base / 4, "{} bytes were compressed again, of {base}", size(new));
    // And back: that image is there still.
    workshop.write("issue", "welcome\n");
    assert_eq!(build(&workshop), BTreeMap::from([("image".to_owned(), true)]));
}

#[test]
fn damaged_compressed_data_is_named_compressed_again_and_never_used() {
    let Some(workshop) = workshop() else { return };
    build(&workshop);
    let damage = || {
        let file = compressed(&workshop).pop().unwrap();
        let mut bytes = fs::read(&file).unwrap();
        for at in (0..bytes.len() - 20_000).step_by(1000) {
            bytes[at] ^= 1;
        }
        fs::write(&file, bytes).unwrap();
        file
    };
    let damaged = damage();
    workshop.write("issue", "another welcome\n");
    build(&workshop);
    assert_eq!(workshop.image(), Some(from_nothing(&workshop)));
    assert!(!damaged.exists());
    let store = workshop.path("store");
    let verify = || {
        let ended =
            Ended::of(&mut workshop.adamant(&["store", "verify", "--json", "--store", store.to_str().unwrap()]));
        (ended.code, serde_json::from_str::<Value>(&ended.stdout).unwrap()["damaged_results"].clone())
    };
    assert_eq!(verify(), (Some(0), Value::Array(Vec::new())));
    damage();
    let (code, results) = verify();
    assert_eq!((code, results.as_array().unwrap().len(), &results[0]["stage"]), (Some(5), 1, &"compress".into()));
    // Cut short, it is no less damaged; without any, nothing is lacking.
    for file in compressed(&workshop) {
        fs::File::options().write(true).open(&file).unwrap().set_len(100).unwrap();
    }
    workshop.write("issue", "a third welcome\n");
    build(&workshop);
    assert_eq!(workshop.image(), Some(from_nothing(&workshop)));
    fs::remove_dir_all(store.join("stages/compress")).unwrap();
    workshop.write("issue", "a fourth welcome\n");
    build(&workshop);
    assert_eq!(workshop.image(), Some(from_nothing(&workshop)));
}

#[test]
fn an_added_package_unpacks_no_other_and_gives_the_bits_of_a_build_from_nothing() {
    let Some(workshop) = workshop() else { return };
    build(&workshop);
    let unpacked = || fs::read_dir(workshop.path("store/stages/unpack")).unwrap().count();
    let made = || {
        let seals = fs::read_dir(workshop.path("store/stages/unpack")).unwrap();
        let times =
            seals.map(|entry| fs::metadata(entry.unwrap().path().join("content/data")).unwrap().modified().unwrap());
        times.collect::<std::collections::BTreeSet<_>>()
    };
    let (count, times) = (unpacked(), made());
    workshop.edit("\"library\"]", "\"library\", \"extra\"]");
    fs::remove_file(workshop.path("recipe/tiny.lock")).unwrap();
    build(&workshop);
    assert_eq!(unpacked(), count + 1);
    assert!(made().is_superset(&times), "a package was unpacked again");
    assert_eq!(workshop.image(), Some(from_nothing(&workshop)));
    // What the packages of before have was compressed for the image before.
    let compressed = compressed(&workshop);
    let sizes: Vec<u64> = compressed.iter().map(|file| fs::metadata(file).unwrap().len()).collect();
    let (largest, others) = sizes.split_last().unwrap();
    assert!(others.iter().all(|size| size < &(largest / 4)), "{sizes:?}");
}

#[test]
fn a_damaged_file_of_a_package_gets_into_no_image() {
    let Some(workshop) = workshop() else { return };
    build(&workshop);
    fs::remove_dir_all(workshop.path("store/stages/compress")).unwrap();
    let mut largest: Vec<PathBuf> = fs::read_dir(workshop.path("store/stages/unpack"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("content/data"))
        .collect();
    largest.sort_by_key(|file| fs::metadata(file).unwrap().len());
    let file = largest.pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(20).rposition(|window| window.starts_with(b"line 7919 of it\n")).unwrap();
    bytes[at] = b'L';
    fs::write(&file, bytes).unwrap();
    workshop.write("issue", "another welcome\n");
    let ended = Ended::of(&mut workshop.build());
    ended.expect(4, &["usr/share/library/", "its bytes are no longer those", "adamant store verify"]);
    let store = workshop.path("store");
    Ended::of(&mut workshop.adamant(&["store", "verify", "--store", store.to_str().unwrap()])).expect(5, &[]);
    build(&workshop);
    assert_eq!(workshop.image(), Some(from_nothing(&workshop)));
}

/// Recipes with the same packages and other files and host names, beside the first one.
fn siblings(workshop: &Workshop, count: usize) -> Vec<String> {
    let text = fs::read_to_string(workshop.recipe()).unwrap();
    let lock = Ended::of(&mut workshop.verb("lock", &[]));
    lock.expect(0, &[]);
    let sibling = |number: usize| {
        let name = format!("sibling-{number}");
        let text =
            text.replace("name = \"tiny\"", &format!("name = \"{name}\"\n[system]\nhostname = \"host-{number}\""));
        // Tables follow what belongs to none.
        let (head, rest) = text.split_once("[system]").unwrap();
        let (system, rest) = rest.split_once("version =").unwrap();
        let (own, tables) = rest.split_once("[debian]").unwrap();
        let text = format!("{head}version ={own}[system]{system}\n[debian]{tables}");
        workshop.write(&format!("{name}.toml"), &text.replace("source = \"issue\"", &format!("content = \"{name}\"")));
        fs::copy(workshop.path("recipe/tiny.lock"), workshop.path(&format!("recipe/{name}.lock"))).unwrap();
        workshop.path(&format!("recipe/{name}.toml")).to_str().unwrap().to_owned()
    };
    (0..count).map(sibling).collect()
}

/// How many results of a stage the store has.
fn results(workshop: &Workshop, stage: &str) -> usize {
    fs::read_dir(workshop.path("store/stages").join(stage)).unwrap().count()
}

#[test]
fn recipes_that_are_built_together_share_what_they_have_in_common() {
    let Some(workshop) = workshop() else { return };
    let recipes = siblings(&workshop, 3);
    let store = workshop.path("store").to_str().unwrap().to_owned();
    let url = workshop.server.url();
    let mut arguments = vec!["build", "--json", "--mirror", &url, "--store", &store];
    arguments.extend(recipes.iter().map(String::as_str));
    let built = Ended::of(&mut workshop.adamant(&arguments));
    built.expect(0, &[]);
    let built: Value = serde_json::from_str(&built.stdout).unwrap();
    assert_eq!(built["schema"], "adamant.builds/1");
    let images = built["images"].as_array().unwrap();
    let cached: Vec<Vec<(&str, bool)>> = images
        .iter()
        .map(|image| {
            let stages = image["stages"].as_array().unwrap().iter();
            let mut stages: Vec<_> =
                stages.map(|stage| (stage["name"].as_str().unwrap(), stage["cached"].as_bool().unwrap())).collect();
            stages.retain(|(name, _)| ["unpack", "configure", "initrd", "compress"].contains(name));
            stages.sort_unstable();
            stages
        })
        .collect();
    let all = |cached: bool| ["compress", "configure", "initrd", "unpack"].map(|name| (name, cached)).to_vec();
    assert_eq!(cached, [all(false), all(true), all(true)]);
    assert_eq!((results(&workshop, "configure"), results(&workshop, "image")), (1, 3));
    // As if each were built alone.
    for (number, recipe) in recipes.iter().enumerate() {
        let other = workshop.path("other-store");
        let out = workshop.path("alone");
        let mut alone = workshop.adamant(&["build", "--mirror", &url, "--store", other.to_str().unwrap()]);
        Ended::of(alone.arg("--out").arg(&out).arg(recipe)).expect(0, &[]);
        let together = crate::support::workshop::image_in(&workshop.path(&format!("out/sibling-{number}_1")));
        assert_eq!(together, crate::support::workshop::image_in(&out));
        fs::remove_dir_all(other).unwrap();
    }
}

#[test]
fn recipes_that_are_built_at_once_wait_for_what_another_makes() {
    let Some(workshop) = workshop() else { return };
    let builders: Vec<_> = siblings(&workshop, 4)
        .into_iter()
        .map(|recipe| {
            let store = workshop.path("store").to_str().unwrap().to_owned();
            let mut command =
                workshop.adamant(&["build", "--mirror", &workshop.server.url(), "--store", &store, &recipe]);
            std::thread::spawn(move || Ended::of(&mut command))
        })
        .collect();
    builders.into_iter().for_each(|builder| builder.join().unwrap().expect(0, &[]));
    let counts = ["configure", "initrd", "image"].map(|stage| results(&workshop, stage));
    assert_eq!(counts, [1, 1, 4]);
    // One of them compressed what all have, each what only it has.
    let sizes: Vec<u64> = compressed(&workshop).iter().map(|file| fs::metadata(file).unwrap().len()).collect();
    let (largest, others) = sizes.split_last().unwrap();
    assert!(others.iter().all(|size| size < &(largest / 4)), "{sizes:?}");
    workshop.assert_store_is_good();
}

#[test]
fn several_recipes_have_no_common_folder_and_no_common_name() {
    let Some(workshop) = workshop() else { return };
    let recipe = workshop.recipe();
    let recipe = recipe.to_str().unwrap();
    Ended::of(&mut workshop.adamant(&["build", recipe, recipe, "--out", "x"])).expect(2, &["--out"]);
    Ended::of(&mut workshop.adamant(&["build", recipe, recipe])).expect(3, &["name and version", "out/tiny_1"]);
    assert_eq!(workshop.outputs(), [""; 0]);
}
