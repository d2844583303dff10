//! `build --check`: what does not come out twice is found, with who wrote it; what does is said to, and nothing stays.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::interrupted::{assert_nothing_is_littered, assert_nothing_lives};
use crate::support::host_user::HostUser;
use crate::support::oracle::{root, skip};
use crate::support::packages::Package;
use crate::support::workshop::{Archived, Ended, Workshop};

/// A package whose script writes what `command` prints.
fn writer(name: &str, command: &str) -> Package {
    Package::new(name, "").control_file("postinst", &format!("{command} > /var/lib/{name}\n"))
}

const REQUESTED: &str = "packages = [\"linux-image-test\", \"greeter\"]";

/// A workshop whose recipe has these packages of its own.
fn workshop(packages: &[Package], names: &[&str]) -> Option<Workshop> {
    let Some(archived) = Archived::with(packages) else {
        skip("dpkg, tar or another program of the base is not installed");
        return None;
    };
    let workshop = Workshop::of(&archived);
    let names = names.iter().map(|name| format!(", \"{name}\"")).collect::<String>();
    workshop.edit(REQUESTED, &format!("{}{names}]", REQUESTED.trim_end_matches(']')));
    Some(workshop)
}

#[test]
fn what_is_not_the_same_twice_is_named_with_its_script() {
    let mut order = writer("order", "ls -U /usr/share/order");
    for number in 0..40 {
        order = order.file(&format!("usr/share/order/{}", number * 7919 % 1000), 0o644, "");
    }
    let steady = "{ uname -n; umask; id; pwd; echo \"$TZ $LANG $LC_ALL $HOME $PATH $USER\"; ls /usr/share/order; }";
    let packages = [
        writer("year", "date +%Y"),
        writer("random", "cat /proc/sys/kernel/random/uuid"),
        writer("processors", "nproc"),
        writer("number", "echo $$"),
        order,
        writer("steady", steady),
    ];
    let Some(workshop) = workshop(&packages, &["year", "random", "processors", "number", "order", "steady"]) else {
        return;
    };
    let ended = Ended::of(&mut workshop.build_with(&["--check", "--json"]));
    ended.expect(5, &["the second build made other bits"]);
    let built: Value = serde_json::from_str(&ended.stdout).unwrap();
    let check = &built["check"];
    assert_eq!(check["same"], false);
    let variations = check["variations"].as_array().unwrap();
    let varied = |what: &str| variations.iter().any(|one| one["what"] == what && one["varied"] == true);
    let mut expected = vec!["random"];
    expected.extend(varied("clock").then_some("year"));
    expected.extend(["processors", "number"].into_iter().filter(|_| varied("processors")));
    expected.extend(varied("directory order").then_some("order"));
    expected.sort_unstable();
    let files: Vec<_> = check["discrepancy"]["files"].as_array().unwrap().iter().collect();
    let paths: Vec<_> = files.iter().map(|file| file["path"].as_str().unwrap().to_owned()).collect();
    assert_eq!(paths, expected.iter().map(|name| format!("/var/lib/{name}")).collect::<Vec<_>>());
    for (file, name) in files.iter().zip(expected) {
        assert_eq!(file["partition"], "root");
        assert_eq!(file["writer"], format!("postinst of {name}"));
        assert_ne!(file["bytes"]["first"], file["bytes"]["second"]);
    }
    let partitions: Vec<_> = check["discrepancy"]["partitions"].as_array().unwrap().iter().collect();
    let names: Vec<_> = partitions.iter().map(|part| part["name"].as_str().unwrap()).collect();
    // The root hash is on the command line.
    assert_eq!(names, ["esp", "root", "root-verity"]);
    let ended = Ended::of(&mut workshop.build_with(&["--check"]));
    ended.expect(5, &[]);
    assert!(ended.stdout.contains("root /var/lib/random (postinst of random): other bytes\n  from byte "));
    assert_nothing_is_littered(&workshop);
}

#[test]
fn an_image_that_is_the_same_twice_is_said_to_be() {
    let Some(workshop) = Workshop::new() else { return };
    Ended::of(&mut workshop.build()).expect(0, &[]);
    let stages = || {
        let kinds = fs::read_dir(workshop.path("store/stages")).unwrap().map(|kind| kind.unwrap().path());
        let mut names: Vec<_> =
            kinds.flat_map(|kind| fs::read_dir(kind).unwrap()).map(|one| one.unwrap().path()).collect();
        names.sort();
        names
    };
    let before = stages();
    let ended = Ended::of(&mut workshop.build_with(&["--check"]));
    ended.expect(0, &[]);
    assert!(ended.stdout.contains("built a second time, the same bits; varied: user, host name"), "{}", ended.stdout);
    // Nothing of the second build is kept, and the first one's image is untouched.
    assert_eq!(stages(), before);
    assert_eq!(workshop.image().as_ref(), Some(workshop.archived.reference()));
    assert_nothing_is_littered(&workshop);
    workshop.assert_store_is_good();
}

#[test]
fn an_ordinary_user_checks_as_another_one() {
    if !root() {
        return;
    }
    let Some(workshop) = Workshop::new() else { return };
    let user = HostUser::new("check");
    if !user.has_subordinate_ids() {
        return skip("useradd gives no subordinate ids");
    }
    user.give(workshop.directory.path());
    let ended = Ended::of(workshop.build_with(&["--check", "--json"]).uid(user.uid).gid(user.gid));
    ended.expect(0, &[]);
    let built: Value = serde_json::from_str(&ended.stdout).unwrap();
    let first = &built["check"]["variations"][0];
    assert_eq!((first["what"].as_str(), first["varied"].as_bool()), (Some("user"), Some(true)));
    assert!(first["how"].as_str().unwrap().ends_with(&format!("in place of {}", user.uid)), "{first}");
    assert_eq!(workshop.image().as_ref(), Some(workshop.archived.reference()));
    assert_nothing_is_littered(&workshop);
}

#[test]
fn a_script_that_fails_elsewhere_is_a_failed_check() {
    let script = "test \"$(nproc)\" != 1 || { echo lonely >&2; exit 3; }\n";
    let package = Package::new("sociable", "").control_file("postinst", script);
    let Some(workshop) = workshop(&[package], &["sociable"]) else { return };
    if std::thread::available_parallelism().map_or(1, |count| count.get()) == 1 {
        return;
    }
    let ended = Ended::of(&mut workshop.build_with(&["--check"]));
    ended.expect(5, &["but not a second time under other circumstances", "sociable", "lonely"]);
    // The image itself is good.
    assert!(workshop.image().is_some());
    assert_nothing_is_littered(&workshop);
}

#[test]
fn an_interrupted_or_killed_check_leaves_nothing() {
    let Some(workshop) = Workshop::new() else { return };
    Ended::of(&mut workshop.build()).expect(0, &[]);
    for (number, wait_ms) in [150, 400, 900, 1600].into_iter().enumerate() {
        let mut command = workshop.build_with(&["--check"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait_ms));
        match number % 2 {
            0 => child.kill().unwrap(),
            _ => {
                let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
            }
        }
        child.wait().unwrap();
        assert_nothing_lives(&workshop);
        assert_eq!(workshop.image().as_ref(), Some(workshop.archived.reference()));
    }
    Ended::of(&mut workshop.build()).expect(0, &[]);
    assert_nothing_is_littered(&workshop);
    workshop.assert_store_is_good();
}
