//! What a machine may write, where that goes, and where its identity comes from.
pub mod files;

pub use files::{Entry, initrd, system};

/// What becomes of writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// They go to memory and are gone at the next boot.
    #[default]
    Volatile,
    /// Those below `/var` stay, on a partition that the machine makes on its first boot.
    Persistent,
}
