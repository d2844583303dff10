//! What a machine may write, where that goes, and where its identity comes from.
pub mod files;

pub use files::{Entry, initrd, system};

pub use crate::recipe::State;
