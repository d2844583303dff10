//! What is random, per build or per host in a configured tree, and what becomes of it.
//!
//! Flows in: a tree and the epoch. Flows out: the same tree, which two builds of the same inputs have in common. Each
//! rule is a row of [`RULES`] with its reason; beside them:
//!
//! - times are clamped: a file changed after the epoch was changed at the epoch, and no time has a fraction;
//! - a directory's time is the epoch: adding a name changes it, so it says only in what order things were unpacked;
//! - byte code of Python gets the clamped time of its source, by which Python knows that it is up to date;
//! - sockets are removed: they belong to processes that are gone.
//!
//! Compared with a tree that mmdebstrap makes of the same packages (`vm-tests/rootfs_equals_mmdebstrap.rs`), what
//! differs is what these rules name, and:
//!
//! | path | why |
//! |---|---|
//! | `/dev/*` | the kernel mounts its own |
//! | `/etc/fstab`, `/etc/hostname`, `/etc/resolv.conf` and its backup | placeholders and copies of the build host's |
//! | `/etc/apt/*` | the archive that mmdebstrap was told to use: a host's business, and an image is not upgraded |
//! | `/var/lib/apt`, `/var/cache/apt`, `/var/log/apt` | made by an apt that ran; `extended_states` is for an autoremove to come |
//! | `/run/*` | a tmpfs, there too while scripts run |
//! | `/boot/initrd.img-*`, `/initrd.img*` | the image's initrd is not made from its root file system |
//! | `/var/lib/dpkg/triggers/File` | the same lines in the order of unpacking |
//!
//! Scripts that ask for the host's name get `localhost` (`/etc/mailname`, for one). Which packages all this is about, and
//! what a machine makes in its place, says [`UNREPEATABLE`](super::UNREPEATABLE).

use std::io;

use super::{byte_code, info_directory, keystore};
use crate::tree::{Content, Kind, NodeId, Timestamp, Tree, TreeError, TreePath, components, show};

/// The largest file that is rewritten in memory: far above any keystore or module.
const REWRITTEN_MAX: u64 = 64 << 20;

/// Why a tree could not be normalised.
#[derive(Debug, thiserror::Error)]
pub enum NormaliseError {
    /// A file that a rule edits cannot be read.
    #[error("cannot read {}", show(.path))]
    Read {
        /// Within the root.
        path: Vec<u8>,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The tree does not hold what it was just seen to hold.
    #[error("cannot normalise the tree")]
    Tree(#[from] TreeError),
}

/// What a rule does to each node that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It goes, with everything below it.
    Remove,
    /// It goes if it is a regular file with something in it: empty ones are there for their owner and mode.
    RemoveFilled,
    /// It becomes an empty file.
    Empty,
    /// If it is a file of that form, it is written anew, in the one way that depends on the epoch only.
    Rewrite(Form),
}

/// Files that are rewritten rather than taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `shadow(5)`: the day of each password change that has one is the epoch's.
    Shadow,
    /// A Java keystore: the date of each entry is the epoch.
    JavaKeystore,
    /// The menu of Info manuals: sorted.
    InfoDirectory,
    /// The name of an iSCSI initiator: the machine is told to make one.
    InitiatorName,
}

impl Form {
    /// The file's new text; `None`: it stays.
    fn rewrite(self, text: &[u8], epoch: i64) -> Option<Vec<u8>> {
        match self {
            Self::Shadow => Some(with_password_days(text, epoch)),
            Self::JavaKeystore => keystore::with_date(text, epoch),
            Self::InfoDirectory => info_directory::sorted(text),
            // open-iscsi's startup-checks.sh knows it.
            Self::InitiatorName => Some(b"GenerateName=yes\n".to_vec()),
        }
    }
}

/// One row of [`RULES`].
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Path within the root. `*` stands for any part of a name, `**` for any number of directories.
    pub pattern: &'static str,
    /// What happens there.
    pub action: Action,
    /// Why.
    pub reason: &'static str,
}

impl Rule {
    /// Whether the rule is about `path`, relative to the root.
    pub fn matches(&self, path: &TreePath) -> bool {
        matches(self.pattern, path)
    }
}

const fn rule(pattern: &'static str, action: Action, reason: &'static str) -> Rule {
    Rule { pattern, action, reason }
}

/// All rules; every one that matches applies.
pub const RULES: &[Rule] = &[
    // Identity: a machine gets its own when it boots.
    rule("etc/machine-id", Action::Empty, "random; empty means that systemd makes one at boot"),
    rule("var/lib/dbus/machine-id", Action::Remove, "a copy of the machine-id; D-Bus falls back to /etc/machine-id"),
    rule("etc/ssh/ssh_host_*_key", Action::Remove, "a random secret that all machines would share"),
    rule("etc/ssh/ssh_host_*_key.pub", Action::Remove, "belongs to a key that is not there"),
    rule("etc/dropbear/dropbear_*_host_key", Action::Remove, "a random secret that all machines would share"),
    rule("etc/ssl/private/ssl-cert-snakeoil.key", Action::Remove, "a random secret that all machines would share"),
    rule("etc/ssl/certs/ssl-cert-snakeoil.pem", Action::Remove, "belongs to a key that is not there"),
    rule("etc/nvme/hostid", Action::Remove, "random; names the machine to NVMe targets"),
    rule("etc/nvme/hostnqn", Action::Remove, "random; names the machine to NVMe targets"),
    rule(
        "etc/iscsi/initiatorname.iscsi",
        Action::Rewrite(Form::InitiatorName),
        "random; names the machine to iSCSI targets",
    ),
    rule("etc/popularity-contest.conf", Action::Remove, "holds a random identity of the machine"),
    rule("var/lib/systemd/random-seed", Action::Remove, "a seed that all machines would share is none"),
    rule("var/lib/systemd/credential.secret", Action::Remove, "a random secret that all machines would share"),
    rule("var/lib/urandom/random-seed", Action::Remove, "a seed that all machines would share is none"),
    rule("root/.rnd", Action::Remove, "OpenSSL's random state"),
    rule("var/lib/postgresql/*/main/*", Action::Remove, "a database with a random identity; made at boot"),
    rule("var/lib/mysql/*", Action::Remove, "system tables with times and a random identity; made at boot"),
    rule("etc/ldap/slapd.d/*", Action::Remove, "random identities and a random password"),
    rule("var/lib/ldap/*", Action::Remove, "a database with random identities and a random password"),
    // Dates of the build in files that are needed.
    rule("etc/shadow", Action::Rewrite(Form::Shadow), "accounts that packages make have the day of the build"),
    rule("etc/ssl/certs/java/cacerts", Action::Rewrite(Form::JavaKeystore), "entries have the time of the build"),
    rule("usr/share/info/dir", Action::Rewrite(Form::InfoDirectory), "manuals in the order of the host's directories"),
    // Logs: what was installed when is in the lock and the manifest.
    rule("var/log/**", Action::RemoveFilled, "says when and where the image was built"),
    // Backups of files that are right there.
    rule("etc/passwd-", Action::Remove, "backup: the last state but one of the build"),
    rule("etc/group-", Action::Remove, "backup: the last state but one of the build"),
    rule("etc/shadow-", Action::Remove, "backup: the last state but one of the build"),
    rule("etc/gshadow-", Action::Remove, "backup: the last state but one of the build"),
    rule("etc/subuid-", Action::Remove, "backup: the last state but one of the build"),
    rule("etc/subgid-", Action::Remove, "backup: the last state but one of the build"),
    rule("var/lib/dpkg/status-old", Action::Remove, "backup: the last state but one of the build"),
    rule("var/lib/dpkg/available-old", Action::Remove, "backup: the last state but one of the build"),
    rule("var/lib/dpkg/diversions-old", Action::Remove, "backup: the last state but one of the build"),
    rule("var/lib/dpkg/statoverride-old", Action::Remove, "backup: the last state but one of the build"),
    rule("var/cache/debconf/*-old", Action::Remove, "backup: the last state but one of the build"),
    rule("var/lib/ucf/hashfile.*", Action::Remove, "backup: earlier states of the build"),
    rule("var/lib/ucf/registry.*", Action::Remove, "backup: earlier states of the build"),
    rule("usr/share/info/dir.old", Action::Remove, "backup: the last state but one of the build"),
    rule("var/backups/*", Action::Remove, "backups of dpkg's state, made by a timer"),
    // Caches that hold times or inode numbers of the disk they were made on, and are made again when missing.
    rule("var/cache/ldconfig/aux-cache", Action::Remove, "inode numbers and times of the build's disk"),
    rule("var/cache/apt/*.bin", Action::Remove, "apt's cache of lists that are not there"),
    rule("var/cache/apt/archives/*.deb", Action::Remove, "packages that are installed"),
    rule("var/lib/apt/lists/*_*", Action::Remove, "lists of an archive that has moved on"),
    rule("var/cache/man/**/index.db", Action::Remove, "a database with times of the build's disk"),
    rule("var/cache/man/index.db", Action::Remove, "a database with times of the build's disk"),
    rule("var/cache/man/**/CACHEDIR.TAG", Action::Remove, "marks a cache that is not there"),
    rule("var/cache/man/CACHEDIR.TAG", Action::Remove, "marks a cache that is not there"),
    rule("var/cache/fontconfig/*", Action::Remove, "times of the build's directories, which the tree does not keep"),
    rule("root/.cache", Action::Remove, "what programs that scripts ran have cached"),
    // Left-overs of the build.
    rule("tmp/*", Action::Remove, "temporary"),
    rule("var/tmp/*", Action::Remove, "temporary"),
    rule("run/*", Action::Remove, "a tmpfs on the running machine"),
    rule("dev/*", Action::Remove, "a devtmpfs on the running machine"),
    rule("var/lib/dpkg/info/*.dpkg-tmp", Action::Remove, "a file that dpkg did not get round to"),
];

/// Seconds of a day, for `/etc/shadow`.
const DAY: i64 = 86_400;

/// Applies every rule. What comes out is the same for two trees that differ only in what rules name.
pub fn normalise(tree: &mut Tree, epoch: i64) -> Result<(), NormaliseError> {
    let mut doomed: Vec<Vec<u8>> = Vec::new();
    let mut rewritten = Vec::new();
    for (path, id) in tree.walk() {
        let kind = &tree.node(id).kind;
        let filled = matches!(kind, Kind::File(content) if content.size() > 0);
        for rule in RULES.iter().filter(|rule| rule.matches(&path)) {
            match rule.action {
                Action::Remove => doomed.push(path.clone()),
                Action::RemoveFilled if filled => doomed.push(path.clone()),
                Action::RemoveFilled => {}
                Action::Empty => rewritten.push((id, Vec::new())),
                Action::Rewrite(form) => {
                    rewritten.extend(read(tree, id, &path)?.and_then(|text| Some((id, form.rewrite(&text, epoch)?))));
                }
            }
        }
        let dangles = matches!(kind, Kind::Symlink(target) if target == b"ssl-cert-snakeoil.pem");
        if matches!(kind, Kind::Socket) || dangles {
            doomed.push(path);
        }
    }
    for (id, text) in rewritten {
        tree.node_mut(id).kind = Kind::File(Content::from_bytes(text));
    }
    for path in doomed {
        // It may have gone with its directory, or by two rules.
        if tree.lookup(&path).is_some() {
            tree.remove(&path)?;
        }
    }
    date_byte_code(tree, epoch)?;
    clamp_times(tree, epoch);
    Ok(())
}

/// What the file holds; `None` if it is none, or larger than anything that is rewritten.
fn read(tree: &Tree, id: NodeId, path: &TreePath) -> Result<Option<Vec<u8>>, NormaliseError> {
    match &tree.node(id).kind {
        Kind::File(content) if content.size() <= REWRITTEN_MAX => {
            content.to_vec().map(Some).map_err(|source| NormaliseError::Read { path: path.to_vec(), source })
        }
        _ => Ok(None),
    }
}

/// Before times are clamped: byte code of sources that are younger than the epoch.
fn date_byte_code(tree: &mut Tree, epoch: i64) -> Result<(), NormaliseError> {
    let mut changed = Vec::new();
    for (path, id) in tree.walk() {
        let time = tree.node(id).metadata.mtime.seconds;
        if time <= epoch {
            continue;
        }
        let Some((cache, stem)) = byte_code::prefix(&path) else { continue };
        let Some(cached) = tree.lookup(&cache).and_then(|id| tree.entries(id)) else { continue };
        for (name, compiled) in cached.iter().filter(|(name, _)| name.starts_with(&stem) && name.ends_with(b".pyc")) {
            let path = [&cache[..], b"/", name].concat();
            let text = read(tree, *compiled, &path)?;
            changed.extend(text.and_then(|text| Some((*compiled, byte_code::with_time(&text, time, epoch)?))));
        }
    }
    for (id, text) in changed {
        tree.node_mut(id).kind = Kind::File(Content::from_bytes(text));
    }
    Ok(())
}

fn clamp_times(tree: &mut Tree, epoch: i64) {
    let nodes: Vec<NodeId> = tree.walk().map(|(_, id)| id).collect();
    for id in nodes {
        let is_directory = tree.entries(id).is_some();
        let mtime = &mut tree.node_mut(id).metadata.mtime;
        let seconds = if is_directory { epoch } else { mtime.seconds.min(epoch) };
        *mtime = Timestamp::from_seconds(seconds);
    }
}

/// The third field of `shadow(5)`. Nobody has changed a password: whatever day stands there is one of the build, whose
/// clock may be wrong. Zero stays, for it makes the user change the password.
fn with_password_days(text: &[u8], epoch: i64) -> Vec<u8> {
    let day = epoch.div_euclid(DAY).to_string();
    let dated = |line: &[u8]| {
        let mut fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        if fields.get(2).is_some_and(|field| !matches!(*field, b"" | b"0")) {
            fields[2] = day.as_bytes();
        }
        fields.join(&b':')
    };
    text.split(|byte| *byte == b'\n').map(dated).collect::<Vec<_>>().join(&b'\n')
}

/// Whether the whole path is what the pattern means.
fn matches(pattern: &str, path: &TreePath) -> bool {
    // Most rules are about another place: 60 rules and 10 000 paths are looked at in every build.
    let literal = &pattern.as_bytes()[..pattern.find('*').unwrap_or(pattern.len())];
    if !path.starts_with(literal) {
        return false;
    }
    let patterns: Vec<&[u8]> = pattern.as_bytes().split(|byte| *byte == b'/').collect();
    let names: Vec<&[u8]> = components(path).collect();
    matches_names(&patterns, &names)
}

fn matches_names(patterns: &[&[u8]], names: &[&[u8]]) -> bool {
    match (patterns.split_first(), names.split_first()) {
        (None, None) => true,
        // At least one name: what stands below a directory is not the directory.
        (Some((&b"**", rest)), Some((_, below))) => matches_names(patterns, below) || matches_names(rest, below),
        (Some((pattern, rest)), Some((name, below))) => matches_name(pattern, name) && matches_names(rest, below),
        _ => false,
    }
}

pub(super) fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.iter().position(|byte| *byte == b'*') {
        None => pattern == name,
        Some(star) => {
            let (head, tail) = (&pattern[..star], &pattern[star + 1..]);
            let Some(rest) = name.strip_prefix(head) else { return false };
            (0..=rest.len()).any(|skipped| matches_name(tail, &rest[skipped..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Metadata, Node};

    const EPOCH: i64 = 1_760_000_000;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (path, text) in files {
            let (parent, _) = crate::tree::split(path.as_bytes()).unwrap();
            tree.make_directories(parent, &Metadata::with_mode(0o755)).unwrap();
            let kind = Kind::File(Content::from_bytes(*text));
            tree.insert(path.as_bytes(), Node { metadata: Metadata::with_mode(0o640), kind }).unwrap();
        }
        tree
    }

    fn text(tree: &Tree, path: &str) -> Option<String> {
        match &tree.node(tree.lookup(path.as_bytes())?).kind {
            Kind::File(content) => Some(String::from_utf8(content.to_vec().unwrap()).unwrap()),
            _ => None,
        }
    }

    fn normalised(files: &[(&str, &str)]) -> Tree {
        let mut tree = tree(files);
        normalise(&mut tree, EPOCH).unwrap();
        tree
    }

    #[test]
    fn an_image_has_no_identity() {
        let keys = ["etc/ssh/ssh_host_rsa_key", "etc/ssh/ssh_host_rsa_key.pub", "var/lib/dbus/machine-id"];
        let tree = normalised(&[("etc/machine-id", "x"), (keys[0], "x"), (keys[1], "x"), (keys[2], "x")]);
        assert_eq!(text(&tree, "etc/machine-id").as_deref(), Some(""));
        for key in keys {
            assert!(tree.lookup(key.as_bytes()).is_none(), "{key}");
        }
        assert!(normalised(&[("etc/ssh/ssh_config", "x")]).lookup(b"etc/ssh/ssh_config").is_some());
    }

    #[test]
    fn logs_go_and_empty_ones_stay_for_their_mode() {
        let tree = normalised(&[("var/log/apt/term.log", "x"), ("var/log/dpkg.log", "x"), ("var/log/wtmp", "")]);
        let names: Vec<_> = tree.walk().map(|(path, _)| String::from_utf8(path).unwrap()).collect();
        assert_eq!(names, ["", "var", "var/log", "var/log/apt", "var/log/wtmp"]);
    }

    #[test]
    fn times_are_clamped_and_those_of_directories_are_the_epoch() {
        let mut tree = tree(&[("d/old", ""), ("d/new", "")]);
        let times = [("d", 5), ("d/old", 1_000_000_000), ("d/new", 1_900_000_000)];
        for (path, seconds) in times {
            let id = tree.lookup(path.as_bytes()).unwrap();
            tree.node_mut(id).metadata.mtime = Timestamp { seconds, nanoseconds: 7 };
        }
        normalise(&mut tree, EPOCH).unwrap();
        let time = |path: &str| tree.node(tree.lookup(path.as_bytes()).unwrap()).metadata.mtime;
        assert_eq!(time("d"), Timestamp::from_seconds(EPOCH));
        assert_eq!(time("d/old"), Timestamp::from_seconds(1_000_000_000));
        assert_eq!(time("d/new"), Timestamp::from_seconds(EPOCH));
    }

    #[test]
    fn days_of_password_changes_are_the_epochs() {
        let shadow = "a:*:11111:0:99999:7:::\nb:!:29999::::::\nc:*::::::\nd:*:0::::::\n";
        let tree = normalised(&[("etc/shadow", shadow)]);
        let expected = "a:*:20370:0:99999:7:::\nb:!:20370::::::\nc:*::::::\nd:*:0::::::\n";
        assert_eq!(text(&tree, "etc/shadow").as_deref(), Some(expected));
    }

    #[test]
    fn byte_code_has_the_time_that_its_source_gets() {
        let time = 1_900_000_000_u32;
        let header = |time: u32| [[1, 2, 13, 10], [0; 4], time.to_le_bytes(), [1, 0, 0, 0]].concat();
        let compiled = "a/__pycache__/m.cpython-313.opt-1.pyc";
        let mut tree = tree(&[("a/m.py", "x"), (compiled, ""), ("a/__pycache__/mm.cpython-313.pyc", "")]);
        for path in [compiled, "a/__pycache__/mm.cpython-313.pyc"] {
            let id = tree.lookup(path.as_bytes()).unwrap();
            tree.node_mut(id).kind = Kind::File(Content::from_bytes(header(time)));
        }
        let source = tree.lookup(b"a/m.py").unwrap();
        tree.node_mut(source).metadata.mtime = Timestamp::from_seconds(time.into());
        normalise(&mut tree, EPOCH).unwrap();
        let bytes = |path: &str| match &tree.node(tree.lookup(path.as_bytes()).unwrap()).kind {
            Kind::File(content) => content.to_vec().unwrap(),
            _ => panic!("{path}"),
        };
        assert_eq!(bytes(compiled), header(EPOCH as u32));
        assert_eq!(bytes("a/__pycache__/mm.cpython-313.pyc"), header(time), "of another source");
    }

    #[test]
    fn databases_go_and_their_directories_stay() {
        let tree = normalised(&[
            ("var/lib/mysql/ibdata1", "x"),
            ("var/lib/mysql/mysql/user.frm", "x"),
            ("var/lib/postgresql/17/main/PG_VERSION", "17"),
            ("var/lib/postgresql/17/main/base/1/112", "x"),
            ("etc/postgresql/17/main/postgresql.conf", "x"),
        ]);
        for directory in ["var/lib/mysql", "var/lib/postgresql/17/main"] {
            let id = tree.lookup(directory.as_bytes()).unwrap();
            assert_eq!(tree.entries(id).unwrap().len(), 0, "{directory}");
        }
        assert_eq!(text(&tree, "etc/postgresql/17/main/postgresql.conf").as_deref(), Some("x"));
    }

    #[test]
    fn sockets_go() {
        let mut tree = tree(&[("var/x", "")]);
        tree.insert(b"var/socket", Node { metadata: Metadata::with_mode(0o777), kind: Kind::Socket }).unwrap();
        normalise(&mut tree, EPOCH).unwrap();
        assert!(tree.lookup(b"var/socket").is_none());
    }

    #[test]
    fn patterns_match_whole_paths() {
        assert!(matches("a/*", b"a/b") && !matches("a/*", b"a/b/c") && !matches("a/*", b"a"));
        assert!(matches("a/**", b"a/b/c") && !matches("a/**", b"a"));
        assert!(matches("a/**/z", b"a/b/c/z") && !matches("a/**/z", b"a/z"));
        assert!(matches("a/x*_y*", b"a/x12_y") && !matches("a/x*_y*", b"a/x12y"));
    }

    #[test]
    fn normalising_twice_changes_nothing() {
        let files = [("etc/machine-id", "x"), ("var/log/a", "x"), ("etc/shadow", "a:*:30000:\n"), ("etc/x", "y")];
        let once = normalised(&files);
        let mut twice = once.clone();
        normalise(&mut twice, EPOCH).unwrap();
        let show =
            |tree: &Tree| tree.walk().map(|(path, id)| format!("{path:?} {:?}", tree.node(id))).collect::<Vec<_>>();
        assert_eq!(show(&once), show(&twice));
    }

    #[test]
    fn every_rule_has_a_reason() {
        for rule in RULES {
            assert!(!rule.reason.is_empty() && !rule.pattern.starts_with('/'), "{rule:?}");
        }
    }
}
