//! From the tables of one document to the values of a [`Recipe`](super::Recipe): each item by itself, its mistakes
//! taken note of, so that all of them are found in one go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::diagnostic::{Diagnostic, listed, nearest};
use super::resolved::*;
use super::schema::{self, Epoch};
use super::source::{At, Span};
use super::values::{self, Fault};

/// Mistakes that come with a hint, where the hint grows with the recipe.
const HINTS_MAX: usize = 100;

/// What has a key within its list.
pub(super) trait Keyed {
    fn key(&self) -> &str;
    fn span(&self) -> Span;
}

impl Keyed for At<PackageRequest> {
    fn key(&self) -> &str {
        &self.value.name
    }
    fn span(&self) -> Span {
        self.span
    }
}

impl Keyed for At<String> {
    fn key(&self) -> &str {
        &self.value
    }
    fn span(&self) -> Span {
        self.span
    }
}

macro_rules! keyed {
    ($($type:ty, $field:ident);+) => {
        $(impl Keyed for $type {
            fn key(&self) -> &str {
                &self.$field.value
            }
            fn span(&self) -> Span {
                self.$field.span
            }
        })+
    };
}

impl Keyed for Check {
    fn key(&self) -> &str {
        &self.name
    }
    fn span(&self) -> Span {
        self.span
    }
}

keyed!(Repository, name; FileEntry, path; DirectoryEntry, path; SymlinkEntry, path; User, name; Group, name);

/// The mistakes so far, and the ways to find one.
#[derive(Default)]
pub(super) struct Found(pub Vec<Diagnostic>);

impl Found {
    pub(super) fn fault(&mut self, key: &str, span: Span, shown: &str, fault: Fault) {
        let title = match shown {
            "" => format!("`{key}` is not valid"),
            shown => format!("`{key}` cannot be \"{}\"", shown.escape_debug()),
        };
        let found = Diagnostic::at(span, title, fault.label);
        self.0.push(match fault.help {
            Some(help) => found.help(help),
            None => found,
        });
    }

    /// The text, if it passes; its fault is taken note of if not.
    pub(super) fn text(
        &mut self,
        key: &str,
        text: At<String>,
        check: fn(&str) -> Result<(), Fault>,
    ) -> Option<At<String>> {
        match check(&text) {
            Ok(()) => Some(text),
            Err(fault) => {
                self.fault(key, text.span, &text.value, fault);
                None
            }
        }
    }

    pub(super) fn texts(
        &mut self,
        key: &str,
        list: Vec<At<String>>,
        check: fn(&str) -> Result<(), Fault>,
    ) -> Vec<At<String>> {
        list.into_iter().filter_map(|text| self.text(key, text, check)).collect()
    }

    pub(super) fn packages(&mut self, key: &str, list: Vec<At<String>>) -> Vec<At<PackageRequest>> {
        let mut requests = Vec::new();
        for text in list {
            match values::package(&text) {
                Ok(request) => requests.push(text.with(request)),
                Err(fault) => self.fault(key, text.span, &text.value, fault),
            }
        }
        requests
    }

    pub(super) fn mode(&mut self, mode: Option<At<String>>) -> Option<u16> {
        let text = mode?;
        match values::mode(&text) {
            Ok(mode) => Some(mode),
            Err(fault) => {
                self.fault("mode", text.span, &text.value, fault);
                None
            }
        }
    }

    pub(super) fn account(&mut self, key: &str, account: Option<At<Account>>, default: Span) -> At<Account> {
        let account = account.unwrap_or(At::new(Account::Id(0), default));
        if let Account::Name(name) = &account.value
            && let Err(fault) = values::account_name(name)
        {
            self.fault(key, account.span, name, fault);
        }
        account
    }

    pub(super) fn ownership(&mut self, owner: Option<At<Account>>, group: Option<At<Account>>, at: Span) -> Ownership {
        Ownership { owner: self.account("owner", owner, at), group: self.account("group", group, at) }
    }

    pub(super) fn id(&mut self, key: &str, id: Option<At<u32>>) -> Option<At<u32>> {
        let id = id?;
        if let Err(fault) = values::account_id(id.value) {
            self.fault(key, id.span, "", fault);
        }
        Some(id)
    }

    pub(super) fn source(&mut self, key: &str, text: At<String>, folder: &Path) -> At<SourcePath> {
        if let Err(fault) = values::source_path(&text) {
            self.fault(key, text.span, &text.value, fault);
        }
        let folder = folder.to_owned();
        text.with(SourcePath { text: text.value.clone(), folder })
    }

    /// Two of the same key in one file.
    pub(super) fn twice(&mut self, what: &str, key: &str, first: Span, second: Span) {
        let title = format!("{what} `{key}` stands twice in this file");
        self.0.push(Diagnostic::at(second, title, "again here").context(first, "first here"));
    }

    pub(super) fn twice_within<T: Keyed>(&mut self, what: &str, items: &[T]) {
        let mut firsts: BTreeMap<&str, Span> = BTreeMap::new();
        for item in items {
            match firsts.get(item.key()) {
                Some(first) => self.twice(what, item.key(), *first, item.span()),
                None => drop(firsts.insert(item.key(), item.span())),
            }
        }
    }

    /// Appends; what is inherited under the same key is replaced.
    pub(super) fn append<T: Keyed>(&mut self, what: &str, list: &mut Vec<T>, items: Vec<T>) {
        self.twice_within(what, &items);
        let keys: BTreeSet<&str> = items.iter().map(Keyed::key).collect();
        list.retain(|old| !keys.contains(old.key()));
        list.extend(items);
    }

    /// Takes away what `names` names.
    pub(super) fn remove<T: Keyed>(&mut self, what: &str, list: &mut Vec<T>, names: &[At<String>]) {
        for name in names {
            let known = list.iter().any(|item| item.key() == name.value);
            if !known {
                self.nothing_to_remove(what, name, list.iter().map(Keyed::key));
            }
            list.retain(|item| item.key() != name.value);
        }
    }

    pub(super) fn nothing_to_remove<'a>(
        &mut self,
        what: &str,
        name: &At<String>,
        there: impl Iterator<Item = &'a str>,
    ) {
        let title = format!("there is no {what} `{}` to remove", name.escape_debug());
        // Nobody reads that many, and each hint is as long as the list that it is about.
        if self.0.len() >= HINTS_MAX {
            return self.0.push(Diagnostic::at(name.span, title, "the recipe that this one extends does not have it"));
        }
        let there: Vec<&str> = there.collect();
        let label = match nearest(name, there.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => "the recipe that this one extends does not have it".into(),
        };
        let found = Diagnostic::at(name.span, title, label);
        self.0.push(match there.is_empty() {
            true => found.help("`[remove]` takes away what comes from the recipe that this one extends"),
            false => found.help(format!("inherited: {}", listed(there))),
        });
    }
}

impl Found {
    pub(super) fn components(&mut self, list: At<Vec<At<String>>>) -> Vec<At<String>> {
        if list.is_empty() {
            let fault = Fault { label: "at least one component".into(), help: None };
            self.fault("components", list.span, "", fault);
        }
        self.texts("components", list.value, values::component)
    }
}

pub(super) fn pocket_word(pocket: Pocket) -> &'static str {
    match pocket {
        Pocket::Updates => "updates",
        Pocket::Security => "security",
        Pocket::Backports => "backports",
    }
}

/// In the order of the enum, each once.
pub(super) fn pockets(found: &mut Found, given: Option<At<Vec<At<Pocket>>>>) -> Vec<Pocket> {
    let Some(given) = given else { return vec![Pocket::Updates, Pocket::Security] };
    for (index, pocket) in given.iter().enumerate() {
        if let Some(first) = given[..index].iter().find(|first| *first == pocket) {
            found.twice("the pocket", pocket_word(pocket.value), first.span, pocket.span);
        }
    }
    let mut pockets: Vec<Pocket> = given.value.into_iter().map(|pocket| pocket.value).collect();
    pockets.sort();
    pockets
}

pub(super) fn seconds(found: &mut Found, epoch: &At<Epoch>) -> Option<i64> {
    let seconds = match epoch.value {
        Epoch::Seconds(seconds) => Some(seconds),
        Epoch::Date(date) => date.to_string().parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second),
    };
    let fault = |label: &str| Fault { label: label.into(), help: Some("for example 2026-11-01T00:00:00Z".into()) };
    match seconds {
        // From 1970 to the end of 9999: what every format that carries times can say.
        Some(seconds @ 0..=253_402_300_799) => return Some(seconds),
        Some(_) => found.fault("epoch", epoch.span, "", fault("expected a time from 1970 to 9999")),
        None => found.fault("epoch", epoch.span, "", fault("expected a date, a time and an offset from UTC")),
    }
    None
}

pub(super) fn file_content(
    found: &mut Found,
    content: Option<At<String>>,
    source: Option<At<String>>,
    table: Span,
    folder: &Path,
) -> Option<FileContent> {
    match (content, source) {
        (Some(content), None) => Some(FileContent::Inline(content.value)),
        (None, Some(source)) => Some(FileContent::Source(found.source("source", source, folder))),
        (Some(content), Some(source)) => {
            let complaint = Diagnostic::at(source.span, "a file has `content` or `source`, not both", "this one");
            found.0.push(complaint.context(content.span, "or this one"));
            None
        }
        (None, None) => {
            let complaint = Diagnostic::at(table, "`[[file]]` has neither `content` nor `source`", "");
            let help = "write `content = \"...\"`, or `source = \"path beside the recipe\"`";
            found.0.push(complaint.help(help).help("an empty file has `content = \"\"`"));
            None
        }
    }
}

pub(super) fn user_of(found: &mut Found, user: schema::UserTable) -> Option<User> {
    let uid = found.id("uid", user.uid);
    let span = user.name.span;
    let group = user.group.map(|group| found.account("group", Some(group), span));
    let groups = found.texts("groups", user.groups, values::account_name);
    let comment = user.comment.and_then(|text| found.text("comment", text, values::passwd_field));
    let path = |text: &str| {
        values::passwd_field(text)?;
        let absolute = text.starts_with('/') && !text.split('/').any(|component| component == "..");
        if absolute { Ok(()) } else { Err(Fault { label: "an absolute path".into(), help: None }) }
    };
    let home = user.home.and_then(|text| found.text("home", text, path));
    let shell = user.shell.and_then(|text| found.text("shell", text, path));
    let name = found.text("name", user.name, values::account_name)?;
    let comment = comment.map(|text| text.value).unwrap_or_default();
    let home = home.map(|text| text.value);
    Some(User { name, uid, group, groups, system: user.system, comment, home, shell })
}

/// Seconds that a check has unless the recipe gives others.
const CHECK_TIMEOUT_S: u32 = 60;

pub(super) fn check_of(found: &mut Found, check: At<schema::CheckTable>) -> Option<Check> {
    let (span, check) = (check.span, check.value);
    let timeout_s = check.timeout.map_or(CHECK_TIMEOUT_S, |timeout| timeout.value);
    let given: Vec<(&str, Span)> = [
        check.unit.as_ref().map(|unit| ("unit", unit.span)),
        check.http.as_ref().map(|http| ("http", http.span)),
        check.command.as_ref().map(|command| ("command", command.span)),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let [(_, first), (_, second), ..] = given[..] {
        let title = "a check has one of `unit`, `http` and `command`, not several";
        found.0.push(Diagnostic::at(second, title, "this one").context(first, "or this one").help("write two checks"));
        return None;
    }
    let kind = if let Some(unit) = check.unit {
        CheckKind::Unit(found.text("unit", unit, values::unit_name)?.value)
    } else if let Some(http) = check.http {
        http_of(found, http.value)?
    } else if let Some(command) = check.command {
        let words: Vec<String> = command.value.into_iter().map(|word| word.value).collect();
        if words.first().is_none_or(String::is_empty) {
            let label = "the program and its arguments, each an item of the list".into();
            found.fault("command", command.span, "", Fault { label, help: None });
        }
        CheckKind::Command(words)
    } else {
        let complaint = Diagnostic::at(span, "`[[check]]` does not say what to check", "");
        let help = "write one of `unit = \"nginx.service\"`, `http = { path = \"/\" }` and `command = [\"/bin/true\"]`";
        found.0.push(complaint.help(help));
        return None;
    };
    Some(Check { span: check.name.span, name: check.name.value, kind, timeout_s })
}

fn http_of(found: &mut Found, http: schema::HttpTable) -> Option<CheckKind> {
    let path = |text: &str| match text.starts_with('/') && !text.contains(|c: char| c.is_control() || c == ' ') {
        true => Ok(()),
        false => Err(Fault { label: "the path begins with `/` and has no spaces".into(), help: None }),
    };
    let path = match http.path {
        Some(text) => found.text("path", text, path)?.value,
        None => "/".into(),
    };
    Some(CheckKind::Http {
        port: http.port.map_or(80, |port| port.value),
        path,
        status: http.status.map_or(200, |status| status.value),
        contains: http.contains.map(|text| text.value),
    })
}
