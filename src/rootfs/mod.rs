//! From packages to a configured tree.

pub mod deb;
mod disk;
mod overlay;

pub use disk::{MaterialiseError, materialise};
pub use overlay::{OverlayError, overlay};
