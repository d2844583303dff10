//! From packages to a configured tree.

mod database;
pub mod deb;
mod disk;
pub mod files;
mod normalise;
mod overlay;
mod phases;
mod sandbox;
pub mod system;
pub mod units;
pub mod users;

pub use disk::{MaterialiseError, materialise};
pub use normalise::{Action, NormaliseError, RULES, Rule, normalise};
pub use overlay::{OverlayError, overlay};
pub use sandbox::{
    ConfigureError, EnvironmentError, SeedFile, Settings, Storage, configure, entry, remove_workspace, reopen,
};
