//! What `collect` removes, and what it spares.

use super::*;

/// Sets a thing's last use to so many days ago.
fn age(path: &Path, days: u64) {
    let time = std::time::SystemTime::now() - Duration::from_secs(days * 24 * 3600);
    std::fs::File::open(path).unwrap().set_modified(time).unwrap();
}

fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 3600)
}

/// A store with four objects of 4096 bytes, last used 1, 2, 3 and 4 days ago.
fn aged(bench: &Bench) -> Vec<Digest> {
    let store = bench.store();
    let mut digests = Vec::new();
    for index in 1..=4_u8 {
        let digest = store.insert(&mut vec![index; 4096].as_slice(), None).unwrap();
        age(&store.object_path(&digest), index.into());
        digests.push(digest);
    }
    digests
}

fn left(store: &Store, digests: &[Digest]) -> Vec<bool> {
    digests.iter().map(|digest| store.object_path(digest).exists()).collect()
}

#[test]
fn collect_removes_what_was_not_used_for_long() {
    let bench = Bench::new();
    let digests = aged(&bench);
    let store = bench.store();
    let result = store.build_stage(&key("a"), write_result("x")).unwrap();
    age(&result.path.parent().unwrap().join("seal"), 5);
    let limits = Limits { age: Some(days(3) - Duration::from_secs(60)), ..Limits::default() };
    let removed = store.collect(&limits, &BTreeSet::new()).unwrap().total();
    assert_eq!(removed.count, 3);
    assert_eq!(left(&store, &digests), [true, true, false, false]);
    assert_eq!(store.stage(&key("a")).unwrap(), None);
    assert_eq!(entries(&bench.store_path().join("trash")), [] as [PathBuf; 0]);
}

#[test]
fn collect_makes_room_from_the_least_recently_used_on() {
    let bench = Bench::new();
    let digests = aged(&bench);
    let store = bench.store();
    assert_eq!(store.usage().unwrap().objects, Amount { count: 4, bytes: 4 * 4096 });
    let limits = Limits { bytes: Some(2 * 4096 + 1), ..Limits::default() };
    let removed = store.collect(&limits, &BTreeSet::new()).unwrap().total();
    assert_eq!(removed, Amount { count: 2, bytes: 2 * 4096 });
    assert_eq!(left(&store, &digests), [true, true, false, false]);
}

#[test]
fn collect_spares_what_is_to_be_kept_and_what_a_living_session_uses() {
    let bench = Bench::new();
    let digests = aged(&bench);
    let running = bench.store();
    assert!(running.contains(&digests[3], 4096).unwrap());
    let nothing = Limits { bytes: Some(0), age: Some(Duration::ZERO) };
    let collector = bench.store();
    collector.collect(&nothing, &[digests[1]].into()).unwrap();
    assert_eq!(left(&collector, &digests), [false, true, false, true]);
    drop(running);
    age(&collector.object_path(&digests[3]), 1);
    collector.collect(&nothing, &BTreeSet::new()).unwrap();
    assert_eq!(left(&collector, &digests), [false; 4]);
}

#[test]
fn a_use_is_noted() {
    let bench = Bench::new();
    let digests = aged(&bench);
    let store = bench.store();
    store.open_object(&digests[3]).unwrap();
    let limits = Limits { bytes: Some(4096), ..Limits::default() };
    store.collect(&limits, &BTreeSet::new()).unwrap();
    assert_eq!(left(&store, &digests), [false, false, false, true]);
}

#[test]
fn collect_without_limits_removes_only_litter() {
    let bench = Bench::new();
    let digests = aged(&bench);
    let store = bench.store();
    let (old, new) = (bench.file("old.deb", 10), bench.file("new.deb", 10));
    std::fs::write(bench.partial(&old), b"x").unwrap();
    std::fs::write(bench.partial(&new), b"x").unwrap();
    age(&bench.partial(&old), 8);
    store.collect(&Limits::default(), &BTreeSet::new()).unwrap();
    assert_eq!(left(&store, &digests), [true; 4]);
    assert_eq!((bench.partial(&old).exists(), bench.partial(&new).exists()), (false, true));
}
