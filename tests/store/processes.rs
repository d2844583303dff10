//! Several processes with one store, some of them killed.

use super::*;

/// This test program again, as another process that does what `ADAMANT_TEST_STORE_CHILD` says.
pub(super) fn child(bench: &Bench, action: &str, count: usize) -> Child {
    child_command(bench, action, count).spawn().unwrap()
}

pub(super) fn child_command(bench: &Bench, action: &str, count: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "store::processes::child_process", "--nocapture"])
        .env("ADAMANT_TEST_STORE_CHILD", action)
        .env("ADAMANT_TEST_STORE", bench.store_path())
        .env("ADAMANT_TEST_MIRROR", bench.server.url())
        .env("ADAMANT_TEST_COUNT", count.to_string())
        .stdout(Stdio::null());
    command
}

pub(super) const CHILD_FILE_SIZE: usize = 40_000;

pub(super) fn child_requests(count: usize) -> Vec<Request> {
    (0..count)
        .map(|index| format!("{index}.deb"))
        .map(|path| request(&path, &content(&path, CHILD_FILE_SIZE)))
        .collect()
}

/// The body of the processes that other cases start; by itself it has nothing to do.
#[test]
fn child_process() {
    let Ok(action) = std::env::var("ADAMANT_TEST_STORE_CHILD") else { return };
    let of = |name: &str| std::env::var(name).unwrap();
    let store = Store::open(Path::new(&of("ADAMANT_TEST_STORE"))).unwrap();
    let count: usize = of("ADAMANT_TEST_COUNT").parse().unwrap();
    match action.as_str() {
        "fetch" => {
            let mirrors = Mirrors::from_values(&[of("ADAMANT_TEST_MIRROR")], Origin::Argument).unwrap();
            Fetcher::new(store, mirrors, Options { stall_timeout: Duration::from_secs(20), ..hasty() })
                .fetch(&child_requests(count), &Silent)
                .unwrap();
        }
        "stages" => {
            for index in 0..count {
                let result = store.build_stage(&key(&index.to_string()), |directory| -> Result<(), StoreError> {
                    for file in 0..20 {
                        std::fs::write(directory.join(file.to_string()), index.to_string()).unwrap();
                    }
                    Ok(())
                });
                let files = entries(&result.unwrap().path);
                assert_eq!(files.len(), 20);
            }
        }
        other => panic!("{other}"),
    }
}

pub(super) fn served_for_children(bench: &Bench, count: usize) {
    for request in child_requests(count) {
        bench.file(&request.path, CHILD_FILE_SIZE);
    }
}

#[test]
fn processes_killed_at_any_moment_leave_a_good_store_and_useful_pieces() {
    const COUNT: usize = 60;
    let bench = Bench::new();
    served_for_children(&bench, COUNT);
    for index in 0..COUNT {
        bench.server.always(&format!("{index}.deb"), Fault::Slow(2_000));
    }
    let mut kills = 0;
    let mut delay = 60;
    loop {
        let mut process = child(&bench, "fetch", COUNT);
        std::thread::sleep(Duration::from_millis(delay));
        delay = 40 + (delay * 7) % 90;
        if let Some(status) = process.try_wait().unwrap() {
            assert!(status.success());
            break;
        }
        process.kill().unwrap();
        process.wait().unwrap();
        kills += 1;
        if kills % 5 == 0 {
            assert_eq!(bench.store().verify().unwrap(), []);
        }
        assert!(kills < 200, "no progress");
    }
    let store = bench.store();
    assert!(kills > 0);
    assert_eq!(store.verify().unwrap(), []);
    assert_eq!(store.objects().unwrap().len(), COUNT);
    assert!(bench.server.answered().iter().any(|answered| answered.range.is_some()), "nothing was resumed");
    assert_eq!(entries(&bench.store_path().join("partial")), [] as [PathBuf; 0]);
    assert_eq!(entries(&bench.store_path().join("trash")), [] as [PathBuf; 0]);
}

#[test]
fn processes_at_once_fetch_each_file_once() {
    const COUNT: usize = 80;
    let bench = Bench::new();
    served_for_children(&bench, COUNT);
    for index in 0..COUNT {
        bench.server.always(&format!("{index}.deb"), Fault::Slow(4_000));
    }
    let processes: Vec<_> = (0..3).map(|_| child(&bench, "fetch", COUNT)).collect();
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    bench.server.answered().into_iter().for_each(|answered| *counts.entry(answered.path).or_default() += 1);
    assert_eq!(counts.len(), COUNT);
    assert!(counts.values().all(|&count| count == 1), "{counts:?}");
    assert_eq!(bench.store().verify().unwrap(), []);
}

#[test]
fn stages_survive_kills_and_are_shared_by_processes() {
    const COUNT: usize = 300;
    let bench = Bench::new();
    for round in 0..15 {
        let mut processes: Vec<_> = (0..2).map(|_| child(&bench, "stages", COUNT)).collect();
        std::thread::sleep(Duration::from_millis(10 + round * 5));
        for process in &mut processes {
            process.kill().unwrap();
        }
        for process in &mut processes {
            process.wait().unwrap();
        }
    }
    let mut processes: Vec<_> = (0..2).map(|_| child(&bench, "stages", COUNT)).collect();
    for process in &mut processes {
        assert!(process.wait().unwrap().success());
    }
    let store = bench.store();
    for index in 0..COUNT {
        let path = store.stage(&key(&index.to_string())).unwrap().unwrap();
        assert_eq!(entries(&path).len(), 20);
        assert!(entries(&path).iter().all(|file| std::fs::read_to_string(file).unwrap() == index.to_string()));
    }
    assert_eq!(entries(&bench.store_path().join("sessions")).len(), 1);
    assert_eq!(entries(&bench.store_path().join("trash")), [] as [PathBuf; 0]);
}

#[test]
fn the_umask_changes_nothing() {
    use std::os::unix::fs::MetadataExt;
    let modes = |umask: u32| -> Vec<(PathBuf, u32)> {
        let bench = Bench::new();
        served_for_children(&bench, 2);
        let script = format!("umask {umask:03o}; exec \"$0\" --exact store::processes::child_process");
        for action in ["fetch", "stages"] {
            let status = Command::new("/bin/sh")
                .args(["-c", &script])
                .arg(std::env::current_exe().unwrap())
                .env("ADAMANT_TEST_STORE_CHILD", action)
                .env("ADAMANT_TEST_STORE", bench.store_path())
                .env("ADAMANT_TEST_MIRROR", bench.server.url())
                .env("ADAMANT_TEST_COUNT", "2")
                .stdout(Stdio::null())
                .status();
            assert!(status.unwrap().success());
        }
        let mut found = Vec::new();
        let mut queue = vec![bench.store_path()];
        while let Some(path) = queue.pop() {
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            let relative = path.strip_prefix(bench.store_path()).unwrap().to_owned();
            // What is in a result is the stage's own business.
            if metadata.is_dir() && !relative.ends_with("content") {
                queue.extend(entries(&path));
            }
            found.push((relative, metadata.mode()));
        }
        found.sort();
        found
    };
    assert_eq!(modes(0o077), modes(0o000));
}

#[test]
fn a_full_disk_is_told_and_the_fetch_goes_on_when_there_is_room() {
    if !crate::support::oracle::root() {
        return;
    }
    let bench = Bench::new();
    let request = bench.file("a.deb", 3_000_000);
    let mount_point = bench.store_path();
    std::fs::create_dir(&mount_point).unwrap();
    let mount = |options: &str, flags| {
        let none: Option<&str> = None;
        nix::mount::mount(Some("tmpfs"), &mount_point, Some("tmpfs"), flags, Some(options)).map_err(|_| none)
    };
    if mount("size=1m", nix::mount::MsFlags::empty()).is_err() {
        return crate::support::oracle::skip("cannot mount a tmpfs");
    }
    let mounted = Mounted(mount_point.clone());
    let error = bench.fetch(&request).unwrap_err();
    assert!(matches!(&error, FetchError::Store(StoreError::Full { .. })), "{error:?}");
    assert!(error.to_string().contains("free some room"), "{error}");
    assert_eq!(bench.store().verify().unwrap(), []);
    let before = bench.server.answered().len();
    mount("size=16m", nix::mount::MsFlags::MS_REMOUNT).unwrap();
    assert_eq!(bench.fetch(&request).unwrap(), content("a.deb", 3_000_000));
    assert!(bench.server.answered()[before].range.is_some_and(|first| first > 500_000));
    drop(mounted);
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}
