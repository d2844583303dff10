//! Whole images, made from a small tree and executables that do nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Cursor;
use std::path::{Path, PathBuf};

use adamant::architecture::Architecture;
use adamant::boot::uki::{self, Parts};
use adamant::boot::{command_line, os_release};
use adamant::digest::Digest;
use adamant::disk::{self, Disk, Esp};
use adamant::filesystem::erofs;
use adamant::identifier::Seed;
use adamant::lock::Lock;
use adamant::manifest::{self, Manifest, Package, Step, Subject};
use adamant::recipe::{RecipeRecord, record_digest};
use adamant::tree::{Content, Kind, Metadata, Node, Timestamp, Tree};
use adamant::verity;

use super::executable::{kernel, stub};

/// The epoch of all images here.
pub const EPOCH: i64 = 1_700_000_000;

/// Bytes without a pattern, the same in each run.
pub fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Everything an image is made of, to be changed by a test before it is written.
pub struct Sketch {
    pub name: &'static str,
    pub version: &'static str,
    pub tree: Tree,
    pub arguments: Vec<String>,
    pub uname: &'static str,
    /// Set, name and version.
    pub packages: Vec<(&'static str, &'static str, &'static str)>,
    /// What the manifest says of the recipe.
    pub recipe: RecipeRecord,
    /// With its packages in place of `packages`, and their files named as theirs.
    pub lock: Option<Lock>,
    /// Paths with the step of a build that is said to have written them.
    pub written: BTreeMap<Vec<u8>, Step>,
    /// As it stands in the kernel image.
    pub initrd: Vec<u8>,
    /// Other files for the EFI system partition.
    pub esp_extra: Vec<(&'static str, &'static str)>,
}

/// A directory as `build` writes it.
pub struct Built {
    pub directory: tempfile::TempDir,
    pub raw: PathBuf,
    pub disk: Disk,
    pub manifest: Manifest,
}

fn metadata(mode: u16) -> Metadata {
    Metadata { mtime: Timestamp::from_seconds(EPOCH), ..Metadata::with_mode(mode) }
}

/// A regular file.
pub fn file(bytes: impl Into<Vec<u8>>) -> Node {
    Node { metadata: metadata(0o644), kind: Kind::File(Content::from_bytes(bytes)) }
}

impl Default for Sketch {
    fn default() -> Self {
        let mut tree = Tree::new(metadata(0o755));
        for path in ["usr/bin", "usr/lib", "var/lib/dpkg", "etc"] {
            tree.make_directories(path.as_bytes(), &metadata(0o755)).unwrap();
        }
        tree.insert(b"usr/bin/large", file(noise(2_000_000, 7))).unwrap();
        tree.link(b"usr/bin/large", b"usr/bin/link").unwrap();
        tree.insert(b"etc/hostname", file("minimal\n")).unwrap();
        let status = "Package: base-files\nStatus: install ok installed\nArchitecture: amd64\nVersion: 13.8\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n";
        tree.insert(b"var/lib/dpkg/status", file(status)).unwrap();
        for number in 0..50 {
            tree.insert(format!("usr/lib/{number}").as_bytes(), file(noise(number * 100, 3))).unwrap();
        }
        let arguments = vec!["console=ttyS0".to_owned(), "quiet".to_owned()];
        Self {
            name: "minimal",
            version: "1",
            tree,
            arguments,
            uname: "6.12.1-test",
            packages: vec![("system", "base-files", "13.8"), ("initrd", "udev", "257")],
            recipe: Vec::new(),
            lock: None,
            written: BTreeMap::new(),
            initrd: noise(300_000, 5),
            esp_extra: Vec::new(),
        }
    }
}

impl Sketch {
    /// Writes the image.
    pub fn build(&self) -> Built {
        let seed = Seed::new(&[self.name, self.version, "amd64"]);
        let (salt, verity_uuid) = (seed.bytes(b"verity-salt"), seed.uuid(b"verity-uuid"));
        let mut root = Cursor::new(Vec::new());
        let options = erofs::Options { build_time: EPOCH, ..erofs::Options::default() };
        erofs::write(&self.tree, &options, &mut root).unwrap();
        let root = root.into_inner();
        let data_size = root.len() as u64;
        let mut hash = Vec::new();
        let root_hash = verity::format(&root, data_size, salt, verity_uuid, &mut hash).unwrap();
        let uki = uki::build(&Parts {
            stub: Content::from_bytes(stub()),
            kernel: Content::from_bytes(kernel("6.12.1-test")),
            initrd: Content::from_bytes(self.initrd.clone()),
            command_line: command_line::compose(&root_hash, &self.arguments).unwrap(),
            os_release: os_release::with_image("ID=debian\n", self.name, self.version),
            uname: self.uname.to_owned(),
        })
        .unwrap();
        let mut esp = Esp::direct(Architecture::Amd64, uki.clone(), Timestamp::from_seconds(EPOCH)).unwrap();
        for (path, text) in &self.esp_extra {
            esp.tree.insert(path.as_bytes(), file(*text)).unwrap();
        }
        let disk = Disk::new(&disk::Image {
            name: self.name,
            version: self.version,
            architecture: Architecture::Amd64,
            seed: &seed,
            esp,
            root: Content::from_bytes(root),
            verity: Content::from_bytes(hash),
            root_hash,
        })
        .unwrap();
        let sha256 = Digest::of(b"deb");
        let package = |set: &str, name: &str, version: &str| Package {
            set: set.into(),
            name: name.into(),
            architecture: "amd64".into(),
            version: version.into(),
            sha256,
            from: None,
        };
        let manifest = Manifest::describe(&Subject {
            name: self.name,
            version: self.version,
            architecture: Architecture::Amd64,
            epoch: EPOCH,
            recipe_sha256: record_digest(&self.recipe),
            lock_sha256: Digest::of(self.lock.as_ref().map(Lock::to_text).unwrap_or_default().as_bytes()),
            recipe: self.recipe.clone(),
            lock: self.lock.as_ref(),
            written: &self.written,
            state: adamant::recipe::State::Volatile,
            checks: &[],
            disk: &disk,
            uki: &uki,
            root_hash,
            salt,
            verity_uuid,
            data_size,
            packages: match &self.lock {
                Some(lock) => manifest::locked_packages(lock),
                None => self.packages.iter().map(|(set, name, version)| package(set, name, version)).collect(),
            },
            tree: &self.tree,
        })
        .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let raw = directory.path().join(&manifest.disk.file);
        disk::write_sparse(&disk.content, &File::create(&raw).unwrap()).unwrap();
        disk::write_sparse(&uki, &File::create(directory.path().join(&manifest.uki.file)).unwrap()).unwrap();
        let built = Built { directory, raw, disk, manifest };
        built.write_manifest();
        built
    }
}

impl Built {
    /// The directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes `manifest.json` and `SHA256SUMS` as they follow from the manifest.
    pub fn write_manifest(&self) {
        fs::write(self.path().join(manifest::FILE_NAME), self.manifest.to_json()).unwrap();
        let manifest = &self.manifest;
        let sums = manifest::checksums(&[
            (manifest::FILE_NAME.into(), manifest.digest()),
            (manifest.disk.file.clone(), manifest.disk.sha256),
            (manifest.uki.file.clone(), manifest.uki.sha256),
        ]);
        fs::write(self.path().join(manifest::CHECKSUMS_FILE_NAME), sums).unwrap();
    }
}
