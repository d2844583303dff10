//! Relationship fields: `Depends`, `Conflicts`, `Provides` and their kin.
//!
//! Flows in: the value of such a field. Flows out: [`Alternative`]s, one by one, borrowed from the value.
//!
//! ```text
//! libc6 (>= 2.41), debconf (>= 0.5) | debconf-2.0, python3:any
//! ```
//!
//! A comma means "and", a bar means "or"; `last` of an alternative says whether a group ends with it.
//!
//! Specification: Debian Policy 7.1; `deb-control(5)`. Architecture and build profile restrictions belong to source
//! packages only and are refused here.

use std::cmp::Ordering;
use std::fmt;

use super::version;

/// A field that does not follow the grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a list of relations, at {rest:?}")]
pub struct ParseRelationError {
    /// The text that was not understood, shortened.
    pub rest: String,
}

/// How a version must compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`, and the old `<`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`, and the old `>`
    LaterOrEqual,
    /// `>>`
    Later,
}

impl Operator {
    /// Whether `version` stands in this relation to `bound`.
    pub fn holds(self, version: &str, bound: &str) -> bool {
        let ordering = version::compare(version, bound);
        match self {
            Self::Earlier => ordering == Ordering::Less,
            Self::EarlierOrEqual => ordering != Ordering::Greater,
            Self::Equal => ordering == Ordering::Equal,
            Self::LaterOrEqual => ordering != Ordering::Less,
            Self::Later => ordering == Ordering::Greater,
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Earlier => "<<",
            Self::EarlierOrEqual => "<=",
            Self::Equal => "=",
            Self::LaterOrEqual => ">=",
            Self::Later => ">>",
        })
    }
}

/// One alternative of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alternative<'a> {
    /// The package, with a qualifier like `:any` if there is one.
    pub name: &'a str,
    /// The version it must have.
    pub constraint: Option<(Operator, &'a str)>,
    /// Whether the group ends here.
    pub last: bool,
}

impl fmt::Display for Alternative<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        self.constraint.map_or(Ok(()), |(operator, bound)| write!(f, " ({operator} {bound})"))
    }
}

/// The alternatives of a field, in its order. After an error it ends.
pub fn parse(field: &str) -> Alternatives<'_> {
    Alternatives { rest: field.trim_ascii() }
}

/// See [`parse`].
#[derive(Debug, Clone)]
pub struct Alternatives<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Alternatives<'a> {
    type Item = Result<Alternative<'a>, ParseRelationError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let at = self.rest;
        let Some((alternative, rest)) = alternative(at) else {
            self.rest = "";
            return Some(Err(ParseRelationError { rest: at.chars().take(60).collect() }));
        };
        self.rest = rest;
        Some(Ok(alternative))
    }
}

/// The first alternative of `text` and what follows its separator.
fn alternative(text: &str) -> Option<(Alternative<'_>, &str)> {
    let end = text.bytes().position(|c| b" \t\r\n(,|".contains(&c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() || !name.bytes().all(|c| c.is_ascii_alphanumeric() || b".+-:_".contains(&c)) {
        return None;
    }
    let mut rest = rest.trim_ascii_start();
    let mut constraint = None;
    if let Some(inside) = rest.strip_prefix('(') {
        let (inside, after) = inside.split_once(')')?;
        constraint = Some(parse_constraint(inside.trim_ascii())?);
        rest = after.trim_ascii_start();
    }
    let last = !rest.starts_with('|');
    let after = match rest.as_bytes().first() {
        None => rest,
        Some(b',' | b'|') => {
            let after = rest[1..].trim_ascii_start();
            // A trailing comma is common in the wild and harmless; a trailing bar has no meaning.
            if after.is_empty() && !last {
                return None;
            }
            after
        }
        Some(_) => return None,
    };
    Some((Alternative { name, constraint, last }, after))
}

fn parse_constraint(inside: &str) -> Option<(Operator, &str)> {
    let signs = inside.bytes().take_while(|c| b"<=>".contains(c)).count();
    let operator = match &inside[..signs] {
        "<<" => Operator::Earlier,
        "<=" | "<" => Operator::EarlierOrEqual,
        "=" => Operator::Equal,
        ">=" | ">" => Operator::LaterOrEqual,
        ">>" => Operator::Later,
        _ => return None,
    };
    let bound = inside[signs..].trim_ascii_start();
    (!bound.is_empty() && !bound.contains(char::is_whitespace)).then_some((operator, bound))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(field: &str) -> Result<Vec<String>, ParseRelationError> {
        parse(field).map(|one| one.map(|one| format!("{one}{}", if one.last { "," } else { "|" }))).collect()
    }

    #[test]
    fn reads_alternatives_constraints_and_qualifiers() {
        let field = "libc6 (>= 2.41),debconf(>=0.5)|debconf-2.0 ,\n python3:any (<< 3.14), a (> 1), b (< 2)";
        assert_eq!(
            all(field).unwrap(),
            [
                "libc6 (>= 2.41),",
                "debconf (>= 0.5)|",
                "debconf-2.0,",
                "python3:any (<< 3.14),",
                "a (>= 1),",
                "b (<= 2),"
            ]
        );
        assert_eq!(all("").unwrap(), [""; 0]);
        assert_eq!(all("a,").unwrap(), ["a,"]);
    }

    #[test]
    fn refuses_what_the_grammar_does_not_have() {
        for bad in ["a b", "a (1)", "a (>= 1", "a (>=)", "| a", "a |", ", a", "a [amd64]", "a (!= 1)", "a (= 1 2)", "é"]
        {
            assert!(all(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn operators_hold_as_written() {
        for (operator, earlier, same, later) in [
            (Operator::Earlier, true, false, false),
            (Operator::EarlierOrEqual, true, true, false),
            (Operator::Equal, false, true, false),
            (Operator::LaterOrEqual, false, true, true),
            (Operator::Later, false, false, true),
        ] {
            let held = ["1", "2", "3"].map(|version| operator.holds(version, "2"));
            assert_eq!(held, [earlier, same, later], "{operator}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_ends(field in "[a-c |,()<>= 0-9:é\n]{0,40}") {
            prop_assert!(parse(&field).count() <= field.len());
        }
    }
}
