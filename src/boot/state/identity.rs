//! Secrets and identities of services, which an image does not hold: the units and scripts by which a machine makes its
//! own when it boots.
//!
//! In: a tree, in which a program tells that the service is there. Out: the tree with the files of its row of
//! [`IDENTITIES`]. What is made lies below `/var`, so that a persistent machine keeps it; below `/etc` are links or
//! copies. Each script can be cut off at any point and makes up for it the next time.

use super::files::{Entry, entry};

/// What a service needs before it starts, by the program or file of the image that asks for it.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// Below the root: there if the service is.
    pub of: &'static str,
    /// Files to put into the image.
    pub entries: &'static [Entry],
    /// Symlinks to put into the image, with what they say.
    pub links: &'static [(&'static str, &'static str)],
}

/// All of them; SSH host keys are beside in `files`, for they come with settings of the server.
pub const IDENTITIES: &[Identity] = &[CERTIFICATE, INITIATOR_NAME, MARIADB, POSTGRESQL];

/// Services refer to it without saying so: it is there before any that does not ask to start early.
const CERTIFICATE: Identity = Identity {
    of: "usr/sbin/make-ssl-cert",
    entries: &[
        entry(
            "usr/lib/systemd/system/adamant-certificate.service",
            0o644,
            "\
[Unit]
Description=Self-Signed Certificate of this Machine
DefaultDependencies=no
After=sysinit.target
Before=basic.target shutdown.target
Conflicts=shutdown.target
ConditionPathExists=!/etc/ssl/private/ssl-cert-snakeoil.key

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/adamant/certificate
",
        ),
        entry("usr/lib/adamant/certificate", 0o755, include_str!("certificate.sh")),
    ],
    links: &[(
        "usr/lib/systemd/system/basic.target.wants/adamant-certificate.service",
        "../adamant-certificate.service",
    )],
};

/// open-iscsi's own script replaces this line by a name, through the link.
const INITIATOR_NAME: Identity = Identity {
    of: "etc/iscsi/initiatorname.iscsi",
    entries: &[entry("var/lib/adamant/iscsi/initiatorname.iscsi", 0o600, "GenerateName=yes\n")],
    links: &[("etc/iscsi/initiatorname.iscsi", "/var/lib/adamant/iscsi/initiatorname.iscsi")],
};

const DATABASE: Entry = entry("usr/lib/adamant/database", 0o755, include_str!("database.sh"));

const MARIADB: Identity = Identity {
    of: "usr/bin/mariadb-install-db",
    entries: &[
        DATABASE,
        entry(
            "usr/lib/systemd/system/adamant-mariadb.service",
            0o644,
            "\
[Unit]
Description=System Tables of MariaDB
RequiresMountsFor=/var/lib/mysql
Before=mariadb.service
ConditionPathExists=|!/var/lib/mysql/mysql
ConditionPathExists=|/var/lib/mysql/.adamant-unfinished

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/adamant/database mariadb
",
        ),
        entry(
            "usr/lib/systemd/system/mariadb.service.d/adamant.conf",
            0o644,
            "\
[Unit]
Requires=adamant-mariadb.service
After=adamant-mariadb.service
",
        ),
    ],
    links: &[],
};

/// Instances are those of Debian's own `postgresql@.service`: version and cluster, as in `17-main`.
const POSTGRESQL: Identity = Identity {
    of: "usr/bin/pg_ctlcluster",
    entries: &[
        DATABASE,
        entry(
            "usr/lib/systemd/system/adamant-postgresql@.service",
            0o644,
            "\
[Unit]
Description=PostgreSQL Cluster %i of this Machine
RequiresMountsFor=/var/lib/postgresql/%I
Before=postgresql@%i.service
ConditionPathExists=/var/lib/postgresql/%I
ConditionPathExists=|!/var/lib/postgresql/%I/PG_VERSION
ConditionPathExists=|/var/lib/postgresql/%I/.adamant-unfinished

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/adamant/database postgresql %I
",
        ),
        entry(
            "usr/lib/systemd/system/postgresql@.service.d/adamant.conf",
            0o644,
            "\
[Unit]
Requires=adamant-postgresql@%i.service
After=adamant-postgresql@%i.service
",
        ),
    ],
    links: &[],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::state::{State, apply};
    use crate::tree::{Content, Kind, Metadata, Node, Timestamp, Tree};

    fn with(program: &str) -> Tree {
        let mut tree = Tree::default();
        let (parent, _) = crate::tree::split(program.as_bytes()).unwrap();
        tree.make_directories(parent, &Metadata::with_mode(0o755)).unwrap();
        let file = Node { metadata: Metadata::with_mode(0o755), kind: Kind::File(Content::from_bytes("")) };
        tree.insert(program.as_bytes(), file).unwrap();
        apply(&mut tree, State::Volatile, Timestamp::from_seconds(7)).unwrap();
        tree
    }

    #[test]
    fn a_service_brings_the_files_that_it_needs_and_no_others() {
        for identity in IDENTITIES {
            let tree = with(identity.of);
            for other in IDENTITIES {
                for entry in other.entries {
                    let wanted = identity.entries.iter().any(|own| own.path == entry.path);
                    assert_eq!(tree.lookup(entry.path.as_bytes()).is_some(), wanted, "{}: {}", identity.of, entry.path);
                }
            }
        }
    }

    #[test]
    fn the_name_of_an_initiator_is_made_where_it_is_kept() {
        let tree = with("etc/iscsi/initiatorname.iscsi");
        let id = tree.lookup(b"etc/iscsi/initiatorname.iscsi").unwrap();
        let Kind::Symlink(target) = &tree.node(id).kind else { panic!("no link") };
        assert_eq!(target, b"/var/lib/adamant/iscsi/initiatorname.iscsi");
        let id = tree.lookup(&target[1..]).unwrap();
        assert_eq!(tree.node(id).metadata.mode, 0o600);
        let Kind::File(content) = &tree.node(id).kind else { panic!("no file") };
        assert_eq!(content.to_vec().unwrap(), b"GenerateName=yes\n");
    }

    #[test]
    fn every_script_that_a_unit_starts_is_there() {
        for identity in IDENTITIES {
            let scripts = identity.entries.iter().flat_map(|entry| entry.text.lines());
            for command in scripts.filter_map(|line| line.strip_prefix("ExecStart=/")) {
                let program = command.split(' ').next().unwrap();
                assert!(identity.entries.iter().any(|entry| entry.path == program && entry.mode == 0o755), "{command}");
            }
        }
    }
}
