//! A release file: what a suite consists of, since when, until when.
//!
//! Flows in: the text of `InRelease` once its signature is verified. Flows out: a [`Release`]: the suite's names, its
//! dates, and for every index its size and SHA-256 digest.
//!
//! Specification: Debian's repository format (wiki.debian.org/DebianRepository/Format), "Release" files. Only the
//! `SHA256` table is read: what is listed by MD5 or SHA-1 alone does not exist for us.

use std::collections::BTreeMap;

use super::control::{ControlError, Paragraph};
use super::openpgp::date;
use super::packages::is_pool_path;
use crate::digest::Digest;

/// How far ahead of ours the archive's clock may be.
const CLOCK_TOLERANCE_SECONDS: u64 = 600;

/// Size and digest of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    /// In bytes.
    pub size: u64,
    /// SHA-256.
    pub digest: Digest,
}

/// A suite at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// `Suite`, e.g. `stable`.
    pub suite: Option<String>,
    /// `Codename`, e.g. `trixie`.
    pub codename: Option<String>,
    /// `Date`, Unix seconds.
    pub date: u64,
    /// `Valid-Until`, Unix seconds.
    pub valid_until: Option<u64>,
    /// Without a prefix like `updates/`, as indexes' paths have it.
    pub components: Vec<String>,
    /// `Architectures`.
    pub architectures: Vec<String>,
    /// `No-Support-for-Architecture-all: Packages`: packages for all are listed with each architecture, and only there.
    pub all_listed_separately: bool,
    /// `Acquire-By-Hash: yes`: indexes can be fetched by their digest, and do not vanish under our hands.
    pub by_hash: bool,
    /// `NotAutomatic: yes`: not a source of packages unless asked for.
    pub not_automatic: bool,
    /// `ButAutomaticUpgrades: yes`
    pub but_automatic_upgrades: bool,
    /// The indexes by their path below the suite's directory.
    pub files: BTreeMap<String, FileIdentity>,
}

/// A text that is no release file, or one that is out of date.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// Not a control paragraph.
    #[error("not a release file")]
    Control {
        /// Where and why.
        #[from]
        source: ControlError,
    },
    /// A field that must be there is not.
    #[error("the release file has no field {field}")]
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// A field's value cannot be understood.
    #[error("the release file has a wrong {field}: {value:?}")]
    Wrong {
        /// Its name.
        field: &'static str,
        /// Its value, shortened.
        value: String,
    },
    /// `Valid-Until` has passed.
    #[error(
        "the release file expired on {} (made on {}): the mirror is stale, or an old index is being replayed",
        date(*.valid_until),
        date(*.made)
    )]
    Expired {
        /// Unix seconds.
        valid_until: u64,
        /// Unix seconds.
        made: u64,
    },
    /// `Date` lies ahead.
    #[error("the release file is dated {}, in the future: check the clock", date(*.made))]
    FromTheFuture {
        /// Unix seconds.
        made: u64,
    },
}

impl Release {
    /// Reads the text. Whether it is still valid says [`Release::check_dates`].
    pub fn parse(text: &str) -> Result<Self, ReleaseError> {
        let paragraph = Paragraph::parse(text)?;
        let get = |field| paragraph.get(field);
        let words = |field| get(field).unwrap_or("").split_ascii_whitespace();
        let yes = |field| get(field).is_some_and(|value| value.eq_ignore_ascii_case("yes"));
        let dated = |field: &'static str| get(field).map(|value| parse_date(field, value)).transpose();
        // The security archive calls its components `updates/main` and keeps their indexes below `main`.
        let component = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
        Ok(Self {
            suite: get("Suite").map(str::to_owned),
            codename: get("Codename").map(str::to_owned),
            date: dated("Date")?.ok_or(ReleaseError::Missing { field: "Date" })?,
            valid_until: dated("Valid-Until")?,
            components: words("Components").map(component).collect(),
            architectures: words("Architectures").map(str::to_owned).collect(),
            all_listed_separately: !words("No-Support-for-Architecture-all").any(|word| word == "Packages"),
            by_hash: yes("Acquire-By-Hash"),
            not_automatic: yes("NotAutomatic"),
            but_automatic_upgrades: yes("ButAutomaticUpgrades"),
            files: parse_files(get("SHA256").ok_or(ReleaseError::Missing { field: "SHA256" })?)?,
        })
    }

    /// Refuses a release that has expired at `now` (Unix seconds), or that is not made yet.
    pub fn check_dates(&self, now: u64) -> Result<(), ReleaseError> {
        if self.date > now + CLOCK_TOLERANCE_SECONDS {
            return Err(ReleaseError::FromTheFuture { made: self.date });
        }
        match self.valid_until {
            Some(valid_until) if valid_until < now => Err(ReleaseError::Expired { valid_until, made: self.date }),
            _ => Ok(()),
        }
    }

    /// Whether `name` is this suite, by its codename or its current role.
    pub fn is_called(&self, name: &str) -> bool {
        self.codename.as_deref() == Some(name) || self.suite.as_deref() == Some(name)
    }
}

fn parse_files(table: &str) -> Result<BTreeMap<String, FileIdentity>, ReleaseError> {
    let mut files = BTreeMap::new();
    for line in table.lines().map(str::trim_ascii).filter(|line| !line.is_empty()) {
        let wrong = || ReleaseError::Wrong { field: "SHA256", value: line.chars().take(120).collect() };
        let mut words = line.split_ascii_whitespace();
        let (Some(digest), Some(size), Some(path), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(wrong());
        };
        let identity =
            FileIdentity { size: size.parse().map_err(|_| wrong())?, digest: digest.parse().map_err(|_| wrong())? };
        if !is_pool_path(path) || files.insert(path.to_owned(), identity).is_some_and(|other| other != identity) {
            return Err(wrong());
        }
    }
    Ok(files)
}

/// The archive's dates are those of RFC 2822, with the zone `UTC` that the RFC does not have.
fn parse_date(field: &'static str, value: &str) -> Result<u64, ReleaseError> {
    let wrong = || ReleaseError::Wrong { field, value: value.chars().take(80).collect() };
    let with_zone = match value.strip_suffix("UTC").or_else(|| value.strip_suffix("GMT")) {
        Some(local) => format!("{}+0000", local.trim_end().to_owned() + " "),
        None => value.to_owned(),
    };
    let zoned = jiff::fmt::rfc2822::parse(&with_zone).map_err(|_| wrong())?;
    u64::try_from(zoned.timestamp().as_second()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "Origin: Debian\nSuite: stable-security\nCodename: trixie-security\n\
        Date: Sat, 21 Nov 2026 00:53:03 UTC\nValid-Until: Sat, 28 Nov 2026 00:53:03 UTC\nAcquire-By-Hash: yes\n\
        Architectures: amd64 arm64\nComponents: updates/main updates/contrib\nSHA256:\n \
        e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855        0 main/binary-amd64/Packages\n";

    #[test]
    fn reads_names_dates_and_files() {
        let release = Release::parse(GOOD).unwrap();
        assert_eq!(release.date, 1_795_222_383);
        assert_eq!(release.valid_until, Some(release.date + 7 * 86_400));
        assert_eq!(release.components, ["main", "contrib"]);
        assert_eq!(release.files["main/binary-amd64/Packages"], FileIdentity { size: 0, digest: Digest::of(b"") });
        assert!(release.by_hash && !release.not_automatic && release.all_listed_separately);
        assert!(release.is_called("trixie-security") && release.is_called("stable-security"));
        assert!(!release.is_called("trixie"));
    }

    #[test]
    fn honours_valid_until_to_the_second() {
        let release = Release::parse(GOOD).unwrap();
        let valid_until = release.valid_until.unwrap();
        assert_eq!(release.check_dates(valid_until), Ok(()));
        let expired = ReleaseError::Expired { valid_until, made: release.date };
        assert_eq!(release.check_dates(valid_until + 1), Err(expired));
    }

    #[test]
    fn refuses_a_date_in_the_future_but_forgives_a_slow_clock() {
        let release = Release::parse(GOOD).unwrap();
        assert_eq!(release.check_dates(release.date - CLOCK_TOLERANCE_SECONDS), Ok(()));
        let future = ReleaseError::FromTheFuture { made: release.date };
        assert_eq!(release.check_dates(release.date - CLOCK_TOLERANCE_SECONDS - 1), Err(future));
    }

    #[test]
    fn says_what_is_missing_or_wrong() {
        for (field, error) in
            [("Date:", ReleaseError::Missing { field: "Date" }), ("SHA256:", ReleaseError::Missing { field: "SHA256" })]
        {
            assert_eq!(Release::parse(&GOOD.replace(field, "X:")), Err(error));
        }
        for (from, to, field) in [
            ("28 Nov 2026 00:53:03", "tomorrow", "Valid-Until"),
            ("main/binary", "../binary", "SHA256"),
            (" 0 main", " x main", "SHA256"),
            ("e3b0", "E3B0", "SHA256"),
        ] {
            let error = Release::parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(matches!(error, ReleaseError::Wrong { field: found, .. } if found == field), "{error}");
        }
    }

    proptest! {
        #[test]
        fn mutated_input_never_panics(at in 0..GOOD.len(), byte in 0u8..128, cut in 0..GOOD.len()) {
            let mut bytes = GOOD.as_bytes().to_vec();
            bytes[at] = byte;
            bytes.truncate(cut);
            let _ = Release::parse(&String::from_utf8(bytes).unwrap());
        }
    }
}
