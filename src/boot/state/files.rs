//! The files by which state is prepared: some in the initrd, some in the image.

use super::State;

/// A file to put into a tree, owned by root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Below the root.
    pub path: &'static str,
    /// Permissions.
    pub mode: u16,
    /// Contents.
    pub text: &'static str,
}

/// Files of the initrd.
pub fn initrd(state: State) -> Vec<Entry> {
    let script = match state {
        State::Volatile => include_str!("volatile.sh"),
        State::Persistent => include_str!("persistent.sh"),
    };
    vec![Entry { path: "usr/lib/adamant/state", mode: 0o755, text: script }]
}

/// Files of the image.
pub fn system(_state: State) -> Vec<Entry> {
    vec![]
}
