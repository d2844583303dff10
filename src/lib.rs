//! adamant builds machine images that cannot change.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod apt;
pub mod architecture;
pub mod boot;
pub mod build;
pub mod cli;
pub mod digest;
pub mod disk;
pub mod filesystem;
pub mod identifier;
pub mod inspect;
pub mod lock;
pub mod manifest;
pub mod recipe;
pub mod rootfs;
pub mod store;
pub mod sys;
pub mod telemetry;
pub mod tree;
pub mod verify;
pub mod verity;
pub mod vm;
