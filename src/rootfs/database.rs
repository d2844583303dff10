//! dpkg's database, as `dpkg --unpack` writes it.
//!
//! Flows in: unpacked packages. Flows out: the texts below `/var/lib/dpkg` from which dpkg configures them. dpkg
//! itself brings `status` into its canonical form when it runs, so a paragraph here only has to say the right thing.
//!
//! ```text
//! status                 Package, "Status: install ok unpacked", the control fields, Conffiles
//! info/format            "1"
//! info/NAME.list         every path of the package, "/." first; NAME is name:arch for Multi-Arch: same
//! info/NAME.postinst ... the files of the control archive
//! triggers/File          "/path package[/noawait]": who wants to know of files below a path
//! triggers/NAME          "package[/noawait]": who wants to know of a named event
//! triggers/Unincorp      "event -": what has happened since dpkg last ran
//! ```
//!
//! Specification: dpkg `lib/dpkg/{dump,parse,db-fsys-files}.c`, `lib/dpkg/triglib.c`, `deb-triggers(5)`.

use std::collections::BTreeMap;
use std::fmt::Write;

use md5::{Digest as _, Md5};

use super::deb::{EntryKind, UnpackedPackage};

/// The directory of the database.
pub(super) const ADMIN_DIRECTORY: &str = "var/lib/dpkg";

/// The name of a package's files in `info/`.
pub(super) fn info_name(package: &UnpackedPackage) -> String {
    match package.field("Multi-Arch") {
        Some("same") => format!("{}:{}", package.name(), package.architecture()),
        _ => package.name().to_owned(),
    }
}

/// The paragraph of an unpacked package in `status`, with the empty line that ends it.
pub(super) fn status_paragraph(package: &UnpackedPackage) -> String {
    let mut text = String::from("Status: install ok unpacked\n");
    text.push_str(package.control().trim_end());
    text.push('\n');
    for (index, line) in package.conffile_lines().enumerate() {
        text.push_str(if index == 0 { "Conffiles:\n" } else { "" });
        let _ = match line.split_once(' ') {
            Some((flag, path)) => writeln!(text, " {path} newconffile {flag}"),
            None => writeln!(text, " {line} newconffile"),
        };
    }
    text.push('\n');
    text
}

/// `info/NAME.list`, without the files that another package took over.
pub(super) fn file_list(package: &UnpackedPackage, displaced: &[&[u8]]) -> Vec<u8> {
    let mut text = Vec::new();
    for entry in package.entries().iter().filter(|entry| !displaced.contains(&entry.path.as_slice())) {
        text.push(b'/');
        text.extend_from_slice(if entry.path.is_empty() { b"." } else { &entry.path });
        text.push(b'\n');
    }
    text
}

/// `info/NAME.md5sums` for a package that brings none: dpkg makes it while unpacking, of every file but conffiles.
pub(super) fn md5sums(package: &UnpackedPackage) -> std::io::Result<Vec<u8>> {
    let conffiles = package.conffiles();
    let mut text = Vec::new();
    for entry in package.entries() {
        let is_conffile = conffiles.iter().any(|path| path.as_bytes() == entry.path);
        let first = match &entry.kind {
            EntryKind::HardLink(target) => package.entry(target),
            _ => Some(entry),
        };
        let Some(content) = first.and_then(|entry| package.content(entry)).filter(|_| !is_conffile) else { continue };
        let mut hasher = Md5::new();
        let mut reader = content.reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match std::io::Read::read(&mut reader, &mut buffer)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        for byte in hasher.finalize() {
            text.extend_from_slice(format!("{byte:02x}").as_bytes());
        }
        text.extend_from_slice(b"  ");
        text.extend_from_slice(&entry.path);
        text.push(b'\n');
    }
    Ok(text)
}

/// Who is interested in which event.
#[derive(Debug, Default)]
pub(super) struct Triggers {
    /// Path, package with `/noawait` where it said so; in order of arrival, as dpkg keeps them.
    files: Vec<(Vec<u8>, String)>,
    named: BTreeMap<String, Vec<String>>,
}

impl Triggers {
    /// Takes in the interests of a package.
    pub(super) fn add(&mut self, package: &UnpackedPackage) {
        let Some(file) = package.control_file("triggers") else { return };
        let text = String::from_utf8_lossy(&file.bytes);
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let (Some(directive), Some(event)) = (words.next(), words.next()) else { continue };
            let mut interested = info_name(package);
            match directive {
                "interest" | "interest-await" => {}
                "interest-noawait" => interested.push_str("/noawait"),
                _ => continue,
            }
            if event.starts_with('/') {
                self.files.push((event.as_bytes().to_vec(), interested));
            } else {
                self.named.entry(event.to_owned()).or_default().push(interested);
            }
        }
    }

    /// `triggers/File`.
    pub(super) fn file_text(&self) -> Vec<u8> {
        let line = |(path, package): &(Vec<u8>, String)| [path, b" ".as_slice(), package.as_bytes(), b"\n"].concat();
        self.files.iter().flat_map(line).collect()
    }

    /// `triggers/NAME` and its contents, for each named event.
    pub(super) fn named_texts(&self) -> impl Iterator<Item = (&str, String)> {
        self.named.iter().map(|(name, packages)| (name.as_str(), packages.join("\n") + "\n"))
    }

    /// The paths of interest below which one of `paths` (without leading slash) lies: dpkg announces these when it
    /// unpacks such a file.
    pub(super) fn activated<'a>(&self, paths: impl Iterator<Item = &'a [u8]>) -> Vec<&[u8]> {
        let mut found = vec![false; self.files.len()];
        for path in paths {
            for (index, (interest, _)) in self.files.iter().enumerate() {
                let below = path.strip_prefix(&interest[1..]);
                found[index] |= below.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
            }
        }
        let mut events: Vec<&[u8]> =
            self.files.iter().zip(&found).filter(|(_, found)| **found).map(|((path, _), _)| path.as_slice()).collect();
        events.sort_unstable();
        events.dedup();
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::rootfs::deb::{ControlFile, Entry};
    use crate::tree::Metadata;

    fn package(fields: &str, files: &[(&str, &str)]) -> UnpackedPackage {
        let control = format!("Package: a\nVersion: 1\nArchitecture: amd64\n{fields}\n");
        let control_file = |(name, text): &(&str, &str)| ControlFile {
            name: (*name).to_owned(),
            mode: 0o644,
            mtime: 0,
            bytes: text.as_bytes().to_vec(),
        };
        let entry = |path: &str, kind| Entry {
            path: path.into(),
            kind,
            metadata: Metadata::with_mode(0o644),
            user: Vec::new(),
            group: Vec::new(),
        };
        let empty = EntryKind::File { offset: 0, size: 0, digest: Digest::of(b"") };
        let entries = vec![
            entry("", EntryKind::Directory),
            entry("etc", EntryKind::Directory),
            entry("etc/x", empty.clone()),
            entry("usr/a", empty),
            entry("usr/b", EntryKind::HardLink(b"usr/a".to_vec())),
        ];
        UnpackedPackage::from_parts("a", "1", "amd64", control, files.iter().map(control_file).collect(), entries)
    }

    #[test]
    fn an_unpacked_package_has_new_conffiles() {
        let package = package("Description: x\n y", &[("conffiles", "/etc/x\nremove-on-upgrade /etc/y\n")]);
        let expected = "Status: install ok unpacked\nPackage: a\nVersion: 1\nArchitecture: amd64\n\
                        Description: x\n y\nConffiles:\n /etc/x newconffile\n \
                        /etc/y newconffile remove-on-upgrade\n\n";
        assert_eq!(status_paragraph(&package), expected);
    }

    #[test]
    fn lists_name_the_root_as_a_dot_and_leave_out_what_was_replaced() {
        assert_eq!(file_list(&package("", &[]), &[]), b"/.\n/etc\n/etc/x\n/usr/a\n/usr/b\n");
        assert_eq!(file_list(&package("", &[]), &[b"etc/x"]), b"/.\n/etc\n/usr/a\n/usr/b\n");
    }

    #[test]
    fn packages_for_several_architectures_carry_theirs_in_the_name() {
        assert_eq!(info_name(&package("Multi-Arch: same", &[])), "a:amd64");
        assert_eq!(info_name(&package("Multi-Arch: foreign", &[])), "a");
    }

    #[test]
    fn checksums_leave_out_conffiles() {
        let package = package("", &[("conffiles", "/etc/x\n")]);
        let empty = "d41d8cd98f00b204e9800998ecf8427e";
        assert_eq!(String::from_utf8(md5sums(&package).unwrap()), Ok(format!("{empty}  usr/a\n{empty}  usr/b\n")));
    }

    #[test]
    fn triggers_are_announced_for_files_below_a_path_of_interest() {
        let text = "# a comment\ninterest-noawait /usr/lib/x\ninterest ldconfig\nactivate other # no interest\n";
        let mut triggers = Triggers::default();
        triggers.add(&package("", &[("triggers", text)]));
        assert_eq!(triggers.file_text(), b"/usr/lib/x a/noawait\n");
        assert_eq!(triggers.named_texts().collect::<Vec<_>>(), [("ldconfig", "a\n".to_owned())]);
        let activated = |path: &'static str| triggers.activated(std::iter::once(path.as_bytes())).len();
        assert_eq!((activated("usr/lib/x"), activated("usr/lib/x/y"), activated("usr/lib/xy")), (1, 1, 0));
    }
}
