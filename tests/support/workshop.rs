//! Whole builds without a network: a small archive of which an image can be made, and places to make one in.
//!
//! The archive has what adamant asks of any: essential packages with the host's own dpkg and shell, a kernel, the
//! files that an initrd consists of (their names only), systemd's stub. It is made once and shared by the cases that
//! run side by side.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use adamant::boot::initrd::contents;
use adamant::digest::Digest;
use adamant::store::Store;

use super::archive::{Archive, Suite};
use super::executable;
use super::http::Server;
use super::oracle::skip;
use super::packages::{Package, architecture, base_files, dpkg};

/// The program.
pub const ADAMANT: &str = env!("CARGO_BIN_EXE_adamant");
/// The kernel's release.
pub const RELEASE: &str = "6.12.0-test";

/// An archive, and what comes out of it.
pub struct Archived {
    pub archive: Archive,
    /// Digests of an image that was built without trouble, by file name.
    reference: OnceLock<BTreeMap<String, Digest>>,
}

/// The packages that an image takes.
pub fn packages() -> Option<Vec<Package>> {
    let library = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let base = base_files()
        .file("usr/lib/os-release", 0o644, "ID=debian\nPRETTY_NAME=\"Test\"\n")
        .symlink("etc/os-release", "../usr/lib/os-release");
    let kernel = Package::new("linux-image-test", "")
        .file(&format!("boot/vmlinuz-{RELEASE}"), 0o644, executable::kernel(RELEASE))
        .file(
            &format!("usr/lib/modules/{RELEASE}/modules.builtin"),
            0o644,
            "kernel/drivers/md/dm-verity.ko\nkernel/fs/erofs/erofs.ko\nkernel/fs/overlayfs/overlay.ko\n",
        );
    let greeter = Package::new("greeter", "Depends: listener\n")
        .file(
            "usr/lib/systemd/system/greeter.service",
            0o644,
            "[Service]\nExecStart=/usr/bin/greet\n[Install]\nWantedBy=multi-user.target\n",
        )
        .file("usr/bin/greet", 0o4755, "#!/bin/sh\necho hello\n")
        .file("etc/greeting", 0o640, "hello\n")
        .owner(0, 1)
        .control_file("conffiles", "/etc/greeting\n")
        .control_file(
            "postinst",
            "mkdir /var/lib/greeter\nchown 1:1 /var/lib/greeter\necho \"$1\" > /var/lib/greeter/state\n",
        );
    let listener = Package::new("listener", "")
        .control_file("triggers", "interest-noawait /usr/bin\n")
        .control_file("postinst", "echo \"$1\" >> /var/lib/listened\n")
        // Takes a moment to fetch and does not compress.
        .file("usr/share/listener/noise", 0o644, noise(1 << 20));
    let mut systemd = Package::new("systemd", "").file(&format!("{library}/libkmod.so.2"), 0o644, "libkmod\n");
    for (_, path, _) in contents::PATHS {
        systemd = systemd.file(path, 0o755, format!("{path}\n"));
    }
    let stub = Package::new("systemd-boot-efi", "").file(
        &format!("usr/lib/systemd/boot/efi/linux{}.efi.stub", if architecture() == "arm64" { "aa64" } else { "x64" }),
        0o644,
        executable::stub(),
    );
    let mut all = vec![base, dpkg()?, kernel, greeter, listener, systemd, stub];
    let others = contents::packages("trixie").filter(|name| *name != "systemd");
    all.extend(others.map(|name| Package::new(name, "").file(&format!("usr/share/{name}"), 0o644, name)));
    Some(all)
}

/// Where the archive has a package.
pub fn pool(name: &str) -> String {
    format!("pool/main/{name}_1_{}.deb", architecture())
}

/// Bytes that look random.
pub fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

impl Archived {
    /// The archive with these packages besides [`packages`].
    pub fn with(extra: &[Package]) -> Option<Arc<Self>> {
        let mut archive = Archive::new();
        let suite = Suite::new("trixie");
        archive.suite(Suite { architectures: vec![architecture().to_owned()], compressions: vec![".xz"], ..suite });
        for package in packages()?.iter().chain(extra) {
            archive.add("trixie", "main", package.deb());
        }
        archive.publish();
        Some(Arc::new(Self { archive, reference: OnceLock::new() }))
    }

    /// The archive that cases share; `None`, said aloud, where the host lacks what it is made of.
    pub fn shared() -> Option<Arc<Self>> {
        // Weak: the last case that uses it removes it.
        static SHARED: Mutex<Weak<Archived>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(archived) = shared.upgrade() {
            return Some(archived);
        }
        let Some(archived) = Self::with(&[]) else {
            skip("dpkg, tar or another program of the base is not installed");
            return None;
        };
        *shared = Arc::downgrade(&archived);
        Some(archived)
    }

    /// What an image of the recipe consists of when nothing disturbs its build.
    pub fn reference(self: &Arc<Self>) -> &BTreeMap<String, Digest> {
        self.reference.get_or_init(|| {
            let workshop = Workshop::of(self);
            let output = workshop.build().output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            workshop.image().unwrap()
        })
    }
}

/// The recipe; the word after `packages` may be replaced.
pub const RECIPE: &str = r#"
name = "tiny"
version = "1"
architecture = "ARCHITECTURE"
packages = ["linux-image-test", "greeter"]

[debian]
suite = "trixie"
pockets = []
key = "archive.asc"

[units]
enable = ["greeter.service"]

[[user]]
name = "anna"

[[file]]
path = "/etc/issue"
source = "issue"
"#;

/// A folder with a recipe, a store and an output, and a mirror of its own.
pub struct Workshop {
    pub directory: tempfile::TempDir,
    pub archived: Arc<Archived>,
    pub server: Server,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// The code, and that standard error has all of the `parts`.
    #[track_caller]
    pub fn expect(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in\n{}", self.stderr);
        }
    }
}

impl Workshop {
    /// With the shared archive.
    pub fn new() -> Option<Self> {
        Some(Self::of(&Archived::shared()?))
    }

    pub fn of(archived: &Arc<Archived>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let workshop = Self { server: Server::serve(archived.archive.root()), archived: archived.clone(), directory };
        for (name, text) in [
            ("tiny.toml", RECIPE.replace("ARCHITECTURE", architecture())),
            ("archive.asc", archived.archive.key.public()),
            ("issue", "welcome\n".to_owned()),
        ] {
            workshop.write(name, &text);
        }
        workshop
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn recipe(&self) -> PathBuf {
        self.path("recipe/tiny.toml")
    }

    /// Writes a file beside the recipe.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path("recipe").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Replaces a part of the recipe.
    pub fn edit(&self, old: &str, new: &str) {
        let text = fs::read_to_string(self.recipe()).unwrap();
        assert!(text.contains(old));
        self.write("tiny.toml", &text.replace(old, new));
    }

    /// The program, its environment empty but for what any has.
    pub fn adamant(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(ADAMANT);
        command.args(arguments).stdin(Stdio::null()).current_dir(self.directory.path());
        for (name, _) in std::env::vars_os() {
            if name != "PATH" {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.directory.path());
        command
    }

    /// `adamant VERB recipe`, with store and mirror of this workshop.
    pub fn verb(&self, verb: &str, further: &[&str]) -> Command {
        let mut command = self.adamant(&[verb]);
        if !further.contains(&"--offline") && !further.contains(&"--mirror") {
            command.args(["--mirror", &self.server.url()]);
        }
        command.arg(self.recipe()).arg("--store").arg(self.path("store")).args(further);
        command
    }

    pub fn build(&self) -> Command {
        self.build_with(&[])
    }

    pub fn build_with(&self, further: &[&str]) -> Command {
        let mut command = self.verb("build", further);
        command.arg("--out").arg(self.path("out/tiny"));
        command
    }

    /// Digests of the files of the image, by name; `None` if there is none.
    pub fn image(&self) -> Option<BTreeMap<String, Digest>> {
        image_in(&self.path("out/tiny"))
    }

    /// What is in the folder of outputs, hidden names too.
    pub fn outputs(&self) -> Vec<String> {
        names(&self.path("out"))
    }

    /// What is in the folder of the recipe.
    pub fn beside_recipe(&self) -> Vec<String> {
        names(&self.path("recipe"))
    }

    /// Every object of the store has the bytes that it is named for.
    #[track_caller]
    pub fn assert_store_is_good(&self) {
        let store = Store::open(&self.path("store")).unwrap();
        assert_eq!(store.verify().unwrap(), []);
    }

    /// A build failed (`ended`) with this code, saying all of the `parts`; it left no output and a good store.
    #[track_caller]
    pub fn assert_failed(&self, ended: &Ended, code: i32, parts: &[&str]) {
        ended.expect(code, parts);
        assert_eq!(ended.stdout, "");
        assert_eq!(self.outputs(), [] as [String; 0]);
        self.assert_store_is_good();
    }

    /// A build succeeds, with the bits that it should have.
    #[track_caller]
    pub fn assert_builds_the_same(&self) {
        Ended::of(&mut self.build()).expect(0, &[]);
        assert_eq!(self.image().as_ref(), Some(self.archived.reference()));
    }
}

/// Digests of the files in an output directory.
pub fn image_in(directory: &Path) -> Option<BTreeMap<String, Digest>> {
    let entries = fs::read_dir(directory).ok()?;
    let digest = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        let mut file = fs::File::open(entry.path()).unwrap();
        (entry.file_name().into_string().unwrap(), Digest::of_reader(&mut file).unwrap().0)
    };
    Some(entries.map(digest).collect())
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
