//! Distributions whose archives and keys adamant knows: one row per suite.
//!
//! The keys are those of Debian's package debian-archive-keyring, without third-party certifications.

use super::openpgp::{Keyring, OpenPgpError};
use super::source::Repository;

/// A suite of a distribution.
struct Suite {
    name: &'static str,
    /// The archive's own key, that of the security archive, that of the release managers.
    keys: [&'static [u8]; 3],
}

const DEBIAN: &[Suite] = &[
    Suite {
        name: "bookworm",
        keys: [
            include_bytes!("keys/debian-bookworm-archive.asc"),
            include_bytes!("keys/debian-bookworm-security.asc"),
            include_bytes!("keys/debian-bookworm-release.asc"),
        ],
    },
    Suite {
        name: "trixie",
        keys: [
            include_bytes!("keys/debian-trixie-archive.asc"),
            include_bytes!("keys/debian-trixie-security.asc"),
            include_bytes!("keys/debian-trixie-release.asc"),
        ],
    },
];

/// The name of Debian's main repository.
pub const DEBIAN_REPOSITORY: &str = "debian";
/// The name of the repository of Debian's security updates, which has a root of its own.
pub const DEBIAN_SECURITY_REPOSITORY: &str = "debian-security";

/// A distribution that is not known.
#[derive(Debug, thiserror::Error)]
pub enum DistributionError {
    /// No such suite.
    #[error("Debian's suite {suite} is not known; known are {}", known_suites().join(", "))]
    UnknownSuite {
        /// As asked for.
        suite: String,
    },
    /// No such pocket.
    #[error("{pocket} is no part of a Debian suite; there are updates, security and backports")]
    UnknownPocket {
        /// As asked for.
        pocket: String,
    },
    /// A key in this program does not parse.
    #[error("cannot read the keys of Debian {suite}")]
    Keys {
        /// The suite.
        suite: String,
        /// Why.
        #[source]
        source: OpenPgpError,
    },
}

/// The suites of Debian whose keys are known, the oldest first.
pub fn known_suites() -> Vec<&'static str> {
    DEBIAN.iter().map(|suite| suite.name).collect()
}

/// The repositories of a Debian suite. `pockets` are further parts of it: `updates`, `security`, `backports`.
pub fn debian(suite: &str, pockets: &[String], components: &[String]) -> Result<Vec<Repository>, DistributionError> {
    debian_signed_by(&keys(suite)?, suite, pockets, components)
}

/// The same, of an archive that is signed by other keys than Debian's.
pub fn debian_signed_by(
    keys: &Keyring,
    suite: &str,
    pockets: &[String],
    components: &[String],
) -> Result<Vec<Repository>, DistributionError> {
    let repository = |name: &str, suites: Vec<String>| Repository {
        name: name.to_owned(),
        suites,
        components: components.to_vec(),
        keys: keys.clone(),
        priority: None,
    };
    let mut suites = vec![suite.to_owned()];
    let mut security = false;
    for pocket in pockets {
        match pocket.as_str() {
            "updates" | "backports" => suites.push(format!("{suite}-{pocket}")),
            "security" => security = true,
            _ => return Err(DistributionError::UnknownPocket { pocket: pocket.clone() }),
        }
    }
    let mut repositories = vec![repository(DEBIAN_REPOSITORY, suites)];
    if security {
        repositories.push(repository(DEBIAN_SECURITY_REPOSITORY, vec![format!("{suite}-security")]));
    }
    Ok(repositories)
}

/// Debian's own keys of a suite.
fn keys(suite: &str) -> Result<Keyring, DistributionError> {
    let unknown = || DistributionError::UnknownSuite { suite: suite.to_owned() };
    let row = DEBIAN.iter().find(|row| row.name == suite).ok_or_else(unknown)?;
    let mut keys = Keyring::default();
    for bytes in row.keys {
        let parsed =
            Keyring::parse(bytes).map_err(|source| DistributionError::Keys { suite: suite.to_owned(), source })?;
        keys = keys.join(&parsed);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_suite_has_its_keys() {
        for suite in known_suites() {
            let pockets = ["updates", "security"].map(str::to_owned);
            let repositories = debian(suite, &pockets, &["main".to_owned()]).unwrap();
            let [main, security] = repositories.as_slice() else { panic!("{repositories:?}") };
            assert_eq!(main.suites, [suite.to_owned(), format!("{suite}-updates")]);
            assert_eq!(security.suites, [format!("{suite}-security")]);
            assert_eq!(main.keys.fingerprints().len(), 3);
        }
        let trixie = debian("trixie", &[], &[]).unwrap().remove(0);
        assert_eq!(
            trixie.keys.fingerprints(),
            [
                "04B54C3CDCA79751B16BC6B5225629DF75B188BD",
                "5E04A1E3223A19A20706E20F9904613D4CCE68C6",
                "41587F7DB8C774BCCF131416762F67A0B2C39DE4"
            ]
        );
    }

    #[test]
    fn says_which_suites_and_pockets_there_are() {
        let error = debian("trixi", &[], &[]).unwrap_err().to_string();
        assert_eq!(error, "Debian's suite trixi is not known; known are bookworm, trixie");
        assert!(debian("trixie", &["proposed".to_owned()], &[]).is_err());
    }
}
