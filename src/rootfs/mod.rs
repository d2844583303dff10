//! From locked packages to a configured root file system.

pub mod files;
pub mod system;
pub mod units;
pub mod users;
