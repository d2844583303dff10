//! Which kernel modules an initrd takes, and the indexes by which libkmod finds them.
//!
//! In: the tree that holds `usr/lib/modules/<release>` (from the kernel's package: neither `modules.dep` nor any other
//! output of depmod is needed). Out: those modules, uncompressed, with `modules.dep.bin`, `modules.alias.bin` and
//! `modules.softdep`. The facts (dependencies, aliases) come from each module's own `.modinfo` section. Modules are
//! stored uncompressed because the initrd is compressed as a whole: better, and decoded once, not per module.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use object::read::elf::{ElfFile64, FileHeader as _};
use object::{Endianness, Object as _, ObjectSection as _};

use super::InitrdError;
use super::kmod_index::{self, Entries};
use crate::tree::{Content, Kind, Metadata, Node, NodeId, Tree};

/// A module of the default set.
struct Wanted {
    /// As in `modinfo -F name`, `_` or `-` alike.
    name: &'static str,
    /// What it is there for.
    #[allow(dead_code, reason = "the table is the documentation; the reason stands beside the name on purpose")]
    reason: &'static str,
    /// Without it no image boots; others are skipped if the kernel does not have them.
    required: bool,
}

const fn required(name: &'static str, reason: &'static str) -> Wanted {
    Wanted { name, reason, required: true }
}

const fn optional(name: &'static str, reason: &'static str) -> Wanted {
    Wanted { name, reason, required: false }
}

/// What a virtual machine and the big clouds need up to the moment the root file system is mounted. Everything else
/// is loaded from there. A module that is built into the kernel counts as there.
const WANTED: &[Wanted] = &[
    required("dm-verity", "checks the root file system"),
    required("erofs", "the root file system"),
    required("overlay", "what is writable stands over what is not"),
    optional("autofs4", "systemd loads it before anything else"),
    optional("loop", "on it the file system of a persistent machine's /var is made"),
    optional("ext4", "a persistent machine's /var"),
    optional("sha256-ssse3", "dm-verity's hash with the CPU's SHA or AVX instructions"),
    optional("virtio_pci", "KVM, GCE, most others: the bus"),
    optional("virtio_mmio", "microvm machines: the bus"),
    optional("virtio_blk", "KVM: disk"),
    optional("virtio_scsi", "GCE, OpenStack, Hetzner: disk"),
    optional("virtio_console", "the console of microvm machines; the port on which `boot --test` reports"),
    optional("nvme", "AWS, Azure (v6), GCE: disk"),
    optional("xen-blkfront", "AWS before Nitro, Xen: disk"),
    optional("xen-scsifront", "Xen: SCSI disk"),
    optional("hv_vmbus", "Azure, Hyper-V: the bus"),
    optional("hv_storvsc", "Azure, Hyper-V: disk"),
    optional("pci-hyperv", "Azure: PCI devices behind vmbus, among them NVMe"),
    optional("vmw_pvscsi", "VMware: disk"),
    optional("sd_mod", "SCSI disks of every kind"),
    optional("ahci", "SATA: q35's and VirtualBox's default"),
    optional("ata_piix", "IDE: the default of old machine types"),
    optional("qemu_fw_cfg", "credentials that QEMU hands over by fw_cfg"),
    optional("efivarfs", "what the firmware and the boot stub tell"),
    optional("tpm_crb", "sealed credentials"),
    optional("tpm_tis", "sealed credentials"),
    optional("pvpanic-pci", "tells the virtual machine monitor of a panic before the root is mounted"),
];

/// A module's name to its file: below `usr/lib/modules/<release>`, and the node.
type Files = BTreeMap<Vec<u8>, (Vec<u8>, NodeId)>;

/// A module file, read.
struct Module {
    /// Below `usr/lib/modules/<release>/`, with `.ko` at the end.
    path: Vec<u8>,
    bytes: Vec<u8>,
    depends: Vec<Vec<u8>>,
    aliases: Vec<Vec<u8>>,
    soft: Vec<Vec<u8>>,
    /// Modules that a `softdep` line names, before or after.
    soft_names: Vec<Vec<u8>>,
}

/// The names of the default modules.
pub fn wanted() -> impl Iterator<Item = &'static str> {
    WANTED.iter().map(|wanted| wanted.name)
}

/// Puts the default modules, the `extra` ones and all that they depend on into `target`.
pub fn add(kernel: &Tree, release: &str, extra: &[String], target: &mut Tree) -> Result<(), InitrdError> {
    let root = format!("usr/lib/modules/{release}");
    let files = files(kernel, &root)?;
    let builtin = builtin(kernel, &root)?;
    let mut modules: BTreeMap<Vec<u8>, Module> = BTreeMap::new();
    let wanted = WANTED.iter().map(|wanted| (wanted.name, wanted.required));
    let mut pending: Vec<(Vec<u8>, bool)> = wanted
        .chain(extra.iter().map(|name| (name.as_str(), true)))
        .map(|(name, required)| (canonical(name.as_bytes()), required))
        .collect();
    while let Some((name, required)) = pending.pop() {
        if modules.contains_key(&name) || builtin.contains(&name) {
            continue;
        }
        let Some((path, id)) = files.get(&name) else {
            if required {
                let name = String::from_utf8_lossy(&name).into_owned();
                return Err(InitrdError::NoModule { name, release: release.to_owned() });
            }
            continue;
        };
        let module = read(kernel, &root, path, *id)?;
        pending.extend(module.depends.iter().map(|name| (name.clone(), true)));
        pending.extend(module.soft_names.iter().map(|name| (name.clone(), false)));
        modules.insert(name, module);
    }
    write(&root, modules, target)
}

/// `-` and `_` are the same in a module's name.
fn canonical(name: &[u8]) -> Vec<u8> {
    name.iter().map(|byte| if *byte == b'-' { b'_' } else { *byte }).collect()
}

/// Every module file by its name.
fn files(kernel: &Tree, root: &str) -> Result<Files, InitrdError> {
    let directory = kernel.lookup(root.as_bytes()).ok_or_else(|| InitrdError::NoModules { path: root.to_owned() })?;
    let mut files = BTreeMap::new();
    let mut pending = vec![(Vec::new(), directory)];
    while let Some((path, id)) = pending.pop() {
        for (name, child) in kernel.entries(id).into_iter().flatten() {
            let mut below = path.clone();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend(name);
            if kernel.entries(*child).is_some() {
                pending.push((below, *child));
            } else if let Some(stem) =
                [&b".ko"[..], b".ko.xz", b".ko.zst", b".ko.gz"].iter().find_map(|ending| name.strip_suffix(*ending))
            {
                files.insert(canonical(stem), (below, *child));
            }
        }
    }
    Ok(files)
}

/// The modules that are part of the kernel, from `modules.builtin`, which is of the package.
fn builtin(kernel: &Tree, root: &str) -> Result<BTreeSet<Vec<u8>>, InitrdError> {
    let path = format!("{root}/modules.builtin");
    let Some(id) = kernel.lookup(path.as_bytes()) else { return Ok(BTreeSet::new()) };
    let bytes = super::contents_of(kernel, path.as_bytes(), id)?;
    let names = bytes.split(|byte| *byte == b'\n').filter_map(|line| {
        let name = line.rsplit(|byte| *byte == b'/').next()?;
        name.strip_suffix(b".ko").map(canonical)
    });
    Ok(names.collect())
}

/// No module of any kernel is as large, uncompressed.
const MODULE_SIZE_MAX: u64 = 64 << 20;

fn read(kernel: &Tree, root: &str, path: &[u8], id: NodeId) -> Result<Module, InitrdError> {
    let full = [root.as_bytes(), b"/", path].concat();
    let stored = super::contents_of(kernel, &full, id)?;
    let failed = |source| InitrdError::Module { path: full.clone(), source };
    let mut bytes = Vec::new();
    let (decoded, ending) = match path.rsplit(|byte| *byte == b'.').next() {
        Some(b"xz") => (liblzma::read::XzDecoder::new(&stored[..]).take(MODULE_SIZE_MAX).read_to_end(&mut bytes), 3),
        Some(b"gz") => (flate2::read::GzDecoder::new(&stored[..]).take(MODULE_SIZE_MAX).read_to_end(&mut bytes), 3),
        Some(b"zst") => {
            let decoder = zstd::stream::read::Decoder::new(&stored[..]).map_err(failed)?;
            (decoder.take(MODULE_SIZE_MAX).read_to_end(&mut bytes), 4)
        }
        _ => {
            bytes = stored;
            (Ok(0), 0)
        }
    };
    decoded.map_err(failed)?;
    let information = modinfo(&bytes).ok_or_else(|| InitrdError::NotAModule { path: full.clone() })?;
    let values = |key: &[u8]| -> Vec<Vec<u8>> {
        let fields = information.split(|byte| *byte == 0);
        fields.filter_map(|field| field.strip_prefix(key)?.strip_prefix(b"=")).map(<[u8]>::to_vec).collect()
    };
    let depends = values(b"depends");
    let depends = depends.iter().flat_map(|list| list.split(|byte| *byte == b',')).filter(|name| !name.is_empty());
    let soft = values(b"softdep");
    let words = soft.iter().flat_map(|line| line.split(|byte| *byte == b' '));
    let soft_names = words.filter(|word| !word.is_empty() && !word.ends_with(b":")).map(canonical).collect();
    Ok(Module {
        path: path[..path.len() - ending].to_vec(),
        depends: depends.map(canonical).collect(),
        aliases: values(b"alias"),
        soft,
        soft_names,
        bytes,
    })
}

/// The `.modinfo` section: `key=value` strings, each ended by NUL.
fn modinfo(elf: &[u8]) -> Option<&[u8]> {
    object::elf::FileHeader64::<Endianness>::parse(elf).ok()?;
    let file = ElfFile64::<Endianness>::parse(elf).ok()?;
    file.section_by_name(".modinfo")?.data().ok()
}

fn write(root: &str, modules: BTreeMap<Vec<u8>, Module>, target: &mut Tree) -> Result<(), InitrdError> {
    let (mut dependencies, mut aliases) = (Entries::new(), Entries::new());
    let mut soft = Vec::new();
    for (priority, (name, module)) in modules.iter().enumerate() {
        let mut line = [&module.path[..], b":"].concat();
        for path in closure(name, &modules) {
            line.push(b' ');
            line.extend(path);
        }
        dependencies.insert(name.clone(), vec![(priority as u32, line)]);
        for alias in module.aliases.iter().filter(|alias| alias.is_ascii()) {
            aliases.entry(canonical_alias(alias)).or_default().push((priority as u32, name.clone()));
        }
        for words in &module.soft {
            soft.extend([b"softdep ", &name[..], b" ", words, b"\n"].concat());
        }
    }
    let directory = Metadata::with_mode(0o755);
    let mut insert = |path: &[u8], bytes: Vec<u8>| {
        let path = [root.as_bytes(), b"/", path].concat();
        let parent = crate::tree::split(&path).map_or(&[][..], |(parent, _)| parent);
        target.make_directories(parent, &directory)?;
        let node = Node { metadata: Metadata::with_mode(0o644), kind: Kind::File(Content::from_bytes(bytes)) };
        target.insert(&path, node)
    };
    insert(b"modules.dep.bin", kmod_index::write(&dependencies))?;
    insert(b"modules.alias.bin", kmod_index::write(&aliases))?;
    insert(b"modules.softdep", soft)?;
    for module in modules.into_values() {
        insert(&module.path, module.bytes)?;
    }
    Ok(())
}

/// The paths of all that `name` depends on, each before what it depends on itself: libkmod loads from the end.
fn closure<'a>(name: &[u8], modules: &'a BTreeMap<Vec<u8>, Module>) -> Vec<&'a [u8]> {
    fn visit<'a>(
        name: &[u8],
        modules: &'a BTreeMap<Vec<u8>, Module>,
        seen: &mut BTreeSet<Vec<u8>>,
        order: &mut Vec<&'a [u8]>,
    ) {
        let Some(module) = modules.get(name) else { return };
        if seen.insert(name.to_vec()) {
            module.depends.iter().for_each(|name| visit(name, modules, seen, order));
            order.push(&module.path);
        }
    }
    let mut order = Vec::new();
    visit(name, modules, &mut BTreeSet::new(), &mut order);
    order.pop();
    order.reverse();
    order
}

/// As depmod: `-` becomes `_`, except within a character class.
fn canonical_alias(alias: &[u8]) -> Vec<u8> {
    let mut within = false;
    let convert = |byte: &u8| {
        match byte {
            b'[' => within = true,
            b']' => within = false,
            b'-' if !within => return b'_',
            _ => {}
        }
        *byte
    };
    alias.iter().map(convert).collect()
}
