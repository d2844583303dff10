//! Changelogs of Debian packages: what was changed from version to version, and which vulnerabilities that names.
//!
//! Flows in: the text of a `changelog.Debian` (or `changelog`, of a native package). Flows out: its entries, the newest
//! first, and the CVE identifiers that some of them name.
//!
//! ```text
//! openssl (3.5.4-1~deb13u2) trixie-security; urgency=medium
//!
//!   * CVE-2025-15467: stack buffer overflow ...
//!
//!  -- A Maintainer <someone@example.org>  Sat, 24 Jan 2026 10:00:00 +0100
//! ```
//!
//! Specification: Debian Policy 4.4; deb-changelog(5).

use std::collections::BTreeSet;

use super::version;

/// What one version changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The source package.
    pub source: &'a str,
    /// The version of the source package.
    pub version: &'a str,
    /// All of it, heading and signature included.
    pub text: &'a str,
}

/// The entries, in the order of the text: the newest first. What stands before the first heading is nobody's.
pub fn entries(text: &str) -> Vec<Entry<'_>> {
    let mut starts: Vec<(usize, &str, &str)> = Vec::new();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        if let Some((source, version)) = heading(line) {
            starts.push((offset, source, version));
        }
        offset += line.len();
    }
    let ends = starts.iter().skip(1).map(|(start, ..)| *start).chain([text.len()]);
    let entry = |(&(start, source, version), end)| Entry { source, version, text: &text[start..end] };
    starts.iter().zip(ends).map(entry).collect()
}

/// `source (version) suites; key=value`
fn heading(line: &str) -> Option<(&str, &str)> {
    if !line.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let (source, rest) = line.split_once(" (")?;
    let (version, rest) = rest.split_once(')')?;
    (!source.contains(char::is_whitespace) && rest.contains(';') && version::is_valid(version))
        .then_some((source, version))
}

/// The vulnerabilities that a text names: `CVE-`, the year, four digits or more.
pub fn cves(text: &str) -> BTreeSet<String> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut found = BTreeSet::new();
    for (at, prefix) in text.match_indices("CVE-") {
        let rest = &text[at + prefix.len()..];
        let Some(number) = rest.get(4..).and_then(|number| number.strip_prefix('-')) else { continue };
        let count = digits(number);
        if digits(rest) == 4 && (4..=19).contains(&count) {
            found.insert(format!("CVE-{}-{}", &rest[..4], &number[..count]));
        }
    }
    found
}

/// The version without what a rebuild of the binary package added to it: `1.2-3+b1` is built from `1.2-3`.
pub fn source_version(binary: &str) -> &str {
    match binary.rsplit_once("+b") {
        Some((source, count)) if !count.is_empty() && count.bytes().all(|c| c.is_ascii_digit()) => source,
        _ => binary,
    }
}

/// The entries after the version `before` up to the newest. `None` if the text does not tell: its newest entry is not
/// of the version `after`, so it is numbered otherwise than the binary package.
pub fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<Vec<Entry<'a>>> {
    let entries = entries(text);
    let newest = entries.first()?;
    if newest.version != source_version(after) && newest.version != after {
        return None;
    }
    let before = source_version(before);
    Some(entries.into_iter().take_while(|entry| version::compare(entry.version, before).is_gt()).collect())
}

/// The entries that the changelog of the earlier package has not yet.
pub fn since<'a>(text: &'a str, earlier: &str) -> Option<Vec<Entry<'a>>> {
    let known = entries(earlier).first()?.version;
    let entries = entries(text);
    // The earlier entry may have been trimmed away; versions of one source package are in order.
    let source = entries.first()?.source;
    let same = entries.iter().all(|entry| entry.source == source);
    same.then(|| entries.into_iter().take_while(|entry| version::compare(entry.version, known).is_gt()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
tool (1.2-1+deb13u2) trixie-security; urgency=high

  * Fix CVE-2025-1234 and CVE-2025-123456 (Closes: #1).
  * Not one: CVE-2025-123, CVE-25-12345, XCVE, CVE-2025.

 -- Someone <a@example.org>  Sat, 24 Jan 2026 10:00:00 +0100

tool (1.2-1+deb13u1) trixie; urgency=medium

  * CVE-2024-0001

 -- Someone <a@example.org>  Fri, 23 Jan 2026 10:00:00 +0100

tool (1.2-1) unstable; urgency=medium

  * (CVE-2023-0001) like a heading (1); not one

 -- Someone <a@example.org>  Thu, 22 Jan 2026 10:00:00 +0100
";

    fn versions(entries: &[Entry<'_>]) -> Vec<String> {
        entries.iter().map(|entry| entry.version.to_owned()).collect()
    }

    #[test]
    fn cuts_a_changelog_into_its_entries() {
        let found = entries(TEXT);
        assert_eq!(versions(&found), ["1.2-1+deb13u2", "1.2-1+deb13u1", "1.2-1"]);
        assert_eq!(found.iter().map(|entry| entry.text).collect::<String>(), TEXT);
        assert_eq!(entries("no changelog at all\n"), []);
    }

    #[test]
    fn names_vulnerabilities_and_nothing_that_only_looks_like_one() {
        let found: Vec<String> = cves(TEXT).into_iter().collect();
        assert_eq!(found, ["CVE-2023-0001", "CVE-2024-0001", "CVE-2025-1234", "CVE-2025-123456"]);
        assert_eq!(cves("CVE-2025-ä CVE-ääää-1234 CVE-"), BTreeSet::new());
    }

    #[test]
    fn only_what_lies_between_two_versions_counts() {
        let found = between(TEXT, "1.2-1+deb13u1", "1.2-1+deb13u2").unwrap();
        assert_eq!(versions(&found), ["1.2-1+deb13u2"]);
        let found = between(TEXT, "1.2-1+b2", "1.2-1+deb13u2+b1").unwrap();
        assert_eq!(versions(&found), ["1.2-1+deb13u2", "1.2-1+deb13u1"]);
    }

    #[test]
    fn a_changelog_that_counts_otherwise_says_nothing_unless_the_earlier_one_is_known() {
        assert_eq!(between(TEXT, "9.1", "9.2"), None);
        let earlier = &TEXT[TEXT.find("tool (1.2-1+deb13u1)").unwrap()..];
        assert_eq!(versions(&since(TEXT, earlier).unwrap()), ["1.2-1+deb13u2"]);
        assert_eq!(since(TEXT, ""), None);
    }

    #[test]
    fn the_version_of_a_rebuild_is_that_of_its_source() {
        assert_eq!(source_version("1.2-3+b1"), "1.2-3");
        assert_eq!(source_version("1.2+bzr12-1"), "1.2+bzr12-1");
        assert_eq!(source_version("1.2+b"), "1.2+b");
    }
}
