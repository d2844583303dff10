//! What locks need, in a folder of its own.

use super::*;
use std::os::unix::fs::PermissionsExt;

/// The objects of a store, by name below `objects/sha256`.
pub fn objects(store: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(store.join("objects/sha256"))
        .into_iter()
        .flatten()
        .flat_map(|directory| fs::read_dir(directory.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    found
}

pub fn corrupt(object: &Path) {
    fs::set_permissions(object, fs::Permissions::from_mode(0o644)).unwrap();
    let mut bytes = fs::read(object).unwrap();
    bytes[100] ^= 1;
    fs::write(object, bytes).unwrap();
}

#[test]
fn the_folder_gets_every_package_and_is_checked_and_completed_when_run_again() {
    let workshop = Workshop::new([deb("tool", "1").depends("lib"), deb("lib", "1"), deb("idle", "1")]);
    let recipe = workshop.recipe("\"tool\"");
    workshop.run(&["lock", &recipe]).good();
    let folder = workshop.path("usb/store");
    let vendor = || workshop.run(&["vendor", folder.to_str().unwrap(), &recipe, "--json"]);
    let json = vendor().good().json();
    assert_eq!((json["schema"].as_str(), json["packages"].as_u64()), (Some("adamant.vendor/1"), Some(2)));
    assert_eq!((json["fetched"]["packages"].as_u64(), json["copied"]["packages"].as_u64()), (Some(2), Some(0)));
    assert_eq!(objects(&folder).len(), 2);
    assert_eq!(vendor().good().json()["present"]["packages"], 2);
    // One is lost, one damaged: both are brought again.
    fs::remove_file(&objects(&folder)[0]).unwrap();
    corrupt(&objects(&folder)[0]);
    let json = vendor().good().json();
    assert_eq!((json["present"]["packages"].as_u64(), json["fetched"]["packages"].as_u64()), (Some(0), Some(2)));
    assert_eq!(vendor().good().json()["present"]["packages"], 2);
}

#[test]
fn what_the_store_has_is_copied_without_a_network_unless_it_is_damaged() {
    let workshop = Workshop::new([deb("tool", "1"), deb("lib", "1")]);
    let recipe = workshop.recipe("\"tool\", \"lib\"");
    workshop.run(&["lock", &recipe]).good();
    let (first, second) = (workshop.path("first"), workshop.path("second"));
    let [first_text, second_text] = [&first, &second].map(|path| path.to_str().unwrap());
    workshop.run(&["vendor", first_text, &recipe]).good();
    let offline = ["vendor", second_text, &recipe, "--offline", "--store", first_text, "--json"];
    assert_eq!(workshop.run(&offline).good().json()["copied"]["packages"], 2);
    remove(&second);
    corrupt(&objects(&first)[0]);
    let run = workshop.run(&offline);
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    assert_eq!(objects(&second).len(), 1, "what was good is there, and goes on from there");
    let json = workshop.run(&["vendor", second_text, &recipe, "--json"]).good().json();
    assert_eq!((json["present"]["packages"].as_u64(), json["fetched"]["packages"].as_u64()), (Some(1), Some(1)));
}

#[test]
fn a_folder_of_other_things_and_a_recipe_without_a_lock_are_refused() {
    let workshop = Workshop::new([deb("tool", "1")]);
    let recipe = workshop.recipe("\"tool\"");
    let folder = workshop.directory.path().to_str().unwrap();
    let other = workshop.path("usb");
    assert_eq!(workshop.run(&["vendor", other.to_str().unwrap(), &recipe]).code, Some(3));
    assert!(!other.exists());
    workshop.run(&["lock", &recipe]).good();
    let run = workshop.run(&["vendor", folder, &recipe]);
    assert_eq!(run.code, Some(4));
    assert!(run.stderr.contains("is not empty and no store"), "{}", run.stderr);
    assert!(!workshop.path("objects").exists());
    assert_eq!(workshop.run(&["vendor", other.to_str().unwrap()]).code, Some(2));
}
