//! Real Debian images in real virtual machines.

#[path = "../tests/support/oracle.rs"]
#[allow(dead_code)]
mod oracle;
mod rootfs_equals_mmdebstrap;
