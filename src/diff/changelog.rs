//! What a package's changelog says of the versions between two, for people to read.
//!
//! ```text
//! openssh (1:10.0p1-7) unstable; urgency=medium
//!
//!   * ssh-agent: only announce listening...
//!
//!  -- Maintainer <maintainer@example.org>  Mon, 04 Aug 2025 12:35:44 +0100
//! ```
//!
//! Flows in: the text of the newer package's changelog, and of the older one's where it is there. Flows out: entries.
//! Which they are is [`crate::apt::changelog`]'s to say; lines that fit nowhere are left out.
//! Specification: Debian Policy 4.4; deb-changelog(5).

use serde::Serialize;

use crate::apt::changelog;

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

/// The entries of the versions after `older` and up to `newer`, the newest first. Where the changelog counts otherwise than
/// the package, only `earlier`, the older package's own changelog, tells which are new; without it there are none.
pub fn entries_between(text: &str, earlier: Option<&str>, older: &str, newer: &str) -> Vec<Entry> {
    let found = changelog::between(text, older, newer).or_else(|| changelog::since(text, earlier?));
    found.unwrap_or_default().iter().map(entry).collect()
}

fn entry(found: &changelog::Entry<'_>) -> Entry {
    let mut lines = found.text.lines();
    // `package (version) distribution...; key=value, ...`
    let heading = lines.next().and_then(|line| line.split_once(')')).map_or("", |(_, rest)| rest);
    let (distribution, keys) = heading.split_once(';').unwrap_or((heading, ""));
    let urgency = keys.split(',').find_map(|key| key.trim().strip_prefix("urgency="));
    let (mut changes, mut date) = (Vec::new(), String::new());
    for line in lines {
        if let Some(trailer) = line.strip_prefix(" -- ") {
            date = trailer.split_once(">  ").map_or(String::new(), |(_, date)| date.trim().to_owned());
            break;
        }
        let change = line.strip_prefix("  ").filter(|change| !change.trim().is_empty());
        changes.extend(change.map(|change| change.trim_end().to_owned()));
    }
    Entry {
        version: found.version.to_owned(),
        distribution: distribution.trim().to_owned(),
        urgency: urgency.unwrap_or_default().trim().to_owned(),
        changes,
        date,
    }
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
        let found = entries_between(TEXT, None, "1:2.0-2", "1:2.0-3");
        let expected = Entry {
            version: "1:2.0-3".into(),
            distribution: "trixie-security".into(),
            urgency: "high".into(),
            changes: vec!["* Fix a hole.".into(), "  (CVE-2026-1)".into()],
            date: "Mon, 04 Aug 2025 12:35:44 +0100".into(),
        };
        assert_eq!(found, [expected]);
        let versions = |older, newer| -> Vec<String> {
            entries_between(TEXT, None, older, newer).into_iter().map(|entry| entry.version).collect()
        };
        assert_eq!(versions("1.9-1", "1:2.0-3"), ["1:2.0-3", "1:2.0-2"]);
        assert_eq!(versions("1.9-1+b1", "1:2.0-3+b2"), ["1:2.0-3", "1:2.0-2"]);
        assert_eq!(versions("1:2.0-3", "1:2.0-3"), [""; 0]);
    }

    #[test]
    fn a_changelog_that_counts_otherwise_says_nothing_unless_the_older_one_is_there() {
        let older = &TEXT[TEXT.find("demo (1:2.0-2)").unwrap()..];
        assert_eq!(entries_between(TEXT, None, "5-1", "5-2"), []);
        let found = entries_between(TEXT, Some(older), "5-1", "5-2");
        assert_eq!(found.iter().map(|entry| entry.version.as_str()).collect::<Vec<_>>(), ["1:2.0-3"]);
    }

    #[test]
    fn what_is_no_changelog_has_no_entries() {
        for text in ["", "\n\n", "  * floating\n -- x\n", "a b c\nx (y z\nx (1) y\n", "(1) x; y"] {
            assert_eq!(entries_between(text, Some(text), "0", "1"), [], "{text}");
        }
    }
}
