//! Same inputs, same bits: whoever builds, wherever, with whatever environment, however many at once.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::support::host_user::HostUser;
use crate::support::oracle::{root, skip};
use crate::support::workshop::{Ended, Workshop, image_in};

/// `command`, started by a shell that has set this umask.
fn with_umask(umask: &str, command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("umask {umask} && exec \"$0\" \"$@\"")]).arg(command.get_program());
    shell.args(command.get_args()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.current_dir(command.get_current_dir().unwrap());
    shell
}

#[test]
fn umask_time_zone_language_and_directory_change_nothing() {
    for (umask, zone, language, directory) in
        [("077", "Pacific/Kiritimati", "de_DE.UTF-8", "/"), ("000", ":/nowhere", "C", "/tmp")]
    {
        let Some(workshop) = Workshop::new() else { return };
        let mut command = with_umask(umask, workshop.build().current_dir(directory));
        command.env("TZ", zone).env("LANG", language).env("LC_ALL", language).env("SOURCE_DATE_EPOCH", "1");
        command.env("PATH", std::env::var_os("PATH").unwrap());
        Ended::of(&mut command).expect(0, &[]);
        assert_eq!(workshop.image().as_ref(), Some(workshop.archived.reference()), "umask {umask}");
        workshop.assert_store_is_good();
    }
}

#[test]
fn an_ordinary_user_makes_the_bits_of_root() {
    if !root() {
        return;
    }
    let Some(workshop) = Workshop::new() else { return };
    let user = HostUser::new("bits");
    if !user.has_subordinate_ids() {
        return skip("useradd gives no subordinate ids");
    }
    user.give(workshop.directory.path());
    Ended::of(workshop.build().uid(user.uid).gid(user.gid)).expect(0, &[]);
    assert_eq!(workshop.image().as_ref(), Some(workshop.archived.reference()));
    Ended::of(workshop.build().uid(user.uid).gid(user.gid)).expect(0, &[]);
    workshop.assert_store_is_good();
}

#[test]
fn builds_at_once_into_one_store_share_it() {
    let Some(workshop) = Workshop::new() else { return };
    let builders: Vec<_> = (0..3)
        .map(|number| {
            let mut command = workshop.verb("build", &["--out"]);
            command.arg(workshop.path(&format!("out/{number}")));
            std::thread::spawn(move || Ended::of(&mut command))
        })
        .collect();
    for (number, builder) in builders.into_iter().enumerate() {
        builder.join().unwrap().expect(0, &[]);
        let image = image_in(&workshop.path(&format!("out/{number}")));
        assert_eq!(image.as_ref(), Some(workshop.archived.reference()));
    }
    workshop.assert_store_is_good();
}

#[test]
fn builds_at_once_into_one_place_leave_one_whole_image() {
    let Some(workshop) = Workshop::new() else { return };
    // With a warm store, so that they write their outputs at the same time.
    Ended::of(&mut workshop.build()).expect(0, &[]);
    std::fs::remove_dir_all(workshop.path("out")).unwrap();
    for _ in 0..3 {
        let builders: Vec<_> = (0..4)
            .map(|_| {
                let mut command = workshop.build();
                std::thread::spawn(move || Ended::of(&mut command))
            })
            .collect();
        for builder in builders {
            builder.join().unwrap().expect(0, &[]);
        }
        assert_eq!(workshop.image().as_ref(), Some(workshop.archived.reference()));
        assert_eq!(workshop.outputs(), ["tiny"]);
        std::fs::remove_dir_all(workshop.path("out")).unwrap();
    }
}
