//! The steps of an installation, in dpkg's place and by dpkg itself.
//!
//! Unpacking is ours: in parallel, from decompressed archives. Configuring is dpkg's: what order, which triggers, what
//! becomes of conffiles.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::ExitStatus;

use rayon::prelude::*;

use super::init::packages_failure;
use super::place::{Ownership, Placed, Placer};
use super::run::Runner;
use super::say;
use super::wire::{Event, Failure};
use crate::rootfs::database::{ADMIN_DIRECTORY, Triggers, file_list, info_name, md5sums, status_paragraph};
use crate::rootfs::deb::UnpackedPackage;
use crate::rootfs::disk::{Root, set_time};
use crate::rootfs::overlay::{Diversions, Overlay, Placement, order};
use crate::rootfs::phases;
use crate::tree::{Timestamp, show, split};

/// How much of the log an error shows.
const LOG_TAIL: u64 = 4096;

const POLICY: &[u8] = b"usr/sbin/policy-rc.d";

/// A tree in the making.
pub(super) struct Dpkg<'a> {
    packages: &'a [UnpackedPackage],
    root: &'a Root,
    overlay: Overlay<'a>,
    /// What is left to unpack; the first set is the base.
    phases: VecDeque<BTreeSet<usize>>,
    placed: Vec<Placed>,
    triggers: Triggers,
    /// Done so far, for progress.
    configured: usize,
    /// What was at [`POLICY`] before.
    policy: Option<Vec<u8>>,
}

impl<'a> Dpkg<'a> {
    pub(super) fn new(packages: &'a [UnpackedPackage], root: &'a Root) -> Self {
        Self {
            packages,
            root,
            overlay: Overlay::new(packages),
            phases: phases::phases(packages).into(),
            placed: Vec::new(),
            triggers: Triggers::default(),
            configured: 0,
            policy: None,
        }
    }

    pub(super) fn into_placed(self) -> Vec<Placed> {
        self.placed
    }

    /// Unpacks the base into the empty tree and starts the database.
    pub(super) fn unpack_base(&mut self) -> Result<BTreeSet<usize>, Failure> {
        let phase = self.phases.pop_front().unwrap_or_default();
        let base = self.in_order(&phase);
        for (name, target) in self.overlay.merge_usr().map_err(|error| packages_failure(&error))? {
            let made = self.root.make_directories(target.as_bytes()).and_then(|()| self.root.symlink(name, target));
            made.map_err(Failure::system(format!("make /{name}")))?;
        }
        self.unpack(&base, &Diversions::default(), Ownership::default())?;
        for directory in ["updates", "alternatives", "parts", "triggers", "info"] {
            let path = format!("{ADMIN_DIRECTORY}/{directory}");
            self.root.make_directories(path.as_bytes()).map_err(Failure::system(format!("make /{path}")))?;
        }
        self.write("info/format", b"1\n", 0o644)?;
        let native = self.packages.iter().find(|package| package.name() == "dpkg").map(UnpackedPackage::architecture);
        let Some(native) = native else {
            let message = "the packages do not include dpkg, so nothing can configure them".to_owned();
            return Err(Failure::Packages { message });
        };
        // The native one first; dpkg takes packages of the others only if they stand here.
        let foreign = self.packages.iter().map(UnpackedPackage::architecture);
        let foreign: BTreeSet<&str> = foreign.filter(|name| *name != native && *name != "all").collect();
        let all: String = std::iter::once(native).chain(foreign).map(|name| format!("{name}\n")).collect();
        self.write("arch", all.as_bytes(), 0o644)?;
        self.write("arch-native", format!("{native}\n").as_bytes(), 0o644)?;
        self.record(&base)?;
        Ok(phase)
    }

    /// Runs the scripts of the base and dpkg over it.
    pub(super) fn configure_base(
        &mut self,
        base: &BTreeSet<usize>,
        runner: &Runner<'_>,
        log: &Path,
    ) -> Result<(), Failure> {
        self.before_unpacking(phases::script_order(self.packages, base.iter().copied()), runner, log)?;
        self.configure(runner, log)
    }

    /// Runs the scripts of the next phase that want to run before their package is unpacked, then unpacks it. False if
    /// nothing is left.
    pub(super) fn unpack_next(&mut self, runner: &Runner<'_>, log: &Path) -> Result<bool, Failure> {
        let Some(phase) = self.phases.pop_front() else { return Ok(false) };
        let indices = self.in_order(&phase);
        self.before_unpacking(phases::script_order(self.packages, phase.into_iter()), runner, log)?;
        let diversions = self.root.read(b"var/lib/dpkg/diversions").map_err(Failure::system("read the diversions"))?;
        let ownership = Ownership::read(self.root).map_err(Failure::system("read users and overrides"))?;
        let placements = self.unpack(&indices, &Diversions::parse(&diversions), ownership)?;
        self.record(&indices)?;
        let paths = placements.iter().map(|placement| placement.path.as_slice());
        let mut events = Vec::new();
        for event in self.triggers.activated(paths) {
            events.extend_from_slice(event);
            events.extend_from_slice(b" -\n");
        }
        self.append("triggers/Unincorp", &events)?;
        Ok(true)
    }

    fn in_order(&self, phase: &BTreeSet<usize>) -> Vec<usize> {
        order(self.packages).into_iter().filter(|index| phase.contains(index)).collect()
    }

    fn unpack(
        &mut self,
        indices: &[usize],
        diversions: &Diversions,
        ownership: Ownership,
    ) -> Result<Vec<Placement>, Failure> {
        say(&Event::Stage(format!("unpacking {} packages", indices.len())));
        let mut placements = Vec::new();
        for index in indices {
            let placed = self.overlay.place(*index, diversions).map_err(|error| packages_failure(&error))?;
            placements.extend(placed);
        }
        let placer = Placer { root: self.root, packages: self.packages, ownership };
        let placed = placer.place(&placements);
        let placed = placed.map_err(|error| Failure::system(format!("write {}", show(&error.path)))(error.source))?;
        self.placed.extend(placed);
        Ok(placements)
    }

    /// Enters unpacked packages into the database.
    fn record(&mut self, indices: &[usize]) -> Result<(), Failure> {
        let mut status = String::new();
        for index in phases::script_order(self.packages, indices.iter().copied()) {
            status.push_str(&status_paragraph(&self.packages[index]));
            self.triggers.add(&self.packages[index]);
        }
        self.append("status", status.as_bytes())?;
        indices.par_iter().try_for_each(|index| self.record_files(*index))?;
        self.write("triggers/File", &self.triggers.file_text(), 0o644)?;
        for (name, text) in self.triggers.named_texts() {
            self.write(&format!("triggers/{name}"), text.as_bytes(), 0o644)?;
        }
        Ok(())
    }

    fn record_files(&self, index: usize) -> Result<(), Failure> {
        let package = &self.packages[index];
        let name = info_name(package);
        let displaced = self.overlay.displaced().iter().filter(|(owner, _)| *owner == index);
        let displaced: Vec<&[u8]> = displaced.map(|(_, path)| path.as_slice()).collect();
        self.write(&format!("info/{name}.list"), &file_list(package, &displaced), 0o644)?;
        for file in package.control_files() {
            let path = format!("info/{name}.{}", file.name);
            self.write(&path, &file.bytes, file.mode & 0o777)?;
            self.date(&path, file.mtime)?;
        }
        if package.control_file("md5sums").is_none() {
            let sums = md5sums(package).map_err(Failure::system(format!("read the files of {name}")))?;
            self.write(&format!("info/{name}.md5sums"), &sums, 0o644)?;
        }
        Ok(())
    }

    fn write(&self, path: &str, bytes: &[u8], mode: u16) -> Result<(), Failure> {
        let path = format!("{ADMIN_DIRECTORY}/{path}");
        self.root.write(path.as_bytes(), bytes, mode).map_err(Failure::system(format!("write /{path}")))
    }

    /// dpkg keeps the times that control files have in their package.
    fn date(&self, path: &str, seconds: i64) -> Result<(), Failure> {
        let path = format!("{ADMIN_DIRECTORY}/{path}");
        let date = || {
            let (parent, name) = split(path.as_bytes()).ok_or(std::io::ErrorKind::InvalidInput)?;
            set_time(&self.root.directory(parent)?, name, Timestamp::from_seconds(seconds))
        };
        date().map_err(Failure::system(format!("set the time of /{path}")))
    }

    fn append(&self, path: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = format!("{ADMIN_DIRECTORY}/{path}");
        self.root.append(path.as_bytes(), bytes).map_err(Failure::system(format!("write /{path}")))
    }

    /// Runs the `preinst` of those packages that have one, as dpkg does: from `tmp.ci`, which holds the package's
    /// control files, with dpkg's variables.
    fn before_unpacking(&self, indices: Vec<usize>, runner: &Runner<'_>, log: &Path) -> Result<(), Failure> {
        for index in indices {
            let package = &self.packages[index];
            if package.control_file("preinst").is_none() {
                continue;
            }
            let name = package.name();
            say(&Event::Stage(format!("preparing {name}")));
            self.write("tmp.ci/control", package.control().as_bytes(), 0o644)?;
            for file in package.control_files() {
                self.write(&format!("tmp.ci/{}", file.name), &file.bytes, file.mode & 0o777)?;
            }
            let variables = [
                ("DPKG_MAINTSCRIPT_PACKAGE", name),
                ("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT", "1"),
                ("DPKG_MAINTSCRIPT_ARCH", package.architecture()),
                ("DPKG_MAINTSCRIPT_NAME", "preinst"),
                ("DPKG_MAINTSCRIPT_DEBUG", "0"),
                ("DPKG_RUNNING_VERSION", self.dpkg_version()),
                ("DPKG_ADMINDIR", "/var/lib/dpkg"),
                ("DPKG_ROOT", ""),
            ];
            let ended = runner.run(&["/var/lib/dpkg/tmp.ci/preinst", "install"], &variables, None);
            let ended = ended.map_err(Failure::system(format!("run preinst of {name}")))?;
            if !ended.success() {
                let (package, script) = (name.to_owned(), "preinst".to_owned());
                return Err(Failure::Script { package, script, outcome: outcome(ended), log: tail(log) });
            }
            let clear = std::iter::once("control").chain(package.control_files().iter().map(|file| file.name.as_str()));
            self.remove_temporary(clear)?;
        }
        Ok(())
    }

    fn remove_temporary<'n>(&self, names: impl Iterator<Item = &'n str>) -> Result<(), Failure> {
        let remove = || {
            let admin = self.root.directory(ADMIN_DIRECTORY.as_bytes())?;
            let directory = self.root.directory(format!("{ADMIN_DIRECTORY}/tmp.ci").as_bytes())?;
            for name in names {
                crate::rootfs::disk::remove_file(&directory, name.as_bytes())?;
            }
            Ok(nix::unistd::unlinkat(&admin, "tmp.ci", nix::unistd::UnlinkatFlags::RemoveDir)?)
        };
        remove().map_err(Failure::system("remove /var/lib/dpkg/tmp.ci"))
    }

    /// Without epoch and revision games: dpkg tells scripts its own version.
    fn dpkg_version(&self) -> &str {
        self.packages.iter().find(|package| package.name() == "dpkg").map_or("", UnpackedPackage::version)
    }

    /// Runs dpkg over everything that is unpacked.
    pub(super) fn configure(&mut self, runner: &Runner<'_>, log: &Path) -> Result<(), Failure> {
        let total = self.packages.len();
        let mut failed = None;
        let arguments =
            ["--force-unsafe-io", "--force-confold", "--no-pager", "--abort-after=1", "--configure", "--pending"];
        let ended = runner.run_dpkg(&arguments, |line| {
            if let Some(name) = line.strip_prefix("processing: configure: ") {
                self.configured += 1;
                say(&Event::Stage(format!("configuring {name} ({} of {total})", self.configured)));
            } else if let Some(name) = line.strip_prefix("processing: trigproc: ") {
                say(&Event::Stage(format!("processing triggers of {name}")));
            } else if let Some((_, rest)) =
                line.strip_prefix("status: ").and_then(|rest| rest.split_once(" : error : "))
            {
                let package = line.trim_start_matches("status: ").split(' ').next().unwrap_or_default();
                failed.get_or_insert(format!("{package}: {rest}"));
            }
        });
        let ended = ended.map_err(Failure::system("run dpkg --configure"))?;
        if ended.success() && failed.is_none() {
            return Ok(());
        }
        let message = failed.unwrap_or_else(|| format!("dpkg --configure {}", outcome(ended)));
        Err(Failure::Dpkg { message, log: tail(log) })
    }

    /// Feeds answers to debconf, which is configured by now.
    pub(super) fn preseed(&self, runner: &Runner<'_>, log: &Path, answers: &[u8]) -> Result<(), Failure> {
        let path = "debconf-answers";
        self.write(path, answers, 0o600)?;
        let input = format!("/{ADMIN_DIRECTORY}/{path}");
        let ended = runner.run(&["debconf-set-selections"], &[], Some(&input));
        let ended = ended.map_err(Failure::system("run debconf-set-selections"))?;
        let remove = || {
            let directory = self.root.directory(ADMIN_DIRECTORY.as_bytes())?;
            crate::rootfs::disk::remove_file(&directory, path.as_bytes())
        };
        remove().map_err(Failure::system("remove the answers for debconf"))?;
        if !ended.success() {
            let message = format!("debconf-set-selections {}", outcome(ended));
            return Err(Failure::Dpkg { message, log: tail(log) });
        }
        Ok(())
    }

    /// Every package is installed and dpkg has no complaint.
    pub(super) fn check(&self, runner: &Runner<'_>, log: &Path) -> Result<(), Failure> {
        say(&Event::Stage("checking dpkg's database".to_owned()));
        let before = std::fs::metadata(log).map_or(0, |status| status.len());
        let ended = runner.run(&["dpkg", "--audit"], &[], None).map_err(Failure::system("run dpkg --audit"))?;
        let mut report = tail_from(log, before);
        if !ended.success() && report.is_empty() {
            report = format!("dpkg --audit {}", outcome(ended));
        }
        let status = self.root.read(b"var/lib/dpkg/status").map_err(Failure::system("read dpkg's status"))?;
        let status = String::from_utf8_lossy(&status);
        let installed = status.lines().filter(|line| *line == "Status: install ok installed").count();
        if installed != self.packages.len() && report.is_empty() {
            report = format!("{installed} of {} packages are installed", self.packages.len());
        }
        if report.is_empty() { Ok(()) } else { Err(Failure::Unfinished { report }) }
    }

    /// `invoke-rc.d` and `deb-systemd-invoke` ask this program, and are told no.
    pub(super) fn forbid_services(&mut self) -> Result<(), Failure> {
        let old = self.root.read(POLICY).map_err(Failure::system("read policy-rc.d"))?;
        self.policy = (!old.is_empty()).then_some(old);
        self.root.write(POLICY, b"#!/bin/sh\nexit 101\n", 0o755).map_err(Failure::system("write policy-rc.d"))
    }

    /// Takes away what [`Dpkg::forbid_services`] put there.
    pub(super) fn allow_services(&self) -> Result<(), Failure> {
        let restore = || match &self.policy {
            Some(old) => self.root.write(POLICY, old, 0o755),
            None => crate::rootfs::disk::remove_file(&self.root.directory(b"usr/sbin")?, b"policy-rc.d"),
        };
        restore().map_err(Failure::system("remove policy-rc.d"))
    }
}

fn outcome(ended: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (ended.code(), ended.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (_, Some(signal)) => format!("was ended by signal {signal}"),
        _ => "ended in an unknown way".to_owned(),
    }
}

/// The last lines of the log.
fn tail(log: &Path) -> String {
    let length = std::fs::metadata(log).map_or(0, |status| status.len());
    let text = tail_from(log, length.saturating_sub(LOG_TAIL));
    // The first line may be a part of one.
    match text.split_once('\n') {
        Some((_, rest)) if length > LOG_TAIL => rest.to_owned(),
        _ => text,
    }
}

fn tail_from(log: &Path, offset: u64) -> String {
    let mut bytes = Vec::new();
    let mut read = || -> std::io::Result<()> {
        let mut file = File::open(log)?;
        file.seek(SeekFrom::Start(offset))?;
        file.take(LOG_TAIL).read_to_end(&mut bytes).map(drop)
    };
    // The log only illustrates an error: if it cannot be read, the error stands without it.
    let _ = read();
    String::from_utf8_lossy(&bytes).into_owned()
}
