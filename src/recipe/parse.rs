//! From the text of one file to a [`Document`], or to all of its mistakes of syntax or shape.
//!
//! Pure, and safe on any text: the parser bounds its recursion, and nothing is allocated beyond the text's size.

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::diagnostic::Diagnostic;
use super::schema::Document;
use super::shape;
use super::source::{Sources, Span};

/// Parses `text`, which becomes the file `name` of `sources`; the spans in what comes back are positions there.
pub fn parse(name: String, text: String, sources: &mut Sources) -> Result<Document, Vec<Diagnostic>> {
    let base = sources.add(name, text.clone());
    let (table, errors) = DeTable::parse_recoverable(&text);
    if !errors.is_empty() {
        return Err(errors.iter().map(|error| syntax_error(error, base)).collect());
    }
    let table = shift_table(table, base);
    let found = shape::check(&table);
    if !found.is_empty() {
        return Err(found);
    }
    // The shape was checked, so this cannot fail; if the two ever disagree, it is still a message with a place.
    Document::deserialize(toml::de::Deserializer::from(table)).map_err(|error| {
        let span = error.span().map_or(Span { start: base, end: base }, Span::from);
        vec![Diagnostic::at(span, error.message().to_owned(), "")]
    })
}

fn syntax_error(error: &toml::de::Error, base: usize) -> Diagnostic {
    let range = error.span().unwrap_or(0..0);
    let span = Span { start: range.start + base, end: range.end + base };
    let (title, label) = match error.message().split_once(", ") {
        Some((title, label)) => (title.to_owned(), label.to_owned()),
        None => (error.message().to_owned(), String::new()),
    };
    let found = Diagnostic::at(span, title, label);
    if error.message().contains("duplicate key") {
        return found.help("a key or `[table]` stands once in a file; lists of tables have two brackets: `[[file]]`");
    }
    if error.message().contains("leading zero") {
        return found.help("permissions are written as a string: `mode = \"0644\"`");
    }
    found
}

fn shift<T, U>(spanned: Spanned<T>, base: usize, inner: impl FnOnce(T) -> U) -> Spanned<U> {
    let span = spanned.span();
    Spanned::new(span.start + base..span.end + base, inner(spanned.into_inner()))
}

fn shift_table(table: Spanned<DeTable<'_>>, base: usize) -> Spanned<DeTable<'_>> {
    shift(table, base, |table| shift_entries(table, base))
}

fn shift_entries(table: DeTable<'_>, base: usize) -> DeTable<'_> {
    table.into_iter().map(|(key, value)| (shift(key, base, |key| key), shift_value(value, base))).collect()
}

fn shift_value(value: Spanned<DeValue<'_>>, base: usize) -> Spanned<DeValue<'_>> {
    shift(value, base, |value| match value {
        DeValue::Table(table) => DeValue::Table(shift_entries(table, base)),
        DeValue::Array(items) => {
            let mut shifted = DeArray::new();
            items.into_iter().for_each(|item| shifted.push(shift_value(item, base)));
            DeValue::Array(shifted)
        }
        other => other,
    })
}
