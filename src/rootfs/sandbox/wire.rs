//! What the builder and the sandbox tell each other: a plan in, lines of events and a list of nodes out.
//!
//! Private to one build: both ends are the same program, so there is no version.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::rootfs::deb::latin1;

/// The file in the workspace that the sandbox reads first.
pub(super) const PLAN: &str = "plan.json";
/// The file in the workspace that lists the configured tree.
pub(super) const RESULT: &str = "result.json";
/// The file in the workspace with the contents that scripts made.
pub(super) const PACK: &str = "pack";
/// The file in the workspace with what scripts printed.
pub(super) const LOG: &str = "log";
/// The file in the workspace that lists when files were last changed: rows of [`ChangeRow`](super::ChangeRow).
pub const CHANGES: &str = "changes.json";
/// The directory in the workspace where the tree is while scripts run.
pub(super) const TREE: &str = "tree";

/// What the sandbox is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Absolute.
    pub workspace: PathBuf,
    pub task: Task,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Task {
    /// Make the tree of these packages.
    Configure {
        /// What `deb::unpack` wrote.
        packages: Vec<PathBuf>,
        /// Where the tree is while scripts run.
        place: TreePlace,
        /// `SOURCE_DATE_EPOCH`, and the time of everything that scripts made.
        epoch: i64,
        files: Vec<SeedRow>,
        /// Input of `debconf-set-selections`.
        #[serde(with = "latin1")]
        debconf: Vec<u8>,
    },
    /// Remove everything in the workspace, whoever of the range owns it.
    Remove,
}

/// Where the tree is while scripts run.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum TreePlace {
    Workspace,
    Memory,
    /// In an empty directory of the host; also says when its files were changed.
    Directory(PathBuf),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SeedRow {
    #[serde(with = "latin1")]
    pub path: Vec<u8>,
    pub mode: u16,
    #[serde(with = "latin1")]
    pub bytes: Vec<u8>,
}

/// A line from the sandbox.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Event {
    /// In its user namespace, waiting for ids.
    Ready,
    /// What it does now.
    Stage(String),
    /// The end, unless nothing failed.
    Failed(Failure),
}

/// Why the sandbox gave up.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    /// The kernel refused a namespace.
    Namespaces { code: i32 },
    /// A system call failed.
    System { what: String, code: Option<i32>, message: String },
    /// Packages do not fit together.
    Packages { message: String },
    /// A maintainer script that runs before unpacking failed.
    Script { package: String, script: String, outcome: String, log: String },
    /// dpkg reported an error.
    Dpkg { message: String, log: String },
    /// dpkg was content but something is left.
    Unfinished { report: String },
}

impl Failure {
    pub(super) fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::System { what: what.into(), code: error.raw_os_error(), message: error.to_string() }
    }

    pub(super) fn errno(what: impl Into<String>) -> impl FnOnce(nix::errno::Errno) -> Self {
        move |errno| Self::system(what)(errno.into())
    }
}

/// One name of the configured tree, parents before children.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct NodeRow {
    #[serde(with = "latin1")]
    pub path: Vec<u8>,
    pub kind: KindRow,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Seconds, nanoseconds.
    pub mtime: (i64, u32),
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<AttributeRow>,
}

/// A name that is not as it was unpacked.
#[derive(Debug, Serialize, Deserialize)]
pub struct ChangeRow {
    /// Within the root.
    #[serde(with = "latin1")]
    pub path: Vec<u8>,
    /// `st_ctime` of its inode, by the clock of the kernel: seconds, nanoseconds. Nobody can set it.
    pub time: (i64, i64),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AttributeRow(#[serde(with = "latin1")] pub Vec<u8>, #[serde(with = "latin1")] pub Vec<u8>);

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum KindRow {
    Directory,
    /// The contents of an entry of a package, unchanged.
    Shipped {
        package: usize,
        entry: usize,
    },
    /// Contents in the pack.
    Packed {
        offset: u64,
        size: u64,
        digest: Digest,
        /// Start and end of what is not a hole; `None`: no hole.
        extents: Option<Vec<(u64, u64)>>,
    },
    /// A further name of the row at that path.
    Link(#[serde(with = "latin1")] Vec<u8>),
    Symlink(#[serde(with = "latin1")] Vec<u8>),
    CharacterDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
    Socket,
}
