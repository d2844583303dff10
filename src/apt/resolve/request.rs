//! What is asked for: packages, perhaps of a certain version or from a certain repository.

use std::fmt;
use std::str::FromStr;

use super::super::packages::is_package_name;
use super::super::version;

/// Which version of a package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// Exactly this one: `package=version`.
    Version(String),
    /// The newest of this repository or suite: `package/trixie-backports`.
    Origin(String),
}

/// A package asked for: `nginx`, `nginx=1.26.3-3`, `nginx/trixie-backports`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageRequest {
    /// The package, real or virtual.
    pub name: String,
    /// `None` leaves the version to the repositories' priorities.
    pub selector: Option<Selector>,
}

/// A text that asks for no package.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a package: expected \"name\", \"name=version\" or \"name/repository\"")]
pub struct ParseRequestError {
    /// The text.
    pub text: String,
}

impl FromStr for PackageRequest {
    type Err = ParseRequestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, selector) = match text.split_once(['=', '/']) {
            None => (text, None),
            Some((name, rest)) if text.as_bytes()[name.len()] == b'=' => {
                (name, Some(Selector::Version(rest.to_owned())))
            }
            Some((name, rest)) => (name, Some(Selector::Origin(rest.to_owned()))),
        };
        let selector_is_good = match &selector {
            None => true,
            Some(Selector::Version(version)) => version::is_valid(version),
            Some(Selector::Origin(origin)) => is_package_name(origin),
        };
        if !is_package_name(name) || !selector_is_good {
            return Err(ParseRequestError { text: text.to_owned() });
        }
        Ok(Self { name: name.to_owned(), selector })
    }
}

impl fmt::Display for PackageRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.selector {
            None => f.write_str(&self.name),
            Some(Selector::Version(version)) => write!(f, "{}={version}", self.name),
            Some(Selector::Origin(origin)) => write!(f, "{}/{origin}", self.name),
        }
    }
}

/// A set of packages to resolve on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetRequest {
    /// The set's name in the lock, e.g. `system`.
    pub name: String,
    /// Asked for. The order does not matter; what is named twice, once with a selector, is one.
    pub packages: Vec<PackageRequest>,
    /// Whether every package that is `Essential: yes` is asked for as well.
    pub essential: bool,
    /// Whether recommended packages are followed.
    pub recommends: bool,
    /// Never to be installed, whoever wants them.
    pub excluded: Vec<String>,
    /// Versions of packages that are not asked for, in case they are needed; each with a selector.
    pub pins: Vec<PackageRequest>,
}

impl SetRequest {
    /// A set with nothing in it.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            packages: Vec::new(),
            essential: false,
            recommends: false,
            excluded: Vec::new(),
            pins: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_three_forms_and_writes_them_back() {
        for text in ["nginx", "nginx=1.26.3-3+deb13u1", "g++=4:14.2.0-1", "nginx/trixie-backports"] {
            assert_eq!(text.parse::<PackageRequest>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_what_names_no_package() {
        for text in ["", "nginx=", "nginx/", "=1", "nginx =1", "ngi nx", "nginx=x", "-nginx", "nginx/a/b", "nginx:i386"]
        {
            assert!(text.parse::<PackageRequest>().is_err(), "{text}");
        }
    }
}
