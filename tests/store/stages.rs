//! Results of stages: made once, found by their key, never half of one.

use super::*;

#[test]
fn a_stage_is_built_once_and_found_by_its_key() {
    let bench = Bench::new();
    let first = bench.store().build_stage(&key("a"), write_result("made of a")).unwrap();
    assert!(!first.cached);
    let again = bench.store().build_stage(&key("a"), |_| -> Result<(), StoreError> { panic!("built again") }).unwrap();
    assert_eq!((&again.path, again.cached), (&first.path, true));
    assert_eq!(std::fs::read(again.path.join("result")).unwrap(), b"made of a");
    assert_eq!(bench.store().stage(&key("b")).unwrap(), None);
}

#[test]
fn keys_differ_by_name_label_and_value_and_by_where_they_are_cut() {
    let keys = [
        StageKey::new("unpack"),
        StageKey::new("pack"),
        StageKey::new("unpack").with("ab", b"c"),
        StageKey::new("unpack").with("a", b"bc"),
        StageKey::new("unpack").with("a", b"b").with("c", b""),
        StageKey::new("unpack").with("a", b"").with("b", b"c"),
    ];
    let digests: BTreeSet<_> = keys.iter().map(StageKey::digest).collect();
    assert_eq!(digests.len(), keys.len());
}

#[test]
fn a_stage_that_fails_leaves_nothing() {
    let bench = Bench::new();
    let store = bench.store();
    let result = store.build_stage(&key("a"), |directory| {
        std::fs::write(directory.join("half"), b"").unwrap();
        Err(StoreError::Absent { digest: Digest::of(b"") })
    });
    assert!(matches!(result, Err(StoreError::Absent { .. })));
    assert_eq!(store.stage(&key("a")).unwrap(), None);
    assert_eq!(entries(&bench.store_path().join("locks")), [] as [PathBuf; 0]);
    store.build_stage(&key("a"), write_result("whole")).unwrap();
}

#[test]
fn the_lock_of_a_builder_that_is_gone_is_removed_and_that_of_a_living_one_stays() {
    let bench = Bench::new();
    let store = bench.store();
    let left = |name: &str| bench.store_path().join("locks").join(name);
    std::fs::write(left("test-gone"), b"").unwrap();
    let held = std::fs::File::create(left("test-held")).unwrap();
    held.lock().unwrap();
    let opened_again = bench.store();
    assert_eq!(entries(&bench.store_path().join("locks")), [left("test-held")]);
    drop((store, opened_again));
}

#[test]
fn a_result_of_another_boot_counts_only_once_settled() {
    let bench = Bench::new();
    let pretend_reboot = |result: &Path| {
        let seal = result.parent().unwrap().join("seal");
        let text = std::fs::read_to_string(&seal).unwrap();
        if text.starts_with("boot ") {
            std::fs::write(&seal, "boot 00000000-0000-0000-0000-000000000000\n").unwrap();
        }
    };
    let store = bench.store();
    let first = store.build_stage(&key("a"), write_result("1")).unwrap();
    pretend_reboot(&first.path);
    assert_eq!(store.stage(&key("a")).unwrap(), None);
    let second = store.build_stage(&key("a"), write_result("2")).unwrap();
    assert!(!second.cached);
    assert_eq!(std::fs::read(second.path.join("result")).unwrap(), b"2");
    store.settle().unwrap();
    pretend_reboot(&second.path);
    assert_eq!(bench.store().stage(&key("a")).unwrap(), Some(second.path));
}

#[test]
fn threads_that_want_a_stage_share_the_work() {
    let bench = Bench::new();
    let store = bench.store();
    let built = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let result = store.build_stage(&key("a"), |directory| {
                    built.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(30));
                    write_result("x")(directory)
                });
                assert_eq!(std::fs::read(result.unwrap().path.join("result")).unwrap(), b"x");
            });
        }
    });
    assert_eq!(built.into_inner(), 1);
}

#[test]
fn workspaces_vanish_with_their_value_and_sessions_with_their_store() {
    let bench = Bench::new();
    let store = bench.store();
    let workspace = store.workspace().unwrap();
    let path = workspace.path();
    std::fs::write(path.join("file"), b"x").unwrap();
    drop(workspace);
    assert!(!path.exists());
    let forgotten = store.workspace().unwrap();
    std::mem::forget(forgotten.path());
    drop(forgotten);
    assert_eq!(entries(&bench.store_path().join("sessions")).len(), 1);
    drop(store);
    assert_eq!(entries(&bench.store_path().join("sessions")), [] as [PathBuf; 0]);
    assert_eq!(entries(&bench.store_path().join("trash")), [] as [PathBuf; 0]);
}

#[test]
fn what_cannot_be_deleted_does_not_hinder_opening_and_is_offered_to_a_remover() {
    let bench = Bench::new();
    let store = bench.store();
    // A directory in place of a foreign user's: what is mounted on cannot be removed, not even by root. Without
    // that right, one without permissions does.
    let dead = store.directory().join("trash").join("1-0");
    std::fs::create_dir_all(dead.join("inner")).unwrap();
    std::fs::write(dead.join("inner/file"), b"").unwrap();
    let lock = Immutable::make(&dead.join("inner"));
    let Some(lock) = lock else { return crate::support::oracle::skip("this file system knows no immutable flag") };
    drop(store);
    let store = bench.store();
    assert!(dead.exists());
    let refused = store.empty_trash(&|_| Err(std::io::ErrorKind::PermissionDenied.into()));
    assert!(matches!(refused, Err(StoreError::Write { .. })));
    let lock = Mutex::new(Some(lock));
    store
        .empty_trash(&|path| {
            drop(lock.lock().unwrap().take());
            std::fs::remove_dir_all(path)
        })
        .unwrap();
    assert!(!dead.exists());
}

/// A directory from which nothing can be removed: by mode for ordinary users, by chattr(1) for root.
struct Immutable(PathBuf);

impl Immutable {
    fn make(path: &Path) -> Option<Self> {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o500)).unwrap();
        if nix::unistd::geteuid().is_root() {
            let mut chattr = crate::support::oracle::oracle("chattr")?;
            chattr.arg("+i").arg(path).stderr(Stdio::null()).status().ok().filter(|status| status.success())?;
        }
        Some(Self(path.to_owned()))
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        use std::os::unix::fs::PermissionsExt;
        if nix::unistd::geteuid().is_root() {
            let _ = Command::new("chattr").arg("-i").arg(&self.0).status();
        }
        let _ = std::fs::set_permissions(&self.0, std::fs::Permissions::from_mode(0o700));
    }
}

#[test]
fn results_that_were_used_last_come_first_and_count_only_if_sealed() {
    let bench = Bench::new();
    let store = bench.store();
    let made: Vec<_> = ["a", "b", "c"]
        .map(|name| (key(name).digest(), store.build_stage(&key(name), write_result(name)).unwrap()))
        .into();
    let seal = |number: usize| made[number].1.directory().join("seal");
    for (number, age) in [(0, 300), (1, 100), (2, 200)] {
        let time = std::time::SystemTime::now() - Duration::from_secs(age);
        std::fs::File::open(seal(number)).unwrap().set_modified(time).unwrap();
    }
    let recent = |limit| {
        let results = store.recent_stage_results(key("a").name(), limit).unwrap();
        results
            .into_iter()
            .map(|(digest, _)| made.iter().position(|(key, _)| *key == digest).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!((recent(9), recent(2)), (vec![1, 2, 0], vec![1, 2]));
    store.note_stage_use(key("a").name(), &made[0].0).unwrap();
    assert_eq!(recent(9), [0, 1, 2]);
    std::fs::write(seal(1), "boot 00000000-0000-0000-0000-000000000000\n").unwrap();
    assert_eq!(recent(9), [0, 2]);
    assert_eq!(store.recent_stage_results("nothing", 9).unwrap(), []);
}
