//! Builds that are killed or interrupted.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use rand::{Rng, SeedableRng};

use crate::support::host_user::HostUser;
use crate::support::mounts::{in_own_mounts, little_memory};
use crate::support::oracle::{root, skip};
use crate::support::workshop::{Archived, Ended, Workshop};

/// How long a build takes here and now.
fn duration(workshop: &Workshop) -> Duration {
    workshop.archived.reference();
    let started = Instant::now();
    assert!(workshop.build().output().unwrap().status.success());
    started.elapsed()
}

fn start(workshop: &Workshop) -> Child {
    workshop.build().stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap()
}

/// Processes that have the workshop's path among their arguments.
fn processes(workshop: &Workshop) -> Vec<String> {
    let path = workshop.directory.path().to_str().unwrap().to_owned();
    let command = |entry: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        let text = String::from_utf8_lossy(&text).replace('\0', " ");
        text.contains(&path).then_some(text)
    };
    std::fs::read_dir("/proc").unwrap().filter_map(command).collect()
}

/// All processes of the workshop's builds end within moments, and no mount stays.
#[track_caller]
pub(super) fn assert_nothing_lives(workshop: &Workshop) {
    let started = Instant::now();
    while !processes(workshop).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", processes(workshop));
        std::thread::sleep(Duration::from_millis(5));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(workshop.directory.path().to_str().unwrap()));
}

/// There is no image, or the whole one.
#[track_caller]
fn assert_nothing_half_made(workshop: &Workshop) {
    if let Some(image) = workshop.image() {
        assert_eq!(&image, workshop.archived.reference());
    }
}

#[test]
fn killed_at_any_moment_a_build_leaves_a_good_store_and_the_next_one_makes_the_same() {
    let Some(archived) = Archived::shared() else { return };
    let whole = duration(&Workshop::of(&archived));
    std::thread::scope(|scope| {
        for chain in 0..5 {
            let archived = &archived;
            scope.spawn(move || {
                let mut random = rand::rngs::StdRng::seed_from_u64(chain);
                let workshop = Workshop::of(archived);
                for _ in 0..5 {
                    let mut child = start(&workshop);
                    std::thread::sleep(whole.mul_f64(random.gen_range(0.0..1.1)));
                    child.kill().unwrap();
                    child.wait().unwrap();
                    assert_nothing_half_made(&workshop);
                    assert_nothing_lives(&workshop);
                    workshop.assert_store_is_good();
                }
                workshop.assert_builds_the_same();
                assert_nothing_is_littered(&workshop);
            });
        }
    });
}

#[test]
fn what_a_killed_build_of_an_ordinary_user_left_for_its_other_ids_is_removed_by_the_next_one() {
    if !root() {
        return;
    }
    let Some(workshop) = Workshop::new() else { return };
    let user = HostUser::new("kill");
    if !user.has_subordinate_ids() {
        return skip("useradd gives no subordinate ids");
    }
    user.give(workshop.directory.path());
    let whole = duration(&Workshop::of(&workshop.archived));
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let mut owned = 0;
    in_own_mounts(|| {
        little_memory();
        for number in 0..8 {
            let mut build = workshop.build();
            let mut child =
                build.uid(user.uid).gid(user.gid).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            match number % 2 {
                0 => wait_for_foreign_files(&workshop, user.uid, &mut child),
                _ => std::thread::sleep(whole.mul_f64(random.gen_range(0.2..1.1))),
            }
            child.kill().unwrap();
            child.wait().unwrap();
            assert_nothing_lives(&workshop);
            assert_nothing_half_made(&workshop);
            owned += usize::from(has_foreign_files(&workshop.path("store"), user.uid));
        }
        Ended::of(workshop.build().uid(user.uid).gid(user.gid)).expect(0, &[]);
    });
    assert!(owned > 0);
    assert_eq!(workshop.image().as_ref(), Some(workshop.archived.reference()));
    assert_nothing_is_littered(&workshop);
    workshop.assert_store_is_good();
}

/// Until scripts have made files for other ids, or the build ends.
fn wait_for_foreign_files(workshop: &Workshop, uid: u32, child: &mut Child) {
    while !has_foreign_files(&workshop.path("store/sessions"), uid) && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether anything in the directory belongs to somebody else.
fn has_foreign_files(directory: &Path, uid: u32) -> bool {
    let foreign = |path: &Path| std::fs::symlink_metadata(path).is_ok_and(|status| status.uid() != uid);
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    foreign(directory)
        || entries.into_iter().any(|path| foreign(&path) || path.is_dir() && has_foreign_files(&path, uid))
}

#[test]
fn interrupted_at_any_moment_a_build_ends_at_once_and_leaves_nothing() {
    let Some(archived) = Archived::shared() else { return };
    let whole = duration(&Workshop::of(&archived));
    let mut random = rand::rngs::StdRng::seed_from_u64(99);
    let workshop = Workshop::of(&archived);
    let mut interrupted = 0;
    for number in 0..16 {
        let (signal, code) = [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)][number % 3];
        let mut child = start(&workshop);
        std::thread::sleep(Duration::from_millis(10) + whole.mul_f64(random.gen_range(0.0..1.0)));
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        // A terminal tells the whole group, a service manager perhaps only the first process.
        match number % 4 < 2 {
            true => killpg(pid, signal).unwrap(),
            false => kill(pid, signal).unwrap(),
        }
        let started = Instant::now();
        let status = child.wait().unwrap();
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        assert_nothing_lives(&workshop);
        workshop.assert_store_is_good();
        if status.code() == Some(0) {
            std::fs::remove_dir_all(workshop.path("out")).unwrap();
            std::fs::remove_dir_all(workshop.path("store")).unwrap();
            continue;
        }
        interrupted += 1;
        assert_eq!((status.code(), status.signal()), (Some(code), None));
        assert_nothing_half_made(&workshop);
        let left: Vec<_> = workshop.outputs().into_iter().filter(|name| name != "tiny").collect();
        assert_eq!(left, [] as [String; 0]);
        let _ = std::fs::remove_dir_all(workshop.path("out"));
    }
    assert!(interrupted > 5);
    workshop.assert_builds_the_same();
    assert_nothing_is_littered(&workshop);
}

#[test]
fn a_build_that_waits_for_another_one_goes_on_when_that_is_killed() {
    let Some(archived) = Archived::shared() else { return };
    let whole = duration(&Workshop::of(&archived));
    for part in [0.2, 0.4, 0.6] {
        let workshop = Workshop::of(&archived);
        let mut first = start(&workshop);
        std::thread::sleep(whole.mul_f64(part / 2.0));
        let mut second = start(&workshop);
        std::thread::sleep(whole.mul_f64(part / 2.0));
        first.kill().unwrap();
        first.wait().unwrap();
        assert_eq!(second.wait().unwrap().code(), Some(0));
        assert_eq!(workshop.image().as_ref(), Some(archived.reference()));
        workshop.assert_store_is_good();
        workshop.assert_builds_the_same();
        assert_nothing_is_littered(&workshop);
    }
}

#[test]
fn signals_that_are_ignored_stay_ignored() {
    let Some(workshop) = Workshop::new() else { return };
    let whole = duration(&workshop);
    let build = workshop.build();
    let mut shell = Command::new("/bin/sh");
    // As nohup(1) does, and shells for jobs in the background.
    shell.args(["-c", "trap '' HUP INT; exec \"$0\" \"$@\""]).arg(build.get_program()).args(build.get_args());
    let mut child = shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(whole.mul_f64(0.3));
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    for signal in [Signal::SIGHUP, Signal::SIGINT] {
        kill(pid, signal).unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// After a build that went well nothing is left of those before.
#[track_caller]
pub(super) fn assert_nothing_is_littered(workshop: &Workshop) {
    assert_eq!(workshop.outputs(), ["tiny"]);
    assert_eq!(workshop.beside_recipe(), ["archive.asc", "issue", "tiny.lock", "tiny.toml"]);
    for folder in ["sessions", "trash", "partial", "locks", "quarantine"] {
        let entries = std::fs::read_dir(workshop.path("store").join(folder)).unwrap();
        assert_eq!(entries.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), [""; 0], "{folder}");
    }
}
