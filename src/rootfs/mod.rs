//! From packages to a configured tree.
//!
//! ```text
//! .deb ─ deb::unpack ─> UnpackedPackage ─┬─ overlay ──> Tree            no scripts: initrds, tools trees
//!                       (kept in the     │                └─ materialise ─> a directory of the host
//!                        store)          └─ configure ─> Tree ─ normalise ─> users, files, units of the recipe
//!                                           (sandbox)
//! ```
//!
//! What apt and dpkg would have made, without either of the host: unpacking is ours, configuring is done by the dpkg
//! of the image in a sandbox ([`configure`]). Contents are never copied more than a script makes necessary: a file of
//! the tree is a range of its package's decompressed archive until something writes to it.
//!
//! Invariant: the tree depends on the packages, the epoch and what the recipe gives to scripts; not on who builds, where,
//! when, or on what file system. [`normalise`] takes out what scripts themselves make at random.

mod byte_code;
mod database;
pub mod deb;
mod disk;
pub mod files;
mod info_directory;
mod keystore;
mod normalise;
mod overlay;
mod phases;
mod sandbox;
pub mod system;
pub mod units;
pub mod unrepeatable;
pub mod users;

pub use disk::{MaterialiseError, materialise};
pub use normalise::{Action, Form, NormaliseError, RULES, Rule, normalise};
pub use overlay::{OverlayError, overlay};
pub use sandbox::{
    CHANGES, ChangeRow, ConfigureError, EnvironmentError, ID_COUNT, SeedFile, Settings, Storage, available_memory,
    configure, entry, map_others, remove_workspace, reopen,
};
pub use unrepeatable::{Remedy, UNREPEATABLE, Unrepeatable};
