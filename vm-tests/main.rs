//! Real Debian images in real virtual machines: one scenario a file, named by its outcome.
//!
//! The images are built from `recipes/` once per run, by the program under test; packages come from a mirror the first
//! time and from `target/` after that. QEMU comes from adamant's own tools tree. Without a mirror the scenarios are
//! skipped, in CI they fail.

mod a_changed_root_hash_does_not_boot;
mod a_flipped_byte_in_the_data_is_refused;
mod a_flipped_byte_in_the_hash_tree_is_refused;
mod a_persistent_machine_remembers;
mod a_volatile_machine_boots_verified_and_forgets;
mod boot_test_ends_with_the_checks_result;
mod recipes_are_the_same_twice;
mod recipes_have_their_pinned_digests;
mod resolve;
mod rootfs_equals_mmdebstrap;
mod support;
mod troublemakers_are_the_same_everywhere;

#[path = "../tests/support/host_apt.rs"]
mod host_apt;
#[path = "../tests/support/oracle.rs"]
#[allow(dead_code)]
mod oracle;
