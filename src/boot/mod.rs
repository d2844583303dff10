//! What boots: initrd, command line, unified kernel image.

pub mod initrd;
pub mod state;
