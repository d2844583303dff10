//! What a recipe file can say: one struct per table, one field per key, the doc comment of each being its
//! documentation everywhere (`adamant schema`, editors, error messages).
//!
//! A [`Document`] is one file as it stands. Nothing is checked here beyond shape; `check` compares a file with the
//! JSON Schema of these types, so that every mistake of a file is found at once and with its place; `resolve` follows
//! `extends` and gives the [`Recipe`](super::Recipe) that the other stages read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::source::At;
pub use crate::architecture::Architecture;

/// A recipe: what one image is made of.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(title = "adamant recipe")]
pub struct Document {
    /// Another recipe that this one builds on, as a path relative to this file. Scalars given here win, tables
    /// merge key by key, lists are appended to the inherited ones; `[remove]` takes inherited items away.
    pub extends: Option<At<String>>,
    /// Name of the image: lower-case letters, digits, `-` and `.`. It becomes IMAGE_ID in os-release.
    pub name: Option<At<String>>,
    /// Version of the image: letters, digits, `.`, `-`, `~` and `^` (UAPI.10, without the `_` and `+` that file
    /// names use). `--version` wins over it. It becomes IMAGE_VERSION in os-release.
    pub version: Option<At<String>>,
    /// One line about the image, for people.
    pub description: Option<At<String>>,
    /// Architecture of the machine.
    pub architecture: Option<At<Architecture>>,
    /// What a running machine keeps over a reboot. The root file system is read-only always.
    pub state: Option<At<State>>,
    /// Whether the packages' maintainer scripts run.
    pub scripts: Option<At<Scripts>>,
    /// Latest time that anything in the image carries, as a date and time with an offset or as seconds since
    /// 1970. Without it: the date of the newest index in the lock.
    pub epoch: Option<At<Epoch>>,
    /// The Debian archive that packages come from.
    pub debian: Option<At<DebianTable>>,
    /// Further package repositories, each with its own key.
    #[serde(default)]
    pub repository: Vec<At<RepositoryTable>>,
    /// Packages to install: `name`, `name=version`, or `name/suite` for another suite or repository. What they
    /// depend on comes along.
    #[serde(default)]
    pub packages: Vec<At<String>>,
    /// Whether the packages that packages recommend are installed too.
    pub recommends: Option<At<bool>>,
    /// The small file system that finds, verifies and mounts the root file system.
    pub initrd: Option<At<InitrdTable>>,
    /// The kernel.
    pub kernel: Option<At<KernelTable>>,
    /// Files written into the image after its packages were configured.
    #[serde(default)]
    pub file: Vec<At<FileTable>>,
    /// Directories made in the image.
    #[serde(default)]
    pub directory: Vec<At<DirectoryTable>>,
    /// Symbolic links made in the image.
    #[serde(default)]
    pub symlink: Vec<At<SymlinkTable>>,
    /// User accounts beyond those that packages make.
    #[serde(default)]
    pub user: Vec<At<UserTable>>,
    /// Groups beyond those that packages make.
    #[serde(default)]
    pub group: Vec<At<GroupTable>>,
    /// systemd units to enable, disable or mask.
    pub units: Option<At<UnitsTable>>,
    /// Host name, locale, time zone.
    pub system: Option<At<SystemTable>>,
    /// What `adamant boot --test` checks in the running machine.
    #[serde(default)]
    pub check: Vec<At<CheckTable>>,
    /// What is taken away from the recipe that this one extends.
    pub remove: Option<At<RemoveTable>>,
}

/// What a running machine keeps over a reboot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// writes to /etc, /var, /root, /home and /srv go to memory and are gone at the next boot
    #[default]
    Volatile,
    /// /var is a partition that the machine makes itself on its first boot; the rest is as with `volatile`
    Persistent,
}

/// Whether the maintainer scripts of packages run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scripts {
    /// yes, in a sandbox: what comes out is what apt and dpkg would make
    #[default]
    Run,
    /// no: packages are unpacked as they are, and nothing essential is added to what the recipe names
    None,
}

/// A pocket of a suite: updates that its release did not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pocket {
    /// fixes that come before the next point release
    Updates,
    /// fixes of security issues
    Security,
    /// newer versions; used only where a package asks with `name/<suite>-backports`
    Backports,
}

/// A time: `2026-11-01T00:00:00Z`, or seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, JsonSchema)]
#[schemars(untagged)]
pub enum Epoch {
    /// seconds since 1970-01-01 00:00 UTC
    Seconds(i64),
    /// a date and time with an offset
    Date(#[schemars(with = "String", extend("format" = "date-time"))] toml::value::Datetime),
}

/// Which part of the Debian archive packages come from. The mirror is the building host's business.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DebianTable {
    /// Code name of the release, as in `trixie`.
    pub suite: Option<At<String>>,
    /// Which updates to take besides the release itself: `updates` and `security` unless told otherwise. Given
    /// again in an extending recipe, it replaces the inherited list.
    pub pockets: Option<At<Vec<At<Pocket>>>>,
    /// Components of the archive: `main` unless told otherwise. Given again, it replaces the inherited list.
    pub components: Option<At<Vec<At<String>>>>,
    /// For a mirror that signs what it serves with a key of its own: that OpenPGP key, armoured or binary, a path
    /// relative to this file. Debian's keys count no longer then.
    pub key: Option<At<String>>,
}

/// A further package repository. Its address comes from the building host's configuration, under its name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RepositoryTable {
    /// Name by which packages (`name/repository`) and the host's configuration refer to it.
    pub name: At<String>,
    /// Suite, as the repository's Release file calls it.
    pub suite: At<String>,
    /// Components: `main` unless told otherwise.
    pub components: Option<Vec<At<String>>>,
    /// The OpenPGP key that signs the repository, armoured or binary: a path relative to this file.
    pub key: At<String>,
}

/// The initrd.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct InitrdTable {
    /// Packages in the initrd besides those that it always has.
    #[serde(default)]
    pub packages: Vec<At<String>>,
    /// Kernel modules in the initrd, with what they depend on, besides those that virtual machines need.
    #[serde(default)]
    pub modules: Vec<At<String>>,
}

/// The kernel.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KernelTable {
    /// Parameters added to the kernel command line, one per item.
    #[serde(default)]
    pub command_line: Vec<At<String>>,
}

/// A file, or with a `source` that is a directory, everything in it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FileTable {
    /// Absolute path in the image. Missing parents become directories of root with mode 0755.
    pub path: At<String>,
    /// The text of the file.
    pub content: Option<At<String>>,
    /// A file or directory beside this recipe whose bytes are taken: a path relative to this file that does not
    /// leave its folder.
    pub source: Option<At<String>>,
    /// Permissions, as octal digits in a string. Without it 0644, or 0755 if the source is executable. In a
    /// directory that is copied it holds for files; directories may be entered by whoever may read them.
    #[schemars(regex(pattern = "^[0-7]{3,4}$"))]
    pub mode: Option<At<String>>,
    /// Owner, by name or number: `root` unless told otherwise.
    pub owner: Option<At<Account>>,
    /// Group, by name or number: `root` unless told otherwise.
    pub group: Option<At<Account>>,
}

/// A directory.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DirectoryTable {
    /// Absolute path in the image.
    pub path: At<String>,
    /// Permissions, as octal digits in a string: 0755 unless told otherwise.
    #[schemars(regex(pattern = "^[0-7]{3,4}$"))]
    pub mode: Option<At<String>>,
    /// Owner, by name or number: `root` unless told otherwise.
    pub owner: Option<At<Account>>,
    /// Group, by name or number: `root` unless told otherwise.
    pub group: Option<At<Account>>,
}

/// A symbolic link.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SymlinkTable {
    /// Absolute path in the image.
    pub path: At<String>,
    /// What the link says, taken as it is.
    pub target: At<String>,
    /// Owner, by name or number: `root` unless told otherwise.
    pub owner: Option<At<Account>>,
    /// Group, by name or number: `root` unless told otherwise.
    pub group: Option<At<Account>>,
}

/// A user or group: a name that the image has, or a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Account {
    /// a number
    Id(u32),
    /// a name
    Name(String),
}

/// A user account. It has no password: nobody can log in to it unless a password or key is given at boot.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UserTable {
    /// Login name.
    pub name: At<String>,
    /// User number. Without it: the lowest free one from 1000 on, or for a system account the highest free one
    /// from 999 down.
    pub uid: Option<At<u32>>,
    /// Primary group: one of the user's own name unless told otherwise.
    pub group: Option<At<Account>>,
    /// Further groups that the user is a member of.
    #[serde(default)]
    pub groups: Vec<At<String>>,
    /// Whether this is an account of a service, not of a person: no home directory, no login shell.
    #[serde(default)]
    pub system: bool,
    /// Full name or purpose.
    pub comment: Option<At<String>>,
    /// Home directory: `/home/<name>`, for a system account `/nonexistent`. It is made, from /etc/skel, if the
    /// account is not a system one.
    pub home: Option<At<String>>,
    /// Login shell: `/bin/bash` if the image has it, else `/bin/sh`; for a system account `/usr/sbin/nologin`.
    pub shell: Option<At<String>>,
}

/// A group.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GroupTable {
    /// Name of the group.
    pub name: At<String>,
    /// Group number, found as a user's if it is not given.
    pub gid: Option<At<u32>>,
    /// Whether its number is taken from those of system groups.
    #[serde(default)]
    pub system: bool,
}

/// What becomes of systemd units, as `systemctl enable`, `disable` and `mask` would do.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UnitsTable {
    /// Units started at boot, as their `[Install]` sections say.
    #[serde(default)]
    pub enable: Vec<At<String>>,
    /// Units not started at boot by themselves.
    #[serde(default)]
    pub disable: Vec<At<String>>,
    /// Units that nothing can start.
    #[serde(default)]
    pub mask: Vec<At<String>>,
}

/// Settings of the system as a whole.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SystemTable {
    /// Host name that the machine has until it is given another one: the image's name unless told otherwise.
    pub hostname: Option<At<String>>,
    /// Locale: `C.UTF-8` unless told otherwise. Another one needs the package `locales`.
    pub locale: Option<At<String>>,
    /// Time zone, as in `Europe/Berlin`: `UTC` unless told otherwise. Another one needs the package `tzdata`.
    pub timezone: Option<At<String>>,
}

/// A check: exactly one of `unit`, `http` and `command`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CheckTable {
    /// What the check shows, as its result is reported.
    pub name: At<String>,
    /// A unit that must be active.
    pub unit: Option<At<String>>,
    /// A request that must be answered.
    pub http: Option<At<HttpTable>>,
    /// A program with its arguments, run as root in the machine, that must exit with 0. No shell is involved.
    pub command: Option<At<Vec<At<String>>>>,
    /// Seconds within which the check must hold; until then it is tried again. 60 unless told otherwise.
    #[schemars(range(min = 1, max = 3600))]
    pub timeout: Option<At<u32>>,
}

/// An HTTP request made to the machine from outside: its firewall, if it has one, must let it in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HttpTable {
    /// TCP port: 80 unless told otherwise.
    pub port: Option<At<u16>>,
    /// Path and query: `/` unless told otherwise.
    pub path: Option<At<String>>,
    /// Status that the answer must have: 200 unless told otherwise.
    #[schemars(range(min = 100, max = 599))]
    pub status: Option<At<u16>>,
    /// Text that the body must contain.
    pub contains: Option<At<String>>,
}

/// What is taken away from the recipe that this one extends. Each item must be there to be taken away.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RemoveTable {
    /// Packages, by name.
    #[serde(default)]
    pub packages: Vec<At<String>>,
    /// Repositories, by name.
    #[serde(default)]
    pub repositories: Vec<At<String>>,
    /// Packages of the initrd, by name.
    #[serde(default)]
    pub initrd_packages: Vec<At<String>>,
    /// Kernel modules of the initrd, by name.
    #[serde(default)]
    pub initrd_modules: Vec<At<String>>,
    /// Parameters of the kernel command line, as they were written.
    #[serde(default)]
    pub command_line: Vec<At<String>>,
    /// Files, directories and symbolic links, by path.
    #[serde(default)]
    pub files: Vec<At<String>>,
    /// Users, by name.
    #[serde(default)]
    pub users: Vec<At<String>>,
    /// Groups, by name.
    #[serde(default)]
    pub groups: Vec<At<String>>,
    /// Units, by name: what the inherited recipe does to them is left undone.
    #[serde(default)]
    pub units: Vec<At<String>>,
    /// Checks, by name.
    #[serde(default)]
    pub checks: Vec<At<String>>,
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Epoch;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a date and time, or seconds since 1970")
            }

            fn visit_i64<E>(self, seconds: i64) -> Result<Epoch, E> {
                Ok(Epoch::Seconds(seconds))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Epoch, A::Error> {
                toml::value::Datetime::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(Epoch::Date)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
