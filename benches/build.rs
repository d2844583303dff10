//! What builds cost, beside mkosi in one run: from nothing, after a change, several recipes at once.
//!
//!     ADAMANT_ANCHORS=DIR cargo bench --bench build [-- ROW...]
//!
//! | row | what is measured | must reach (issue 3) |
//! |---|---|---|
//! | `nothing` | `build` again, the output untouched | 50 ms |
//! | `file` | one file of the recipe changed; verity disk, UKI, manifest out | 1 s; 15 times faster than mkosi `Incremental=yes` |
//! | `package` | one package added to an image of 120, `lock` included | 6 times faster than mkosi's build |
//! | `cold` | packages in the store, nothing else | 5 times faster than mkosi, wall and CPU |
//! | `ten` | ten recipes with the same packages, with one command, cold | 2.5 times the cost of one |
//!
//! DIR has a Debian 13 root tree in `tree/` with mkosi 25, systemd-repart, erofs-utils, cryptsetup-bin, systemd-ukify,
//! systemd-boot and what they need, as `mmdebstrap` makes it, and `mkosi/` with the configuration of a disk with an EROFS root, its
//! verity partition and a UKI (`mkosi.conf`, `mkosi.repart/`). Without it only adamant is measured. Needs root for mkosi.
//!
//! Wall and CPU time of the whole process, children included, each the best of its runs; both get their packages before.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

const RUNS: usize = 3;
/// A run of mkosi takes a minute and a half, and it does not differ by much.
const MKOSI_RUNS: usize = 1;
/// Small packages that the recipe does not have.
const ADDED: [&str; RUNS] = ["less", "nano", "tree"];
const RECIPES: usize = 10;

#[derive(Clone, Copy)]
struct Measured {
    wall: f64,
    cpu: f64,
}

fn cpu_of_children() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

fn measure(command: &mut Command) -> Measured {
    // Nobody is to wait for what another run has left to write.
    nix::unistd::sync();
    let (start, before) = (Instant::now(), cpu_of_children());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    Measured { wall: start.elapsed().as_secs_f64(), cpu: cpu_of_children() - before }
}

fn best(runs: impl Iterator<Item = Measured>) -> Measured {
    runs.min_by(|a, b| a.wall.total_cmp(&b.wall)).unwrap()
}

/// A folder with a copy of `recipes/`, a store and outputs.
struct Adamant {
    scratch: PathBuf,
}

impl Adamant {
    fn new(scratch: &Path) -> Self {
        let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
        fs::create_dir_all(scratch.join("recipes")).unwrap();
        for name in ["minimal.toml", "minimal.lock"] {
            fs::copy(recipes.join(name), scratch.join("recipes").join(name)).unwrap();
        }
        let adamant = Self { scratch: scratch.to_owned() };
        measure(&mut adamant.command("build", &["minimal"])); // fills the store
        adamant
    }

    fn command(&self, verb: &str, recipes: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adamant"));
        command.current_dir(&self.scratch).args([verb, "--quiet", "--store", "store"]);
        command.args(recipes.iter().map(|name| format!("recipes/{name}.toml")));
        command
    }

    fn build(&self, recipes: &[&str]) -> Measured {
        measure(self.command("build", recipes).arg("--offline"))
    }

    /// Removes all that was made, but not the packages.
    fn forget(&self) {
        fs::remove_dir_all(self.scratch.join("store/stages")).unwrap();
        fs::create_dir(self.scratch.join("store/stages")).unwrap();
    }

    /// Writes a recipe that is the minimal one with something replaced, and its lock.
    fn recipe(&self, name: &str, replace: &[(&str, &str)]) {
        let recipes = self.scratch.join("recipes");
        let mut text = fs::read_to_string(recipes.join("minimal.toml")).unwrap();
        for (old, new) in replace {
            assert!(text.contains(old), "{old}");
            text = text.replacen(old, new, 1);
        }
        fs::write(recipes.join(format!("{name}.toml")), text).unwrap();
        fs::copy(recipes.join("minimal.lock"), recipes.join(format!("{name}.lock"))).unwrap();
    }

    fn cold(&self) -> Measured {
        self.forget();
        self.build(&["minimal"])
    }

    fn nothing(&self) -> Measured {
        self.build(&["minimal"]);
        best((0..2 * RUNS).map(|_| self.build(&["minimal"])))
    }

    fn file(&self) -> Measured {
        self.recipe("changed", &[]);
        self.build(&["changed"]);
        best((0..2 * RUNS).map(|run| {
            self.recipe("changed", &[("DHCP=yes", &format!("DHCP=yes\n# {run}"))]);
            self.build(&["changed"])
        }))
    }

    fn package(&self) -> Measured {
        best(ADDED.iter().map(|package| {
            self.recipe("added", &[("packages = [", &format!("packages = [\"{package}\", "))]);
            let locked = measure(&mut self.command("lock", &["added"]));
            let built = measure(&mut self.command("build", &["added"]));
            Measured { wall: locked.wall + built.wall, cpu: locked.cpu + built.cpu }
        }))
    }

    fn ten(&self) -> Measured {
        let names: Vec<String> = (0..RECIPES).map(|number| format!("machine-{number}")).collect();
        for name in &names {
            let own_name = format!("name = \"{name}\"");
            self.recipe(name, &[("name = \"minimal\"", &own_name), ("DHCP=yes", &format!("DHCP=yes\n# {name}"))]);
        }
        self.forget();
        self.build(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// mkosi in its tree, with a configuration of our own.
struct Mkosi {
    tree: PathBuf,
    folder: PathBuf,
    full: OnceCell<Measured>,
}

impl Mkosi {
    fn new(anchors: &Path, scratch: &Path) -> Self {
        let folder = scratch.join("mkosi");
        fs::create_dir_all(folder.join("mkosi.repart")).unwrap();
        let text = fs::read_to_string(anchors.join("mkosi/mkosi.conf")).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with("Incremental="));
        fs::write(folder.join("mkosi.conf"), lines.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        for entry in fs::read_dir(anchors.join("mkosi/mkosi.repart")).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.join("mkosi.repart").join(path.file_name().unwrap())).unwrap();
        }
        for name in ["cache", "out", "mkosi.extra/etc/systemd/network"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        let mkosi = Self { tree: anchors.join("tree"), folder, full: OnceCell::new() };
        mkosi.write_file(0);
        mkosi
    }

    /// The file of the recipe that changes.
    fn write_file(&self, run: usize) {
        let text = format!("[Match]\nType=ether\n\n[Network]\nDHCP=yes\n# {run}\n");
        fs::write(self.folder.join("mkosi.extra/etc/systemd/network/80-dhcp.network"), text).unwrap();
    }

    /// A mount namespace of its own, the tree as root, the configuration at /mnt.
    fn run(&self, arguments: &str) -> Measured {
        const ENTER: &str = "set -e; tree=$1; cd \"$2\"; mount --bind \"$tree\" \"$tree\"; mount -t proc proc \"$tree/proc\"; \
            mount --rbind /dev \"$tree/dev\"; mount --rbind /sys \"$tree/sys\"; mount -t tmpfs tmpfs \"$tree/run\"; \
            mount --bind \"$PWD\" \"$tree/mnt\"; exec chroot \"$tree\" sh -c \"cd /mnt && exec mkosi $3\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "bash", "-c", ENTER, "bash"]);
        measure(command.arg(&self.tree).arg(&self.folder).arg(arguments))
    }

    fn full(&self) -> Measured {
        *self.full.get_or_init(|| {
            self.run("-f build"); // fills its cache of packages
            best((0..MKOSI_RUNS).map(|_| self.run("-f build")))
        })
    }

    fn file(&self) -> Measured {
        self.run("--incremental=yes -f build"); // fills its cache of trees
        best((0..2 * MKOSI_RUNS).map(|run| {
            self.write_file(run + 1);
            self.run("--incremental=yes -f build")
        }))
    }
}

fn print(row: &str, ours: Measured, theirs: Option<(&str, Measured)>) {
    print!("{row:32} {:7.3} s wall {:7.3} s CPU", ours.wall, ours.cpu);
    if let Some((name, theirs)) = theirs {
        let (wall, cpu) = (theirs.wall / ours.wall, theirs.cpu / ours.cpu);
        print!("   {name} {:6.2} s, {:6.2} s: {wall:5.1} times, {cpu:5.1} times", theirs.wall, theirs.cpu);
    }
    println!();
}

fn main() {
    // `cargo test --benches` only compiles and starts it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let rows: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |row: &str| rows.is_empty() || rows.iter().any(|name| name == row);
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let adamant = Adamant::new(scratch.path());
    let anchors = std::env::var_os("ADAMANT_ANCHORS").map(PathBuf::from);
    let mkosi = anchors.map(|anchors| Mkosi::new(&anchors, scratch.path()));
    if mkosi.is_none() {
        println!("ADAMANT_ANCHORS is not set: mkosi is not measured");
    }
    println!("load {}", fs::read_to_string("/proc/loadavg").unwrap_or_default().trim_end());
    let full = || mkosi.as_ref().map(|mkosi| ("mkosi", mkosi.full()));
    if wanted("nothing") {
        print("nothing changed", adamant.nothing(), None);
    }
    if wanted("file") {
        let ours = adamant.file();
        print("one file changed", ours, mkosi.as_ref().map(|mkosi| ("mkosi Incremental", mkosi.file())));
    }
    if wanted("package") {
        print("one package added, locked", adamant.package(), full());
    }
    if wanted("cold") || wanted("ten") {
        let cold = best((0..RUNS).map(|_| adamant.cold()));
        print("cold, packages in the store", cold, if wanted("cold") { full() } else { None });
        if wanted("ten") {
            let ten = best((0..2).map(|_| adamant.ten()));
            print("ten recipes with one base, cold", ten, None);
            println!("{:32} {:7.2}   wall {:7.2}   CPU", "  times one", ten.wall / cold.wall, ten.cpu / cold.cpu);
        }
    }
    println!("load {}", fs::read_to_string("/proc/loadavg").unwrap_or_default().trim_end());
}
