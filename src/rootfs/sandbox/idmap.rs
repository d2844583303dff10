//! Which ids of the host the sandbox uses.
//!
//! Inside, ids 0 to 65535 exist, whoever builds. For root they are the same ids outside (an administrator's files on
//! disk look as they will in the image); for an ordinary user id 0 is the user, and the others come from the user's
//! subordinate range by `newuidmap` and `newgidmap`, the only programs of the host that adamant runs.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Uid, User, geteuid, getgid};

/// Ids inside: 0 to this, exclusively. Debian's `nobody` is 65534.
pub const ID_COUNT: u32 = 65_536;

/// What this machine lacks for a sandbox, and how to get it.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// The kernel refuses user namespaces.
    #[error("this kernel gives no user namespaces to this user: {hint}")]
    NoUserNamespaces {
        /// The setting in question.
        hint: String,
        /// What the kernel said; nothing where it is ENOSPC, which stands for a limit (unshare(2)) and reads as if a
        /// disk were full.
        #[source]
        source: Option<io::Error>,
    },
    /// An ordinary user without ids of its own.
    #[error(
        "user {user} has {found} subordinate {kind} in {file}, of which a build needs 65535; as root, run: \
         usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
    )]
    NoSubordinateIds {
        /// Who builds.
        user: String,
        /// `uids` or `gids`.
        kind: &'static str,
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
        /// How many there are.
        found: u32,
    },
    /// The program that hands out subordinate ids is missing.
    #[error("{program} is not installed; on Debian, as root, run: apt install uidmap")]
    NoMappingProgram {
        /// `newuidmap` or `newgidmap`.
        program: &'static str,
        /// Why it did not start.
        #[source]
        source: io::Error,
    },
    /// The program that hands out subordinate ids refused.
    #[error("{program} refused the ids of {file}: {message}")]
    MappingRefused {
        /// `newuidmap` or `newgidmap`.
        program: &'static str,
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
        /// What it printed.
        message: String,
    },
    /// The kernel refused the map of root.
    #[error("cannot give the sandbox ids 0 to 65535: root in this container does not have them all")]
    NoIds(#[source] io::Error),
}

/// The kind of id: what differs between users and groups.
struct Ids {
    file: &'static str,
    kind: &'static str,
    program: &'static str,
    map: &'static str,
    own: u32,
}

fn both() -> [Ids; 2] {
    let (uid, gid) = (geteuid().as_raw(), getgid().as_raw());
    [
        Ids { file: "/etc/subuid", kind: "uids", program: "newuidmap", map: "uid_map", own: uid },
        Ids { file: "/etc/subgid", kind: "gids", program: "newgidmap", map: "gid_map", own: gid },
    ]
}

/// A range of the host's ids for some of the ids 0 to 65535 of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    inside: u32,
    outside: u32,
    count: u32,
}

/// Gives process `child`, in its new user namespace, its ids.
pub(super) fn map(child: u32) -> Result<(), EnvironmentError> {
    write_maps(child, |ids, subordinate| match subordinate {
        None => own_ranges(&fs::read_to_string(format!("/proc/self/{}", ids.map)).unwrap_or_default()),
        Some(ranges) => {
            let own = Range { inside: 0, outside: ids.own, count: 1 };
            std::iter::once(own).chain(consecutive(1, ranges)).collect()
        }
    })
}

/// Gives process `child`, in its new user namespace, the ids of somebody else: none of those that it can become is whom
/// [`map`] would make it, and the invoking user is the last of them (65535), which no image has. Root borrows a range
/// that nobody has. Says which id of the host is 0.
pub fn map_others(child: u32) -> Result<u32, EnvironmentError> {
    let all = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let borrowed = if has_ids(&all, BORROWED) { BORROWED } else { 1 };
    let mut root = borrowed;
    write_maps(child, |ids, subordinate| {
        let borrowed = [(borrowed, ID_COUNT - 1)];
        let ranges = subordinate.unwrap_or(&borrowed);
        root = ranges.first().map_or(root, |(start, _)| *start);
        let own = Range { inside: ID_COUNT - 1, outside: ids.own, count: 1 };
        consecutive(0, ranges).chain([own]).collect()
    })?;
    Ok(root)
}

/// Above what systemd gives to containers, below 2^31 (UIDS-GIDS of systemd: unused).
const BORROWED: u32 = 1_879_048_192;

/// First id and count of each line of a map (user_namespaces(7)).
fn extents(map: &str) -> impl Iterator<Item = (u32, u32)> {
    map.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse);
        let (inside, count) = (numbers.next()?.ok()?, numbers.nth(1)?.ok()?);
        Some((inside, count))
    })
}

/// Ids 0 to 65535 of a user namespace with this map, each as itself. The kernel takes no range that crosses a line.
fn own_ranges(map: &str) -> Vec<Range> {
    let within = extents(map).filter(|(first, _)| *first < ID_COUNT);
    let range =
        |(first, count): (u32, u32)| Range { inside: first, outside: first, count: count.min(ID_COUNT - first) };
    let ranges: Vec<Range> = within.map(range).collect();
    match ranges.iter().map(|range| range.count).sum::<u32>() {
        ID_COUNT => ranges,
        // The kernel's refusal is what the user is told.
        _ => vec![Range { inside: 0, outside: 0, count: ID_COUNT }],
    }
}

/// Whether a user namespace with this map has 65536 ids from `first` on.
fn has_ids(map: &str, first: u32) -> bool {
    extents(map).any(|(inside, count)| inside <= first && first - inside <= count.saturating_sub(ID_COUNT))
}

fn consecutive(first: u32, ranges: &[(u32, u32)]) -> impl Iterator<Item = Range> {
    let mut inside = first;
    ranges.iter().map(move |&(outside, count)| {
        let range = Range { inside, outside, count };
        inside += count;
        range
    })
}

/// Writes the maps of `child`; `arrange` gets the kind of id and, unless the invoking user is root, its subordinate
/// ranges.
fn write_maps(
    child: u32,
    mut arrange: impl FnMut(&Ids, Option<&[(u32, u32)]>) -> Vec<Range>,
) -> Result<(), EnvironmentError> {
    if geteuid().is_root() {
        for ids in both() {
            let line = |range: Range| format!("{} {} {}\n", range.inside, range.outside, range.count);
            let text: String = arrange(&ids, None).into_iter().map(line).collect();
            fs::write(format!("/proc/{child}/{}", ids.map), text).map_err(EnvironmentError::NoIds)?;
        }
        return Ok(());
    }
    let user = user_name();
    for ids in both() {
        let text = fs::read_to_string(ids.file).unwrap_or_default();
        let ranges = ranges(&text, &user, geteuid(), ID_COUNT - 1);
        let found = ranges.iter().map(|(_, count)| count).sum();
        if found < ID_COUNT - 1 {
            return Err(EnvironmentError::NoSubordinateIds { user, kind: ids.kind, file: ids.file, found });
        }
        let mut command = Command::new(ids.program);
        command.arg(child.to_string());
        for range in arrange(&ids, Some(&ranges)) {
            command.args([range.inside, range.outside, range.count].map(|number| number.to_string()));
        }
        let output = command.output();
        let output = output.map_err(|source| EnvironmentError::NoMappingProgram { program: ids.program, source })?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(EnvironmentError::MappingRefused { program: ids.program, file: ids.file, message });
        }
    }
    Ok(())
}

fn user_name() -> String {
    match User::from_uid(geteuid()) {
        Ok(Some(user)) => user.name,
        _ => geteuid().to_string(),
    }
}

/// The user's ranges in a text of `subuid(5)`, first and count, cut off after `wanted` ids.
fn ranges(text: &str, user: &str, uid: Uid, wanted: u32) -> Vec<(u32, u32)> {
    let uid = uid.to_string();
    let mut left = wanted;
    let mut ranges = Vec::new();
    for line in text.lines() {
        let mut fields = line.trim().split(':');
        let owner = fields.next().unwrap_or_default();
        let mut number = || fields.next().and_then(|field| field.parse::<u32>().ok());
        let (Some(start), Some(count)) = (number(), number()) else { continue };
        let count = count.min(left);
        if (owner == user || owner == uid) && count > 0 {
            ranges.push((start, count));
            left -= count;
        }
    }
    ranges
}

/// The error for a kernel that refused a namespace, with the setting that most likely is the reason.
pub(super) fn refused(code: i32) -> EnvironmentError {
    let hint = refusal_hint(|path| fs::read_to_string(path).ok());
    let source = (code != nix::libc::ENOSPC).then(|| io::Error::from_raw_os_error(code));
    EnvironmentError::NoUserNamespaces { hint, source }
}

fn refusal_hint(read: impl Fn(&Path) -> Option<String>) -> String {
    let value = |path: &str| read(Path::new(path)).map(|text| text.trim().to_owned());
    let settings = [
        ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces", "15000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone", "1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns",
            "0",
        ),
    ];
    for (path, bad, name, good) in settings {
        if value(path).as_deref() == Some(bad) {
            return format!("{name} is {bad}; as root, run: sysctl -w {name}={good}");
        }
    }
    "in a container, its seccomp profile must allow unshare and mount, or it must run privileged".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_ranges_of_the_user_by_name_or_number_until_there_are_enough() {
        let text = "other:1:65536\nme:100000:60000\nnonsense\n1000:200000:65536\nme:5:1\n";
        assert_eq!(ranges(text, "me", Uid::from_raw(1000), 65_535), [(100_000, 60_000), (200_000, 5_535)]);
        assert_eq!(ranges(text, "nobody", Uid::from_raw(2), 65_535), []);
    }

    #[test]
    fn a_map_in_several_lines_is_passed_on_in_as_many() {
        let range = |first, count| Range { inside: first, outside: first, count };
        assert_eq!(own_ranges("         0          0 4294967295\n"), [range(0, 65_536)]);
        assert_eq!(own_ranges("0 9 65535\n65535 1 1\n70000 4 4\n"), [range(0, 65_535), range(65_535, 1)]);
        assert_eq!(own_ranges("0 9 1000\n"), [range(0, 65_536)]);
        assert!(has_ids("0 0 4294967295\n", BORROWED));
        assert!(!has_ids("0 9 65536\n", BORROWED) && has_ids("0 9 65536\n", 0) && !has_ids("0 9 65536\n", 1));
    }

    #[test]
    fn names_the_setting_that_forbids_user_namespaces() {
        let only = |wanted: &'static str, value: &'static str| {
            refusal_hint(move |path| path.ends_with(wanted).then(|| format!("{value}\n")))
        };
        assert!(only("max_user_namespaces", "0").contains("sysctl -w user.max_user_namespaces=15000"));
        assert!(only("unprivileged_userns_clone", "0").contains("sysctl -w kernel.unprivileged_userns_clone=1"));
        assert!(only("apparmor_restrict_unprivileged_userns", "1").contains("apparmor_restrict_unprivileged_userns=0"));
        assert!(only("max_user_namespaces", "1000").contains("seccomp"));
    }
}
