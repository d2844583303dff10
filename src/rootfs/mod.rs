//! From locked packages to a configured root file system.
