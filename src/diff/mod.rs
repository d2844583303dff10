//! How two images differ, and why.
//!
//! ```text
//! directory of a build ─┐
//! disk image ───────────┼─ read ──> Subject ─┐
//! manifest.json ────────┘           Subject ─┴─ difference ──> Difference     what differs
//!                                            └─ explain ─────> Explanation    because of which input
//! ```
//!
//! Flows in: two [`Subject`]s. Flows out: values that `cli` shows as text, JSON or Markdown. A [`Subject`] is anything
//! that can be compared; what a release is will be one more way to make it. With an image at hand the facts are read
//! from its bytes, and its manifest adds only what the bytes do not say; with a manifest alone they are what it says.
//! Nothing is verified here, see [`crate::verify`].
//!
//! Invariants: lists are in the order of their names, so equal subjects give equal texts. What could not be compared
//! stands in [`Difference::not_compared`] with its reason: silence means equality. [`explain`] names an input only
//! where it follows from what was recorded; where it does not, it says `unknown`.

mod accounts;
mod boot;
mod changelog;
mod explain;
mod files;
mod packages;
mod read;
mod subject;
mod units;

#[cfg(test)]
mod tests;

use serde::Serialize;

pub use accounts::{Account, AccountChange};
pub use boot::{BootDifference, CommandLine, PartChange, WordChange};
pub use changelog::{Entry, entries_between};
pub use explain::{Effect, Explanation, Node, RecipeChange, explain};
pub use files::{FileChange, FilesDifference};
pub use packages::{PackageChange, PackagesDifference};
pub use read::read;
pub use subject::{Package, Source, Subject};
pub use units::{UnitChange, UnitState};

/// A value that is another one afterwards; `None`: there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Field {
    /// What it is the value of.
    pub name: String,
    /// In the first subject.
    pub before: Option<String>,
    /// In the second subject.
    pub after: Option<String>,
}

/// Something that cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotCompared {
    /// What.
    pub what: String,
    /// Why not.
    pub why: String,
}

/// Which image a subject is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// As the user named it.
    pub subject: String,
    /// Where its facts come from.
    pub source: Source,
    /// Name of the image.
    pub name: String,
    /// Version of the image.
    pub version: String,
    /// What it runs on.
    pub architecture: String,
    /// The image digest, if there is a manifest.
    pub digest: Option<String>,
    /// The digest that stands for the root file system.
    pub root_hash: String,
}

/// All in which two subjects differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The first subject.
    pub before: Identity,
    /// The second subject.
    pub after: Identity,
    /// Whether nothing that was compared differs.
    pub same: bool,
    /// What could not be compared.
    pub not_compared: Vec<NotCompared>,
    /// Single values: name, version, epoch, tool, digests of recipe and lock, root hash, sizes, identifiers.
    pub fields: Vec<Field>,
    /// Packages of every set.
    pub packages: PackagesDifference,
    /// Names in the root file system.
    pub files: FilesDifference,
    /// systemd units of the system.
    pub units: Vec<UnitChange>,
    /// Accounts of /etc/passwd.
    pub users: Vec<AccountChange>,
    /// Groups of /etc/group.
    pub groups: Vec<AccountChange>,
    /// Kernel, its command line, initrd, sections of the kernel image, partitions.
    pub boot: BootDifference,
}

/// Compares two subjects.
pub fn difference(before: &Subject, after: &Subject) -> Difference {
    let mut not_compared = Vec::new();
    let packages = packages::compare(before, after, &mut not_compared);
    let files = files::compare(&before.files, &after.files);
    let units = units::compare(&before.files, &after.files);
    let (users, groups) = accounts::compare(before, after, &mut not_compared);
    let boot = boot::compare(before, after, &mut not_compared);
    let fields = fields(before, after, &mut not_compared);
    let same = fields.is_empty()
        && packages.is_empty()
        && files.is_empty()
        && users.is_empty()
        && groups.is_empty()
        && boot.is_empty();
    Difference {
        before: before.identity(),
        after: after.identity(),
        same,
        not_compared,
        fields,
        packages,
        files,
        units,
        users,
        groups,
        boot,
    }
}

fn fields(before: &Subject, after: &Subject, not_compared: &mut Vec<NotCompared>) -> Vec<Field> {
    let missing = |subject: &Subject| subject.manifest.is_none().then(|| subject.label.clone());
    let without: Vec<String> = [before, after].into_iter().filter_map(missing).collect();
    if !without.is_empty() {
        not_compared.push(NotCompared {
            what: "epoch, tool, recipe, lock, state and checks".to_owned(),
            why: format!("only a manifest says them, and there is none beside {}", without.join(" and ")),
        });
    }
    let mut fields = Vec::new();
    for ((name, before), (_, after)) in before.values().into_iter().zip(after.values()) {
        // What only one side can know was named above.
        if before != after && before.is_some() && after.is_some() {
            fields.push(Field { name: name.to_owned(), before, after });
        }
    }
    fields
}

/// The differing ones of named values, in the order given; what neither has is no difference.
fn changed<'n>(values: impl IntoIterator<Item = (&'n str, Option<String>, Option<String>)>) -> Vec<Field> {
    let differing = values.into_iter().filter(|(_, before, after)| before != after);
    differing.map(|(name, before, after)| Field { name: name.to_owned(), before, after }).collect()
}
