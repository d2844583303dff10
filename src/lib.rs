//! adamant builds machine images that cannot change, proves what is in them, and boots them.
//!
//! # The dataflow
//! ```text
//! Recipe ──> Lock ──> Tree ──────> EROFS ──> verity ──> UKI, disk ──> Manifest
//! (TOML)    (exact    (packages,   (the     (hash      (initrd and    (hashes of
//!           versions  configured   root     tree, root command line,   everything)
//!           + sha256) in a         file     hash)      GPT, ESP)
//!                     sandbox)     system)
//! ```
//! Each arrow is a function between plain values. Data flows one way: nothing imports what is downstream of it, and
//! `tests/tidy.rs` holds that. The pure modules know no clock, environment or network; [`build`] and [`cli`] are where they
//! meet the machine.
//!
//! # The modules, in the order of the flow
//! | module | owns | pure |
//! |---|---|---|
//! | [`recipe`] | what an image is made of: schema, `extends`, mistakes with their places | yes |
//! | [`apt`] | signed archives, versions, dependency resolution | yes |
//! | [`lock`] | every package by version and digest, as text | yes |
//! | [`store`] | objects and stage results on disk, downloads, mirrors | |
//! | [`bucket`] | directories and object stores by their addresses: what machines share | |
//! | [`tree`] | a root file system as a value | yes |
//! | [`rootfs`] | packages to a configured tree: unpack, sandbox, the recipe's edits, normalisation | |
//! | [`filesystem`] | EROFS, FAT32, cpio: format, writer, reader of each | yes |
//! | [`verity`] | dm-verity: superblock, hash tree, root hash | yes |
//! | [`boot`] | initrd, machine state, command line, unified kernel image | yes |
//! | [`disk`] | partition table, layout, sparse output | yes |
//! | [`manifest`] | what an image is said to be | yes |
//! | [`verify`], [`inspect`] | what an image is, from its bytes, by readers only | yes |
//! | [`diff`] | in what two images differ, and why | yes |
//! | [`build`] | the stages in their order, with store and network | |
//! | [`vm`] | QEMU machines and what their guests report | |
//! | [`telemetry`] | events, and how people see them | |
//! | [`interrupt`] | signals: what must not stay behind | |
//! | [`cli`] | verbs, text and JSON, exit codes | |
//! | [`digest`], [`identifier`], [`architecture`] | SHA-256, derived UUIDs, names of architectures | yes |
//! | [`sign`] | key pairs in files, Ed25519 signatures | yes |
//! | [`sys`] | system calls that nobody else wraps: all `unsafe` there is | |
//!
//! # Every file that adamant writes
//! | file | by |
//! |---|---|
//! | `out/<name>_<version>/<name>_<version>_<arch>.raw` | [`disk`], in [`build`] |
//! | `out/<name>_<version>/<name>_<version>_<arch>.efi` | [`boot::uki`], in [`build`] |
//! | `out/<name>_<version>/manifest.json`, `SHA256SUMS` | [`manifest`], in [`build`] |
//! | `out/.<name>_<version>.partial-*/` while a build runs | [`build::output`] |
//! | `<recipe>.lock` beside `<recipe>.toml` | [`lock`], in [`build::lock`] and [`build::update`] |
//! | `<recipe>.toml` of `adamant init` | [`recipe`], in [`cli`] |
//! | `~/.cache/adamant/` (or `--store`): objects, stage results, workspaces, roots, notes | [`store`] |
//! | a cache: `objects/`, `stages/` below its address | [`store::shared`] |
//! | the two files of `adamant key generate` | [`sign`], in [`cli`] |
//! | the folder of `adamant vendor`: a store too | [`build::vendor`] |
//! | `<image>.console.log` of `adamant boot --test` | [`cli`] |
//!
//! # What stands in for `ext4-rs`
//! Root file systems are EROFS, written by [`filesystem::erofs`]: the ext4 crates of today either need a nightly compiler,
//! have no mkfs, or do not write the same bytes twice. The one ext4 in sight, `/var` of a persistent machine, is made by the
//! machine itself.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod apt;
pub mod architecture;
pub mod boot;
pub mod bucket;
pub mod build;
pub mod cli;
pub mod diff;
pub mod digest;
pub mod disk;
pub mod filesystem;
pub mod identifier;
pub mod inspect;
pub mod interrupt;
pub mod lock;
pub mod manifest;
pub mod recipe;
pub mod rootfs;
pub mod sign;
pub mod store;
pub mod sys;
pub mod telemetry;
pub mod tree;
pub mod verify;
pub mod verity;
pub mod vm;
