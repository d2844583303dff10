//! Canonical JSON, and paths as text.

use serde::Serialize;
use serde_json::Value;

use crate::tree::TreePath;

/// `value` (a struct) as an object with one line per field, and one line per element of arrays.
pub(super) fn canonical(value: &impl Serialize) -> String {
    // A struct of strings, numbers and lists of such serialises to an object and cannot fail.
    let Ok(Value::Object(fields)) = serde_json::to_value(value) else { return String::new() };
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("  \"{name}\": {}", lines(value))).collect();
    format!("{{\n{}\n}}\n", fields.join(",\n"))
}

fn lines(value: &Value) -> String {
    match value {
        Value::Array(elements) if !elements.is_empty() => {
            let elements: Vec<String> = elements.iter().map(|element| format!("    {element}")).collect();
            format!("[\n{}\n  ]", elements.join(",\n"))
        }
        other => other.to_string(),
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
