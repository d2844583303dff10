//! Control paragraphs ("deb822"): the fields of a package, a release, a Packages index.
//!
//! Flows in: text. Flows out: [`Paragraph`]s, fields in the order of the text, names matched without regard to case.
//!
//! ```text
//! Package: nginx
//! Description: small, powerful, scalable web/proxy server
//!  Nginx ("engine X") is a high-performance web and reverse proxy server   <- continuation: starts with a blank
//!  .                                                                       <- an empty line of the value
//!                                                                          <- an empty line ends the paragraph
//! ```
//!
//! A value is kept as it stands (without the blanks around it), continuation lines with their leading blank. Lines
//! that start with `#` are comments. Nothing is copied: a paragraph borrows from its text.
//!
//! Specification: Debian Policy 5.1; `deb822(5)`.

/// More fields than any paragraph has, a hundred times over: each is compared with those before it.
const FIELDS_MAX: usize = 4096;

/// A text that is not a control paragraph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// A line is neither a field nor a continuation.
    #[error("line {line} is neither \"Field: value\" nor a continuation: {text:?}")]
    NotAField {
        /// Counted from 1.
        line: usize,
        /// The beginning of the line.
        text: String,
    },
    /// A field appears twice in a paragraph.
    #[error("line {line}: field {name} appears a second time")]
    Twice {
        /// Counted from 1.
        line: usize,
        /// As written.
        name: String,
    },
    /// A paragraph without an end.
    #[error("line {line}: the paragraph has more than {FIELDS_MAX} fields")]
    TooMany {
        /// Counted from 1.
        line: usize,
    },
    /// More than one paragraph, or none, where one belongs.
    #[error("expected one control paragraph, found {found}")]
    NotOne {
        /// How many there are.
        found: usize,
    },
}

/// One field, borrowed from the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// As written.
    pub name: &'a str,
    /// Without the blanks around it; further lines follow after `\n`, each with its leading blank.
    pub value: &'a str,
}

/// One control paragraph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paragraph<'a> {
    fields: Vec<Field<'a>>,
}

impl<'a> Paragraph<'a> {
    /// The one paragraph of `text`, as in the `control` file of a package.
    pub fn parse(text: &'a str) -> Result<Self, ControlError> {
        let mut all = Self::parse_all(text)?;
        match (all.pop(), all.len()) {
            (Some(one), 0) => Ok(one),
            (None, _) => Err(ControlError::NotOne { found: 0 }),
            (Some(_), rest) => Err(ControlError::NotOne { found: rest + 1 }),
        }
    }

    /// Every paragraph of `text`.
    pub fn parse_all(text: &'a str) -> Result<Vec<Self>, ControlError> {
        let mut paragraphs = Vec::new();
        let mut fields: Vec<Field<'a>> = Vec::new();
        for (index, (start, line)) in lines(text).enumerate() {
            let refuse = || ControlError::NotAField { line: index + 1, text: line.chars().take(80).collect() };
            if line.starts_with('#') {
            } else if line.trim_ascii().is_empty() {
                if !fields.is_empty() {
                    paragraphs.push(Self { fields: std::mem::take(&mut fields) });
                }
            } else if line.starts_with([' ', '\t']) {
                let field = fields.last_mut().ok_or_else(refuse)?;
                let value_start = field.value.as_ptr() as usize - text.as_ptr() as usize;
                field.value = text[value_start..start + line.len()].trim_end();
            } else {
                let (name, value) = line.split_once(':').ok_or_else(refuse)?;
                if name.is_empty() || !name.bytes().all(|c| c.is_ascii_graphic()) || name.starts_with('-') {
                    return Err(refuse());
                }
                if fields.iter().any(|field| field.name.eq_ignore_ascii_case(name)) {
                    return Err(ControlError::Twice { line: index + 1, name: name.to_owned() });
                }
                if fields.len() == FIELDS_MAX {
                    return Err(ControlError::TooMany { line: index + 1 });
                }
                fields.push(Field { name, value: value.trim_ascii() });
            }
        }
        if !fields.is_empty() {
            paragraphs.push(Self { fields });
        }
        Ok(paragraphs)
    }

    /// The value of a field; names are matched without regard to case.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// The fields in the order of the text.
    pub fn fields(&self) -> &[Field<'a>] {
        &self.fields
    }
}

/// Each line with its offset, without its end.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_inclusive('\n').scan(0, |offset, line| {
        let start = *offset;
        *offset += line.len();
        Some((start, line.trim_end_matches(['\n', '\r'])))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keeps_order_and_continuation_lines() {
        let text = "Package: a\nDescription: short\n long\n .\n more\nSize:\t12 \n";
        let paragraph = Paragraph::parse(text).unwrap();
        let names: Vec<_> = paragraph.fields().iter().map(|field| field.name).collect();
        assert_eq!(names, ["Package", "Description", "Size"]);
        assert_eq!(paragraph.get("description"), Some("short\n long\n .\n more"));
        assert_eq!(paragraph.get("Size"), Some("12"));
        assert_eq!(paragraph.get("Siz"), None);
    }

    #[test]
    fn a_value_may_begin_on_the_next_line() {
        let paragraph = Paragraph::parse("Conffiles:\n /etc/a 00\n /etc/b 11\nX: y").unwrap();
        assert_eq!(paragraph.get("Conffiles"), Some("\n /etc/a 00\n /etc/b 11"));
        assert_eq!(paragraph.get("X"), Some("y"));
    }

    #[test]
    fn splits_paragraphs_at_empty_lines_and_skips_comments() {
        let all = Paragraph::parse_all("\n\n# c\nA: 1\n\n \nA: 2\n# c\nB: 3\n\n").unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[1].get("B"), Some("3"));
    }

    #[test]
    fn refuses_what_is_not_a_paragraph() {
        let at = |text: &str| Paragraph::parse(text).unwrap_err();
        assert_eq!(at("A: 1\nnonsense\n"), ControlError::NotAField { line: 2, text: "nonsense".into() });
        assert_eq!(at(" a: 1\n"), ControlError::NotAField { line: 1, text: " a: 1".into() });
        assert_eq!(at("A: 1\na: 2\n"), ControlError::Twice { line: 2, name: "a".into() });
        assert_eq!(at("\n"), ControlError::NotOne { found: 0 });
        assert_eq!(at("A: 1\n\nB: 1\n"), ControlError::NotOne { found: 2 });
        let many: String = (0..=FIELDS_MAX).map(|number| format!("X{number}: y\n")).collect();
        assert_eq!(at(&many), ControlError::TooMany { line: FIELDS_MAX + 1 });
        assert!(Paragraph::parse("-----BEGIN PGP: x\n").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,40}(\n| |:|\t|#|\\PC{0,10}){0,20}") {
            let _ = Paragraph::parse_all(&text);
        }
    }
}
