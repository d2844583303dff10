//! Images and machines for the scenarios.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use adamant::build::tools;
use adamant::cli::FetchArguments;
use adamant::manifest::{self, Manifest};
use adamant::telemetry;
use adamant::vm::{Guest, Machine, Outcome, Tools};
use tempfile::TempDir;

/// For a boot in software on a machine with other things to do.
pub const BOOT: Duration = Duration::from_secs(600);
/// For a script that only looks.
pub const SOON: Duration = Duration::from_secs(120);

/// The keys of `vm-tests/keys`, which are no secret.
pub const USER_KEY: &str = include_str!("../keys/user");
pub const USER_KEY_PUBLIC: &str = include_str!("../keys/user.pub");
pub const HOST_KEY: &str = include_str!("../keys/host");
pub const HOST_KEY_PUBLIC: &str = include_str!("../keys/host.pub");

/// An image that `adamant build` made.
pub struct Built {
    pub directory: PathBuf,
    pub manifest: Manifest,
}

impl Built {
    pub fn image(&self) -> PathBuf {
        self.directory.join(&self.manifest.disk.file)
    }

    /// A copy of the image in a directory of its own, with whatever `change` does to it.
    pub fn altered(&self, change: impl FnOnce(&File, &Manifest)) -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir_in(scratch()).unwrap();
        let path = directory.path().join("altered.raw");
        fs::copy(self.image(), &path).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        change(&file, &self.manifest);
        (directory, path)
    }

    /// Where the partition with that label starts, in bytes, and its size.
    pub fn partition(&self, kind: &str) -> (u64, u64) {
        let index = ["esp", "root", "verity"].iter().position(|name| *name == kind).unwrap();
        let partition = &self.manifest.partitions[index];
        (partition.offset, partition.size)
    }
}

/// Inverts the lowest bit at `offset`.
pub fn flip(file: &File, offset: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

fn scratch() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(&path).unwrap();
    path
}

fn store() -> PathBuf {
    scratch().join("vm-store")
}

/// The program under test.
pub fn adamant(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adamant"));
    command.args(arguments).arg("--store").arg(store());
    command.output().unwrap()
}

/// `recipes/`, copied, with the recipes that only tests need; and the images built from them.
struct Workshop {
    directory: TempDir,
}

/// Extends minimal.toml, whose lock serves: the packages are the same.
const PERSISTENT: &str = "extends = \"minimal.toml\"\nname = \"persistent\"\nstate = \"persistent\"\n";

static WORKSHOP: OnceLock<Workshop> = OnceLock::new();
static BUILT: Mutex<()> = Mutex::new(());

fn workshop() -> &'static Workshop {
    WORKSHOP.get_or_init(|| {
        let directory = tempfile::tempdir_in(scratch()).unwrap();
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes"), directory.path());
        let recipe = |name: &str| directory.path().join(name);
        fs::write(recipe("persistent.toml"), PERSISTENT).unwrap();
        fs::copy(recipe("minimal.lock"), recipe("persistent.lock")).unwrap();
        Workshop { directory }
    })
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The image of that recipe; `None` (said aloud) where no mirror can be reached.
pub fn built(name: &str) -> Option<Built> {
    // One build at a time: each uses all cores, and the second finds most of its work done.
    let _one = BUILT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let workshop = workshop().directory.path();
    let directory = workshop.join("out").join(name);
    if !directory.exists() {
        let recipe = workshop.join(format!("{name}.toml"));
        let (recipe, out) = (recipe.to_str().unwrap(), directory.to_str().unwrap());
        let mut output = adamant(&["build", recipe, "--out", out]);
        if !output.status.success() {
            // Archives drop old versions: what is tested here is not the lock.
            eprintln!("{}\nlocking afresh", String::from_utf8_lossy(&output.stderr));
            let lock = adamant(&["lock", recipe, "--update"]);
            if matches!(lock.status.code(), Some(4 | 6)) {
                crate::oracle::skip(&format!("no packages: {}", String::from_utf8_lossy(&lock.stderr)));
                return None;
            }
            output = adamant(&["build", recipe, "--out", out]);
        }
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let manifest = Manifest::parse(&fs::read(directory.join(manifest::FILE_NAME)).unwrap()).unwrap();
    Some(Built { directory, manifest })
}

/// QEMU and its firmware, from adamant's own tools tree.
pub fn tools() -> Tools {
    let fetch = FetchArguments { offline: false, mirror: Vec::new(), store: Some(store()) };
    let fetcher = fetch.fetcher(fetch.open_store().ok().unwrap(), fetch.mirrors().ok().unwrap());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let progress = telemetry::for_standard_error(true, true);
    Tools::at(&tools::tree(&tools::VM, &fetcher, progress.as_ref(), now).unwrap()).unwrap()
}

/// A guest with the directory that it lives in.
pub struct Running {
    pub guest: Guest,
    directory: TempDir,
}

/// Starts the machine, with the agent.
pub fn start(machine: Machine) -> Running {
    let directory = tempfile::tempdir_in(scratch()).unwrap();
    let machine = Machine { agent: true, ..machine };
    let guest = machine.start(&tools(), directory.path(), None).unwrap();
    Running { guest, directory }
}

impl Running {
    /// Waits until the guest can be asked; shows its console if it never can.
    pub fn ready(mut self) -> Self {
        let outcome = self.guest.wait(BOOT).unwrap();
        assert_eq!(outcome, Outcome::Ready, "{}", self.guest.last_words());
        self
    }

    /// What the script says, which must succeed.
    pub fn says(&mut self, script: &str) -> String {
        let run = self.guest.run(script, SOON).unwrap();
        let output = String::from_utf8_lossy(&run.output).into_owned();
        assert_eq!(run.status, 0, "{script}\n{output}");
        output
    }

    /// Turns the machine off.
    pub fn off(self) {
        let Self { guest, directory } = self;
        assert_eq!(guest.power_off(SOON).unwrap(), Outcome::PoweredOff);
        drop(directory);
    }
}
