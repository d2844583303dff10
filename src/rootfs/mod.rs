//! From packages to a configured tree.

pub mod deb;
