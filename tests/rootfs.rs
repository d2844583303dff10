//! Unpacking and configuring packages: the real dpkg in the real sandbox, on packages that the tests make.

use std::collections::HashMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use adamant::rootfs::deb::UnpackedPackage;
use adamant::rootfs::{
    ConfigureError, EnvironmentError, SeedFile, Settings, Storage, configure, normalise, overlay, remove_workspace,
};
use adamant::tree::{Kind, Node, Tree, show};

use crate::support::host_user::HostUser;
use crate::support::oracle::{root, skip};
use crate::support::packages::{Package, base_files, dpkg};

const EPOCH: i64 = 1_760_000_000;

/// The program whose `main` starts with `rootfs::entry`.
const ADAMANT: &str = env!("CARGO_BIN_EXE_adamant");

/// A place for packages and a sandbox, removed at the end whoever owns what is in it.
struct Lab {
    directory: Option<tempfile::TempDir>,
    packages: Vec<UnpackedPackage>,
    stages: Mutex<Vec<String>>,
}

impl Lab {
    /// With a base of `base-files` and `dpkg`; `None`, said aloud, where the host has no dpkg.
    fn new(extra: &[Package]) -> Option<Self> {
        let Some(dpkg) = dpkg() else {
            skip("dpkg, tar or another program of the base is not installed");
            return None;
        };
        let mut all = vec![base_files(), dpkg];
        all.extend_from_slice(extra);
        Some(Self::of(&all))
    }

    fn of(packages: &[Package]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("workspace")).unwrap();
        fs::create_dir(directory.path().join("packages")).unwrap();
        let unpack = |package: &Package| package.unpack(&directory.path().join("packages"));
        let packages = packages.iter().map(unpack).collect();
        Self { directory: Some(directory), packages, stages: Mutex::default() }
    }

    fn path(&self) -> &Path {
        self.directory.as_ref().unwrap().path()
    }

    fn workspace(&self) -> PathBuf {
        self.path().join("workspace")
    }

    fn configure(&self) -> Result<Tree, ConfigureError> {
        self.configure_with(Vec::new())
    }

    fn configure_with(&self, files: Vec<SeedFile>) -> Result<Tree, ConfigureError> {
        self.configure_in(Storage::Automatic, files)
    }

    fn configure_in(&self, storage: Storage, files: Vec<SeedFile>) -> Result<Tree, ConfigureError> {
        let progress = |text: &str| self.stages.lock().unwrap().push(text.to_owned());
        let workspace = self.workspace();
        let debconf = Vec::new();
        let program = Some(Path::new(ADAMANT));
        let (workspace, epoch, progress) = (&*workspace, EPOCH, &progress);
        let settings = Settings { workspace, program, epoch, files, debconf, storage, progress };
        configure(&self.packages, &settings)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = remove_workspace(&self.workspace(), Some(Path::new(ADAMANT)));
        drop(self.directory.take());
    }
}

fn node<'t>(tree: &'t Tree, path: &str) -> &'t Node {
    tree.node(tree.lookup(path.as_bytes()).unwrap_or_else(|| panic!("{path} is not in the tree")))
}

fn text(tree: &Tree, path: &str) -> String {
    match &node(tree, path).kind {
        Kind::File(content) => String::from_utf8(content.to_vec().unwrap()).unwrap(),
        other => panic!("{path} is a {}", other.word()),
    }
}

/// Everything about a tree, one line per name.
fn listing(tree: &Tree) -> String {
    let mut first_names = HashMap::new();
    let mut lines = String::new();
    for (path, id) in tree.walk() {
        let Node { metadata, kind } = tree.node(id);
        let first = first_names.entry(id.index()).or_insert_with(|| path.clone());
        let what = match kind {
            Kind::File(content) => format!("{} {:?} {}", content.size(), content.extents(), content.digest().unwrap()),
            Kind::Directory(_) => String::new(),
            other => format!("{other:?}"),
        };
        lines.push_str(&format!("{} {metadata:?} {} {what} {}\n", show(&path), kind.word(), show(first)));
    }
    lines
}

/// Packages with everything that must be kept exactly.
fn torture() -> Vec<Package> {
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let shipped = Package::new("torture", "")
        .directory("usr/share/torture")
        .file("usr/bin/set-id", 0o6755, "suid\n")
        .file("usr/bin/ping", 0o755, "capable\n")
        .xattr("security.capability", &capability)
        .file("usr/share/torture/owned", 0o640, "mine\n")
        .owner(1, 65_534)
        .file("usr/share/torture/beyond", 0o600, "far\n")
        .owner(70_000, 70_001)
        .file("usr/share/torture/a", 0o644, "linked\n")
        .hard_link("usr/share/torture/b", "usr/share/torture/a")
        .device("usr/share/torture/null", tar::EntryType::Char, 1, 3)
        .device("usr/share/torture/disk", tar::EntryType::Block, 8, 1)
        .fifo("usr/share/torture/fifo")
        .symlink("usr/share/torture/link", "../../bin/ping")
        .directory("lib/merged")
        .file("lib/merged/file", 0o644, "behind a symlink\n")
        .file("etc/torture.conf", 0o600, "setting\n")
        .control_file("conffiles", "/etc/torture.conf\n");
    let scripted = Package::new("scripted", "Depends: torture\n").file("etc/changed", 0o644, "before\n").control_file(
        "postinst",
        "echo after > /etc/changed\n\
         ln /etc/changed /etc/changed-link\n\
         mkdir -m 2750 /var/lib/scripted\n\
         chown 1:65534 /var/lib/scripted\n\
         chown 65534:1 /usr/share/torture/a\n\
         touch -d @1000000000 /var/lib/scripted/old\n\
         touch /var/lib/scripted/new\n\
         echo random $$ > /var/log/scripted.log\n",
    );
    vec![shipped, scripted]
}

#[test]
fn keeps_owners_modes_links_devices_and_attributes() {
    let Some(lab) = Lab::new(&torture()) else { return };
    let tree = lab.configure().unwrap();
    let of = |path: &str| {
        let metadata = &node(&tree, path).metadata;
        (metadata.mode, metadata.uid, metadata.gid)
    };
    assert_eq!(of("usr/bin/set-id"), (0o6755, 0, 0));
    assert_eq!(of("usr/share/torture/owned"), (0o640, 1, 65_534));
    assert_eq!(of("usr/share/torture/beyond"), (0o600, 70_000, 70_001));
    assert_eq!(of("etc/torture.conf"), (0o600, 0, 0));
    assert_eq!(of("var/lib/scripted"), (0o2750, 1, 65_534));
    let capability = &node(&tree, "usr/bin/ping").metadata.xattrs[&b"security.capability"[..]];
    assert_eq!((capability.len(), capability[5]), (20, 0x20));
    assert_eq!(tree.lookup(b"usr/share/torture/a"), tree.lookup(b"usr/share/torture/b"));
    assert_eq!(of("usr/share/torture/b"), (0o644, 65_534, 1));
    assert_eq!(text(&tree, "usr/share/torture/b"), "linked\n");
    assert!(
        matches!(&node(&tree, "usr/share/torture/null").kind, Kind::CharacterDevice(d) if d.major == 1 && d.minor == 3)
    );
    assert!(
        matches!(&node(&tree, "usr/share/torture/disk").kind, Kind::BlockDevice(d) if d.major == 8 && d.minor == 1)
    );
    assert_eq!(of("usr/share/torture/disk"), (0o660, 0, 0));
    assert!(matches!(node(&tree, "usr/share/torture/fifo").kind, Kind::Fifo));
    assert_eq!(text(&tree, "usr/lib/merged/file"), "behind a symlink\n");
    assert_eq!(tree.lookup(b"etc/changed"), tree.lookup(b"etc/changed-link"));
    assert_eq!(text(&tree, "etc/changed"), "after\n");
    let time = |path: &str| node(&tree, path).metadata.mtime.seconds;
    let times = ["usr/bin/ping", "etc/torture.conf", "var/lib/scripted/old", "var/lib/scripted/new"].map(time);
    assert_eq!(times, [1_500_000_000, 1_500_000_000, 1_000_000_000, EPOCH]);
}

#[test]
fn every_package_is_installed_and_nothing_of_the_sandbox_stays() {
    let Some(lab) = Lab::new(&torture()) else { return };
    let tree = lab.configure().unwrap();
    let status = text(&tree, "var/lib/dpkg/status");
    assert_eq!(status.matches("Status: install ok installed\n").count(), 4);
    assert!(status.contains("\n /etc/torture.conf "), "{status}");
    assert!(!status.contains("newconffile"), "{status}");
    for left in ["usr/sbin/policy-rc.d", "etc/torture.conf.dpkg-new", "dev/null", "proc/self", "run/.nothing"] {
        assert!(tree.lookup(left.as_bytes()).is_none(), "{left}");
    }
    assert!(!lab.workspace().join("tree").exists());
    assert!(lab.stages.lock().unwrap().iter().any(|stage| stage.starts_with("configuring torture")));
}

#[test]
fn contents_that_scripts_left_alone_stay_in_the_packages() {
    let Some(lab) = Lab::new(&torture()) else { return };
    lab.configure().unwrap();
    let pack = fs::metadata(lab.workspace().join("pack")).unwrap().len();
    let data: u64 = lab.packages.iter().map(|package| fs::metadata(package.data_path()).unwrap().len()).sum();
    // dpkg's database, its log and a few bytes of scripts.
    assert!(pack < data / 20, "{pack} of {data} bytes were copied");
}

#[test]
fn memory_and_disk_make_the_same_tree() {
    let Some(lab) = Lab::new(&torture()) else { return };
    let listing_in = |storage| {
        let mut tree = lab.configure_in(storage, Vec::new()).unwrap();
        normalise(&mut tree, EPOCH).unwrap();
        let text = listing(&tree);
        remove_workspace(&lab.workspace(), Some(Path::new(ADAMANT))).unwrap();
        text
    };
    assert_eq!(listing_in(Storage::Memory), listing_in(Storage::Disk));
}

#[test]
fn triggers_are_processed_for_files_and_by_name() {
    let watcher = Package::new("watcher", "Essential: yes\n")
        .control_file("triggers", "interest-noawait /usr/share/watched\ninterest-noawait shout\n")
        .control_file("postinst", "echo \"$@\" >> /var/lib/watcher\n");
    let shipper = Package::new("shipper", "")
        .control_file("triggers", "activate-noawait shout\n")
        .directory("usr/share/watched")
        .file("usr/share/watched/x", 0o644, "x");
    let Some(lab) = Lab::new(&[watcher, shipper]) else { return };
    let said = text(&lab.configure().unwrap(), "var/lib/watcher");
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "configure ");
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[1].starts_with("triggered ") && lines[1].contains("/usr/share/watched"), "{said}");
    assert!(lines[1].contains("shout"), "{said}");
}

#[test]
fn diversions_and_overrides_made_before_unpacking_are_honoured() {
    let diverter =
        Package::new("diverter", "Pre-Depends: base-files\n").file("usr/bin/tool", 0o755, "new\n").control_file(
            "preinst",
            "dpkg-divert --package diverter --rename --divert /usr/bin/tool.real --add /usr/bin/tool\n\
         dpkg-statoverride --add daemon daemon 4711 /usr/bin/other\n\
         test \"$1\" = install; test \"$DPKG_MAINTSCRIPT_PACKAGE\" = diverter\n\
         test -f /var/lib/dpkg/tmp.ci/control\n",
        );
    let owner = Package::new("owner", "").file("usr/bin/tool", 0o755, "old\n").file("usr/bin/other", 0o755, "other\n");
    let Some(lab) = Lab::new(&[diverter, owner]) else { return };
    let tree = lab.configure().unwrap();
    assert_eq!((text(&tree, "usr/bin/tool").as_str(), text(&tree, "usr/bin/tool.real").as_str()), ("new\n", "old\n"));
    let metadata = &node(&tree, "usr/bin/other").metadata;
    assert_eq!((metadata.mode, metadata.uid, metadata.gid), (0o4711, 1, 1));
}

#[test]
fn what_is_predepended_is_configured_before_the_first_script() {
    let early = Package::new("early", "").control_file("postinst", "echo early > /etc/early\n");
    let late = Package::new("late", "Pre-Depends: early\n").control_file("preinst", "cat /etc/early > /etc/late\n");
    let Some(lab) = Lab::new(&[late, early]) else { return };
    assert_eq!(text(&lab.configure().unwrap(), "etc/late"), "early\n");
}

#[test]
fn files_given_by_the_recipe_are_there_before_the_first_script_and_win_over_conffiles() {
    let reader = Package::new("reader", "Essential: yes\n")
        .control_file("preinst", "cat /etc/seed/x > /etc/seen\n")
        .control_file("conffiles", "/etc/reader.conf\n")
        .file("etc/reader.conf", 0o644, "shipped\n");
    let Some(lab) = Lab::new(&[reader]) else { return };
    let seed = |path: &str, text: &str| SeedFile { path: path.into(), mode: 0o640, bytes: text.into() };
    let tree = lab.configure_with(vec![seed("etc/seed/x", "sown\n"), seed("etc/reader.conf", "mine\n")]).unwrap();
    assert_eq!(text(&tree, "etc/seen"), "sown\n");
    assert_eq!((text(&tree, "etc/reader.conf").as_str(), node(&tree, "etc/seed/x").metadata.mode), ("mine\n", 0o640));
}

#[test]
fn scripts_see_nothing_of_the_host() {
    let spy = Package::new("spy", "").control_file(
        "postinst",
        "exec > /etc/report 2>&1\n\
         uname -n\n\
         echo $(ls /dev)\n\
         echo \"left: $(ls /sys)$(ls /run)$(ls /tmp)\"\n\
         ls /proc/1/root/ > /dev/null 2>&1 && echo escaped || echo closed\n\
         unshare --user true 2> /dev/null && echo nested || echo flat\n\
         mknod /etc/device b 8 0 2> /dev/null && echo made || echo refused\n\
         while read name rest; do case $name in *:) echo net $name;; esac; done < /proc/net/dev\n\
         echo $DEBIAN_FRONTEND $LC_ALL $SOURCE_DATE_EPOCH ${CARGO_MANIFEST_DIR:-none} $(umask)\n\
         readlink /proc/self/fd/0\n\
         while read name value; do case $name in NoNewPrivs:) echo $name $value;; esac; done < /proc/self/status\n",
    );
    let Some(lab) = Lab::new(&[spy]) else { return };
    let report = text(&lab.configure().unwrap(), "etc/report");
    let variables = format!("noninteractive C.UTF-8 {EPOCH} none 0022");
    let expected = [
        "localhost",
        "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero",
        "left: ",
        "closed",
        "flat",
        "refused",
        "net lo:",
        &variables,
        "/dev/null",
        "NoNewPrivs: 1",
    ];
    assert_eq!(report.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn services_are_not_started_and_nothing_outlives_the_scripts() {
    let server = Package::new("server", "").control_file(
        "postinst",
        "/usr/sbin/policy-rc.d server start || echo policy $? > /etc/policy\n\
         start-stop-daemon --start --background --exec /usr/bin/touch -- /etc/started\n\
         (sleep 1000; touch /etc/late) > /dev/null 2>&1 &\n",
    );
    let Some(lab) = Lab::new(&[server]) else { return };
    let started = Instant::now();
    let tree = lab.configure().unwrap();
    assert!(started.elapsed() < Duration::from_secs(300));
    assert_eq!(text(&tree, "etc/policy"), "policy 101\n");
    assert!(tree.lookup(b"etc/started").is_none() && tree.lookup(b"etc/late").is_none());
}

#[test]
fn a_failing_script_is_named_with_its_package_status_and_output() {
    let broken = Package::new("broken", "").control_file("postinst", "echo the reason >&2\nexit 42\n");
    let Some(lab) = Lab::new(&[broken]) else { return };
    let message = lab.configure().unwrap_err().to_string();
    for part in ["broken", "post-installation script", "exit status 42", "the reason"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!lab.workspace().join("tree").exists(), "the tree is removed");
    let broken = Package::new("broken", "").control_file("preinst", "echo the cause\nexit 7\n");
    let Some(lab) = Lab::new(&[broken]) else { return };
    let error = lab.configure().unwrap_err();
    let ConfigureError::Script { package, script, outcome, log } = &error else { panic!("{error}") };
    assert_eq!((package.as_str(), script.as_str()), ("broken", "preinst"));
    assert_eq!(outcome, "ended with exit status 7");
    assert!(log.contains("the cause"), "{log}");
}

#[test]
fn packages_that_do_not_fit_together_are_refused() {
    let file = |name: &str| Package::new(name, "").file("usr/bin/x", 0o755, name);
    let Some(lab) = Lab::new(&[file("a"), file("b")]) else { return };
    let message = lab.configure().unwrap_err().to_string();
    assert!(message.contains("/usr/bin/x: shipped by a and by b"), "{message}");
    let Some(lab) = Lab::new(&[Package::new("c", "Depends: missing\n")]) else { return };
    let message = lab.configure().unwrap_err().to_string();
    assert!(message.contains("dependency problems") && message.contains("missing"), "{message}");
    let lab = Lab::of(&[base_files()]);
    let message = lab.configure().unwrap_err().to_string();
    assert!(message.contains("do not include dpkg"), "{message}");
}

#[test]
fn overlaid_packages_need_no_dpkg() {
    let lab = Lab::of(&[base_files(), torture().remove(0)]);
    let tree = overlay(&lab.packages).unwrap();
    assert_eq!(text(&tree, "usr/lib/merged/file"), "behind a symlink\n");
    assert_eq!(node(&tree, "usr/share/torture/beyond").metadata.uid, 70_000);
    assert!(tree.lookup(b"var/lib/dpkg/status").is_none());
}

/// Runs [`builder`] as this user on the packages of `lab`.
fn build_as(user: &HostUser, lab: &Lab, change: impl FnOnce(&mut Command)) -> Output {
    for name in ["workspace", "packages", ""] {
        std::os::unix::fs::chown(lab.path().join(name), Some(user.uid), Some(user.gid)).unwrap();
    }
    let mut command = builder_command(lab);
    command.uid(user.uid).gid(user.gid);
    change(&mut command);
    command.output().unwrap()
}

/// This test program, as a builder of its own.
fn builder_command(lab: &Lab) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "rootfs::a_builder_of_its_own_leaves_a_listing", "--nocapture", "--test-threads=1"]);
    command.env(LAB, lab.path()).current_dir("/");
    command
}

/// Also what other tests start as another user, or to kill it: with a directory in the environment it is the builder.
#[test]
fn a_builder_of_its_own_leaves_a_listing() {
    if let Some(directory) = std::env::var_os(LAB) {
        return build_in(Path::new(&directory));
    }
    let Some(lab) = Lab::new(&torture()) else { return };
    assert!(builder_command(&lab).status().unwrap().success());
    let listing = fs::read_to_string(lab.path().join("listing")).unwrap();
    assert!(listing.contains("etc/passwd"), "{listing}");
}

/// Names the directory that a builder works in.
const LAB: &str = "ADAMANT_TEST_LAB";

/// Configures the packages in the directory, and leaves a listing of the tree, or the error, beside them.
fn build_in(directory: &Path) {
    let mut data: Vec<_> = fs::read_dir(directory.join("packages"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "data"))
        .collect();
    data.sort();
    let packages: Vec<_> = data.iter().map(|path| adamant::rootfs::deb::reopen(path).unwrap()).collect();
    let workspace = directory.join("workspace");
    let stage = |text: &str| fs::write(directory.join("stage"), text).unwrap();
    let (files, debconf, program) = (Vec::new(), Vec::new(), Some(Path::new(ADAMANT)));
    // As if there were little memory: what a killed builder leaves behind lies on disk.
    let (workspace, epoch, storage, progress) = (&*workspace, EPOCH, Storage::Disk, &stage);
    let settings = Settings { workspace, program, epoch, files, debconf, storage, progress };
    match configure(&packages, &settings) {
        Ok(mut tree) => {
            normalise(&mut tree, EPOCH).unwrap();
            fs::write(directory.join("listing"), listing(&tree)).unwrap();
        }
        Err(error) => {
            let mut text = format!("{error}\n");
            if let ConfigureError::Environment(EnvironmentError::NoUserNamespaces { .. }) = error {
                text.push_str("exit code 4\n");
            }
            fs::write(directory.join("error"), text).unwrap();
        }
    }
}

#[test]
fn root_and_an_ordinary_user_make_the_same_tree() {
    if !root() {
        return;
    }
    let Some(lab) = Lab::new(&torture()) else { return };
    let mut tree = lab.configure().unwrap();
    normalise(&mut tree, EPOCH).unwrap();
    let user = HostUser::new("same");
    if !user.has_subordinate_ids() {
        return skip("useradd gives no subordinate ids");
    }
    let Some(other) = Lab::new(&torture()) else { return };
    let output = build_as(&user, &other, |_| {});
    let error = fs::read_to_string(other.path().join("error")).unwrap_or_default();
    assert!(output.status.success() && error.is_empty(), "{error}{output:?}");
    assert_eq!(fs::read_to_string(other.path().join("listing")).unwrap(), listing(&tree));
}

#[test]
fn a_user_without_subordinate_ids_is_told_the_command() {
    if !root() {
        return;
    }
    let Some(lab) = Lab::new(&[]) else { return };
    let user = HostUser::new("noids");
    user.take_subordinate_ids();
    build_as(&user, &lab, |_| {});
    let error = fs::read_to_string(lab.path().join("error")).unwrap();
    let command = format!("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}", user.name);
    assert!(error.contains("has 0 subordinate uids in /etc/subuid") && error.contains(&command), "{error}");
}

#[test]
fn a_missing_newuidmap_is_named_with_its_package() {
    if !root() {
        return;
    }
    let Some(lab) = Lab::new(&[]) else { return };
    let user = HostUser::new("nomap");
    if !user.has_subordinate_ids() {
        return skip("useradd gives no subordinate ids");
    }
    build_as(&user, &lab, |command| {
        command.env("PATH", "/nowhere");
    });
    let error = fs::read_to_string(lab.path().join("error")).unwrap();
    assert!(error.contains("newuidmap is not installed") && error.contains("apt install uidmap"), "{error}");
}

#[test]
fn a_kernel_without_user_namespaces_is_named_with_its_setting() {
    let Some(lab) = Lab::new(&[]) else { return };
    // The limit belongs to a user namespace: lowered in one of its own it harms nobody else.
    let mut command = Command::new("unshare");
    let builder = builder_command(&lab);
    command.args(["--user", "--map-root-user", "sh", "-c"]);
    command.arg("echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" \"$@\"");
    command.arg(builder.get_program()).args(builder.get_args());
    command.envs(builder.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir("/");
    match command.output() {
        Err(_) => return skip("unshare is not installed"),
        Ok(output) if !lab.path().join("error").exists() => panic!("{output:?}"),
        Ok(_) => {}
    }
    let error = fs::read_to_string(lab.path().join("error")).unwrap();
    assert!(error.contains("sysctl -w user.max_user_namespaces=15000"), "{error}");
    assert!(error.contains("exit code 4"), "{error}");
}

#[test]
fn a_full_disk_is_an_error_and_leaves_no_tree() {
    if !root() {
        return;
    }
    let Some(lab) = Lab::new(&[]) else { return };
    let in_small_file_system = || {
        use nix::mount::{MsFlags, mount};
        // For this thread only.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let options = Some("size=2m");
        mount(Some("tmpfs"), &lab.workspace(), Some("tmpfs"), MsFlags::empty(), options).unwrap();
        let error = lab.configure_in(Storage::Disk, Vec::new()).unwrap_err();
        (error, lab.workspace().join("tree").exists())
    };
    let (error, tree) = std::thread::scope(|scope| scope.spawn(in_small_file_system).join().unwrap());
    let ConfigureError::System { what, source } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull, "{what}: {source}");
    assert!(what.starts_with("write /usr/"), "{what}");
    assert!(!tree);
}

#[test]
fn a_killed_builder_takes_the_sandbox_with_it_and_the_workspace_can_be_removed() {
    let slow =
        Package::new("slow", "").control_file("postinst", "chown 1:1 /var/log\ntouch /var/log/x\nsleep 987654\n");
    let Some(lab) = Lab::new(&[slow]) else { return };
    let mut builder = builder_command(&lab).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let wait_for = |what: &str, condition: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !condition() {
            assert!(started.elapsed() < Duration::from_secs(120), "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait_for("the script runs", &|| sleepers() > 0);
    builder.kill().unwrap();
    builder.wait().unwrap();
    wait_for("the sandbox ends", &|| sleepers() == 0);
    assert!(lab.workspace().join("tree").exists());
    remove_workspace(&lab.workspace(), Some(Path::new(ADAMANT))).unwrap();
    assert_eq!(fs::read_dir(lab.workspace()).unwrap().count(), 0);
}

/// How many processes of the slow script there are.
fn sleepers() -> usize {
    let is_sleeper = |entry: std::io::Result<fs::DirEntry>| {
        let command = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        (command == b"sleep\x00987654\0").then_some(())
    };
    fs::read_dir("/proc").unwrap().filter_map(is_sleeper).count()
}
