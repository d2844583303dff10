//! Entries of a Debian changelog.
//!
//! ```text
//! openssh (1:10.0p1-7) unstable; urgency=medium
//!
//!   * ssh-agent: only announce listening...
//!
//!  -- Maintainer <maintainer@example.org>  Mon, 04 Aug 2025 12:35:44 +0100
//! ```
//!
//! Flows in: a changelog's text. Flows out: its entries. Lines that fit nowhere are left out: this is text for people.
//! Specification: Debian Policy 4.4; deb-changelog(5).

use serde::Serialize;

use crate::apt::version;

/// One version's entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The version it is about.
    pub version: String,
    /// Where it was uploaded to.
    pub distribution: String,
    /// How soon one should upgrade, as the maintainer sees it.
    pub urgency: String,
    /// What changed: lines without the indentation of two and without empty ones.
    pub changes: Vec<String>,
    /// When, as it stands there.
    pub date: String,
}

/// All entries, in the order of the text.
pub fn entries(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        if let Some(entry) = heading(line) {
            entries.push(entry);
            open = true;
        } else if let Some(entry) = entries.last_mut().filter(|_| open) {
            if let Some(trailer) = line.strip_prefix(" -- ") {
                entry.date = trailer.split_once(">  ").map_or(String::new(), |(_, date)| date.trim().to_owned());
                open = false;
            } else if let Some(change) = line.strip_prefix("  ").filter(|change| !change.trim().is_empty()) {
                entry.changes.push(change.trim_end().to_owned());
            }
        }
    }
    entries
}

/// The entries of the versions after `older` and up to `newer`, in the order of the text.
pub fn entries_between(text: &str, older: &str, newer: &str) -> Vec<Entry> {
    let mut found = entries(text);
    found.retain(|entry| {
        version::compare(&entry.version, older).is_gt() && version::compare(&entry.version, newer).is_le()
    });
    found
}

/// `package (version) distribution...; key=value, ...`
fn heading(line: &str) -> Option<Entry> {
    if !line.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let (_, rest) = line.split_once(" (")?;
    let (version, rest) = rest.split_once(')')?;
    let (distribution, keys) = rest.split_once(';')?;
    let urgency = keys.split(',').find_map(|key| key.trim().strip_prefix("urgency="));
    Some(Entry {
        version: version.to_owned(),
        distribution: distribution.trim().to_owned(),
        urgency: urgency.unwrap_or_default().trim().to_owned(),
        changes: Vec::new(),
        date: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
demo (1:2.0-3) trixie-security; urgency=high

  * Fix a hole.
    (CVE-2026-1)

 -- A Maintainer <a@example.org>  Mon, 04 Aug 2025 12:35:44 +0100

demo (1:2.0-2) unstable; urgency=medium, binary-only=yes

  [ Someone ]
  * Tidy.

 -- A Maintainer <a@example.org>  Sun, 03 Aug 2025 12:35:44 +0100

demo (1.9-1) unstable; urgency=low

  * Old.

 -- A Maintainer <a@example.org>  Sat, 02 Aug 2025 12:35:44 +0100
";

    #[test]
    fn entries_are_those_of_the_versions_between() {
        let found = entries_between(TEXT, "1:2.0-2", "1:2.0-3");
        let expected = Entry {
            version: "1:2.0-3".into(),
            distribution: "trixie-security".into(),
            urgency: "high".into(),
            changes: vec!["* Fix a hole.".into(), "  (CVE-2026-1)".into()],
            date: "Mon, 04 Aug 2025 12:35:44 +0100".into(),
        };
        assert_eq!(found, [expected]);
        let versions = |older, newer| -> Vec<String> {
            entries_between(TEXT, older, newer).into_iter().map(|entry| entry.version).collect()
        };
        assert_eq!(versions("1.9-1", "1:2.0-3"), ["1:2.0-3", "1:2.0-2"]);
        assert_eq!(versions("1", "1:2.0-2"), ["1:2.0-2", "1.9-1"]);
        assert_eq!(versions("1:2.0-3", "1:2.0-3"), [""; 0]);
    }

    #[test]
    fn what_is_no_changelog_has_no_entries() {
        for text in ["", "\n\n", "  * floating\n -- x\n", "a b c\nx (y z\nx (1) y\n", "(1) x; y"] {
            assert_eq!(entries(text), [], "{text}");
        }
    }
}
