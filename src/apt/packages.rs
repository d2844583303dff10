//! A Packages index: what one component of one suite offers.
//!
//! Flows in: the index's text (56 MB for Debian's main). Flows out: one [`Record`] for each paragraph, in its order.
//! The text is kept and a record points into it: nothing is copied, and fields that nobody asks for cost one glance
//! at their first bytes.
//!
//! Invariants: every record has a name, a version, an architecture, a pool path without `..`, a size and a SHA-256
//! digest; a paragraph that lacks one is an error, because what cannot be pinned cannot be locked.
//!
//! Specification: Debian Policy 5.3; the archive's `Packages` format (wiki.debian.org/DebianRepository/Format).

use std::ops::Range;

use crate::digest::Digest;

/// Offsets into the text. 32 bits suffice: [`PackagesIndex::parse`] refuses larger texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

/// `Priority`, the higher the earlier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// `required`
    Required,
    /// `important`
    Important,
    /// `standard`
    Standard,
    /// `optional`
    Optional,
    /// `extra`, any unknown word, or none.
    #[default]
    Extra,
}

/// `Multi-Arch`, as far as one architecture is concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MultiArch {
    /// No such field.
    #[default]
    No,
    /// `same`
    Same,
    /// `foreign`
    Foreign,
    /// `allowed`: `name:any` is satisfied by it.
    Allowed,
}

/// The relationship fields, in the order in which apt reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationField {
    /// `Pre-Depends`
    PreDepends,
    /// `Depends`
    Depends,
    /// `Conflicts`
    Conflicts,
    /// `Breaks`
    Breaks,
    /// `Recommends`
    Recommends,
    /// `Suggests`
    Suggests,
    /// `Replaces`
    Replaces,
    /// `Enhances`
    Enhances,
    /// `Provides`
    Provides,
}

/// All of them, in that order.
pub const RELATION_FIELDS: [RelationField; 9] = [
    RelationField::PreDepends,
    RelationField::Depends,
    RelationField::Conflicts,
    RelationField::Breaks,
    RelationField::Recommends,
    RelationField::Suggests,
    RelationField::Replaces,
    RelationField::Enhances,
    RelationField::Provides,
];

impl RelationField {
    /// The field's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::PreDepends => "Pre-Depends",
            Self::Depends => "Depends",
            Self::Conflicts => "Conflicts",
            Self::Breaks => "Breaks",
            Self::Recommends => "Recommends",
            Self::Suggests => "Suggests",
            Self::Replaces => "Replaces",
            Self::Enhances => "Enhances",
            Self::Provides => "Provides",
        }
    }
}

/// One package version of an index.
#[derive(Debug, Clone)]
pub struct Record {
    pub(super) name: Span,
    pub(super) version: Span,
    pub(super) architecture: Span,
    pub(super) path: Span,
    pub(super) source: Span,
    pub(super) relations: [Span; 9],
    /// Of the `.deb`, in bytes.
    pub size: u64,
    /// Of the `.deb`.
    pub digest: Digest,
    /// How much Debian wants it on every system.
    pub priority: Priority,
    /// `Multi-Arch`.
    pub multi_arch: MultiArch,
    /// `Essential: yes`, `Essential: no`, or no such field.
    pub essential: Option<bool>,
    /// `Protected` (or its old name, `Important`).
    pub protected: Option<bool>,
}

/// A parsed Packages index.
#[derive(Debug, Clone, Default)]
pub struct PackagesIndex {
    text: String,
    records: Vec<Record>,
}

/// A text that is not a Packages index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackagesError {
    /// Larger than offsets reach.
    #[error("the index has {size} bytes, more than 4 GiB")]
    TooLarge {
        /// In bytes.
        size: usize,
    },
    /// Not UTF-8.
    #[error("byte {offset} is not UTF-8")]
    Encoding {
        /// Of the first wrong byte.
        offset: usize,
    },
    /// A paragraph without a field that it needs.
    #[error("the paragraph at byte {offset} ({package}) has no field {field}")]
    Missing {
        /// Where the paragraph starts.
        offset: usize,
        /// Its package, as far as known.
        package: String,
        /// The missing field.
        field: &'static str,
    },
    /// A field whose value cannot be.
    #[error("the paragraph at byte {offset} ({package}) has a wrong {field}: {value:?}")]
    Wrong {
        /// Where the paragraph starts.
        offset: usize,
        /// Its package, as far as known.
        package: String,
        /// The field.
        field: &'static str,
        /// Its value, shortened.
        value: String,
    },
    /// A line that is neither a field nor a continuation.
    #[error("the line at byte {offset} is not a field: {text:?}")]
    NotAField {
        /// Where the line starts.
        offset: usize,
        /// Its beginning.
        text: String,
    },
}

impl PackagesIndex {
    /// Parses the whole index.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, PackagesError> {
        let text = String::from_utf8(bytes)
            .map_err(|error| PackagesError::Encoding { offset: error.utf8_error().valid_up_to() })?;
        if u32::try_from(text.len()).is_err() {
            return Err(PackagesError::TooLarge { size: text.len() });
        }
        let mut records = Vec::with_capacity(text.len() / 800);
        let mut draft = Draft::default();
        let mut last: Option<Slot> = None;
        let mut at = 0;
        while at < text.len() {
            let end = memchr::memchr(b'\n', &text.as_bytes()[at..]).map_or(text.len(), |length| at + length);
            let line = &text[at..end];
            match line.as_bytes().first() {
                None => {
                    if draft.used {
                        records.push(std::mem::take(&mut draft).finish(&text)?);
                    }
                    last = None;
                }
                Some(b' ' | b'\t') if draft.used => {
                    // Only relationship fields matter beyond their first line; the others are words.
                    if let Some(Slot::Relation(field)) = last {
                        draft.relations[field as usize].end = end as u32;
                    }
                }
                _ => last = draft.take_field(&text, at, end)?,
            }
            at = end + 1;
        }
        if draft.used {
            records.push(draft.finish(&text)?);
        }
        Ok(Self { text, records })
    }

    /// The records, in the order of the text.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The package's name.
    pub fn name(&self, record: &Record) -> &str {
        self.slice(record.name)
    }

    /// The package's version.
    pub fn version(&self, record: &Record) -> &str {
        self.slice(record.version)
    }

    /// The package's architecture, `all` included.
    pub fn architecture(&self, record: &Record) -> &str {
        self.slice(record.architecture)
    }

    /// The pool path of the `.deb`, relative to the repository's root.
    pub fn path(&self, record: &Record) -> &str {
        self.slice(record.path)
    }

    /// `Source` as written (perhaps with a version in parentheses); empty if it is the package's own name.
    pub fn source(&self, record: &Record) -> &str {
        self.slice(record.source)
    }

    /// The value of a relationship field; empty if there is none.
    pub fn relation(&self, record: &Record, field: RelationField) -> &str {
        self.slice(record.relations[field as usize])
    }

    fn slice(&self, span: Span) -> &str {
        &self.text[span.range()]
    }
}

impl Span {
    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A field that is wanted.
#[derive(Clone, Copy)]
enum Slot {
    Relation(RelationField),
    Other,
}

/// A record whose fields are still coming in.
#[derive(Default)]
struct Draft {
    used: bool,
    offset: usize,
    name: Span,
    version: Span,
    architecture: Span,
    path: Span,
    source: Span,
    size: Span,
    digest: Span,
    relations: [Span; 9],
    priority: Priority,
    multi_arch: MultiArch,
    essential: Option<bool>,
    protected: Option<bool>,
}

impl Draft {
    /// Takes in the field at `start..end`; gives its slot if continuation lines may follow that matter.
    fn take_field(&mut self, text: &str, start: usize, end: usize) -> Result<Option<Slot>, PackagesError> {
        if !self.used {
            self.offset = start;
            self.used = true;
        }
        let line = &text[start..end];
        let colon = memchr::memchr(b':', line.as_bytes());
        let Some(colon) = colon.filter(|&colon| colon > 0 && !line.starts_with([' ', '\t'])) else {
            return Err(PackagesError::NotAField { offset: start, text: line.chars().take(60).collect() });
        };
        let value = line[colon + 1..].trim_ascii();
        let value_start = value.as_ptr() as usize - text.as_ptr() as usize;
        let span = Span { start: value_start as u32, end: (value_start + value.len()) as u32 };
        let yes = || Some(value.eq_ignore_ascii_case("yes"));
        // The policy lets the case of names vary; indexes are written by programs, which all write them like this.
        match Name::of(&line[..colon]) {
            Some(Name::Relation(field)) => {
                self.relations[field as usize] = span;
                return Ok(Some(Slot::Relation(field)));
            }
            Some(Name::Package) => self.name = span,
            Some(Name::Version) => self.version = span,
            Some(Name::Architecture) => self.architecture = span,
            Some(Name::Filename) => self.path = span,
            Some(Name::Source) => self.source = span,
            Some(Name::Size) => self.size = span,
            Some(Name::Sha256) => self.digest = span,
            Some(Name::Priority) => self.priority = priority(value),
            Some(Name::MultiArch) => self.multi_arch = multi_arch(value),
            Some(Name::Essential) => self.essential = yes(),
            Some(Name::Protected) => self.protected = yes(),
            None => {}
        }
        Ok(Some(Slot::Other))
    }

    fn finish(self, text: &str) -> Result<Record, PackagesError> {
        let package = || text[self.name.range()].to_owned();
        let need = |span: Span, field: &'static str| {
            if span.start == span.end {
                return Err(PackagesError::Missing { offset: self.offset, package: package(), field });
            }
            Ok(&text[span.range()])
        };
        let wrong = |field, value: &str| PackagesError::Wrong {
            offset: self.offset,
            package: package(),
            field,
            value: value.chars().take(80).collect(),
        };
        let name = need(self.name, "Package")?;
        if !is_package_name(name) {
            return Err(wrong("Package", name));
        }
        let version = need(self.version, "Version")?;
        if !super::version::is_valid(version) {
            return Err(wrong("Version", version));
        }
        let architecture = need(self.architecture, "Architecture")?;
        if !architecture.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
            return Err(wrong("Architecture", architecture));
        }
        let mut path = need(self.path, "Filename")?;
        let mut path_span = self.path;
        // Archives made by dpkg-scanpackages have it so.
        if let Some(rest) = path.strip_prefix("./") {
            path = rest;
            path_span.start += 2;
        }
        if !is_pool_path(path) {
            return Err(wrong("Filename", path));
        }
        let size = need(self.size, "Size")?;
        let digest = need(self.digest, "SHA256")?;
        Ok(Record {
            name: self.name,
            version: self.version,
            architecture: self.architecture,
            path: path_span,
            source: self.source,
            relations: self.relations,
            size: size.parse().map_err(|_| wrong("Size", size))?,
            digest: digest.parse().map_err(|_| wrong("SHA256", digest))?,
            priority: self.priority,
            multi_arch: self.multi_arch,
            essential: self.essential,
            protected: self.protected,
        })
    }
}

/// Whether `name` is one that the policy allows (5.6.1), in any case of letters.
pub fn is_package_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-._".contains(&c))
}

/// Whether `path` names a file below a repository's root and nothing else: no way out, no empty part, nothing that
/// a URL or a terminal would understand in another way.
pub fn is_pool_path(path: &str) -> bool {
    !path.is_empty()
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && path.bytes().all(|c| c.is_ascii_alphanumeric() || b"/+-._~:%@=,^!".contains(&c))
}

fn priority(value: &str) -> Priority {
    match value {
        "required" => Priority::Required,
        "important" => Priority::Important,
        "standard" => Priority::Standard,
        "optional" => Priority::Optional,
        _ => Priority::Extra,
    }
}

fn multi_arch(value: &str) -> MultiArch {
    match value {
        "same" => MultiArch::Same,
        "foreign" => MultiArch::Foreign,
        "allowed" => MultiArch::Allowed,
        _ => MultiArch::No,
    }
}

#[derive(Clone, Copy)]
enum Name {
    Relation(RelationField),
    Package,
    Version,
    Architecture,
    Filename,
    Source,
    Size,
    Sha256,
    Priority,
    MultiArch,
    Essential,
    Protected,
}

impl Name {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "Package" => Self::Package,
            "Version" => Self::Version,
            "Architecture" => Self::Architecture,
            "Filename" => Self::Filename,
            "Source" => Self::Source,
            "Size" => Self::Size,
            "SHA256" => Self::Sha256,
            "Priority" => Self::Priority,
            "Multi-Arch" => Self::MultiArch,
            "Essential" => Self::Essential,
            "Protected" | "Important" => Self::Protected,
            "Pre-Depends" => Self::Relation(RelationField::PreDepends),
            "Depends" => Self::Relation(RelationField::Depends),
            "Conflicts" => Self::Relation(RelationField::Conflicts),
            "Breaks" => Self::Relation(RelationField::Breaks),
            "Recommends" => Self::Relation(RelationField::Recommends),
            "Suggests" => Self::Relation(RelationField::Suggests),
            "Replaces" => Self::Relation(RelationField::Replaces),
            "Enhances" => Self::Relation(RelationField::Enhances),
            "Provides" => Self::Relation(RelationField::Provides),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "Package: a\nVersion: 1\nArchitecture: all\nFilename: pool/a_1_all.deb\nSize: 9\n\
        Depends: b (>= 1),\n c\nDescription: x\n y\nSHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n";

    fn parse(text: &str) -> Result<PackagesIndex, PackagesError> {
        PackagesIndex::parse(text.as_bytes().to_vec())
    }

    #[test]
    fn reads_records_in_order() {
        let index =
            parse(&format!("{GOOD}Priority: required\nEssential: yes\n\n\n{}", GOOD.replace("a\n", "b\n"))).unwrap();
        let [a, b] = index.records() else { panic!() };
        assert_eq!((index.name(a), index.version(a), index.architecture(a)), ("a", "1", "all"));
        assert_eq!((index.path(a), a.size, a.digest), ("pool/a_1_all.deb", 9, Digest::of(b"")));
        assert_eq!(index.relation(a, RelationField::Depends), "b (>= 1),\n c");
        assert_eq!(index.relation(a, RelationField::Provides), "");
        assert_eq!((a.priority, a.essential, a.protected), (Priority::Required, Some(true), None));
        assert_eq!((index.name(b), b.priority, b.essential), ("b", Priority::Extra, None));
    }

    #[test]
    fn takes_a_leading_dot_off_paths() {
        let index = parse(&GOOD.replace("pool/a_1", "./a_1")).unwrap();
        assert_eq!(index.path(&index.records()[0]), "a_1_all.deb");
        assert!(parse(&GOOD.replace("pool/a_1", "././a_1")).is_err());
    }

    #[test]
    fn names_the_field_that_a_paragraph_lacks() {
        for field in ["Package", "Version", "Architecture", "Filename", "Size", "SHA256"] {
            let text = GOOD.replace(&format!("{field}: "), "X-Other: ");
            let error = parse(&text).unwrap_err();
            assert!(matches!(error, PackagesError::Missing { field: found, .. } if found == field), "{error}");
        }
    }

    #[test]
    fn refuses_values_that_cannot_be_locked() {
        for (from, to, field) in [
            ("pool/a_1_all.deb", "../a_1_all.deb", "Filename"),
            ("pool/a_1_all.deb", "/pool/a_1_all.deb", "Filename"),
            ("pool/a_1_all.deb", "pool//a_1_all.deb", "Filename"),
            ("pool/a_1_all.deb", "pool/a b", "Filename"),
            ("Size: 9", "Size: -9", "Size"),
            ("SHA256: e3", "SHA256: E3", "SHA256"),
            ("Version: 1", "Version: x", "Version"),
            ("Package: a", "Package: ../a", "Package"),
            ("Architecture: all", "Architecture: a/b", "Architecture"),
        ] {
            let error = parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(matches!(error, PackagesError::Wrong { field: found, .. } if found == field), "{error}");
        }
        assert!(matches!(parse("Package a\n"), Err(PackagesError::NotAField { offset: 0, .. })));
        assert!(matches!(parse(" Package: a\n"), Err(PackagesError::NotAField { offset: 0, .. })));
        assert!(matches!(PackagesIndex::parse(b"A: \xff".to_vec()), Err(PackagesError::Encoding { offset: 3 })));
    }

    proptest! {
        #[test]
        fn mutated_input_never_panics(at in 0..GOOD.len(), byte in any::<u8>(), cut in 0..GOOD.len()) {
            let mut bytes = GOOD.as_bytes().to_vec();
            bytes[at] = byte;
            bytes.truncate(cut);
            let _ = PackagesIndex::parse(bytes);
        }
    }
}
