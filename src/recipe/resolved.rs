//! The recipe that stages read: `extends` followed, defaults filled in, every value checked and typed.
//!
//! Values that a later stage may find fault with (a package that does not exist, a unit without that name) are
//! [`At`], so that the complaint can name file, line and column through [`Recipe::sources`].

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::diagnostic::{Diagnostic, Diagnostics};
pub use super::schema::{Account, Architecture, Pocket, Scripts, State};
use super::source::{At, Sources, Span};

/// What one image is made of.
#[derive(Debug, Clone, Serialize)]
pub struct Recipe {
    /// IMAGE_ID: `[a-z0-9]` first, then `[a-z0-9.-]`.
    pub name: At<String>,
    /// IMAGE_VERSION: UAPI.10 without `_` and `+`.
    pub version: At<String>,
    /// One line for people.
    pub description: Option<String>,
    /// Architecture of the machine.
    pub architecture: Architecture,
    /// What a running machine keeps.
    pub state: State,
    /// Whether maintainer scripts run.
    pub scripts: Scripts,
    /// Latest time in the image, in seconds since 1970; `None`: from the lock.
    pub epoch: Option<i64>,
    /// The Debian archive.
    pub debian: Debian,
    /// Further repositories, in the order of the recipe.
    pub repositories: Vec<Repository>,
    /// Requested packages, each name once.
    pub packages: Vec<At<PackageRequest>>,
    /// Whether recommended packages come along.
    pub recommends: bool,
    /// What the initrd has besides what it always has.
    pub initrd: Initrd,
    /// Further kernel parameters, in order.
    pub command_line: Vec<At<String>>,
    /// Directories, each path once, in the order of the recipe. Written before files and symlinks.
    pub directories: Vec<DirectoryEntry>,
    /// Files, each path once, in the order of the recipe.
    pub files: Vec<FileEntry>,
    /// Symbolic links, each path once, in the order of the recipe.
    pub symlinks: Vec<SymlinkEntry>,
    /// Accounts, each name once, in the order of the recipe.
    pub users: Vec<User>,
    /// Groups, each name once, in the order of the recipe.
    pub groups: Vec<Group>,
    /// Units; no name is in two of the lists.
    pub units: Units,
    /// Host name, locale, time zone.
    pub system: System,
    /// Checks of `boot --test`, each name once.
    pub checks: Vec<Check>,
    /// The files that this was read from: the recipe itself first.
    #[serde(skip)]
    pub sources: Sources,
}

impl Recipe {
    /// An error of a later stage, at the place of the recipe that it is about.
    pub fn complain(&self, found: Vec<Diagnostic>) -> Diagnostics {
        Diagnostics::new(found, self.sources.clone())
    }
}

/// The Debian archive that packages come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Debian {
    /// Code name of the release.
    pub suite: At<String>,
    /// Besides the release itself.
    pub pockets: Vec<Pocket>,
    /// At least one.
    pub components: Vec<At<String>>,
    /// The OpenPGP keys that sign it; `None`: Debian's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<At<SourcePath>>,
}

/// A further repository.
#[derive(Debug, Clone, Serialize)]
pub struct Repository {
    /// `debian` is taken; the host's configuration knows its mirror by this name.
    pub name: At<String>,
    /// As its Release file calls it.
    pub suite: At<String>,
    /// At least one.
    pub components: Vec<At<String>>,
    /// The OpenPGP key that signs it.
    pub key: At<SourcePath>,
}

/// `name`, `name=version` or `name/target`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackageRequest {
    /// Binary package.
    pub name: String,
    /// Exactly this version.
    pub version: Option<String>,
    /// From this suite (`trixie-backports`) or repository only.
    pub target: Option<String>,
}

impl fmt::Display for PackageRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(version) = &self.version {
            write!(f, "={version}")?;
        }
        match &self.target {
            Some(target) => write!(f, "/{target}"),
            None => Ok(()),
        }
    }
}

/// Additions to the initrd.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Initrd {
    /// Requested packages, each name once.
    pub packages: Vec<At<PackageRequest>>,
    /// Kernel modules, each name once.
    pub modules: Vec<At<String>>,
}

/// A file or directory beside a recipe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct SourcePath {
    /// As the recipe names it, relative to the recipe file that does: it stays within that file's folder.
    pub text: String,
    /// That folder, as the loader knows it.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// Owner and group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ownership {
    /// Number, or a name of the image's /etc/passwd.
    pub owner: At<Account>,
    /// Number, or a name of the image's /etc/group.
    pub group: At<Account>,
}

/// Where the bytes of a file come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileContent {
    /// Written in the recipe.
    Inline(String),
    /// A file or directory beside it.
    Source(At<SourcePath>),
}

/// A file to write.
#[derive(Debug, Clone, Serialize)]
pub struct FileEntry {
    /// Absolute and without `.`, `..`, empty components or a `/` at its end.
    pub path: At<String>,
    /// Its bytes.
    pub content: FileContent,
    /// Permissions; `None`: 0644, or 0755 where the source is executable.
    pub mode: Option<u16>,
    /// Owner and group.
    pub ownership: Ownership,
}

/// A directory to make.
#[derive(Debug, Clone, Serialize)]
pub struct DirectoryEntry {
    /// As [`FileEntry::path`].
    pub path: At<String>,
    /// Permissions.
    pub mode: u16,
    /// Owner and group.
    pub ownership: Ownership,
}

/// A symbolic link to make.
#[derive(Debug, Clone, Serialize)]
pub struct SymlinkEntry {
    /// As [`FileEntry::path`].
    pub path: At<String>,
    /// 1 to 4095 bytes, as it is.
    pub target: At<String>,
    /// Owner and group.
    pub ownership: Ownership,
}

/// An account to add.
#[derive(Debug, Clone, Serialize)]
pub struct User {
    /// Login name.
    pub name: At<String>,
    /// Given number.
    pub uid: Option<At<u32>>,
    /// Primary group; `None`: a group of the same name.
    pub group: Option<At<Account>>,
    /// Further groups.
    pub groups: Vec<At<String>>,
    /// A service's account.
    pub system: bool,
    /// GECOS field.
    pub comment: String,
    /// Home directory, if given.
    pub home: Option<String>,
    /// Login shell, if given.
    pub shell: Option<At<String>>,
}

/// A group to add.
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    /// Name.
    pub name: At<String>,
    /// Given number.
    pub gid: Option<At<u32>>,
    /// A service's group.
    pub system: bool,
}

/// What becomes of units. Names are full: `nginx.service`, `getty@tty1.service`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Units {
    /// As `systemctl enable`.
    pub enable: Vec<At<String>>,
    /// As `systemctl disable`.
    pub disable: Vec<At<String>>,
    /// As `systemctl mask`.
    pub mask: Vec<At<String>>,
}

/// Settings of the system as a whole.
#[derive(Debug, Clone, Serialize)]
pub struct System {
    /// /etc/hostname.
    pub hostname: At<String>,
    /// LANG.
    pub locale: At<String>,
    /// Name below /usr/share/zoneinfo.
    pub timezone: At<String>,
}

/// A check of `boot --test`. It goes into the manifest as it is, and comes back from there without its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// As its result is reported.
    pub name: String,
    /// What must hold.
    #[serde(flatten)]
    pub kind: CheckKind,
    /// Seconds within which it must hold; until then it is tried again.
    pub timeout_s: u32,
    /// Where the recipe says it.
    #[serde(skip)]
    pub span: Span,
}

/// What a check asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckKind {
    /// The unit is active.
    Unit(String),
    /// An HTTP request to the machine, from outside, is answered.
    Http {
        /// TCP port.
        port: u16,
        /// Path and query: begins with `/`.
        path: String,
        /// Expected status.
        status: u16,
        /// Text in the body.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        contains: Option<String>,
    },
    /// A program exits with 0; at least its name is there.
    Command(Vec<String>),
}
