//! Packages that mean harm, and scripts that fail.

use std::fs;
use std::sync::Arc;

use crate::support::oracle::skip;
use crate::support::packages::Package;
use crate::support::workshop::{Archived, Ended, Workshop};

/// Outside of every tree: nothing may ever be written there.
const OUTSIDE: &str = "/srv/adamant-test-outside";

fn archived() -> Option<Arc<Archived>> {
    let plain = |name: &str| Package::new(name, "");
    let outside = OUTSIDE.trim_start_matches('/');
    let climb = "../".repeat(20);
    let found = Archived::with(&[
        plain("dot-dot").hostile_file(&format!("./{climb}{outside}"), "x"),
        plain("dot-dot-within").hostile_file("./usr/../../x", "x"),
        plain("absolute").hostile_file(OUTSIDE, "x"),
        plain("climbing-link").symlink("usr/share/climbing", &format!("{climb}{outside}")),
        plain("through-own-link").symlink("usr/share/own", OUTSIDE).file("usr/share/own/file", 0o644, "x"),
        plain("hard-link-out").hard_link("usr/share/hard", &format!("{climb}etc/passwd")),
        // Innocent by themselves: the file of the second goes through the link of the first.
        plain("link").directory("srv").directory(outside).symlink("usr/share/elsewhere", OUTSIDE),
        Package::new("through-link", "Depends: link\n").file("usr/share/elsewhere/file", 0o644, "x"),
        plain("absolute-script").control_file("postinst", &format!("mkdir -p {OUTSIDE}; echo x > {OUTSIDE}/file\n")),
        plain("failing-preinst").control_file("preinst", "echo the cause\nexit 7\n"),
        plain("failing-postinst").control_file("postinst", "echo the reason >&2\nexit 42\n"),
        plain("dying").control_file("postinst", "kill -9 $$\n"),
        plain("full").control_file("postinst", "echo 'cannot copy: No space left on device' >&2\nexit 1\n"),
        plain("second-kernel").file("usr/lib/modules/7.0/modules.builtin", 0o644, ""),
    ]);
    if found.is_none() {
        skip("dpkg, tar or another program of the base is not installed");
    }
    found
}

#[test]
fn hostile_and_broken_packages_stop_the_build_and_reach_nothing() {
    let Some(archived) = archived() else { return };
    let workshop = Workshop::of(&archived);
    let packages = "packages = [\"linux-image-test\", \"greeter\"]";
    let build_with = |name: &str| {
        workshop.edit(packages, &packages.replace("greeter", name));
        let _ = fs::remove_file(workshop.path("recipe/tiny.lock"));
        let ended = Ended::of(&mut workshop.build());
        workshop.edit(&packages.replace("greeter", name), packages);
        ended
    };
    for (name, code, parts) in [
        ("dot-dot", 5, &["dot-dot 1", "refused", "..", "report"][..]),
        ("dot-dot-within", 5, &["dot-dot-within 1", "refused", ".."]),
        ("absolute", 5, &["absolute 1", "refused", OUTSIDE]),
        ("climbing-link", 5, &["climbing-link 1", "refused", "/usr/share/climbing"]),
        ("through-own-link", 5, &["through-own-link 1", "refused", "/usr/share/own"]),
        ("hard-link-out", 5, &["hard-link-out 1", "refused"]),
        ("failing-preinst", 3, &["preinst", "failing-preinst", "exit status 7", "the cause"]),
        ("failing-postinst", 3, &["failing-postinst", "exit status 42", "the reason"]),
        ("dying", 3, &["dying", "signal"]),
        ("full", 4, &["full", "No space left on device", "free some room"]),
        ("second-kernel", 3, &["one kernel", "7.0"]),
    ] {
        let ended = build_with(name);
        workshop.assert_failed(&ended, code, parts);
        assert!(fs::symlink_metadata(OUTSIDE).is_err(), "{name}");
    }
    // These stay within the tree: what is absolute there begins at its own root.
    for name in ["through-link", "absolute-script"] {
        let needs_greeter = "[units]\nenable = [\"greeter.service\"]\n";
        workshop.edit(needs_greeter, "");
        build_with(name).expect(0, &[]);
        workshop.edit("[[user]]", &format!("{needs_greeter}\n[[user]]"));
        assert!(fs::symlink_metadata(OUTSIDE).is_err(), "{name}");
        let manifest = fs::read_to_string(workshop.path("out/tiny/manifest.json")).unwrap();
        assert!(manifest.contains(&format!("\"{OUTSIDE}/file\"")), "{name}");
        fs::remove_dir_all(workshop.path("out")).unwrap();
    }
    let _ = fs::remove_file(workshop.path("recipe/tiny.lock"));
    workshop.assert_builds_the_same();
}

#[test]
fn a_source_that_leads_out_of_the_recipes_folder_is_refused() {
    let Some(workshop) = Workshop::new() else { return };
    fs::write(workshop.path("secret"), "secret\n").unwrap();
    for (source, parts) in [
        ("../secret", &["tiny.toml:", "../secret", "folder"][..]),
        ("/etc/passwd", &["tiny.toml:", "/etc/passwd", "folder"]),
        ("sub/../../secret", &["tiny.toml:", "folder"]),
        ("link", &["tiny.toml:", "symbolic link", "leads out of the recipe's folder"]),
        ("directory", &["tiny.toml:", "symbolic link", "leads out of the recipe's folder"]),
        ("nothing", &["tiny.toml:", "cannot read", "nothing"]),
    ] {
        let folder = workshop.path("recipe");
        let _ = std::os::unix::fs::symlink("../secret", folder.join("link"));
        let _ = std::os::unix::fs::symlink("..", folder.join("directory"));
        workshop.edit("source = \"issue\"", &format!("source = \"{source}\""));
        let ended = Ended::of(&mut workshop.build());
        workshop.edit(&format!("source = \"{source}\""), "source = \"issue\"");
        ended.expect(3, parts);
        assert!(!workshop.path("out").exists() && !workshop.path("recipe/tiny.lock").exists());
    }
}
