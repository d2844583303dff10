//! Packages whose scripts are known to write something that differs from build to build, and what adamant does about it.
//!
//! A table for people and for reports: [`of`] says what it holds of a package. What is done is done elsewhere, by the
//! rules of `normalise`, the programs that the sandbox masks, and `boot::state`; tests hold the rows against these.
//!
//! Invariant: a row's `paths` are what differed without the remedy, as patterns of [`Rule`](super::Rule).

/// What adamant does about something unrepeatable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The program that would write it does nothing while scripts run.
    Prevented,
    /// It is taken out of the image, and nothing misses it.
    Removed,
    /// It is taken out of the image; the machine makes its own when it boots.
    MadeAtBoot,
    /// It is written anew, from what it holds, in one way.
    Rewritten,
    /// It is taken out of the image, and the recipe or the administrator must bring it.
    Yours,
}

/// One row of [`UNREPEATABLE`].
#[derive(Debug, Clone, Copy)]
pub struct Unrepeatable {
    /// Name of the binary package. `*` stands for any part of it.
    pub package: &'static str,
    /// What its scripts write, and why no two builds write the same.
    pub writes: &'static str,
    /// Where, within the root.
    pub paths: &'static [&'static str],
    /// What is done about it, for programs.
    pub remedy: Remedy,
    /// What is done about it, for people.
    pub done: &'static str,
}

const fn row(
    package: &'static str,
    writes: &'static str,
    paths: &'static [&'static str],
    remedy: Remedy,
    done: &'static str,
) -> Unrepeatable {
    Unrepeatable { package, writes, paths, remedy, done }
}

/// All that is known, by package.
pub const UNREPEATABLE: &[Unrepeatable] = &[
    row(
        "base-passwd",
        "the day of the build as that of password changes",
        &["etc/shadow"],
        Remedy::Rewritten,
        "every day is that of the image's epoch",
    ),
    row(
        "ca-certificates-java",
        "a Java keystore in which each certificate has the time it was added",
        &["etc/ssl/certs/java/cacerts"],
        Remedy::Rewritten,
        "each was added at the image's epoch",
    ),
    row(
        "dbus*",
        "a random machine-id",
        &["var/lib/dbus/machine-id"],
        Remedy::MadeAtBoot,
        "D-Bus uses /etc/machine-id, which systemd makes",
    ),
    row(
        "dropbear-bin",
        "random host keys",
        &["etc/dropbear/dropbear_*_host_key"],
        Remedy::Yours,
        "taken out: give the machine keys, or start dropbear with -R",
    ),
    row(
        "fontconfig",
        "caches that hold the times of directories",
        &["var/cache/fontconfig/*"],
        Remedy::Removed,
        "programs read the fonts themselves",
    ),
    row(
        "install-info",
        "a menu of Info manuals in the order in which the file system lists them",
        &["usr/share/info/dir"],
        Remedy::Rewritten,
        "it is sorted",
    ),
    row(
        "libc-bin",
        "a cache of inode numbers and times",
        &["var/cache/ldconfig/aux-cache"],
        Remedy::Removed,
        "only ldconfig would read it",
    ),
    row(
        "man-db",
        "a database that holds times",
        &["var/cache/man/index.db", "var/cache/man/**/index.db"],
        Remedy::Removed,
        "man looks through the directories; apropos finds nothing",
    ),
    row(
        "mariadb-server",
        "system tables that hold times and a random identity",
        &["var/lib/mysql/*"],
        Remedy::MadeAtBoot,
        "mariadb.service has them made when it first starts",
    ),
    row(
        "nvme-cli",
        "a random name of the machine",
        &["etc/nvme/hostid", "etc/nvme/hostnqn"],
        Remedy::MadeAtBoot,
        "nvme derives it from the machine's SMBIOS UUID",
    ),
    row(
        "open-iscsi",
        "a random name of the machine",
        &["etc/iscsi/initiatorname.iscsi"],
        Remedy::MadeAtBoot,
        "iscsid.service has it made when it first starts",
    ),
    row(
        "openssh-server",
        "random host keys",
        &["etc/ssh/ssh_host_*_key", "etc/ssh/ssh_host_*_key.pub"],
        Remedy::MadeAtBoot,
        "ssh.service has one made when it first starts, or takes a credential's",
    ),
    row(
        "popularity-contest",
        "a random identity of the machine",
        &["etc/popularity-contest.conf"],
        Remedy::Removed,
        "it does not take part",
    ),
    row(
        "postgresql-*",
        "a database with a random identity, and times",
        &["var/lib/postgresql/*/main/*"],
        Remedy::MadeAtBoot,
        "postgresql@.service has it made when it first starts, with the settings in /etc/postgresql",
    ),
    row(
        "slapd",
        "a configuration and a database with random identities, times and a random password",
        &["etc/ldap/slapd.d/*", "var/lib/ldap/*"],
        Remedy::Yours,
        "taken out: add /etc/ldap/slapd.conf, or fill /etc/ldap/slapd.d when the machine boots",
    ),
    row(
        "ssl-cert",
        "a certificate with a random secret key",
        &["etc/ssl/private/ssl-cert-snakeoil.key", "etc/ssl/certs/ssl-cert-snakeoil.pem"],
        Remedy::MadeAtBoot,
        "made before the machine's first services start",
    ),
    row(
        "systemd",
        "random secrets and the machine-id",
        &["etc/machine-id", "var/lib/systemd/credential.secret", "var/lib/systemd/random-seed"],
        Remedy::MadeAtBoot,
        "systemd makes them when the machine boots",
    ),
];

/// What is known of `package`.
pub fn of(package: &str) -> impl Iterator<Item = &'static Unrepeatable> {
    UNREPEATABLE.iter().filter(move |row| super::normalise::matches_name(row.package.as_bytes(), package.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::RULES;

    #[test]
    fn a_package_is_found_by_its_name_and_by_the_pattern_of_its_versions() {
        assert_eq!(of("postgresql-17").map(|row| row.package).collect::<Vec<_>>(), ["postgresql-*"]);
        assert_eq!(of("ssl-cert").count(), 1);
        assert_eq!(of("ssl-certificates").count(), 0);
    }

    #[test]
    fn rows_are_in_the_order_of_names_and_say_something() {
        assert!(UNREPEATABLE.is_sorted_by_key(|row| row.package));
        for row in UNREPEATABLE {
            assert!(!row.writes.is_empty() && !row.paths.is_empty() && !row.done.is_empty(), "{row:?}");
        }
    }

    #[test]
    fn what_the_table_says_is_taken_out_has_a_rule() {
        for row in UNREPEATABLE.iter().filter(|row| row.remedy != Remedy::Rewritten) {
            for path in row.paths {
                assert!(RULES.iter().any(|rule| rule.pattern == *path), "{}: no rule for {path}", row.package);
            }
        }
    }
}
