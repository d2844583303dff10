//! A difference as text and as Markdown: the same sections, written in two ways.

use crate::diff::{
    AccountChange, Difference, Field, FilesDifference, PackageChange, PartChange, UnitChange, UnitState,
};
use crate::manifest::File;
use crate::telemetry::human_bytes;

/// How many lines of a section are shown unless all are asked for.
const FOLD: usize = 20;
/// How many lines of one version's changelog.
const CHANGELOG_FOLD: usize = 12;
/// How many digits of a digest are shown.
const DIGITS: usize = 12;

/// One line of a section: `+`, `-` or `~`, what it is about, and the rest.
struct Line {
    sign: char,
    name: String,
    detail: String,
    /// Lines of text below it.
    below: Vec<String>,
}

struct Section {
    title: &'static str,
    lines: Vec<Line>,
    /// What is said at its end, if anything.
    note: Option<String>,
}

/// What differs, ready to be written.
pub(super) struct Report {
    heading: String,
    summary: Vec<String>,
    sections: Vec<Section>,
    not_compared: Vec<String>,
    fold: usize,
    changelog_fold: usize,
}

impl Report {
    pub fn new(found: &Difference, all: bool) -> Self {
        let (before, after) = (&found.before, &found.after);
        let heading = format!("{} {} → {} {}", before.name, before.version, after.name, after.version);
        let mut sections = vec![
            Section { title: "Packages", lines: packages(found), note: None },
            Section { title: "Units", lines: found.units.iter().map(unit).collect(), note: None },
            Section { title: "Users", lines: found.users.iter().map(account).collect(), note: None },
            Section { title: "Groups", lines: found.groups.iter().map(account).collect(), note: None },
            files("Files", &found.files),
            Section { title: "Kernel and its command line", lines: kernel(found), note: None },
            Section { title: "Kernel image", lines: found.boot.sections.iter().map(part).collect(), note: None },
        ];
        sections.extend(found.boot.initrd.as_ref().map(|initrd| files("Initrd", initrd)));
        let partitions = found.boot.partitions.iter().map(part).collect();
        sections.push(Section { title: "Partitions", lines: partitions, note: None });
        sections.push(Section { title: "Other", lines: found.fields.iter().map(value).collect(), note: None });
        sections.retain(|section| !section.lines.is_empty() || section.note.is_some());
        let not_compared = found.not_compared.iter().map(|it| printable(&format!("{}: {}", it.what, it.why)));
        let fold = |limit| if all { usize::MAX } else { limit };
        Self {
            heading: printable(&heading),
            summary: summary(found),
            sections,
            not_compared: not_compared.collect(),
            fold: fold(FOLD),
            changelog_fold: fold(CHANGELOG_FOLD),
        }
    }

    pub fn text(&self) -> String {
        let mut lines = vec![self.heading.clone()];
        lines.extend(self.summary.iter().map(|line| format!("  {line}")));
        for section in &self.sections {
            lines.push(format!("\n{}", section.title));
            for line in section.lines.iter().take(self.fold) {
                lines.push(format!("  {} {} {}", line.sign, line.name, line.detail).trim_end().to_owned());
                lines.extend(self.folded(line).map(|below| format!("      {below}")));
            }
            lines.extend(self.end(section).map(|note| format!("  {note}")));
        }
        if !self.not_compared.is_empty() {
            lines.push("\nNot compared".to_owned());
            lines.extend(self.not_compared.iter().map(|line| format!("  {line}")));
        }
        lines.join("\n") + "\n"
    }

    pub fn markdown(&self) -> String {
        let mut lines = vec![format!("## {}", self.heading), String::new()];
        lines.extend(self.summary.iter().map(|line| format!("- {line}")));
        for section in &self.sections {
            lines.push(format!("\n### {}\n", section.title));
            for line in section.lines.iter().take(self.fold) {
                let verb = match line.sign {
                    '+' => "added ",
                    '-' => "removed ",
                    _ => "",
                };
                lines.push(format!("- {verb}{} {}", code(&line.name), line.detail).trim_end().to_owned());
                let below: Vec<String> = self.folded(line).collect();
                if !below.is_empty() {
                    // Text of others: in a block, nothing of it is markup.
                    lines.push("  ```text".to_owned());
                    lines.extend(below.iter().map(|below| format!("  {}", below.replace("```", "'''"))));
                    lines.push("  ```".to_owned());
                }
            }
            lines.extend(self.end(section).map(|note| format!("- {note}")));
        }
        if !self.not_compared.is_empty() {
            lines.push("\n### Not compared\n".to_owned());
            lines.extend(self.not_compared.iter().map(|line| format!("- {line}")));
        }
        lines.join("\n") + "\n"
    }

    fn folded<'l>(&self, line: &'l Line) -> impl Iterator<Item = String> + use<'l> {
        let hidden = line.below.len().saturating_sub(self.changelog_fold);
        let shown = line.below.iter().take(self.changelog_fold).cloned();
        shown.chain((hidden > 0).then(|| format!("… {hidden} more lines: --all shows them")))
    }

    fn end(&self, section: &Section) -> impl Iterator<Item = String> {
        let hidden = section.lines.len().saturating_sub(self.fold);
        let hidden = (hidden > 0).then(|| format!("… {hidden} more: --all lists them"));
        hidden.into_iter().chain(section.note.clone())
    }
}

/// Nothing that an image holds may steer a terminal.
pub(in crate::cli) fn printable(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// A code span of Markdown, with more backticks around it than it has inside.
fn code(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    if longest == 0 { format!("{fence}{text}{fence}") } else { format!("{fence} {text} {fence}") }
}

fn counted(count: usize, what: &str) -> Option<String> {
    match count {
        0 => None,
        _ => Some(format!("{count} {what}")),
    }
}

fn summary(found: &Difference) -> Vec<String> {
    if found.same {
        return vec!["the same in all that was compared".to_owned()];
    }
    let list = |what: &str, parts: [Option<String>; 4]| {
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| format!("{what}: {}", parts.join(", ")))
    };
    let changes = |what: &str, changed, added, removed, other| {
        list(what, [counted(changed, "changed"), counted(added, "added"), counted(removed, "removed"), other])
    };
    let accounts = |what: &str, all: &[AccountChange]| {
        let count = |kind| all.iter().filter(|change| change.what == kind).count();
        changes(what, count("changed"), count("added"), count("removed"), None)
    };
    let (packages, files) = (&found.packages, &found.files);
    let files_line = |what: &str, files: &FilesDifference| {
        let times = counted(files.retimed.len(), "with another time only");
        changes(what, files.changed.len(), files.added.len(), files.removed.len(), times)
    };
    let units = |before: bool, after: bool| {
        found.units.iter().filter(|unit| (unit.before.is_some(), unit.after.is_some()) == (before, after)).count()
    };
    let boot = &found.boot;
    let names = |what: &str, parts: &[PartChange]| {
        let names: Vec<&str> = parts.iter().map(|part| part.part.as_str()).collect();
        (!names.is_empty()).then(|| printable(&format!("{what}: {}", names.join(", "))))
    };
    let lines = [
        Some(root_hash(found)),
        changes("packages", packages.changed.len(), packages.added.len(), packages.removed.len(), None),
        files_line("files", files),
        changes("units", units(true, true), units(false, true), units(true, false), None),
        accounts("users", &found.users),
        accounts("groups", &found.groups),
        boot.kernel.as_ref().map(|kernel| format!("kernel: {}", arrow(kernel))),
        boot.command_line.as_ref().map(|line| format!("command line: {}", words(line.words.len()))),
        boot.initrd.as_ref().and_then(|initrd| files_line("initrd", initrd)),
        names("sections of the kernel image", &boot.sections),
        names("partitions", &boot.partitions),
    ];
    lines.into_iter().flatten().collect()
}

fn words(count: usize) -> String {
    if count == 1 { "1 word".to_owned() } else { format!("{count} words") }
}

fn root_hash(found: &Difference) -> String {
    let (before, after) = (&found.before.root_hash, &found.after.root_hash);
    match before == after {
        true => format!("root hash: {} in both", short(before)),
        false => format!("root hash: {} → {}", short(before), short(after)),
    }
}

/// The first digits of what looks like a digest; all else as it is.
pub(in crate::cli) fn short(text: &str) -> String {
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { format!("{}…", &text[..DIGITS]) } else { printable(text) }
}

fn arrow(field: &Field) -> String {
    arrow_text(&field.before, &field.after)
}

/// Two values, digests shortened.
pub(in crate::cli) fn arrow_text(before: &Option<String>, after: &Option<String>) -> String {
    let side = |value: &Option<String>| value.as_deref().map_or("none".to_owned(), short);
    format!("{} → {}", side(before), side(after))
}

fn line(sign: char, name: &str, detail: String) -> Line {
    Line { sign, name: printable(name), detail, below: Vec::new() }
}

fn packages(found: &Difference) -> Vec<Line> {
    let set = |set: &str| if set == "system" { String::new() } else { format!(" ({set})") };
    let packages = &found.packages;
    let mut lines = Vec::new();
    for (index, change) in packages.changed.iter().enumerate() {
        let (before, after) = (&change.before, &change.after);
        let versions = match change.direction {
            "rebuild" if before.version == after.version => format!("{} in another file", after.version),
            "downgrade" => format!("{} → {} (older)", before.version, after.version),
            _ => format!("{} → {}", before.version, after.version),
        };
        let cves = match change.cves.as_slice() {
            [] => String::new(),
            [one] => format!(", names {one}"),
            all => format!(", names {} CVEs", all.len()),
        };
        let versions = format!("{versions}{cves}");
        let mut line = line('~', &after.name, printable(&format!("{versions}{}", set(&after.set))));
        // Packages of one source have one changelog.
        let same = |other: &&PackageChange| !change.changelog.is_empty() && other.changelog == change.changelog;
        let shown = packages.changed[..index].iter().find(same);
        if let Some(shown) = shown {
            line.below.push(printable(&format!("as {} above", shown.after.name)));
        }
        for entry in change.changelog.iter().filter(|_| shown.is_none()) {
            line.below.push(printable(&format!(
                "{} ({}, urgency {}, {})",
                entry.version, entry.distribution, entry.urgency, entry.date
            )));
            line.below.extend(entry.changes.iter().map(|change| printable(&format!("  {change}"))));
        }
        lines.push(line);
    }
    for (sign, list) in [('+', &packages.added), ('-', &packages.removed)] {
        let all = list.iter().map(|p| line(sign, &p.name, printable(&format!("{}{}", p.version, set(&p.set)))));
        lines.extend(all);
    }
    lines
}

fn unit(unit: &UnitChange) -> Line {
    let word = |state: UnitState| match state {
        UnitState::Enabled => "enabled",
        UnitState::Present => "not enabled",
        UnitState::Masked => "masked",
    };
    let (sign, mut detail) = match (unit.before, unit.after) {
        (None, Some(after)) => ('+', vec![word(after).to_owned()]),
        (Some(before), None) => ('-', vec![format!("was {}", word(before))]),
        (Some(before), Some(after)) if before != after => ('~', vec![format!("{} → {}", word(before), word(after))]),
        _ => ('~', Vec::new()),
    };
    if sign == '~' {
        let files: Vec<&str> = unit.files.iter().map(String::as_str).collect();
        detail.extend((!files.is_empty()).then(|| format!("changed in {}", files.join(", "))));
    }
    let folder = |link: &String| link.rsplit('/').nth(1).unwrap_or_default().to_owned();
    detail.extend(unit.links_added.iter().map(|link| format!("now in {}", folder(link))));
    detail.extend(unit.links_removed.iter().map(|link| format!("no more in {}", folder(link))));
    line(sign, &unit.unit, printable(&detail.join(", ")))
}

fn account(account: &AccountChange) -> Line {
    let (sign, side): (char, fn(&Field) -> String) = match account.what {
        "added" => ('+', |field| field.after.clone().unwrap_or_default()),
        "removed" => ('-', |field| field.before.clone().unwrap_or_default()),
        _ => ('~', arrow),
    };
    let fields: Vec<String> = account
        .changes
        .iter()
        .filter(|field| sign == '~' || !side(field).is_empty())
        .map(|field| format!("{} {}", field.name, side(field)))
        .collect();
    line(sign, &account.name, printable(&fields.join(", ")))
}

fn files(title: &'static str, difference: &FilesDifference) -> Section {
    let mut lines = Vec::new();
    for change in &difference.changed {
        // A size says more than a digest, and a digest nothing where the size differs.
        let size = change.changes.iter().any(|field| field.name == "size");
        let describe = |field: &Field| match field.name.as_str() {
            "sha256" if size => None,
            "sha256" => Some("other contents".to_owned()),
            "mtime" => None,
            "size" => {
                let bytes =
                    |value: &Option<String>| human_bytes(value.as_ref().and_then(|v| v.parse().ok()).unwrap_or(0));
                Some(format!("{} → {}", bytes(&field.before), bytes(&field.after)))
            }
            name => Some(format!("{} {}", printable(name), arrow(field))),
        };
        let detail: Vec<String> = change.changes.iter().filter_map(describe).collect();
        lines.push(line('~', &change.path, detail.join(", ")));
    }
    for (sign, list) in [('+', &difference.added), ('-', &difference.removed)] {
        lines.extend(list.iter().map(|file| line(sign, &file.path, kind(file))));
    }
    let note = counted(difference.retimed.len(), "more with another time and nothing else");
    Section { title, lines, note }
}

fn kind(file: &File) -> String {
    match (&file.target, file.size) {
        (Some(target), _) => format!("→ {}", printable(target)),
        (None, Some(size)) => human_bytes(size),
        (None, None) => file.kind.clone(),
    }
}

fn kernel(found: &Difference) -> Vec<Line> {
    let mut lines = Vec::new();
    lines.extend(found.boot.kernel.as_ref().map(|kernel| line('~', "kernel", arrow(kernel))));
    for change in found.boot.command_line.iter().flat_map(|line| &line.words) {
        lines.push(match (&change.before, &change.after) {
            // The order of words counts.
            (Some(before), Some(after)) if before == after => line('~', before, "stands elsewhere".to_owned()),
            (Some(before), Some(after)) => match (before.split_once('='), after.split_once('=')) {
                (Some((key, before)), Some((_, after))) => {
                    line('~', key, format!("{} → {}", short(before), short(after)))
                }
                _ => line('~', before, format!("→ {}", printable(after))),
            },
            (Some(before), None) => line('-', before, String::new()),
            (None, after) => line('+', after.as_deref().unwrap_or_default(), String::new()),
        });
    }
    lines
}

fn part(part: &PartChange) -> Line {
    let sign = match part.changes.first() {
        Some(Field { before: None, .. }) => '+',
        Some(Field { after: None, .. }) => '-',
        _ => '~',
    };
    let fields: Vec<String> = part.changes.iter().map(|field| format!("{} {}", field.name, arrow(field))).collect();
    line(sign, &part.part, if sign == '~' { fields.join(", ") } else { String::new() })
}

fn value(field: &Field) -> Line {
    line('~', &field.name, arrow(field))
}
