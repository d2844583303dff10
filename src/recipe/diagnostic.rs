//! Mistakes in recipes, with their place, as a person reads them.
//!
//! A [`Diagnostic`] says what is wrong, marks where, and helps: what was expected, the nearest name that exists.
//! [`Diagnostics`] is the error of everything that reads recipes: one or more of them with the texts they point
//! into. Later stages make their own through [`Recipe::complain`](super::Recipe::complain).

use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use super::source::{Location, Sources, Span};

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, without the place: `unknown key `pakages``.
    pub title: String,
    /// Where; `None` if it is nowhere in particular.
    pub span: Option<Span>,
    /// What to say right at the place; may be empty.
    pub label: String,
    /// Other places that belong to it, each with what to say there.
    pub context: Vec<(Span, String)>,
    /// What to do about it, a sentence each.
    pub help: Vec<String>,
}

impl Diagnostic {
    /// A mistake at a place.
    pub fn at(span: Span, title: impl Into<String>, label: impl Into<String>) -> Self {
        let (title, label) = (title.into(), label.into());
        Self { title, span: Some(span), label, context: Vec::new(), help: Vec::new() }
    }

    /// The same, with another place that belongs to it.
    pub fn context(mut self, span: Span, text: impl Into<String>) -> Self {
        self.context.push((span, text.into()));
        self
    }

    /// The same, with what to do about it.
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help.push(text.into());
        self
    }
}

/// Mistakes, at least one, with the texts that they point into.
#[derive(Clone)]
pub struct Diagnostics {
    /// In the order of the files and of the places in them.
    pub list: Vec<Diagnostic>,
    /// The files read.
    pub sources: Sources,
}

/// More of them than this help nobody: the rest is counted only.
const SHOWN_MAX: usize = 20;

impl Diagnostics {
    /// Puts the mistakes in order.
    pub fn new(mut list: Vec<Diagnostic>, sources: Sources) -> Self {
        list.sort_by_key(|diagnostic| diagnostic.span.map_or(usize::MAX, |span| span.start));
        Self { list, sources }
    }

    /// All of them as text, an empty line between two, none at the end.
    pub fn render(&self, styled: bool) -> String {
        let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
        let mut parts: Vec<String> =
            self.list.iter().take(SHOWN_MAX).map(|diagnostic| self.render_one(diagnostic, &renderer)).collect();
        if self.list.len() > SHOWN_MAX {
            parts.push(format!("error: {} in all, of which these are the first {SHOWN_MAX}", self.list.len()));
        }
        parts.join("\n\n")
    }

    fn render_one(&self, diagnostic: &Diagnostic, renderer: &Renderer) -> String {
        let title = Level::ERROR.primary_title(diagnostic.title.as_str());
        let mut group = Group::with_title(title);
        let mut places = vec![(diagnostic.span, diagnostic.label.as_str(), AnnotationKind::Primary)];
        places.extend(diagnostic.context.iter().map(|(s, text)| (Some(*s), text.as_str(), AnnotationKind::Context)));
        let mut snippets: Vec<(&str, Snippet<'_, _>)> = Vec::new();
        for (span, label, kind) in places {
            let Some((file, range)) = span.and_then(|span| self.sources.find(span)) else { continue };
            let mut mark = kind.span(range);
            if !label.is_empty() {
                mark = mark.label(label);
            }
            match snippets.iter().position(|(name, _)| *name == file.name) {
                Some(index) => {
                    let (name, snippet) = snippets.swap_remove(index);
                    snippets.insert(index, (name, snippet.annotation(mark)));
                }
                None => {
                    let snippet = Snippet::source(file.text.as_str()).path(file.name.as_str());
                    snippets.push((&file.name, snippet.annotation(mark)));
                }
            }
        }
        for (_, snippet) in snippets {
            group = group.element(snippet);
        }
        for help in &diagnostic.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }

    /// All of them for programs.
    pub fn to_json(&self) -> serde_json::Value {
        let one = |diagnostic: &Diagnostic| DiagnosticJson {
            message: diagnostic.title.clone(),
            location: diagnostic.span.and_then(|span| self.sources.locate(span)),
            label: diagnostic.label.clone(),
            help: diagnostic.help.clone(),
        };
        self.list.iter().map(one).map(|one| serde_json::to_value(one).unwrap_or_default()).collect()
    }
}

#[derive(Serialize)]
struct DiagnosticJson {
    message: String,
    #[serde(flatten)]
    location: Option<Location>,
    label: String,
    help: Vec<String>,
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// The candidate that `word` was most likely meant to be: the one reached with the fewest letters inserted, deleted,
/// replaced or swapped with a neighbour, unless that is more than a third of the word.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    let folded = word.to_lowercase().replace('_', "-");
    candidates
        .into_iter()
        .map(|candidate| (edits(&folded, &candidate.to_lowercase().replace('_', "-")), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Damerau-Levenshtein distance, restricted to swaps of neighbours that are edited once (optimal string alignment).
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(100).collect(), b.chars().take(100).collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// `a`, `b` and `c`, each in backticks.
pub fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_word_that_was_meant() {
        let keys = ["packages", "recommends", "pockets", "path"];
        assert_eq!(nearest("pakages", keys), Some("packages"));
        assert_eq!(nearest("Packages", keys), Some("packages"));
        assert_eq!(nearest("pacakges", keys), Some("packages"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("", keys), None);
        assert_eq!(nearest("command_line", ["command-line"]), Some("command-line"));
    }

    #[test]
    fn counts_a_swap_as_one_edit() {
        assert_eq!(edits("ab", "ba"), 1);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
