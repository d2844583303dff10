//! A directory as cache.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::{
    Commons, PACKAGES, build, build_without_mirror, came, digests, said, said_of_another, warnings, was_there,
};
use crate::support::host_user::HostUser;
use crate::support::oracle::{oracle, root, run, skip};
use crate::support::workshop::{Ended, Workshop, image_in};

#[test]
fn what_one_machine_built_another_takes_without_a_mirror_and_runs_no_script() {
    let (Some(first), Some(second)) = (Workshop::new(), Workshop::new()) else { return };
    let commons = Commons::new(&first);
    let ended = Ended::of(&mut build(&first, &commons.url(), &commons.signing("ci")));
    assert_eq!(came(&said(&first, &ended)), (0, 0));
    assert_eq!(warnings(&ended), [] as [&str; 0]);
    let written = PACKAGES + PACKAGES + 5; // unpacked too, and configured tree, initrd, compressed data (2), image
    ended.expect(0, &[&format!("{written} results and packages were written to it")]);
    assert_eq!(commons.entries("unpack").len() as u64, PACKAGES);
    // The whole image comes at once.
    let ended = Ended::of(&mut build_without_mirror(&second, &first, &commons.url(), &commons.listing("ci")));
    assert_eq!(came(&said(&second, &ended)), (1, 0));
    assert_eq!(warnings(&ended), [] as [&str; 0]);
    // What a machine has it does not ask for.
    let ended = Ended::of(&mut build_without_mirror(&second, &first, &commons.url(), &commons.listing("ci")));
    assert_eq!(came(&said(&second, &ended)), (0, 0));
}

#[test]
fn of_another_image_the_stages_come_that_it_has_in_common() {
    let (Some(first), Some(second), Some(third)) = (Workshop::new(), Workshop::new(), Workshop::new()) else { return };
    let commons = Commons::new(&first);
    said(&first, &Ended::of(&mut build(&first, &commons.url(), &commons.signing("ci"))));
    second.write("issue", "another welcome\n");
    third.write("issue", "another welcome\n");
    let ended = Ended::of(&mut build_without_mirror(&second, &first, &commons.url(), &commons.listing("ci")));
    let said = said_of_another(&ended);
    assert_eq!(came(&said), (PACKAGES + 3, 0));
    for stage in ["unpack", "configure", "initrd"] {
        assert_eq!(was_there(&said, stage), Some(true), "{stage}");
    }
    assert_eq!(was_there(&said, "disk"), Some(false));
    Ended::of(&mut third.build()).expect(0, &[]);
    assert_eq!(second.image(), third.image());
}

#[test]
fn packages_come_from_a_cache_without_any_key_and_results_do_not() {
    let (Some(first), Some(second)) = (Workshop::new(), Workshop::new()) else { return };
    let commons = Commons::new(&first);
    said(&first, &Ended::of(&mut build(&first, &commons.url(), &commons.signing("ci"))));
    let ended = Ended::of(&mut build_without_mirror(&second, &first, &commons.url(), &[]));
    let said_by_second = said(&second, &ended);
    assert_eq!(came(&said_by_second), (0, PACKAGES));
    assert_eq!(was_there(&said_by_second, "configure"), Some(false));
    assert_eq!(ended.stderr.matches("results of stages are not used, for no key is listed").count(), 1);
}

#[test]
fn the_environment_and_the_configuration_file_name_a_cache_too() {
    let (Some(first), Some(second)) = (Workshop::new(), Workshop::new()) else { return };
    let commons = Commons::new(&first);
    let mut command = first.build_with(&["--json"]);
    command.env("ADAMANT_CACHE", commons.url()).env("ADAMANT_CACHE_SIGN", commons.path("ci"));
    said(&first, &Ended::of(&mut command));
    fs::create_dir_all(second.path(".config/adamant")).unwrap();
    fs::copy(commons.path("ci.pub"), second.path(".config/adamant/ci.pub")).unwrap();
    let config = format!("[cache]\nurl = \"file://{}\"\nkeys = [\"ci.pub\"]\n", commons.url());
    fs::write(second.path(".config/adamant/config.toml"), config).unwrap();
    let none = Ended::of(&mut second.build_with(&["--json", "--cache", "none"]));
    assert!(said(&second, &none)["shared"].is_null());
    fs::remove_dir_all(second.path("store")).unwrap();
    let from_file = Ended::of(&mut second.build_with(&["--json"]));
    assert_eq!(came(&said(&second, &from_file)), (1, 0));
}

#[test]
fn reading_writes_nothing_and_an_offline_build_does_not_look() {
    let (Some(first), Some(second)) = (Workshop::new(), Workshop::new()) else { return };
    let commons = Commons::new(&first);
    said(&first, &Ended::of(&mut build(&first, &commons.url(), &commons.signing("ci"))));
    let before = digests(&commons.path("cache"));
    second.write("issue", "another welcome\n");
    said_of_another(&Ended::of(&mut build(&second, &commons.url(), &commons.listing("ci"))));
    assert_eq!(digests(&commons.path("cache")), before);
    fs::remove_dir_all(second.path("store")).unwrap();
    let mut offline = second.build_with(&["--offline"]);
    let ended = Ended::of(offline.env("ADAMANT_CACHE", commons.url()).env("ADAMANT_CACHE_KEY", commons.path("ci.pub")));
    ended.expect(4, &["once without --offline"]);
}

#[test]
fn root_and_an_ordinary_user_share_results_both_ways() {
    if !root() {
        return;
    }
    let (Some(first), Some(second)) = (Workshop::new(), Workshop::new()) else { return };
    let user = HostUser::new("cache");
    if !user.has_subordinate_ids() {
        return skip("useradd gives no subordinate ids");
    }
    for roots_turn in [true, false] {
        let commons = Commons::new(&first);
        fs::set_permissions(commons.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (of_root, of_user) = (&first, &second);
        user.give(of_user.directory.path());
        let (builder, reader) = if roots_turn { (of_root, of_user) } else { (of_user, of_root) };
        if !roots_turn {
            user.give(commons.directory.path());
        }
        let run_as = |mut command: Command, as_root: bool| match as_root {
            true => Ended::of(&mut command),
            false => Ended::of(command.uid(user.uid).gid(user.gid)),
        };
        builder.write("issue", "welcome\n");
        said(builder, &run_as(build(builder, &commons.url(), &commons.signing("ci")), roots_turn));
        // What differs is made of what came.
        reader.write("issue", "another welcome\n");
        let command = build_without_mirror(reader, builder, &commons.url(), &commons.listing("ci"));
        assert_eq!(came(&said_of_another(&run_as(command, !roots_turn))), (PACKAGES + 3, 0));
        for workshop in [of_root, of_user] {
            fs::remove_dir_all(workshop.path("out")).unwrap();
            fs::remove_dir_all(workshop.path("store")).unwrap();
        }
    }
}

#[test]
fn openssl_verifies_what_was_signed_and_its_keys_sign() {
    let (Some(first), Some(second)) = (Workshop::new(), Workshop::new()) else { return };
    let commons = Commons::new(&first);
    let Some(mut generate) = oracle("openssl") else { return };
    run(generate.args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(commons.path("ssl")));
    let mut public = oracle("openssl").unwrap();
    run(public.args(["pkey", "-pubout", "-in"]).arg(commons.path("ssl")).arg("-out").arg(commons.path("ssl.pub")));
    said(&first, &Ended::of(&mut build(&first, &commons.url(), &commons.signing("ssl"))));
    let ended = Ended::of(&mut build_without_mirror(&second, &first, &commons.url(), &commons.listing("ssl")));
    assert_eq!(came(&said(&second, &ended)), (1, 0));
    let entry = fs::read_to_string(commons.path("cache").join(&commons.entries("image")[0])).unwrap();
    let (signed, last) = entry.trim_end().rsplit_once('\n').unwrap();
    let signature = last.rsplit_once(' ').unwrap().1;
    fs::write(commons.path("text"), format!("{signed}\n")).unwrap();
    fs::write(commons.path("base64"), format!("{signature}\n")).unwrap();
    let mut decode = oracle("openssl").unwrap();
    run(decode.args(["base64", "-d", "-A", "-in"]).arg(commons.path("base64")).arg("-out").arg(commons.path("raw")));
    let mut verify = oracle("openssl").unwrap();
    verify.args(["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey"]).arg(commons.path("ssl.pub"));
    run(verify.arg("-sigfile").arg(commons.path("raw")).arg("-in").arg(commons.path("text")));
    assert!(image_in(&second.path("out/tiny")).is_some());
}

#[test]
fn keys_and_addresses_that_are_none_are_told_before_anything_is_done() {
    let Some(workshop) = Workshop::new() else { return };
    let commons = Commons::new(&workshop);
    let secret_for_public = ["--cache-key".to_owned(), commons.path("ci").to_str().unwrap().to_owned()];
    let ended = Ended::of(&mut workshop.build_with(&["--cache", "ftp://somewhere"]));
    ended.expect(2, &["--cache", "ftp://somewhere", "the scheme \"ftp\" is not supported"]);
    let ended = Ended::of(&mut build(&workshop, &commons.url(), &secret_for_public));
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    let missing = ["--cache-sign".to_owned(), commons.path("none").to_str().unwrap().to_owned()];
    let ended = Ended::of(&mut build(&workshop, &commons.url(), &missing));
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    // A key is never written over.
    let again = Ended::of(&mut workshop.adamant(&["key", "generate", commons.path("ci").to_str().unwrap()]));
    again.expect(4, &["cannot make", "File exists"]);
}

#[test]
fn two_builds_at_once_bring_each_result_once() {
    let (Some(first), Some(second)) = (Workshop::new(), Workshop::new()) else { return };
    let commons = Commons::new(&first);
    said(&first, &Ended::of(&mut build(&first, &commons.url(), &commons.signing("ci"))));
    second.write("issue", "another welcome\n");
    second.write("tiny.lock", &fs::read_to_string(first.path("recipe/tiny.lock")).unwrap());
    let (url, listing) = (commons.url(), commons.listing("ci"));
    let start = |out: &str| {
        let mut command = second.verb("build", &["--json", "--cache", &url, &listing[0], &listing[1]]);
        command.arg("--out").arg(second.path(out)).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    };
    let outputs = [start("one"), start("two")].map(|child| child.wait_with_output().unwrap());
    let brought = outputs.map(|output| {
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        came(&said).0
    });
    // The image itself is built by one of them; the other waits for it, or finds it.
    assert_eq!(brought.iter().sum::<u64>(), PACKAGES + 3, "{brought:?}");
    assert_eq!(image_in(&second.path("one")), image_in(&second.path("two")));
    second.assert_store_is_good();
}

#[test]
fn a_vendored_folder_is_filled_from_a_cache() {
    let (Some(first), Some(second)) = (Workshop::new(), Workshop::new()) else { return };
    let commons = Commons::new(&first);
    said(&first, &Ended::of(&mut build(&first, &commons.url(), &commons.signing("ci"))));
    second.write("tiny.lock", &fs::read_to_string(first.path("recipe/tiny.lock")).unwrap());
    let mirror = format!("http://127.0.0.1:{}/", super::closed_port());
    let mut command = second.adamant(&["vendor", "vendored", "--mirror", &mirror, "--cache", &commons.url()]);
    let ended = Ended::of(command.arg(second.recipe()));
    ended.expect(0, &[&format!("0 results of stages and {PACKAGES} packages came from it")]);
    let offline = ["build", "recipe/tiny.toml", "--offline", "--store", "vendored", "--out", "out/tiny"];
    Ended::of(&mut second.adamant(&offline)).expect(0, &[]);
    assert_eq!(second.image().as_ref(), Some(second.archived.reference()));
}
