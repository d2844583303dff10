//! What a recipe changes in a tree: files, accounts, units, settings.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use adamant::recipe::{Overrides, SourceContents, load};
use adamant::rootfs::{files, system, units, users};
use adamant::tree::{Kind, Timestamp, Tree, show};

use crate::support::oracle::{oracle, run};
use crate::support::recipes::{listing, recipe, text, tree};

const EPOCH: Timestamp = Timestamp::from_seconds(1_700_000_000);

const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n\
                      messagebus:x:998:998::/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nshadow:x:42:\nwww-data:x:33:\nsudo:x:27:\nmessagebus:x:998:\nspare:x:1000:\n";

fn debian() -> Tree {
    tree(&[
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/shadow", "root::20000:0:99999:7:::\nwww-data:*:20000:0:99999:7:::\nmessagebus:!*:20000::::::\n"),
        ("etc/gshadow", "root:*::\nsudo:*::\n"),
        ("etc/subuid", ""),
        ("etc/skel/.profile", "p"),
        ("usr/bin/bash", ""),
        ("bin", "-> usr/bin"),
        ("etc/resolv.conf", "-> ../run/resolv.conf"),
        ("usr/lib/os-release", "ID=debian\nVERSION_ID=\"13\"\nIMAGE_ID=old\n"),
        ("etc/os-release", "-> ../usr/lib/os-release"),
        ("usr/share/zoneinfo/Europe/Berlin", "TZif"),
        ("usr/share/zoneinfo/Etc/UTC", "TZif"),
        ("usr/share/zoneinfo/UTC", "-> Etc/UTC"),
        ("var/nowhere", "-> gone"),
        ("var/run", "-> /run"),
        ("run/", ""),
    ])
}

/// The messages of what was refused.
fn refusals(result: Result<(), adamant::recipe::Diagnostics>) -> Vec<String> {
    let list = result.unwrap_err().list;
    list.into_iter().map(|found| format!("{}: {}", found.title, found.label)).collect()
}

#[test]
fn writes_files_with_owner_mode_and_the_epoch() {
    let mut tree = debian();
    let recipe = recipe(
        r#"
[[directory]]
path = "/srv/data"
mode = "2750"
owner = "www-data"
group = 4711
[[file]]
path = "/bin/tool"
content = "through a link"
mode = "4755"
[[file]]
path = "/etc/resolv.conf"
content = "in place of a link"
[[symlink]]
path = "/srv/data/link"
target = "../../dangling"
"#,
    );
    files::apply(&mut tree, &recipe, &SourceContents::default(), EPOCH).unwrap();
    let listing = listing(&tree);
    for line in [
        "/srv 0755 0:0 directory",
        "/srv/data 2750 33:4711 directory",
        "/srv/data/link 0777 0:0 -> ../../dangling",
        "/usr/bin/tool 4755 0:0 = through a link",
        "/etc/resolv.conf 0644 0:0 = in place of a link",
    ] {
        assert!(listing.iter().any(|found| found == line), "{line} is not in {listing:#?}");
    }
    let id = tree.lookup(b"srv").unwrap();
    assert_eq!(tree.node(id).metadata.mtime, EPOCH);
}

#[test]
fn refuses_what_cannot_be_written_all_at_once() {
    let mut tree = debian();
    let recipe = recipe(
        r#"
[[file]]
path = "/usr/bin"
content = ""
[[file]]
path = "/etc/passwd/x"
content = ""
[[file]]
path = "/var/nowhere/x"
content = ""
[[file]]
path = "/var/run/x"
content = ""
[[file]]
path = "/a"
content = ""
owner = "www-dta"
group = "ops"
"#,
    );
    assert_eq!(
        refusals(files::apply(&mut tree, &recipe, &SourceContents::default(), EPOCH)),
        [
            "cannot write `/usr/bin`: /usr/bin is a directory of the image already",
            "cannot write `/etc/passwd/x`: /etc/passwd is not a directory of the image",
            "cannot write `/var/nowhere/x`: a symbolic link on the way to /var/nowhere leads nowhere",
            "cannot write `/var/run/x`: /run is made anew at each boot: nothing in the image's /run is ever seen",
            "the image has no user `www-dta`: did you mean \"www-data\"?",
            "the image has no group `ops`: no package makes it",
        ]
    );
}

#[test]
fn copies_a_directory_whatever_the_umask_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("app/sub")).unwrap();
    for (name, mode) in [("app/z", 0o600), ("app/run", 0o700), ("app/sub/a", 0o664)] {
        fs::write(path(name), name).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    symlink("../../etc/passwd", path("app/sub/link")).unwrap();
    let base = "name = 't'\nversion = '1'\ndebian.suite = 'trixie'\n[[file]]\npath = '/opt/app'\nsource = 'app'\n";
    let copied = |extra: &str| {
        fs::write(path("r.toml"), format!("{base}{extra}")).unwrap();
        let recipe = load(&path("r.toml"), &Overrides::default()).unwrap();
        let mut tree = Tree::default();
        files::apply(&mut tree, &recipe, &recipe.read_sources().unwrap(), EPOCH).unwrap();
        listing(&tree)
    };
    assert_eq!(
        copied(""),
        [
            "/opt 0755 0:0 directory",
            "/opt/app 0755 0:0 directory",
            "/opt/app/run 0755 0:0 = app/run",
            "/opt/app/sub 0755 0:0 directory",
            "/opt/app/sub/a 0644 0:0 = app/sub/a",
            "/opt/app/sub/link 0777 0:0 -> ../../etc/passwd",
            "/opt/app/z 0644 0:0 = app/z",
        ]
    );
    let owned = copied("mode = '0640'\nowner = 7\n");
    assert_eq!(
        owned[1..4],
        ["/opt/app 0750 7:0 directory", "/opt/app/run 0640 7:0 = app/run", "/opt/app/sub 0750 7:0 directory"]
    );
}

#[test]
fn adds_accounts_that_no_password_opens() {
    let mut tree = debian();
    let recipe = recipe(
        r#"
[[group]]
name = "ops"
gid = 2000
[[user]]
name = "anna"
groups = ["sudo", "ops"]
comment = "Anna Ü."
[[user]]
name = "app"
system = true
home = "/srv/app"
[[user]]
name = "bob"
uid = 1001
group = "ops"
shell = "/bin/bash"
"#,
    );
    users::apply(&mut tree, &recipe, EPOCH).unwrap();
    assert_eq!(
        text(&tree, "etc/passwd").strip_prefix(PASSWD).unwrap(),
        "anna:x:1002:1002:Anna Ü.:/home/anna:/bin/bash\n\
         app:x:999:999::/srv/app:/usr/sbin/nologin\n\
         bob:x:1001:2000::/home/bob:/bin/bash\n"
    );
    assert_eq!(
        text(&tree, "etc/shadow"),
        "root:*:20000:0:99999:7:::\nwww-data:*:20000:0:99999:7:::\nmessagebus:!*:20000::::::\n\
         anna:*:::::::\napp:!*:::::::\nbob:*:::::::\n"
    );
    assert_eq!(
        text(&tree, "etc/group"),
        "root:x:0:\nshadow:x:42:\nwww-data:x:33:\nsudo:x:27:anna\nmessagebus:x:998:\nspare:x:1000:\n\
         ops:x:2000:anna\nanna:x:1002:\napp:x:999:\n"
    );
    assert_eq!(text(&tree, "etc/gshadow"), "root:*::\nsudo:*::anna\nops:!*::anna\nanna:!*::\napp:!*::\n");
    assert_eq!(text(&tree, "etc/subuid"), "anna:100000:65536\nbob:165536:65536\n");
    let listing = listing(&tree);
    for line in ["/home/anna 0700 1002:1002 directory", "/home/anna/.profile 0644 1002:1002 = p"] {
        assert!(listing.iter().any(|found| found == line), "{line} is not in {listing:#?}");
    }
    assert!(tree.lookup(b"srv/app").is_none() && tree.lookup(b"etc/subgid").is_none());
}

#[test]
fn accounts_that_exist_or_name_what_does_not_are_refused() {
    let refused = |text: &str| refusals(users::apply(&mut debian(), &recipe(text), EPOCH));
    assert_eq!(
        refused("[[user]]\nname = 'www-data'\n[[group]]\nname = 'sudo'\n"),
        [
            "the image has the user `www-data` already: made by one of its packages",
            "the image has the group `sudo` already: made by one of its packages"
        ]
    );
    assert_eq!(
        refused("[[user]]\nname = 'a'\nuid = 998\n"),
        ["the number 998 is taken: it is that of the user `messagebus`"]
    );
    assert_eq!(
        refused("[[user]]\nname = 'a'\ngroups = ['sudp']\nshell = '/bin/zsh'\n"),
        [
            "the image has no group `sudp`: did you mean \"sudo\"?",
            "the image has no shell `/bin/zsh`: no package brings it"
        ]
    );
    let nothing = users::apply(&mut Tree::default(), &recipe("[[user]]\nname = 'a'\n"), EPOCH);
    assert_eq!(refusals(nothing), ["the image has no /etc/passwd: needs it"]);
    users::apply(&mut Tree::default(), &recipe(""), EPOCH).unwrap();
}

#[test]
fn passwords_that_packages_left_are_taken_away() {
    let mut tree = tree(&[
        ("etc/passwd", "root::0:0::/root:/bin/sh\nold:$6$x$y:1:1::/:/bin/sh\nx:x:2:2::/:/bin/sh\n"),
        ("etc/shadow", "root:$y$j9T$abc:20000::::::\nx::20000::::::\n"),
        ("etc/group", "root::0:\n"),
    ]);
    users::apply(&mut tree, &recipe(""), EPOCH).unwrap();
    assert_eq!(text(&tree, "etc/passwd"), "root:x:0:0::/root:/bin/sh\nold:*:1:1::/:/bin/sh\nx:x:2:2::/:/bin/sh\n");
    assert_eq!(text(&tree, "etc/shadow"), "root:*:20000::::::\nx:*:20000::::::\n");
    assert_eq!(text(&tree, "etc/group"), "root:*:0:\n");
}

/// shadow's own checker finds nothing to complain about.
#[test]
fn pwck_and_grpck_accept_the_account_files() {
    let (Some(mut pwck), Some(mut grpck)) = (oracle("pwck"), oracle("grpck")) else { return };
    let mut tree = debian();
    let accounts = "[[group]]\nname = 'ops'\n[[user]]\nname = 'anna'\ngroups = ['ops']\n";
    users::apply(&mut tree, &recipe(accounts), EPOCH).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text(&tree, &format!("etc/{name}"))).unwrap();
        path
    };
    let packages = "root:*::\nshadow:*::\nwww-data:*::\nsudo:*::\nmessagebus:!*::\nspare:!*::\n";
    let own: String = text(&tree, "etc/gshadow").lines().skip(2).map(|line| format!("{line}\n")).collect();
    fs::write(folder.path().join("gshadow"), format!("{packages}{own}")).unwrap();
    let gshadow = folder.path().join("gshadow");
    let checks = [
        pwck.arg("-r").arg(file("passwd")).arg(file("shadow")).output().unwrap(),
        grpck.arg("-r").arg(file("group")).arg(gshadow).output().unwrap(),
    ];
    // Homes, groups and members are looked for on this machine: only the form of the lines counts.
    let of_this_machine = ["does not exist", "no group", "no user", "delete member", "no changes"];
    for output in checks {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let about: Vec<&str> =
            said.lines().filter(|line| !of_this_machine.iter().any(|part| line.contains(part))).collect();
        assert_eq!(about, [] as [&str; 0]);
    }
}

#[test]
fn settings_are_written_where_systemd_and_debian_look() {
    let mut tree = debian();
    let recipe = recipe("[system]\nhostname = 'web-1.example'\ntimezone = 'Europe/Berlin'\n");
    system::apply(&mut tree, &recipe, EPOCH).unwrap();
    assert_eq!(text(&tree, "etc/hostname"), "web-1.example\n");
    assert_eq!(text(&tree, "etc/default/locale"), "LANG=C.UTF-8\n");
    assert_eq!(text(&tree, "usr/lib/os-release"), "ID=debian\nVERSION_ID=\"13\"\nIMAGE_ID=test\nIMAGE_VERSION=1\n");
    assert_eq!(text(&tree, "etc/os-release"), text(&tree, "usr/lib/os-release"));
    assert!(text(&tree, "etc/hosts").contains("127.0.0.1\tlocalhost\n"));
    let listing = listing(&tree);
    assert!(listing.contains(&"/etc/localtime 0777 0:0 -> /usr/share/zoneinfo/Europe/Berlin".into()), "{listing:#?}");
    assert!(system::files_before_configure(&recipe).is_empty());
}

#[test]
fn a_version_with_a_tilde_is_quoted_for_the_shell() {
    let mut tree = debian();
    let mut recipe = recipe("");
    recipe.version.value = "1~rc1".into();
    system::apply(&mut tree, &recipe, EPOCH).unwrap();
    assert!(text(&tree, "usr/lib/os-release").ends_with("IMAGE_VERSION=\"1~rc1\"\n"));
}

#[test]
fn settings_that_the_image_cannot_have_name_the_package() {
    let recipe = recipe("[system]\nlocale = 'de_DE.UTF-8'\ntimezone = 'Europe/Berln'\n");
    assert_eq!(system::files_before_configure(&recipe), [("/etc/locale.gen", "de_DE.UTF-8 UTF-8\n".to_owned())]);
    assert_eq!(
        refusals(system::apply(&mut debian(), &recipe, EPOCH)),
        [
            "the image has no locale `de_DE.UTF-8`: nothing made it",
            "the image has no time zone `Europe/Berln`: did you mean \"Europe/Berlin\"?"
        ]
    );
    let mut with_locale = debian();
    with_locale.make_directories(b"usr/lib/locale/de_DE.utf8", &adamant::tree::Metadata::with_mode(0o755)).unwrap();
    assert_eq!(refusals(system::apply(&mut with_locale, &recipe, EPOCH)).len(), 1);
}

#[test]
fn a_unit_that_does_not_exist_is_named_with_its_place() {
    let mut tree = tree(&[
        ("usr/lib/systemd/system/nginx.service", "[Install]\nWantedBy=multi-user.target\n"),
        ("usr/lib/systemd/system/still.service", "[Service]\n"),
        ("usr/lib/systemd/system/still.timer", "[Install]\nWantedBy=timers.target\n"),
        ("usr/lib/systemd/system/logind.service", "[Service]\n"),
        ("usr/lib/systemd/system/multi-user.target.wants/logind.service", "-> ../logind.service"),
    ]);
    let recipe = recipe(
        "[units]\nenable = ['ngnix.service', 'still.service', 'logind.service']\nmask = ['gone.service']\n[[check]]\nname = 'c'\nunit = 'ngin.service'\n",
    );
    let shown = units::apply(&mut tree, &recipe, EPOCH).unwrap_err().to_string();
    for part in [
        "the image has no unit `ngnix.service`\n --> recipe.toml:5:11",
        "did you mean \"nginx.service\"?",
        "`still.timer` starts it: enable that",
        "`multi-user.target` starts it by itself: leave it out",
        "the image has no unit `gone.service`",
        "the image has no unit `ngin.service`",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
}

/// Writes the tree's directories, files and links below `root`.
fn materialise(tree: &Tree, root: &Path) {
    for (path, id) in tree.walk() {
        let host = root.join(show(&path).trim_start_matches('/'));
        match &tree.node(id).kind {
            Kind::Directory(_) => fs::create_dir_all(host).unwrap(),
            Kind::File(content) => fs::write(host, content.to_vec().unwrap()).unwrap(),
            Kind::Symlink(target) => symlink(String::from_utf8_lossy(target).as_ref(), host).unwrap(),
            other => panic!("{}", other.word()),
        }
    }
}

fn links_below(root: &Path) -> Vec<String> {
    let tree = adamant::tree::scan(&root.join("etc/systemd/system")).unwrap();
    let link = |(path, id)| match &tree.node(id).kind {
        Kind::Symlink(target) => Some(format!("{} -> {}", show(&Vec::<u8>::clone(&path)), show(target))),
        _ => None,
    };
    tree.walk().filter_map(link).collect()
}

/// Every unit of this machine, enabled and then half of them disabled again and some masked, by systemctl and by us.
#[test]
fn units_end_up_as_systemctl_leaves_them() {
    let Some(mut systemctl) = oracle("systemctl") else { return };
    let system = Path::new("/usr/lib/systemd/system");
    let mut files = vec![("etc/systemd/system/".to_owned(), String::new())];
    let mut names = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(system).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries.iter().filter(|path| path.is_file() && !path.is_symlink()) {
        let (name, text) = (path.file_name().unwrap().to_str().unwrap(), fs::read_to_string(path).unwrap());
        if text.lines().any(|line| line.starts_with("WantedBy=")) && !name.contains("@.") {
            names.push(name.to_owned());
        }
        files.push((format!("usr/lib/systemd/system/{name}"), text));
    }
    let more = [
        (
            "one.service",
            "[Install]\nWantedBy=m.target\nRequiredBy=r.service\nAlias=two.service\nAlso=one.socket none.socket\n",
        ),
        ("one.socket", "[Install]\nWantedBy=sockets.target\n"),
        ("t@.service", "[Install]\nWantedBy=m.target\nDefaultInstance=d\nAlias=z@.service\n"),
        ("n@.service", "[Install]\nWantedBy=m.target dev-%i.device %p.target\n"),
    ];
    files.extend(more.iter().map(|(name, text)| (format!("usr/lib/systemd/system/{name}"), (*text).to_owned())));
    files.push(("usr/lib/systemd/system/other.service".into(), "-> one.service".into()));
    names.extend(["other.service", "t@.service", "t@i.service", "n@x.service"].map(str::to_owned));
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let mut tree = tree(&files);
    let folder = tempfile::tempdir().unwrap();
    let (theirs, ours) = (folder.path().join("theirs"), folder.path().join("ours"));
    materialise(&tree, &theirs);
    let odd: Vec<&String> = names.iter().step_by(2).collect();
    run(systemctl.arg("--root").arg(&theirs).arg("enable").args(&names));
    run(oracle("systemctl").unwrap().arg("--root").arg(&theirs).arg("disable").args(&odd));
    run(oracle("systemctl").unwrap().arg("--root").arg(&theirs).args(["mask", "one.socket"]));
    let listed = |names: Vec<&String>| format!("{names:?}");
    let mut apply =
        |text: String| units::apply(&mut tree, &recipe(&text), EPOCH).unwrap_or_else(|error| panic!("{error}"));
    apply(format!("[units]\nenable = {}\n", listed(names.iter().collect())));
    apply(format!("[units]\ndisable = {}\nmask = ['one.socket']\n", listed(odd)));
    materialise(&tree, &ours);
    let links = links_below(&ours);
    assert_eq!(links, links_below(&theirs));
    assert!(links.len() > 10, "{links:#?}");
}
