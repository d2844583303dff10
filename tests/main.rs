//! Integration tests, one binary: what adamant promises, without a network.

mod apt;
mod boot;
mod cache;
mod cli;
mod diff;
mod disk;
mod edits;
mod erofs;
mod recipe;
mod rootfs;
mod store;
mod support;
mod tidy;
mod uki;
mod update;
mod verify;
mod whole;
