//! What firmware and kernel start from: the unified kernel image and the command line and initrd in it.
//!
//! Flows in: systemd's stub, a kernel, an initrd and texts, all from locked packages. Flows out: one EFI executable
//! ([`uki::build`]) as a [`crate::tree::Content`], and readers that take it apart again.

pub mod command_line;
pub mod initrd;
pub mod os_release;
pub mod pe;
pub mod state;
pub mod uki;
