//! Canonical JSON, and paths as text.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use crate::tree::TreePath;

/// `value` (a struct) as an object with one line per field, and one line per element of arrays.
pub(super) fn canonical(value: &impl Serialize) -> String {
    let mut text = Vec::new();
    // A struct of strings, numbers and lists of such cannot fail, and neither can memory.
    let written = value.serialize(&mut Serializer::with_formatter(&mut text, Lines::default()));
    text.push(b'\n');
    match (written, String::from_utf8(text)) {
        (Ok(()), Ok(text)) => text,
        _ => String::new(),
    }
}

/// Breaks lines between the fields of the outermost object and between the elements of their arrays, nowhere else.
#[derive(Default)]
struct Lines {
    /// Arrays and objects that are open.
    depth: usize,
    /// Whether the array of a field has an element.
    filled: bool,
}

/// Depth within the outermost object, and within an array that is the value of a field of it.
const FIELD: usize = 1;
const ELEMENT: usize = 2;

impl Formatter for Lines {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth += 1;
        if self.depth == ELEMENT {
            self.filled = false;
        }
        writer.write_all(b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        let breaks = self.depth == ELEMENT && self.filled;
        self.depth -= 1;
        writer.write_all(if breaks { b"\n  ]" } else { b"]" })
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        let breaks = self.depth == ELEMENT;
        self.filled |= breaks;
        writer.write_all(match (first, breaks) {
            (true, true) => b"\n    ",
            (true, false) => b"",
            (false, true) => b",\n    ",
            (false, false) => b",",
        })
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth += 1;
        writer.write_all(b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        let breaks = self.depth == FIELD;
        self.depth -= 1;
        writer.write_all(if breaks { b"\n}" } else { b"}" })
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(match (first, self.depth == FIELD) {
            (true, true) => b"\n  ",
            (true, false) => b"",
            (false, true) => b",\n  ",
            (false, false) => b",",
        })
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(if self.depth == FIELD { b": " } else { b":" })
    }
}

/// Where in `text` the error lies, in bytes.
pub(super) fn offset(text: &[u8], error: &serde_json::Error) -> u64 {
    let lines = text.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
    let start: usize = lines.map(<[u8]>::len).sum();
    ((start + error.column().saturating_sub(1)) as u64).min(text.len() as u64)
}

/// A text that no path has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a path as manifests write it: `\\\\` for a backslash, `\\xHH` for a byte that is not UTF-8")]
pub struct PathError(pub String);

/// Bytes as text: backslashes doubled, bytes that are not UTF-8 as `\xHH`.
pub fn path_to_text(path: &TreePath) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\\\"));
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

/// The inverse of [`path_to_text`]; another spelling of the same bytes is refused.
pub fn path_from_text(text: &str) -> Result<Vec<u8>, PathError> {
    let refuse = || PathError(text.to_owned());
    let mut path = Vec::with_capacity(text.len());
    let mut parts = text.split('\\');
    path.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    while let Some(part) = parts.next() {
        if part.is_empty() {
            // Two backslashes: the part behind the second is text again.
            path.push(b'\\');
            path.extend_from_slice(parts.next().ok_or_else(refuse)?.as_bytes());
            continue;
        }
        let digits = part.strip_prefix('x').and_then(|digits| digits.get(..2)).ok_or_else(refuse)?;
        path.push(u8::from_str_radix(digits, 16).map_err(|_| refuse())?);
        path.extend_from_slice(&part.as_bytes()[3..]);
    }
    if path_to_text(&path) == text { Ok(path) } else { Err(refuse()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_the_elements_of_their_arrays_have_a_line_each() {
        #[derive(Serialize)]
        struct Example {
            name: &'static str,
            none: [u8; 0],
            lists: Vec<Vec<u8>>,
            object: serde_json::Value,
            objects: Vec<serde_json::Value>,
            end: Option<u8>,
        }
        let object = serde_json::json!({ "a": [1, 2], "b": {}, "c": [], "d": { "e": "\n" } });
        let example = Example {
            name: "x: \"y\"",
            none: [],
            lists: vec![vec![1, 2], vec![]],
            objects: vec![object.clone(), object.clone()],
            object,
            end: None,
        };
        let line = r#"{"a":[1,2],"b":{},"c":[],"d":{"e":"\n"}}"#;
        let expected = format!(
            "{{\n  \"name\": \"x: \\\"y\\\"\",\n  \"none\": [],\n  \"lists\": [\n    [1,2],\n    []\n  ],\n  \"object\": \
             {line},\n  \"objects\": [\n    {line},\n    {line}\n  ],\n  \"end\": null\n}}\n"
        );
        assert_eq!(canonical(&example), expected);
    }
}
