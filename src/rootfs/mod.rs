//! From locked packages to a configured root file system.

pub mod files;
pub mod users;
