//! Debian archives: signed indexes, packages, versions, dependency resolution. Pure: bytes in, values out.

pub mod control;
pub mod openpgp;
pub mod packages;
pub mod relation;
pub mod release;
pub mod version;
