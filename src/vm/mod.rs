//! Virtual machines: an image is started, asked and judged.
//!
//! A [`Machine`] says what it is made of, [`Machine::start`] runs it in QEMU from a [`Tools`] tree, a [`Guest`] is the
//! running machine. The image is not altered unless that is asked for ([`Disk`]). What a machine needs to know at boot
//! (a shell, the agent that runs checks) comes as [`Credential`]s, so the image that is tested is the image that ships.
//!
//! How a boot went is the guest's own report: the agent's or the initrd's line on a port of its own, or what the guest's
//! kernel told QEMU (panic, power off, reset). The console is recorded for people, and not judged.

pub mod agent;
mod check;
mod console;
mod credential;
mod guest;
mod machine;
pub mod qmp;
mod tools;

use std::io;
use std::path::PathBuf;

pub use check::{Check, CheckResult, Probe, forwards};
pub use console::attend;
pub use credential::{Credential, shell};
pub use guest::{Guest, Outcome, Run};
pub use machine::{Acceleration, Disk, Forward, Machine};
pub use tools::Tools;

/// Why a machine could not be started or asked.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The tools tree is not complete.
    #[error("the tools tree {} has no {path}: it must hold the packages of recipes/tools/vm.toml", .root.display())]
    NoTool {
        /// The tree.
        root: PathBuf,
        /// What is missing.
        path: String,
    },
    /// The machine's files could not be prepared.
    #[error("cannot prepare the machine's files in {}", .path.display())]
    Workspace {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program of the tools tree could not be started.
    #[error("cannot start {program}")]
    Start {
        /// Which.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// QEMU or a tool of it ended at once.
    #[error("QEMU ended: {said}")]
    Ended {
        /// In its own words.
        said: String,
    },
    /// KVM was demanded, or worked at first, and does not run the guest.
    #[error("KVM does not run this machine; the console's last words:\n{said}")]
    Kvm {
        /// The console's last lines.
        said: String,
    },
    /// The connection to QEMU broke.
    #[error("lost the connection to QEMU")]
    Talk(#[source] io::Error),
    /// A script was to run before the guest was ready.
    #[error("the guest is not ready to run anything")]
    NotReady,
    /// The guest ended, or fell silent, while it ran a script.
    #[error("the guest did not answer: {outcome:?}")]
    Lost {
        /// What it did instead.
        outcome: Outcome,
    },
    /// A check asks a port that the machine was started without.
    #[error("port {port} of the guest is not forwarded to this host")]
    NoForward {
        /// Of the guest.
        port: u16,
    },
    /// The terminal could not be prepared.
    #[error("cannot use the terminal")]
    Terminal(#[source] io::Error),
}
