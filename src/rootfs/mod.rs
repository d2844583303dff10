//! From packages to a configured tree.

pub mod deb;
mod disk;
pub mod files;
mod overlay;
pub mod system;
pub mod units;
pub mod users;

pub use disk::{MaterialiseError, materialise};
pub use overlay::{OverlayError, overlay};
