//! Where in which file something was said.
//!
//! As in compilers: every recipe file that was read takes a range of one common space of positions, so that a
//! [`Span`] alone says file, line and column, and values can carry it through every stage at the cost of two
//! integers. [`Sources`] turns a span into text for people.
//!
//! ```text
//! position   0 ........ 811 | 812 ........ 1400 | ...
//! file       web.toml       | minimal.toml      |       (one position more than bytes: the end has one too)
//! ```

use std::ops::{Deref, Range};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A range of positions in [`Sources`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first position.
    pub start: usize,
    /// One after the last position.
    pub end: usize,
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

/// A value and where it was said. It compares, prints and serialises as its value alone: where something was said
/// never changes an image.
#[derive(Debug, Clone, Default)]
pub struct At<T> {
    /// What was said.
    pub value: T,
    /// Where.
    pub span: Span,
}

impl<T> At<T> {
    /// A value with its place.
    pub fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }

    /// Another value said at the same place.
    pub fn with<U>(&self, value: U) -> At<U> {
        At { value, span: self.span }
    }
}

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for At<T> {}

impl<T: Serialize> Serialize for At<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = toml::Spanned::<T>::deserialize(deserializer)?;
        Ok(Self { span: spanned.span().into(), value: spanned.into_inner() })
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Every recipe file that was read, in the order of reading.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<SourceText>,
}

/// The text of one recipe file.
#[derive(Debug, Clone)]
pub struct SourceText {
    /// How the user would name the file.
    pub name: String,
    /// All of it.
    pub text: String,
    /// The position of its first byte.
    pub base: usize,
}

/// A place as an editor shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The file, as the user would name it.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl Sources {
    /// Takes in a file; gives the position of its first byte.
    pub fn add(&mut self, name: String, text: String) -> usize {
        let base = self.files.last().map_or(0, |last| last.base + last.text.len() + 1);
        self.files.push(SourceText { name, text, base });
        base
    }

    /// The files, in the order of reading.
    pub fn files(&self) -> &[SourceText] {
        &self.files
    }

    /// The beginning of the file that was taken in last.
    pub fn start_of_last(&self) -> Span {
        let base = self.files.last().map_or(0, |last| last.base);
        Span { start: base, end: base }
    }

    /// The file that holds the span, and the span's range in bytes of that file; `None` for a span of no file.
    pub fn find(&self, span: Span) -> Option<(&SourceText, Range<usize>)> {
        let index = self.files.partition_point(|file| file.base <= span.start).checked_sub(1)?;
        let file = &self.files[index];
        let start = span.start - file.base;
        let end = span.end.saturating_sub(file.base).clamp(start, file.text.len().max(start));
        (end <= file.text.len()).then_some((file, start..end))
    }

    /// File, line and column of the span's start.
    pub fn locate(&self, span: Span) -> Option<Location> {
        let (file, range) = self.find(span)?;
        let before = file.text.get(..range.start)?;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Some(Location {
            file: file.name.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_file_line_and_column_of_a_span() {
        let mut sources = Sources::default();
        assert_eq!(sources.add("a.toml".into(), "one\ntwö x".into()), 0);
        let base = sources.add("b.toml".into(), String::new());
        let at = |start, end| sources.locate(Span { start, end }).map(|location| location.to_string());
        assert_eq!(at(0, 3).unwrap(), "a.toml:1:1");
        assert_eq!(at(9, 10).unwrap(), "a.toml:2:5");
        assert_eq!(at(10, 10).unwrap(), "a.toml:2:6");
        assert_eq!(at(base, base).unwrap(), "b.toml:1:1");
        assert_eq!(at(base + 1, base + 1), None);
    }
}
