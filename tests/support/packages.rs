//! Packages made by the tests: a base from the host's own dpkg and shell, and small ones with scripts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use adamant::rootfs::deb::{UnpackedPackage, unpack};

use super::archive::Deb;

/// What dpkg insists on, and what scripts of the tests call.
const PROGRAMS: &[&str] = &[
    "cat",
    "chmod",
    "chown",
    "date",
    "diff",
    "dpkg",
    "dpkg-deb",
    "dpkg-divert",
    "dpkg-query",
    "dpkg-split",
    "dpkg-statoverride",
    "dpkg-trigger",
    "id",
    "ldconfig",
    "ln",
    "ls",
    "mkdir",
    "mknod",
    "mv",
    "nproc",
    "readlink",
    "rm",
    "sh",
    "sleep",
    "start-stop-daemon",
    "stat",
    "tar",
    "touch",
    "uname",
    "unshare",
];

/// A package in the making.
#[derive(Default, Clone)]
pub struct Package {
    control: String,
    scripts: Vec<(&'static str, String)>,
    items: Vec<Item>,
}

#[derive(Clone)]
struct Item {
    path: String,
    kind: tar::EntryType,
    mode: u32,
    owner: (u64, u64),
    link: String,
    device: (u32, u32),
    xattr: Option<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
    /// The path stands in the archive as it is, whatever that is.
    raw: bool,
}

impl Package {
    pub fn new(name: &str, fields: &str) -> Self {
        let control = format!(
            "Package: {name}\nVersion: 1\nArchitecture: {}\nMaintainer: Tests <t@example.org>\n{fields}Description: x\n",
            architecture()
        );
        Self { control, ..Self::default() }.item("", tar::EntryType::Directory, 0o755)
    }

    /// `preinst`, `postinst`, `triggers`, `conffiles`, ...
    pub fn control_file(mut self, name: &'static str, text: &str) -> Self {
        let script = ["preinst", "postinst", "prerm", "postrm"].contains(&name);
        self.scripts.push((name, if script { format!("#!/bin/sh\nset -e\n{text}") } else { text.to_owned() }));
        self
    }

    pub fn directory(self, path: &str) -> Self {
        self.item(path, tar::EntryType::Directory, 0o755)
    }

    pub fn file(self, path: &str, mode: u32, body: impl Into<Vec<u8>>) -> Self {
        let mut package = self.item(path, tar::EntryType::Regular, mode);
        package.last().body = body.into();
        package
    }

    /// A file whose path goes into the archive as it is: `../x`, `/x`.
    pub fn hostile_file(self, path: &str, body: &str) -> Self {
        let mut package = self.file(path, 0o644, body);
        package.last().raw = true;
        package
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        let mut package = self.item(path, tar::EntryType::Symlink, 0o777);
        target.clone_into(&mut package.last().link);
        package
    }

    pub fn hard_link(self, path: &str, target: &str) -> Self {
        let mut package = self.item(path, tar::EntryType::Link, 0o644);
        package.last().link = format!("./{target}");
        package
    }

    pub fn device(self, path: &str, kind: tar::EntryType, major: u32, minor: u32) -> Self {
        let mut package = self.item(path, kind, 0o660);
        package.last().device = (major, minor);
        package
    }

    pub fn fifo(self, path: &str) -> Self {
        self.item(path, tar::EntryType::Fifo, 0o600)
    }

    /// Changes the owner of the item added last.
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.last().owner = (uid, gid);
        self
    }

    /// Gives the item added last an extended attribute.
    pub fn xattr(mut self, name: &'static str, value: &[u8]) -> Self {
        self.last().xattr = Some((name, value.to_vec()));
        self
    }

    fn item(mut self, path: &str, kind: tar::EntryType, mode: u32) -> Self {
        let (path, link, body) = (path.to_owned(), String::new(), Vec::new());
        self.items.push(Item { path, kind, mode, owner: (0, 0), link, device: (0, 0), xattr: None, body, raw: false });
        self
    }

    fn last(&mut self) -> &mut Item {
        self.items.last_mut().unwrap()
    }

    /// The `.deb`.
    pub fn bytes(&self) -> Vec<u8> {
        let mut control = tar::Builder::new(Vec::new());
        append(&mut control, &Item::regular("control", 0o644, self.control.as_bytes()));
        for (name, text) in &self.scripts {
            let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
            append(&mut control, &Item::regular(name, mode, text.as_bytes()));
        }
        let mut data = tar::Builder::new(Vec::new());
        self.items.iter().for_each(|item| append(&mut data, item));
        let members = [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar", control.into_inner().unwrap()),
            ("data.tar.zst", zstd::encode_all(data.into_inner().unwrap().as_slice(), 1).unwrap()),
        ];
        let mut bytes = b"!<arch>\n".to_vec();
        for (name, body) in members {
            bytes.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, body.len()).bytes());
            bytes.extend_from_slice(&body);
            bytes.extend(std::iter::repeat_n(b'\n', body.len() % 2));
        }
        bytes
    }

    /// The package as an archive has it.
    pub fn deb(&self) -> Deb {
        Deb::ready(&self.control, self.bytes())
    }

    /// Writes the `.deb` to `directory` and unpacks it there.
    pub fn unpack(&self, directory: &Path) -> UnpackedPackage {
        let number = fs::read_dir(directory).unwrap().count();
        let deb = directory.join(format!("{number}.deb"));
        fs::write(&deb, self.bytes()).unwrap();
        unpack(&deb, &directory.join(format!("{number}.data"))).unwrap()
    }
}

impl Item {
    fn regular(path: &str, mode: u32, body: &[u8]) -> Self {
        let (path, kind, link, body) = (path.to_owned(), tar::EntryType::Regular, String::new(), body.to_vec());
        Self { path, kind, mode, owner: (0, 0), link, device: (0, 0), xattr: None, body, raw: false }
    }
}

fn append(builder: &mut tar::Builder<Vec<u8>>, item: &Item) {
    if let Some((name, value)) = &item.xattr {
        let key = format!("SCHILY.xattr.{name}");
        builder.append_pax_extensions([(key.as_str(), value.as_slice())]).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(item.kind);
    header.set_mode(item.mode);
    header.set_uid(item.owner.0);
    header.set_gid(item.owner.1);
    header.set_mtime(1_500_000_000);
    header.set_size(item.body.len() as u64);
    header.set_device_major(item.device.0).unwrap();
    header.set_device_minor(item.device.1).unwrap();
    if item.raw {
        header.as_old_mut().name[..item.path.len()].copy_from_slice(item.path.as_bytes());
        header.set_cksum();
        return builder.append(&header, item.body.as_slice()).unwrap();
    }
    let path = format!("./{}", item.path);
    match item.link.is_empty() {
        true => builder.append_data(&mut header, path, item.body.as_slice()).unwrap(),
        false => builder.append_link(&mut header, path, &item.link).unwrap(),
    }
}

/// The architecture in Debian's words.
pub fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// The directories of a Debian system, as `base-files` has them.
pub fn base_files() -> Package {
    let mut package = Package::new("base-files", "Essential: yes\n");
    for path in
        ["dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "usr/bin", "usr/lib", "usr/lib64", "usr/sbin"]
    {
        package = package.directory(path);
    }
    for path in ["var", "var/lib", "var/lib/dpkg", "var/lib/dpkg/info", "var/log"] {
        package = package.directory(path);
    }
    for name in ["bin", "lib", "lib64", "sbin"] {
        package = package.symlink(name, &format!("usr/{name}"));
    }
    package
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/sh\n")
        .file("etc/group", 0o644, "root:x:0:\ndaemon:x:1:\n")
        .file("etc/motd", 0o644, "hello\n")
}

/// A package named dpkg with dpkg, a shell and what they need, from the host; `None` on a host without dpkg.
pub fn dpkg() -> Option<Package> {
    let mut package = Package::new("dpkg", "Essential: yes\nDepends: base-files\n").directory("etc/alternatives");
    let mut libraries = BTreeSet::new();
    for name in PROGRAMS {
        let program = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(|d| Path::new(d).join(name));
        let program = program.into_iter().find(|path| path.exists())?;
        let home = if matches!(*name, "ldconfig" | "start-stop-daemon") { "usr/sbin" } else { "usr/bin" };
        package = package.file(&format!("{home}/{name}"), 0o755, fs::read(&program).unwrap());
        libraries.extend(libraries_of(&program));
    }
    let mut names = BTreeSet::new();
    for library in libraries {
        let name = library.file_name()?.to_str()?.to_owned();
        if !names.insert(name.clone()) {
            continue;
        }
        // The loader's path is fixed in every program; all else is found by its name.
        let home = if name.starts_with("ld-linux") { loader_directory() } else { "usr/lib" };
        package = package.file(&format!("{home}/{name}"), 0o755, fs::read(&library).unwrap());
    }
    Some(package)
}

fn loader_directory() -> &'static str {
    if cfg!(target_arch = "aarch64") { "usr/lib" } else { "usr/lib64" }
}

fn libraries_of(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_ascii_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
