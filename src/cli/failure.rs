//! What went wrong, as the process edge needs it: the kind decides the exit code, the error tells the story, hints
//! say what to do.
//!
//! The library's errors name the operation and its nouns; their sources the causes. They become a [`Failure`] by
//! `From`, one row each, where the kind is decided.

use std::error::Error;

use crate::recipe::{Diagnostics, LoadError};

/// What kind of failure it is: the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A mistake in adamant.
    Internal,
    /// The command line is wrong.
    Usage,
    /// The recipe or its lock is wrong.
    Recipe,
    /// This machine lacks something.
    Environment,
    /// Bytes are not what they should be.
    Verification,
    /// A remote machine failed.
    Remote,
    /// A gate says no: nothing failed, but it is not to go on.
    Gate,
}

impl Kind {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Usage => 2,
            Self::Recipe => 3,
            Self::Environment => 4,
            Self::Verification => 5,
            Self::Remote => 6,
            Self::Gate => 7,
        }
    }

    /// The word for it in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Usage => "usage",
            Self::Recipe => "recipe",
            Self::Environment => "environment",
            Self::Verification => "verification",
            Self::Remote => "remote",
            Self::Gate => "gate",
        }
    }
}

/// Why a verb did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    /// Decides the exit code.
    pub kind: Kind,
    /// The story: each error in the chain of sources is one part of it.
    pub error: Box<dyn Error + Send + Sync>,
    /// What to do about it.
    pub hints: Vec<String>,
    /// Whether standard output has the result already: then `--json` prints no second object.
    pub told: bool,
}

impl Failure {
    /// A failure of that kind. Where a full disk is the cause it is a matter of this machine, whatever failed of it.
    pub fn new(kind: Kind, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let failure = Self { kind, error: error.into(), hints: Vec::new(), told: false };
        if !failure.is_full_disk() {
            return failure;
        }
        let failure = Self { kind: Kind::Environment, ..failure };
        if failure.chain().iter().any(|text| text.contains("free some room")) {
            return failure;
        }
        failure.hint("free some room on that file system, then run the command again")
    }

    fn is_full_disk(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        let full = |error: &std::io::Error| matches!(error.kind(), StorageFull | QuotaExceeded);
        let mut error: Option<&(dyn Error + 'static)> = Some(self.error.as_ref());
        while let Some(this) = error {
            if this.downcast_ref().is_some_and(full) {
                return true;
            }
            error = this.source();
        }
        false
    }

    /// The same, with what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same, of a verb that has printed its result.
    pub fn after_result(mut self) -> Self {
        self.told = true;
        self
    }

    /// The mistakes in the recipe, if it is that.
    pub fn diagnostics(&self) -> Option<&Diagnostics> {
        let mut error: Option<&(dyn Error + 'static)> = Some(self.error.as_ref());
        while let Some(this) = error {
            if let Some(LoadError::Wrong(found)) = this.downcast_ref() {
                return Some(found);
            }
            if let Some(found) = this.downcast_ref() {
                return Some(found);
            }
            error = this.source();
        }
        None
    }

    /// The errors of the chain, the outermost first, each without what its source says.
    pub fn chain(&self) -> Vec<String> {
        let mut chain = vec![self.error.to_string()];
        let mut error = self.error.source();
        while let Some(cause) = error {
            chain.push(cause.to_string());
            error = cause.source();
        }
        chain
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let missing = matches!(&error, LoadError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound);
        let failure = Self::new(Kind::Recipe, error);
        if missing { failure.hint("`adamant init` writes a recipe to start from") } else { failure }
    }
}

impl From<Diagnostics> for Failure {
    fn from(error: Diagnostics) -> Self {
        Self::new(Kind::Recipe, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Overrides, load};

    #[test]
    fn a_missing_recipe_says_how_to_get_one() {
        let error = load("/nonexistent/recipe.toml".as_ref(), &Overrides::default()).unwrap_err();
        let failure = Failure::from(error);
        assert_eq!(failure.kind.code(), 3);
        assert_eq!(
            failure.chain(),
            ["cannot read the recipe /nonexistent/recipe.toml", "No such file or directory (os error 2)"]
        );
        assert_eq!(failure.hints, ["`adamant init` writes a recipe to start from"]);
    }
}
