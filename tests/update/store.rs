//! Making room in the store, and finding damage in it.

use super::vendor::{corrupt, objects};
use super::*;

/// A store with the packages `tool` and `lib` of a lock in it, and `idle` of none; nothing used for a day.
fn furnished() -> (Workshop, String) {
    let workshop = Workshop::new([deb("tool", "1").depends("lib"), deb("lib", "1"), deb("idle", "1")]);
    let store = workshop.store();
    let recipe = workshop.recipe("\"idle\"");
    workshop.run(&["lock", &recipe, "--store", &store]).good();
    workshop.run(&["vendor", &store, &recipe]).good();
    let recipe = workshop.recipe("\"tool\"");
    workshop.run(&["lock", &recipe, "--store", &store]).good();
    workshop.run(&["vendor", &store, &recipe]).good();
    for object in objects(Path::new(&store)) {
        let day = std::time::SystemTime::now() - std::time::Duration::from_secs(86_400 + 60);
        fs::File::open(object).unwrap().set_modified(day).unwrap();
    }
    (workshop, store)
}

impl Workshop {
    fn store(&self) -> String {
        self.path("store").to_str().unwrap().to_owned()
    }
}

/// Names of the packages that the store has.
fn packages(store: &str) -> usize {
    objects(Path::new(store)).iter().filter(|path| fs::read(path).unwrap().starts_with(b"!<arch>")).count()
}

#[test]
fn what_takes_the_room_is_shown() {
    let (workshop, store) = furnished();
    let json = workshop.run(&["store", "--store", &store, "--json"]).good().json();
    assert_eq!((json["schema"].as_str(), json["packages"]["count"].as_u64()), (Some("adamant.store/1"), Some(3)));
    let count = json["objects"]["count"].as_u64().unwrap();
    assert!(count > 3, "indexes are objects too: {count}");
    let lock = fs::canonicalize(workshop.path("r.lock")).unwrap();
    assert_eq!(json["locks"], serde_json::json!([{ "path": lock, "packages": 2 }]));
    let text = workshop.run(&["store", "--store", &store]).good().stdout;
    assert!(text.contains(&format!("{} keeps 2 packages\n", lock.display())), "{text}");
}

#[test]
fn collection_spares_the_packages_of_locks_that_exist() {
    let (workshop, store) = furnished();
    let everything = ["gc", "--store", &store, "--max-size", "0", "--json"];
    let dry = workshop.run(&[&everything[..], &["--dry-run"]].concat()).good().json();
    assert_eq!((dry["schema"].as_str(), dry["dry_run"].as_bool()), (Some("adamant.gc/1"), Some(true)));
    assert_eq!(packages(&store), 3, "a rehearsal removes nothing");
    let json = workshop.run(&everything).good().json();
    assert_eq!((&json["removed"], &json["left"]), (&dry["removed"], &dry["left"]));
    assert_eq!((packages(&store), objects(Path::new(&store)).len()), (2, 2));
    fs::remove_file(workshop.path("r.lock")).unwrap();
    let json = workshop.run(&everything).good().json();
    assert_eq!((json["gone"].as_array().unwrap().len(), json["left"].as_u64()), (1, Some(0)));
    assert_eq!(objects(Path::new(&store)), [] as [PathBuf; 0]);
    assert_eq!(workshop.run(&everything).good().json()["gone"], serde_json::json!([]));
}

#[test]
fn a_lock_that_cannot_be_read_keeps_what_it_named_last() {
    let (workshop, store) = furnished();
    fs::write(workshop.path("r.lock"), "<<<<<<< a merge\n").unwrap();
    workshop.run(&["gc", "--store", &store, "--max-size", "0"]).good();
    assert_eq!(packages(&store), 2);
}

#[test]
fn collection_by_age_and_without_limits() {
    let (workshop, store) = furnished();
    let before = objects(Path::new(&store)).len();
    let run = workshop.run(&["gc", "--store", &store]).good();
    assert!(run.stdout.starts_with("removed 0 B, "), "{}", run.stdout);
    workshop.run(&["gc", "--store", &store, "--max-age", "2"]).good();
    assert_eq!(objects(Path::new(&store)).len(), before);
    workshop.run(&["gc", "--store", &store, "--max-age", "1"]).good();
    assert_eq!(objects(Path::new(&store)).len(), 2);
    assert_eq!(workshop.run(&["gc", "--store", &store, "--max-size", "large"]).code, Some(2));
}

#[test]
fn collection_spares_what_a_running_build_uses() {
    let (workshop, store) = furnished();
    fs::remove_file(workshop.path("r.lock")).unwrap();
    let running = adamant::store::Store::open(Path::new(&store)).unwrap();
    let used = running.objects().unwrap()[0];
    running.open_object(&used).unwrap();
    workshop.run(&["gc", "--store", &store, "--max-size", "0"]).good();
    assert_eq!(running.objects().unwrap(), [used]);
}

#[test]
fn damage_is_found_named_and_taken_out_once() {
    let (workshop, store) = furnished();
    workshop.run(&["store", "verify", "--store", &store]).good();
    let lock = adamant::lock::Lock::parse(&workshop.lock_text()).unwrap();
    let lib = &lock.sets["system"][0];
    let digest = lib.digest.to_string();
    corrupt(&Path::new(&store).join("objects/sha256").join(&digest[..2]).join(&digest[2..]));
    let run = workshop.run(&["store", "verify", "--store", &store]);
    assert_eq!(run.code, Some(5));
    assert!(run.stdout.starts_with(&format!("object {digest} (lib 1): moved to ")), "{}", run.stdout);
    assert!(run.stdout.ends_with(" 1 damaged\n"), "{}", run.stdout);
    let run = workshop.run(&["store", "verify", "--store", &store, "--json"]).good();
    assert_eq!(run.json()["damaged"], serde_json::json!([]));
    let json = workshop.run(&["vendor", &store, &workshop.recipe("\"tool\""), "--json"]).good().json();
    assert_eq!(json["fetched"]["packages"], 1);
}

#[test]
fn a_damaged_result_is_found_and_made_again() {
    let mut workshop = Workshop::new([deb("tool", "1").file("usr/bin/tool", 0o755, &[7; 5000])]);
    let (recipe, store) = (workshop.recipe("\"tool\""), workshop.store());
    workshop.run(&["lock", &recipe, "--store", &store]).good();
    workshop.replace([deb("tool", "2").file("usr/bin/tool", 0o755, &[8; 5000])]);
    // Unpacks the package, for its changelog.
    workshop.run(&["lock", &recipe, "--update", "--store", &store]).good();
    let unpack = Path::new(&store).join("stages/unpack");
    let result = fs::read_dir(&unpack).unwrap().next().unwrap().unwrap().path();
    workshop.run(&["store", "verify", "--store", &store]).good();
    let data = result.join("content/data");
    let mut bytes = fs::read(&data).unwrap();
    let at = bytes.windows(100).position(|window| window == [8; 100]).unwrap();
    bytes[at + 50] ^= 1;
    fs::write(&data, bytes).unwrap();
    let run = workshop.run(&["store", "verify", "--store", &store]);
    assert_eq!((run.code, run.stdout.lines().next()), (Some(5), Some("unpack of tool 2: removed")));
    assert!(!result.exists());
    workshop.run(&["store", "verify", "--store", &store]).good();
}
