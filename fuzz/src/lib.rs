//! Every reader of bytes from outside as a function of bytes: what the fuzz targets and `tests/hostile` drive.
//!
//! A target panics if the reader does, or if a promise beyond that is broken (what was read is written and reads back).
//! How much memory an input may take is part of its row. Formats whose checksums would stop a mutation at the door
//! are also read with the checksums put right.

mod archives;
mod images;
mod repair;
mod texts;

/// A reader of bytes from outside.
pub struct Target {
    /// As the fuzz target is called.
    pub name: &'static str,
    /// Reads the bytes, and whatever they lead to.
    pub run: fn(&[u8]),
    /// Bytes of memory that an empty input may take.
    pub room: usize,
    /// Bytes of memory that each byte of an input may take beyond that.
    pub room_per_byte: usize,
}

const MIB: usize = 1 << 20;

const fn target(name: &'static str, run: fn(&[u8]), room: usize, room_per_byte: usize) -> Target {
    Target { name, run, room, room_per_byte }
}

/// All of them, in the order of the dataflow.
pub const TARGETS: &[Target] = &[
    target("recipe", texts::recipe, 4 * MIB, 400),
    target("config", texts::config, MIB, 100),
    target("apt_sources", texts::apt_sources, MIB, 100),
    target("identifiers", texts::identifiers, MIB, 100),
    target("openpgp_keys", archives::openpgp_keys, 2 * MIB, 100),
    target("in_release", archives::in_release, 2 * MIB, 100),
    target("release", archives::release, MIB, 100),
    target("control", archives::control, MIB, 100),
    target("packages", archives::packages, 4 * MIB, 400),
    target("relations", archives::relations, MIB, 100),
    target("lock", texts::lock, MIB, 400),
    // Decompressors have windows: 128 MiB for xz and zstd, as the module says.
    target("deb", archives::deb, 300 * MIB, 400),
    target("deb_tar", archives::deb_tar, 2 * MIB, 100),
    target("deb_index", archives::deb_index, 2 * MIB, 100),
    target("accounts", texts::accounts, MIB, 400),
    target("units", texts::units, 4 * MIB, 400),
    target("tree_dump", texts::tree_dump, MIB, 400),
    // A cluster decodes to 12 MiB at most; 32 MiB of them are kept.
    target("erofs", images::erofs, 96 * MIB, 100),
    target("fat", images::fat, 40 * MIB, 100),
    target("cpio", images::cpio, MIB, 2000),
    target("verity", images::verity, 4 * MIB, 100),
    target("elf", images::elf, MIB, 100),
    target("kernel_module", images::kernel_module, 300 * MIB, 100),
    target("command_line", texts::command_line, MIB, 100),
    target("os_release", texts::os_release, MIB, 100),
    target("cache_entry", texts::cache_entry, 2 * MIB, 400),
    target("keys", texts::keys, MIB, 100),
    target("changelog", texts::changelog, MIB, 100),
    target("uki", images::uki, 4 * MIB, 100),
    target("gpt", images::gpt, MIB, 100),
    target("manifest", texts::manifest, MIB, 400),
    target("checksums", texts::checksums, MIB, 100),
    target("guest", texts::guest, MIB, 100),
];

/// Runs the target of that name: what each file in `fuzz_targets` says.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("every fuzz target has a row").run)(data);
}
